//! What a record's place in the merged sequence is compared by.

use std::collections::VecDeque;

use super::Record;

/// Times of following records that a key is made of.
pub(super) const SPAN: usize = 8;
/// The rank of the following time that bounds a key, from the smallest: two records far in the
/// past, and five far in the future, do not move it.
const RANK: usize = 3;
/// Records in which those times are looked for. Where nearly everything is rejected the window ends
/// here: what waits for a key must have a bound.
pub(super) const REACH: usize = 256;

/// The key of a backlog's first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) time: i64,
    /// Whatever comes behind the record changes nothing any more.
    pub(super) sure: bool,
}

impl Key {
    /// The key of the first of a partition's `records`: its own time, but no later than the third
    /// smallest of the times behind it.
    ///
    /// A record far ahead goes with its successors, one far behind moves nothing but itself, and
    /// where times ascend each record has its own. A rejected record has no time and counts in no
    /// window; it goes at once, so that it holds nothing back.
    pub(super) fn of(records: &VecDeque<Record>) -> Option<Key> {
        let Some(own) = records.front()?.time_ms else {
            return Some(Key { time: i64::MIN, sure: true });
        };
        // Before all events, as what a catalogue held at the start: nothing comes before it.
        if own == i64::MIN {
            return Some(Key { time: own, sure: true });
        }
        let behind = records.iter().skip(1).take(REACH);
        let mut least = [i64::MAX; RANK];
        let mut known = 0_usize;
        for mut time in behind.filter_map(|record| record.time_ms).take(SPAN) {
            known += 1;
            for slot in &mut least {
                if time < *slot {
                    std::mem::swap(slot, &mut time);
                }
            }
        }
        // Of one or two, the one that is wrong cannot be told. Of three and four, the second is
        // neither the smallest nor the largest.
        let bound = match known {
            0..3 => own,
            _ => least[RANK.min(known.div_ceil(2)) - 1],
        };
        let sure = known == SPAN || records.len() > REACH;
        Some(Key { time: own.min(bound), sure })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400_000;

    fn records(times: &[Option<i64>]) -> VecDeque<Record> {
        let record =
            |(offset, &time_ms)| Record { offset, time_ms, events: u32::from(time_ms.is_some()) };
        (0..).zip(times).map(record).collect()
    }

    fn key(times: &[Option<i64>]) -> Option<(i64, bool)> {
        Key::of(&records(times)).map(|key| (key.time, key.sure))
    }

    #[test]
    fn a_record_far_ahead_goes_with_its_successors_and_one_far_behind_goes_alone() {
        let mut times: Vec<_> = (1..=10).map(Some).collect();
        assert_eq!(key(&times), Some((1, true)));
        times[0] = Some(DAY);
        assert_eq!(key(&times), Some((4, true)));
        times[0] = Some(-DAY);
        assert_eq!(key(&times), Some((-DAY, true)));
        times[..3].copy_from_slice(&[Some(1), Some(-DAY), Some(DAY)]);
        assert_eq!(key(&times), Some((1, true)), "two of nine are wrong");
        // The fewer there are, the less they say.
        assert_eq!(key(&[Some(DAY), Some(2), Some(3), Some(4)]), Some((3, false)));
        assert_eq!(key(&[Some(DAY), Some(2), Some(3)]), Some((DAY, false)));
        assert_eq!(key(&[Some(5)]), Some((5, false)));
        assert_eq!(key(&[]), None);
    }

    #[test]
    fn rejected_records_go_at_once_and_count_in_no_window() {
        assert_eq!(key(&[None, Some(3)]), Some((i64::MIN, true)));
        let mut times = vec![Some(DAY)];
        (0..8).for_each(|n| times.extend([None, Some(n)]));
        assert_eq!(key(&times), Some((2, true)));
        assert_eq!(key(&times[..times.len() - 1]), Some((2, false)));
        let mut times = vec![None; REACH + 1];
        times[0] = Some(DAY);
        assert_eq!(key(&times[..REACH]), Some((DAY, false)));
        assert_eq!(key(&times), Some((DAY, true)), "there is nothing to wait for any more");
    }

    proptest! {
        /// With one record's time shifted by any amount, either way, no other record's key leaves
        /// the span of its neighbours' true times.
        #[test]
        fn one_wrong_time_moves_no_other_record_past_its_neighbours(
            times in prop::collection::vec(prop::option::weighted(0.9, -50..50_i64), 1..40),
            wrong in any::<prop::sample::Index>(),
            shift in prop_oneof![-100..100_i64, -400 * DAY..400 * DAY],
        ) {
            let wrong = wrong.index(times.len());
            let mut shifted = times.clone();
            shifted[wrong] = shifted[wrong].map(|time| time + shift);
            for at in (0..times.len()).filter(|&at| at != wrong && times[at].is_some()) {
                let near = times[at..].iter().flatten().take(SPAN + 1);
                let (least, most) = (near.clone().min(), near.max());
                let key = Key::of(&records(&shifted[at..])).map(|key| key.time);
                prop_assert!(key.as_ref() >= least && key.as_ref() <= most, "{at}: {key:?}");
            }
        }

        /// Where times ascend, each record has its own, and one that is shifted ahead goes no later
        /// than the third behind it.
        #[test]
        fn ascending_times_are_their_own_keys(
            steps in prop::collection::vec(0..20_i64, 1..40),
            shift in 0..400 * DAY,
        ) {
            let ascend = |sum: &mut i64, step| { *sum += step; Some(Some(*sum)) };
            let times: Vec<Option<i64>> = steps.into_iter().scan(0, ascend).collect();
            for at in 0..times.len() {
                let mut rest = records(&times[at..]);
                prop_assert_eq!(Key::of(&rest).map(|key| key.time), times[at]);
                let Some(third) = times.get(at + 3) else { continue };
                rest[0].time_ms = rest[0].time_ms.map(|time| time + shift);
                prop_assert!(Key::of(&rest).map(|key| key.time) <= *third);
            }
        }
    }
}
