//! librdkafka's clients as the whole program makes them.
//!
//! Owns: every property that the program relies on, each with its reason; the config's
//! `kafka.properties` go on top. librdkafka's own messages reach the log through here.
//!
//! Must never know: what is read or sent.

mod contact;
mod errors;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, ProducerContext};
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use contact::Owed;
pub(crate) use errors::Errors;

use super::refusal::{Refusal, Remedies};
use crate::config::Config;

/// A record of 2 MB must pass, in and out, whatever its headers add.
pub(crate) const MESSAGE_BYTES_MAX: usize = 10 << 20;

/// The consumer of interactions. Also good for asking about topics.
///
/// # Errors
/// A property that librdkafka does not know, or a value that it does not take.
pub fn consumer(config: &Config) -> anyhow::Result<BaseConsumer<Watch>> {
    consumer_of(config, 1)
}

/// Bytes that are fetched ahead of us over all partitions, and at most one fetch more of each: some
/// 60,000 records, which a trainer reads in a third of a second.
pub(crate) const AHEAD_BYTES: usize = 16 << 20;
/// Below this a fetch costs more in requests than it saves in memory.
const AHEAD_BYTES_MIN: usize = 128 << 10;
/// A fetch brings at most about this many bytes of one partition (a single larger record still
/// comes, KIP-74).
const FETCH_BYTES_MAX: usize = 1 << 20;

/// How old the figures of [`Watch::uncommitted`] may be, and what is known of brokers that break no
/// connection. Writing and reading them takes some 5 ms for a thousand partitions.
const STATISTICS_MS: u32 = 5_000;

/// As [`consumer`], to read `partitions` partitions, each from a queue of its own.
pub(crate) fn consumer_of(
    config: &Config,
    partitions: usize,
) -> anyhow::Result<BaseConsumer<Watch>> {
    let ahead = (AHEAD_BYTES / partitions.max(1)).max(AHEAD_BYTES_MIN);
    let mut client = base(config);
    // Only offset commits need a group: dashboards read them, and no run reads on from them.
    client.set("group.id", group(config));
    // A client that ends while the group's coordinator is away waits this long for its last commit.
    // The default of 45 s is longer than an orchestrator lets a process take to end.
    client.set("session.timeout.ms", "6000");
    // Offsets travel with the data into checkpoints; a commit by itself would claim more.
    client.set("enable.auto.commit", "false");
    client.set("enable.auto.offset.store", "false");
    // An offset that is not in the log is data loss: someone must decide, not a default.
    client.set("auto.offset.reset", "error");
    // The only sure sign of an end: the last offset may be a marker, or compacted away.
    client.set("enable.partition.eof", "true");
    // Aborted events never happened.
    client.set("isolation.level", "read_committed");
    // The default of 1 s stops the stream for that long after every full queue.
    client.set("fetch.queue.backoff.ms", "5");
    // A caught-up partition says so at latest after this long; meanwhile it holds back the merge.
    client.set("fetch.wait.max.ms", "100");
    // A bound on each partition's queue.
    client.set("queued.max.messages.kbytes", (ahead >> 10).to_string());
    client.set("fetch.message.max.bytes", (ahead / 2).min(FETCH_BYTES_MAX).to_string());
    // A response must hold the largest record beside the fetches of many partitions.
    client.set("fetch.max.bytes", (5 * MESSAGE_BYTES_MAX).to_string());
    client.set("receive.message.max.bytes", (6 * MESSAGE_BYTES_MAX).to_string());
    client.set("statistics.interval.ms", STATISTICS_MS.to_string());
    // A flipped bit on the way must not become a wrong event.
    client.set("check.crcs", "true");
    on_top(&mut client, config)
        .create_with_context(Watch::default())
        .map_err(|error| refused(config, &error))
}

/// A producer that loses and repeats nothing while it lives; `linger_ms` trades delay for larger
/// requests, `queue_kbytes` bounds what waits to be sent. A record fails that was on its way for
/// `delivery_wait`; none: it waits for the brokers without end. A `transactional` one sends
/// nothing outside of transactions.
///
/// # Errors
/// As [`consumer`].
pub(crate) fn producer(
    config: &Config,
    linger_ms: u32,
    queue_kbytes: usize,
    delivery_wait: Option<Duration>,
    transactional: Option<&Transactional>,
) -> anyhow::Result<BaseProducer<Deliveries>> {
    let mut client = base(config);
    if let Some(Transactional { id, timeout }) = transactional {
        client.set("transactional.id", id);
        client.set("transaction.timeout.ms", timeout.as_millis().to_string());
    }
    // Retries neither repeat nor reorder records; implies acks=all.
    client.set("enable.idempotence", "true");
    client.set("message.max.bytes", MESSAGE_BYTES_MAX.to_string());
    client.set("linger.ms", linger_ms.to_string());
    client.set("queue.buffering.max.kbytes", queue_kbytes.to_string());
    client.set("queue.buffering.max.messages", "500000");
    // Fast enough to never be the limit, and text shrinks to a third.
    client.set("compression.type", "lz4");
    // To librdkafka 0 means no end.
    let wait = delivery_wait.map_or(0, |wait| wait.as_millis());
    client.set("message.timeout.ms", wait.to_string());
    // Java's default: a user's records go where another producer of the same topic puts them.
    client.set("partitioner", "murmur2_random");
    on_top(&mut client, config)
        .create_with_context(Deliveries::default())
        .map_err(|error| refused(config, &error))
}

