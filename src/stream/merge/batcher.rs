//! The merged sequence is cut into batches.

use std::time::Instant;

use super::Merge;
use crate::stream::cut::Cut;
use crate::stream::queue::EventPlace;
use millrace_events::{Batch, CatalogueChange, Events, Offsets};

/// Changes of a batch at most: a catalogue that is written anew between two events must not make
/// one step as long as thousands.
pub(super) const CHANGES_MAX: usize = 4096;

/// Cuts the merged sequence into batches.
#[derive(Debug)]
pub struct Batcher {
    /// Events that a batch may hold.
    full: usize,
    cut: Cut,
    /// Events of the batch in progress.
    size: usize,
    batch: Batch,
    /// The next record's events have no room in it.
    closed: bool,
    since: Option<Instant>,
    /// Catalogue and partition of lane -1, -2 and so on.
    lanes: Vec<(usize, i32)>,
}

impl Batcher {
    /// Batches of at most `full` events, cut as `cut` says, from `offsets` on. `empty`: events of
    /// the features to come, without any.
    pub fn new(full: usize, cut: Cut, empty: Events, offsets: Offsets) -> Batcher {
        assert!(full > 0, "a batch has room for an event");
        let size = cut.size(full, offsets.total());
        let batch = Batch::new(empty, offsets);
        Batcher { full, cut, size, batch, closed: false, since: None, lanes: Vec::new() }
    }

    /// The same, with catalogues from these offsets on; `lanes` are catalogue and partition of lane
    /// -1, -2 and so on.
    #[must_use]
    pub fn following(mut self, catalogues: Vec<Offsets>, lanes: Vec<(usize, i32)>) -> Batcher {
        self.batch.catalogues = catalogues;
        self.lanes = lanes;
        self
    }

    /// Takes the part of the sequence that is certain, until the batch is full; `now` counts only
    /// for the first record of a batch. A record's events stay together, since offsets lead past
    /// all of them: a batch ends before a record that would not fit, and is larger than its cut if
    /// its only record is.
    pub fn fill(&mut self, merge: &mut Merge, now: Instant) {
        let room = self.size.saturating_sub(self.batch.len());
        let mut places = Vec::new();
        while !self.closed
            && places.len() < room
            && let Some(events) = merge.next_events()
        {
            let is_empty = self.batch.is_empty() && places.is_empty();
            if places.len() + events > room && !is_empty {
                self.closed = true;
                break;
            }
            let entry = merge.pop().expect("there is one");
            self.since.get_or_insert(now);
            self.advance(entry.partition, entry.offset + 1);
            self.batch.rejected += u64::from(entry.rejected);
            if entry.partition < 0 && !entry.rejected {
                let change = merge.backlogs[entry.backlog].changes.pop_front();
                let change = change.expect("a catalogue's record is a change");
                let at = u32::try_from(self.batch.len() + places.len()).expect("a batch is small");
                self.batch.changes.push(CatalogueChange { at, ..change });
                self.closed = self.batch.changes.len() >= CHANGES_MAX;
            }
            for _ in 0..entry.events {
                places.push((entry.backlog, merge.backlogs[entry.backlog].events.pop()));
                self.batch.origins.push((entry.partition, entry.offset));
            }
        }
        let event =
            |&(backlog, place): &(usize, EventPlace)| merge.backlogs[backlog].events.get(place);
        let events: Vec<_> = places.iter().map(event).collect();
        self.batch.events.gather(&events);
        merge.release();
        for (partition, position) in merge.passed() {
            let next = match self.catalogue_of(partition) {
                Some((catalogue, partition)) => self.batch.catalogues[catalogue].next(partition),
                None => self.batch.offsets.next(partition),
            };
            if next.is_some_and(|next| next < position) {
                self.since.get_or_insert(now);
                self.advance(partition, position);
            }
        }
    }

    /// Catalogue and partition of a lane; none: it is a partition of the events' topic.
    fn catalogue_of(&self, lane: i32) -> Option<(usize, i32)> {
        usize::try_from(-1 - lane).ok().map(|lane| self.lanes[lane])
    }

    fn advance(&mut self, lane: i32, next: i64) {
        match self.catalogue_of(lane) {
            Some((catalogue, partition)) => {
                self.batch.catalogues[catalogue].advance(partition, next);
            }
            None => self.batch.offsets.advance(lane, next),
        }
    }

    /// True if it has all its events.
    pub fn full(&self) -> bool {
        self.closed || self.batch.len() >= self.size
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// True without events. It may still have rejected records.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// When the first record entered; none: it is empty.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Next offsets to read after everything that went in so far.
    pub fn offsets(&self) -> &Offsets {
        &self.batch.offsets
    }

    /// The same of each catalogue.
    pub fn catalogues(&self) -> &[Offsets] {
        &self.batch.catalogues
    }

    /// The batch in its present state, if anything went in. If all records were rejected, or none
    /// came and only the offsets moved, it has no events.
    pub fn take(&mut self) -> Option<Batch> {
        self.since.take()?;
        self.closed = false;
        let mut next = Batch::new(Events::like(&self.batch.events), self.batch.offsets.clone());
        next.origins.reserve(self.batch.len());
        next.catalogues.clone_from(&self.batch.catalogues);
        self.size = self.cut.size(self.full, next.offsets.total());
        Some(std::mem::replace(&mut self.batch, next))
    }
}
