//! From records to batches: everything about a record but where it comes from.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::message::Message;

use crate::config::{Config, Order};
use crate::stream::catalogue::{self, CatalogueRange};
use crate::stream::cut::Cut;
use crate::stream::dead_letter::{DeadLetters, Letter};
use crate::stream::decode::DecodeError;
use crate::stream::events_of;
use crate::stream::identity;
use crate::stream::merge::{Batcher, Merge, Record, Run};
use crate::stream::position::Range;
use crate::stream::shuffle::Shuffle;

use super::decoders::Part;
use super::example;
use super::guard::Guard;
use super::lanes::ROUND;
use super::patience::Patience;
use millrace_events::{Batch, Offsets, Witness, lane_place};

/// Merges, shuffles and batches; all of it but the letters is pure.
pub(super) struct Intake {
    pub(super) merge: Merge,
    /// Collects a batch; with a shuffle, a window.
    pub(super) batcher: Batcher,
    shuffle: Option<Shuffle>,
    /// Batches to hand out, at most what [`Intake::assemble`] makes at a time.
    pub(super) ready: VecDeque<Batch>,
    pub(super) guard: Guard,
    pub(super) patience: Patience,
    ends: Option<Offsets>,
    pub(super) finished: BTreeSet<i32>,
    /// An event whose time is far from its record's has been shown.
    odd_time_shown: bool,
    /// The time of the last event that was taken.
    time_before: Option<i64>,
    /// Remembers the last record of each part.
    pub(super) witness: Option<Arc<Mutex<Witness>>>,
    /// Lanes of catalogues that events need not wait for without end: their bootstrap is read.
    passable: BTreeSet<i32>,
}

impl Intake {
    pub(super) fn new(
        config: &Config,
        range: Range,
        catalogues: &[CatalogueRange],
        pass: u32,
        cut: Cut,
    ) -> Intake {
        let lanes = catalogue::lanes(catalogues);
        let numbers = (1..).zip(&lanes).map(|(number, _): (i32, _)| -number);
        let partitions = range.from.iter().map(|(partition, _)| partition).chain(numbers);
        let from: Vec<Offsets> = catalogues.iter().map(|range| range.from.clone()).collect();
        let (size, window) = (config.batch.size, config.batch.shuffle_events);
        let shuffle = || Shuffle::new(size, cut, config.seed, pass, range.from.clone());
        let shuffle = (window > 0).then(|| shuffle().following(from.clone()));
        // A window is whole; the batches dealt from it are cut.
        let (full, cut) = if window > 0 { (window, Cut::Full) } else { (size, cut) };
        let mut intake = Intake {
            merge: Merge::new(partitions, config.kafka.order),
            guard: Guard::new(config.kafka.rejected_window, config.kafka.rejected_share_max),
            patience: Patience::new(merge_wait(config).filter(|_| range.to.is_none())),
            ends: range.to,
            finished: BTreeSet::new(),
            odd_time_shown: false,
            time_before: None,
            witness: None,
            passable: BTreeSet::new(),
            batcher: Batcher::new(full, cut, events_of(config), range.from.clone())
                .following(from, lanes),
            shuffle,
            ready: VecDeque::new(),
        };
        for (partition, next) in range.from.iter() {
            intake.finish_at(partition, next);
        }
        intake
    }

    /// Finishes `partition` if `next` is where it ends.
    fn finish_at(&mut self, partition: i32, next: i64) {
        let end = self.ends.as_ref().and_then(|ends| ends.next(partition));
        if end.is_some_and(|end| next >= end) {
            self.merge.finish(partition);
            self.finished.insert(partition);
        }
    }

    /// A record past the range's end came: the last ones before it were compacted away.
    pub(super) fn passed_end(&mut self, partition: i32) {
        self.finish_at(partition, i64::MAX);
    }