/// What makes a producer one of transactions.
#[derive(Clone, Debug)]
pub(crate) struct Transactional {
    /// Of all producers with this name (`transactional.id`) the newest alone may write.
    pub(crate) id: String,
    /// The brokers give up a transaction that is open for longer. Meanwhile readers wait at its
    /// first record.
    pub(crate) timeout: Duration,
}

/// How long a record may be on its way if someone waits for it: a broker may take this long to
/// restart.
pub(crate) const DELIVERY_WAIT_MAX: Duration = Duration::from_secs(60);

/// The consumer group. librdkafka wants a name even if nothing is ever committed to it.
fn group(config: &Config) -> &str {
    match config.kafka.group.as_str() {
        "" => "millrace",
        group => group,
    }
}

fn base(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.kafka.brokers);
    client.set("client.id", &config.kafka.client_id);
    client.set_log_level(RDKafkaLogLevel::Info);
    client
}

/// What to say when the brokers refuse a client of `config`.
pub(crate) fn remedies(config: &Config) -> Remedies {
    let mut client = base(config);
    on_top(&mut client, config);
    Remedies::new(&config.kafka.brokers, client)
}

fn on_top<'c>(client: &'c mut ClientConfig, config: &Config) -> &'c ClientConfig {
    for (key, value) in &config.kafka.properties {
        client.set(key, value);
    }
    client
}

/// Why there is no client. librdkafka quotes the value that it does not take, which may be a
/// password; the key tells enough.
fn refused(config: &Config, error: &KafkaError) -> anyhow::Error {
    let given: Vec<&String> = config.kafka.properties.keys().collect();
    let reason = match error {
        KafkaError::ClientConfig(_, reason, key, value) if !value.is_empty() => {
            format!("{} ({key})", reason.replace(value.as_str(), "..."))
        }
        error => error.to_string(),
    };
    anyhow!(
        "cannot make a Kafka client; check kafka.brokers and kafka.properties {given:?}: {reason}"
    )
}

/// librdkafka's messages to a consumer, besides records.
#[derive(Debug, Default)]
pub struct Watch {
    pub(crate) errors: Errors,
    /// The brokers do not allow the consumer group, which no run reads on from.
    pub(crate) no_group: AtomicBool,
    owed: Mutex<Owed>,
    /// The newest statistics' last stable offset and high watermark, by topic and partition.
    ends: Mutex<BTreeMap<(String, i32), (i64, i64)>>,
}

impl Watch {
    /// Records from the beginning of a transaction that has not ended to the log's end.
    pub(super) fn uncommitted(&self, topic: &str, partition: i32) -> i64 {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.get(&(topic.to_owned(), partition));
        end.map_or(0, |&(stable, high)| (high - stable).max(0))
    }
}

impl ClientContext for Watch {
    fn stats(&self, statistics: Statistics) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        self.errors.contact(owed.look(statistics.brokers.values(), Instant::now()));
        drop(owed);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, seen) in statistics.topics {
            for (id, partition) in seen.partitions {
                // Before the first fetch there is neither.
                if partition.ls_offset >= 0 && partition.hi_offset >= 0 {
                    ends.insert((topic.clone(), id), (partition.ls_offset, partition.hi_offset));
                }
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.hint(facility, message);
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Reaching the end of a partition is no error, only librdkafka's way to say it.
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            return;
        }
        if Refusal::of(&error) == Some(Refusal::Group) {
            self.no_group.store(true, Ordering::Relaxed);
        } else {
            self.errors.note(&error, reason);
        }
    }
}

impl ConsumerContext for Watch {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        let Err(error) = result else { return };
        if Refusal::of(&error) != Some(Refusal::Group) {
            self.errors.note(&error, "offsets for dashboards were not committed");
        }
    }
}

/// librdkafka's log lines are for those who look for the cause of what [`Errors`] reports.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, facility, "librdkafka: {message}");
}

/// The fate of a producer's records.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    errors: Errors,
    done: AtomicU64,
    // Not longer than the producer's queue: whoever sends also takes.
    failed: Mutex<Vec<Failure>>,
    /// Since they were taken last.
    spans: Mutex<Spans>,
}

/// Of each partition the first offset, and the one after the last.
pub(crate) type Spans = BTreeMap<i32, (i64, i64)>;

/// A record that was not delivered.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: KafkaError,
    pub(crate) message: OwnedMessage,
}

impl Deliveries {
    /// Records that are off the queue, delivered or failed.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// The failures since the last call.
    pub(crate) fn take_failed(&self) -> Vec<Failure> {
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where what was delivered since the last call lies, whatever its topic.
    pub(crate) fn take_spans(&self) -> Spans {
        std::mem::take(&mut *self.spans.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The errors of the connection.
    pub(crate) fn errors(&self) -> &Errors {
        &self.errors
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.hint(facility, message);
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.errors.answered();
                let at = message.offset();
                let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
                let span = spans.entry(message.partition()).or_insert((at, at + 1));
                *span = (span.0.min(at), span.1.max(at + 1));
            }
            Err((error, message)) => {
                let failure = Failure { error: error.clone(), message: message.detach() };
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
        self.done.fetch_add(1, Ordering::Release);
    }
}
