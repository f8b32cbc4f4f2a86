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

mod adagrad;
mod admission;
mod capture;
mod codec;
mod index;
mod initial;
mod page;
mod slab;
mod touch;

use rayon::prelude::*;

use crate::kernel::marks::Marks;
use adagrad::{Decay, descend};
pub use admission::ADMIT_AFTER_MAX;
pub(crate) use admission::Admission;
pub use capture::CAPTURE_BLOCKS_A_STEP;
use capture::TableCopy;
use index::{Index, MISSING};
use initial::fill_initial;
use page::{Page, RowState, place};
use slab::prefetch;
pub use touch::TouchedRows;

/// Rows a page of memory holds: 16 MiB of values at 64 dimensions, so that huge pages fit in. What
/// is not yet used of a page takes no memory. Pages never move, so a growing table copies nothing.
const PAGE_ROWS: usize = 1 << 16;

/// Rows that a section of a checkpoint holds together, and that a snapshot copies at once: 1 MiB of
/// values at 64 dimensions. Divides [`PAGE_ROWS`].
const BLOCK_ROWS: usize = 4096;

/// A full table gives up this share of its rows at once, so that the scan for the oldest rows is
/// paid once per `rows_max / 16` new ids. Larger shares throw away trained rows too early.
const EVICTION_SHARE: usize = 16;

/// Lookups that are worth handing to a thread (some 10 to 100 ns each).
const LOOKUPS_A_TASK: usize = 512;

/// Rows that are worth handing to a thread (some 100 ns each).
const ROWS_A_TASK: usize = 256;

/// Rows ahead that are fetched from memory while one is at work.
const AHEAD: usize = 8;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The id whose row stands for all that have none. An id that hashes to it would share that row, as
/// two ids of one hash share theirs.
pub const UNKNOWN: u64 = 0x756e_6b6e_6f77_6e21;

/// Last touch of a slot that holds no row.
const FREE: u64 = u64::MAX;

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
    /// What is left of a row's accumulator at an update a batch or more after the last, in (0, 1];
    /// the power of this for a part of a batch. Below 1 the steps of a row do not shrink for ever.
    pub decay: f32,
    /// Events a batch, above 0.
    pub batch: u64,
    /// A new id gets a row once it has come so often, at most [`ADMIT_AFTER_MAX`], and reads that
    /// of [`UNKNOWN`] before. 1: at once.
    pub admit_after: u64,
    /// Rows untouched for this many events are dropped by [`Table::expire`]; `None` keeps them.
    pub expiry_events: Option<u64>,
}

