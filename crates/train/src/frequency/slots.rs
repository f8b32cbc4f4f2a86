//! Where the slots lie: one fixed array or one bounded map per shard.
//!
//! Owns hashing and memory. Must never know: batches, rates.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::FrequencySettings;
use super::slot::{Now, Slot};
use crate::kernel::id_map::IdMap;
use millrace_events::SplitMix;

/// Shards of a large table, so that a step's ids split over threads. A fixed number, because an
/// id's buckets lie in its shard: the result must not depend on the machine. 16 keep 8 threads
/// busy.
const SHARDS_LOG2: u32 = 4;

/// The most shards that any settings make.
pub(super) const SHARDS_MAX: usize = 1 << SHARDS_LOG2;

/// Tables below this many buckets (or ids, in exact mode) are one shard: nothing to win, and the
/// paper's small experiments are reproduced with their hashes spread over all H buckets.
const SHARDED_MIN: usize = 1 << 16;

/// Slots to a block, 1 MiB, which is what a block of a table's rows has at 64 dimensions. A step of
/// 8,192 ids under two hashes changes a quarter as many, so that the lanes keep less than that of a
/// large table. A place within a block fits 16 bits.
pub(super) const BLOCK_SLOTS: usize = 1 << 16;

/// An id and its first hash: high bits choose shard and bucket, the lowest eight are the
/// fingerprint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) id: u64,
    pub(super) hash: u64,
}

impl Key {
    #[inline]
    pub(super) fn new(id: u64, seed: u64) -> Self {
        Self { id, hash: hash(id, seed) }
    }

    #[inline]
    pub(super) fn fingerprint(self) -> u8 {
        self.hash as u8
    }
}

/// 64 well-mixed bits: SplitMix64 jumped to the id's place in the stream of the seed. xxh3 costs
/// three times as much on eight bytes, and the hash is a fifth of an update.
#[inline]
fn hash(id: u64, seed: u64) -> u64 {
    SplitMix::new(id ^ SplitMix::new(seed).next_u64()).next_u64()
}

/// The buckets of one shard: for each hash function a run of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    start: usize,
    buckets: usize,
    hash_scale: u64,
    seed: u64,
}

impl Shard {
    /// Its first slot.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Index of the slot of `key` under hash function `hash`.
    #[inline]
    pub(super) fn place(&self, hash: usize, key: Key) -> usize {
        let bits = if hash == 0 {
            // The bits that the choice of the shard left over.
            key.hash.wrapping_mul(self.hash_scale)
        } else {
            self::hash(key.id, self.seed.wrapping_add(hash as u64))
        };
        let bucket = (u128::from(bits) * self.buckets as u128) >> 64;
        self.start + hash * self.buckets + bucket as usize
    }
}

/// A slot that several threads can reach: each writes those of its own shards, in one array. On x86
/// and ARM these accesses are plain moves.
#[derive(Default)]
pub(super) struct Cell([AtomicU64; 2]);

impl Cell {
    #[inline]
    pub(super) fn get(&self) -> Slot {
        Slot::from_words([0, 1].map(|i: usize| self.0[i].load(Ordering::Relaxed)))
    }

    #[inline]
    pub(super) fn set(&self, slot: Slot) {
        for (word, value) in self.0.iter().zip(slot.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Asks for the cache line well ahead of its use, into the second-level cache.
    #[inline]
    pub(super) fn prefetch_far(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the hint faults on no address, and this one is valid.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(self).cast());
        }
    }

    /// Asks for it just ahead, into the first.
    #[inline]
    pub(super) fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the hint faults on no address, and this one is valid.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(self).cast());
        }
    }
}

/// All slots.
pub(super) enum Slots {
    /// `[shard][hash][bucket]`.
    Hashed(Box<[Cell]>),
    /// One map a shard, locked for one shard's share of a step.
    Exact(Vec<RwLock<IdMap<Slot>>>),
}

