//! The consumer: records in, batches out.
//!
//! Owns: the assignment, the pauses that keep the partitions' buffers bounded, rejected records
//! on their way to the dead-letter topic, and the decision which of the broker's errors pass by
//! themselves. This is the stream's edge: the clock and the log are read here and nowhere deeper.
//!
//! Must never know: what happens to a batch. It is told where to start, and hands out offsets
//! with the data.

pub mod client;
mod flow;
mod guard;
mod intake;
mod round;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Config;

use super::batch::Batch;
use super::dead_letter::DeadLetters;
use super::offsets::Offsets;
use super::position::{self, Range};
pub use client::{Watch, consumer};
use flow::Flow;
use intake::Intake;

/// What [`Source::next`] found.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once a batch, never stored in numbers")]
pub enum Next {
    /// The next batch. It has no events where only rejected records lie between two offsets.
    Batch(Batch),
    /// Nothing yet.
    Idle,
    /// A bounded range is read to its end, and everything was handed out.
    End,
}

/// Reads a topic's partitions from given offsets on.
pub struct Source {
    consumer: BaseConsumer<Watch>,
    brokers: String,
    pass: u32,
    /// An incomplete batch or window waits this long; none: until the range ends.
    linger: Option<Duration>,
    intake: Intake,
    flow: Flow,
    dead: DeadLetters,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let offsets = self.intake.batcher.offsets();
        f.debug_struct("Source").field("offsets", offsets).finish_non_exhaustive()
    }
}

/// librdkafka's callbacks are served at least this often.
const POLL_MAX: Duration = Duration::from_millis(100);

impl Source {
    /// Starts to read `range` of `kafka.topic`, for the `pass`-th time (1: the first): each pass
    /// has a shuffle of its own.
    ///
    /// # Errors
    /// If the topic is not there (after a bounded wait), lacks a partition of the range, or if
    /// librdkafka refuses the config.
    pub fn open(config: &Config, range: Range, pass: u32) -> anyhow::Result<Source> {
        let kafka = &config.kafka;
        let flow = Flow::new(&kafka.topic, kafka.buffer_events, range.from.iter().len());
        let consumer = client::consumer_of(config, flow.fetch_bytes())?;
        let there = position::partitions(&consumer, &kafka.topic, &kafka.brokers)?;
        check_range(&range, &kafka.topic, &there)?;
        let bounded = range.to.is_some();
        let linger = Duration::from_millis(config.batch.linger_ms);
        let source = Source {
            intake: Intake::new(config, range, pass),
            flow,
            linger: (!bounded && !linger.is_zero()).then_some(linger),
            brokers: kafka.brokers.clone(),
            pass,
            dead: DeadLetters::new(config)?,
            consumer,
        };
        source.assign()?;
        Ok(source)
    }

    fn assign(&self) -> anyhow::Result<()> {
        let topic = self.flow.topic.as_str();
        let mut list = TopicPartitionList::new();
        for (partition, next) in self.intake.batcher.offsets().iter() {
            if !self.intake.finished.contains(&partition) {
                list.add_partition_offset(topic, partition, Offset::Offset(next))?;
            }
        }
        self.consumer.assign(&list).with_context(|| format!("cannot assign {topic}"))
    }

    /// Waits for the next batch, at most `wait`. Must be called often, also while the trainer is
    /// busy: librdkafka reports errors only then.
    ///
    /// # Errors
    /// What no retry cures: too many rejected records, offsets that left the log, a topic that
    /// is gone, refused credentials, dead letters that cannot be delivered.
    pub fn next(&mut self, wait: Duration) -> anyhow::Result<Next> {
        let deadline = Instant::now() + wait;
        let mut polled = false;
        loop {
            let now = Instant::now();
            if let Some(batch) = self.intake.assemble(now) {
                return self.hand_out(batch);
            }
            if self.intake.merge.finished() {
                return match self.intake.close() {
                    Some(batch) => self.hand_out(batch),
                    None => Ok(Next::End),
                };
            }
            let lingers = self.linger.zip(self.intake.batcher.since());
            let due = lingers.map(|(linger, since)| since + linger);
            if due.is_some_and(|due| due <= now)
                && let Some(batch) = self.intake.close()
            {
                return self.hand_out(batch);
            }
            if polled && now >= deadline {
                return Ok(Next::Idle);
            }
            let until = due.map_or(deadline, |due| due.min(deadline));
            self.flow.relieve(&self.consumer, &self.intake.merge)?;
            self.poll(until.saturating_duration_since(now).min(POLL_MAX))?;
            polled = true;
        }
    }

    /// Its rejected records are on the broker before anyone can record its offsets as done.
    fn hand_out(&mut self, mut batch: Batch) -> anyhow::Result<Next> {
        batch.pass = self.pass;
        if batch.rejected > 0 {
            self.dead.flush()?;
        }
        Ok(Next::Batch(batch))
    }