/// A bounded, collision-free table `id -> [dim]` with row-wise Adagrad: one accumulator per row
/// instead of one per weight, which halves the memory.
///
/// A *slot* is a row's place. It stays the same until its row is evicted or expires, which only
/// [`touch`](Self::touch) and [`expire`](Self::expire) do; rows touched at the current step are
/// never evicted, so the slots of one step stay valid through it. Time is counted in events: `now`
/// is how many there have been, those of the step included.
///
/// Memory per row: `4 * dim + 24` bytes, 11 to 21 more in the index, and a bit or two.
pub struct Table {
    settings: TableSettings,
    /// Slot of every live id.
    index: Index,
    pages: Vec<Page>,
    /// Slots handed out so far, live or free: the next fresh slot.
    allocated: usize,
    /// Slots whose row is gone; the last is reused first.
    free: Vec<u32>,
    evictions: u64,
    admission: Admission,
    /// Slots that have changed since the last capture began.
    changed: Marks,
    /// Slots that had changed when a capture began that is not durable yet.
    unsettled: Marks,
    capture: Option<TableCopy>,
    /// See [`Table::captured_finite`].
    captured_finite: bool,
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
        assert!((1..=ADMIT_AFTER_MAX).contains(&s.admit_after), "admit_after is a counter's");
        assert!(s.epsilon > 0.0 && s.epsilon.is_finite(), "epsilon must be above 0");
        Self {
            settings,
            index: Index::new(),
            pages: Vec::new(),
            allocated: 0,
            free: Vec::new(),
            evictions: 0,
            admission: Admission::default(),
            changed: Marks::default(),
            unsettled: Marks::default(),
            capture: None,
            captured_finite: true,
        }
    }

    /// Gives up every row.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.settings.clone());
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
        self.len() == 0
    }

    /// Rows dropped since the table was made, by eviction or expiry; survives a restore.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Events of the stream at the last touch of any row; 0 without one.
    pub(crate) fn newest_touch(&self) -> u64 {
        let states = self.pages.iter().flat_map(|page| &page.states[..]).take(self.allocated);
        states.map(|state| state.touched).filter(|&touched| touched != FREE).max().unwrap_or(0)
    }

    /// Whether every value is a number.
    pub fn is_finite(&self) -> bool {
        let pages = self.pages.iter();
        pages.flat_map(|page| page.values.chunks(BLOCK_ROWS)).all(all_finite)
    }

    /// The slot of `id`, without touching or creating its row.
    pub fn find(&self, id: u64) -> Option<u32> {
        Some(self.index.find(id, &self.pages)).filter(|&slot| slot != MISSING)
    }

    /// Every id that has a row, ascending, with its slot.
    pub fn ids(&self) -> Vec<(u64, u32)> {
        let mut ids = Vec::with_capacity(self.len());
        for slot in 0..self.allocated as u32 {
            let (page, row) = place(slot);
            let state = &self.pages[page].states[row];
            if state.touched != FREE {
                ids.push((state.id, slot));
            }
        }
        ids.sort_unstable();
        ids
    }

    /// Seed and scale of what a row begins with.
    pub fn initial(&self) -> (u64, f32) {
        (self.settings.seed, self.settings.init_scale)
    }

    /// The row in `slot`: `[dim]`.
    pub fn row(&self, slot: u32) -> &[f32] {
        let (page, row) = place(slot);
        let dim = self.settings.dim;
        &self.pages[page].values[row * dim..][..dim]
    }

    /// Asks for the row in `slot` ahead of its use.
    pub(super) fn prefetch(&self, slot: u32) {
        let (page, row) = place(slot);
        let dim = self.settings.dim;
        for value in (0..dim).step_by(LINE / size_of::<f32>()) {
            prefetch(self.pages[page].values.pointer(row * dim + value));
        }
    }

    /// The value a new row for `id` has, a pure function of seed and id: `out` is `[dim]`. Serves
    /// inference on ids that were never trained.
    pub fn initial_row(&self, id: u64, out: &mut [f32]) {
        assert_eq!(out.len(), self.settings.dim, "a row has dim floats");
        fill_initial(self.settings.seed, id, self.settings.init_scale, out);
    }

    /// One step of row-wise Adagrad: `accumulator = decay^w * accumulator + mean(g²)`, `row -=
    /// learning_rate * g / (sqrt(accumulator) + epsilon)`, `w` being the batches since the row was
    /// last touched, at most 1. A row without a gradient stays as it is, its accumulator too: a
    /// quiet night must not make it forget. So does one whose gradient is not finite; returns how
    /// many such there were.
    ///
    /// `gradient` adds to its last argument, `[dim]` zeros, the gradient of the row whose number in
    /// [`TouchedRows::slots`] is its first and whose values are its second, of the summed loss of
    /// the step. Rows are
    /// independent, so the bits do not depend on the number of threads. `touched` is of this table,
    /// at this step.
    pub fn apply(
        &mut self,
        touched: &TouchedRows,
        gradient: impl Fn(usize, &[f32], &mut [f32]) + Sync,
    ) -> usize {
        let (pages, settings, allocated) = (&self.pages, &self.settings, self.allocated);
        let dim = settings.dim;
        let waits = touched.waits().par_chunks(ROWS_A_TASK);
        let tasks = touched.slots().par_chunks(ROWS_A_TASK).zip(waits).enumerate();
        let nonfinite = tasks.map(|(task, (slots, waits))| {
            let mut sum = vec![0.0; dim];
            let mut decay = Decay::new(settings);
            let mut nonfinite = 0;
            for (number, (&slot, &wait)) in slots.iter().zip(waits).enumerate() {
                if let Some(&slot) = slots.get(number + AHEAD) {
                    self.prefetch(slot);
                    let (page, row) = place(slot);
                    prefetch(pages[page].states.pointer(row));
                }
                let (page, row) = place(slot);
                assert!((slot as usize) < allocated, "the rows of another table");
                // SAFETY: slots are distinct, so this task alone has the row, and the table is
                // borrowed mutably.
                let (values, state) = unsafe {
                    let values = pages[page].values.part(row * dim..(row + 1) * dim);
                    (values, &mut pages[page].states.part(row..row + 1)[0])
                };
                sum.fill(0.0);
                gradient(task * ROWS_A_TASK + number, values, &mut sum);
                let decay = decay.after(wait);
                let finite = descend(values, &mut state.accumulator, &sum, decay, settings);
                nonfinite += usize::from(!finite);
            }
            nonfinite
        });
        nonfinite.sum()
    }

    /// Drops the rows last touched `expiry_events` or more before `now` and returns how many. Does
    /// nothing without `expiry_events`. Time is counted in events, never by the clock, so a replay
    /// expires the same rows.
    pub fn expire(&mut self, now: u64) -> usize {
        let Some(newest) = self.settings.expiry_events.and_then(|events| now.checked_sub(events))
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
        self.changed.insert(slot as usize);
        if let Some(capture) = &mut self.capture {
            capture.keep(slot, &self.pages, self.settings.dim);
        }
        &mut self.pages[page].states[row]
    }

    /// Gives `id` a row without values, unless it has one; the caller made room.
    fn create(&mut self, id: u64) -> u32 {
        let slot = self.free.last().copied().unwrap_or(self.allocated as u32);
        if let Some(slot) = self.index.insert(id, slot, &self.pages) {
            return slot;
        }
        if self.free.pop().is_none() {
            debug_assert!(self.allocated < self.settings.rows_max);
            if self.allocated == self.pages.len() * PAGE_ROWS {
                self.pages.push(Page::new(&self.settings));
            }
            self.allocated += 1;
        }
        *self.state_mut(slot) = RowState { id, ..RowState::NONE };
        slot
    }

    /// `(last touch, id)` of the rows last touched before `now`.
    fn touched_before(&self, now: u64) -> Vec<(u64, u64)> {
        let states = self.pages.iter().flat_map(|page| &page.states[..]).take(self.allocated);
        let old = states.filter(|state| state.touched < now && state.touched != FREE);
        old.map(|state| (state.touched, state.id)).collect()
    }

    /// Drops the oldest-touched rows, at least `needed` of them.
    fn evict(&mut self, now: u64, needed: usize) {
        let mut victims = self.touched_before(now);
        assert!(
            victims.len() >= needed,
            "rows_max = {} is below the distinct ids of the step at event {now}: {} rows are in \
             use and {needed} more do not fit; raise rows_max or lower the batch size",
            self.settings.rows_max,
            self.len() - victims.len()
        );
        let count = needed.max(self.settings.rows_max / EVICTION_SHARE).min(victims.len());
        if count < victims.len() {
            victims.select_nth_unstable(count);
            victims.truncate(count);
        }
        self.release(victims);
    }

    /// Frees the rows of `(last touch, id)` pairs; the oldest row's slot is reused first.
    fn release(&mut self, mut rows: Vec<(u64, u64)>) {
        rows.sort_unstable();
        for (_, id) in rows.iter().rev() {
            let slot = self.index.remove(*id, &self.pages);
            assert!(slot != MISSING, "a live row is in the index");
            *self.state_mut(slot) = RowState::NONE;
            self.free.push(slot);
        }
        self.evictions += rows.len() as u64;
    }
}

/// Whether all are numbers. Without a way out in the middle, so that it vectorises.
fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |finite, value| finite & value.is_finite())
}

#[cfg(test)]
mod tests;
