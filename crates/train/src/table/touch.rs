//! Which rows a step works on: ids find theirs, and those without one get one.

use std::collections::HashSet;

use rayon::prelude::*;

use super::index::MISSING;
use super::initial::fill_initial;
use super::page::place;
use super::slab::prefetch;
use super::{AHEAD, LOOKUPS_A_TASK, ROWS_A_TASK, Table, UNKNOWN};

/// The rows that some ids have, each once, and which of them each id has. Kept and used again from
/// step to step.
#[derive(Debug, Default)]
pub struct TouchedRows {
    /// Distinct: only [`Table::touch`] writes them, and threads rely on it.
    slots: Vec<u32>,
    /// `[slots]`, events since each row was last touched, at most a batch.
    waits: Vec<u32>,
    /// `[ids]`, index into `slots`.
    places: Vec<u32>,
}

impl TouchedRows {
    /// Slots of the rows, each once.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// `[slots]`, events since each row was last touched, at most a batch.
    pub(super) fn waits(&self) -> &[u32] {
        &self.waits
    }

    /// By id, in the order given: the index of its row in [`slots`](Self::slots).
    pub fn places(&self) -> &[u32] {
        &self.places
    }
}

impl Table {
    /// Finds the rows of `ids`, which may repeat, and marks them as touched `now`. Ids without a
    /// row get one, in the order in which they first come, evicting the oldest-touched rows if the
    /// table is full: at least a sixteenth of it at once, ties by id. A new row begins where that
    /// of [`UNKNOWN`] is, if there is one.
    ///
    /// Panics if more distinct ids are touched at one step than `rows_max`.
    pub fn touch(&mut self, ids: &[u64], now: u64, touched: &mut TouchedRows) {
        let TouchedRows { slots, waits, places } = touched;
        slots.clear();
        waits.clear();
        places.resize(ids.len(), MISSING);
        // In a large table each lookup waits for memory: let all threads wait at once.
        ids.par_chunks(LOOKUPS_A_TASK)
            .zip(places.par_chunks_mut(LOOKUPS_A_TASK))
            .for_each(|(ids, slots)| self.index.find_all(ids, slots, &self.pages));
        // Existing rows first: were they touched in one pass with the creations, a creation could
        // evict a row that a later id of this very batch needs.
        let mut missing = 0;
        for at in 0..places.len() {
            if let Some(&slot) = places.get(at + AHEAD)
                && slot != MISSING
            {
                let (page, row) = place(slot);
                prefetch(self.pages[page].states.pointer(row));
            }
            match places[at] {
                MISSING => missing += 1,
                slot => places[at] = self.mark(slot, now, slots, waits),
            }
        }
        if missing > 0 {
            self.create_missing(ids, now, missing, touched);
        }
    }

    /// Marks the row in `slot` as touched and gives its place in `slots`, which it joins unless it
    /// is there.
    fn mark(&mut self, slot: u32, now: u64, slots: &mut Vec<u32>, waits: &mut Vec<u32>) -> u32 {
        let (page, row) = place(slot);
        let claim = self.pages[page].states[row].place;
        if slots.get(claim as usize) == Some(&slot) {
            return claim;
        }
        let place = u32::try_from(slots.len()).expect("a batch has under 2^32 ids");
        slots.push(slot);
        let batch = self.settings.batch;
        let state = self.state_mut(slot);
        let wait = now.saturating_sub(state.touched).min(batch);
        waits.push(u32::try_from(wait).expect("a batch has under 2^32 events"));
        (state.touched, state.place) = (now, place);
        place
    }

    /// The second half of [`touch`](Self::touch): rows for those of `ids` whose place is
    /// [`MISSING`], which are so many, repetitions included.
    fn create_missing(&mut self, ids: &[u64], now: u64, missing: usize, touched: &mut TouchedRows) {
        let TouchedRows { slots, waits, places } = touched;
        let room = self.settings.rows_max - self.len();
        if missing > room {
            let without = ids.iter().zip(&*places).filter(|&(_, &place)| place == MISSING);
            let distinct: HashSet<u64> = without.map(|(&id, _)| id).collect();
            if distinct.len() > room {
                self.evict(now, distinct.len() - room);
            }
        }
        let existing = slots.len();
        for (&id, place) in ids.iter().zip(places) {
            if *place == MISSING {
                let slot = self.create(id);
                *place = self.mark(slot, now, slots, waits);
            }
        }
        let unknown = self.find(UNKNOWN).filter(|slot| !slots[existing..].contains(slot));
        let unknown = unknown.map(|slot| self.row(slot).to_vec());
        // Two thirds of a creation are the row's values; no thread needs another's.
        let (pages, settings) = (&self.pages, &self.settings);
        slots[existing..].par_chunks(ROWS_A_TASK).for_each(|slots| {
            for &slot in slots {
                let (page, row) = place(slot);
                let dim = settings.dim;
                // SAFETY: slots are distinct, and the table is borrowed mutably.
                let values = unsafe { pages[page].values.part(row * dim..(row + 1) * dim) };
                let id = pages[page].states[row].id;
                fill_initial(settings.seed, id, settings.init_scale, values);
                if let Some(unknown) = &unknown {
                    values.iter_mut().zip(unknown).for_each(|(value, unknown)| *value += unknown);
                }
            }
        });
    }
}
