//! A look round before a run: is everything there that it will need, and may it be used?
//!
//! Owns: what a run needs of its brokers, and what each thing that is missing means for it. It asks
//! through the trainer's own client, and tries records on the trainer's own mapping; nothing is
//! written, committed or dead-lettered.
//!
//! Must never know: how findings are shown.

mod outputs;
mod tried;

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use serde::Serialize;

use super::describe::{self, Description, Settings, kept, retention_of};
use super::log::Log;
use super::refusal::{Refusal, Wish};
use super::source::Sample;
use super::topic::Topic;
use crate::config::Config;
pub use outputs::missing_letters;
pub(crate) use outputs::prepare;

/// The brokers have just answered: what takes longer is a fault.
const WAIT: Duration = Duration::from_secs(5);
/// A trainer that is down over a weekend must find its records again.
const RETENTION_MIN_MS: i64 = 3 * 86_400_000;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// As it should be.
    Ok,
    /// A run works, and somebody may be surprised.
    Warning,
    /// A run ends, or loses something.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What was looked at: ``topic `clicks` ``.
    pub subject: String,
    /// What was found; for all but `Ok` with what to do.
    pub text: String,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Survey {
    /// In the order of looking.
    pub findings: Vec<Finding>,
    /// What the mapping makes of the newest records, if they could be read.
    pub sample: Option<Sample>,
}

impl Survey {
    /// Looks at the brokers of `config`, and tries about `records` of the newest records. A broker
    /// that does not answer, or refuses us, is a finding.
    pub fn take(config: &Config, records: usize) -> Survey {
        let mut survey = Survey::default();
        let log = match Log::of(config) {
            Ok(log) => log,
            Err(error) => {
                survey.fault("kafka client", format!("{error:#}"));
                return survey;
            }
        };
        survey.look(config, &log, records);
        survey
    }

    /// Findings of this weight.
    pub fn count(&self, weight: Weight) -> usize {
        self.findings.iter().filter(|finding| finding.weight == weight).count()
    }

    fn look(&mut self, config: &Config, log: &Log, records: usize) {
        let roles = roles(config);
        let names: Vec<&str> = roles.iter().map(|(name, _)| *name).collect();
        let topic = log.first();
        let inputs = log.topics().len();
        // It waits, and explains what is in the way, as a run does at its start.
        let lanes = log.lanes();
        let found = describe::topics(topic.consumer.client().native_ptr(), &names, WAIT);
        let (found, settings) = match found {
            Ok(Some(found)) => (found, topic.settings(&names, WAIT)),
            _ => {
                let why = lanes.err().map(|error| format!("{error:#}"));
                self.fault("brokers", why.unwrap_or_else(|| "they describe no topic".to_owned()));
                return;
            }
        };
        self.ok("brokers", format!("{} answer", config.kafka.brokers));
        for ((name, role), description) in roles.iter().zip(&found) {
            self.topic(topic, name, *role, description, &settings);
        }
        self.group(config, topic);
        if lanes.is_err() || !found[..inputs].iter().all(|input| input.may_read) {
            return;
        }
        match log.watermarks() {
            Ok(watermarks) => self.records(config, log, &watermarks, records),
            Err(error) => self.fault(&subject(&config.topic_names()), format!("{error:#}")),
        }
    }

