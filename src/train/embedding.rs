//! Embedding tables on the host, one row per id, trained with row-wise Adagrad.
//!
//! Owns the rows, the optimiser's accumulator of each, and who is evicted when the table is full.
//! A step costs what its distinct ids cost, never the size of the table; that is why the tables
//! live outside burn (its embedding gradient and its optimisers walk every row).
//!
//! Everything here is a function of the calls made: ties are broken by id, nothing depends on a
//! hash map's order or on the number of threads, so a restored table goes on with the same bits.
//!
//! Must never know: towers and losses, features and their names, files, the clock.

mod capture;
mod state;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rayon::prelude::*;

use super::product::dot;
pub use capture::CAPTURE_PAGES_A_STEP;
use capture::Capture;

/// Rows a page holds. Larger pages waste memory in small tables and copy more per changed row once
/// snapshots share pages; smaller ones cost more allocations. 1 MiB of values at 64 dimensions.
const PAGE_ROWS: usize = 4096;

/// A full table gives up this share of its rows at once, so that the scan for the oldest rows is
/// paid once per `rows_max / 16` new ids. Larger shares throw away trained rows too early.
const EVICTION_SHARE: usize = 16;

/// Floats in one call below which a second thread costs more than it saves (about 0.3 ms of work).
const PARALLEL_FLOATS_MIN: usize = 1 << 17;

/// Lookups that are worth handing to a thread (some 100 ns each in a large table).
const LOOKUPS_A_TASK: usize = 512;

/// Last step of a slot that holds no row.
const FREE: u64 = u64::MAX;

/// Placeholder for an id whose row does not exist yet; `rows_max` stays below it.
const MISSING: u32 = u32::MAX;

/// What a [`Table`] is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSettings {
    /// Floats per row.
    pub dim: usize,
    /// Most rows the table holds; a full table evicts its oldest-touched rows. It must be at least
    /// the distinct ids of one step.
    pub rows_max: usize,
    /// New rows are uniform in `-init_scale..init_scale`.
    pub init_scale: f32,
    /// Seed of the new rows. Two tables with one seed give one id the same first value.
    pub seed: u64,
    /// Adagrad's learning rate.
    pub learning_rate: f32,
    /// Added to the root of the accumulator; above 0, so that an all-zero gradient is harmless.
    pub epsilon: f32,
    /// What is left of a row's accumulator at its next update, in (0, 1]. Below 1 the steps of a row
    /// do not shrink for ever.
    pub decay: f32,
    /// Rows untouched for this many steps are dropped by [`Table::expire`]; `None` keeps them.
    pub expiry_steps: Option<u64>,
}

/// What the table knows of one row besides its values. One struct, so that touching a row and
/// updating it cost one cache line each.
#[derive(Clone, Copy, Debug)]
struct RowState {
    id: u64,
    last_step: u64,
    accumulator: f32,
}

impl RowState {
    const BYTES: usize = 20;
    const NONE: Self = Self { id: 0, last_step: FREE, accumulator: 0.0 };
}

/// [`PAGE_ROWS`] rows; pages never move, so a growing table copies nothing.
struct Page {
    /// `[PAGE_ROWS, dim]`.
    values: Box<[f32]>,
    /// `[PAGE_ROWS]`.
    states: Box<[RowState]>,
}

impl Page {
    fn new(dim: usize) -> Self {
        Self {
            values: vec![0.0; PAGE_ROWS * dim].into_boxed_slice(),
            states: vec![RowState::NONE; PAGE_ROWS].into_boxed_slice(),
        }
    }

    /// One Adagrad step of one row; `gradient` is `[dim]`.
    fn descend(&mut self, row: usize, gradient: &[f32], settings: &TableSettings) {
        let TableSettings { dim, learning_rate, epsilon, decay, .. } = *settings;
        let accumulator = &mut self.states[row].accumulator;
        *accumulator = *accumulator * decay + dot::<8>(gradient, gradient) / dim as f32;
        let rate = learning_rate / (accumulator.sqrt() + epsilon);
        for (value, g) in self.values[row * dim..][..dim].iter_mut().zip(gradient) {
            *value -= rate * g;
        }
    }
}