    /// The partition has nothing more at present, up to the log's `end`. `position`: where its next
    /// record will be, past the markers of transactions.
    ///
    /// A bounded range ends only where it ends: a leader that was elected a moment ago may say for
    /// a while that the log is shorter.
    pub(super) fn reached_end(&mut self, partition: i32, position: Option<i64>, end: Option<i64>) {
        self.patience.heard(partition);
        match &self.ends {
            None => {
                self.merge.set_idle(partition, true);
                if let Some(position) = position {
                    self.merge.pass(partition, position);
                }
            }
            Some(ends) if ends.next(partition) <= end => self.passed_end(partition),
            Some(_) => {}
        }
    }

    /// The newest record of the partition, as far as the client knows, is taken. Live this is as
    /// good as word from the broker, which comes a fetch later; a bounded range ends only where it
    /// ends.
    pub(super) fn caught_up(&mut self, partition: i32) {
        if self.ends.is_none() {
            self.merge.set_idle(partition, true);
        }
    }

    /// Nothing can be read at present. Returns the partitions that held the others back for too
    /// long; from now on they do not.
    pub(super) fn pass_over(&mut self, now: Instant) -> Vec<i32> {
        let partitions = self.batcher.offsets().iter().map(|(partition, _)| partition);
        let partitions = partitions.chain(self.passable.iter().copied());
        let lost = self.patience.lost(&self.merge, partitions, now);
        lost.iter().for_each(|&partition| self.merge.set_idle(partition, true));
        lost
    }

    /// Takes records of the range.
    pub(super) fn take<M: Message>(
        &mut self,
        part: Part<M>,
        dead: &mut DeadLetters,
    ) -> anyhow::Result<()> {
        let Part { messages, run, errors, next, skipped, unread } = part;
        let lane = run.partition;
        self.guard.skip(skipped, unread.values);
        if let Some(reason) = unread.first
            && self.guard.is_first("unread")
        {
            tracing::warn!(
                "a value of an optional feature or an attribute counts as absent: {reason}. It is \
                 the first one, in partition {} at or after offset {}; the others are counted",
                lane_place(lane).1,
                messages.first().map_or(next, Message::offset)
            );
        }
        if let (Some(witness), Some(last)) = (&self.witness, messages.last()) {
            let mut witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
            witness.note(lane, identity::trace(last));
        }
        self.judge(&run.records, &messages, errors, dead)?;
        self.patience.heard(lane);
        self.merge.set_idle(lane, false);
        self.merge.push(run);
        self.finish_at(lane, next);
        Ok(())
    }

    /// From now on events wait for the lane of a catalogue no longer than for one of theirs.
    pub(super) fn may_pass_over(&mut self, lane: i32) {
        self.passable.insert(lane);
    }

    /// There was word from a lane.
    pub(super) fn heard(&mut self, lane: i32) {
        self.patience.heard(lane);
    }

    /// Takes records of a catalogue.
    pub(super) fn take_changes(
        &mut self,
        run: Run,
        messages: &[impl Message],
        errors: Vec<DecodeError>,
        unread: u64,
        dead: &mut DeadLetters,
    ) -> anyhow::Result<()> {
        self.guard.skip(0, unread);
        let mut errors = errors.into_iter();
        for (record, message) in run.records.iter().zip(messages) {
            if record.time_ms.is_some() {
                self.guard.accept();
            } else {
                let error = errors.next().expect("a rejected record has a reason");
                self.reject(message, &error, dead)?;
            }
        }
        self.patience.heard(run.partition);
        self.merge.set_idle(run.partition, false);
        self.merge.push(run);
        Ok(())
    }

