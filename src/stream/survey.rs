//! A look round before a run: is everything there that it will need, and may it be used?
//!
//! Owns: what a run needs of its brokers, and what each thing that is missing means for it. It asks
//! through the trainer's own client, and tries records on the trainer's own mapping; nothing is
//! written, committed or dead-lettered.
//!
//! Must never know: how findings are shown.

mod outputs;

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use serde::Serialize;

use super::calendar::{date_of, now_ms};
use super::describe::{self, Description, Settings, kept, retention_of};
use super::refusal::{Refusal, Wish};
use super::source::{Sample, sample};
use super::topic::{Topic, Watermarks};
use crate::config::Config;
pub use outputs::missing_letters;
pub(crate) use outputs::prepare;

/// The brokers have just answered: what takes longer is a fault.
const WAIT: Duration = Duration::from_secs(5);
/// A record this far ahead shows a wrong clock; hosts that keep time differ by milliseconds.
const AHEAD_MAX_MS: i64 = 5_000;
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
        let topic = match Topic::of(config) {
            Ok(topic) => topic,
            Err(error) => {
                survey.fault("kafka client", format!("{error:#}"));
                return survey;
            }
        };
        survey.look(config, &topic, records);
        survey
    }

    /// Findings of this weight.
    pub fn count(&self, weight: Weight) -> usize {
        self.findings.iter().filter(|finding| finding.weight == weight).count()
    }

    fn look(&mut self, config: &Config, topic: &Topic, records: usize) {
        let roles = roles(config);
        let names: Vec<&str> = roles.iter().map(|(name, _)| *name).collect();
        let input = subject(&topic.name);
        // It waits, and explains what is in the way, as a run does at its start.
        let partitions = topic.partitions();
        let found = describe::topics(topic.consumer.client().native_ptr(), &names, WAIT);
        let (found, settings) = match found {
            Ok(Some(found)) => (found, topic.settings(&names, WAIT)),
            _ => {
                let why = partitions.err().map(|error| format!("{error:#}"));
                self.fault("brokers", why.unwrap_or_else(|| "they describe no topic".to_owned()));
                return;
            }
        };
        self.ok("brokers", format!("{} answer", config.kafka.brokers));
        for ((name, role), description) in roles.iter().zip(&found) {
            self.topic(topic, name, *role, description, &settings);
        }
        self.group(config, topic);
        if partitions.is_err() || !found[0].may_read {
            return;
        }
        match topic.watermarks() {
            Ok(watermarks) => self.records(config, topic, &watermarks, records),
            Err(error) => self.fault(&input, format!("{error:#}")),
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

    fn records(&mut self, config: &Config, topic: &Topic, watermarks: &Watermarks, records: usize) {
        let subject = subject(&topic.name);
        let there: i64 = watermarks.values().map(|(low, high)| high - low).sum();
        if there == 0 {
            let text = "holds no record, so none was tried".to_owned();
            self.push(Weight::Warning, &subject, text);
            return;
        }
        let sample = match sample(topic, watermarks, config, records) {
            Ok(sample) => sample,
            Err(error) => {
                self.fault(&subject, format!("{error:#}"));
                return;
            }
        };
        self.mapping(config, &sample);
        self.clock(&sample, now_ms());
        self.sample = Some(sample);
    }

    /// What a run would make of records like these.
    fn mapping(&mut self, config: &Config, sample: &Sample) {
        let records = sample.records();
        let rejected = records - sample.accepted - sample.skipped;
        let mut text = format!("{} of the newest {records} records are accepted", sample.accepted);
        if sample.skipped > 0 {
            text += &format!(", {} are no events", sample.skipped);
        }
        let share_max = config.kafka.rejected_share_max;
        if records == 0 {
            let text = "none of the newest offsets holds a record".to_owned();
            self.push(Weight::Warning, "sample", text);
        } else if rejected as f64 > share_max * records as f64 {
            let limit = share_max * 100.0;
            let text = format!(
                "{text}: a run stops above {limit}% rejected; correct the mapping or the producer"
            );
            self.fault("sample", text);
        } else if rejected > 0 || sample.accepted == 0 {
            self.push(Weight::Warning, "sample", text);
        } else {
            self.ok("sample", text);
        }
        if sample.odd_times > 0 {
            let text = format!(
                "{} events lie more than ten years from their record's time; is timestamp.unit \
                 right?",
                sample.odd_times
            );
            self.push(Weight::Warning, "event times", text);
        } else if let Some((oldest, newest)) = sample.event_times_ms {
            let day = |time_ms: i64| date_of(time_ms.div_euclid(86_400_000));
            self.ok("event times", format!("from {} to {} (UTC)", day(oldest), day(newest)));
        }
    }

    /// Compares the newest record's clock with ours.
    fn clock(&mut self, sample: &Sample, now_ms: i64) {
        let Some(record_ms) = sample.newest_record_ms else { return };
        let whose = if sample.by_broker { "the broker's" } else { "its producer's" };
        let ahead_ms = record_ms - now_ms;
        if ahead_ms > AHEAD_MAX_MS {
            let text = format!(
                "the newest record is of a time {} s ahead, by {whose} clock; correct that clock, \
                 or the one here",
                ahead_ms / 1000
            );
            self.push(Weight::Warning, "clock", text);
        } else {
            let age = -ahead_ms.min(0) / 1000;
            self.ok("clock", format!("the newest record is {age} s old, by {whose} clock"));
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

/// The topics of a run, the input first.
fn roles(config: &Config) -> Vec<(&str, Role)> {
    let mut roles = vec![(config.kafka.topic.as_str(), Role::Input)];
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
    use crate::stream::source::Reason;
    use crate::stream::source::tests::Broker;

    fn survey_of(sample: &Sample) -> Survey {
        let mut survey = Survey::default();
        survey.mapping(&Config::default(), sample);
        survey
    }

    #[test]
    fn a_sample_that_would_stop_a_run_is_a_fault() {
        let rejected = |count| [("not_json", Reason { count, example: String::new() })].into();
        let sample =
            |accepted, count| Sample { accepted, rejected: rejected(count), ..Sample::default() };
        let weights = [(100, 0, Weight::Ok), (95, 5, Weight::Warning), (94, 6, Weight::Fault)];
        for (accepted, count, weight) in weights {
            let survey = survey_of(&sample(accepted, count));
            assert_eq!(survey.findings[0].weight, weight, "{survey:?}");
        }
    }

    #[test]
    fn a_clock_ahead_is_told_with_whose_it_is() {
        let mut survey = Survey::default();
        let now_ms = 1_700_000_000_000;
        for (ahead_ms, by_broker) in [(-60_000, false), (4_000, true), (36_000_000, true)] {
            let newest_record_ms = Some(now_ms + ahead_ms);
            survey.clock(&Sample { newest_record_ms, by_broker, ..Sample::default() }, now_ms);
        }
        let weights: Vec<Weight> = survey.findings.iter().map(|finding| finding.weight).collect();
        assert_eq!(weights, [Weight::Ok, Weight::Ok, Weight::Warning]);
        assert!(survey.findings[0].text.contains("60 s old, by its producer's"), "{survey:?}");
        assert!(survey.findings[2].text.contains("36000 s ahead, by the broker's"), "{survey:?}");
    }

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
