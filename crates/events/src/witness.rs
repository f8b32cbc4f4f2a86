//! What a state remembers of the log that it was trained on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Offsets;

/// Records of each partition that a [`Witness`] keeps.
const KEPT: usize = 8;

/// A few records of a log, by hash, and the cluster that it was read from: enough to tell it from
/// another log under the same name, whose offsets may fit by chance.
///
/// The records of a partition lie the closer together the newer they are, so that one of them is
/// before any place that a checkpoint may be of, and one outlives retention for long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// The cluster's id; none: the brokers did not say.
    pub cluster: Option<String>,
    traces: BTreeMap<i32, Vec<Trace>>,
}

/// One record of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Its offset.
    pub offset: i64,
    /// A hash of its key and value.
    pub hash: u64,
}

impl Witness {
    /// Nothing is known of the log but its cluster.
    #[must_use]
    pub fn of_cluster(cluster: Option<String>) -> Witness {
        Witness { cluster, traces: BTreeMap::new() }
    }

    /// Remembers a record. One that is not newer than what is known of its partition is left out.
    pub fn note(&mut self, partition: i32, trace: Trace) {
        let kept = self.traces.entry(partition).or_default();
        if kept.last().is_some_and(|last| last.offset >= trace.offset) {
            return;
        }
        kept.push(trace);
        if kept.len() > KEPT {
            // The one whose neighbours are closest to each other, by their distance from the end.
            let crowded = |at: usize| {
                let gap = (kept[at + 1].offset - kept[at - 1].offset) as f64;
                gap / (trace.offset - kept[at - 1].offset + 1) as f64
            };
            let inner = (1..kept.len() - 1).min_by(|&a, &b| crowded(a).total_cmp(&crowded(b)));
            kept.remove(inner.expect("more than two are kept"));
        }
    }

    /// What was read before `offsets`.
    #[must_use]
    pub fn before(&self, offsets: &Offsets) -> Witness {
        let before = |(partition, next): (i32, i64)| {
            let traces = self.traces.get(&partition)?.iter();
            let read: Vec<Trace> = traces.filter(|trace| trace.offset < next).copied().collect();
            (!read.is_empty()).then_some((partition, read))
        };
        let traces = offsets.iter().filter_map(before).collect();
        Witness { cluster: self.cluster.clone(), traces }
    }

    /// What is known of one partition: the `turn`-th, counted round and round.
    #[must_use]
    pub fn of_turn(&self, turn: usize) -> Witness {
        let one = self.traces.iter().nth(turn % self.traces.len().max(1));
        let traces = one.map(|(&partition, traces)| (partition, traces.clone()));
        Witness { cluster: self.cluster.clone(), traces: traces.into_iter().collect() }
    }

    /// The lanes of which something is known.
    pub fn lanes(&self) -> impl Iterator<Item = i32> {
        self.traces.keys().copied()
    }

    /// The newest record of each partition that lies within its `(first, next)` offsets: what
    /// was lost at the log's end shows there first.
    #[must_use]
    pub fn newest(&self, bounds: &BTreeMap<i32, (i64, i64)>) -> BTreeMap<i32, Trace> {
        self.within(bounds, |traces| traces.last())
    }

    /// The oldest one. While a log is read, the newest ones may be of the log that has taken its
    /// place already.
    #[must_use]
    pub fn oldest(&self, bounds: &BTreeMap<i32, (i64, i64)>) -> BTreeMap<i32, Trace> {
        self.within(bounds, |traces| traces.first())
    }

    fn within(
        &self,
        bounds: &BTreeMap<i32, (i64, i64)>,
        pick: fn(&[Trace]) -> Option<&Trace>,
    ) -> BTreeMap<i32, Trace> {
        let of = |(partition, traces): (&i32, &Vec<Trace>)| {
            let (first, next) = bounds.get(partition)?;
            let begin = traces.partition_point(|trace| trace.offset < *first);
            let end = traces.partition_point(|trace| trace.offset < *next);
            Some((*partition, *pick(traces.get(begin..end)?)?))
        };
        self.traces.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(offsets: impl Iterator<Item = i64>) -> Witness {
        let mut witness = Witness::default();
        offsets.for_each(|offset| witness.note(3, Trace { offset, hash: offset as u64 }));
        witness
    }

    #[test]
    fn samples_are_few_and_reach_back_far() {
        let witness = noted((0..1_000_000).step_by(256));
        let kept: Vec<i64> = witness.traces[&3].iter().map(|trace| trace.offset).collect();
        assert_eq!(kept.len(), KEPT);
        assert_eq!((kept[0], kept[KEPT - 1]), (0, 999_936));
        // A checkpoint is behind the source by what is buffered and queued.
        for behind in [300, 3_000, 30_000, 300_000] {
            let mut offsets = Offsets::new("clicks");
            offsets.advance(3, 1_000_000 - behind);
            let before = witness.before(&offsets);
            let last = before.traces[&3].last().expect("one of them is before it").offset;
            assert!(last < 1_000_000 - behind, "{last}");
            assert!(last > 1_000_000 - behind * 16, "{behind}: {kept:?}");
        }
    }

    #[test]
    fn the_newest_sample_that_the_log_still_holds_is_the_one_to_compare() {
        let witness = noted([10, 20, 30].into_iter());
        let within = |bounds| {
            let bounds = BTreeMap::from([(3, bounds)]);
            let of = |found: BTreeMap<i32, Trace>| found.get(&3).map(|trace| trace.offset);
            (of(witness.oldest(&bounds)), of(witness.newest(&bounds)))
        };
        assert_eq!(within((0, 31)), (Some(10), Some(30)));
        assert_eq!(within((11, 30)), (Some(20), Some(20)), "a shorter log");
        assert_eq!(within((31, 40)), (None, None), "retention took all of them");
        assert_eq!(within((40, 31)), (None, None));
        assert!(witness.newest(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn each_partition_has_its_turn() {
        let mut witness = noted([10, 20].into_iter());
        witness.note(5, Trace { offset: 1, hash: 1 });
        let of = |turn| witness.of_turn(turn).lanes().collect::<Vec<_>>();
        assert_eq!([of(0), of(1), of(2)], [[3], [5], [3]]);
        assert_eq!(Witness::default().of_turn(7), Witness::default());
    }

    #[test]
    fn a_record_is_noted_once() {
        let witness = noted([10, 10, 5, 20].into_iter());
        let kept: Vec<i64> = witness.traces[&3].iter().map(|trace| trace.offset).collect();
        assert_eq!(kept, [10, 20]);
    }
}
