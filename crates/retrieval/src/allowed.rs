//! What a request may choose from: a bit an item, in the order of an index.

use crate::kernel::LANES;

/// Items of one index, from [`Index::allow`](crate::Index::allow).
#[derive(Clone, Debug)]
pub struct Allowed {
    /// By block of the index.
    pub(crate) masks: Vec<u16>,
    pub(crate) count: usize,
}

impl Allowed {
    /// Nothing, of an index of so many blocks.
    pub(crate) fn none(blocks: usize) -> Self {
        Self { masks: vec![0; blocks], count: 0 }
    }

    /// Puts the item at `position` in.
    pub(crate) fn insert(&mut self, position: usize) {
        self.count += usize::from(!self.holds(position));
        self.masks[position / LANES] |= 1 << (position % LANES);
    }

    /// Takes the item at `position` out.
    pub(crate) fn remove(&mut self, position: usize) {
        self.count -= usize::from(self.holds(position));
        self.masks[position / LANES] &= !(1 << (position % LANES));
    }

    /// Whether the item at `position` is in it.
    pub(crate) fn holds(&self, position: usize) -> bool {
        self.masks[position / LANES] >> (position % LANES) & 1 == 1
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True without items.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
