//! Records of several topics that come all at once, or not at all.
//!
//! A reader with `read_committed` sees a transaction's records once it is committed, and of two
//! producers with one name only the newer may write.
//!
//! Must never know: what the records are.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, PurgeConfig};

use super::{Outbox, Patience, SendError};
use crate::config::Config;
use crate::stream::client::{self, DELIVERY_WAIT_MAX, Spans, Transactional};
use crate::stream::refusal::{REFUSED_AT_START_MAX, Refusal};

/// Brokers that are up let a producer in within milliseconds; one that restarts, or ends what an
/// earlier producer left open, within seconds.
const BEGIN_MAX: Duration = DELIVERY_WAIT_MAX;
/// How long a call into librdkafka may keep us from hearing that we are refused.
const ASK: Duration = Duration::from_secs(1);
/// All records are acknowledged by then: what is left is one request.
const COMMIT_MAX: Duration = DELIVERY_WAIT_MAX;
/// A transaction that is not given up in this time ends by its timeout, or when the next producer
/// of its name begins.
const ABORT_MAX: Duration = Duration::from_secs(10);

impl Outbox {
    /// An outbox of transactions. From here on earlier ones of the same name write nothing more,
    /// and what they had begun is void.
    ///
    /// # Errors
    /// A property that librdkafka refuses, or brokers that do not let this producer in.
    pub(crate) fn transactional(
        config: &Config,
        linger_ms: u32,
        queue_kbytes: usize,
        transactional: Transactional,
    ) -> anyhow::Result<Outbox> {
        let wait = Some(DELIVERY_WAIT_MAX);
        let made = Some(&transactional);
        let producer = client::producer(config, linger_ms, queue_kbytes, wait, made)?;
        let outbox = Outbox {
            transactional: made.cloned(),
            ..Outbox::of(producer, config, Patience::Bounded)
        };
        let began = Instant::now();
        while let Err(error) = outbox.producer.init_transactions(ASK) {
            // A refused connection is heard of by polling alone.
            outbox.producer.poll(Duration::ZERO);
            let errors = outbox.producer.context().errors();
            let refused = errors.refused_for(REFUSED_AT_START_MAX).is_some();
            if refused || began.elapsed() >= BEGIN_MAX || !may_pass(&error) {
                return Err(outbox.broken("begun", &error).into());
            }
        }
        Ok(outbox)
    }

    /// Begins a transaction; records sent from here on belong to it.
    ///
    /// # Errors
    /// Another producer of this name has begun.
    pub(crate) fn begin(&mut self) -> Result<(), SendError> {
        self.producer.context().take_spans();
        self.producer.begin_transaction().map_err(|error| self.broken("begun", &error))
    }

    /// Waits until everything sent is on the brokers, then shows it to readers. An error may come
    /// although the brokers have done it: who needs to know looks at the topic.
    ///
    /// # Errors
    /// Records that failed, another producer of this name, or brokers that do not answer.
    pub(crate) fn commit(&mut self) -> Result<(), SendError> {
        self.flush()?;
        let committed = self.producer.commit_transaction(COMMIT_MAX);
        committed.map_err(|error| self.broken("committed", &error))
    }

    /// Gives the transaction up: no reader sees its records. Without an answer it ends by itself.
    pub(crate) fn abort(&mut self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let flushed = self.producer.flush(ABORT_MAX);
        let aborted = flushed.and_then(|()| self.producer.abort_transaction(ABORT_MAX));
        if let Err(error) = aborted {
            tracing::debug!("a transaction was not given up: {error}");
        }
        self.producer.context().take_failed();
    }

    /// Where the records lie that were acknowledged since the transaction began, or since the last
    /// call: of each partition the first offset, and the one after the last.
    pub(crate) fn take_spans(&self) -> Spans {
        self.producer.context().take_spans()
    }

    fn broken(&self, what: &'static str, error: &KafkaError) -> SendError {
        use RDKafkaErrorCode as Code;
        let Some(Transactional { id, timeout }) = &self.transactional else {
            unreachable!("an outbox without a name begins no transaction")
        };
        let (id, brokers) = (id.clone(), &self.brokers);
        let reason = match error.rdkafka_error_code() {
            Some(code) if is_fenced(code) => return SendError::Fenced { id },
            Some(Code::InvalidTransactionTimeout) => format!(
                "{error}; the brokers {brokers} take no transaction of {} s: lower \
                 publish.version_max_s to their transaction.max.timeout.ms at most",
                timeout.as_secs()
            ),
            Some(code) if Refusal::of_code(code).is_none() && is_coordinator(code) => format!(
                "{error}; the brokers {brokers} do not find a place for transactions: do as many \
                 run as their transaction.state.log.replication.factor says?"
            ),
            _ => self.explain("", error, 0),
        };
        SendError::Transaction { id, what, reason }
    }
}

/// Another producer of the same name has begun.
pub(super) fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

fn is_coordinator(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)
}

/// Whether the same call may succeed later.
fn may_pass(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        _ => false,
    }
}
