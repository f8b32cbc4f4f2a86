//! One topic: the questions that its brokers answer.
//!
//! Owns: the connection to ask through, how long an answer is waited for, and what to tell a person
//! who gets none.
//!
//! Must never know: records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Watch};
use super::position::Position;
use super::refusal::{REFUSED_AT_START_MAX, Refusal, Remedies, Wish};
use crate::config::Config;
use millrace_events::Offsets;

/// A broker that is up answers in milliseconds; one that is being restarted within seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a missing topic or an unreachable broker is waited for: long enough for an
/// auto-created topic or a restart, short enough to tell the person who just started us.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// For log lines, which come first, to be passed on.
const LISTEN: Duration = Duration::from_millis(50);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long an answer about its partitions is waited for while a topic is read.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(2);

/// The time between two looks for new partitions; none: nobody looks.
pub(super) fn discover(config: &Config) -> Option<Duration> {
    let every = config.kafka.discover_s;
    (every > 0).then(|| Duration::from_secs(every))
}

/// First offset kept and next offset to be written, by partition. With `read_committed` (which
/// [`super::client`] sets) the latter is the end of what is committed.
pub type Watermarks = BTreeMap<i32, (i64, i64)>;

/// A topic, and a connection to the brokers that have it.
pub struct Topic {
    pub(crate) consumer: Arc<BaseConsumer<Watch>>,
    pub(crate) name: String,
    pub(super) brokers: String,
    pub(super) remedies: Remedies,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Topic { name, brokers, .. } = self;
        f.debug_struct("Topic").field("name", name).field("brokers", brokers).finish()
    }
}

