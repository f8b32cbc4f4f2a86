//! Where rows lie: pages of them, which never move.

use super::index::Ids;
use super::slab::{Slab, Zeroed, prefetch};
use super::{FREE, PAGE_ROWS, TableSettings};

/// What the table knows of one row besides its values. One struct, so that touching a row and
/// updating it cost one cache line each.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowState {
    pub(super) id: u64,
    /// Events of the stream when it was last touched.
    pub(super) touched: u64,
    pub(super) accumulator: f32,
    /// Where the row stands in [`TouchedRows::slots`] if it stands there: a claim that is checked.
    /// Not saved.
    pub(super) place: u32,
}

// SAFETY: all of them are plain numbers.
unsafe impl Zeroed for RowState {}

impl RowState {
    /// In a checkpoint.
    pub(super) const BYTES: usize = 20;
    pub(super) const NONE: Self = Self { id: 0, touched: FREE, accumulator: 0.0, place: 0 };
}

/// [`PAGE_ROWS`] rows, or as many as the table will ever have.
pub(super) struct Page {
    pub(super) values: Slab<f32>, // [rows, dim]
    pub(super) states: Slab<RowState>,
}

impl Page {
    pub(super) fn new(settings: &TableSettings) -> Self {
        let rows = settings.rows_max.min(PAGE_ROWS);
        Self { values: Slab::new(rows * settings.dim), states: Slab::new(rows) }
    }
}

impl Ids for Vec<Page> {
    fn id(&self, slot: u32) -> u64 {
        let (page, row) = place(slot);
        self[page].states[row].id
    }

    fn prefetch(&self, slot: u32) {
        let (page, row) = place(slot);
        prefetch(self[page].states.pointer(row));
    }
}

/// Page and row in it of a slot.
pub(super) fn place(slot: u32) -> (usize, usize) {
    (slot as usize / PAGE_ROWS, slot as usize % PAGE_ROWS)
}
