//! One shard's share of a step: its ids, made distinct, meet their slots.
//!
//! Owns the working memory, which is reused, so that a step allocates nothing once it has grown.
//! Lanes touch disjoint slots, so any number of threads gives the same bits.

use super::first::Sights;
use super::rate::{LADDER, Ladder, Scores};
use super::slot::{Rule, Slot};
use super::slots::{Cell, Key, Shard};
use crate::kernel::id_map::IdMap;
use crate::kernel::marks::Marks;

/// Slots moved up into the first-level cache ahead of their update; many more would push each other
/// out of it.
const AHEAD: usize = 32;

const EMPTY: u32 = u32::MAX;

/// See the module's head.
#[derive(Default)]
pub(super) struct Lane {
    /// Ids of this step, in batch order, duplicates included.
    pub(super) keys: Vec<Key>,
    /// The distinct ones, by first appearance, and their copies.
    distinct: Vec<(Key, u32)>,
    /// Open-addressed table over `distinct`, while it is built.
    index: Vec<u32>,
    /// `[distinct, hashes]`
    places: Vec<usize>,
    /// Only with a rate that is chosen.
    pub(super) ladder: Option<Ladder>,
    /// What the ladder's rates were worth in this step.
    pub(super) scores: Scores,
    /// First and second sights of this step.
    pub(super) sights: Sights,
    /// Ids that found every one of their buckets last written by another id.
    pub(super) collided: u64,
    /// While the slots are copied: the place from which on they are not yet.
    pub(super) keep_from: Option<usize>,
    /// What such slots held before they changed, oldest first; a slot may stand here twice.
    kept: Vec<(usize, Slot)>,
    /// Slots that have changed since the last capture began, less `changed_from`.
    changed: Marks,
    /// The place that the marks count from, a multiple of 64.
    changed_from: usize,
}

impl Lane {
    pub(super) fn new(ladder: Option<Ladder>) -> Self {
        Self { ladder, ..Self::default() }
    }

    /// Ends the keeping.
    pub(super) fn stop_keeping(&mut self) {
        self.keep_from = None;
        self.kept = Vec::new();
    }

    /// Gives what was kept since the last time.
    pub(super) fn take_kept(&mut self) -> Vec<(usize, Slot)> {
        std::mem::take(&mut self.kept)
    }

    /// Gives the slots that have changed since the last time, and the place they count from.
    pub(super) fn take_changed(&mut self) -> (usize, Marks) {
        (self.changed_from, self.changed.take())
    }

    /// How many slots have changed since a capture began.
    pub(super) fn changed_slots(&self) -> usize {
        self.changed.len()
    }

    /// Brings `cells`, of which this lane owns `shard`, up to `tick`.
    pub(super) fn update_hashed(
        &mut self,
        cells: &[Cell],
        shard: Shard,
        hashes: usize,
        rule: &Rule,
        tick: u64,
    ) {
        self.changed_from = shard.start() & !63;
        let places = &mut self.places;
        places.clear();
        count_copies(&self.keys, &mut self.index, &mut self.distinct, |key| {
            for hash in 0..hashes {
                let place = shard.place(hash, key);
                // Each slot is a miss in every cache; here they overlap with one another and with
                // counting. A shard's share of a batch fits the second level.
                cells[place].prefetch_far();
                places.push(place);
            }
        });
        let mut ahead = self.places.iter().skip(AHEAD);
        self.collided = 0;
        self.sights.clear();
        let keep_from = self.keep_from.unwrap_or(usize::MAX);
        for (&(key, copies), places) in self.distinct.iter().zip(self.places.chunks(hashes)) {
            // An id's first sight is that of its first slot.
            let (mut cut, mut first) = (true, true);
            for &place in places {
                if let Some(&next) = ahead.next() {
                    cells[next].prefetch();
                }
                let mut slot = cells[place].get();
                if place >= keep_from {
                    self.kept.push((place, slot));
                }
                self.changed.insert(place - self.changed_from);
                let taken = slot.claim(key.fingerprint());
                if first {
                    self.sights.note(&slot, tick, taken);
                    first = false;
                }
                cut &= taken;
                slot.observe(rule, tick, copies);
                cells[place].set(slot);
            }
            self.collided += u64::from(cut);
        }
        self.score(rule, tick);
    }

    /// Brings `slots`, the map of this lane's shard, up to `tick`.
    pub(super) fn update_exact(
        &mut self,
        slots: &mut IdMap<Slot>,
        ids_max: usize,
        rule: &Rule,
        tick: u64,
    ) {
        count_copies(&self.keys, &mut self.index, &mut self.distinct, |_| {});
        self.sights.clear();
        for &(key, copies) in &self.distinct {
            let slot = slots.entry(key.id).or_default();
            self.sights.note(slot, tick, false);
            slot.observe(rule, tick, copies);
        }
        sweep(slots, ids_max, tick);
        self.score(rule, tick);
    }

    fn score(&mut self, rule: &Rule, tick: u64) {
        self.scores = Scores::default();
        if let Some(ladder) = &mut self.ladder {
            let rules = LADDER.map(|alpha| Rule::new(rule.mode, alpha, rule.initial_gap));
            for &(key, copies) in &self.distinct {
                ladder.observe(&rules, tick, key, copies, &mut self.scores);
            }
        }
    }
}

/// Fills `distinct` from `keys`, with `index` for its working memory.
fn count_copies(
    keys: &[Key],
    index: &mut Vec<u32>,
    distinct: &mut Vec<(Key, u32)>,
    mut tell: impl FnMut(Key),
) {
    // At most a quarter full, so that most ids meet an empty place first.
    let size = (4 * keys.len()).next_power_of_two();
    index.clear();
    index.resize(size, EMPTY);
    distinct.clear();
    for &key in keys {
        let mut at = key.hash as usize & (size - 1);
        loop {
            match index[at] {
                EMPTY => {
                    index[at] = distinct.len() as u32;
                    distinct.push((key, 1));
                    tell(key);
                    break;
                }
                found if distinct[found as usize].0.id == key.id => {
                    distinct[found as usize].1 += 1;
                    break;
                }
                _ => at = (at + 1) & (size - 1),
            }
        }
    }
}

/// A full exact map drops this share of its ids at once, so that the scan for the oldest is paid
/// once per `ids_max / 16` new ids. Larger shares forget ids too early.
const SWEEP_SHARE: usize = 16;

/// Drops the longest unseen ids, ties by id, once there are more than `ids_max`. Ids of the current
/// tick stay: they are about to be read.
fn sweep(slots: &mut IdMap<Slot>, ids_max: usize, tick: u64) {
    if slots.len() <= ids_max {
        return;
    }
    let excess = slots.len() - (ids_max - ids_max / SWEEP_SHARE);
    // Age, not tick: it orders rightly past tick 2^32.
    let ages = slots.iter().map(|(&id, slot)| ((tick as u32).wrapping_sub(slot.last_tick), id));
    let mut oldest: Vec<_> = ages.filter(|&(age, _)| age > 0).collect();
    if excess < oldest.len() {
        oldest.select_nth_unstable_by_key(excess, |&(age, id)| (std::cmp::Reverse(age), id));
        oldest.truncate(excess);
    }
    for (_, id) in oldest {
        slots.remove(&id);
    }
}