    fn topic(
        &mut self,
        topic: &Topic,
        name: &str,
        role: Role,
        found: &Description,
        settings: &Settings,
    ) {
        let (subject, wish) = (subject(name), role.wish(name));
        use RDKafkaErrorCode as Code;
        match found.error {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                let creation = role.creation(&topic.brokers, name);
                self.fault(&subject, format!("does not exist; create it: {creation}"));
                return;
            }
            Some(code) => {
                let refusal = Refusal::of_code(code);
                let text = refusal.map_or_else(
                    || format!("cannot be described: {code}"),
                    |refusal| topic.remedies.explain(refusal, wish, &code.to_string()),
                );
                self.fault(&subject, text);
                return;
            }
            None => {}
        }
        let rights = [(found.may_read, Wish::Read(name)), (found.may_write, Wish::Write(name))];
        for (_, wish) in rights.into_iter().filter(|(may, wish)| !may && role.needs(*wish)) {
            let text = topic.remedies.explain(Refusal::Topic, wish, "authorized operations");
            self.fault(&subject, text);
        }
        let Some(settings) = settings.get(name) else {
            let text = format!("{} partitions; its settings may not be seen", found.partitions);
            self.ok(&subject, text);
            return;
        };
        let value = |key: &str| settings.get(key).map_or("", String::as_str);
        let retention_ms = retention_of(settings).unwrap_or(-1);
        let policy = value("cleanup.policy");
        if let Some(warning) = role.warning(policy, retention_ms, found.partitions) {
            self.push(Weight::Warning, &subject, warning);
        }
        let (partitions, kept) = (found.partitions, kept(retention_ms));
        let text = format!("{partitions} partitions, {policy}, kept {kept}");
        self.ok(&subject, text);
    }

    fn group(&mut self, config: &Config, topic: &Topic) {
        let group = &config.kafka.group;
        if group.is_empty() {
            return;
        }
        let subject = format!("group `{group}`");
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic.name, 0);
        let committed = topic.consumer.committed_offsets(list, WAIT);
        // The refusal itself is an event of its own.
        topic.listen();
        let refused = topic.consumer.context().no_group.load(std::sync::atomic::Ordering::Relaxed);
        match committed {
            Ok(_) if !refused => self.ok(&subject, "takes offsets".to_owned()),
            Err(error) if !refused && Refusal::of(&error) != Some(Refusal::Group) => {
                let text = format!("does not answer ({error}); a run needs it for no record");
                self.push(Weight::Warning, &subject, text);
            }
            _ => {
                let wish = Wish::Commit(group);
                let why =
                    topic.remedies.explain(Refusal::Group, wish, "group authorization failed");
                let text =
                    format!("{why}, or set kafka.group = \"\": a run needs it for no record");
                self.push(Weight::Warning, &subject, text);
            }
        }
    }

    fn ok(&mut self, subject: &str, text: String) {
        self.push(Weight::Ok, subject, text);
    }

    fn fault(&mut self, subject: &str, text: String) {
        self.push(Weight::Fault, subject, text);
    }

    fn push(&mut self, weight: Weight, subject: &str, text: String) {
        self.findings.push(Finding { weight, subject: subject.to_owned(), text });
    }
}

/// What a run does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Input,
    Catalogue,
    Letters,
    Vectors,
    Versions,
}

/// The topics of a run, the inputs first.
fn roles(config: &Config) -> Vec<(&str, Role)> {
    let mut roles: Vec<(&str, Role)> = config.topics().map(|topic| (topic, Role::Input)).collect();
    let catalogues = config.catalogue.iter();
    roles.extend(catalogues.map(|catalogue| (catalogue.topic.as_str(), Role::Catalogue)));
    if !config.kafka.dead_letter_topic.is_empty() {
        roles.push((&config.kafka.dead_letter_topic, Role::Letters));
    }
    if !config.publish.topic.is_empty() {
        roles.push((&config.publish.topic, Role::Vectors));
        roles.push((&config.publish.versions_topic, Role::Versions));
    }
    roles
}

