//! The estimator's bytes in a checkpoint.
//!
//! Owns the format, version 3: header, slots (or ids and slots), the first gaps, the rates' scores
//! and samples. Version 2 counted steps where this counts events. An increment has, for each block
//! of slots, the number of those that changed, then place and content of each.

use std::sync::RwLock;

use super::first::FirstGaps;
use super::rate::{Followed, Ladder, Scores};
use super::slots::{BLOCK_SLOTS, Cell, Key, SHARDS_MAX, shard_of};
use super::{Frequency, FrequencySettings, Mode, Rate, Slot, Slots};
use crate::kernel::bytes::take;
use crate::kernel::id_map::IdMap;
use crate::saved::{Damaged, ReadSection, grown};

pub(super) const MAGIC: [u8; 4] = *b"MRFQ";
/// Begins an increment.
pub(super) const INCREMENT: [u8; 4] = *b"MRFI";
/// A slot's place within its block, in an increment.
pub(super) const PLACE_BYTES: usize = 2;
const VERSION: u32 = 3;

impl FrequencySettings {
    /// Name and value of each that gives saved slots their meaning, to name the one that differs.
    /// The rate and the exact variant's bound may be retuned between runs.
    fn fields(&self) -> [(&'static str, String); 7] {
        [
            ("mode", format!("{:?}", self.mode)),
            ("exact", self.exact.to_string()),
            ("hashes", self.hashes.to_string()),
            ("buckets", self.buckets.to_string()),
            ("initial_gap", self.initial_gap.to_string()),
            ("seed", self.seed.to_string()),
            ("batch", self.batch.to_string()),
        ]
    }
}

impl Frequency {
    /// The whole state, little-endian: 16 bytes a slot (24 an id in exact mode), and with
    /// [`Rate::Auto`] its sample.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_header(MAGIC, &mut out);
        match &self.table.slots {
            Slots::Hashed(cells) => write_slots(cells, &mut out),
            Slots::Exact(maps) => write_maps(maps, &mut out),
        }
        self.write_rest(&mut out);
        out
    }

