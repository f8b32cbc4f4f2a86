//! How far a state has come: what a checkpoint says of it beside the state itself.

use millrace_events::{Batch, Offsets};

/// The position of a state in its log, and what it took to get there.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Batches trained on.
    pub step: u64,
    /// Events trained on or passed over.
    pub events: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Time of the newest event trained on, ms since 1970.
    pub event_time_ms: i64,
    /// Next offset to read.
    pub offsets: Offsets,
    /// Which time over the log the offsets belong to; 1: the first.
    pub pass: u32,
}

impl Progress {
    /// Nothing is read; the first record will be that of `offsets`.
    pub fn begin(offsets: Offsets) -> Self {
        Self { step: 0, events: 0, rejected: 0, event_time_ms: 0, offsets, pass: 1 }
    }

    /// Records read: events and rejected ones.
    pub fn records(&self) -> u64 {
        self.events + self.rejected
    }

    /// Moves past `batch`, which counts as a step if it has events.
    pub(crate) fn pass(&mut self, batch: &Batch) {
        self.offsets.clone_from(&batch.offsets);
        self.pass = batch.pass;
        self.rejected += batch.rejected;
        if !batch.is_empty() {
            self.step += 1;
            self.events += batch.len() as u64;
            self.event_time_ms = self.event_time_ms.max(batch.newest_ms());
        }
    }
}
