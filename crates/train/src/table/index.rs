//! From ids to slots: the hash table that a step asks some ten thousand times.
//!
//! Std's map answers one key at a time, and in a table of a million rows each answer waits for
//! memory. Here the places of the ids to come are fetched ahead ([`Index::find_all`]), and the
//! table is in shards that grow one by one, so that no step pays for moving all of a large one.
//!
//! Open addressing with linear probing; a removal moves what follows into the gap, so there are no
//! tombstones. Nothing depends on the order of anything in here.

use super::slab::{Slab, Zeroed, prefetch};
use crate::kernel::id_map::hash;

/// Shards, chosen by the hash's top bits. More: smaller pauses, but each shard's memory falls below
/// a huge page; at 16 a table of a million rows has shards of 2 MiB.
const SHARD_BITS: u32 = 4;
/// Buckets of a fresh shard.
const BUCKETS_MIN: usize = 16;
/// A shard grows when more than this share of its buckets, in eighths, is taken.
const LOAD_EIGHTHS: usize = 6;
/// Ids ahead whose buckets are fetched: more than the processor's outstanding misses is no gain.
const AHEAD: usize = 12;

/// No slot: [`super::Table`] keeps below it.
pub(super) const MISSING: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Bucket {
    id: u64,
    /// The slot and one; 0: the bucket is empty.
    slot: u32,
}

// SAFETY: zero bytes are an empty bucket.
unsafe impl Zeroed for Bucket {}

/// See the module's head.
pub(super) struct Index {
    shards: Vec<Shard>,
    length: usize,
}

struct Shard {
    buckets: Slab<Bucket>, // a power of two
    length: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { shards: (0..1 << SHARD_BITS).map(|_| Shard::new(BUCKETS_MIN)).collect(), length: 0 }
    }

    /// Ids in it.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The slot of `id`, or [`MISSING`].
    pub(super) fn find(&self, id: u64) -> u32 {
        let hash = hash(id);
        let shard = &self.shards[shard(hash)];
        let at = shard.place(hash, id);
        shard.buckets[at].slot.wrapping_sub(1)
    }

    /// The slot of each of `ids`, or [`MISSING`].
    pub(super) fn find_all(&self, ids: &[u64], slots: &mut [u32]) {
        for (at, (id, slot)) in ids.iter().zip(slots).enumerate() {
            if let Some(&id) = ids.get(at + AHEAD) {
                let hash = hash(id);
                let shard = &self.shards[shard(hash)];
                prefetch(shard.buckets.pointer(shard.home(hash)));
            }
            *slot = self.find(*id);
        }
    }

    /// Takes in `id` at `slot`, unless it is there: then the slot it has.
    pub(super) fn insert(&mut self, id: u64, slot: u32) -> Option<u32> {
        let hash = hash(id);
        let shard = &mut self.shards[shard(hash)];
        let at = shard.place(hash, id);
        let bucket = &mut shard.buckets[at];
        if bucket.slot > 0 {
            return Some(bucket.slot - 1);
        }
        *bucket = Bucket { id, slot: slot + 1 };
        shard.length += 1;
        self.length += 1;
        if shard.length * 8 > shard.buckets.len() * LOAD_EIGHTHS {
            shard.grow();
        }
        None
    }

    /// Takes `id` out; its slot, or [`MISSING`].
    pub(super) fn remove(&mut self, id: u64) -> u32 {
        let hash = hash(id);
        let shard = &mut self.shards[shard(hash)];
        let at = shard.place(hash, id);
        let slot = shard.buckets[at].slot.wrapping_sub(1);
        if slot != MISSING {
            shard.close_gap(at);
            shard.length -= 1;
            self.length -= 1;
        }
        slot
    }
}

impl Shard {
    fn new(buckets: usize) -> Self {
        Self { buckets: Slab::new(buckets), length: 0 }
    }

    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    /// Where a hash's search begins.
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask()
    }

    /// The bucket that holds `id`, or the empty one that it would go to.
    fn place(&self, hash: u64, id: u64) -> usize {
        let mut at = self.home(hash);
        loop {
            let bucket = self.buckets[at];
            if bucket.slot == 0 || bucket.id == id {
                return at;
            }
            at = (at + 1) & self.mask();
        }
    }

    fn grow(&mut self) {
        let larger = Slab::new(2 * self.buckets.len());
        let old = std::mem::replace(&mut self.buckets, larger);
        for bucket in old.iter().filter(|bucket| bucket.slot > 0) {
            let at = self.place(hash(bucket.id), bucket.id);
            self.buckets[at] = *bucket;
        }
    }

    /// Empties bucket `gap`; what came to lie behind it because it was taken moves up.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.mask();
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let bucket = self.buckets[at];
            if bucket.slot == 0 {
                self.buckets[gap].slot = 0;
                return;
            }
            // How far it lies from where its search begins, and how far the gap does.
            let home = self.home(hash(bucket.id));
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.buckets[gap] = bucket;
                gap = at;
            }
        }
    }
}

fn shard(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against std's map, over ids that collide: equal low bits of the hash, and small
        /// integers.
        #[test]
        fn behaves_as_a_map(calls in prop::collection::vec((0u64..80, 0u8..3), 0..600)) {
            let (mut index, mut model) = (Index::new(), HashMap::new());
            for (slot, (id, call)) in (0u32..).zip(calls) {
                match call {
                    0 => prop_assert_eq!(index.remove(id), model.remove(&id).unwrap_or(MISSING)),
                    _ => {
                        let known = model.get(&id).copied();
                        model.entry(id).or_insert(slot);
                        prop_assert_eq!(index.insert(id, slot), known);
                    }
                }
                prop_assert_eq!(index.len(), model.len());
            }
            let ids: Vec<u64> = (0..80).collect();
            let mut slots = vec![0; 80];
            index.find_all(&ids, &mut slots);
            for (id, slot) in ids.into_iter().zip(slots) {
                prop_assert_eq!(slot, model.get(&id).copied().unwrap_or(MISSING));
            }
        }
    }

    #[test]
    fn a_crowded_shard_survives_removals() {
        // One shard: ids whose hash has zero top bits.
        let ids: Vec<u64> = (0..).filter(|&id| shard(hash(id)) == 0).take(2000).collect();
        let mut index = Index::new();
        for (slot, &id) in (0..).zip(&ids) {
            assert_eq!(index.insert(id, slot), None);
        }
        for (slot, &id) in (0..).zip(&ids).filter(|(slot, _)| slot % 3 > 0) {
            assert_eq!(index.remove(id), slot);
        }
        for (slot, &id) in (0..).zip(&ids) {
            assert_eq!(index.find(id), if slot % 3 == 0 { slot } else { MISSING });
        }
        assert_eq!(index.len(), 667);
    }
}
