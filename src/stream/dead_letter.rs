//! Records that cannot be used go to a topic of their own, with the reason.
//!
//! Owns: the form of a letter, and the promise that after [`DeadLetters::flush`] every letter sent
//! before it is on the broker. A record's offset goes into a checkpoint only after that, so after a
//! crash a letter may appear twice, but none is ever missing.
//!
//! Must never know: why a record is bad.

mod tail;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};

use crate::config::Config;

use super::client::{self, Failure};
use super::outbox::{Outbox, Outgoing, Patience, SendError};
use tail::About;

/// Letters that wait to be sent; beyond it the stream waits for them.
const QUEUE_KBYTES: usize = 64 << 10;
/// The producer's limit less room for key and headers.
const PAYLOAD_BYTES_MAX: usize = client::MESSAGE_BYTES_MAX - (64 << 10);
/// Bytes that are kept, try after try, of a payload that the broker finds too large: the default
/// limit of a topic is 1 MiB, and in the end the headers alone say what there was.
const TRUNCATED_BYTES: [usize; 3] = [512 << 10, 16 << 10, 0];
/// The longest error text in a header.
const ERROR_CHARS_MAX: usize = 500;

/// One rejected record.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'r> {
    /// The record's key, as it was.
    pub key: Option<&'r [u8]>,
    /// The record's value, as it was.
    pub payload: Option<&'r [u8]>,
    /// The record's Kafka timestamp, ms since 1970. The letter's own is the time of its rejection:
    /// a topic that keeps a week would delete the letter of an old event within minutes.
    pub time_ms: Option<i64>,
    /// Its topic.
    pub topic: &'r str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The kind of fault.
    pub reason: &'r str,
    /// The fault in words.
    pub error: &'r str,
}

/// Sends rejected records to the dead-letter topic, if there is one.
pub struct DeadLetters {
    config: Config,
    mailbox: Option<Mailbox>,
}

/// The dead-letter topic, and the way there.
struct Mailbox {
    topic: String,
    outbox: Outbox,
    /// Letters that an earlier run has left; read back before the first one.
    there: Option<BTreeSet<About>>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topic = self.mailbox.as_ref().map(|mailbox| &mailbox.topic);
        f.debug_struct("DeadLetters").field("topic", &topic).finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Connects to the brokers; with an empty `kafka.dead_letter_topic` nothing is ever sent.
    /// Brokers that are away are waited for until `stop` is set.
    ///
    /// # Errors
    /// If librdkafka refuses the config.
    pub fn new(config: &Config, stop: &Arc<AtomicBool>) -> anyhow::Result<DeadLetters> {
        let topic = config.kafka.dead_letter_topic.clone();
        let mailbox = if topic.is_empty() {
            None
        } else {
            // Letters are rare and someone waits for the flush: nothing lingers.
            let patience = Patience::UntilStopped(Arc::clone(stop));
            let outbox = Outbox::new(config, 0, QUEUE_KBYTES, patience)?;
            Some(Mailbox { topic, outbox, there: None })
        };
        Ok(DeadLetters { config: config.clone(), mailbox })
    }

    /// Puts `letter` on its way, unless an earlier run has: one that ended over its rejected
    /// records and is started again and again must not flood the topic.
    ///
    /// # Errors
    /// If an earlier letter could not be delivered, or the run stops while the queue is full.
    pub fn send(&mut self, letter: &Letter<'_>) -> anyhow::Result<()> {
        let Some(mailbox) = &mut self.mailbox else { return Ok(()) };
        let there = mailbox.there.get_or_insert_with(|| tail::letters(&self.config));
        let Letter { topic, partition, offset, time_ms, reason, .. } = *letter;
        if there.contains(&(topic.to_owned(), partition, offset, time_ms, reason.to_owned())) {
            return Ok(());
        }
        let mut headers = headers(letter);
        let mut payload = letter.payload;
        if let Some(whole) = payload.filter(|whole| whole.len() > PAYLOAD_BYTES_MAX) {
            payload = Some(&whole[..PAYLOAD_BYTES_MAX]);
            headers = mark_truncated(headers, whole.len());
        }
        mailbox.send(letter.key, payload, headers).with_context(advice)
    }