/// A bounded, collision-free table `id -> [dim]` with row-wise Adagrad: one accumulator per row
/// instead of one per weight, which halves the memory.
///
/// A *slot* is a row's place. It stays the same until its row is evicted or expires, which only
/// [`touch`](Self::touch) and [`expire`](Self::expire) do; rows touched at the current step are
/// never evicted, so the slots of one step stay valid through it.
///
/// Memory per row: `4 * dim + 24` bytes, and about 24 more in the index.
pub struct Table {
    settings: TableSettings,
    /// Slot of every live id.
    index: IdMap<u32>,
    pages: Vec<Page>,
    /// Slots handed out so far, live or free: the next fresh slot.
    allocated: usize,
    /// Slots whose row is gone; the last is reused first.
    free: Vec<u32>,
    evictions: u64,
    capture: Option<Capture>,
}

impl Table {
    /// An empty table. Panics on settings that cannot work; the config layer reports them first.
    pub fn new(settings: TableSettings) -> Self {
        let s = &settings;
        assert!(s.dim > 0, "an embedding needs at least one dimension");
        assert!(s.rows_max > 0 && s.rows_max < MISSING as usize, "rows_max must fit a u32 slot");
        assert!(s.init_scale >= 0.0 && s.init_scale.is_finite(), "init_scale must be finite");
        assert!(s.learning_rate.is_finite(), "learning_rate must be finite");
        assert!(s.decay > 0.0 && s.decay <= 1.0, "decay must be in (0, 1]");
        assert!(s.epsilon > 0.0 && s.epsilon.is_finite(), "epsilon must be above 0");
        let index = IdMap::default();
        Self {
            settings,
            index,
            pages: Vec::new(),
            allocated: 0,
            free: Vec::new(),
            evictions: 0,
            capture: None,
        }
    }

    /// Floats per row.
    pub fn dim(&self) -> usize {
        self.settings.dim
    }

    /// Live rows.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no row is live.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Rows dropped since the table was made, by eviction or expiry; survives a restore.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Replaces the content of `slots` by the slot of each id, in order, and marks the rows as
    /// touched at `step`. Ids without a row get one, evicting the oldest-touched rows if the table
    /// is full: at least a sixteenth of it at once, ties by id.
    ///
    /// `ids` must be distinct. Panics if more distinct ids are touched at one step than `rows_max`.
    pub fn touch(&mut self, ids: &[u64], step: u64, slots: &mut Vec<u32>) {
        // Existing rows first: were they touched in one pass with the creations, a creation could
        // evict a row that a later id of this very batch needs.
        slots.clear();
        slots.resize(ids.len(), MISSING);
        let index = &self.index;
        let find = |(ids, slots): (&[u64], &mut [u32])| {
            for (id, slot) in ids.iter().zip(slots) {
                *slot = index.get(id).copied().unwrap_or(MISSING);
            }
        };
        // In a large table each lookup waits for memory twice: let all threads wait at once.
        ids.par_chunks(LOOKUPS_A_TASK).zip(slots.par_chunks_mut(LOOKUPS_A_TASK)).for_each(find);
        let mut missing = 0;
        for &slot in slots.iter() {
            if slot == MISSING {
                missing += 1;
            } else {
                self.state_mut(slot).last_step = step;
            }
        }
        let room = self.settings.rows_max - self.index.len();
        if missing > room {
            self.evict(step, missing - room);
        }
        for (slot, &id) in slots.iter_mut().zip(ids) {
            if *slot == MISSING {
                *slot = self.create(id, step);
            }
        }
    }

    /// The slot of `id`, without touching or creating its row.
    pub fn find(&self, id: u64) -> Option<u32> {
        self.index.get(&id).copied()
    }

    /// The row in `slot`: `[dim]`.
    pub fn row(&self, slot: u32) -> &[f32] {
        let (page, row) = place(slot);
        let dim = self.settings.dim;
        &self.pages[page].values[row * dim..][..dim]
    }

    /// Copies the rows of `slots` into `out`: `[slots, dim]`.
    pub fn gather(&self, slots: &[u32], out: &mut [f32]) {
        let dim = self.settings.dim;
        assert_eq!(out.len(), slots.len() * dim, "gather needs dim floats for each slot");
        let copy = |(slots, out): (&[u32], &mut [f32])| {
            for (&slot, out) in slots.iter().zip(out.chunks_exact_mut(dim)) {
                out.copy_from_slice(self.row(slot));
            }
        };
        if out.len() < PARALLEL_FLOATS_MIN {
            copy((slots, out));
        } else {
            let rows = slots.len().div_ceil(4 * rayon::current_num_threads());
            slots.par_chunks(rows).zip(out.par_chunks_mut(rows * dim)).for_each(copy);
        }
    }

