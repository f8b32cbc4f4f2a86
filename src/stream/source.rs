//! The consumer: records in, batches out.
//!
//! Owns: the assignment, the bounds of the partitions' buffers, rejected records on their way to
//! the dead-letter topic, and the decision which of the broker's errors pass by themselves. This is
//! the stream's edge: the clock and the log are read here and nowhere deeper.
//!
//! Must never know: what happens to a batch. It is told where to start, and hands out offsets
//! with the data.

mod catalogues;
mod census;
pub(super) mod decoders;
mod example;
mod growth;
mod guard;
mod held;
mod ids;
mod intake;
mod lanes;
mod linger;
mod patience;
mod sample;
mod standing;
mod trouble;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::bail;
use crossbeam_channel::Receiver;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;

use crate::config::Config;

use super::catalogue::{self, CatalogueRange};
use super::cut::Cut;
use super::dead_letter::DeadLetters;
use super::group;
use super::log::Log;
use super::position::Range;
use super::refusal::Wish;
use super::topic::{Topic, discover};
use super::wire::Wires;
use catalogues::Feed;
use census::Census;
use decoders::{Decoders, Part};
use held::Held;
pub use ids::Ids;
use intake::Intake;
use lanes::{Lanes, Numbering, Stop};
use linger::Linger;
use millrace_events::{Batch, Offsets, Witness};
pub(in crate::stream) use sample::sample;
pub use sample::{Reason, Sample, Sampled, newest_values};
pub use standing::Lag;

/// The answer of [`Source::next`].
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once a batch, never stored in numbers")]
pub enum Next {
    /// The next batch. If only rejected records lie between two offsets, it has no events.
    Batch(Batch),
    /// Nothing yet.
    Idle,
    /// A bounded range is read to its end, and every batch was handed out.
    End,
}

