//! What the brokers tell of topics, and of what this client may do with them.
//!
//! The binding wraps only part of librdkafka's admin client: not this request, which is the one
//! that answers for rights without trying to use them.
//!
//! Must never know: what a topic is for.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::bindings::{
    self, rd_kafka_AclOperation_t as Operation, rd_kafka_TopicDescription_t as Native,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{IsError as _, RDKafkaErrorCode};
use rdkafka::types::RDKafka;

/// One topic, as the brokers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// Why there is nothing to say about it.
    pub(super) error: Option<RDKafkaErrorCode>,
    pub(super) partitions: usize,
    pub(super) may_read: bool,
    pub(super) may_write: bool,
}

/// Asks for descriptions of topics, in the order of `names`. None: the brokers do not answer in
/// `wait`. `client` must be a live client's.
pub(super) fn topics(
    client: *mut RDKafka,
    names: &[&str],
    wait: Duration,
) -> anyhow::Result<Option<Vec<Description>>> {
    let names: Vec<CString> =
        names.iter().map(|name| CString::new(*name)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive, the names outlive the request, and what is made here is
    // destroyed here, once, after the last look at what belongs to it.
    unsafe {
        use bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS as DESCRIBE;
        let options = bindings::rd_kafka_AdminOptions_new(client, DESCRIBE);
        let none = ptr::null_mut();
        bindings::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, none, 0);
        let error = bindings::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        bindings::rd_kafka_error_destroy(error);
        let collection =
            bindings::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), names.len());
        let queue = bindings::rd_kafka_queue_new(client);
        bindings::rd_kafka_DescribeTopics(client, collection, options, queue);
        let event = bindings::rd_kafka_queue_poll(queue, wait_ms);
        let found = if event.is_null() || bindings::rd_kafka_event_error(event).is_error() {
            None
        } else {
            let result = bindings::rd_kafka_event_DescribeTopics_result(event);
            let mut count = 0;
            let topics = bindings::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            let topics = (0..count).map(|at| *topics.add(at));
            Some(topics.map(|topic| description(topic)).collect())
        };
        if !event.is_null() {
            bindings::rd_kafka_event_destroy(event);
        }
        bindings::rd_kafka_queue_destroy(queue);
        bindings::rd_kafka_TopicCollection_destroy(collection);
        bindings::rd_kafka_AdminOptions_destroy(options);
        Ok(found)
    }
}

/// # Safety
/// `topic` must be one of a result that is alive.
unsafe fn description(topic: *const Native) -> Description {
    // SAFETY: as the caller says; the pointers that come belong to the result.
    unsafe {
        let code = bindings::rd_kafka_error_code(bindings::rd_kafka_TopicDescription_error(topic));
        let error = code.is_error().then(|| code.into());
        let mut partitions = 0;
        bindings::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let mut count = 0;
        let allowed =
            bindings::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
        // Brokers older than 2.3 do not say; then nothing is known to be missing.
        let may = |operation: Operation| {
            allowed.is_null() || (0..count).any(|at| *allowed.add(at) == operation)
        };
        Description {
            error,
            partitions,
            may_read: may(Operation::RD_KAFKA_ACL_OPERATION_READ),
            may_write: may(Operation::RD_KAFKA_ACL_OPERATION_WRITE),
        }
    }
}

/// Settings of topics by name, those that this client may see.
pub(super) type Settings = BTreeMap<String, BTreeMap<String, String>>;

/// Asks for the settings of topics.
pub(super) fn settings(
    client: &ClientConfig,
    names: &[&str],
    wait: Duration,
) -> anyhow::Result<Settings> {
    let admin: AdminClient<DefaultClientContext> = client.create().context("no admin client")?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let topics: Vec<ResourceSpecifier<'_>> =
        names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(wait));
    let answers = runtime.block_on(admin.describe_configs(&topics, &options))?;
    if answers.len() != names.len() {
        bail!("the brokers described {} topics instead of {}", answers.len(), names.len());
    }
    let found = names.iter().zip(answers).filter_map(|(name, answer)| {
        let entries = answer.ok()?.entries.into_iter();
        let values = entries.filter_map(|entry| Some((entry.name, entry.value?)));
        Some(((*name).to_owned(), values.collect()))
    });
    Ok(found.collect())
}

/// For how long a topic with these settings keeps a record, ms, negative for ever; none: it does
/// not delete by age, or does not say.
pub(super) fn retention_of(settings: &BTreeMap<String, String>) -> Option<i64> {
    let deletes = settings.get("cleanup.policy").is_some_and(|policy| policy.contains("delete"));
    settings.get("retention.ms").filter(|_| deletes)?.parse().ok()
}

/// The same of a topic, if the brokers say so in `wait`.
pub(super) fn retention_ms(client: &ClientConfig, topic: &str, wait: Duration) -> Option<i64> {
    retention_of(settings(client, &[topic], wait).ok()?.get(topic)?)
}

/// A retention, ms, in words.
pub(super) fn kept(retention_ms: i64) -> String {
    const DAY: i64 = 86_400_000;
    match retention_ms {
        ..0 => "for ever".to_owned(),
        DAY => "a day".to_owned(),
        ms if ms % DAY == 0 || ms > 10 * DAY => format!("{} days", ms / DAY),
        ms => format!("{:.1} hours", ms as f64 / 3_600_000.0),
    }
}