impl Slots {
    pub(super) fn new(settings: &FrequencySettings) -> Self {
        if settings.exact {
            return Self::Exact((0..shards(settings)).map(|_| RwLock::default()).collect());
        }
        let count = settings.hashes.checked_mul(settings.buckets);
        Self::Hashed(zeroed(count.expect("hashes * buckets fits the address space")))
    }

    /// Memory in bytes; of maps, what their tables hold.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Hashed(cells) => size_of_val(&**cells),
            Self::Exact(maps) => {
                let capacity =
                    |map: &RwLock<IdMap<Slot>>| map.read().expect("no update panicked").capacity();
                // A table is at most 7/8 full, with a byte of its own for each place.
                maps.iter().map(|map| capacity(map) * 8 / 7 * (size_of::<(u64, Slot)>() + 1)).sum()
            }
        }
    }

    /// Slot of `key`, of all its hashes the one with the longest gap, since a collision can only
    /// shorten it (equal gaps: the smaller count, for the same reason).
    #[inline]
    pub(super) fn reading(&self, settings: &FrequencySettings, now: Now, key: Key) -> (f32, f32) {
        let read = |slot: Slot| slot.reading(settings.mode, now);
        let shard = shard_of(settings, key);
        match self {
            Self::Hashed(cells) => {
                let shard = shard_at(settings, shard);
                let readings =
                    (0..settings.hashes).map(|hash| read(cells[shard.place(hash, key)].get()));
                let rarest = readings.reduce(|best, other| {
                    let longer = other.0 > best.0 || (other.0 == best.0 && other.1 < best.1);
                    if longer { other } else { best }
                });
                rarest.expect("there is at least one hash")
            }
            Self::Exact(maps) => {
                let map = maps[shard].read().expect("no update panicked");
                read(map.get(&key.id).copied().unwrap_or_default())
            }
        }
    }
}

/// How many shards these settings make; a power of two.
pub(super) fn shards(settings: &FrequencySettings) -> usize {
    1 << shards_log2(settings)
}

#[inline]
fn shards_log2(settings: &FrequencySettings) -> u32 {
    let size = if settings.exact { settings.exact_ids_max } else { settings.buckets };
    if size >= SHARDED_MIN { SHARDS_LOG2 } else { 0 }
}

#[inline]
pub(super) fn shard_of(settings: &FrequencySettings, key: Key) -> usize {
    ((u128::from(key.hash) << shards_log2(settings)) >> 64) as usize
}

/// The buckets of shard number `shard`. With one shard they are the paper's; with more, an id meets
/// the ids of its own shard in proportionally fewer buckets, as often as before.
pub(super) fn shard_at(settings: &FrequencySettings, shard: usize) -> Shard {
    let log2 = shards_log2(settings);
    let bound = |shard: usize| ((shard as u128 * settings.buckets as u128) >> log2) as usize;
    let (start, end) = (bound(shard), bound(shard + 1));
    Shard {
        start: settings.hashes * start,
        buckets: end - start,
        hash_scale: 1 << log2,
        seed: settings.seed,
    }
}

/// Cells in memory that the system hands out zeroed, page by page as they are first touched; in
/// huge pages where the system has them, since every access of a large table misses the TLB (see
/// `benches/frequency`).
fn zeroed(count: usize) -> Box<[Cell]> {
    // SAFETY: an AtomicU64 of zero bytes is a valid one.
    let cells = unsafe { Box::<[Cell]>::new_zeroed_slice(count).assume_init() };
    // Miri has no such call.
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        const PAGE: usize = 4096;
        let start = cells.as_ptr().addr();
        let skipped = start.next_multiple_of(PAGE) - start;
        let length = size_of_val(&*cells).saturating_sub(skipped) / PAGE * PAGE;
        // SAFETY: whole pages inside the allocation, and the advice changes no byte of them.
        // Refused advice costs speed, nothing else.
        unsafe {
            let first = cells.as_ptr().cast_mut().cast::<libc::c_void>().wrapping_byte_add(skipped);
            libc::madvise(first, length, libc::MADV_HUGEPAGE);
        }
    }
    cells
}
