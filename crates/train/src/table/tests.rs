use std::collections::HashMap;

use super::*;
use crate::capture::{Capture as _, Extent};
use crate::kernel::product::dot;
use crate::saved::{Damaged, SavedBytes, SavedPart, TakePart};
use millrace_events::mix;
use proptest::prelude::*;

fn settings(dim: usize, rows_max: usize) -> TableSettings {
    TableSettings {
        dim,
        rows_max,
        init_scale: 0.1,
        seed: 7,
        learning_rate: 0.5,
        epsilon: 1e-8,
        decay: 1.0,
        batch: 1,
        admit_after: 1,
        expiry_events: Some(10),
    }
}

/// A table of these settings as `bytes` have it.
fn loaded(settings: TableSettings, bytes: &[u8]) -> Result<Table, Damaged> {
    let mut table = Table::new(settings);
    table.load(bytes).map(|()| table)
}

fn bytes_of(table: &Table) -> Vec<u8> {
    table.save()
}

/// The slot of each of `ids`.
fn touch(table: &mut Table, ids: &[u64], step: u64) -> Vec<u32> {
    let touched = touched(table, ids, step);
    touched.places().iter().map(|&place| touched.slots()[place as usize]).collect()
}

fn touched(table: &mut Table, ids: &[u64], step: u64) -> TouchedRows {
    let mut touched = TouchedRows::default();
    table.touch(ids, step, &mut touched);
    touched
}

/// Touches distinct `ids` and applies `gradients`, `[ids, dim]`; the slot of each.
fn train(table: &mut Table, ids: &[u64], step: u64, gradients: &[f32]) -> Vec<u32> {
    let touched = touched(table, ids, step);
    let dim = table.dim();
    assert_eq!((touched.slots().len(), gradients.len()), (ids.len(), ids.len() * dim));
    let of_rows: HashMap<u32, &[f32]> =
        touched.places().iter().copied().zip(gradients.chunks_exact(dim)).collect();
    table.apply(&touched, |row, _, sum| sum.copy_from_slice(of_rows[&(row as u32)]));
    touched.places().iter().map(|&place| touched.slots()[place as usize]).collect()
}

#[test]
fn adagrad_by_hand() {
    let mut table = Table::new(TableSettings { init_scale: 0.0, ..settings(2, 8) });
    // mean(3², 4²) = 12.5; the row with a zero gradient stays.
    let slots = train(&mut table, &[11, 12], 1, &[3.0, 4.0, 0.0, 0.0]);
    let root = 12.5f32.sqrt();
    let want = [-0.5 * 3.0 / root, -0.5 * 4.0 / root];
    for (got, want) in table.row(slots[0]).iter().zip(want) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
    assert_eq!(table.row(slots[1]), [0.0, 0.0]);
    // Second step: accumulator 12.5 + mean(1², 0) = 13.
    let before = table.row(slots[0])[0];
    train(&mut table, &[11], 2, &[1.0, 0.0]);
    let moved = before - table.row(slots[0])[0];
    assert!((moved - 0.5 / 13f32.sqrt()).abs() < 1e-6);
    assert_eq!(table.state_mut(slots[0]).accumulator, 13.0);
}

#[test]
fn lanes_sum_what_a_loop_sums() {
    for count in [1usize, 7, 8, 9, 16, 31, 64] {
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let want: f32 = values.iter().map(|v| v * v).sum();
        assert_eq!(dot::<8>(&values, &values), want);
    }
}

#[test]
fn rows_do_not_depend_on_arrival_order() {
    let mut ahead = Table::new(settings(16, 100));
    let mut back = Table::new(settings(16, 100));
    let ids: Vec<u64> = (0..50).collect();
    let reversed: Vec<u64> = ids.iter().rev().copied().collect();
    touch(&mut ahead, &ids, 1);
    touch(&mut back, &reversed, 1);
    let mut want = [0.0; 16];
    for &id in &ids {
        ahead.initial_row(id, &mut want);
        assert_eq!(ahead.row(ahead.find(id).expect("touched")), want);
        assert_eq!(back.row(back.find(id).expect("touched")), want);
    }
}

