//! Records on their way to a topic.
//!
//! Owns: the wait while librdkafka's queue is full, the count of what is delivered, and the words
//! for what went wrong with a record. Everything that this program writes to Kafka leaves through
//! an [`Outbox`], so that all of it has the same guarantees, the same partitions as Java's client
//! gives, and one throttled line in the log for brokers in trouble.
//!
//! Must never know: what a record says.

mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client::{self, DELIVERY_WAIT_MAX, Deliveries, Failure, Transactional};
use super::refusal::{REFUSED_MAX, Refusal, Remedies, Wish};
use crate::config::Config;

/// A wait for the brokers looks at its deadline this often.
const POLL: Duration = Duration::from_millis(1);
/// Records between two looks at deliveries: a look costs as much as queueing a few records.
const SETTLE_EVERY: u64 = 256;
/// How long nothing may leave the queue. A record gives up after [`DELIVERY_WAIT_MAX`], and its
/// failure makes room as its delivery would, so a queue that stands still for twice as long is
/// stuck.
const STANDSTILL_MAX: Duration = Duration::from_secs(2 * DELIVERY_WAIT_MAX.as_secs());

/// One record to send.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing<'r> {
    /// The topic it goes to.
    pub(crate) topic: &'r str,
    /// Its partition; none: the one that Java's client would choose for its key.
    pub(crate) partition: Option<i32>,
    /// Its key; none: the record goes to any partition.
    pub(crate) key: Option<&'r [u8]>,
    /// Its value; none: a tombstone.
    pub(crate) payload: Option<&'r [u8]>,
    /// Its timestamp; none: the present time.
    pub(crate) time_ms: Option<i64>,
    /// Its headers.
    pub(crate) headers: Option<OwnedHeaders>,
}

/// How long an outbox waits for brokers that take nothing.
#[derive(Clone, Debug)]
pub(crate) enum Patience {
    /// Records fail after [`DELIVERY_WAIT_MAX`].
    Bounded,
    /// Until the brokers are back: what depends on these records waits for the same brokers anyway.
    /// Setting the flag ends the wait.
    UntilStopped(Arc<AtomicBool>),
}

/// Why records did not reach the brokers, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// librdkafka does not take a record.
    #[error("no record can be sent to `{topic}`: {reason}")]
    Refused {
        /// The record's topic.
        topic: String,
        /// The fault, and what to do.
        reason: String,
    },
    /// Nothing leaves the queue.
    #[error(
        "{waiting} records wait for the brokers {brokers}, and for {} s none has left; are the \
         brokers up? ({last})",
        STANDSTILL_MAX.as_secs()
    )]
    Stuck {
        /// Records in the queue.
        waiting: u64,
        /// The brokers that should take them.
        brokers: String,
        /// The last error of the connection.
        last: String,
    },
    /// The run stops while records wait for the brokers.
    #[error("the run stopped while {waiting} records waited for the brokers {brokers} ({last})")]
    Stopped {
        /// Records in the queue.
        waiting: u64,
        /// The brokers that should take them.
        brokers: String,
        /// The last error of the connection.
        last: String,
    },
    /// The brokers refuse this client, while records wait.
    #[error("{waiting} records wait: {reason}")]
    Barred {
        /// Records in the queue.
        waiting: u64,
        /// The refusal, and what to do.
        reason: String,
    },
    /// The brokers did not take records that were sent earlier.
    #[error(
        "{} records of `{topic}` were not delivered, the first with key {key:?}: {reason}",
        failed.len()
    )]
    Undelivered {
        /// Topic of the first one.
        topic: String,
        /// Key of the first one.
        key: String,
        /// The fault of the first one, and what to do.
        reason: String,
        /// All of them, in the order of their failures.
        failed: Vec<Failure>,
    },
    /// A newer producer of the same name has begun.
    #[error(
        "another publisher has begun to write under the same name ({id}), so this one may not any \
         more: two runs cannot share a topic. Stop one of them, or give it a publish.topic and a \
         publish.versions_topic of its own"
    )]
    Fenced {
        /// The `transactional.id`.
        id: String,
    },
    /// The brokers do not begin or end a transaction.
    #[error("no transaction ({id}) could be {what}: {reason}")]
    Transaction {
        /// The `transactional.id`.
        id: String,
        /// Begun or committed.
        what: &'static str,
        /// The fault, and what to do.
        reason: String,
    },
}

