//! Partitions become one sequence, and the sequence becomes batches.
//!
//! Owns: the order between partitions, and where a batch ends. Both are functions of the log
//! alone: however the broker delivers the partitions, the same log gives the same batches.
//! Therefore the order keeps no memory beyond the records it holds, and a run that resumes from
//! offsets merges as if it had never stopped.
//!
//! A partition of a catalogue is one more lane of the merge, and has a number below 0: at equal
//! keys its changes come before events.
//!
//! Must never know: the clock (`now` is an argument), the consumer.

mod batcher;
mod key;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::Order;

use super::queue::EventQueue;
pub use batcher::Batcher;
use key::Key;
use millrace_events::{CatalogueChange, Events};

/// Consecutive records of one partition, after decoding.
#[derive(Debug)]
pub struct Run {
    /// Their partition; below 0: their lane.
    pub partition: i32,
    /// The records, in the order of the log.
    pub records: Vec<Record>,
    /// The events of those that have one.
    pub events: Events,
    /// The changes of those that are one: of a catalogue, all that were not rejected.
    pub changes: Vec<CatalogueChange>,
}

/// One record after decoding.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Time of its first event, or of its change, ms; none: it was rejected.
    pub time_ms: Option<i64>,
    /// Its events: one, or the elements of an array; 0: it was rejected, or is a change.
    pub events: u32,
}

/// One record of the merged sequence, and its place in the log.
#[derive(Clone, Copy, Debug)]
struct MergedRecord {
    partition: i32,
    offset: i64,
    /// Its backlog, whose next events are its own.
    backlog: usize,
    /// How many there are; 0: it has a change, or only its offset matters.
    events: usize,
    rejected: bool,
}

/// Merges partitions, each in its own order, by the keys of their heads.
///
/// A late record does not overtake within its partition, nor is it held back by the records
/// before it: the smallest key goes next, and equal keys go in the order of their partitions.
#[derive(Debug)]
pub struct Merge {
    order: Order,
    backlogs: Vec<Backlog>,
    index: BTreeMap<i32, usize>,
    /// The key of each backlog's head, with the backlog's index, if it has one.
    heads: BTreeSet<(i64, usize)>,
    /// Number of active backlogs without a sure head: while there is one, no record may leave.
    starved: usize,
    /// For `Order::Arrival`: the backlog of each record, in the order in which they came.
    arrivals: VecDeque<usize>,
    buffered: usize,
}

#[derive(Debug)]
struct Backlog {
    partition: i32,
    records: VecDeque<Record>,
    /// Events of those records that have one.
    events: EventQueue,
    /// Changes of those that are one.
    changes: VecDeque<CatalogueChange>,
    supply: Supply,
    /// The key of the first record.
    head: Option<Key>,
    /// Once the records have left, the next one is no earlier than this.
    position: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supply {
    /// More may come, and it may be older than what the others have.
    Active,
    /// Caught up with the log's end.
    Idle,
    /// Nothing more will come.
    Finished,
}

impl Backlog {
    fn starved(&self) -> bool {
        self.supply == Supply::Active && !self.head.is_some_and(|head| head.sure)
    }
}

impl Merge {
    /// Nothing buffered, every partition active.
    pub fn new(partitions: impl IntoIterator<Item = i32>, order: Order) -> Merge {
        // Sorted, so that backlogs compare as their partitions do.
        let sorted: BTreeSet<i32> = partitions.into_iter().collect();
        let index: BTreeMap<i32, usize> = sorted.into_iter().zip(0..).collect();
        // One partition has its order already, so nothing needs to wait for a key.
        let order = if index.len() > 1 { order } else { Order::Arrival };
        let backlog = |&partition: &i32| Backlog {
            partition,
            records: VecDeque::new(),
            events: EventQueue::default(),
            changes: VecDeque::new(),
            supply: Supply::Active,
            head: None,
            position: None,
        };
        Merge {
            order,
            backlogs: index.keys().map(backlog).collect(),
            starved: index.len(),
            index,
            heads: BTreeSet::new(),
            arrivals: VecDeque::new(),
            buffered: 0,
        }
    }

    fn backlog(&self, partition: i32) -> usize {
        *self.index.get(&partition).expect("only partitions named at the start are merged")
    }

