//! From ids to slots: the hash table that a step asks some ten thousand times.
//!
//! Std's map answers one key at a time, and in a table of a million rows each answer waits for
//! memory. Here the places of the ids to come are fetched ahead ([`Index::find_all`]), and the
//! table is in shards that grow one by one, so that no step pays for moving all of a large one.
//!
//! A bucket has 32 bits of an id's hash instead of the id, which the row's state has anyway: half
//! the memory, 11 to 21 bytes a row, and twice the buckets in a cache. Where those bits agree the
//! id is compared, so nothing rests on chance.
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
    /// The low bits of the id's hash: where its search begins in a shard of any size.
    tag: u32,
    /// The slot and one; 0: the bucket is empty.
    slot: u32,
}

/// What the buckets do not hold: the id in a slot.
pub(super) trait Ids: Sync {
    /// The id in `slot`, which is in the index.
    fn id(&self, slot: u32) -> u64;
    /// Asks for it ahead of its use.
    fn prefetch(&self, slot: u32);
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
    pub(super) fn find(&self, id: u64, ids: &impl Ids) -> u32 {
        let hash = hash(id);
        let shard = &self.shards[shard(hash)];
        let at = shard.place(hash, |slot| ids.id(slot) == id);
        shard.buckets[at].slot.wrapping_sub(1)
    }

    /// The slot of each of `wanted`, or [`MISSING`].
    pub(super) fn find_all(&self, wanted: &[u64], slots: &mut [u32], ids: &impl Ids) {
        // First whose hash agrees, then whether it is the id: each waits for other memory.
        for (at, (id, slot)) in wanted.iter().zip(&mut *slots).enumerate() {
            if let Some(&id) = wanted.get(at + AHEAD) {
                let hash = hash(id);
                let shard = &self.shards[shard(hash)];
                prefetch(shard.buckets.pointer(shard.home(hash as u32)));
            }
            let hash = hash(*id);
            let shard = &self.shards[shard(hash)];
            *slot = shard.buckets[shard.place(hash, |_| true)].slot.wrapping_sub(1);
        }
        for (at, &id) in wanted.iter().enumerate() {
            if let Some(&slot) = slots.get(at + AHEAD)
                && slot != MISSING
            {
                ids.prefetch(slot);
            }
            if slots[at] != MISSING && ids.id(slots[at]) != id {
                slots[at] = self.find(id, ids);
            }
        }
    }

    /// Takes in `id` at `slot`, unless it is there: then the slot it has.
    pub(super) fn insert(&mut self, id: u64, slot: u32, ids: &impl Ids) -> Option<u32> {
        let hash = hash(id);
        let shard = &mut self.shards[shard(hash)];
        let at = shard.place(hash, |slot| ids.id(slot) == id);
        let bucket = &mut shard.buckets[at];
        if bucket.slot > 0 {
            return Some(bucket.slot - 1);
        }
        *bucket = Bucket { tag: hash as u32, slot: slot + 1 };
        shard.length += 1;
        self.length += 1;
        if shard.length * 8 > shard.buckets.len() * LOAD_EIGHTHS {
            shard.grow();
        }
        None
    }

    /// Takes `id` out; its slot, or [`MISSING`].
    pub(super) fn remove(&mut self, id: u64, ids: &impl Ids) -> u32 {
        let hash = hash(id);
        let shard = &mut self.shards[shard(hash)];
        let at = shard.place(hash, |slot| ids.id(slot) == id);
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

    /// Where a tag's search begins.
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask()
    }

    /// The first bucket with the low bits of `hash` whose slot `is` it, or the empty one that it
    /// would go to.
    fn place(&self, hash: u64, is: impl Fn(u32) -> bool) -> usize {
        let tag = hash as u32;
        let mut at = self.home(tag);
        loop {
            let bucket = self.buckets[at];
            if bucket.slot == 0 || (bucket.tag == tag && is(bucket.slot - 1)) {
                return at;
            }
            at = (at + 1) & self.mask();
        }
    }

    fn grow(&mut self) {
        let larger = Slab::new(2 * self.buckets.len());
        let old = std::mem::replace(&mut self.buckets, larger);
        for bucket in old.iter().filter(|bucket| bucket.slot > 0) {
            // None of them is another, so the next empty one is its own.
            let at = self.place(u64::from(bucket.tag), |_| false);
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
            let home = self.home(bucket.tag);
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

    use millrace_events::SplitMix;
    use proptest::prelude::*;

    use super::*;

    /// Ids in the order of their slots.
    impl Ids for Vec<u64> {
        fn id(&self, slot: u32) -> u64 {
            self[slot as usize]
        }

        fn prefetch(&self, _: u32) {}
    }

    proptest! {
        /// Against std's map, over ids that collide: equal low bits of the hash, and small
        /// integers.
        #[test]
        fn behaves_as_a_map(calls in prop::collection::vec((0u64..80, 0u8..3), 0..600)) {
            let (mut index, mut model) = (Index::new(), HashMap::new());
            let ids: Vec<u64> = calls.iter().map(|&(id, _)| id).collect();
            for (slot, (id, call)) in (0u32..).zip(calls) {
                match call {
                    0 => {
                        let known = model.remove(&id).unwrap_or(MISSING);
                        prop_assert_eq!(index.remove(id, &ids), known);
                    }
                    _ => {
                        let known = model.get(&id).copied();
                        model.entry(id).or_insert(slot);
                        prop_assert_eq!(index.insert(id, slot, &ids), known);
                    }
                }
                prop_assert_eq!(index.len(), model.len());
            }
            let wanted: Vec<u64> = (0..80).collect();
            let mut slots = vec![0; 80];
            index.find_all(&wanted, &mut slots, &ids);
            for (id, slot) in wanted.into_iter().zip(slots) {
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
            assert_eq!(index.insert(id, slot, &ids), None);
        }
        for (slot, &id) in (0..).zip(&ids).filter(|(slot, _)| slot % 3 > 0) {
            assert_eq!(index.remove(id, &ids), slot);
        }
        for (slot, &id) in (0..).zip(&ids) {
            assert_eq!(index.find(id, &ids), if slot % 3 == 0 { slot } else { MISSING });
        }
        assert_eq!(index.len(), 667);
    }
    #[test]
    fn ids_whose_hashes_agree_in_all_that_is_kept_are_told_apart() {
        let twins = twins();
        let tags: Vec<_> = twins.iter().map(|&id| (shard(hash(id)), hash(id) as u32)).collect();
        assert_eq!(tags[0], tags[1]);
        let (mut index, mut slots) = (Index::new(), [0; 3]);
        assert_eq!(index.insert(twins[0], 0, &twins), None);
        assert_eq!(index.find(twins[1], &twins), MISSING);
        assert_eq!(index.insert(twins[1], 1, &twins), None);
        index.find_all(&[twins[1], twins[0], 7], &mut slots, &twins);
        assert_eq!(slots, [1, 0, MISSING]);
        assert_eq!(index.remove(twins[0], &twins), 0);
        assert_eq!(index.find(twins[1], &twins), 1);
    }

    /// Two ids with one tag in one shard.
    fn twins() -> Vec<u64> {
        let (mut random, mut first) = (SplitMix::new(1), HashMap::new());
        std::iter::repeat_with(|| random.next_u64())
            .find_map(|id| {
                let hash = hash(id);
                first.insert((shard(hash), hash as u32), id).map(|twin| vec![twin, id])
            })
            .expect("36 bits agree among some 300,000 ids")
    }
}
