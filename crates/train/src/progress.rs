//! How far a state has come: what a checkpoint says of it beside the state itself.

use millrace_events::{Batch, CataloguePlace, Offsets};

/// The position of a state in its log, and what it took to get there.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Batches that changed the state: with events, or with changes of a catalogue.
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
    /// How far each catalogue has been read, in the config's order.
    pub catalogues: Vec<CataloguePlace>,
}

impl Progress {
    /// Nothing is read; the first record will be that of `offsets`.
    pub fn begin(offsets: Offsets) -> Self {
        let catalogues = Vec::new();
        Self { step: 0, events: 0, rejected: 0, event_time_ms: 0, offsets, pass: 1, catalogues }
    }

    /// Records read: events and rejected ones.
    pub fn records(&self) -> u64 {
        self.events + self.rejected
    }

    /// A place in all logs as one number, which every record that is read raises.
    pub fn place(&self) -> u64 {
        let catalogues = self.catalogues.iter().map(|catalogue| catalogue.next.total());
        self.offsets.total() + catalogues.sum::<u64>()
    }

    /// Moves past `batch`, which counts as a step if it has events or changes.
    pub(crate) fn pass(&mut self, batch: &Batch) {
        self.offsets.clone_from(&batch.offsets);
        self.pass = batch.pass;
        self.rejected += batch.rejected;
        for (place, next) in self.catalogues.iter_mut().zip(&batch.catalogues) {
            place.next.clone_from(next);
        }
        self.step += u64::from(!batch.is_idle());
        if !batch.is_empty() {
            self.events += batch.len() as u64;
            self.event_time_ms = self.event_time_ms.max(batch.newest_ms());
        }
    }
}