    /// Takes the next records of a partition.
    ///
    /// # Panics
    /// If the partition was not named at the start or has finished, if offsets go backwards, or if
    /// the run has other events than its records say.
    pub fn push(&mut self, run: Run) {
        let Run { partition, records, events, changes } = run;
        let index = self.backlog(partition);
        let backlog = &mut self.backlogs[index];
        assert!(backlog.supply != Supply::Finished, "a record after the partition's end");
        assert!(
            backlog.records.iter().rev().take(1).chain(&records).is_sorted_by_key(|r| r.offset),
            "offsets of a partition ascend"
        );
        let there: usize = records.iter().map(|record| record.events as usize).sum();
        assert!(there == events.len(), "a record has the events that it says");
        let (usable, with_events) = records.iter().fold((0, 0), |(usable, events), record| {
            (
                usable + usize::from(record.time_ms.is_some()),
                events + usize::from(record.events > 0),
            )
        });
        assert!(
            if partition < 0 { there == 0 } else { changes.is_empty() }
                && usable == with_events + changes.len(),
            "a record that was not rejected has an event, or is a change"
        );
        if self.order == Order::Arrival {
            self.arrivals.extend(std::iter::repeat_n(index, records.len()));
        }
        self.buffered += records.len();
        backlog.records.extend(records);
        backlog.events.push(events);
        backlog.changes.extend(changes);
        if !backlog.head.is_some_and(|head| head.sure) {
            self.appraise(index);
        }
    }

    /// Finds the key of a backlog's first record: there is another one, or more behind it.
    fn appraise(&mut self, index: usize) {
        let backlog = &mut self.backlogs[index];
        self.starved -= usize::from(backlog.starved());
        let head = match self.order {
            Order::EventTime => Key::of(&backlog.records),
            // Its turn is known.
            Order::Arrival => backlog.records.front().map(|_| Key { time: 0, sure: true }),
        };
        let before = std::mem::replace(&mut backlog.head, head);
        self.starved += usize::from(backlog.starved());
        if self.order == Order::EventTime {
            before.map(|key| self.heads.remove(&(key.time, index)));
            self.heads.extend(head.map(|key| (key.time, index)));
        }
    }

    /// Says whether `partition` has caught up with the log's end: then it holds nothing back.
    pub fn set_idle(&mut self, partition: i32, idle: bool) {
        let supply = if idle { Supply::Idle } else { Supply::Active };
        self.set_supply(partition, supply);
    }

    /// Says that nothing more will ever come from `partition`.
    pub fn finish(&mut self, partition: i32) {
        self.set_supply(partition, Supply::Finished);
    }

    /// Says that what lies between the last record of `partition` and `position` is no record: the
    /// marker of a transaction, or what it took back. Where nobody says so, retention that passes
    /// a marker looks like a loss.
    pub fn pass(&mut self, partition: i32, position: i64) {
        let index = self.backlog(partition);
        self.backlogs[index].position = Some(position);
    }

    /// The positions said of partitions of which no record waits, each once.
    fn passed(&mut self) -> impl Iterator<Item = (i32, i64)> {
        let drained = self.backlogs.iter_mut().filter(|backlog| backlog.records.is_empty());
        drained.filter_map(|backlog| Some((backlog.partition, backlog.position.take()?)))
    }

    fn set_supply(&mut self, partition: i32, supply: Supply) {
        let index = self.backlog(partition);
        let backlog = &mut self.backlogs[index];
        if backlog.supply == Supply::Finished {
            return;
        }
        self.starved -= usize::from(backlog.starved());
        backlog.supply = supply;
        self.starved += usize::from(backlog.starved());
    }

    /// The backlog whose first record is the next one of the merged sequence, if that is certain
    /// yet.
    fn next(&self) -> Option<usize> {
        let index = match self.order {
            Order::Arrival => self.arrivals.front().copied(),
            Order::EventTime if self.starved > 0 => None,
            Order::EventTime => self.heads.first().map(|&(_, index)| index),
        }?;
        // A range ends with its last event: what catalogues say later is for the events behind it.
        let is_late = self.backlogs[index].partition < 0 && self.finished();
        (!is_late).then_some(index)
    }

    /// Events of the next record of the merged sequence, if it is certain yet.
    fn next_events(&self) -> Option<usize> {
        let record = self.backlogs[self.next()?].records.front();
        Some(record.expect("a backlog in order has a record").events as usize)
    }