#[test]
fn initial_rows_are_uniform_and_differ_by_seed_and_id() {
    let table = Table::new(settings(64, 10));
    let other = Table::new(TableSettings { seed: 8, ..settings(64, 10) });
    let mut all = Vec::new();
    let (mut row, mut elsewhere) = ([0.0; 64], [0.0; 64]);
    for id in 0..2000 {
        table.initial_row(id, &mut row);
        other.initial_row(id, &mut elsewhere);
        assert_ne!(row, elsewhere);
        all.extend(row);
    }
    let mean = all.iter().sum::<f32>() / all.len() as f32;
    let variance = all.iter().map(|v| v * v).sum::<f32>() / all.len() as f32;
    assert!(all.iter().all(|v| (-0.1..=0.1).contains(v)));
    assert!(mean.abs() < 1e-3, "{mean}");
    assert!((variance / (0.01 / 3.0) - 1.0).abs() < 0.02, "{variance}");
    assert_ne!(all[..64], all[64..128]);
}

#[test]
fn find_neither_touches_nor_creates() {
    let mut table = Table::new(settings(4, 8));
    assert_eq!(table.find(1), None);
    assert!(table.is_empty());
    let slots = touch(&mut table, &[1], 1);
    let before = bytes_of(&table);
    assert_eq!(table.find(1), Some(slots[0]));
    assert_eq!(table.find(2), None);
    assert_eq!(bytes_of(&table), before);
    assert_eq!((table.len(), table.dim(), table.evictions()), (1, 4, 0));
}

#[test]
fn a_full_table_evicts_its_oldest_rows_ties_by_id() {
    let mut table = Table::new(settings(2, 32));
    let first = touch(&mut table, &(0..32).rev().collect::<Vec<u64>>(), 1);
    touch(&mut table, &[0, 5], 2);
    // 32 / 16 = 2 rows go: the smallest ids of step 1, which are 1 and 2; 1's slot is reused.
    let slots = touch(&mut table, &[100], 3);
    assert_eq!((table.len(), table.evictions()), (31, 2));
    assert_eq!((table.find(1), table.find(2)), (None, None));
    assert!([0, 3, 4, 5, 31].iter().all(|&id| table.find(id).is_some()));
    assert_eq!(slots[0], first[30]);
    // Ids 3 and 4 are next in line but in this batch, so 6, 7 and 8 go for the other three.
    let slots = touch(&mut table, &[200, 201, 3, 202, 4, 203], 4);
    assert_eq!((table.len(), table.evictions()), (32, 5));
    for (slot, id) in slots.iter().zip([200, 201, 3, 202, 4, 203]) {
        assert_eq!(table.find(id), Some(*slot));
    }
    assert!([6, 7, 8].iter().all(|&id| table.find(id).is_none()));
    assert!(table.find(9).is_some());
}

#[test]
fn an_evicted_id_starts_afresh() {
    let mut table = Table::new(settings(2, 2));
    train(&mut table, &[1, 2], 1, &[1.0; 4]);
    touch(&mut table, &[2, 3], 2);
    let slots = touch(&mut table, &[1], 3);
    let mut fresh = [0.0; 2];
    table.initial_row(1, &mut fresh);
    assert_eq!(table.row(slots[0]), fresh);
    assert_eq!(table.state_mut(slots[0]).accumulator, 0.0);
}

#[test]
#[should_panic(expected = "rows_max = 4 is below the distinct ids of the step at event 9")]
fn rows_of_the_current_step_are_never_evicted() {
    let mut table = Table::new(settings(2, 4));
    touch(&mut table, &[1, 2, 3], 9);
    touch(&mut table, &[4, 5], 9);
}

#[test]
fn repeated_ids_share_a_row() {
    let mut table = Table::new(settings(2, 4));
    touch(&mut table, &[5, 6], 1);
    // New and known ids, both twice; three more would not fit.
    let touched = touched(&mut table, &[7, 5, 7, 8, 5, 8], 2);
    assert_eq!(touched.places(), [1, 0, 1, 2, 0, 2]);
    let slots: Vec<u32> = [5, 7, 8].map(|id| table.find(id).expect("touched")).to_vec();
    assert_eq!((touched.slots(), table.len(), table.evictions()), (&slots[..], 4, 0));
}

#[test]
fn rows_expire_by_step() {
    let mut table = Table::new(settings(2, 100));
    touch(&mut table, &[1, 2, 3], 1);
    touch(&mut table, &[2], 5);
    assert_eq!(table.expire(10), 0);
    assert_eq!(table.expire(11), 2);
    assert_eq!((table.len(), table.evictions()), (1, 2));
    assert!(table.find(2).is_some());
    assert_eq!(table.expire(15), 1);
    let mut kept = Table::new(TableSettings { expiry_events: None, ..settings(2, 100) });
    touch(&mut kept, &[1], 1);
    assert_eq!(kept.expire(u64::MAX - 1), 0);
}