    /// The value a new row for `id` has, a pure function of seed and id: `out` is `[dim]`. Serves
    /// inference on ids that were never trained.
    pub fn initial_row(&self, id: u64, out: &mut [f32]) {
        assert_eq!(out.len(), self.settings.dim, "a row has dim floats");
        fill_initial(self.settings.seed, id, self.settings.init_scale, out);
    }

    /// One step of row-wise Adagrad: `accumulator = decay * accumulator + mean(g²)`,
    /// `row -= learning_rate * g / (sqrt(accumulator) + epsilon)`.
    ///
    /// `gradients` is `[slots, dim]`, of the summed loss of the step; `slots` must be distinct and
    /// live, and touched at this step. Rows are independent, so the bits do not depend on the number
    /// of threads.
    pub fn apply(&mut self, slots: &[u32], gradients: &[f32]) {
        let settings = &self.settings;
        let dim = settings.dim;
        assert_eq!(gradients.len(), slots.len() * dim, "apply needs dim floats for each slot");
        let updates = slots.iter().zip(gradients.chunks_exact(dim));
        if gradients.len() < PARALLEL_FLOATS_MIN || rayon::current_num_threads() == 1 {
            for (&slot, gradient) in updates {
                let (page, row) = place(slot);
                self.pages[page].descend(row, gradient, settings);
            }
            return;
        }
        // Each share owns every `shares`-th page and skims the whole list for its rows: skimming
        // costs a few cycles a row, and dealing the pages out spreads the popular ids, which came
        // early and sit in the first pages.
        let shares = rayon::current_num_threads().next_power_of_two();
        let mut hands: Vec<Vec<&mut Page>> = (0..shares).map(|_| Vec::new()).collect();
        for (number, page) in self.pages.iter_mut().enumerate() {
            hands[number % shares].push(page);
        }
        hands.par_iter_mut().enumerate().for_each(|(share, pages)| {
            for (&slot, gradient) in updates.clone() {
                let (page, row) = place(slot);
                if page & (shares - 1) == share {
                    pages[page / shares].descend(row, gradient, settings);
                }
            }
        });
    }

    /// Drops the rows last touched at `step - expiry_steps` or before and returns how many. Does
    /// nothing without `expiry_steps`. Time is counted in steps, never by the clock, so a replay
    /// expires the same rows.
    pub fn expire(&mut self, step: u64) -> usize {
        let Some(newest) = self.settings.expiry_steps.and_then(|steps| step.checked_sub(steps))
        else {
            return 0;
        };
        let expired = self.touched_before(newest.saturating_add(1));
        let count = expired.len();
        self.release(expired);
        count
    }

    /// State of a row whose state, and with it maybe its values, is about to change: every change
    /// of a step begins here.
    fn state_mut(&mut self, slot: u32) -> &mut RowState {
        let (page, row) = place(slot);
        if let Some(capture) = &mut self.capture {
            capture.keep(slot, &self.pages, self.settings.dim);
        }
        &mut self.pages[page].states[row]
    }

    /// Gives `id` a row; the caller made room.
    fn create(&mut self, id: u64, step: u64) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.allocated;
            debug_assert!(slot < self.settings.rows_max);
            if slot == self.pages.len() * PAGE_ROWS {
                self.pages.push(Page::new(self.settings.dim));
            }
            self.allocated += 1;
            slot as u32
        });
        let replaced = self.index.insert(id, slot);
        assert!(replaced.is_none(), "ids must be distinct, {id} was given twice");
        *self.state_mut(slot) = RowState { id, last_step: step, accumulator: 0.0 };
        let (page, row) = place(slot);
        let TableSettings { dim, seed, init_scale, .. } = self.settings;
        fill_initial(seed, id, init_scale, &mut self.pages[page].values[row * dim..][..dim]);
        slot
    }

    /// `(last step, id)` of the rows last touched before `step`.
    fn touched_before(&self, step: u64) -> Vec<(u64, u64)> {
        let states = self.pages.iter().flat_map(|page| &page.states).take(self.allocated);
        let old = states.filter(|state| state.last_step < step && state.last_step != FREE);
        old.map(|state| (state.last_step, state.id)).collect()
    }

    /// Drops the oldest-touched rows, at least `needed` of them.
    fn evict(&mut self, step: u64, needed: usize) {
        let mut victims = self.touched_before(step);
        assert!(
            victims.len() >= needed,
            "rows_max = {} is below the distinct ids of step {step}: {} rows are in use by it and \
             {needed} more do not fit; raise rows_max or lower the batch size",
            self.settings.rows_max,
            self.index.len() - victims.len()
        );
        let count = needed.max(self.settings.rows_max / EVICTION_SHARE).min(victims.len());
        if count < victims.len() {
            victims.select_nth_unstable(count);
            victims.truncate(count);
        }
        self.release(victims);
    }

    /// Frees the rows of `(last step, id)` pairs; the oldest row's slot is reused first.
    fn release(&mut self, mut rows: Vec<(u64, u64)>) {
        rows.sort_unstable();
        for (_, id) in rows.iter().rev() {
            let slot = self.index.remove(id).expect("a live row is in the index");
            *self.state_mut(slot) = RowState::NONE;
            self.free.push(slot);
        }
        self.evictions += rows.len() as u64;
    }
}