impl Topic {
    /// Any topic on the brokers of `config`.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub(crate) fn named(name: &str, config: &Config) -> anyhow::Result<Topic> {
        Ok(Topic::on(client::consumer(config)?, name, config))
    }

    /// Any topic, to read `partitions` of its partitions.
    ///
    /// # Errors
    /// As [`Topic::named`].
    pub(super) fn to_read(config: &Config, name: &str, partitions: usize) -> anyhow::Result<Topic> {
        Ok(Topic::on(client::consumer_of(config, partitions)?, name, config))
    }

    /// Another topic, over the same connection.
    pub(super) fn beside(&self, name: &str) -> Topic {
        let Topic { consumer, brokers, remedies, .. } = self;
        let (consumer, name) = (Arc::clone(consumer), name.to_owned());
        Topic { consumer, name, brokers: brokers.clone(), remedies: remedies.clone() }
    }

    fn on(consumer: BaseConsumer<Watch>, name: &str, config: &Config) -> Topic {
        let (name, brokers) = (name.to_owned(), config.kafka.brokers.clone());
        Topic { consumer: Arc::new(consumer), name, brokers, remedies: client::remedies(config) }
    }

    /// Its partitions. A topic that is not there yet, and brokers that do not answer, are waited
    /// for, but not for long.
    ///
    /// # Errors
    /// A message that names topic and brokers and says what to do.
    pub fn partitions(&self) -> anyhow::Result<Vec<i32>> {
        let started = Instant::now();
        loop {
            let failure = match self.ask(&self.name, REQUEST_TIMEOUT) {
                Ok(ids) if !ids.is_empty() => return Ok(ids),
                Ok(_) => None,
                Err(failure) => failure,
            };
            let refusal = self.refusal(failure);
            let wait = if refusal.is_some() { REFUSED_AT_START_MAX } else { WAIT_MAX };
            if started.elapsed() >= wait || failure == Some(RDKafkaErrorCode::InvalidTopic) {
                let silent = refusal.is_none()
                    && failure != Some(RDKafkaErrorCode::InvalidTopic)
                    && failure.is_some_and(|code| !MISSING.contains(&code));
                let said = self.explain_missing(failure, refusal);
                return Err(if silent { NoAnswer(said).into() } else { anyhow!(said) });
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    /// Its partitions as of now, in one request; without any it is not there. None: no answer
    /// within `wait`, or one that tells nothing.
    pub(super) fn look(&self, wait: Duration) -> Option<Vec<i32>> {
        self.look_at(&self.name, wait)
    }

    fn look_at(&self, name: &str, wait: Duration) -> Option<Vec<i32>> {
        match self.ask(name, wait) {
            Ok(ids) => Some(ids),
            Err(failure) => failure.filter(|code| MISSING.contains(code)).map(|_| Vec::new()),
        }
    }

    /// The partitions of a topic, by number, in one request; or the brokers' or the client's reason
    /// that there is no answer.
    fn ask(&self, name: &str, wait: Duration) -> Result<Vec<i32>, Option<RDKafkaErrorCode>> {
        let metadata = self.consumer.fetch_metadata(Some(name), wait);
        let metadata = metadata.map_err(|error| error.rdkafka_error_code())?;
        let found = metadata.topics().first().ok_or(None)?;
        if let Some(error) = found.error() {
            return Err(Some(error.into()));
        }
        let mut ids: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Hears what waits to be polled. A request that found no broker knows nothing of the reason,
    /// which comes in this way. Not for a consumer that reads.
    pub(super) fn listen(&self) {
        while let Some(Err(_)) = self.consumer.poll(LISTEN) {}
    }

    /// Whether the brokers refuse us, given the failure of a request.
    fn refusal(&self, failure: Option<RDKafkaErrorCode>) -> Option<(Refusal, String)> {
        self.listen();
        let answered = failure.and_then(|code| Some((Refusal::of_code(code)?, code.to_string())));
        answered.or_else(|| self.consumer.context().errors.refusing())
    }

    fn explain_missing(
        &self,
        failure: Option<RDKafkaErrorCode>,
        refusal: Option<(Refusal, String)>,
    ) -> String {
        use RDKafkaErrorCode as Code;
        let Topic { name, brokers, .. } = self;
        if let Some((refusal, said)) = refusal {
            return self.remedies.explain(refusal, Wish::Read(name), &said);
        }
        match failure {
            None
            | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                format!(
                    "topic `{name}` does not exist on {brokers}; create it (kafka-topics.sh \
                     --bootstrap-server {brokers} --create --topic {name} --partitions 4) or \
                     correct kafka.topic"
                )
            }
            Some(Code::InvalidTopic) => {
                format!("the brokers {brokers} say that `{name}` is no name of a topic; correct it")
            }
            Some(code) => {
                let last = match self.last_error() {
                    last if last.is_empty() => code.to_string(),
                    last => last,
                };
                format!(
                    "no answer from the brokers {brokers} about topic `{name}` ({last}); check \
                     that they run, that kafka.brokers is right, and that \"security.protocol\" in \
                     kafka.properties is the one of their listener"
                )
            }
        }
    }

    /// First and next offsets of every partition.
    ///
    /// # Errors
    /// As [`Topic::partitions`].
    pub fn watermarks(&self) -> anyhow::Result<Watermarks> {
        self.bounds(&self.partitions()?)
    }

    /// First and next offsets of the partitions that have a leader, and those that have none.
    ///
    /// # Errors
    /// As [`Topic::partitions`].
    pub fn bounds_known(&self) -> anyhow::Result<(Watermarks, Vec<i32>)> {
        self.partitions()?; // Its errors say what to do.
        let metadata =
            patiently(|| self.consumer.fetch_metadata(Some(&self.name), REQUEST_TIMEOUT));
        let metadata = metadata.with_context(|| format!("cannot ask {}", self.brokers))?;
        let (mut led, mut silent) = (Vec::new(), Vec::new());
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let list = if partition.leader() < 0 { &mut silent } else { &mut led };
            list.push(partition.id());
        }
        Ok((self.bounds(&led)?, silent))
    }

    /// First and next offsets of these partitions.
    ///
    /// # Errors
    /// One that has no leader, or brokers that do not answer.
    pub(super) fn bounds(&self, partitions: &[i32]) -> anyhow::Result<Watermarks> {
        let mut watermarks = Watermarks::new();
        for &partition in partitions {
            let bounds = patiently(|| {
                self.consumer.fetch_watermarks(&self.name, partition, REQUEST_TIMEOUT)
            });
            let bounds = bounds.with_context(|| {
                format!("cannot ask {} for the bounds of {}/{partition}", self.brokers, self.name)
            })?;
            watermarks.insert(partition, bounds);
        }
        Ok(watermarks)
    }

    /// The offsets of `position` in every partition, within what the log holds now.
    ///
    /// # Errors
    /// As [`Topic::partitions`].
    pub fn resolve(&self, position: Position) -> anyhow::Result<Offsets> {
        let watermarks = self.watermarks()?;
        let times = match position {
            Position::TimeMs(ms) => {
                patiently(|| self.first_since(&watermarks, ms)).with_context(|| {
                    format!("cannot ask {} for {position} in {}", self.brokers, self.name)
                })?
            }
            _ => BTreeMap::new(),
        };
        let mut offsets = Offsets::new(self.name.as_str());
        for (&partition, &(low, high)) in &watermarks {
            let next = match position {
                Position::Earliest => low,
                Position::Latest => high,
                Position::Offset(offset) => offset.clamp(low, high),
                Position::Percent(percent) => {
                    low + ((high - low) as f64 * percent / 100.0).floor() as i64
                }
                Position::TimeMs(_) => {
                    times.get(&partition).map_or(high, |&at| at.clamp(low, high))
                }
            };
            offsets.advance(partition, next);
        }
        Ok(offsets)
    }

    /// Offsets of the first records at or after `ms`; a partition without one is not in it.
    fn first_since(
        &self,
        watermarks: &Watermarks,
        ms: i64,
    ) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let mut query = TopicPartitionList::new();
        for &partition in watermarks.keys() {
            query.add_partition_offset(&self.name, partition, Offset::Offset(ms))?;
        }
        let answer = self.consumer.offsets_for_times(query, REQUEST_TIMEOUT)?;
        let mut found = BTreeMap::new();
        for element in answer.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                found.insert(element.partition(), offset);
            }
        }
        Ok(found)
    }

    /// Assigns the newest `share` records of each partition that holds any. Returns how many do.
    ///
    /// # Errors
    /// If librdkafka refuses the assignment.
    pub(super) fn assign_newest(&self, bounds: &Watermarks, share: i64) -> anyhow::Result<usize> {
        let mut list = TopicPartitionList::new();
        for (&partition, &(low, high)) in bounds.iter().filter(|(_, (low, high))| low < high) {
            let from = Offset::Offset((high - share).max(low));
            list.add_partition_offset(&self.name, partition, from)?;
        }
        self.consumer.assign(&list)?;
        Ok(list.count())
    }

    /// The id of its cluster; none: the brokers do not say.
    pub fn cluster(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(REQUEST_TIMEOUT)
    }

    /// Whether the brokers say that another topic is not there.
    pub fn is_missing(&self, other: &str) -> bool {
        self.look_at(other, REQUEST_TIMEOUT).is_some_and(|partitions| partitions.is_empty())
    }

    /// The end of a partition as of the last fetch; none before the first one.
    pub(super) fn cached_end(&self, partition: i32) -> Option<i64> {
        let name = std::ffi::CString::new(self.name.as_str()).ok()?;
        let (mut low, mut high) = (0_i64, 0_i64);
        // rdkafka wraps only the variant that asks the broker, and would block for it.
        // SAFETY: the client outlives the call, the name is a C string, and both results are ours.
        let answer = unsafe {
            rdkafka::bindings::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                name.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        let known =
            answer == rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
        known.then_some(high)
    }

    /// The place of the next record of a partition, given those that were taken: past the markers
    /// of transactions, and past what these took back. None before the first one.
    pub(super) fn position(&self, partition: i32) -> Option<i64> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.name, partition);
        // rdkafka wraps only the variant that asks for the whole assignment.
        // SAFETY: the client and the list outlive the call.
        unsafe {
            rdkafka::bindings::rd_kafka_position(self.consumer.client().native_ptr(), list.ptr());
        }
        match list.find_partition(&self.name, partition)?.offset() {
            Offset::Offset(next) => Some(next),
            _ => None,
        }
    }

    /// Whether an error is about the consumer group, which nobody reads by.
    pub(crate) fn is_of_group(&self, error: &KafkaError) -> bool {
        Refusal::of(error) == Some(Refusal::Group)
    }

    /// Why it could not be read, and what to do.
    pub(crate) fn explain_reading(&self, error: &KafkaError) -> anyhow::Error {
        match Refusal::of(error) {
            Some(refusal) => {
                anyhow!(self.remedies.explain(refusal, Wish::Read(&self.name), &error.to_string()))
            }
            None => anyhow!("topic `{}` cannot be read: {error}", self.name),
        }
    }

    /// The last error of the connection, for a message.
    pub(super) fn last_error(&self) -> String {
        self.consumer.context().errors.last()
    }
}

/// The brokers gave no answer, or none that tells: this may pass by itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

/// What brokers say of a topic that is not there.
const MISSING: [RDKafkaErrorCode; 3] = [
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::UnknownTopic,
    RDKafkaErrorCode::UnknownPartition,
];

/// Asks until there is an answer or [`WAIT_MAX`] is over.
fn patiently<T>(mut ask: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if started.elapsed() >= WAIT_MAX => return Err(error),
            Err(_) => std::thread::sleep(RETRY_PAUSE),
        }
    }
}

/// Records of each partition, or lane, between `next` and its `end`, where that is known.
pub(super) fn lag(next: &Offsets, end: impl Fn(i32) -> Option<i64>) -> Vec<(i32, i64)> {
    let lag = |(lane, next): (i32, i64)| Some((lane, (end(lane)? - next).max(0)));
    next.iter().filter_map(lag).collect()
}