    /// Waits until everything sent is on the broker.
    ///
    /// # Errors
    /// If a letter could not be delivered, with what to do, or if the run stops meanwhile.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let Some(mailbox) = &mut self.mailbox else { return Ok(()) };
        mailbox.flush().with_context(advice)
    }
}

fn headers(letter: &Letter<'_>) -> OwnedHeaders {
    let error: String = letter.error.chars().take(ERROR_CHARS_MAX).collect();
    let headers = OwnedHeaders::new_with_capacity(7)
        .insert(Header { key: "reason", value: Some(letter.reason) })
        .insert(Header { key: "error", value: Some(&error) })
        .insert(Header { key: "topic", value: Some(letter.topic) })
        .insert(Header { key: "partition", value: Some(&letter.partition.to_string()) })
        .insert(Header { key: "offset", value: Some(&letter.offset.to_string()) });
    match letter.time_ms {
        None => headers,
        Some(time_ms) => {
            headers.insert(Header { key: "time_ms", value: Some(&time_ms.to_string()) })
        }
    }
}

/// Says in a header how many bytes there were.
fn mark_truncated(headers: OwnedHeaders, bytes: usize) -> OwnedHeaders {
    headers.insert(Header { key: "truncated", value: Some(&bytes.to_string()) })
}

impl Mailbox {
    fn send(
        &mut self,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<(), SendError> {
        let (topic, headers) = (self.topic.as_str(), Some(headers));
        let letter = Outgoing { topic, partition: None, key, payload, time_ms: None, headers };
        let sent = self.outbox.send(letter);
        self.cut(sent)
    }

    fn flush(&mut self) -> Result<(), SendError> {
        loop {
            match self.outbox.flush() {
                Ok(()) => return Ok(()),
                failed => self.cut(failed)?,
            }
        }
    }

    /// Sends letters again, cut, that the broker finds too large; any other failure stays one.
    fn cut(&mut self, sent: Result<(), SendError>) -> Result<(), SendError> {
        match sent {
            Err(SendError::Undelivered { failed, .. }) if failed.iter().all(too_large) => {
                failed.iter().try_for_each(|failure| self.send_cut(failure))
            }
            sent => sent,
        }
    }

    fn send_cut(&mut self, Failure { message, .. }: &Failure) -> Result<(), SendError> {
        let whole = message.payload().unwrap_or_default();
        let headers = message.headers().cloned().unwrap_or_default();
        // The first cut knows how long it was.
        let cut_before = headers.iter().any(|header| header.key == "truncated");
        let headers = if cut_before { headers } else { mark_truncated(headers, whole.len()) };
        let shorter = TRUNCATED_BYTES.into_iter().find(|&bytes| bytes < whole.len());
        self.send(message.key(), Some(&whole[..shorter.unwrap_or(0)]), headers)
    }
}

/// Whether a letter failed for its size, and would be shorter if it were cut.
fn too_large(failure: &Failure) -> bool {
    let code = failure.error.rdkafka_error_code();
    let bytes = failure.message.payload().map_or(0, <[u8]>::len);
    code == Some(RDKafkaErrorCode::MessageSizeTooLarge) && bytes > 0
}

/// Advice for a person when letters do not arrive.
fn advice() -> &'static str {
    "a rejected record could not be sent to the dead-letter topic (nothing was skipped: a restart \
     reads it again; kafka.dead_letter_topic = \"\" only counts rejected records)"
}

#[cfg(test)]
mod tests {
    use rdkafka::message::OwnedMessage;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::stream::source::tests::{Broker, header};

