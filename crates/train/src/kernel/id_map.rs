//! Maps keyed by ids.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map keyed by id.
pub(crate) type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// Ids are hashes already, so hashing them is one multiplication, which also keeps small integers
/// (tests, unhashed ids) from sharing their high bits.
#[inline]
pub(crate) fn hash(id: u64) -> u64 {
    let product = u128::from(id) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

/// The hasher of [`IdMap`]; takes exactly one `u64`.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is hashed as one u64")
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = hash(id);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
