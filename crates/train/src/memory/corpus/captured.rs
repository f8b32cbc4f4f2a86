//! A corpus as it was at one step, and the bytes that a checkpoint holds of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attributes::{append, end_of_section};
use super::saved::Saved;
use super::{Corpus, Item};
use crate::capture::{Capture, Extent, Piece};
use crate::memory::copying::Copying;
use crate::memory::gone::Since;
use crate::memory::pieces::Pieces;

/// A corpus as it was at one step.
#[derive(Debug)]
pub struct CapturedCorpus {
    pub(super) items: Vec<(u64, Arc<Item>)>,
    pub(super) order: Vec<u64>,
    pub(super) expired: BTreeMap<Box<str>, u64>,
    /// Names of the attributes that are kept.
    pub(super) attributes: Vec<String>,
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

    /// Whether an item's attributes have changed. A title stays while its item is clicked.
    fn says_more(&self, id: u64, item: &Item) -> bool {
        item.attributes.changed > self.since.time || self.written.binary_search(&id).is_ok()
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
        let says_more = |id: u64, item: &Item| since.is_some_and(|since| since.says_more(id, item));
        append(&self.attributes, &self.items, says_more, &mut pieces)?;
        pieces.finish()
    }

    /// Everything, by key.
    pub fn save(mut self) -> Vec<u8> {
        let expired = std::mem::take(&mut self.expired);
        let order = std::mem::take(&mut self.order);
        let names = std::mem::take(&mut self.attributes);
        let saved = Saved { items: self.sorted(), order, expired };
        let bytes = postcard::to_stdvec(&saved).expect("always encodes");
        match end_of_section(&names, &saved.items) {
            Some(end) => postcard::to_extend(&end, bytes).expect("always encodes"),
            None => bytes,
        }
    }
}

/// The share is in pointers, one an item.
impl Capture for Corpus {
    type Copy = CapturedCorpus;

    fn begin_capture(&mut self, extent: Extent) {
        assert!(self.capturing.is_none(), "one capture at a time");
        let since = self.gone.begin(self.clock, extent);
        let written = self.written.begin(self.clock, extent);
        let since = since.zip(written).map(|(since, written)| {
            let mut written = written.gone;
            written.sort_unstable();
            CorpusSince { since, order: self.order[self.known.0..].to_vec(), written }
        });
        self.capturing = Some(Capturing {
            items: Copying::new(self.order.clone()),
            expired: self.expired.clone(),
            attributes: self.attributes.clone(),
            since,
        });
        self.known.1 = self.order.len();
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<CapturedCorpus> {
        let get = |id| self.items.get(&id).map(Arc::clone);
        if !self.capturing.as_mut()?.items.advance(share, get) {
            return None;
        }
        let Capturing { items, expired, attributes, since } = self.capturing.take()?;
        let (order, items) = items.finish();
        let items = order.iter().copied().zip(items).collect();
        Some(CapturedCorpus { items, order, expired, attributes, since })
    }

    fn is_copied(&self) -> bool {
        self.capturing.is_none()
    }

    fn settle_capture(&mut self, durable: bool) {
        self.capturing = None;
        self.gone.settle(durable);
        self.written.settle(durable);
        if durable {
            self.known.0 = self.known.1;
        }
    }
}

/// A copy that is under way.
pub(super) struct Capturing {
    pub(super) items: Copying<Item>,
    expired: BTreeMap<Box<str>, u64>,
    attributes: Vec<String>,
    since: Option<CorpusSince>,
}