    const BAD: Letter<'_> = Letter {
        topic: "clicks",
        key: None,
        payload: Some(b"bad"),
        time_ms: Some(5),
        partition: 3,
        offset: 9,
        reason: "not_json",
        error: "not JSON: expected value",
    };

    fn open(broker: &Broker) -> DeadLetters {
        DeadLetters::new(&broker.config, &Arc::default()).expect("a producer")
    }

    fn refuse(broker: &Broker, error: RDKafkaRespErr) {
        broker.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    }

    /// What arrives of a letter of `bytes` bytes that the broker finds too large so many times.
    fn refused_for_its_size(bytes: usize, times: usize) -> OwnedMessage {
        let broker = Broker::new(1);
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
        broker.cluster.request_errors(RDKafkaApiKey::Produce, &vec![error; times]);
        let whole = vec![b'x'; bytes];
        let mut dead = open(&broker);
        dead.send(&Letter { payload: Some(&whole), ..BAD }).expect("queued");
        dead.flush().expect("delivered in the end");
        let mut letters = broker.read("dead");
        assert_eq!(letters.len(), 1);
        letters.remove(0)
    }

    #[test]
    fn a_letter_the_broker_finds_too_large_is_sent_again_cut() {
        let letter = refused_for_its_size(TRUNCATED_BYTES[0] + 1, 1);
        assert_eq!(letter.payload().map(<[u8]>::len), Some(TRUNCATED_BYTES[0]));
        assert_eq!(header(&letter, "truncated"), Some((TRUNCATED_BYTES[0] + 1).to_string()));
        assert_eq!(header(&letter, "offset").as_deref(), Some("9"));
    }

    /// Headers alone in the end, the length as it was once; no crash loop.
    #[test]
    fn a_letter_is_cut_until_the_broker_takes_it() {
        let letter = refused_for_its_size(TRUNCATED_BYTES[0] + 1, 3);
        assert_eq!(letter.payload().map_or(0, <[u8]>::len), 0);
        assert_eq!(header(&letter, "truncated"), Some((TRUNCATED_BYTES[0] + 1).to_string()));
    }

    #[test]
    fn a_letter_is_as_young_as_its_rejection_and_says_how_old_the_record_is() {
        let broker = Broker::new(1);
        let mut dead = open(&broker);
        dead.send(&BAD).and_then(|()| dead.flush()).expect("delivered");
        let letters = broker.read("dead");
        assert!(letters[0].timestamp().to_millis() > Some(1_700_000_000_000));
        assert_eq!(header(&letters[0], "time_ms").as_deref(), Some("5"));
    }

    #[test]
    fn a_letter_over_the_producers_limit_is_cut_at_once() {
        let broker = Broker::new(1);
        let whole = vec![b'x'; client::MESSAGE_BYTES_MAX + 1];
        let mut dead = open(&broker);
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
        let mut dead = open(&broker);
        let result = dead.send(&BAD).and_then(|()| dead.flush());
        let text = format!("{:#}", result.expect_err("refused"));
        for part in ["`dead`", "--operation Write", "kafka.dead_letter_topic = \"\""] {
            assert!(text.contains(part), "no {part} in: {text}");
        }
    }

    #[test]
    fn a_letter_that_an_earlier_run_left_is_not_sent_again() {
        let broker = Broker::new(1);
        for _ in 0..3 {
            let mut dead = open(&broker);
            dead.send(&BAD).and_then(|()| dead.flush()).expect("delivered");
        }
        assert_eq!(broker.read("dead").len(), 1);
        // The topic was made anew, or the config finds another fault.
        for other in [Letter { time_ms: Some(6), ..BAD }, Letter { reason: "future", ..BAD }] {
            let mut dead = open(&broker);
            dead.send(&other).and_then(|()| dead.flush()).expect("delivered");
        }
        assert_eq!(broker.read("dead").len(), 3);
    }

    #[test]
    fn without_a_topic_nothing_is_sent() {
        let mut broker = Broker::new(1);
        broker.config.kafka.dead_letter_topic = String::new();
        let mut dead = open(&broker);
        dead.send(&BAD).and_then(|()| dead.flush()).expect("nothing to do");
        assert!(broker.read("dead").is_empty());
    }
}