    /// The next record of the merged sequence, if it is certain yet. Its events have not left.
    fn pop(&mut self) -> Option<MergedRecord> {
        let index = self.next()?;
        if self.order == Order::Arrival {
            self.arrivals.pop_front();
        }
        let backlog = &mut self.backlogs[index];
        let record = backlog.records.pop_front().expect("a backlog in order has a record");
        let partition = backlog.partition;
        self.buffered -= 1;
        self.appraise(index);
        let Record { offset, events, time_ms } = record;
        let (events, rejected) = (events as usize, time_ms.is_none());
        Some(MergedRecord { partition, offset, backlog: index, events, rejected })
    }

    /// Frees the events that have left.
    fn release(&mut self) {
        self.backlogs.iter_mut().for_each(|backlog| backlog.events.release());
    }

    /// Records of `partition` that wait.
    pub fn buffered(&self, partition: i32) -> usize {
        self.backlogs[self.backlog(partition)].records.len()
    }

    /// True if `partition` has too few records to give its first one a key, and more may come. By
    /// event time nothing goes on until then.
    pub fn starved(&self, partition: i32) -> bool {
        self.backlogs[self.backlog(partition)].starved()
    }

    /// Records that wait, over all partitions.
    pub fn buffered_total(&self) -> usize {
        self.buffered
    }

    /// True if every partition of events has finished and nothing of them waits.
    pub fn finished(&self) -> bool {
        let mut of_events = self.backlogs.iter().filter(|backlog| backlog.partition >= 0);
        of_events.all(|backlog| backlog.supply == Supply::Finished && backlog.records.is_empty())
    }

