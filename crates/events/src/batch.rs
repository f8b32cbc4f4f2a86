//! What one training step takes.

use crate::{CatalogueChange, Events, Offsets};

/// A run of events, with the offsets that reading them leads to.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Next offset to read once this batch is applied.
    pub offsets: Offsets,
    /// Its offsets are exact: true unless more of its shuffle window follows. Then they are those
    /// of the window's start, and the state after it belongs to no offsets.
    pub whole: bool,
    /// Which time over the log this is; 1: the first.
    pub pass: u32,
    /// Records rejected since the batch before.
    pub rejected: u64,
    /// Its events. There may be none, when only rejected records lie between two offsets.
    pub events: Events,
    /// Partition and offset of each event's record, so that an event that turns out unusable in
    /// training can still go to the dead-letter topic. Empty where the events come from no topic
    /// (files, tests) or were put together anew (`replay --by-day`).
    pub origins: Vec<(i32, i64)>,
    /// What catalogues said between its events, in the order of the log.
    pub changes: Vec<CatalogueChange>,
    /// Next offsets to read of each catalogue once this batch is applied, in the config's order.
    pub catalogues: Vec<Offsets>,
}

impl Batch {
    /// A batch of `events` without origins that leads to `offsets`.
    pub fn new(events: Events, offsets: Offsets) -> Self {
        Self {
            offsets,
            whole: true,
            pass: 1,
            rejected: 0,
            events,
            origins: Vec::new(),
            changes: Vec::new(),
            catalogues: Vec::new(),
        }
    }

    /// These of its events, by ascending place, with all else it says.
    pub fn part(&self, events: &[u32]) -> Self {
        let mut part = Events::none_of(&self.events);
        let places: Vec<_> = events.iter().map(|&event| (&self.events, event as usize)).collect();
        part.gather(&places);
        let origins = match &self.origins[..] {
            [] => Vec::new(),
            origins => events.iter().map(|&event| origins[event as usize]).collect(),
        };
        let left = |at: u32| events.partition_point(|&event| event < at) as u32;
        let moved =
            |change: &CatalogueChange| CatalogueChange { at: left(change.at), ..change.clone() };
        Self {
            events: part,
            offsets: self.offsets.clone(),
            origins,
            changes: self.changes.iter().map(moved).collect(),
            catalogues: self.catalogues.clone(),
            ..*self
        }
    }

    /// True if it brings neither an event nor a change of a catalogue: it moves offsets at most.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.changes.is_empty()
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True without events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Time of its newest event, ms since 1970; 0 without events.
    pub fn newest_ms(&self) -> i64 {
        self.events.times_ms.iter().copied().max().unwrap_or_default()
    }
}