/// Page and row in it of a slot.
fn place(slot: u32) -> (usize, usize) {
    (slot as usize / PAGE_ROWS, slot as usize % PAGE_ROWS)
}

/// Uniform in `-scale..scale`, from the top 24 bits of a splitmix64 sequence of its own for every
/// id: counter-based, so dimension `j` needs no other.
fn fill_initial(seed: u64, id: u64, scale: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512dq") {
        // SAFETY: the processor has what the function was compiled for.
        unsafe { fill_avx512(seed, id, scale, out) };
        return;
    }
    fill(seed, id, scale, out);
}

/// The same loop, compiled for eight 64-bit products at once: a log full of new ids makes thousands
/// of rows a step.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn fill_avx512(seed: u64, id: u64, scale: f32, out: &mut [f32]) {
    fill(seed, id, scale, out);
}

#[inline(always)]
fn fill(seed: u64, id: u64, scale: f32, out: &mut [f32]) {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = mix(id ^ mix(seed.wrapping_add(GOLDEN)));
    for (j, value) in (1u64..).zip(out) {
        let bits = mix(start.wrapping_add(j.wrapping_mul(GOLDEN)));
        let signed = (bits as i64 >> 40) as f32; // -2^23 .. 2^23
        *value = signed * (scale / (1 << 23) as f32);
    }
}