#[test]
fn large_calls_split_over_threads_give_the_bits_of_small_ones() {
    let dim = 32;
    let ids: Vec<u64> = (0..20_000).map(mix).collect();
    let gradients: Vec<f32> = (0..ids.len() * dim).map(|i| (i as f32).sin()).collect();
    let (mut whole, mut parts) =
        (Table::new(settings(dim, 1 << 16)), Table::new(settings(dim, 1 << 16)));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a small pool");
    pool.install(|| train(&mut whole, &ids, 1, &gradients));
    touch(&mut parts, &ids, 1);
    for (ids, gradients) in ids.chunks(100).zip(gradients.chunks(100 * dim)) {
        train(&mut parts, ids, 1, gradients);
    }
    assert!(bytes_of(&whole) == bytes_of(&parts));
}

#[test]
fn pages_fill_in_order_and_survive_a_restore() {
    let rows = PAGE_ROWS + BLOCK_ROWS + 5;
    let mut table = Table::new(settings(3, rows + 10));
    let ids: Vec<u64> = (0..rows as u64).collect();
    let slots = touch(&mut table, &ids, 1);
    assert!(slots.iter().enumerate().all(|(i, &slot)| slot as usize == i));
    table.expire(11);
    touch(&mut table, &[3, 1], 12);
    let bytes = bytes_of(&table);
    let restored = loaded(settings(3, rows + 10), &bytes).expect("own bytes");
    assert!(bytes_of(&restored) == bytes);
    assert_eq!(restored.free, table.free);
}

#[test]
fn foreign_or_damaged_bytes_are_refused() {
    let mut table = Table::new(settings(4, 8));
    touch(&mut table, &[1, 2, 3], 1);
    touch(&mut table, &[3], 9);
    table.expire(11);
    let bytes = bytes_of(&table);
    let refuse =
        |settings: TableSettings, bytes: &[u8]| loaded(settings, bytes).err().expect("refused").0;
    assert!(refuse(settings(5, 8), &bytes).contains("dim = 4"));
    assert!(refuse(TableSettings { seed: 1, ..settings(4, 8) }, &bytes).contains("seed = 7"));
    assert!(refuse(settings(4, 2), &bytes).contains("rows_max can grow but not shrink"));
    for end in 0..bytes.len() {
        refuse(settings(4, 8), &bytes[..end]);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(refuse(settings(4, 8), &longer).contains("damaged"));
    // The free list starts after the 52 bytes of the header.
    let mut twice = bytes.clone();
    twice.copy_within(52..56, 56);
    assert!(refuse(settings(4, 8), &twice).contains("free list"));
    let tuned = TableSettings { learning_rate: 9.0, expiry_events: None, ..settings(4, 80) };
    assert!(loaded(tuned, &bytes).is_ok());
}

/// One random step: distinct ids touched, a gradient for each, perhaps an expiry.
fn advance(table: &mut Table, step: u64, ids: &[u64]) {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let gradients: Vec<f32> =
        (0..ids.len() * table.dim()).map(|i| ((step + 3 * i as u64) as f32).sin()).collect();
    train(table, &ids, step, &gradients);
    if step.is_multiple_of(4) {
        table.expire(step);
    }
}

#[test]
fn a_capture_is_the_table_as_it_was() {
    // Three blocks, full, so that rows are evicted and their slots used again meanwhile.
    let rows = 2 * BLOCK_ROWS + 100;
    let mut table = Table::new(TableSettings { expiry_events: Some(40), ..settings(2, rows) });
    let mut random = millrace_events::SplitMix::new(8);
    let mut advance = |table: &mut Table, step| {
        let mut ids: Vec<u64> = (0..300).map(|_| random.next_u64() % (rows as u64 * 2)).collect();
        ids.sort_unstable();
        ids.dedup();
        let gradients: Vec<f32> = (0..2 * ids.len()).map(|_| random.uniform(1.0)).collect();
        train(table, &ids, step, &gradients);
        table.expire(step);
    };
    (1..=60).for_each(|step| advance(&mut table, step));
    let mut base = bytes_of(&table);
    for (begin, extent) in [(61, Extent::Whole), (100, Extent::Changed), (140, Extent::Changed)] {
        let want = bytes_of(&table);
        table.begin_capture(extent);
        let (mut got, mut increment) = (Vec::new(), Vec::new());
        for step in begin..begin + 14 {
            advance(&mut table, step);
            let mut blocks = usize::from(step % 3 == 0);
            if let Some((content, changed)) = table.advance_capture(&mut blocks) {
                got.extend(content);
                increment.extend(changed.unwrap_or_default());
            }
        }
        assert!(table.is_copied() && table.kept_bytes() == 0);
        assert!(got == want && bytes_of(&table) != want);
        if extent == Extent::Changed {
            let mut restored = Table::new(table.settings.clone());
            let parts = |_: &str, take: TakePart<'_>| {
                take(SavedPart::Whole(SavedBytes::of(&base)))?;
                take(SavedPart::Increment(SavedBytes::of(&increment)))
            };
            restored.restore(&parts, "table").expect("just written");
            assert!(bytes_of(&restored) == want);
        }
        base = want;
        table.settle_capture(true);
    }
    table.begin_capture(Extent::Whole);
    table.settle_capture(false);
    assert!(table.advance_capture(&mut 9).is_none());
}