/// Sends records, and waits for room when the brokers are slower than the sender.
pub(crate) struct Outbox {
    producer: BaseProducer<Deliveries>,
    brokers: String,
    remedies: Remedies,
    patience: Patience,
    sent: u64,
    /// The topic of the last record, for messages.
    topic: String,
    /// Its name and timeout; none: it sends without transactions.
    transactional: Option<Transactional>,
}

impl Outbox {
    /// An outbox of its own connection; `linger_ms` trades delay for larger requests,
    /// `queue_kbytes` bounds what waits to be sent.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub(crate) fn new(
        config: &Config,
        linger_ms: u32,
        queue_kbytes: usize,
        patience: Patience,
    ) -> anyhow::Result<Outbox> {
        let delivery_wait = match patience {
            Patience::Bounded => Some(DELIVERY_WAIT_MAX),
            Patience::UntilStopped(_) => None,
        };
        let producer = client::producer(config, linger_ms, queue_kbytes, delivery_wait, None)?;
        Ok(Outbox::of(producer, config, patience))
    }

    fn of(producer: BaseProducer<Deliveries>, config: &Config, patience: Patience) -> Outbox {
        let (brokers, remedies) = (config.kafka.brokers.clone(), client::remedies(config));
        let (topic, transactional) = (String::new(), None);
        Outbox { producer, brokers, remedies, patience, sent: 0, topic, transactional }
    }

    /// Queues `record`, and waits for room if need be.
    ///
    /// # Errors
    /// A record that cannot be queued, a queue that stands still, or records that failed since the
    /// last call; in that last case `record` is queued all the same.
    pub(crate) fn send(&mut self, record: Outgoing<'_>) -> Result<(), SendError> {
        let Outgoing { topic, partition, key, payload, time_ms, headers } = record;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        record.partition = partition;
        record.key = key;
        record.payload = payload;
        record.timestamp = time_ms;
        record.headers = headers;
        if self.topic != topic {
            topic.clone_into(&mut self.topic);
        }
        let mut wait = Standstill::new(self.producer.context());
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.wait(&mut wait)?;
                }
                Err((error, _)) => {
                    self.check_fence(&error)?;
                    let bytes = payload.map_or(0, <[u8]>::len);
                    let reason = self.explain(topic, &error, bytes);
                    return Err(SendError::Refused { topic: topic.to_owned(), reason });
                }
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(SETTLE_EVERY) {
            self.producer.poll(Duration::ZERO);
            self.failures()?;
        }
        Ok(())
    }

    /// Waits until everything sent is on the brokers.
    ///
    /// # Errors
    /// Records that failed, or a queue that stands still. A caller that has dealt with the failed
    /// records may flush again.
    pub(crate) fn flush(&mut self) -> Result<(), SendError> {
        let mut wait = Standstill::new(self.producer.context());
        self.producer.poll(Duration::ZERO);
        self.failures()?;
        while self.producer.context().done() < self.sent {
            self.wait(&mut wait)?;
            self.failures()?;
        }
        Ok(())
    }

    /// Gives the brokers a moment.
    fn wait(&self, wait: &mut Standstill) -> Result<(), SendError> {
        self.producer.poll(POLL);
        let deliveries = self.producer.context();
        let waiting = self.sent - deliveries.done();
        let refused = match &self.patience {
            Patience::Bounded => deliveries.errors().refused(),
            // It has waited, unused, since the start.
            Patience::UntilStopped(_) => deliveries.errors().refused_for(REFUSED_MAX),
        };
        if let Some((refusal, said)) = refused {
            let reason = self.remedies.explain(refusal, self.wish(refusal, &self.topic), &said);
            return Err(SendError::Barred { waiting, reason });
        }
        let over = match &self.patience {
            Patience::Bounded => wait.is_over(deliveries),
            Patience::UntilStopped(stop) => stop.load(Ordering::Relaxed),
        };
        if !over {
            return Ok(());
        }
        let (brokers, last) = (self.brokers.clone(), deliveries.errors().last());
        Err(match self.patience {
            Patience::Bounded => SendError::Stuck { waiting, brokers, last },
            Patience::UntilStopped(_) => SendError::Stopped { waiting, brokers, last },
        })
    }

    /// The records that failed since the last call, as an error.
    fn failures(&self) -> Result<(), SendError> {
        let failed = self.producer.context().take_failed();
        let Some(Failure { error, message }) = failed.first() else { return Ok(()) };
        self.check_fence(error)?;
        let topic = message.topic().to_owned();
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        let bytes = message.payload().map_or(0, <[u8]>::len);
        let reason = self.explain(&topic, error, bytes);
        Err(SendError::Undelivered { topic, key, reason, failed })
    }

    /// What was to be done when this refusal came.
    fn wish<'w>(&'w self, refusal: Refusal, topic: &'w str) -> Wish<'w> {
        match &self.transactional {
            Some(transactional) if refusal == Refusal::Transactions || topic.is_empty() => {
                Wish::Transact(&transactional.id)
            }
            _ => Wish::Write(topic),
        }
    }

    /// An error if a newer producer of the same name has begun.
    fn check_fence(&self, error: &KafkaError) -> Result<(), SendError> {
        let Some(Transactional { id, .. }) = &self.transactional else { return Ok(()) };
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        let codes = [fatal, error.rdkafka_error_code()];
        match codes.into_iter().flatten().any(transaction::is_fenced) {
            true => Err(SendError::Fenced { id: id.clone() }),
            false => Ok(()),
        }
    }

    /// An error of a record of `bytes` bytes, and what to do about it.
    fn explain(&self, topic: &str, error: &KafkaError, bytes: usize) -> String {
        use RDKafkaErrorCode as Code;
        let brokers = &self.brokers;
        let errors = self.producer.context().errors();
        // An idempotent producer that is refused its number fails for good, and says why here
        // alone.
        let fatal = self.producer.client().fatal_error();
        let answered = fatal.and_then(|(code, said)| Some((Refusal::of_code(code)?, said)));
        let answered = answered.or_else(|| Some((Refusal::of(error)?, error.to_string())));
        if let Some((refusal, said)) = answered.or_else(|| errors.refusing()) {
            return self.remedies.explain(refusal, self.wish(refusal, topic), &said);
        }
        let last = errors.last();
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                format!(
                    "{error}; create topic `{topic}` (kafka-topics.sh --bootstrap-server \
                     {brokers} --create --topic {topic} --partitions 4)"
                )
            }
            Some(Code::MessageSizeTooLarge) => format!(
                "{error}: it has {bytes} bytes; raise max.message.bytes of topic `{topic}`, or \
                 leave the record out"
            ),
            _ if last.is_empty() => format!("{error}; check that the brokers {brokers} run"),
            _ => format!("{error} ({last}); check that the brokers {brokers} run"),
        }
    }
}

