use std::collections::BTreeMap;

use millrace_events::{Event, Events, SplitMix};

use super::*;

/// A record: partition, offset, time, query, item; no query: it has no event.
type Record = (i32, i64, i64, Option<u64>, u64);

fn offsets(next: &[(i32, i64)]) -> Offsets {
    let mut offsets = Offsets::new("t");
    next.iter().for_each(|&(partition, next)| offsets.advance(partition, next));
    offsets
}

fn arrived(after: &Offsets, records: &[Record]) -> Arrived {
    let mut arrived = Arrived {
        events: Events::new(0, 0),
        origins: Vec::new(),
        without: Vec::new(),
        next: after.clone(),
    };
    for &(partition, offset, time_ms, query, item_id) in records {
        arrived.next.advance(partition, offset + 1);
        let Some(query_id) = query else {
            arrived.without.push((partition, offset, Some("empty")));
            continue;
        };
        arrived.origins.push((partition, offset));
        arrived.events.push(&Event {
            time_ms,
            query_id,
            item_id,
            item_name: "".into(),
            reward: 1.0,
            query: vec![],
            item: vec![],
        });
    }
    arrived
}

fn take(recent: &Recent, records: &[Record]) {
    recent.take(&arrived(&recent.next(), records), &[]);
}

const READING: &str = "as always";

fn behind(recent: &Recent, own: &Offsets, queries: &[u64]) -> Option<Known> {
    recent.behind(own, READING, queries)
}

#[test]
fn a_version_goes_on_behind_its_own_offsets() {
    let recent = Recent::new(1 << 20);
    recent.begin(offsets(&[(0, 10), (1, 5)]), READING.into(), 3);
    take(&recent, &[(0, 10, 1, Some(7), 100), (1, 5, 2, Some(8), 200), (0, 11, 3, None, 0)]);
    take(&recent, &[(0, 12, 4, Some(7), 101), (0, 13, 5, Some(7), 102)]);
    let known = behind(&recent, &offsets(&[(0, 10), (1, 5)]), &[7, 8, 9]).expect("followed");
    assert_eq!(known.offsets, offsets(&[(0, 14), (1, 6)]));
    assert_eq!(known.after, [vec![100, 101, 102], vec![200], vec![]]);
    // A newer version knows the first of them, and is ahead on the other partition.
    let newer = offsets(&[(0, 12), (1, 9)]);
    let known = behind(&recent, &newer, &[7, 8]).expect("followed");
    assert_eq!(known.offsets, offsets(&[(0, 14), (1, 9)]));
    assert_eq!(known.after, [vec![101, 102], vec![]]);
    // Only so many are kept as a tower reads.
    take(&recent, &[(0, 14, 6, Some(7), 103)]);
    let known = behind(&recent, &offsets(&[(0, 10), (1, 5)]), &[7]).expect("followed");
    assert_eq!(known.after, [vec![101, 102, 103]]);
}

#[test]
fn what_it_did_not_follow_goes_on_with_nothing() {
    let recent = Recent::new(1 << 20);
    recent.begin(offsets(&[(0, 10)]), READING.into(), 3);
    take(&recent, &[(0, 10, 1, Some(7), 100)]);
    assert_eq!(behind(&recent, &offsets(&[(0, 9)]), &[7]), None, "offset 9 was not read");
    assert_eq!(behind(&recent, &Offsets::new("other"), &[7]), None, "another topic");
    assert_eq!(recent.behind(&offsets(&[(0, 10)]), "another way", &[7]), None);
    // A partition that the version does not know was read from its beginning.
    let known = behind(&recent, &offsets(&[(3, 1)]), &[7]);
    assert_eq!(known.map(|known| known.after), Some(vec![vec![100]]));
}

#[test]
fn a_cut_forgets_what_all_versions_know_and_gives_the_memory_back() {
    let recent = Recent::new(50_000);
    recent.begin(offsets(&[(0, 0)]), READING.into(), 4);
    let mut offset = 0;
    while !recent.is_full() {
        take(&recent, &[(0, offset, offset, Some(offset as u64 % 300 + (1 << 40)), 1)]);
        offset += 1;
    }
    assert!(recent.bytes() < 50_000 + 1_000, "{} bytes", recent.bytes());
    let learned = recent.times(&offsets(&[(0, 0)]), &offsets(&[(0, offset - 10)]));
    assert_eq!(learned.iter().max(), Some(&(offset - 11)));
    recent.cut(&offsets(&[(0, offset - 10)]));
    assert!(!recent.is_full() && recent.bytes() <= 10 * (QUERY_BYTES + 2 * size_of::<Click>()));
    assert_eq!(behind(&recent, &offsets(&[(0, offset - 11)]), &[]), None);
    let newest = (offset as u64 - 1) % 300 + (1 << 40);
    let known = behind(&recent, &offsets(&[(0, offset - 10)]), &[newest]);
    assert_eq!(known.map(|known| known.after), Some(vec![vec![1]]));
    recent.cut(&offsets(&[(0, offset + 50)]));
    assert_eq!((recent.next(), recent.bytes()), (offsets(&[(0, offset + 50)]), 0));
}

/// Whatever comes first, the clicks of a query on one partition stand in the log's order, late
/// times among them; with ascending times those of several partitions stand as the merge has them.
#[test]
fn the_order_is_the_trainers_however_the_partitions_come() {
    for seed in 0..200 {
        let mut random = SplitMix::new(seed);
        let ascending = seed % 2 == 0;
        let mut logs: [Vec<Record>; 3] = Default::default();
        for time in 0..120 {
            let partition = random.next_u64() % 3;
            let query = if ascending { random.next_u64() % 5 } else { partition };
            let time = if ascending { time / 2 } else { (random.next_u64() % 50) as i64 };
            let log = &mut logs[partition as usize];
            log.push((partition as i32, log.len() as i64, time, Some(query), random.next_u64()));
        }
        let mut merged: Vec<Record> = logs.iter().flatten().copied().collect();
        if ascending {
            merged.sort_by_key(|&(partition, _, time, ..)| (time, partition));
        }
        let mut wanted: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (.., query, item) in merged {
            wanted.entry(query.expect("an event")).or_default().push(item);
        }
        let recent = Recent::new(1 << 20);
        recent.begin(offsets(&[(0, 0), (1, 0), (2, 0)]), READING.into(), 120);
        let mut left = logs.map(|log| log.into_iter().peekable());
        while left.iter_mut().any(|log| log.peek().is_some()) {
            let log = &mut left[random.next_u64() as usize % 3];
            let some: Vec<Record> = log.take(random.next_u64() as usize % 9).collect();
            take(&recent, &some);
        }
        let queries: Vec<u64> = wanted.keys().copied().collect();
        let known =
            behind(&recent, &offsets(&[(0, 0), (1, 0), (2, 0)]), &queries).expect("followed");
        assert_eq!(known.after, wanted.into_values().collect::<Vec<_>>(), "seed {seed}");
    }
}
