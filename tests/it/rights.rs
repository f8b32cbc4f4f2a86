//! Rights of a secured broker's users, given and taken. The binding does not wrap this part of
//! librdkafka.

use std::ffi::{CString, c_int};
use std::ptr;

use rdkafka::bindings::{
    rd_kafka_AclBinding_destroy, rd_kafka_AclBinding_new, rd_kafka_AclBinding_t,
    rd_kafka_AclBindingFilter_new, rd_kafka_AclOperation_t as Operation,
    rd_kafka_AclPermissionType_t as Permission, rd_kafka_CreateAcls,
    rd_kafka_CreateAcls_result_acls, rd_kafka_DeleteAcls,
    rd_kafka_ResourcePatternType_t as Pattern, rd_kafka_ResourceType_t as Resource,
    rd_kafka_acl_result_error, rd_kafka_event_CreateAcls_result, rd_kafka_event_destroy,
    rd_kafka_event_error, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    rd_kafka_resp_err_t,
};
use rdkafka::producer::{BaseProducer, Producer};

use crate::support::{PATIENCE, client_of};

/// One right, to the thing of this name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Right<'n> {
    Read(&'n str),
    Write(&'n str),
    Commit(&'n str),
    Transact(&'n str),
}

impl Right<'_> {
    fn parts(&self) -> (Resource, &str, Operation) {
        use Operation::{
            RD_KAFKA_ACL_OPERATION_READ as READ, RD_KAFKA_ACL_OPERATION_WRITE as WRITE,
        };
        use Resource::{RD_KAFKA_RESOURCE_GROUP as GROUP, RD_KAFKA_RESOURCE_TOPIC as TOPIC};
        match self {
            Right::Read(topic) => (TOPIC, topic, READ),
            Right::Write(topic) => (TOPIC, topic, WRITE),
            Right::Commit(group) => (GROUP, group, READ),
            Right::Transact(id) => (Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID, id, WRITE),
        }
    }
}

/// Gives the rights to `user` (`User:NAME`).
pub(crate) fn allow(brokers: &str, user: &str, rights: &[Right<'_>]) {
    change(brokers, user, rights, true);
}

/// Takes rights away that were given.
pub(crate) fn forbid(brokers: &str, user: &str, rights: &[Right<'_>]) {
    change(brokers, user, rights, false);
}

fn change(brokers: &str, user: &str, rights: &[Right<'_>], give: bool) {
    let producer: BaseProducer = client_of(brokers).create().expect("a client");
    let client = producer.client().native_ptr();
    let [user, host] = [user, "*"].map(|text| CString::new(text).expect("a name"));
    let mut message = [0; 512];
    let mut binding = |right: &Right<'_>| {
        let (resource, name, operation) = right.parts();
        let name = CString::new(name).expect("a name");
        let new = if give { rd_kafka_AclBinding_new } else { rd_kafka_AclBindingFilter_new };
        // SAFETY: all texts are C strings that live through the call, which copies them, and the
        // message has the length that is told.
        let binding = unsafe {
            new(
                resource,
                name.as_ptr(),
                Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                user.as_ptr(),
                host.as_ptr(),
                operation,
                Permission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                message.as_mut_ptr(),
                message.len(),
            )
        };
        assert!(!binding.is_null(), "{right:?}");
        binding
    };
    let mut bindings: Vec<*mut rd_kafka_AclBinding_t> = rights.iter().map(&mut binding).collect();
    let wait = c_int::try_from(PATIENCE.as_millis()).expect("short");
    // SAFETY: the client outlives this function; what is made here is destroyed here, once; and the
    // results belong to the event, which is destroyed after the last look.
    unsafe {
        let queue = rd_kafka_queue_new(client);
        let ask = if give { rd_kafka_CreateAcls } else { rd_kafka_DeleteAcls };
        ask(client, bindings.as_mut_ptr(), bindings.len(), ptr::null(), queue);
        let event = rd_kafka_queue_poll(queue, wait);
        assert!(!event.is_null(), "the brokers do not answer");
        assert_eq!(rd_kafka_event_error(event), rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
        if give {
            let mut count = 0;
            let result = rd_kafka_event_CreateAcls_result(event);
            let results = rd_kafka_CreateAcls_result_acls(result, &raw mut count);
            assert_eq!(count, rights.len());
            for result in std::slice::from_raw_parts(results, count) {
                assert!(rd_kafka_acl_result_error(*result).is_null(), "a right was not given");
            }
        }
        rd_kafka_event_destroy(event);
        rd_kafka_queue_destroy(queue);
        bindings.into_iter().for_each(|binding| rd_kafka_AclBinding_destroy(binding));
    }
}