    /// Counts the records, and sends letters for those that are rejected.
    fn judge(
        &mut self,
        records: &[Record],
        messages: &[impl Message],
        errors: Vec<DecodeError>,
        dead: &mut DeadLetters,
    ) -> anyhow::Result<()> {
        let mut errors = errors.into_iter();
        for (record, message) in records.iter().zip(messages) {
            if let Some(time_ms) = record.time_ms {
                self.guard.accept();
                let before = self.time_before.replace(time_ms);
                let odd = |other| is_odd(time_ms, other);
                if !self.odd_time_shown && (odd(message.timestamp().to_millis()) || odd(before)) {
                    self.odd_time_shown = true;
                    example::show_odd_time(message, time_ms);
                }
                continue;
            }
            let error = errors.next().expect("a rejected record has a reason");
            self.reject(message, &error, dead)?;
        }
        Ok(())
    }

    fn reject(
        &mut self,
        message: &impl Message,
        error: &DecodeError,
        dead: &mut DeadLetters,
    ) -> anyhow::Result<()> {
        let (reason, text) = (error.reason(), error.to_string());
        let (partition, offset) = (message.partition(), message.offset());
        if self.guard.is_first(reason) {
            example::show(message, error);
        }
        dead.send(&Letter {
            key: message.key(),
            payload: message.payload(),
            time_ms: message.timestamp().to_millis(),
            topic: message.topic(),
            partition,
            offset,
            reason,
            error: &text,
        })?;
        let example = || format!("{}/{partition} offset {offset}: {text}", message.topic());
        self.guard.reject(reason, example)
    }

    /// Makes batches of records that are certain, of a round's events or a batch more.
    pub(super) fn assemble(&mut self, now: Instant) {
        let mut events = 0;
        while events < ROUND
            && let Some(batch) = self.fill(now)
        {
            events += batch.len();
            self.ready.push_back(batch);
        }
    }

    /// The next batch of records that are certain, even if it is not full.
    pub(super) fn rest(&mut self, now: Instant) -> Option<Batch> {
        self.assemble(now);
        self.ready.pop_front().or_else(|| self.close())
    }

    /// Moves records that are certain into the batch, and returns it when it is full. A window is
    /// dealt out before the next one begins: `batch.shuffle_events` bounds both together.
    fn fill(&mut self, now: Instant) -> Option<Batch> {
        if let Some(batch) = self.shuffle.as_mut().and_then(Shuffle::deal) {
            return Some(batch);
        }
        self.batcher.fill(&mut self.merge, now);
        if self.batcher.full() { self.close() } else { None }
    }

    /// The incomplete batch, or the first one of the incomplete window, if anything went in.
    fn close(&mut self) -> Option<Batch> {
        let taken = self.batcher.take()?;
        match &mut self.shuffle {
            None => Some(taken),
            Some(shuffle) => {
                shuffle.load(taken);
                shuffle.deal()
            }
        }
    }
}

/// Event times that lie this far from their record's, or from that of the event before, are in
/// another unit, or a clock is wrong: a backfill of old events is rarely older.
const ODD_MS: u64 = 10 * 365 * 86_400_000;

/// Whether an event's time is far from another one.
pub(super) fn is_odd(time_ms: i64, other_ms: Option<i64>) -> bool {
    other_ms.is_some_and(|other_ms| time_ms.abs_diff(other_ms) > ODD_MS)
}

/// How long the merge waits for a partition of a stream without an end; none: for ever.
fn merge_wait(config: &Config) -> Option<Duration> {
    let kafka = &config.kafka;
    let waits = kafka.order == Order::EventTime && kafka.merge_wait_ms > 0;
    waits.then(|| Duration::from_millis(kafka.merge_wait_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mixed-units.jsonl`: seconds that were read as milliseconds lie in January 1970.
    #[test]
    fn times_in_another_unit_are_odd() {
        let now_ms = 1_764_115_200_000;
        assert!(is_odd(now_ms / 1000, Some(now_ms)));
        assert!(!is_odd(now_ms - 5 * 365 * 86_400_000, Some(now_ms)));
        assert!(!is_odd(now_ms / 1000, None), "a record without a time says nothing");
    }
}
