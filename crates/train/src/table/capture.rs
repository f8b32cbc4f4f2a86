//! A table's state at one step, copied over many: training goes on while a snapshot is taken.
//!
//! Owns the copy while it is handed out, a block of rows at a time, the old contents of rows that
//! have changed before their turn, and which rows have changed since the last durable copy. A
//! snapshot of a million rows is 280 MB, a tenth of a second or more in one piece; in shares it
//! costs each step a few milliseconds, and its pieces are those bytes that [`Table::save`] would
//! have given at the start.

use super::codec::{self, changed_rows, write_rows};
use super::page::{Page, RowState, place};
use super::{BLOCK_ROWS, PAGE_ROWS, Table, all_finite};
use crate::capture::{Capture, Extent};
use crate::kernel::marks::Marks;

/// Blocks to copy for each step, over all tables: about 4 MB at 64 dimensions, some 2 ms.
pub const CAPTURE_BLOCKS_A_STEP: usize = 4;

/// The next bytes of a section, and of its increment.
pub(crate) type Bytes = (Vec<u8>, Option<Vec<u8>>);

/// A copy of a table that is under way.
pub(super) struct TableCopy {
    extent: Extent,
    /// Until they are handed out.
    headers: Option<Bytes>,
    copied: usize,
    /// Slots there were at the start.
    allocated: usize,
    /// Slots whose old row is kept.
    is_kept: Marks,
    /// By block, until it is copied.
    kept: Vec<Kept>,
    kept_rows: usize,
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
        if block < self.copied
            || slot as usize >= self.allocated
            || !self.is_kept.insert(slot as usize)
        {
            return;
        }
        self.kept_rows += 1;
        let (page, row) = place(slot);
        let (kept, page) = (&mut self.kept[block], &pages[page]);
        kept.rows.push(slot as usize % BLOCK_ROWS);
        kept.values.extend_from_slice(&page.values[row * dim..][..dim]);
        kept.states.push(page.states[row]);
    }

    /// The next block as it was at the start, and what of it is in `changed`. Whether its values
    /// are numbers: those of now, since what has broken meanwhile is broken.
    fn block(&mut self, pages: &[Page], dim: usize, changed: &Marks) -> (Bytes, bool) {
        let first = self.copied * BLOCK_ROWS;
        let rows = (self.allocated - first).min(BLOCK_ROWS);
        let mut content = Vec::with_capacity(rows * (4 * dim + RowState::BYTES));
        let (page, row) = (&pages[first / PAGE_ROWS], first % PAGE_ROWS);
        write_rows(page, row..row + rows, &mut content);
        let finite = all_finite(&page.values[row * dim..(row + rows) * dim]);
        let kept = std::mem::take(&mut self.kept[self.copied]);
        self.kept_rows -= kept.rows.len();
        let (values, states) = content.split_at_mut(4 * rows * dim);
        let old = kept.values.chunks_exact(dim).zip(kept.states);
        for (row, (old_values, old_state)) in kept.rows.into_iter().zip(old) {
            let bytes = &mut values[4 * row * dim..][..4 * dim];
            for (bytes, value) in bytes.chunks_exact_mut(4).zip(old_values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            let bytes = &mut states[row * RowState::BYTES..][..RowState::BYTES];
            bytes.copy_from_slice(&old_state.to_bytes());
        }
        let increment = (self.extent == Extent::Changed)
            .then(|| changed_rows(&content, dim, first, changed.within(first..first + rows)));
        self.copied += 1;
        ((content, increment), finite)
    }
}

impl Table {
    /// Whether every value copied so far is a number, in the capture under way or the last one.
    pub(crate) fn captured_finite(&self) -> bool {
        self.captured_finite
    }

    /// Bytes of rows that are kept because they changed while a copy is under way.
    pub(crate) fn kept_bytes(&self) -> usize {
        let row = 4 * self.settings.dim + size_of::<RowState>() + size_of::<usize>();
        self.capture.as_ref().map_or(0, |copy| copy.kept_rows * row)
    }

    /// Bytes of the rows that have changed since the last durable capture, and of all rows.
    pub(crate) fn changed_bytes(&self) -> (usize, usize) {
        let row = 4 * self.settings.dim + RowState::BYTES;
        (self.changed.len() * (row + codec::PLACE_BYTES), self.allocated * row)
    }
}

/// The share is in blocks of rows; what is handed out are the next bytes of the table's section.
impl Capture for Table {
    type Copy = Bytes;

    fn begin_capture(&mut self, extent: Extent) {
        assert!(self.capture.is_none(), "one capture at a time");
        let mut header = Vec::new();
        self.write_header(codec::MAGIC, &mut header);
        let increment = (extent == Extent::Changed).then(|| {
            let mut header = Vec::new();
            self.write_header(codec::INCREMENT, &mut header);
            header
        });
        self.captured_finite = true;
        self.unsettled = self.changed.take();
        self.capture = Some(TableCopy {
            extent,
            headers: Some((header, increment)),
            copied: 0,
            allocated: self.allocated,
            is_kept: Marks::default(),
            kept: vec![Kept::default(); self.allocated.div_ceil(BLOCK_ROWS)],
            kept_rows: 0,
        });
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<Bytes> {
        let copy = self.capture.as_mut()?;
        if let Some(headers) = copy.headers.take() {
            return Some(headers);
        }
        if *share == 0 || copy.copied == copy.kept.len() {
            return None;
        }
        *share -= 1;
        let (bytes, finite) = copy.block(&self.pages, self.settings.dim, &self.unsettled);
        self.captured_finite &= finite;
        Some(bytes)
    }

    fn is_copied(&self) -> bool {
        let copied = |copy: &TableCopy| copy.headers.is_none() && copy.copied == copy.kept.len();
        self.capture.as_ref().is_none_or(copied)
    }

    fn settle_capture(&mut self, durable: bool) {
        self.capture = None;
        let unsettled = std::mem::take(&mut self.unsettled);
        if !durable {
            self.changed.add(&unsettled, 0);
        }
    }
}