impl Role {
    /// The key of the config that names it.
    fn key(self) -> &'static str {
        match self {
            Role::Input => "kafka.topic",
            Role::Catalogue => "catalogue.topic",
            Role::Letters => "kafka.dead_letter_topic",
            Role::Vectors => "publish.topic",
            Role::Versions => "publish.versions_topic",
        }
    }

    /// Whether a run wishes this. It looks at what it publishes to: which version came last, and
    /// which items an earlier run left.
    fn needs(self, wish: Wish<'_>) -> bool {
        match wish {
            Wish::Read(_) => self != Role::Letters,
            _ => !self.is_read(),
        }
    }

    fn wish(self, name: &str) -> Wish<'_> {
        if self.is_read() { Wish::Read(name) } else { Wish::Write(name) }
    }

    /// Whether it is others who write it.
    fn is_read(self) -> bool {
        matches!(self, Role::Input | Role::Catalogue)
    }

    /// What to say of such a topic that is not there.
    fn missing(self, brokers: &str, name: &str) -> String {
        let (key, creation) = (self.key(), self.creation(brokers, name));
        format!(
            "topic `{name}` ({key}) is not there. Unless the brokers make topics by themselves, \
             create it: {creation}"
        )
    }

    /// The command that creates such a topic.
    fn creation(self, brokers: &str, name: &str) -> String {
        let settings = match self {
            Role::Input => "--partitions 4",
            Role::Letters => "--partitions 1",
            Role::Versions => "--partitions 1 --config cleanup.policy=compact",
            Role::Vectors | Role::Catalogue => "--partitions 4 --config cleanup.policy=compact",
        };
        format!("kafka-topics.sh --bootstrap-server {brokers} --create --topic {name} {settings}")
    }

    /// What somebody may not expect of a topic with these settings.
    fn warning(self, policy: &str, retention_ms: i64, partitions: usize) -> Option<String> {
        let (compacts, deletes) = (policy.contains("compact"), policy.contains("delete"));
        match self {
            Role::Input if compacts => Some(
                "is compacted: of all records with one key only the newest stays, so a replay, or \
                 a trainer that was away, sees fewer events; cleanup.policy=delete keeps them"
                    .to_owned(),
            ),
            Role::Input if deletes && (0..RETENTION_MIN_MS).contains(&retention_ms) => Some(format!(
                "is kept {}: a trainer that is away for longer loses records; raise its \
                 retention.ms",
                kept(retention_ms)
            )),
            Role::Letters if compacts => Some(
                "is compacted: it takes no letter of a record without a key, and a run ends at the \
                 first one; set cleanup.policy=delete"
                    .to_owned(),
            ),
            Role::Catalogue if deletes => {
                Some("deletes rows that a later run needs; set cleanup.policy=compact".to_owned())
            }
            Role::Vectors if !compacts => Some(
                "is not compacted: it holds every version of every vector; set \
                 cleanup.policy=compact, of which the newest remain"
                    .to_owned(),
            ),
            Role::Versions if partitions > 1 => Some(format!(
                "has {partitions} partitions: markers of versions keep their order in one alone"
            )),
            _ => None,
        }
    }
}

fn subject(topic: &str) -> String {
    format!("topic `{topic}`")
}

impl Topic {
    /// Settings of these topics, as far as this client may see them.
    fn settings(&self, names: &[&str], wait: Duration) -> Settings {
        describe::settings(self.remedies.client(), names, wait).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::source::tests::Broker;

    #[test]
    fn settings_that_surprise_are_told() {
        let day = 86_400_000;
        let told =
            |role: Role, policy, retention_ms| role.warning(policy, retention_ms, 1).is_some();
        assert!(told(Role::Input, "compact", -1) && told(Role::Input, "delete", day));
        assert!(!told(Role::Input, "delete", -1) && !told(Role::Input, "delete", 7 * day));
        assert!(told(Role::Letters, "compact", -1) && !told(Role::Letters, "delete", day));
        assert!(told(Role::Vectors, "delete", day) && !told(Role::Vectors, "compact,delete", day));
        assert!(Role::Versions.warning("delete", day, 3).is_some());
        assert!(told(Role::Catalogue, "delete", day) && !told(Role::Catalogue, "compact", -1));
        assert_eq!((kept(-1), kept(7 * day), kept(day / 2)).1, "7 days");
    }

    /// The mock cluster describes no topic: as a broker that stops answering.
    #[test]
    fn brokers_that_do_not_answer_are_a_fault() {
        let mut broker = Broker::new(1);
        broker.config.kafka.brokers = "127.0.0.1:1".to_owned();
        let survey = Survey::take(&broker.config, 10);
        assert_eq!(survey.count(Weight::Fault), 1, "{survey:?}");
        assert!(survey.findings[0].text.contains("check that they run"), "{survey:?}");
    }
}
