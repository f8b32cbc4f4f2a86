//! Partitions become one sequence, and the sequence becomes batches.
//!
//! Owns: the order between partitions, and where a batch ends. Both are functions of the log
//! alone: whatever way the broker delivers the partitions, the same log gives the same batches.
//! For that the order keeps no memory beyond the records it holds, so a run that goes on from
//! offsets merges as one that never stopped.
//!
//! Must never know: the clock (`now` is an argument), the consumer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Instant;

use crate::config::Order;

use super::batch::Batch;
use super::event::Event;
use super::offsets::Offsets;

/// One record after decoding, and where it stood.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is an event.
    Event(Event),
    /// It was rejected; only its offset matters.
    Rejected,
}

impl Entry {
    /// The place among the heads of partitions. A rejected record has no time: it goes at once,
    /// so that it holds nothing back.
    fn time(&self) -> i64 {
        match &self.outcome {
            Outcome::Event(event) => event.time_ms,
            Outcome::Rejected => i64::MIN,
        }
    }
}

/// Merges partitions, each in its own order, by the event times of their heads.
///
/// A late record does not overtake within its partition, nor is it held back by the records
/// before it: the smallest head goes next, and of equal ones that of the smallest partition.
#[derive(Debug)]
pub struct Merge {
    order: Order,
    lanes: Vec<Lane>,
    index: BTreeMap<i32, usize>,
    /// Times of the heads of all lanes that have one, by lane.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    /// Active lanes without a head: while there is one, nothing may go.
    starved: usize,
    /// `Order::Arrival`: the lanes of the entries, as they came.
    arrivals: VecDeque<usize>,
    buffered: usize,
}

#[derive(Debug)]
struct Lane {
    entries: VecDeque<Entry>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come, and it may be older than what the others have.
    Active,
    /// Caught up with the log's end.
    Idle,
    /// Nothing more will come.
    Finished,
}

impl Lane {
    fn starved(&self) -> bool {
        self.state == State::Active && self.entries.is_empty()
    }
}

impl Merge {
    /// Nothing buffered, every partition active.
    pub fn new(partitions: impl IntoIterator<Item = i32>, order: Order) -> Merge {
        // Sorted, so that lanes compare as their partitions do.
        let sorted: BTreeMap<i32, ()> = partitions.into_iter().map(|id| (id, ())).collect();
        let index: BTreeMap<i32, usize> = sorted.into_keys().zip(0..).collect();
        let lane = |_| Lane { entries: VecDeque::new(), state: State::Active };
        Merge {
            order,
            lanes: (0..index.len()).map(lane).collect(),
            starved: index.len(),
            index,
            heads: BinaryHeap::new(),
            arrivals: VecDeque::new(),
            buffered: 0,
        }
    }

    fn lane(&self, partition: i32) -> usize {
        *self.index.get(&partition).expect("only partitions named at the start are merged")
    }

    /// Takes the next record of its partition.
    ///
    /// # Panics
    /// If the partition was not named at the start or has finished, or if offsets go backwards.
    pub fn push(&mut self, entry: Entry) {
        let index = self.lane(entry.partition);
        let lane = &mut self.lanes[index];
        assert!(lane.state != State::Finished, "a record after the partition's end");
        if let Some(last) = lane.entries.back() {
            assert!(last.offset < entry.offset, "offsets of a partition ascend");
        }
        self.starved -= usize::from(lane.starved());
        match self.order {
            Order::Arrival => self.arrivals.push_back(index),
            Order::EventTime if lane.entries.is_empty() => {
                self.heads.push(Reverse((entry.time(), index)));
            }
            Order::EventTime => {}
        }
        lane.entries.push_back(entry);
        self.buffered += 1;
    }

    /// Says whether `partition` has caught up with the log's end: then it holds nothing back.
    pub fn set_idle(&mut self, partition: i32, idle: bool) {
        let state = if idle { State::Idle } else { State::Active };
        self.set_state(partition, state);
    }

