//! Records that cannot be used go to a topic of their own, with the reason.
//!
//! Owns: the dead-letter producer, and the promise that after [`DeadLetters::flush`] every letter
//! sent before it is on the broker. A record's offset goes into a checkpoint only after that, so
//! after a crash a letter may stand there twice, but never not at all.
//!
//! Must never know: why a record is bad.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::config::Config;

use super::source::client::{self, DELIVERY_WAIT_MAX, Deliveries, Failure};

/// Letters that wait to be sent; beyond it the stream waits for them.
const QUEUE_KBYTES: usize = 64 << 10;
/// The producer's limit less room for key and headers.
const PAYLOAD_BYTES_MAX: usize = client::MESSAGE_BYTES_MAX - (64 << 10);
/// What is kept of a payload that the broker finds too large: its topics' default limit is 1 MiB.
const TRUNCATED_BYTES: usize = 512 << 10;
/// A wait for the broker looks this often.
const POLL: Duration = Duration::from_millis(1);
/// The longest error text in a header.
const ERROR_CHARS_MAX: usize = 500;

/// One rejected record.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'r> {
    /// The record's key, as it was.
    pub key: Option<&'r [u8]>,
    /// The record's value, as it was.
    pub payload: Option<&'r [u8]>,
    /// The record's Kafka timestamp.
    pub time_ms: Option<i64>,
    /// Where it stood.
    pub partition: i32,
    /// Where it stood.
    pub offset: i64,
    /// The kind of fault.
    pub reason: &'r str,
    /// The fault in words.
    pub error: &'r str,
}

/// Sends rejected records to the dead-letter topic, if there is one.
pub struct DeadLetters {
    /// The topic of the rejected records, for their headers.
    source: String,
    outlet: Option<Outlet>,
}

struct Outlet {
    topic: String,
    producer: BaseProducer<Deliveries>,
    sent: u64,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topic = self.outlet.as_ref().map(|outlet| &outlet.topic);
        f.debug_struct("DeadLetters").field("topic", &topic).finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Connects to the brokers; with an empty `kafka.dead_letter_topic` nothing is ever sent.
    ///
    /// # Errors
    /// If librdkafka refuses the config.
    pub fn new(config: &Config) -> anyhow::Result<DeadLetters> {
        let topic = config.kafka.dead_letter_topic.clone();
        let outlet = if topic.is_empty() {
            None
        } else {
            // Letters are rare and someone waits for the flush: nothing lingers.
            let producer = client::producer(config, 0, QUEUE_KBYTES)?;
            Some(Outlet { topic, producer, sent: 0 })
        };
        Ok(DeadLetters { source: config.kafka.topic.clone(), outlet })
    }

    /// Puts `letter` on its way.
    ///
    /// # Errors
    /// If an earlier letter could not be delivered, or the queue stays full for too long.
    pub fn send(&mut self, letter: &Letter<'_>) -> anyhow::Result<()> {
        let Some(outlet) = &mut self.outlet else { return Ok(()) };
        let mut headers = headers(&self.source, letter);
        let mut payload = letter.payload;
        if let Some(whole) = payload.filter(|whole| whole.len() > PAYLOAD_BYTES_MAX) {
            payload = Some(&whole[..PAYLOAD_BYTES_MAX]);
            headers = mark_truncated(headers, whole.len());
        }
        outlet.enqueue(letter.key, payload, letter.time_ms, headers)?;
        outlet.settle()
    }

    /// Waits until everything sent is on the broker.
    ///
    /// # Errors
    /// If a letter could not be delivered, with what to do.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let Some(outlet) = &mut self.outlet else { return Ok(()) };
        // Longer than a record's own limit, which is what ends the wait for a broker.
        let deadline = Instant::now() + 2 * DELIVERY_WAIT_MAX;
        outlet.settle()?;
        while outlet.producer.context().done() < outlet.sent {
            if Instant::now() >= deadline {
                bail!("dead letters to `{}` are stuck; is the broker up?", outlet.topic);
            }
            outlet.producer.poll(POLL);
            outlet.settle()?;
        }
        Ok(())
    }
}

fn headers(source: &str, letter: &Letter<'_>) -> OwnedHeaders {
    let error: String = letter.error.chars().take(ERROR_CHARS_MAX).collect();
    OwnedHeaders::new_with_capacity(6)
        .insert(Header { key: "reason", value: Some(letter.reason) })
        .insert(Header { key: "error", value: Some(&error) })
        .insert(Header { key: "topic", value: Some(source) })
        .insert(Header { key: "partition", value: Some(&letter.partition.to_string()) })
        .insert(Header { key: "offset", value: Some(&letter.offset.to_string()) })
}

