//! From records to batches: everything about a record but where it comes from.

use std::collections::BTreeSet;
use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Message};

use crate::config::Config;

use super::super::batch::Batch;
use super::super::dead_letter::{DeadLetters, Letter};
use super::super::decode::Mapping;
use super::super::events::Events;
use super::super::merge::{Batcher, Merge};
use super::super::offsets::Offsets;
use super::super::position::Range;
use super::super::shuffle::Shuffle;
use super::guard::Guard;

/// Decodes, merges, shuffles and batches; all of it but the letters is pure.
pub(super) struct Intake {
    mapping: Mapping,
    pub(super) merge: Merge,
    /// Collects a batch, or a window where there is a shuffle.
    pub(super) batcher: Batcher,
    shuffle: Option<Shuffle>,
    pub(super) guard: Guard,
    ends: Option<Offsets>,
    pub(super) finished: BTreeSet<i32>,
}

impl Intake {
    pub(super) fn new(config: &Config, range: Range, pass: u32) -> Intake {
        let partitions = range.from.iter().map(|(partition, _)| partition);
        let (size, window) = (config.batch.size, config.batch.shuffle_events);
        let shuffle =
            (window > 0).then(|| Shuffle::new(size, config.seed, pass, range.from.clone()));
        let mut intake = Intake {
            mapping: Mapping::new(config),
            merge: Merge::new(partitions, config.kafka.order, &Events::of(config)),
            guard: Guard::new(config.kafka.rejected_window, config.kafka.rejected_share_max),
            ends: range.to,
            finished: BTreeSet::new(),
            batcher: Batcher::new(size.max(window), Events::of(config), range.from.clone()),
            shuffle,
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

    /// The partition has nothing more at present. In a bounded range this is its end, whatever
    /// markers or compacted records stand before it.
    pub(super) fn reached_end(&mut self, partition: i32) {
        if self.ends.is_some() {
            self.finish_at(partition, i64::MAX);
        } else {
            self.merge.set_idle(partition, true);
        }
    }

    pub(super) fn take(
        &mut self,
        message: &BorrowedMessage<'_>,
        dead: &mut DeadLetters,
    ) -> anyhow::Result<()> {
        let (partition, offset) = (message.partition(), message.offset());
        // Past the end there may be a record where the last ones before it are gone.
        self.finish_at(partition, offset);
        if self.finished.contains(&partition) {
            return Ok(());
        }
        let time_ms = message.timestamp().to_millis();
        let mapping = &mut self.mapping;
        self.merge.set_idle(partition, false);
        let pushed = self
            .merge
            .push(partition, offset, |events| mapping.decode(message.payload(), time_ms, events));
        match pushed {
            Ok(()) => self.guard.accept(),
            Err(error) => {
                let (reason, text) = (error.reason(), error.to_string());
                let (key, payload) = (message.key(), message.payload());
                let error = text.as_str();
                dead.send(&Letter { key, payload, time_ms, partition, offset, reason, error })?;
                let example =
                    || format!("{}/{partition} offset {offset}: {error}", message.topic());
                self.guard.reject(reason, example)?;
            }
        }
        self.finish_at(partition, offset + 1);
        Ok(())
    }

    /// Moves what is certain into the batch; gives it when it is full. A window is dealt out
    /// before the next one begins: `batch.shuffle_events` bounds both together.
    pub(super) fn assemble(&mut self, now: Instant) -> Option<Batch> {
        if let Some(batch) = self.shuffle.as_mut().and_then(Shuffle::deal) {
            return Some(batch);
        }
        while !self.batcher.full() {
            self.batcher.push(self.merge.pop()?, now);
        }
        self.close()
    }

    /// The batch as it is, or the first one of the window as that is, if anything went in.
    pub(super) fn close(&mut self) -> Option<Batch> {
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