    /// Says that nothing more comes from `partition`. This is for good.
    pub fn finish(&mut self, partition: i32) {
        self.set_state(partition, State::Finished);
    }

    fn set_state(&mut self, partition: i32, state: State) {
        let index = self.lane(partition);
        let lane = &mut self.lanes[index];
        if lane.state == State::Finished {
            return;
        }
        self.starved -= usize::from(lane.starved());
        lane.state = state;
        self.starved += usize::from(lane.starved());
    }

    /// The next record of the merged sequence, if it is certain yet.
    pub fn pop(&mut self) -> Option<Entry> {
        let index = match self.order {
            Order::Arrival => self.arrivals.pop_front()?,
            Order::EventTime if self.starved > 0 => return None,
            Order::EventTime => self.heads.pop()?.0.1,
        };
        let lane = &mut self.lanes[index];
        let entry = lane.entries.pop_front().expect("a lane in order has an entry");
        self.buffered -= 1;
        self.starved += usize::from(lane.starved());
        if self.order == Order::EventTime
            && let Some(head) = lane.entries.front()
        {
            self.heads.push(Reverse((head.time(), index)));
        }
        Some(entry)
    }

    /// Records of `partition` that wait.
    pub fn buffered(&self, partition: i32) -> usize {
        self.lanes[self.lane(partition)].entries.len()
    }

    /// Records that wait, over all partitions.
    pub fn buffered_total(&self) -> usize {
        self.buffered
    }

    /// True if every partition has finished and nothing waits.
    pub fn finished(&self) -> bool {
        self.buffered == 0 && self.lanes.iter().all(|lane| lane.state == State::Finished)
    }

    /// True if `partition` has caught up (or finished) and nothing of it waits.
    pub fn drained(&self, partition: i32) -> bool {
        let lane = &self.lanes[self.lane(partition)];
        lane.state != State::Active && lane.entries.is_empty()
    }
}

/// Cuts the merged sequence into batches.
#[derive(Debug)]
pub struct Batcher {
    size: usize,
    batch: Batch,
    since: Option<Instant>,
}

impl Batcher {
    /// Batches of `size` events with `query` and `item` features, from `offsets` on.
    pub fn new(size: usize, query: usize, item: usize, offsets: Offsets) -> Batcher {
        assert!(size > 0, "a batch has room for an event");
        Batcher { size, batch: Batch::new(query, item, offsets), since: None }
    }

    /// Takes the next record of the sequence; `now` counts only for the first of a batch.
    ///
    /// # Panics
    /// If the batch is full: where a batch ends must not depend on when it is taken.
    pub fn push(&mut self, entry: Entry, now: Instant) {
        assert!(!self.full(), "a full batch is taken before the next record");
        self.since.get_or_insert(now);
        self.batch.offsets.advance(entry.partition, entry.offset + 1);
        match entry.outcome {
            Outcome::Event(event) => self.batch.push(event),
            Outcome::Rejected => self.batch.rejected += 1,
        }
    }

    /// True if it has all its events.
    pub fn full(&self) -> bool {
        self.batch.len() >= self.size
    }

    /// When the first record entered; none: it is empty.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Next offsets to read after everything that went in so far.
    pub fn offsets(&self) -> &Offsets {
        &self.batch.offsets
    }

