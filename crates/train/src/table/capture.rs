//! A table's state at one step, copied over many: training goes on while a snapshot is taken.
//!
//! Owns the copy while it grows and the old contents of rows that have changed since. A snapshot of
//! a million rows is 280 MB, a tenth of a second or more in one piece; in shares it costs each step
//! a few milliseconds, and the bytes are those that [`Table::save`] would have given at the
//! start.

use super::{BLOCK_ROWS, PAGE_ROWS, Page, RowState, Table, all_finite, place};
use crate::capture::Capture;
use crate::table::codec::write_rows;

/// Blocks to copy for each step, over all tables: about 4 MB at 64 dimensions, some 2 ms.
pub const CAPTURE_BLOCKS_A_STEP: usize = 4;

/// A copy of a table that is under way.
pub(super) struct TableCopy {
    /// The section so far: header, free list, blocks below `copied`.
    bytes: Vec<u8>,
    copied: usize,
    /// Slots there were at the start.
    allocated: usize,
    /// One bit a slot: its old row is kept.
    is_kept: Vec<u64>,
    /// By block, until it is copied.
    kept: Vec<Kept>,
}

/// Old rows of one block.
#[derive(Clone, Default)]
struct Kept {
    /// Their places in the block.
    rows: Vec<usize>,
    /// `[rows, dim]`
    values: Vec<f32>,
    /// `[rows]`
    states: Vec<RowState>,
}

impl TableCopy {
    /// Keeps what `slot` holds, which is about to change, unless it was kept or copied already.
    pub(super) fn keep(&mut self, slot: u32, pages: &[Page], dim: usize) {
        let block = slot as usize / BLOCK_ROWS;
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if block < self.copied || slot as usize >= self.allocated || self.is_kept[word] & bit != 0 {
            return;
        }
        self.is_kept[word] |= bit;
        let (page, row) = place(slot);
        let (kept, page) = (&mut self.kept[block], &pages[page]);
        kept.rows.push(slot as usize % BLOCK_ROWS);
        kept.values.extend_from_slice(&page.values[row * dim..][..dim]);
        kept.states.push(page.states[row]);
    }

    /// Copies the next block as it was at the start. Whether its values are numbers: those of now,
    /// since what has broken meanwhile is broken.
    fn advance(&mut self, pages: &[Page], dim: usize) -> bool {
        let first = self.copied * BLOCK_ROWS;
        let rows = (self.allocated - first).min(BLOCK_ROWS);
        let values = self.bytes.len();
        let states = values + 4 * rows * dim;
        let (page, row) = (&pages[first / PAGE_ROWS], first % PAGE_ROWS);
        write_rows(page, row..row + rows, &mut self.bytes);
        let finite = all_finite(&page.values[row * dim..(row + rows) * dim]);
        let kept = std::mem::take(&mut self.kept[self.copied]);
        let old = kept.values.chunks_exact(dim).zip(kept.states);
        for (row, (old_values, old_state)) in kept.rows.into_iter().zip(old) {
            let bytes = &mut self.bytes[values + 4 * row * dim..][..4 * dim];
            for (bytes, value) in bytes.chunks_exact_mut(4).zip(old_values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            let bytes = &mut self.bytes[states + row * RowState::BYTES..][..RowState::BYTES];
            bytes.copy_from_slice(&old_state.to_bytes());
        }
        self.copied += 1;
        finite
    }
}

impl Table {
    /// Whether every value copied so far is a number, in the capture under way or the last one.
    pub(crate) fn captured_finite(&self) -> bool {
        self.captured_finite
    }
}

/// The share is in blocks of rows, the copy is the table's section.
impl Capture for Table {
    type Copy = Vec<u8>;

    fn begin_capture(&mut self) {
        assert!(self.capture.is_none(), "one capture at a time");
        let mut bytes = Vec::new();
        self.write_header(&mut bytes);
        self.captured_finite = true;
        self.capture = Some(TableCopy {
            bytes,
            copied: 0,
            allocated: self.allocated,
            is_kept: vec![0; self.allocated.div_ceil(64)],
            kept: vec![Kept::default(); self.allocated.div_ceil(BLOCK_ROWS)],
        });
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<Vec<u8>> {
        let copy = self.capture.as_mut()?;
        while *share > 0 && copy.copied < copy.kept.len() {
            self.captured_finite &= copy.advance(&self.pages, self.settings.dim);
            *share -= 1;
        }
        if copy.copied < copy.kept.len() {
            return None;
        }
        self.capture.take().map(|copy| copy.bytes)
    }

    fn cancel_capture(&mut self) {
        self.capture = None;
    }
}