#[test]
fn a_foreign_or_damaged_increment_is_refused() {
    let mut table = Table::new(settings(2, 16));
    touch(&mut table, &[1, 2, 3], 1);
    let base = bytes_of(&table);
    table.begin_capture(Extent::Whole);
    table.settle_capture(true);
    touch(&mut table, &[3, 4], 5);
    table.begin_capture(Extent::Changed);
    let mut increment = Vec::new();
    while let Some((_, changed)) = table.advance_capture(&mut 1) {
        increment.extend(changed.expect("an increment"));
    }
    let apply = |bytes: &[u8]| {
        let parts = |_: &str, take: TakePart<'_>| {
            take(SavedPart::Whole(SavedBytes::of(&base)))?;
            take(SavedPart::Increment(SavedBytes::of(bytes)))
        };
        let mut restored = Table::new(settings(2, 16));
        restored.restore(&parts, "table").map(|()| restored)
    };
    let restored = apply(&increment).expect("own bytes");
    assert!(bytes_of(&restored) == bytes_of(&table));
    for end in 0..increment.len() {
        assert!(apply(&increment[..end]).is_err(), "{end}");
    }
    assert!(apply(&[&increment[..], &[0]].concat()).is_err());
    // The count of slots lies behind magic, version, dim, seed, scale and evictions.
    for (at, byte) in [(36, 3), (36, 5), (36, 17), (43, 1), (44, 9), (51, 1), (52, 9), (54, 4)] {
        let mut bad = increment.clone();
        bad[at] = byte;
        assert!(apply(&bad).is_err(), "{at}");
    }
    // An increment comes after all of a table, never first.
    let parts =
        |_: &str, take: TakePart<'_>| take(SavedPart::Increment(SavedBytes::of(&increment)));
    let error = Table::new(settings(2, 16)).restore(&parts, "table").expect_err("refused");
    assert!(error.0.contains("begins with an increment"), "{error}");
}

proptest! {
    #[test]
    fn a_restored_table_goes_on_with_the_same_bits(
        batches in prop::collection::vec(prop::collection::vec(0u64..60, 0..12), 1..60),
        stop in 0usize..60,
    ) {
        let mut table = Table::new(settings(3, 20));
        let mut restored = None;
        for (i, ids) in batches.iter().enumerate() {
            if i == stop {
                let read = loaded(settings(3, 20), &bytes_of(&table));
                restored = Some(read.expect("own bytes"));
            }
            advance(&mut table, i as u64 + 1, ids);
            prop_assert!(table.len() <= 20);
            prop_assert_eq!(table.len() + table.free.len(), table.allocated);
            if let Some(restored) = &mut restored {
                advance(restored, i as u64 + 1, ids);
                prop_assert_eq!(bytes_of(restored), bytes_of(&table));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_panic(
        tail in prop::collection::vec(any::<u8>(), 0..200),
        keep in 0usize..200,
    ) {
        let mut table = Table::new(settings(2, 8));
        touch(&mut table, &[1, 2, 3], 1);
        let mut bytes = bytes_of(&table);
        bytes.truncate(keep);
        bytes.extend(tail);
        drop(loaded(settings(2, 8), &bytes));
    }
}
