//! Refusals: the brokers can be reached, and say no; or they are not the ones that they should be.
//!
//! Owns: which errors are refusals, for how long one is borne, and what a person does about each.
//!
//! Must never know: what is read or sent.

use std::fmt;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::certificate;

/// A broker that restarts may know neither its users nor their rights for a moment, and someone may
/// be changing a password right now. What lasts longer than this takes a person.
pub(crate) const REFUSED_MAX: Duration = Duration::from_secs(60);
/// Until the first answer a mistake in the config is likelier, and the person who made it waits.
pub(crate) const REFUSED_AT_START_MAX: Duration = Duration::from_secs(5);

/// A kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// User, password or token are not accepted.
    Credentials,
    /// There is no TLS connection: mostly a certificate that does not hold.
    Certificate,
    /// No right to the topic.
    Topic,
    /// No right to the consumer group.
    Group,
    /// No right to produce with idempotence: brokers give it to whoever may write to any topic.
    Cluster,
    /// No right to transactions of this name.
    Transactions,
}

impl Refusal {
    /// The refusal that `error` is, if it is one.
    pub(crate) fn of(error: &KafkaError) -> Option<Refusal> {
        Refusal::of_code(error.rdkafka_error_code()?)
    }

    /// The refusal that `code` is, if it is one.
    pub(crate) fn of_code(code: RDKafkaErrorCode) -> Option<Refusal> {
        use RDKafkaErrorCode as Code;
        match code {
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism => Some(Refusal::Credentials),
            Code::SSL => Some(Refusal::Certificate),
            Code::TopicAuthorizationFailed => Some(Refusal::Topic),
            Code::GroupAuthorizationFailed => Some(Refusal::Group),
            Code::ClusterAuthorizationFailed => Some(Refusal::Cluster),
            Code::TransactionalIdAuthorizationFailed => Some(Refusal::Transactions),
            _ => None,
        }
    }
}

/// What was to be done when the refusal came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish<'n> {
    /// To read the topic of this name.
    Read(&'n str),
    /// To write to the topic of this name.
    Write(&'n str),
    /// To commit offsets to the group of this name.
    Commit(&'n str),
    /// To write in transactions of this name.
    Transact(&'n str),
}

impl fmt::Display for Wish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Read(topic) => write!(f, "read topic `{topic}`"),
            Wish::Write(topic) => write!(f, "write to topic `{topic}`"),
            Wish::Commit(group) => write!(f, "commit offsets to group `{group}`"),
            Wish::Transact(id) => write!(f, "write in transactions of the name `{id}`"),
        }
    }
}

impl Wish<'_> {
    /// Arguments of Kafka's own command that grant it.
    fn grant(self) -> String {
        match self {
            Wish::Read(topic) => format!("--operation Read --topic {topic}"),
            Wish::Write(topic) => format!("--operation Write --topic {topic}"),
            Wish::Commit(group) => format!("--operation Read --group {group}"),
            // The right to write includes the one to describe.
            Wish::Transact(id) => format!("--operation Write --transactional-id {id}"),
        }
    }
}

/// The words for refusals: each says what to do. Values of `kafka.properties` are in none of them.
#[derive(Clone)]
pub(crate) struct Remedies {
    brokers: String,
    client: ClientConfig,
}

impl Remedies {
    /// For clients that are made as `client`.
    pub(crate) fn new(brokers: &str, client: ClientConfig) -> Remedies {
        Remedies { brokers: brokers.to_owned(), client }
    }

    /// The properties of these clients.
    pub(crate) fn client(&self) -> &ClientConfig {
        &self.client
    }

    /// Says what was refused and what to do about it; `said` are librdkafka's words. Takes seconds
    /// if TLS failed: it then connects once more, to see why.
    pub(crate) fn explain(&self, refusal: Refusal, wish: Wish<'_>, said: &str) -> String {
        let brokers = &self.brokers;
        match refusal {
            Refusal::Credentials => format!(
                "the brokers {brokers} do not accept the credentials ({said}); correct \
                 \"sasl.username\", \"sasl.password\" or \"sasl.mechanism\" in kafka.properties \
                 (with OAUTHBEARER: the client and the endpoint of \"sasl.oauthbearer\")"
            ),
            Refusal::Certificate => match certificate::flaw(&self.client) {
                Some(flaw) => format!("there is no TLS connection to the brokers: {flaw}"),
                None => format!(
                    "there is no TLS connection to the brokers {brokers} ({said}); check in \
                     kafka.properties that \"security.protocol\" is the listener's, and, if it \
                     asks for a certificate of ours, \"ssl.certificate.location\" and \
                     \"ssl.key.location\""
                ),
            },
            Refusal::Topic | Refusal::Group | Refusal::Transactions => format!(
                "the brokers {brokers} do not allow this client to {wish}{}; allow it: {}",
                // Who may not see a topic is told the same of one that is not there.
                if refusal == Refusal::Topic { ", or it does not exist" } else { "" },
                self.command(wish)
            ),
            Refusal::Cluster => format!(
                "the brokers {brokers} do not allow this client to produce: it may write to no \
                 topic; allow it to {wish}: {}",
                self.command(wish)
            ),
        }
    }

    fn command(&self, wish: Wish<'_>) -> String {
        format!(
            "kafka-acls.sh --bootstrap-server {} --add --allow-principal User:NAME {} (NAME: the \
             user that the brokers know this client as)",
            self.brokers,
            wish.grant()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_pass_by_themselves_are_no_refusals() {
        use RDKafkaErrorCode as Code;
        let passing = [
            Code::BrokerTransportFailure,
            Code::AllBrokersDown,
            Code::UnknownTopicOrPartition,
            Code::NotLeaderForPartition,
            Code::OperationTimedOut,
        ];
        assert!(passing.into_iter().all(|code| Refusal::of_code(code).is_none()));
        assert_eq!(Refusal::of(&KafkaError::Global(Code::SSL)), Some(Refusal::Certificate));
    }

    #[test]
    fn each_refusal_says_what_to_do_and_no_value_of_a_property() {
        let mut client = ClientConfig::new();
        client.set("sasl.password", "5ecret");
        let remedies = Remedies::new("kafka-1:9093", client);
        let wishes = [
            Wish::Read("clicks"),
            Wish::Write("dead"),
            Wish::Commit("dash"),
            Wish::Transact("millrace-out"),
        ];
        let cases = [
            (Refusal::Credentials, wishes[0], "\"sasl.password\""),
            (Refusal::Topic, wishes[0], "--operation Read --topic clicks"),
            (Refusal::Topic, wishes[1], "--operation Write --topic dead"),
            (Refusal::Group, wishes[2], "--operation Read --group dash"),
            (Refusal::Cluster, wishes[1], "--operation Write --topic dead"),
            (Refusal::Transactions, wishes[3], "--operation Write --transactional-id millrace-out"),
        ];
        for (refusal, wish, remedy) in cases {
            let text = remedies.explain(refusal, wish, "no");
            assert!(text.contains(remedy) && text.contains("kafka-1:9093"), "{text}");
            assert!(!text.contains("5ecret"), "{text}");
        }
    }
}
