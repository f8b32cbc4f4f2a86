//! An embedding table as bytes and back: the section a checkpoint holds of it, whole or what has
//! changed.
//!
//! Owns the byte layouts. An increment has the header, and for each block of slots the number of
//! those that changed, then place, values and state of each. Must never know: where the bytes go.

use std::ops::Range;

use super::index::Index;
use super::page::{Page, RowState};
use super::{BLOCK_ROWS, FREE, PAGE_ROWS, Table, TableSettings};
use crate::kernel::bytes::take;
use crate::saved::{Damaged, ReadSection, SavedBytes, streamed};

pub(super) const MAGIC: [u8; 4] = *b"MRET";
/// Begins an increment.
pub(super) const INCREMENT: [u8; 4] = *b"MRTI";
/// A row's place within its block, in an increment.
pub(super) const PLACE_BYTES: usize = 2;
/// Version 1 held the step of a row's last touch where this holds the events.
const VERSION: u32 = 2;

impl Table {
    /// The whole state, little-endian.
    pub fn save(&self) -> Vec<u8> {
        let rows = self.allocated * (4 * self.settings.dim + RowState::BYTES);
        let mut out = Vec::with_capacity(64 + 4 * self.free.len() + rows);
        self.write_header(MAGIC, &mut out);
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
        let mut table = Self::read(self.settings.clone(), SavedBytes::of(bytes))?;
        table.rebuild_index()?;
        table.admission = std::mem::take(&mut self.admission);
        *self = table;
        Ok(())
    }

    /// Takes over what section `name` holds, increments included.
    pub(crate) fn restore(&mut self, read: ReadSection<'_>, name: &str) -> Result<(), Damaged> {
        let settings = &self.settings;
        let mut table =
            streamed(read, name, |b| Self::read(settings.clone(), b), Self::add_increment)?;
        table.rebuild_index().map_err(|damaged| damaged.of(name))?;
        table.admission = std::mem::take(&mut self.admission);
        *self = table;
        Ok(())
    }

