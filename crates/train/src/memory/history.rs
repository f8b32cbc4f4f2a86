//! The last items of each query, for logs that do not carry them.
//!
//! Owns the histories. Bounded in queries (the longest unseen go) and in length. Everything here
//! is a function of the events in their order, so a restored trainer goes on with the same bits.

use super::stamped::{Section, Snapshot, Stamped};
use crate::capture::{Capture, Extent};
use crate::kernel::id_map::IdMap;
use crate::saved::{Damaged, ReadSection};

const SECTION: Section = Section { name: "histories", what: "histories" };

/// Histories by query.
pub struct Histories {
    length: usize,
    /// Oldest first.
    by_query: Stamped<Vec<u64>>,
}

/// Histories as they were at one step.
pub(crate) type CapturedHistories = Snapshot<Vec<u64>>;

impl Histories {
    /// Up to `length` items for each of up to `queries_max` queries.
    pub fn new(queries_max: usize, length: usize) -> Self {
        Self { length, by_query: Stamped::new(SECTION, queries_max) }
    }

    /// The items of `query` so far, oldest first.
    pub(crate) fn of(&self, query: u64) -> &[u64] {
        self.by_query.get(query).map_or(&[], Vec::as_slice)
    }

    /// All of them, by query.
    pub(crate) fn sorted(&self) -> Vec<(u64, &[u64])> {
        let all = self.by_query.iter().map(|(query, items)| (query, &**items));
        let mut all: Vec<(u64, &[u64])> = all.collect();
        all.sort_unstable_by_key(|(query, _)| *query);
        all
    }

    /// The items of `query` once those of `after` have followed, oldest first. Changes nothing.
    pub(crate) fn followed(&self, query: u64, after: &[u64]) -> Vec<u64> {
        if self.length == 0 {
            return Vec::new();
        }
        let mut items = self.of(query).to_vec();
        after.iter().for_each(|&item| append(&mut items, item, self.length));
        items
    }

    /// The items of each of `queries` so far; empty where no history is kept.
    pub(crate) fn now(&self, queries: &[u64]) -> Vec<Vec<u64>> {
        if self.length == 0 {
            return Vec::new();
        }
        queries.iter().map(|&query| self.of(query).to_vec()).collect()
    }

    /// The items before each of a run of events (`queries` and `items` beside each other), which
    /// are taken in as they come. Empty where no history is kept.
    pub fn take(&mut self, queries: &[u64], items: &[u64]) -> Vec<Vec<u64>> {
        if self.length == 0 {
            return Vec::new();
        }
        let events = queries.iter().zip(items);
        events
            .map(|(&query, &item)| {
                let before = self.of(query).to_vec();
                self.push(query, item);
                before
            })
            .collect()
    }

    /// What [`take`](Self::take) would give, while everything stays as it is.
    pub(crate) fn peek(&self, queries: &[u64], items: &[u64]) -> Vec<Vec<u64>> {
        if self.length == 0 {
            return Vec::new();
        }
        let mut moved: IdMap<Vec<u64>> = IdMap::default();
        let events = queries.iter().zip(items);
        events
            .map(|(&query, &item)| {
                let history = moved.entry(query).or_insert_with(|| self.of(query).to_vec());
                let before = history.clone();
                append(history, item, self.length);
                before
            })
            .collect()
    }

    /// Appends `item` to the history of `query`.
    pub(crate) fn push(&mut self, query: u64, item: u64) {
        if self.length > 0 {
            self.by_query.change(query, |items| append(items, item, self.length));
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.by_query.clear();
    }

    /// Queries held.
    pub(crate) fn len(&self) -> usize {
        self.by_query.len()
    }

    /// All there is now, to be written elsewhere while this goes on: costs a pointer a query.
    pub(crate) fn capture(&self) -> CapturedHistories {
        self.by_query.capture()
    }

    /// Takes over what the section `histories` holds, increments included.
    ///
    /// # Errors
    /// Damaged bytes.
    pub(crate) fn restore(&mut self, read: ReadSection<'_>) -> Result<(), Damaged> {
        self.by_query.restore(read, &check(self.length))
    }

    /// Takes over what [`Snapshot::save`] gave.
    #[cfg(test)]
    pub(crate) fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.by_query.load(bytes, &check(self.length))
    }
}

/// Refuses what no histories of this length hold.
fn check(length: usize) -> impl Fn(u64, &Vec<u64>, bool) -> Result<(), Damaged> {
    move |query, items, ahead| match items.len() > length || ahead {
        true => Err(Damaged(format!(
            "the history of query {query} is too long or ahead of its clock: damaged"
        ))),
        false => Ok(()),
    }
}

/// The share is in pointers, one a query.
impl Capture for Histories {
    type Copy = CapturedHistories;

    fn begin_capture(&mut self, extent: Extent) {
        self.by_query.begin_capture(extent);
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<CapturedHistories> {
        self.by_query.advance_capture(share)
    }

    fn is_copied(&self) -> bool {
        self.by_query.is_copied()
    }

    fn settle_capture(&mut self, durable: bool) {
        self.by_query.settle_capture(durable);
    }
}

/// The newest `length` items stay.
fn append(items: &mut Vec<u64>, item: u64, length: usize) {
    if items.len() == length {
        items.remove(0);
    }
    items.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_items_in_order() {
        let mut histories = Histories::new(10, 3);
        for item in 1..=5 {
            histories.push(7, item);
        }
        assert_eq!(histories.of(7), [3, 4, 5]);
        assert!(histories.of(8).is_empty());
    }

    #[test]
    fn the_longest_unseen_go_when_full() {
        let mut histories = Histories::new(4, 2);
        for query in [1, 2, 3, 4, 1] {
            histories.push(query, 100);
        }
        histories.push(5, 100);
        assert_eq!(histories.len(), 4);
        assert!(histories.of(2).is_empty(), "query 2 was touched longest ago");
        assert_eq!(histories.of(1), [100, 100]);
    }

    #[test]
    fn a_capture_is_the_histories_as_they_were() {
        let mut random = millrace_events::SplitMix::new(9);
        let mut histories = Histories::new(50, 4);
        let mut push = |histories: &mut Histories| {
            histories.push(random.next_u64() % 80, random.next_u64());
        };
        (0..1000).for_each(|_| push(&mut histories));
        let want = histories.capture().save();
        histories.begin_capture(Extent::Whole);
        let captured = (0..80).find_map(|_| {
            push(&mut histories);
            histories.advance_capture(&mut 1)
        });
        assert_eq!(captured.expect("50 queries in 80 turns").save(), want);
        assert_ne!(histories.capture().save(), want);
        histories.begin_capture(Extent::Whole);
        histories.settle_capture(false);
        assert!(histories.advance_capture(&mut 9).is_none());
    }

    #[test]
    fn restored_histories_go_on_with_the_same_bits() {
        let mut random = millrace_events::SplitMix::new(3);
        let mut original = Histories::new(50, 4);
        for _ in 0..1000 {
            original.push(random.next_u64() % 80, random.next_u64());
        }
        let mut restored = Histories::new(50, 4);
        restored.load(&original.capture().save()).expect("just written");
        for _ in 0..1000 {
            let (query, item) = (random.next_u64() % 80, random.next_u64());
            original.push(query, item);
            restored.push(query, item);
        }
        assert_eq!(original.capture().save(), restored.capture().save());
    }
}
