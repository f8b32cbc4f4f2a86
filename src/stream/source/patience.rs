//! How long the merge waits for a partition that gives neither records nor word of its end.
//!
//! A partition without a leader is such a one, for as long as that lasts. Live, the others go on
//! without it after a while; a replay waits, because its batches are a function of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::stream::merge::Merge;

#[derive(Debug)]
pub(super) struct Patience {
    /// None: without end.
    bound: Option<Duration>,
    /// Partitions that hold the others back, and since when.
    since: BTreeMap<i32, Instant>,
    /// Partitions that have been passed over, and not been heard of since.
    passed: BTreeSet<i32>,
}

impl Patience {
    pub(super) fn new(bound: Option<Duration>) -> Patience {
        Patience { bound, since: BTreeMap::new(), passed: BTreeSet::new() }
    }

    /// Records of `partition` came, or word of its end.
    pub(super) fn heard(&mut self, partition: i32) {
        self.since.remove(&partition);
        self.passed.remove(&partition);
    }

    /// Those of `partitions` that have held back others' records for too long. To be called where
    /// nothing can be read: only then has each of them been looked at.
    pub(super) fn lost(
        &mut self,
        merge: &Merge,
        partitions: impl Iterator<Item = i32>,
        now: Instant,
    ) -> Vec<i32> {
        let Some(bound) = self.bound else { return Vec::new() };
        if merge.buffered_total() == 0 {
            self.since.clear();
            return Vec::new();
        }
        let mut lost = Vec::new();
        for partition in partitions {
            if !merge.starved(partition) {
                self.since.remove(&partition);
                continue;
            }
            let since = *self.since.entry(partition).or_insert(now);
            if now.duration_since(since) >= bound {
                self.since.remove(&partition);
                self.passed.insert(partition);
                lost.push(partition);
            }
        }
        lost
    }

    /// Partitions that the others go on without.
    pub(super) fn passed(&self) -> &BTreeSet<i32> {
        &self.passed
    }
}

#[cfg(test)]
mod tests {
    use millrace_events::Events;

    use super::*;
    use crate::config::Order;
    use crate::stream::merge::{Record, Run};

    #[test]
    fn a_wait_begins_with_others_records_and_ends_with_a_word() {
        let bound = Duration::from_secs(10);
        let mut patience = Patience::new(Some(bound));
        let mut merge = Merge::new([0, 1], Order::EventTime);
        let start = Instant::now();
        let lost = |patience: &mut Patience, merge: &Merge, s| {
            patience.lost(merge, 0..2, start + Duration::from_secs(s))
        };
        assert_eq!(lost(&mut patience, &merge, 0), [0; 0]);
        assert_eq!(lost(&mut patience, &merge, 60), [0; 0], "nobody is held back");
        merge.set_idle(1, true);
        let records = vec![Record { offset: 0, time_ms: None, events: 0 }];
        let (events, changes) = (Events::new(0, 0), Vec::new());
        merge.push(Run { partition: 1, records, events, changes });
        assert_eq!(lost(&mut patience, &merge, 100), [0; 0]);
        assert_eq!(lost(&mut patience, &merge, 109), [0; 0]);
        patience.heard(0);
        assert_eq!(lost(&mut patience, &merge, 110), [0; 0]);
        assert_eq!(lost(&mut patience, &merge, 119), [0; 0]);
        assert_eq!(lost(&mut patience, &merge, 120), [0]);
        assert_eq!(patience.passed(), &BTreeSet::from([0]));
        merge.set_idle(0, true);
        assert_eq!(lost(&mut patience, &merge, 200), [0; 0], "it holds nothing back any more");
        patience.heard(0);
        assert!(patience.passed().is_empty());
        merge.set_idle(0, false);
        let mut strict = Patience::new(None);
        assert_eq!(lost(&mut strict, &merge, 300), [0; 0]);
        assert_eq!(lost(&mut strict, &merge, 3_000_000), [0; 0]);
    }
}