/// Reads a log's lanes from given offsets on.
pub struct Source {
    /// Dropped before the log's consumer: librdkafka frees a queue through its client.
    lanes: Lanes,
    log: Log,
    /// The catalogues, in the config's order.
    feeds: Vec<Feed>,
    /// Rings when there is something to read.
    bell: Receiver<()>,
    pass: u32,
    /// An incomplete batch or window waits this long; none: until the range ends.
    linger: Option<Linger>,
    wires: Wires,
    decoders: Decoders,
    held: Held,
    intake: Intake,
    dead: DeadLetters,
    /// Lanes that the merge went on without, since [`Source::take_passed`].
    passed: Vec<i32>,
    census: Census,
    config: Config,
    /// Counts the looks whether the log is still the same.
    turn: usize,
    /// Where lanes begin that the log has got since.
    new: Offsets,
    /// Next offsets to read after the last batch that was handed out and has exact ones.
    done: Offsets,
    /// The same of each catalogue.
    done_catalogues: Vec<Offsets>,
    /// Batches that were handed out have exact offsets: none is part of a window.
    whole: bool,
    /// The range has an end.
    bounded: bool,
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
    /// Starts to read `range` of the log of interactions, for the `pass`-th time (1: the first):
    /// each pass has a shuffle of its own. `cut` makes its batches smaller than they need to be.
    ///
    /// # Errors
    /// If a topic is not there (after a bounded wait), lacks a partition of the range, or if
    /// librdkafka refuses the config.
    pub fn open(
        config: &Config,
        range: Range,
        pass: u32,
        cut: Cut,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Source> {
        Source::open_following(config, range, &[], (pass, cut), stop)
    }

    /// As [`open`](Self::open), with these ranges of the config's catalogues.
    ///
    /// # Errors
    /// As of [`open`](Self::open), for their topics too.
    pub fn open_following(
        config: &Config,
        range: Range,
        catalogues: &[CatalogueRange],
        (pass, cut): (u32, Cut),
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Source> {
        let kafka = &config.kafka;
        let log = Log::to_read(config, range.from.iter().len())?;
        log.check(&range)?;
        let bounded = range.to.is_some();
        let wires = Wires::open(config)?;
        let mut intake = Intake::new(config, range.clone(), catalogues, pass, cut);
        let (ring, bell) = crossbeam_channel::bounded(1);
        let mut numbers = vec![BTreeMap::new(); catalogues.len()];
        for (number, (catalogue, partition)) in (1..).zip(catalogue::lanes(catalogues)) {
            numbers[catalogue].insert(partition, -number);
        }
        let feeds = config.catalogue.iter().zip(catalogues).zip(numbers);
        let feeds = feeds.map(|((catalogue, range), numbers)| {
            Feed::open(config, catalogue, range, numbers, &ring, &mut intake)
        });
        let feeds = feeds.collect::<anyhow::Result<Vec<Feed>>>()?;
        let place = |lane| {
            let (topic, partition) = log.place(lane);
            (topic.name.as_str(), partition)
        };
        let numbering = Numbering { ring: &ring, place: &place, number: &|lane| lane };
        let (consumer, buffer) = (&log.first().consumer, kafka.buffer_events);
        Ok(Source {
            lanes: Lanes::open(consumer, &range, &intake.finished, buffer, numbering)?,
            feeds,
            bell,
            done_catalogues: catalogues.iter().map(|range| range.from.clone()).collect(),
            decoders: Decoders::new(config, &wires),
            wires,
            held: Held::default(),
            intake,
            linger: if bounded { None } else { Linger::new(&config.batch) },
            pass,
            dead: DeadLetters::new(config, stop)?,
            passed: Vec::new(),
            census: Census::new(discover(config).filter(|_| !bounded), Instant::now()),
            config: config.clone(),
            turn: 0,
            new: range.from.unread(),
            done: range.from,
            whole: true,
            bounded,
            log,
        })
    }

    /// Lets `witness` remember some of the records that are read from now on.
    pub fn remember(&mut self, witness: &Arc<Mutex<Witness>>) {
        self.intake.witness = Some(Arc::clone(witness));
    }

    /// Waits for the next batch, at most `wait`. Must be called often, also while the trainer is
    /// busy: librdkafka reports errors only then.
    ///
    /// # Errors
    /// Faults that no retry cures: too many rejected records, offsets that left the log, a topic
    /// that no longer exists, a refusal that lasts, dead letters that cannot be delivered.
    pub fn next(&mut self, wait: Duration) -> anyhow::Result<Next> {
        let deadline = Instant::now() + wait;
        let mut polled = false;
        loop {
            let now = Instant::now();
            if let Some(batch) = self.intake.ready.pop_front() {
                return self.hand_out(batch);
            }
            let finished = self.intake.merge.finished();
            let due = self.linger.and_then(|linger| linger.due(&self.intake.batcher));
            if finished || due.is_some_and(|due| due <= now) {
                match self.intake.rest(now) {
                    Some(batch) => return self.hand_out(batch),
                    None if finished => return Ok(Next::End),
                    None => {}
                }
            }
            if polled && now >= deadline {
                return Ok(Next::Idle);
            }
            let until = due.map_or(deadline, |due| due.min(deadline));
            self.poll(until.saturating_duration_since(now).min(POLL_MAX))?;
            polled = true;
        }
    }

    /// Hands out `batch`, after its dead letters are on the broker: nobody may record its offsets
    /// as done before that.
    fn hand_out(&mut self, mut batch: Batch) -> anyhow::Result<Next> {
        batch.pass = self.pass;
        if batch.rejected > 0 {
            self.dead.flush()?;
        }
        self.whole = batch.whole;
        if batch.whole {
            self.done = batch.offsets.clone();
            self.done_catalogues.clone_from(&batch.catalogues);
        }
        Ok(Next::Batch(batch))
    }

    /// Takes the records that have arrived, and meanwhile makes batches of those taken before. If
    /// there are neither, it waits for records.
    fn poll(&mut self, wait: Duration) -> anyhow::Result<()> {
        self.serve()?;
        self.look()?;
        for (lane, message) in self.held.release(&self.wires) {
            let part = self.decoders.decode_one(lane, message);
            take(&mut self.intake, part, &self.log, &mut self.dead)?;
        }
        let mut moved = false;
        for feed in &mut self.feeds {
            moved |= feed.poll(&mut self.intake, &mut self.dead)?;
        }
        let before = self.intake.merge.buffered_total();
        let mut round = self.lanes.round(&self.intake.merge, &self.wires, &self.held);
        let assemble = || self.intake.assemble(Instant::now());
        let parts = self.decoders.decode(|| round.part(), assemble);
        let (stopped, held) = (round.stopped, round.held);
        self.held.hold(held);
        let left = self.intake.merge.buffered_total();
        let assembled = left < before || !self.intake.ready.is_empty();
        if parts.is_empty() && stopped.is_none() && !assembled && !moved {
            if !self.pass_over() {
                // A timeout is no more than a reason to look again.
                self.bell.recv_timeout(wait).ok();
            }
            return Ok(());
        }
        if !parts.is_empty() || matches!(stopped, Some(Stop::LogEnd(_))) {
            self.log.first().consumer.context().errors.answered();
        }
        // Records that came before an end or an error are taken before it.
        for part in parts {
            take(&mut self.intake, part, &self.log, &mut self.dead)?;
        }
        match stopped {
            None => {}
            Some(Stop::RangeEnd(lane)) => self.intake.passed_end(lane),
            Some(Stop::LogEnd(lane)) => {
                let (position, end) = (self.log.position(lane), self.log.cached_end(lane));
                self.intake.reached_end(lane, position, end);
            }
            Some(Stop::Trouble(lane, error)) => self.trouble(lane, &error)?,
        }
        self.lanes.close(&self.log.first().consumer, &self.intake.finished)
    }

    /// Lets the merge go on without lanes that hold it back for too long. False: there are none.
    fn pass_over(&mut self) -> bool {
        // A lane that waits for a schema is heard of.
        self.held.lanes().for_each(|lane| self.intake.patience.heard(lane));
        let lost = self.intake.pass_over(Instant::now());
        for lane in &lost {
            let of_feed = |feed: &Feed| Some((feed.topic().to_owned(), feed.partition_of(*lane)?));
            let own = || self.log.named(*lane);
            let (topic, partition) = self.feeds.iter().find_map(of_feed).unwrap_or_else(own);
            tracing::warn!(
                "{topic}/{partition} gives neither records nor word of its end; the other \
                 partitions wait no longer (kafka.merge_wait_ms). Its records are read when they \
                 come; see whether it has a leader (kafka-topics.sh --describe --topic {topic})"
            );
        }
        self.passed.extend(lost.iter().filter(|lane| **lane >= 0));
        !lost.is_empty()
    }

    /// What is left to read of the catalogues after the last batch with exact offsets; partitions
    /// that they have got since, from their beginning.
    pub fn catalogues(&self) -> Vec<CatalogueRange> {
        let feeds = self.feeds.iter().zip(&self.done_catalogues);
        feeds.map(|(feed, done)| feed.range(done.clone())).collect()
    }

    /// The topics and partitions that the merge went on without, each time once, since the last
    /// call.
    pub fn take_passed(&mut self) -> Vec<(String, i32)> {
        let passed = std::mem::take(&mut self.passed);
        passed.into_iter().map(|lane| self.log.named(lane)).collect()
    }

    /// Serves events that belong to no partition (errors, callbacks).
    fn serve(&mut self) -> anyhow::Result<()> {
        let Topic { consumer, remedies, .. } = self.log.first();
        if let Some((refusal, said)) = consumer.context().errors.refused() {
            bail!(remedies.explain(refusal, Wish::Read(&self.config.topic_names()), &said));
        }
        if let Some(why) = self.wires.refused() {
            bail!("the schema registry gives no schema: {why}");
        }
        match consumer.poll(Duration::ZERO) {
            None => Ok(()),
            // It is of the connection, which all lanes share.
            Some(Err(error)) => self.trouble(0, &error),
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                bail!("{}/{partition} offset {offset} came out of turn", message.topic())
            }
        }
    }

    /// Notes that the log has an example of these reasons: an earlier pass of the run showed them.
    pub fn have_shown(&mut self, reasons: impl Iterator<Item = &'static str>) {
        for reason in reasons {
            self.intake.guard.is_first(reason);
        }
    }

    /// Rejected records since the start, by [`super::decode::DecodeError::reason`].
    pub fn rejected_by_reason(&self) -> &BTreeMap<&'static str, u64> {
        self.intake.guard.by_reason()
    }

    /// Records passed over since the start (`kafka.tombstone`).
    pub fn skipped(&self) -> u64 {
        self.intake.guard.skipped()
    }

    /// Values of optional features that could not be read since the start.
    pub fn unread(&self) -> u64 {
        self.intake.guard.unread()
    }

    /// Tells the offsets of a durable checkpoint and its `version` to Kafka, for dashboards; a
    /// failure is only logged. A replay tells nothing: the group is that of the live run, which
    /// may be elsewhere in the log.
    pub fn commit(&self, offsets: &Offsets, version: &str) {
        // A commit to a group that is refused would hold up the end of the client.
        let refused = self.log.first().consumer.context().no_group.load(Ordering::Relaxed);
        if !self.bounded && !self.config.kafka.group.is_empty() && !refused {
            group::commit(self.log.first(), offsets, version);
        }
    }
}

/// Takes a part. Its last record may be the newest of its lane.
fn take<M: Message>(
    intake: &mut Intake,
    part: Part<M>,
    log: &Log,
    dead: &mut DeadLetters,
) -> anyhow::Result<()> {
    let (lane, next) = (part.run.partition, part.next);
    intake.take(part, dead)?;
    if log.cached_end(lane) == Some(next) {
        intake.caught_up(lane);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