/// A wait that ends when nothing has moved for [`STANDSTILL_MAX`].
struct Standstill {
    done: u64,
    since: Instant,
}

impl Standstill {
    fn new(deliveries: &Deliveries) -> Standstill {
        Standstill { done: deliveries.done(), since: Instant::now() }
    }

    fn is_over(&mut self, deliveries: &Deliveries) -> bool {
        let done = deliveries.done();
        if done > self.done {
            *self = Standstill { done, since: Instant::now() };
        }
        self.since.elapsed() >= STANDSTILL_MAX
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::stream::source::tests::Broker;

    fn click(payload: &[u8]) -> Outgoing<'_> {
        Outgoing { topic: "clicks", payload: Some(payload), ..Outgoing::default() }
    }

    #[test]
    fn a_full_queue_is_waited_for_and_loses_nothing() {
        let broker = Broker::new(1);
        // 1,000 records of 1 KiB through a queue of 64 KiB.
        let mut outbox = Outbox::new(&broker.config, 0, 64, Patience::Bounded).expect("a producer");
        let payload = [b'x'; 1024];
        for number in 0..1000_i64 {
            let time_ms = Some(1 + number);
            outbox.send(Outgoing { time_ms, ..click(&payload) }).expect("there is room in time");
        }
        outbox.flush().expect("everything is delivered");
        let times: Vec<Option<i64>> =
            broker.read("clicks").iter().map(|record| record.timestamp().to_millis()).collect();
        assert_eq!(times, (1..=1000).map(Some).collect::<Vec<_>>(), "all of them, in order");
    }

