//! The last items of each query, for logs that do not carry them.
//!
//! Owns the histories. Bounded in queries (the longest unseen go) and in length. Everything here
//! is a function of the events in their order, so a restored trainer goes on with the same bits.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::copying::Copying;
use super::gone::{Gone, Since};
use super::pieces::Pieces;
use crate::capture::{Capture, Extent, Piece};
use crate::kernel::id_map::IdMap;
use crate::saved::{Damaged, ReadSection, decode, grown};

/// Share of the histories that goes at once when the bound is reached: one sweep over all of them
/// pays for this many insertions.
const SWEEP: usize = 16;

/// Histories by query.
pub(crate) struct Histories {
    queries_max: usize,
    length: usize,
    /// Shared with a snapshot that is being written; one that changes meanwhile is copied.
    by_query: IdMap<Arc<History>>,
    clock: u64,
    /// A copy that is under way.
    capturing: Option<Capturing>,
    gone: Gone,
}

/// A copy that is under way.
struct Capturing {
    histories: Copying<History>,
    /// At the beginning.
    clock: u64,
    since: Option<Since>,
}

/// Histories as they were at one step.
#[derive(Debug)]
pub(crate) struct CapturedHistories {
    clock: u64,
    histories: Vec<(u64, Arc<History>)>,
    /// What an increment builds upon; none: all is to be written.
    since: Option<Since>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct History {
    /// Oldest first.
    items: Vec<u64>,
    /// When it was last extended, in events seen.
    touched: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    clock: u64,
    histories: Vec<(u64, History)>,
}

#[derive(Deserialize)]
struct Increment {
    clock: u64,
    gone: Vec<u64>,
    changed: Vec<(u64, History)>,
}

impl Histories {
    /// Up to `length` items for each of up to `queries_max` queries.
    pub(crate) fn new(queries_max: usize, length: usize) -> Self {
        let gone = Gone::new(queries_max);
        Self { queries_max, length, by_query: IdMap::default(), clock: 0, capturing: None, gone }
    }

    /// The items of `query` so far, oldest first.
    pub(crate) fn of(&self, query: u64) -> &[u64] {
        self.by_query.get(&query).map_or(&[], |history| &history.items)
    }

    /// All of them, by query.
    pub(crate) fn sorted(&self) -> Vec<(u64, &[u64])> {
        let all = self.by_query.iter().map(|(&query, history)| (query, &*history.items));
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
    pub(crate) fn take(&mut self, queries: &[u64], items: &[u64]) -> Vec<Vec<u64>> {
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
        if self.length == 0 {
            return;
        }
        self.clock += 1;
        if !self.by_query.contains_key(&query) && self.by_query.len() >= self.queries_max {
            self.sweep();
        }
        let history = self
            .by_query
            .entry(query)
            .or_insert_with(|| Arc::new(History { items: Vec::new(), touched: 0 }));
        if let Some(capturing) = &mut self.capturing {
            capturing.histories.keep(query, history);
        }
        let history = Arc::make_mut(history);
        append(&mut history.items, item, self.length);
        history.touched = self.clock;
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        for (query, history) in self.by_query.drain() {
            if let Some(capturing) = &mut self.capturing {
                capturing.histories.keep(query, &history);
            }
            self.gone.push(query);
        }
    }

    /// Queries held.
    pub(crate) fn len(&self) -> usize {
        self.by_query.len()
    }

    fn sweep(&mut self) {
        let mut touched: Vec<u64> = self.by_query.values().map(|history| history.touched).collect();
        let drop = (touched.len() / SWEEP).max(1);
        // `touched` values are distinct, so the cut is exact.
        let (_, &mut newest_dropped, _) = touched.select_nth_unstable(drop - 1);
        let (capturing, gone) = (&mut self.capturing, &mut self.gone);
        self.by_query.retain(|&query, history| {
            let stays = history.touched > newest_dropped;
            if !stays {
                gone.push(query);
                if let Some(capturing) = capturing {
                    capturing.histories.keep(query, history);
                }
            }
            stays
        });
    }

    /// All there is now, to be written elsewhere while this goes on: costs a pointer a query.
    pub(crate) fn capture(&self) -> CapturedHistories {
        let histories = self.by_query.iter().map(|(query, history)| (*query, Arc::clone(history)));
        CapturedHistories { clock: self.clock, histories: histories.collect(), since: None }
    }

    /// Takes over what the section `histories` holds, increments included.
    ///
    /// # Errors
    /// Damaged bytes.
    pub(crate) fn restore(&mut self, read: ReadSection<'_>) -> Result<(), Damaged> {
        let (queries_max, length) = (self.queries_max, self.length);
        let whole = |bytes: &[u8]| {
            let mut histories = Self::new(queries_max, length);
            histories.load(bytes)?;
            Ok(histories)
        };
        *self = grown(read, "histories", whole, Self::add_increment)?;
        self.gone.restored(self.clock);
        Ok(())
    }

    /// Takes over what [`CapturedHistories::save`] gave.
    ///
    /// # Errors
    /// Damaged bytes.
    pub(crate) fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let saved: Saved = decode("histories", bytes)?;
        self.clock = saved.clock;
        self.by_query.clear();
        for (query, history) in saved.histories {
            self.insert(query, history)?;
        }
        Ok(())
    }