    /// True if `partition` has caught up (or finished) and nothing of it waits.
    pub fn drained(&self, partition: i32) -> bool {
        let backlog = &self.backlogs[self.backlog(partition)];
        backlog.supply != Supply::Active && backlog.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Instant;

    use super::batcher::CHANGES_MAX;
    use super::*;
    use crate::stream::cut::Cut;
    use millrace_events::{Batch, Event, FeatureValue, Offsets};

    /// A record of a log; without a time it is one to reject, and has no event.
    #[derive(Clone, Copy, Debug)]
    struct Logged {
        partition: i32,
        offset: i64,
        time_ms: Option<i64>,
        events: u32,
    }

    impl Logged {
        fn id(self) -> u64 {
            (self.partition as u64) << 32 | self.offset as u64
        }
    }

    fn entry(partition: i32, offset: i64, time_ms: i64) -> Logged {
        Logged { partition, offset, time_ms: Some(time_ms), events: 1 }
    }

    fn rejected(partition: i32, offset: i64) -> Logged {
        Logged { partition, offset, time_ms: None, events: 0 }
    }

    /// The record after decoding, and its events.
    fn decoded(record: Logged) -> (Record, Events) {
        let mut events = Events::new(1, 0);
        let id = record.id();
        for _ in 0..record.events {
            events.push(&Event {
                time_ms: record.time_ms.expect("it has events"),
                query_id: id,
                item_id: id,
                item_name: id.to_string().into(),
                reward: 1.0,
                query: vec![FeatureValue::Id(id)],
                item: Vec::new(),
            });
        }
        let Logged { offset, time_ms, events: count, .. } = record;
        (Record { offset, time_ms, events: count }, events)
    }

    fn push(merge: &mut Merge, record: Logged) {
        let (own, events) = decoded(record);
        let (records, changes) = (vec![own], Vec::new());
        merge.push(Run { partition: record.partition, records, events, changes });
    }

    fn places(merge: &mut Merge) -> Vec<(i32, i64)> {
        let mut places = Vec::new();
        while let Some(entry) = merge.pop() {
            places.push((entry.partition, entry.offset));
        }
        places
    }

    fn push_all(merge: &mut Merge, records: impl IntoIterator<Item = Logged>) {
        records.into_iter().for_each(|record| push(merge, record));
    }

    #[test]
    fn waits_for_every_partition_that_may_have_older_records() {
        let mut merge = Merge::new([0, 1, 2], Order::EventTime);
        push_all(&mut merge, (0..9).map(|n| entry(0, 5 + n, 100 + n)));
        push_all(&mut merge, (0..9).map(|n| entry(1, 9 + n, 50 + n)));
        assert_eq!(places(&mut merge), []);
        assert!(merge.starved(2) && !merge.starved(0) && !merge.starved(1));
        merge.set_idle(2, true);
        assert_eq!(places(&mut merge), [(1, 9)], "then partition 1 may have more to say");
        assert!(merge.starved(1) && !merge.starved(0));
        merge.finish(1);
        let rest = (10..18).map(|offset| (1, offset));
        assert_eq!(places(&mut merge), rest.chain([(0, 5)]).collect::<Vec<_>>());
        assert!(!merge.finished() && merge.drained(1) && merge.drained(2) && !merge.drained(0));
        merge.set_idle(2, false);
        push(&mut merge, entry(0, 14, 109));
        assert_eq!(places(&mut merge), []);
        merge.finish(2);
        assert_eq!(places(&mut merge), [(0, 6)]);
        merge.finish(0);
        assert_eq!((merge.buffered(0), merge.buffered_total()), (8, 8));
        assert_eq!(places(&mut merge), (7..15).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(merge.finished());
    }

    #[test]
    fn one_partition_waits_for_nothing() {
        let mut merge = Merge::new([4], Order::EventTime);
        push_all(&mut merge, [entry(4, 0, 9), rejected(4, 1), entry(4, 2, 1)]);
        assert_eq!(places(&mut merge), [(4, 0), (4, 1), (4, 2)]);
        assert!(merge.starved(4) && !merge.finished());
        merge.finish(4);
        assert!(merge.finished());
    }

    #[test]
    fn records_that_come_to_an_idle_partition_change_the_key_of_its_first() {
        let mut merge = Merge::new([0, 1], Order::EventTime);
        merge.set_idle(0, true);
        push(&mut merge, entry(0, 0, 1_000_000));
        push_all(&mut merge, (0..20).map(|n| entry(1, n, n)));
        assert_eq!(places(&mut merge).len(), 12, "partition 0 is far ahead, as far as is known");
        push_all(&mut merge, (1..4).map(|n| entry(0, n, 12 + n)));
        merge.finish(1);
        let order = places(&mut merge);
        assert_eq!(order[..5], [(1, 12), (1, 13), (0, 0), (0, 1), (0, 2)]);
        assert_eq!((order.len(), merge.heads.len()), (12, 0), "nothing is left of the old key");
    }

    #[test]
    fn equal_times_go_by_partition_and_late_or_rejected_records_keep_their_place() {
        let mut merge = Merge::new([7, 3], Order::EventTime);
        for entry in [entry(7, 0, 10), entry(7, 1, 5), entry(7, 2, 20)] {
            push(&mut merge, entry);
        }
        for entry in [entry(3, 0, 10), rejected(3, 1), entry(3, 2, 15)] {
            push(&mut merge, entry);
        }
        merge.finish(7);
        merge.finish(3);
        let order = [(3, 0), (3, 1), (7, 0), (7, 1), (3, 2), (7, 2)];
        assert_eq!(places(&mut merge), order);
    }

    #[test]
    fn arrival_order_holds_nothing_back() {
        let mut merge = Merge::new([0, 1], Order::Arrival);
        push(&mut merge, entry(1, 3, 100));
        push(&mut merge, entry(1, 4, 1));
        push(&mut merge, entry(0, 8, 50));
        assert_eq!(places(&mut merge), [(1, 3), (1, 4), (0, 8)]);
    }

    #[test]
    fn a_batch_ends_at_its_size_and_carries_rejected_records() {
        let now = Instant::now();
        let mut offsets = Offsets::new("t");
        offsets.advance(0, 4);
        let mut merge = Merge::new([0, 1], Order::Arrival);
        let mut batcher = Batcher::new(2, Cut::Full, Events::new(1, 0), offsets);
        let mut fill = |batcher: &mut Batcher, record: Option<Logged>, now| {
            record.into_iter().for_each(|record| push(&mut merge, record));
            batcher.fill(&mut merge, now);
        };
        assert!(batcher.take().is_none() && batcher.since().is_none());
        fill(&mut batcher, Some(rejected(0, 4)), now);
        fill(&mut batcher, Some(entry(0, 6, 1)), now + std::time::Duration::from_secs(1));
        assert_eq!((batcher.full(), batcher.since()), (false, Some(now)));
        fill(&mut batcher, Some(entry(1, 0, 2)), now);
        assert!(batcher.full());
        fill(&mut batcher, Some(rejected(1, 1)), now);
        let batch = batcher.take().expect("a full batch");
        assert_eq!((batch.len(), batch.rejected, batch.events.query.len()), (2, 1, 1));
        assert_eq!(batch.origins, [(0, 6), (1, 0)]);
        assert_eq!((batch.offsets.next(0), batch.offsets.next(1)), (Some(7), Some(1)));
        fill(&mut batcher, None, now);
        let batch = batcher.take().expect("offsets moved, though there is no event");
        assert_eq!((batch.len(), batch.rejected), (0, 1));
        assert_eq!((batch.offsets.next(0), batch.offsets.next(1)), (Some(7), Some(2)));
        assert!(batcher.take().is_none());
    }

    /// The parts of a batch that decide about training, comparable.
    fn digest(batch: &Batch) -> String {
        format!("{batch:?}")
    }

    /// Partitions of records; offsets have gaps, times go back and forth.
    fn log() -> impl Strategy<Value = Vec<Vec<Logged>>> {
        // Rejected ones, single events, and baskets of some.
        let events = prop_oneof![1 => Just(0_u32), 7 => Just(1), 2 => 2..5_u32];
        let record = (0..40_i64, 1..3_i64, events);
        prop::collection::vec(prop::collection::vec(record, 0..40), 1..5).prop_map(|partitions| {
            let partition = |(id, records): (usize, Vec<(i64, i64, u32)>)| {
                let mut next = 0;
                let place = |(time, gap, events)| {
                    next += gap;
                    match events {
                        0 => rejected(id as i32, next),
                        _ => Logged { events, ..entry(id as i32, next, time) },
                    }
                };
                records.into_iter().map(place).collect()
            };
            partitions.into_iter().enumerate().map(partition).collect()
        })
    }

    fn cuts() -> impl Strategy<Value = Cut> {
        let random = any::<u64>().prop_map(Cut::Random);
        prop_oneof![Just(Cut::Full), (1..5_usize).prop_map(Cut::Every), random]
    }

    /// Feeds the partitions in an order drawn from `choices`, from `from` on.
    fn run(log: &[Vec<Logged>], choices: &[usize], cut: Cut, from: &Offsets) -> Vec<Batch> {
        let now = Instant::now();
        let mut merge = Merge::new(0..log.len() as i32, Order::EventTime);
        let mut batcher = Batcher::new(5, cut, Events::new(1, 0), from.clone());
        let mut rest: Vec<_> = log
            .iter()
            .zip(0..)
            .map(|(entries, id)| {
                let start = from.next(id).unwrap_or(0);
                let unread = entries.iter().filter(move |entry| entry.offset >= start);
                (id, unread.cloned().collect::<VecDeque<Logged>>())
            })
            .collect();
        let mut batches = Vec::new();
        let mut choices = choices.iter().cycle();
        while !merge.finished() {
            if !rest.is_empty() {
                let choice = choices.next().expect("choices cycle") % rest.len();
                match rest[choice].1.pop_front() {
                    Some(entry) => push(&mut merge, entry),
                    None => merge.finish(rest.swap_remove(choice).0),
                }
            }
            loop {
                batcher.fill(&mut merge, now);
                if !batcher.full() {
                    break;
                }
                batches.extend(batcher.take());
            }
        }
        batches.extend(batcher.take());
        batches
    }

    #[test]
    fn what_lies_behind_the_last_record_counts_once_the_records_have_left() {
        let mut merge = Merge::new([0, 1], Order::EventTime);
        let mut from = Offsets::new("t");
        from.advance(0, 0);
        from.advance(1, 0);
        let mut batcher = Batcher::new(4, Cut::Full, Events::new(1, 0), from);
        push_all(&mut merge, [entry(0, 0, 1), entry(0, 1, 2)]);
        merge.set_idle(0, true);
        merge.pass(0, 5);
        batcher.fill(&mut merge, Instant::now());
        assert_eq!(batcher.offsets().next(0), Some(0), "partition 1 may have older ones");
        merge.set_idle(1, true);
        merge.pass(1, 3);
        batcher.fill(&mut merge, Instant::now());
        let batch = batcher.take().expect("two events");
        assert_eq!(batch.len(), 2);
        assert_eq!((batch.offsets.next(0), batch.offsets.next(1)), (Some(5), Some(3)));
        // An old word says nothing new.
        merge.pass(0, 5);
        batcher.fill(&mut merge, Instant::now());
        assert!(batcher.take().is_none());
        merge.pass(0, 6);
        batcher.fill(&mut merge, Instant::now());
        let batch = batcher.take().expect("the offsets moved");
        assert_eq!((batch.len(), batch.rejected, batch.offsets.next(0)), (0, 0, Some(6)));
    }

    fn change(offset: i64, time_ms: Option<i64>) -> (Record, Option<CatalogueChange>) {
        let (side, name) = (millrace_events::EventSide::Item, offset.to_string().into());
        let change = CatalogueChange {
            at: 0,
            side,
            id: offset as u64,
            name,
            values: None,
            attributes: Vec::new(),
        };
        (Record { offset, time_ms, events: 0 }, time_ms.map(|_| change))
    }

    fn push_changes(merge: &mut Merge, lane: i32, changes: &[(i64, Option<i64>)]) {
        let (records, changes): (Vec<_>, Vec<_>) =
            changes.iter().map(|&(offset, time_ms)| change(offset, time_ms)).unzip();
        let changes = changes.into_iter().flatten().collect();
        merge.push(Run { partition: lane, records, events: Events::new(1, 0), changes });
    }

    /// A catalogue of two partitions beside one of events.
    fn following(full: usize) -> (Merge, Batcher) {
        let batcher = Batcher::new(full, Cut::Full, Events::new(1, 0), Offsets::new("t"));
        let batcher = batcher.following(vec![Offsets::new("c")], vec![(0, 4), (0, 7)]);
        (Merge::new([0, -1, -2], Order::EventTime), batcher)
    }

    #[test]
    fn changes_come_before_events_of_their_time_and_after_older_ones() {
        let (mut merge, mut batcher) = following(3);
        push_all(&mut merge, (0..5).map(|n| entry(0, n, 10 * n)));
        merge.finish(0);
        push_changes(&mut merge, -2, &[(5, Some(i64::MIN)), (6, None), (7, Some(20))]);
        merge.set_idle(-2, true);
        batcher.fill(&mut merge, Instant::now());
        assert!(batcher.since().is_none(), "partition 4 of the catalogue may have older ones");
        push_changes(&mut merge, -1, &[(2, Some(i64::MIN)), (3, Some(25)), (4, Some(90))]);
        merge.finish(-1);
        batcher.fill(&mut merge, Instant::now());
        let batch = batcher.take().expect("three events");
        let places: Vec<(u64, u32)> = batch.changes.iter().map(|c| (c.id, c.at)).collect();
        assert_eq!((batch.len(), batch.rejected), (3, 1));
        assert_eq!(places, [(5, 0), (2, 0), (7, 2)], "of equal times lane by lane");
        let next = |batch: &Batch| [4, 7].map(|partition| batch.catalogues[0].next(partition));
        assert_eq!(next(&batch), [Some(3), Some(8)], "with the offsets of what it brings");
        batcher.fill(&mut merge, Instant::now());
        assert!(merge.finished(), "a range ends with its last event");
        let batch = batcher.take().expect("the rest");
        assert_eq!((batch.len(), batch.changes.len(), next(&batch)[0]), (2, 1, Some(4)));
        assert_eq!(merge.buffered(-1), 1, "what comes later is not read");
    }

    #[test]
    fn a_flood_of_changes_comes_in_bounded_batches() {
        let (mut merge, mut batcher) = following(3);
        let many: Vec<_> = (0..CHANGES_MAX as i64 + 5).map(|n| (n, Some(n))).collect();
        push_changes(&mut merge, -1, &many);
        merge.set_idle(-2, true);
        merge.finish(-1);
        push(&mut merge, entry(0, 0, 1 << 40));
        merge.finish(0);
        batcher.fill(&mut merge, Instant::now());
        assert!(batcher.full() && batcher.is_empty());
        let batch = batcher.take().expect("changes");
        assert_eq!(batch.changes.len(), CHANGES_MAX);
        assert_eq!(batch.catalogues[0].next(4), Some(CHANGES_MAX as i64));
        batcher.fill(&mut merge, Instant::now());
        let batch = batcher.take().expect("the rest");
        assert_eq!((batch.changes.len(), batch.len()), (5, 1));
    }

    proptest! {
        #[test]
        fn any_interleaving_gives_the_same_batches(
            log in log(),
            cut in cuts(),
            one in prop::collection::vec(any::<usize>(), 1..50),
            other in prop::collection::vec(any::<usize>(), 1..50),
        ) {
            let start = Offsets::new("t");
            let batches = run(&log, &one, cut, &start);
            let again = run(&log, &other, cut, &start);
            let digests = |batches: &[Batch]| batches.iter().map(digest).collect::<Vec<_>>();
            prop_assert_eq!(digests(&batches), digests(&again));

            for batch in &batches {
                let ids = batch.origins.iter().map(|&(partition, offset)| {
                    rejected(partition, offset).id()
                });
                prop_assert_eq!(ids.collect::<Vec<_>>(), batch.events.item_ids.clone());
            }

            // A record's events are in one batch, and no batch is larger than a full one.
            for pair in batches.windows(2).filter(|pair| !pair[1].is_empty()) {
                prop_assert!(pair[0].origins.last() != pair[1].origins.first());
            }
            prop_assert!(batches.iter().all(|batch| batch.len() <= 5));

            // Nothing lost, nothing twice, each partition in its own order.
            let ids = batches.iter().flat_map(|batch| batch.events.item_ids.clone());
            let seen: Vec<u64> = ids.collect();
            for (entries, partition) in log.iter().zip(0_u64..) {
                let ids = |entry: &Logged| vec![entry.id(); entry.events as usize];
                let expected: Vec<u64> = entries.iter().flat_map(ids).collect();
                let own = |id: &&u64| **id >> 32 == partition;
                prop_assert_eq!(seen.iter().filter(own).copied().collect::<Vec<_>>(), expected);
            }
            let bad = log.iter().flatten().filter(|entry| entry.time_ms.is_none());
            let rejected = batches.iter().map(|batch| batch.rejected).sum::<u64>();
            prop_assert_eq!(rejected, bad.count() as u64);
        }

        /// Partitions whose times ascend merge by these times alone.
        #[test]
        fn ascending_partitions_merge_by_their_own_times(
            mut log in log(),
            choices in prop::collection::vec(any::<usize>(), 1..50),
        ) {
            for partition in &mut log {
                let times = partition.iter().filter_map(|entry| entry.time_ms);
                let mut times: Vec<_> = times.collect();
                times.sort_unstable();
                let accepted = partition.iter_mut().filter(|entry| entry.time_ms.is_some());
                accepted.zip(times).for_each(|(entry, time)| entry.time_ms = Some(time));
            }
            let batches = run(&log, &choices, Cut::Full, &Offsets::new("t"));
            let merged: Vec<_> = batches.iter().flat_map(|batch| batch.origins.clone()).collect();
            let accepted = log.iter().flatten().filter(|entry| entry.time_ms.is_some());
            let mut own: Vec<_> = accepted.collect();
            own.sort_by_key(|entry| (entry.time_ms, entry.partition, entry.offset));
            let places =
                |entry: &&Logged| vec![(entry.partition, entry.offset); entry.events as usize];
            prop_assert_eq!(merged, own.iter().flat_map(places).collect::<Vec<_>>());
        }

        /// A run that stops after any batch and goes on from its offsets sees the same batches.
        #[test]
        fn going_on_from_any_batch_gives_the_rest(
            log in log(),
            cut in cuts(),
            one in prop::collection::vec(any::<usize>(), 1..50),
            other in prop::collection::vec(any::<usize>(), 1..50),
            stop in any::<prop::sample::Index>(),
        ) {
            let batches = run(&log, &one, cut, &Offsets::new("t"));
            prop_assume!(!batches.is_empty());
            let stop = stop.index(batches.len());
            let rest = run(&log, &other, cut, &batches[stop].offsets);
            let digests = |batches: &[Batch]| batches.iter().map(digest).collect::<Vec<_>>();
            prop_assert_eq!(digests(&batches[stop + 1..]), digests(&rest));
        }
    }
}