    #[test]
    fn a_record_goes_where_it_says_with_all_it_has() {
        let broker = Broker::new(4);
        let mut outbox =
            Outbox::new(&broker.config, 0, 1024, Patience::Bounded).expect("a producer");
        let record = Outgoing { partition: Some(2), key: Some(b"k"), ..click(b"v") };
        outbox.send(record).expect("queued");
        outbox.send(Outgoing { partition: Some(3), payload: None, ..click(b"") }).expect("queued");
        outbox.flush().expect("delivered");
        let mut records: Vec<_> = (broker.read("clicks").into_iter())
            .map(|record| {
                let text = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                (record.partition(), text(record.key()), text(record.payload()))
            })
            .collect();
        records.sort();
        let first = (2, Some(b"k".to_vec()), Some(b"v".to_vec()));
        assert_eq!(records, [first, (3, None, None)]);
    }

    #[test]
    fn failed_records_come_back_with_what_to_do() {
        let broker = Broker::new(1);
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        broker.cluster.request_errors(RDKafkaApiKey::Produce, &[refused]);
        let mut outbox =
            Outbox::new(&broker.config, 0, 1024, Patience::Bounded).expect("a producer");
        outbox.send(Outgoing { key: Some(b"k"), ..click(b"v") }).expect("queued");
        let error = outbox.flush().expect_err("refused");
        let text = error.to_string();
        assert!(text.starts_with("1 records of `clicks` were not delivered"), "{text}");
        assert!(text.contains("key \"k\"") && text.contains("allow it: "), "{text}");
        let SendError::Undelivered { failed, .. } = error else { panic!("{text}") };
        assert_eq!(failed[0].message.payload(), Some(&b"v"[..]));
        outbox.flush().expect("the failure was handed out: nothing is left to wait for");
    }

    #[test]
    fn a_record_that_cannot_be_queued_is_refused_with_its_size() {
        let broker = Broker::new(1);
        let mut outbox =
            Outbox::new(&broker.config, 0, 64 << 10, Patience::Bounded).expect("a producer");
        let whole = vec![b'x'; client::MESSAGE_BYTES_MAX + 1];
        let text = outbox.send(click(&whole)).expect_err("too large").to_string();
        assert!(text.contains("`clicks`") && text.contains(&whole.len().to_string()), "{text}");
        assert!(text.contains("max.message.bytes"), "{text}");
    }

    /// A leaderless partition takes nothing for ever. The wait ends with the run, and not before.
    #[test]
    fn a_wait_until_stopped_ends_with_the_run() {
        let broker = Broker::new(1);
        broker.cluster.partition_leader("clicks", 0, None).expect("a mock partition");
        let stop = Arc::new(AtomicBool::new(false));
        let patience = Patience::UntilStopped(Arc::clone(&stop));
        let mut outbox = Outbox::new(&broker.config, 0, 1024, patience).expect("a producer");
        outbox.send(click(b"v")).expect("queued");
        let mut wait = Standstill::new(outbox.producer.context());
        wait.since -= 2 * STANDSTILL_MAX;
        outbox.wait(&mut wait).expect("patience without end");
        stop.store(true, Ordering::Relaxed);
        let error = outbox.flush().expect_err("stopped");
        assert!(matches!(error, SendError::Stopped { waiting: 1, .. }), "{error}");
        stop.store(false, Ordering::Relaxed);
        broker.cluster.partition_leader("clicks", 0, Some(1)).expect("a mock broker");
        outbox.flush().expect("the partition has a leader again");
    }

    #[test]
    fn a_wait_is_over_when_nothing_has_moved_for_long() {
        let deliveries = Deliveries::default();
        let mut wait = Standstill::new(&deliveries);
        assert!(!wait.is_over(&deliveries));
        wait.since -= STANDSTILL_MAX;
        assert!(wait.is_over(&deliveries));
    }
}
