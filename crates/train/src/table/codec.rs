//! An embedding table as bytes and back: the section a checkpoint holds of it.
//!
//! Owns the byte layout. Must never know: where the bytes go.

use std::ops::Range;

use super::{BLOCK_ROWS, FREE, PAGE_ROWS, Page, RowState, Table, TableSettings};
use crate::kernel::bytes::take;
use crate::saved::Damaged;

const MAGIC: [u8; 4] = *b"MRET";
/// Version 1 held the step of a row's last touch where this holds the events.
const VERSION: u32 = 2;

impl Table {
    /// The whole state, little-endian.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_header(&mut out);
        for (page, rows) in blocks(self.allocated) {
            write_rows(&self.pages[page], rows, &mut out);
        }
        out
    }

    /// Takes over what [`save`](Self::save) gave: same rows in the same slots, same free list, same
    /// future. `learning_rate`, `epsilon` and `expiry_events` may differ from then, and `rows_max`
    /// may have grown.
    ///
    /// # Errors
    /// Damaged bytes, or another `dim`, `seed` or `init_scale`, which the rows were made with.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        *self = Self::read(self.settings.clone(), bytes)?;
        Ok(())
    }

    /// All but the rows; makes room for them.
    pub(super) fn write_header(&self, out: &mut Vec<u8>) {
        let row_bytes = 4 * self.settings.dim + RowState::BYTES;
        out.reserve(64 + self.allocated * row_bytes + 4 * self.free.len());
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.settings.dim as u64).to_le_bytes());
        out.extend(self.settings.seed.to_le_bytes());
        out.extend(self.settings.init_scale.to_le_bytes());
        out.extend(self.evictions.to_le_bytes());
        out.extend((self.allocated as u64).to_le_bytes());
        out.extend((self.free.len() as u64).to_le_bytes());
        for slot in &self.free {
            out.extend(slot.to_le_bytes());
        }
    }

    fn read(settings: TableSettings, mut bytes: &[u8]) -> Result<Self, Damaged> {
        let mut table = Self::new(settings);
        let bytes = &mut bytes;
        let (free_count, allocated) = table.read_header(bytes)?;
        let dim = table.settings.dim;
        let length = (4 * dim as u64 + RowState::BYTES as u64)
            .checked_mul(allocated)
            .and_then(|rows| rows.checked_add(free_count.checked_mul(4)?));
        if length != Some(bytes.len() as u64) {
            return Err(Damaged(format!(
                "embedding table of {allocated} rows and {free_count} free slots does not fit its \
                 {} bytes: the section is damaged",
                bytes.len()
            )));
        }
        table.allocated = allocated as usize;
        for _ in 0..free_count {
            table.free.push(u32::from_le_bytes(take(bytes)?));
        }
        for (page, rows) in blocks(table.allocated) {
            if page == table.pages.len() {
                table.pages.push(Page::new(&table.settings));
            }
            let page = &mut table.pages[page];
            for value in &mut page.values[rows.start * dim..rows.end * dim] {
                *value = f32::from_le_bytes(take(bytes)?);
            }
            for state in &mut page.states[rows] {
                state.id = u64::from_le_bytes(take(bytes)?);
                state.touched = u64::from_le_bytes(take(bytes)?);
                state.accumulator = f32::from_le_bytes(take(bytes)?);
            }
        }
        table.rebuild_index()?;
        Ok(table)
    }

    /// Reads up to the counts of free and of allocated slots, which it returns.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<(u64, u64), Damaged> {
        let s = &self.settings;
        let (magic, version) = (take::<4>(bytes)?, u32::from_le_bytes(take(bytes)?));
        if magic != MAGIC || version != VERSION {
            return Err(Damaged(format!("not an embedding table of format {VERSION}")));
        }
        let dim = u64::from_le_bytes(take(bytes)?);
        let seed = u64::from_le_bytes(take(bytes)?);
        let init_scale = f32::from_le_bytes(take(bytes)?);
        if (dim, seed, init_scale.to_bits()) != (s.dim as u64, s.seed, s.init_scale.to_bits()) {
            return Err(Damaged(format!(
                "embedding table was written with dim = {dim}, seed = {seed}, init_scale = \
                 {init_scale}, the settings say {}, {}, {}",
                s.dim, s.seed, s.init_scale
            )));
        }
        self.evictions = u64::from_le_bytes(take(bytes)?);
        let allocated = u64::from_le_bytes(take(bytes)?);
        if allocated > s.rows_max as u64 {
            return Err(Damaged(format!(
                "embedding table was written with {allocated} slots, more than rows_max = {}: \
                 rows_max can grow but not shrink",
                s.rows_max
            )));
        }
        Ok((u64::from_le_bytes(take(bytes)?), allocated))
    }

    /// Fills the index from the rows and checks that the free list names exactly the others.
    fn rebuild_index(&mut self) -> Result<(), Damaged> {
        let mut free = Vec::with_capacity(self.free.len());
        let states = self.pages.iter().flat_map(|page| &page.states[..]).take(self.allocated);
        for (slot, state) in (0u32..).zip(states) {
            if state.touched == FREE {
                free.push(slot);
            } else if self.index.insert(state.id, slot).is_some() {
                return Err(Damaged(format!(
                    "embedding table holds id {} twice: damaged",
                    state.id
                )));
            }
        }
        let mut listed = self.free.clone();
        listed.sort_unstable();
        if listed != free {
            return Err("embedding table's free list does not match its rows: damaged".into());
        }
        Ok(())
    }
}

/// The blocks of so many slots: page, and rows in it.
fn blocks(allocated: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    (0..allocated).step_by(BLOCK_ROWS).map(move |first| {
        let row = first % PAGE_ROWS;
        (first / PAGE_ROWS, row..row + (allocated - first).min(BLOCK_ROWS))
    })
}

/// Appends a block of rows of `page`, values first.
pub(super) fn write_rows(page: &Page, rows: Range<usize>, out: &mut Vec<u8>) {
    let dim = page.values.len() / page.states.len();
    write_floats(&page.values[rows.start * dim..rows.end * dim], out);
    page.states[rows].iter().for_each(|state| out.extend(state.to_bytes()));
}

impl RowState {
    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.touched.to_le_bytes());
        bytes[16..].copy_from_slice(&self.accumulator.to_le_bytes());
        bytes
    }
}

/// Appends floats, little-endian. A block at a time through the stack: growing `out` float by
/// float checks its capacity each time and is several times slower.
fn write_floats(values: &[f32], out: &mut Vec<u8>) {
    let mut block = [0u8; 4096];
    for chunk in values.chunks(block.len() / 4) {
        for (bytes, value) in block.chunks_exact_mut(4).zip(chunk) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&block[..4 * chunk.len()]);
    }
}