/// splitmix64's finaliser.
#[inline(always)]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A map keyed by id. Ids are hashes already, so hashing them is one multiplication, which also
/// keeps small integers (tests, unhashed ids) from sharing their high bits.
pub(super) type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// The hasher of [`IdMap`]; takes exactly one `u64`.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is hashed as one u64")
    }

    fn write_u64(&mut self, id: u64) {
        let product = u128::from(id) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Takes `N` bytes off the front of `bytes`.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, rest) = bytes.split_first_chunk().ok_or("section ends too early: truncated")?;
    *bytes = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
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
            expiry_steps: Some(10),
        }
    }

    fn bytes_of(table: &Table) -> Vec<u8> {
        let mut out = Vec::new();
        table.write_to(&mut out);
        out
    }

    fn touch(table: &mut Table, ids: &[u64], step: u64) -> Vec<u32> {
        let mut slots = Vec::new();
        table.touch(ids, step, &mut slots);
        slots
    }

    #[test]
    fn adagrad_by_hand() {
        let mut table = Table::new(TableSettings { init_scale: 0.0, ..settings(2, 8) });
        let slots = touch(&mut table, &[11, 12], 1);
        // mean(3², 4²) = 12.5; the row with a zero gradient stays.
        table.apply(&slots, &[3.0, 4.0, 0.0, 0.0]);
        let root = 12.5f32.sqrt();
        let want = [-0.5 * 3.0 / root, -0.5 * 4.0 / root];
        for (got, want) in table.row(slots[0]).iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        assert_eq!(table.row(slots[1]), [0.0, 0.0]);
        // Second step: accumulator 12.5 + mean(1², 0) = 13.
        let before = table.row(slots[0])[0];
        table.apply(&slots[..1], &[1.0, 0.0]);
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
        let slots = touch(&mut table, &[1, 2], 1);
        table.apply(&slots, &[1.0; 4]);
        touch(&mut table, &[2, 3], 2);
        let slots = touch(&mut table, &[1], 3);
        let mut fresh = [0.0; 2];
        table.initial_row(1, &mut fresh);
        assert_eq!(table.row(slots[0]), fresh);
        assert_eq!(table.state_mut(slots[0]).accumulator, 0.0);
    }

    #[test]
    #[should_panic(expected = "rows_max = 4 is below the distinct ids of step 9")]
    fn rows_of_the_current_step_are_never_evicted() {
        let mut table = Table::new(settings(2, 4));
        touch(&mut table, &[1, 2, 3], 9);
        touch(&mut table, &[4, 5], 9);
    }

    #[test]
    #[should_panic(expected = "ids must be distinct")]
    fn a_repeated_new_id_is_refused() {
        touch(&mut Table::new(settings(2, 4)), &[1, 1], 1);
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
        let mut kept = Table::new(TableSettings { expiry_steps: None, ..settings(2, 100) });
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
        let slots = touch(&mut whole, &ids, 1);
        touch(&mut parts, &ids, 1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a small pool");
        pool.install(|| whole.apply(&slots, &gradients));
        for (slots, gradients) in slots.chunks(100).zip(gradients.chunks(100 * dim)) {
            parts.apply(slots, gradients);
        }
        assert!(bytes_of(&whole) == bytes_of(&parts));
        let (mut all, mut some) = (vec![0.0; gradients.len()], vec![0.0; gradients.len()]);
        pool.install(|| whole.gather(&slots, &mut all));
        for (slots, out) in slots.chunks(100).zip(some.chunks_mut(100 * dim)) {
            parts.gather(slots, out);
        }
        assert!(all == some);
    }

    #[test]
    fn pages_fill_in_order_and_survive_a_restore() {
        let mut table = Table::new(settings(3, 20_000));
        let ids: Vec<u64> = (0..(2 * PAGE_ROWS as u64 + 5)).collect();
        let slots = touch(&mut table, &ids, 1);
        assert!(slots.iter().enumerate().all(|(i, &slot)| slot as usize == i));
        table.expire(11);
        touch(&mut table, &[3, 1], 12);
        let bytes = bytes_of(&table);
        let restored = Table::read_from(settings(3, 20_000), &bytes).expect("own bytes");
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
        let refuse = |settings: TableSettings, bytes: &[u8]| {
            Table::read_from(settings, bytes).err().expect("refused")
        };
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
        let tuned = TableSettings { learning_rate: 9.0, expiry_steps: None, ..settings(4, 80) };
        assert!(Table::read_from(tuned, &bytes).is_ok());
    }

    /// One random step: distinct ids touched, a gradient for each, perhaps an expiry.
    fn advance(table: &mut Table, step: u64, ids: &[u64]) {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let slots = touch(table, &ids, step);
        let gradients: Vec<f32> =
            (0..ids.len() * table.dim()).map(|i| ((step + 3 * i as u64) as f32).sin()).collect();
        table.apply(&slots, &gradients);
        if step.is_multiple_of(4) {
            table.expire(step);
        }
    }

    #[test]
    fn a_capture_is_the_table_as_it_was() {
        // Three pages, full, so that rows are evicted and their slots used again meanwhile.
        let rows = 2 * PAGE_ROWS + 100;
        let mut table = Table::new(TableSettings { expiry_steps: Some(40), ..settings(2, rows) });
        let mut random = crate::train::random::SplitMix::new(8);
        let mut train = |table: &mut Table, step| {
            let mut ids: Vec<u64> =
                (0..300).map(|_| random.next_u64() % (rows as u64 * 2)).collect();
            ids.sort_unstable();
            ids.dedup();
            let slots = touch(table, &ids, step);
            let gradients: Vec<f32> = (0..2 * ids.len()).map(|_| random.uniform(1.0)).collect();
            table.apply(&slots, &gradients);
            table.expire(step);
        };
        (1..=60).for_each(|step| train(&mut table, step));
        for begin in [61, 100] {
            let want = bytes_of(&table);
            table.begin_capture();
            let mut got = None;
            for step in begin..begin + 12 {
                train(&mut table, step);
                let mut pages = usize::from(step % 3 == 0);
                if let Some(bytes) = table.advance_capture(&mut pages) {
                    got = Some(bytes);
                }
            }
            assert!(got.expect("three pages in four turns") == want);
            assert!(bytes_of(&table) != want);
        }
        table.begin_capture();
        table.cancel_capture();
        assert!(table.advance_capture(&mut 9).is_none());
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
                    let read = Table::read_from(settings(3, 20), &bytes_of(&table));
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
            drop(Table::read_from(settings(2, 8), &bytes));
        }
    }
}
