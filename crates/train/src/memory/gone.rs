//! Keys that have gone from a map since its last durable copy: an increment names them.

use crate::capture::Extent;

/// See the module's head. Values that changed tell so themselves, by the time of their last touch.
#[derive(Debug)]
pub(super) struct Gone {
    /// Beyond so many keys the next copy is a whole one: it would not be much longer.
    keys_max: usize,
    /// Time of the last durable copy, in the map's own clock; none: nothing to build upon.
    since: Option<u64>,
    /// Keys that have gone since, in order; some may be back.
    keys: Vec<u64>,
    /// Time of the copy that is not durable yet, and how many keys had gone by then.
    copied: Option<(u64, usize)>,
}

/// What an increment builds upon.
#[derive(Debug)]
pub(super) struct Since {
    /// What was touched later has changed.
    pub(super) time: u64,
    /// What went since. Some of it may be back, and has changed then.
    pub(super) gone: Vec<u64>,
}

impl Gone {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { keys_max, since: None, keys: Vec::new(), copied: None }
    }

    /// The map is as a durable copy had it at `time`.
    pub(super) fn restored(&mut self, time: u64) {
        *self = Self { since: Some(time), ..Self::new(self.keys_max) };
    }

    pub(super) fn push(&mut self, key: u64) {
        if self.since.is_none() && self.copied.is_none() {
            return;
        }
        if self.keys.len() == self.keys_max {
            *self = Self::new(self.keys_max);
            return;
        }
        self.keys.push(key);
    }

    /// A copy begins at `time`. What it builds upon; none: it is a whole one.
    pub(super) fn begin(&mut self, time: u64, extent: Extent) -> Option<Since> {
        self.copied = Some((time, self.keys.len()));
        let since = self.since.filter(|_| extent == Extent::Changed)?;
        Some(Since { time: since, gone: self.keys.clone() })
    }

    /// The copy has ended.
    pub(super) fn settle(&mut self, durable: bool) {
        if let Some((time, keys)) = self.copied.take().filter(|_| durable) {
            self.since = Some(time);
            self.keys.drain(..keys);
        }
        if self.since.is_none() {
            self.keys = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_count_from_the_last_durable_copy() {
        let mut gone = Gone::new(4);
        gone.push(1);
        assert!(gone.begin(10, Extent::Changed).is_none(), "nothing to build upon");
        gone.push(2);
        gone.settle(true);
        gone.push(3);
        let since = gone.begin(20, Extent::Changed).expect("a durable copy");
        assert_eq!((since.time, since.gone), (10, vec![2, 3]));
        gone.push(4);
        gone.settle(false);
        assert!(gone.begin(25, Extent::Whole).is_none());
        gone.settle(false);
        let since = gone.begin(30, Extent::Changed).expect("the same");
        assert_eq!((since.time, since.gone), (10, vec![2, 3, 4]), "what failed is told again");
        gone.push(5);
        gone.settle(true);
        let since = gone.begin(40, Extent::Changed).expect("the next one");
        assert_eq!((since.time, since.gone), (30, vec![5]));
        // Too many, while a copy is under way: neither it nor what was before can be built upon.
        (6..10).for_each(|key| gone.push(key));
        gone.settle(true);
        assert!(gone.begin(50, Extent::Changed).is_none());
        gone.settle(true);
        assert_eq!(gone.begin(60, Extent::Changed).expect("a whole one was between").time, 50);
    }
}