/// Says in a header how many bytes there were.
fn mark_truncated(headers: OwnedHeaders, bytes: usize) -> OwnedHeaders {
    headers.insert(Header { key: "truncated", value: Some(&bytes.to_string()) })
}

impl Outlet {
    /// Queues a letter, waiting for room if need be.
    fn enqueue(
        &mut self,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        time_ms: Option<i64>,
        headers: OwnedHeaders,
    ) -> anyhow::Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).headers(headers);
        (record.key, record.payload, record.timestamp) = (key, payload, time_ms);
        let deadline = Instant::now() + DELIVERY_WAIT_MAX;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => {
                    return Err(error)
                        .with_context(|| format!("no dead letter to `{}`", self.topic));
                }
            }
        }
        self.sent += 1;
        Ok(())
    }

    /// Takes note of deliveries. A letter that the broker finds too large is sent again, cut.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.producer.poll(Duration::ZERO);
        for Failure { error, message } in self.producer.context().take_failed() {
            let too_large =
                error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
            match message.payload() {
                Some(payload) if too_large && payload.len() > TRUNCATED_BYTES => {
                    let headers = message.headers().cloned().unwrap_or_default();
                    let headers = mark_truncated(headers, payload.len());
                    let cut = Some(&payload[..TRUNCATED_BYTES]);
                    // librdkafka does not give back a failed record's timestamp.
                    self.enqueue(message.key(), cut, None, headers)?;
                }
                _ => bail!(explain(&self.topic, &error, &self.producer.context().last_error())),
            }
        }
        Ok(())
    }
}

fn explain(topic: &str, error: &KafkaError, last: &str) -> String {
    let what = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            "create the topic, or set kafka.dead_letter_topic = \"\" to only count rejected records"
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            "allow this client to write to the topic, or set kafka.dead_letter_topic = \"\""
        }
        _ => "check the brokers; nothing was skipped, a restart reads the records again",
    };
    format!("a rejected record could not be sent to `{topic}`: {error} ({last}); {what}")
}

#[cfg(test)]
mod tests {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::stream::source::tests::{Broker, header};

    const BAD: Letter<'_> = Letter {
        key: None,
        payload: Some(b"bad"),
        time_ms: Some(5),
        partition: 3,
        offset: 9,
        reason: "not_json",
        error: "not JSON: expected value",
    };

    fn refuse(broker: &Broker, error: RDKafkaRespErr) {
        broker.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    }

    #[test]
    fn a_letter_the_broker_finds_too_large_is_sent_again_cut() {
        let broker = Broker::new(1);
        refuse(&broker, RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
        let whole = vec![b'x'; TRUNCATED_BYTES + 1];
        let mut dead = DeadLetters::new(&broker.config).expect("a producer");
        dead.send(&Letter { payload: Some(&whole), ..BAD }).expect("queued");
        dead.flush().expect("delivered in the end");
        let letters = broker.read("dead");
        let [letter] = letters.as_slice() else { panic!("{} letters", letters.len()) };
        assert_eq!(letter.payload().map(<[u8]>::len), Some(TRUNCATED_BYTES));
        assert_eq!(header(letter, "truncated"), Some((TRUNCATED_BYTES + 1).to_string()));
        assert_eq!(header(letter, "offset").as_deref(), Some("9"));
    }

    #[test]
    fn a_letter_over_the_producers_limit_is_cut_at_once() {
        let broker = Broker::new(1);
        let whole = vec![b'x'; client::MESSAGE_BYTES_MAX + 1];
        let mut dead = DeadLetters::new(&broker.config).expect("a producer");
        dead.send(&Letter { payload: Some(&whole), ..BAD }).expect("queued");
        dead.flush().expect("delivered");
        let letters = broker.read("dead");
        assert_eq!(letters[0].payload().map(<[u8]>::len), Some(PAYLOAD_BYTES_MAX));
        assert_eq!(header(&letters[0], "truncated"), Some(whole.len().to_string()));
    }

    #[test]
    fn a_letter_that_cannot_be_delivered_is_an_error_of_the_flush() {
        let broker = Broker::new(1);
        refuse(&broker, RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
        let mut dead = DeadLetters::new(&broker.config).expect("a producer");
        let result = dead.send(&BAD).and_then(|()| dead.flush());
        let text = result.expect_err("refused").to_string();
        assert!(text.contains("`dead`") && text.contains("allow this client"), "{text}");
    }

    #[test]
    fn without_a_topic_nothing_is_sent() {
        let mut broker = Broker::new(1);
        broker.config.kafka.dead_letter_topic = String::new();
        let mut dead = DeadLetters::new(&broker.config).expect("no producer");
        dead.send(&BAD).and_then(|()| dead.flush()).expect("nothing to do");
        assert!(broker.read("dead").is_empty());
    }
}
