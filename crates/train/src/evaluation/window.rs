//! Which items had events lately, and how many.

use std::collections::{HashMap, VecDeque};

/// Events of a stretch of time by item.
#[derive(Clone, Debug)]
pub struct Window {
    length_ms: i64,
    events: VecDeque<(i64, u64)>,
    counts: HashMap<u64, u64>,
}

impl Window {
    /// Of the last `length_ms`, without an event.
    pub fn new(length_ms: i64) -> Self {
        Self { length_ms, events: VecDeque::new(), counts: HashMap::new() }
    }

    /// Takes an event in; they come in the order of time.
    pub fn push(&mut self, time_ms: i64, item: u64) {
        self.events.push_back((time_ms, item));
        *self.counts.entry(item).or_default() += 1;
    }

    /// Lets go what is too old at `now_ms`; `left` is told of each.
    pub fn advance(&mut self, now_ms: i64, mut left: impl FnMut(u64)) {
        while let Some(&(time, item)) = self.events.front()
            && time + self.length_ms <= now_ms
        {
            self.events.pop_front();
            left(item);
            let count = self.counts.get_mut(&item).expect("counted when it came");
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&item);
            }
        }
    }

    /// Events of `item` in the stretch.
    pub fn count(&self, item: u64) -> u64 {
        self.counts.get(&item).copied().unwrap_or(0)
    }

    /// The items that have events in it, in any order.
    pub fn items(&self) -> impl Iterator<Item = u64> {
        self.counts.keys().copied()
    }

    /// The same, each with its number of events.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(&item, &count)| (item, count))
    }
}