    /// The batch as it is, if anything went in. It has no events where all were rejected.
    pub fn take(&mut self) -> Option<Batch> {
        self.since.take()?;
        let next =
            Batch::new(self.batch.query.len(), self.batch.item.len(), self.batch.offsets.clone());
        Some(std::mem::replace(&mut self.batch, next))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stream::event::FeatureValue;

    fn event(time_ms: i64, id: u64) -> Outcome {
        Outcome::Event(Event {
            time_ms,
            query_id: id,
            item_id: id,
            item_name: id.to_string().into(),
            reward: 1.0,
            query: vec![FeatureValue::Id(id)],
            item: Vec::new(),
        })
    }

    fn entry(partition: i32, offset: i64, time_ms: i64) -> Entry {
        let id = (partition as u64) << 32 | offset as u64;
        Entry { partition, offset, outcome: event(time_ms, id) }
    }

    fn rejected(partition: i32, offset: i64) -> Entry {
        Entry { partition, offset, outcome: Outcome::Rejected }
    }

    fn places(merge: &mut Merge) -> Vec<(i32, i64)> {
        std::iter::from_fn(|| merge.pop()).map(|entry| (entry.partition, entry.offset)).collect()
    }

    #[test]
    fn waits_for_every_partition_that_may_have_older_records() {
        let mut merge = Merge::new([0, 1, 2], Order::EventTime);
        merge.push(entry(0, 5, 100));
        merge.push(entry(1, 9, 50));
        assert_eq!(places(&mut merge), []);
        merge.set_idle(2, true);
        assert_eq!(places(&mut merge), [(1, 9)], "then partition 1 holds back partition 0");
        merge.finish(1);
        assert_eq!(places(&mut merge), [(0, 5)]);
        assert!(!merge.finished() && merge.drained(1) && merge.drained(2) && !merge.drained(0));
        merge.set_idle(2, false);
        merge.push(entry(0, 6, 100));
        assert_eq!(places(&mut merge), []);
        merge.finish(2);
        merge.finish(0);
        assert_eq!((merge.buffered(0), merge.buffered_total()), (1, 1));
        assert_eq!(places(&mut merge), [(0, 6)]);
        assert!(merge.finished());
    }

    #[test]
    fn equal_times_go_by_partition_and_late_or_rejected_records_keep_their_place() {
        let mut merge = Merge::new([7, 3], Order::EventTime);
        for entry in [entry(7, 0, 10), entry(7, 1, 5), entry(7, 2, 20)] {
            merge.push(entry);
        }
        for entry in [entry(3, 0, 10), rejected(3, 1), entry(3, 2, 15)] {
            merge.push(entry);
        }
        merge.finish(7);
        merge.finish(3);
        let order = [(3, 0), (3, 1), (7, 0), (7, 1), (3, 2), (7, 2)];
        assert_eq!(places(&mut merge), order);
    }

    #[test]
    fn arrival_order_holds_nothing_back() {
        let mut merge = Merge::new([0, 1], Order::Arrival);
        merge.push(entry(1, 3, 100));
        merge.push(entry(1, 4, 1));
        merge.push(entry(0, 8, 50));
        assert_eq!(places(&mut merge), [(1, 3), (1, 4), (0, 8)]);
    }

    #[test]
    fn a_batch_ends_at_its_size_and_carries_rejected_records() {
        let now = Instant::now();
        let mut offsets = Offsets::new("t");
        offsets.advance(0, 4);
        let mut batcher = Batcher::new(2, 1, 0, offsets);
        assert!(batcher.take().is_none() && batcher.since().is_none());
        batcher.push(rejected(0, 4), now);
        batcher.push(entry(0, 6, 1), now + std::time::Duration::from_secs(1));
        assert_eq!((batcher.full(), batcher.since()), (false, Some(now)));
        batcher.push(entry(1, 0, 2), now);
        assert!(batcher.full());
        let batch = batcher.take().expect("a full batch");
        assert_eq!((batch.len(), batch.rejected, batch.query.len()), (2, 1, 1));
        assert_eq!((batch.offsets.next(0), batch.offsets.next(1)), (Some(7), Some(1)));
        batcher.push(rejected(1, 1), now);
        let batch = batcher.take().expect("offsets moved, though there is no event");
        assert_eq!((batch.len(), batch.rejected), (0, 1));
        assert_eq!((batch.offsets.next(0), batch.offsets.next(1)), (Some(7), Some(2)));
        assert!(batcher.take().is_none());
    }

    /// What decides about a batch's training, comparable.
    fn digest(batch: &Batch) -> String {
        format!("{batch:?}")
    }

    /// Partitions of records; offsets have gaps, times go back and forth.
    fn log() -> impl Strategy<Value = Vec<Vec<Entry>>> {
        let record = (0..40_i64, 1..3_i64, prop::bool::weighted(0.1));
        prop::collection::vec(prop::collection::vec(record, 0..40), 1..5).prop_map(|partitions| {
            let partition = |(id, records): (usize, Vec<(i64, i64, bool)>)| {
                let mut next = 0;
                let place = |(time, gap, bad)| {
                    next += gap;
                    if bad { rejected(id as i32, next) } else { entry(id as i32, next, time) }
                };
                records.into_iter().map(place).collect()
            };
            partitions.into_iter().enumerate().map(partition).collect()
        })
    }

    /// Feeds the partitions in an order drawn from `choices`, from `from` on.
    fn run(log: &[Vec<Entry>], choices: &[usize], from: &Offsets) -> Vec<Batch> {
        let now = Instant::now();
        let mut merge = Merge::new(0..log.len() as i32, Order::EventTime);
        let mut batcher = Batcher::new(3, 1, 0, from.clone());
        let mut rest: Vec<_> = log
            .iter()
            .zip(0..)
            .map(|(entries, id)| {
                let start = from.next(id).unwrap_or(0);
                let unread = entries.iter().filter(move |entry| entry.offset >= start);
                (id, unread.cloned().collect::<VecDeque<Entry>>())
            })
            .collect();
        let mut batches = Vec::new();
        let mut choices = choices.iter().cycle();
        while !merge.finished() {
            if !rest.is_empty() {
                let choice = choices.next().expect("choices cycle") % rest.len();
                match rest[choice].1.pop_front() {
                    Some(entry) => merge.push(entry),
                    None => merge.finish(rest.swap_remove(choice).0),
                }
            }
            while let Some(entry) = merge.pop() {
                batcher.push(entry, now);
                if batcher.full() {
                    batches.extend(batcher.take());
                }
            }
        }
        batches.extend(batcher.take());
        batches
    }

    proptest! {
        #[test]
        fn any_interleaving_gives_the_same_batches(
            log in log(),
            one in prop::collection::vec(any::<usize>(), 1..50),
            other in prop::collection::vec(any::<usize>(), 1..50),
        ) {
            let start = Offsets::new("t");
            let batches = run(&log, &one, &start);
            let again = run(&log, &other, &start);
            let digests = |batches: &[Batch]| batches.iter().map(digest).collect::<Vec<_>>();
            prop_assert_eq!(digests(&batches), digests(&again));

            // Nothing lost, nothing twice, each partition in its own order.
            let seen: Vec<u64> = batches.iter().flat_map(|batch| batch.item_ids.clone()).collect();
            for (entries, partition) in log.iter().zip(0_u64..) {
                let expected: Vec<u64> = entries
                    .iter()
                    .filter(|entry| entry.outcome != Outcome::Rejected)
                    .map(|entry| partition << 32 | entry.offset as u64)
                    .collect();
                let own = |id: &&u64| **id >> 32 == partition;
                prop_assert_eq!(seen.iter().filter(own).copied().collect::<Vec<_>>(), expected);
            }
            let bad = log.iter().flatten().filter(|entry| entry.outcome == Outcome::Rejected);
            prop_assert_eq!(batches.iter().map(|batch| batch.rejected).sum::<u64>(), bad.count() as u64);
        }

        /// A run that stops after any batch and goes on from its offsets sees the same batches.
        #[test]
        fn going_on_from_any_batch_gives_the_rest(
            log in log(),
            one in prop::collection::vec(any::<usize>(), 1..50),
            other in prop::collection::vec(any::<usize>(), 1..50),
            stop in any::<prop::sample::Index>(),
        ) {
            let batches = run(&log, &one, &Offsets::new("t"));
            prop_assume!(!batches.is_empty());
            let stop = stop.index(batches.len());
            let rest = run(&log, &other, &batches[stop].offsets);
            let digests = |batches: &[Batch]| batches.iter().map(digest).collect::<Vec<_>>();
            prop_assert_eq!(digests(&batches[stop + 1..]), digests(&rest));
        }
    }
}