    /// Takes over what [`save`](Self::save) gave, bit for bit.
    ///
    /// # Errors
    /// Damaged bytes, or bytes written with other settings: slots mean nothing under other hashes,
    /// and averages of two rules mixed are wrong without a sign of it. A rate that is chosen only
    /// now starts without a past.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        *self = Self::read(self.table.settings.clone(), bytes)?;
        Ok(())
    }

    /// Takes over what the section `frequency` holds, increments included.
    pub(crate) fn restore(&mut self, read: ReadSection<'_>) -> Result<(), Damaged> {
        let settings = &self.table.settings;
        let whole = |bytes: &[u8]| Self::read(settings.clone(), bytes);
        *self = grown(read, "frequency", whole, Self::add_increment)?;
        Ok(())
    }

    pub(super) fn write_header(&self, magic: [u8; 4], out: &mut Vec<u8>) {
        let s = &self.table.settings;
        out.extend(magic);
        out.extend(VERSION.to_le_bytes());
        out.extend([u8::from(s.mode == Mode::Paper), u8::from(s.exact)]);
        out.extend(s.initial_gap.to_le_bytes());
        let numbers = [s.hashes as u64, s.buckets as u64, s.seed, s.batch, self.table.events];
        for number in numbers.into_iter().chain([self.occurrences, self.collided]) {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.table.span.to_le_bytes());
    }

    /// The first gaps; scores and samples of the rates, after their number.
    pub(super) fn write_rest(&self, out: &mut Vec<u8>) {
        self.first_gaps.save(out);
        let ladders: Vec<&Ladder> =
            self.lanes.iter().filter_map(|lane| lane.ladder.as_ref()).collect();
        out.extend((ladders.len() as u64).to_le_bytes());
        if ladders.is_empty() {
            return;
        }
        for number in self.scores.nats.into_iter().chain([self.scores.copies]) {
            out.extend(number.to_le_bytes());
        }
        for followed in ladders.into_iter().flat_map(|ladder| &ladder.followed) {
            out.extend(followed.id.to_le_bytes());
            out.extend(followed.credit.to_le_bytes());
            followed.slots.iter().for_each(|slot| out.extend(slot_bytes(*slot)));
        }
    }

    fn read(settings: FrequencySettings, mut bytes: &[u8]) -> Result<Self, Damaged> {
        let bytes = &mut bytes;
        let mut frequency = Self::new(settings);
        frequency.read_header(MAGIC, bytes)?;
        match &frequency.table.slots {
            Slots::Hashed(cells) => {
                for cell in cells {
                    cell.set(read_slot(bytes)?);
                }
            }
            Slots::Exact(maps) => read_maps(&frequency.table.settings, maps, bytes)?,
        }
        frequency.read_rest(bytes)?;
        Ok(frequency)
    }

    /// Takes in an increment.
    fn add_increment(&mut self, mut bytes: &[u8]) -> Result<(), Damaged> {
        let bytes = &mut bytes;
        self.read_header(INCREMENT, bytes)?;
        let Slots::Hashed(cells) = &self.table.slots else {
            return Err("an exact frequency state has no increments: damaged".into());
        };
        for cells in cells.chunks(BLOCK_SLOTS) {
            for _ in 0..u32::from_le_bytes(take(bytes)?) {
                let place = usize::from(u16::from_le_bytes(take(bytes)?));
                let slot = read_slot(bytes)?;
                let cell = cells.get(place).ok_or("a slot beyond its block: damaged")?;
                cell.set(slot);
            }
        }
        self.read_rest(bytes)
    }

    /// Reads a header, which must be of the same settings.
    fn read_header(&mut self, magic: [u8; 4], bytes: &mut &[u8]) -> Result<(), Damaged> {
        let settings = &self.table.settings;
        let (stored, numbers, span) = read_header(magic, bytes, settings)?;
        for ((name, stored), (_, wanted)) in stored.fields().into_iter().zip(settings.fields()) {
            if stored != wanted {
                return Err(Damaged(format!(
                    "frequency state was written with {name} = {stored}, the settings say {wanted}"
                )));
            }
        }
        [self.table.events, self.occurrences, self.collided] = numbers;
        self.table.span = span;
        Ok(())
    }

    /// Reads what follows the slots, up to the end.
    fn read_rest(&mut self, bytes: &mut &[u8]) -> Result<(), Damaged> {
        self.first_gaps = FirstGaps::load(take(bytes)?);
        self.table.first_gap = self.first_gaps.gap();
        if self.first_gaps.tick() > self.table.tick(self.table.events) {
            return Err("frequency state is ahead of its own clock: damaged".into());
        }
        if let Some((scores, mut ladders)) = read_ladders(bytes)?
            && self.table.settings.alpha == Rate::Auto
            && ladders.len() == self.lanes.len()
        {
            self.scores = scores;
            self.lanes.iter_mut().rev().for_each(|lane| lane.ladder = ladders.pop());
        }
        match bytes.len() {
            0 => Ok(()),
            more => Err(Damaged(format!("frequency state has {more} bytes too many: damaged"))),
        }
    }
}

/// An increment's block: the slots at `places`, which lie in the block that begins at place `first`
/// and has this `content`.
pub(super) fn changed_slots(
    content: &[u8],
    first: usize,
    places: impl Iterator<Item = usize>,
) -> Vec<u8> {
    let mut out = vec![0; 4];
    let mut count = 0u32;
    for place in places {
        let place = place - first;
        out.extend(u16::try_from(place).expect("a block has 2^16 slots").to_le_bytes());
        out.extend(&content[Slot::BYTES * place..][..Slot::BYTES]);
        count += 1;
    }
    out[..4].copy_from_slice(&count.to_le_bytes());
    out
}

pub(super) fn write_slots(cells: &[Cell], out: &mut Vec<u8>) {
    out.reserve(cells.len() * Slot::BYTES);
    // A block at a time: growing `out` slot by slot checks its capacity each time.
    let mut block = [[0; Slot::BYTES]; 256];
    for cells in cells.chunks(block.len()) {
        for (bytes, cell) in block.iter_mut().zip(cells) {
            *bytes = slot_bytes(cell.get());
        }
        out.extend_from_slice(block[..cells.len()].as_flattened());
    }
}