    /// Takes records: waits for the first, then whatever is there.
    fn poll(&mut self, wait: Duration) -> anyhow::Result<()> {
        let mut round = Vec::new();
        let room = self.flow.room(&self.intake.merge);
        let mut stopped = None;
        while round.len() < room && stopped.is_none() {
            let wait = if round.is_empty() { wait } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) if self.intake.past_end(&message) => {
                    stopped = Some(KafkaError::PartitionEOF(message.partition()));
                }
                Some(Ok(message)) => round.push(message),
                Some(Err(error)) => stopped = Some(error),
            }
        }
        // What came before an end or an error is taken before that.
        self.intake.take(&round, &mut self.dead)?;
        for run in round.chunk_by(|a, b| a.partition() == b.partition()) {
            self.flow.restrain(&self.consumer, &self.intake, run[0].partition())?;
        }
        match stopped {
            None => Ok(()),
            Some(KafkaError::PartitionEOF(partition)) => {
                self.intake.reached_end(partition);
                self.flow.restrain(&self.consumer, &self.intake, partition)
            }
            Some(error) => self.trouble(&error),
        }
    }

    /// Sorts the errors that pass from those that do not. (The former are logged by
    /// [`client::Watch`], and librdkafka retries.)
    fn trouble(&self, error: &KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode as Code;
        let (topic, brokers) = (&self.flow.topic, &self.brokers);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => bail!(
                "the log of `{topic}` no longer holds the offset to read next: {}; it was lost to \
                 retention while we were behind, or the topic was created anew. Restart: \
                 kafka.on_data_loss then decides",
                self.consumer.context().errors.last()
            ),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                let there = position::partitions(&self.consumer, topic, brokers)?;
                let missing: Vec<i32> = self
                    .intake
                    .batcher
                    .offsets()
                    .iter()
                    .map(|(partition, _)| partition)
                    .filter(|partition| !there.contains(partition))
                    .collect();
                if !missing.is_empty() {
                    bail!(
                        "topic `{topic}` has lost its partitions {missing:?}; was it created anew?"
                    );
                }
                Ok(())
            }
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::SSL,
            ) => bail!(
                "the brokers {brokers} refuse us: {}; check the credentials in kafka.properties \
                 and the broker's ACLs for topic `{topic}`",
                self.consumer.context().errors.last()
            ),
            Some(Code::BadMessage | Code::InvalidMessage) => bail!(
                "a record of `{topic}` arrived damaged: {}; check the broker's disks, and skip it \
                 by hand if it stays so",
                self.consumer.context().errors.last()
            ),
            _ if fatal => {
                bail!("kafka client failed: {}", self.consumer.context().errors.last())
            }
            _ => Ok(()),
        }
    }

    /// Stops fetching, for as long as nobody wants batches. `next` may still be called, and gives
    /// what is buffered.
    ///
    /// # Errors
    /// If librdkafka does not know the partitions, which would be a fault of ours.
    pub fn pause_all(&mut self) -> anyhow::Result<()> {
        self.flow.hold(&self.consumer, &self.intake, true)
    }

    /// Fetches again.
    ///
    /// # Errors
    /// As [`Source::pause_all`].
    pub fn resume_all(&mut self) -> anyhow::Result<()> {
        self.flow.hold(&self.consumer, &self.intake, false)
    }

    /// Records between what was handed out and the log's end, for partitions whose end is known.
    pub fn lag(&self) -> Vec<(i32, i64)> {
        let offsets = self.intake.batcher.offsets();
        let lag = |(partition, next): (i32, i64)| {
            // Markers and compacted records at the end are nothing that anyone waits for.
            if self.intake.merge.drained(partition) && !self.intake.finished.contains(&partition) {
                return Some((partition, 0));
            }
            let high = cached_high(&self.consumer, &self.flow.topic, partition)?;
            Some((partition, (high - next).max(0)))
        };
        offsets.iter().filter_map(lag).collect()
    }

    /// Rejected records since the start, by [`super::decode::DecodeError::reason`].
    pub fn rejected_by_reason(&self) -> &BTreeMap<&'static str, u64> {
        self.intake.guard.by_reason()
    }

    /// Tells the group's offsets to Kafka, for dashboards; nothing is ever read back, so a
    /// failure is only logged.
    pub fn commit(&self, offsets: &Offsets) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in offsets.iter() {
            if let Err(error) =
                list.add_partition_offset(offsets.topic(), partition, Offset::Offset(next))
            {
                tracing::debug!(%error, partition, "offset not committed");
            }
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "offsets not committed");
        }
    }
}

fn check_range(range: &Range, topic: &str, there: &[i32]) -> anyhow::Result<()> {
    if range.from.topic() != topic {
        bail!("the range is one of `{}`, but kafka.topic is `{topic}`", range.from.topic());
    }
    for (partition, _) in range.from.iter() {
        if !there.contains(&partition) {
            bail!("topic `{topic}` has no partition {partition}; it has {there:?}");
        }
        if range.to.as_ref().is_some_and(|to| to.next(partition).is_none()) {
            bail!("partition {partition} of `{topic}` has a start but no end to read to");
        }
    }
    Ok(())
}

/// The log's end as of the last fetch; none before the first one.
fn cached_high(consumer: &BaseConsumer<Watch>, topic: &str, partition: i32) -> Option<i64> {
    let topic = std::ffi::CString::new(topic).ok()?;
    let (mut low, mut high) = (0_i64, 0_i64);
    // rdkafka wraps only the variant that asks the broker, and would block for it.
    // SAFETY: the client outlives the call, the topic is a C string, and both results are ours.
    let answer = unsafe {
        rdkafka::bindings::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    let known = answer == rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
    known.then_some(high)
}

#[cfg(test)]
pub(crate) mod tests;