    /// Takes in an increment.
    fn add_increment(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let Increment { clock, gone, changed } = decode("histories", bytes)?;
        self.clock = clock;
        for query in gone {
            self.by_query.remove(&query);
        }
        for (query, history) in changed {
            self.insert(query, history)?;
        }
        Ok(())
    }

    fn insert(&mut self, query: u64, history: History) -> Result<(), Damaged> {
        if history.items.len() > self.length || history.touched > self.clock {
            return Err(Damaged(format!(
                "the history of query {query} is too long or ahead of its clock: damaged"
            )));
        }
        self.by_query.insert(query, Arc::new(history));
        Ok(())
    }
}

/// The share is in pointers, one a query.
impl Capture for Histories {
    type Copy = CapturedHistories;

    fn begin_capture(&mut self, extent: Extent) {
        assert!(self.capturing.is_none(), "one capture at a time");
        let queries = self.by_query.keys().copied().collect();
        let (histories, clock) = (Copying::new(queries), self.clock);
        let since = self.gone.begin(clock, extent);
        self.capturing = Some(Capturing { histories, clock, since });
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<CapturedHistories> {
        let get = |query| self.by_query.get(&query).cloned();
        if !self.capturing.as_mut()?.histories.advance(share, get) {
            return None;
        }
        let Capturing { histories, clock, since } = self.capturing.take()?;
        let (queries, histories) = histories.finish();
        let histories = queries.into_iter().zip(histories).collect();
        Some(CapturedHistories { clock, histories, since })
    }

    fn is_copied(&self) -> bool {
        self.capturing.is_none()
    }

    fn settle_capture(&mut self, durable: bool) {
        self.capturing = None;
        self.gone.settle(durable);
    }
}

/// The newest `length` items stay.
fn append(items: &mut Vec<u64>, item: u64, length: usize) {
    if items.len() == length {
        items.remove(0);
    }
    items.push(item);
}

impl CapturedHistories {
    /// The section, a piece at a time: the bytes of [`save`](Self::save).
    pub(crate) fn pieces<E>(
        mut self,
        take: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        self.histories.sort_unstable_by_key(|(query, _)| *query);
        let since = self.since.as_ref();
        let changed = |history: &History| since.is_some_and(|since| history.touched > since.time);
        let mut pieces = Pieces::new("histories", since.is_some(), take);
        pieces.content(&(self.clock, self.histories.len()));
        if let Some(Since { gone, .. }) = since {
            let count = self.histories.iter().filter(|(_, history)| changed(history)).count();
            pieces.increment(&(self.clock, gone, count));
        }
        for (query, history) in &self.histories {
            pieces.content(&(query, &**history));
            if changed(history) {
                pieces.increment(&(query, &**history));
            }
            pieces.turn()?;
        }
        pieces.finish()
    }

    /// All histories, by query key.
    pub(crate) fn save(self) -> Vec<u8> {
        let histories = self.histories.into_iter();
        let mut histories: Vec<(u64, History)> =
            histories.map(|(query, history)| (query, Arc::unwrap_or_clone(history))).collect();
        histories.sort_unstable_by_key(|(query, _)| *query);
        postcard::to_stdvec(&Saved { clock: self.clock, histories }).expect("always encodes")
    }
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
