//! A corpus as it was at one step, and the bytes that a checkpoint holds of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Item, Saved};
use crate::capture::Piece;
use crate::memory::gone::Since;
use crate::memory::pieces::Pieces;

/// A corpus as it was at one step.
#[derive(Debug)]
pub struct CapturedCorpus {
    pub(super) items: Vec<(u64, Arc<Item>)>,
    pub(super) order: Vec<u64>,
    pub(super) expired: BTreeMap<Box<str>, u64>,
    /// What an increment builds upon; none: all is to be written.
    pub(super) since: Option<CorpusSince>,
}

/// What an increment of a corpus builds upon.
#[derive(Debug)]
pub(super) struct CorpusSince {
    pub(super) since: Since,
    /// Keys that came to the order since.
    pub(super) order: Vec<u64>,
    /// Keys of items that a catalogue has written since, ascending.
    pub(super) written: Vec<u64>,
}

impl CorpusSince {
    fn changed(&self, id: u64, item: &Item) -> bool {
        item.touched > self.since.time || self.written.binary_search(&id).is_ok()
    }
}

impl CapturedCorpus {
    pub(super) fn sorted(self) -> Vec<(u64, Item)> {
        let items = self.items.into_iter().map(|(id, item)| (id, Arc::unwrap_or_clone(item)));
        let mut items: Vec<(u64, Item)> = items.collect();
        items.sort_unstable_by_key(|(id, _)| *id);
        items
    }

    /// The section, a piece at a time: the bytes of [`save`](Self::save).
    pub(crate) fn pieces<E>(
        mut self,
        take: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        self.items.sort_unstable_by_key(|(id, _)| *id);
        let since = self.since.as_ref();
        let changed = |id: u64, item: &Item| since.is_some_and(|since| since.changed(id, item));
        let mut pieces = Pieces::new("corpus", since.is_some(), take);
        pieces.content(&self.items.len());
        if let Some(CorpusSince { since: Since { gone, .. }, order, .. }) = since {
            let count = self.items.iter().filter(|(id, item)| changed(*id, item)).count();
            pieces.increment(&(gone, order, &self.expired, count));
        }
        for (id, item) in &self.items {
            pieces.content(&(id, &**item));
            if changed(*id, item) {
                pieces.increment(&(id, &**item));
            }
            pieces.turn()?;
        }
        pieces.content(&self.order.len());
        for id in &self.order {
            pieces.content(id);
            pieces.turn()?;
        }
        pieces.content(&self.expired.len());
        for tombstone in &self.expired {
            pieces.content(&tombstone);
            pieces.turn()?;
        }
        pieces.finish()
    }

    /// Everything, by key.
    pub fn save(mut self) -> Vec<u8> {
        let expired = std::mem::take(&mut self.expired);
        let order = std::mem::take(&mut self.order);
        let saved = Saved { items: self.sorted(), order, expired };
        postcard::to_stdvec(&saved).expect("always encodes")
    }
}