    /// All but the rows.
    pub(super) fn write_header(&self, magic: [u8; 4], out: &mut Vec<u8>) {
        out.reserve(64 + 4 * self.free.len());
        out.extend(magic);
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

    /// All but the index.
    fn read(settings: TableSettings, mut bytes: SavedBytes<'_>) -> Result<Self, Damaged> {
        let mut table = Self::new(settings);
        let bytes = &mut bytes;
        let (free_count, allocated) = table.read_header(MAGIC, bytes)?;
        let dim = table.settings.dim;
        let length = (4 * dim as u64 + RowState::BYTES as u64)
            .checked_mul(allocated)
            .and_then(|rows| rows.checked_add(free_count.checked_mul(4)?));
        if length != Some(bytes.left()) {
            return Err(Damaged(format!(
                "embedding table of {allocated} rows and {free_count} free slots does not fit its \
                 {} bytes: the section is damaged",
                bytes.left()
            )));
        }
        table.read_free(free_count, bytes)?;
        table.allocate(allocated as usize);
        let mut block = Vec::new();
        for (page, rows) in blocks(table.allocated) {
            let (page, values) = (&mut table.pages[page], 4 * dim * rows.len());
            block.resize(values + RowState::BYTES * rows.len(), 0);
            bytes.read(&mut block)?;
            let (values, mut states) = block.split_at(values);
            read_floats(values, &mut page.values[rows.start * dim..rows.end * dim]);
            for state in &mut page.states[rows] {
                state.read(&mut states)?;
            }
        }
        Ok(table)
    }

    /// Takes in an increment, all but the index.
    fn add_increment(&mut self, mut bytes: SavedBytes<'_>) -> Result<(), Damaged> {
        let bytes = &mut bytes;
        let (free_count, allocated) = self.read_header(INCREMENT, bytes)?;
        let (dim, allocated) = (self.settings.dim, allocated as usize);
        let row_bytes = PLACE_BYTES + 4 * dim + RowState::BYTES;
        let long = bytes.left();
        // A slot that is new has changed, so that it is in here.
        let known = self.allocated;
        let fits = |new: usize| new as u64 <= long / row_bytes as u64;
        let new = allocated.checked_sub(known).filter(|&new| fits(new));
        if free_count > long / 4 || new.is_none() {
            return Err(Damaged(format!(
                "an increment of an embedding table, from {} to {allocated} rows and {free_count} \
                 free slots, does not fit its {long} bytes: damaged",
                self.allocated,
            )));
        }
        self.read_free(free_count, bytes)?;
        self.allocate(allocated);
        let mut missing = allocated - known;
        let mut content = vec![0; 4 * dim + RowState::BYTES];
        for (at, rows) in blocks(allocated) {
            let page = &mut self.pages[at];
            let mut least = 0;
            for _ in 0..u16::from_le_bytes(bytes.take()?) {
                let place = usize::from(u16::from_le_bytes(bytes.take()?));
                if place < least || place >= rows.len() {
                    return Err(
                        "an increment of an embedding table has rows out of order: damaged".into(),
                    );
                }
                least = place + 1;
                let row = rows.start + place;
                missing -= usize::from(at * PAGE_ROWS + row >= known);
                bytes.read(&mut content)?;
                let (values, mut state) = content.split_at(4 * dim);
                read_floats(values, &mut page.values[row * dim..(row + 1) * dim]);
                page.states[row].read(&mut state)?;
            }
        }
        match (missing, bytes.left()) {
            (0, 0) => Ok(()),
            (rows, more) => Err(Damaged(format!(
                "an increment of an embedding table lacks {rows} new rows and has {more} bytes too \
                 many: damaged"
            ))),
        }
    }

    fn read_free(&mut self, count: u64, bytes: &mut SavedBytes<'_>) -> Result<(), Damaged> {
        self.free.clear();
        for _ in 0..count {
            self.free.push(u32::from_le_bytes(bytes.take()?));
        }
        Ok(())
    }

    /// Makes room for so many slots.
    fn allocate(&mut self, slots: usize) {
        self.allocated = slots;
        while self.pages.len() * PAGE_ROWS < slots {
            self.pages.push(Page::new(&self.settings));
        }
    }

    /// Reads up to the counts of free and of allocated slots, which it returns.
    fn read_header(
        &mut self,
        magic: [u8; 4],
        bytes: &mut SavedBytes<'_>,
    ) -> Result<(u64, u64), Damaged> {
        let s = &self.settings;
        let (found, version) = (bytes.take::<4>()?, u32::from_le_bytes(bytes.take()?));
        if found != magic || version != VERSION {
            return Err(Damaged(format!("not an embedding table of format {VERSION}")));
        }
        let dim = u64::from_le_bytes(bytes.take()?);
        let seed = u64::from_le_bytes(bytes.take()?);
        let init_scale = f32::from_le_bytes(bytes.take()?);
        if (dim, seed, init_scale.to_bits()) != (s.dim as u64, s.seed, s.init_scale.to_bits()) {
            return Err(Damaged(format!(
                "embedding table was written with dim = {dim}, seed = {seed}, init_scale = \
                 {init_scale}, the settings say {}, {}, {}",
                s.dim, s.seed, s.init_scale
            )));
        }
        self.evictions = u64::from_le_bytes(bytes.take()?);
        let allocated = u64::from_le_bytes(bytes.take()?);
        if allocated > s.rows_max as u64 {
            return Err(Damaged(format!(
                "embedding table was written with {allocated} slots, more than rows_max = {}: \
                 rows_max can grow but not shrink",
                s.rows_max
            )));
        }
        Ok((u64::from_le_bytes(bytes.take()?), allocated))
    }

    /// Fills the index from the rows and checks that the free list names exactly the others.
    fn rebuild_index(&mut self) -> Result<(), Damaged> {
        self.index = Index::new();
        let mut free = Vec::with_capacity(self.free.len());
        let states = self.pages.iter().flat_map(|page| &page.states[..]).take(self.allocated);
        for (slot, state) in (0u32..).zip(states) {
            if state.touched == FREE {
                free.push(slot);
            } else if self.index.insert(state.id, slot, &self.pages).is_some() {
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

/// An increment's block: the rows at `slots`, which lie in the block that begins at slot `first`
/// and has this `content`.
pub(super) fn changed_rows(
    content: &[u8],
    dim: usize,
    first: usize,
    slots: impl Iterator<Item = usize>,
) -> Vec<u8> {
    let rows = content.len() / (4 * dim + RowState::BYTES);
    let (values, states) = content.split_at(4 * rows * dim);
    let mut out = vec![0; 2];
    let mut count = 0u16;
    for slot in slots {
        let row = slot - first;
        let place = u16::try_from(row).expect("a block has fewer rows");
        out.extend(place.to_le_bytes());
        out.extend(&values[4 * dim * row..][..4 * dim]);
        out.extend(&states[RowState::BYTES * row..][..RowState::BYTES]);
        count += 1;
    }
    out[..2].copy_from_slice(&count.to_le_bytes());
    out
}

/// Appends a block of rows of `page`, values first.
pub(super) fn write_rows(page: &Page, rows: Range<usize>, out: &mut Vec<u8>) {
    let dim = page.values.len() / page.states.len();
    write_floats(&page.values[rows.start * dim..rows.end * dim], out);
    page.states[rows].iter().for_each(|state| out.extend(state.to_bytes()));
}

impl RowState {
    fn read(&mut self, bytes: &mut &[u8]) -> Result<(), Damaged> {
        self.id = u64::from_le_bytes(take(bytes)?);
        self.touched = u64::from_le_bytes(take(bytes)?);
        self.accumulator = f32::from_le_bytes(take(bytes)?);
        Ok(())
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.touched.to_le_bytes());
        bytes[16..].copy_from_slice(&self.accumulator.to_le_bytes());
        bytes
    }
}

/// Makes `values` the floats that [`write_floats`] made `bytes` of.
fn read_floats(bytes: &[u8], values: &mut [f32]) {
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes(*bytes);
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