pub(super) fn slot_bytes(slot: Slot) -> [u8; Slot::BYTES] {
    let [first, second] = slot.to_words().map(u128::from);
    (first | second << 64).to_le_bytes()
}

fn read_slot(bytes: &mut &[u8]) -> Result<Slot, Damaged> {
    Ok(Slot::from_words([number(bytes)?, number(bytes)?]))
}

/// By id, so that equal states give equal bytes whatever the maps' order.
fn write_maps(maps: &[RwLock<IdMap<Slot>>], out: &mut Vec<u8>) {
    let mut slots = Vec::new();
    for map in maps {
        let map = map.read().expect("no update panicked");
        slots.extend(map.iter().map(|(&id, &slot)| (id, slot)));
    }
    slots.sort_unstable_by_key(|(id, _)| *id);
    out.reserve(slots.len() * (8 + Slot::BYTES));
    out.extend((slots.len() as u64).to_le_bytes());
    for (id, slot) in slots {
        out.extend(id.to_le_bytes());
        out.extend(slot_bytes(slot));
    }
}

fn read_maps(
    settings: &FrequencySettings,
    maps: &[RwLock<IdMap<Slot>>],
    bytes: &mut &[u8],
) -> Result<(), Damaged> {
    for _ in 0..number(bytes)? {
        let (id, slot) = (number(bytes)?, read_slot(bytes)?);
        let map = &maps[shard_of(settings, Key::new(id, settings.seed))];
        map.write().expect("no update panicked").insert(id, slot);
    }
    Ok(())
}

/// Scores and samples, if there are any.
fn read_ladders(bytes: &mut &[u8]) -> Result<Option<(Scores, Vec<Ladder>)>, Damaged> {
    let shards = number(bytes)?;
    if shards == 0 {
        return Ok(None);
    }
    let shards = usize::try_from(shards).ok().filter(|&shards| shards <= SHARDS_MAX);
    let shards = shards.ok_or("frequency state has too many samples: damaged")?;
    let mut scores = Scores::default();
    for value in scores.nats.iter_mut().chain([&mut scores.copies]) {
        *value = f64::from_bits(number(bytes)?);
    }
    let mut ladders: Vec<Ladder> = (0..shards).map(|_| Ladder::new(shards)).collect();
    for followed in ladders.iter_mut().flat_map(|ladder| &mut ladder.followed) {
        *followed = read_followed(bytes)?;
    }
    Ok(Some((scores, ladders)))
}

fn read_followed(bytes: &mut &[u8]) -> Result<Followed, Damaged> {
    let mut followed = Followed {
        id: number(bytes)?,
        credit: u32::from_le_bytes(take(bytes)?),
        ..Followed::default()
    };
    for slot in &mut followed.slots {
        *slot = read_slot(bytes)?;
    }
    Ok(followed)
}

/// The settings the bytes were written with, as far as they say; then events, occurrences,
/// collided; then the span of the last update.
fn read_header(
    magic: [u8; 4],
    bytes: &mut &[u8],
    settings: &FrequencySettings,
) -> Result<(FrequencySettings, [u64; 3], f32), Damaged> {
    let (found, version) = (take::<4>(bytes)?, u32::from_le_bytes(take(bytes)?));
    if found != magic || version != VERSION {
        return Err(Damaged(format!("not a frequency state of format {VERSION}")));
    }
    let [paper, exact] = take(bytes)?;
    let stored = FrequencySettings {
        mode: if paper != 0 { Mode::Paper } else { Mode::Default },
        exact: exact != 0,
        initial_gap: f32::from_le_bytes(take(bytes)?),
        hashes: number(bytes)? as usize,
        buckets: number(bytes)? as usize,
        seed: number(bytes)?,
        batch: number(bytes)?,
        ..settings.clone()
    };
    let numbers = [number(bytes)?, number(bytes)?, number(bytes)?];
    Ok((stored, numbers, f32::from_le_bytes(take(bytes)?)))
}

fn number(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    take(bytes).map(u64::from_le_bytes)
}
