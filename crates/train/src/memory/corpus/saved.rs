//! The section of a corpus, read: all of it, or what has changed.
//!
//! Must never know: how it is written a piece at a time.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Corpus, Item, WHAT};
use crate::kernel::id_map::IdMap;
use crate::saved::{Damaged, ReadSection, decode_first, grown};

#[derive(Deserialize)]
struct Increment {
    gone: Vec<u64>,
    /// Keys behind those that stay.
    order: Vec<u64>,
    expired: BTreeMap<Box<str>, u64>,
    changed: Vec<(u64, Item)>,
}

/// The section; behind it what is said of items, if any are kept. So it is with an increment.
#[derive(Serialize)]
pub(super) struct Saved {
    pub(super) items: Vec<(u64, Item)>,
    pub(super) order: Vec<u64>,
    pub(super) expired: BTreeMap<Box<str>, u64>,
}

/// The same, read without a list of all items beside them.
#[derive(Deserialize)]
struct Loaded {
    #[serde(deserialize_with = "by_key")]
    items: IdMap<Arc<Item>>,
    order: Vec<u64>,
    expired: BTreeMap<Box<str>, u64>,
}

fn by_key<'de, D: Deserializer<'de>>(pairs: D) -> Result<IdMap<Arc<Item>>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = IdMap<Arc<Item>>;

        fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("items with their keys")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
            let mut items = IdMap::default();
            while let Some((id, item)) = pairs.next_element()? {
                items.insert(id, Arc::new(item));
            }
            Ok(items)
        }
    }
    pairs.deserialize_seq(Pairs)
}

impl Corpus {
    /// Takes over what [`Corpus::save`] gave.
    ///
    /// # Errors
    /// Damaged bytes.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let names = std::mem::take(&mut self.attributes);
        self.take_over(bytes)?;
        self.keep_attributes(names);
        self.restored()
    }

    /// Takes over what the section `corpus` holds, increments included.
    ///
    /// # Errors
    /// Damaged bytes.
    pub fn restore(&mut self, read: ReadSection<'_>) -> Result<(), Damaged> {
        let (items_max, tombstone_events) = (self.items_max, self.tombstone_events);
        let (expiry_events, names) = (self.expiry_events, std::mem::take(&mut self.attributes));
        let whole = |bytes: &[u8]| {
            let mut corpus = Self::new(items_max, tombstone_events).expiring(expiry_events);
            corpus.take_over(bytes)?;
            Ok(corpus)
        };
        *self = grown(read, "corpus", whole, Self::add_increment)?;
        self.keep_attributes(names);
        self.restored().map_err(|damaged| damaged.of("corpus"))
    }

    fn take_over(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let (loaded, rest): (Loaded, _) = decode_first(WHAT, bytes)?;
        (self.items, self.order, self.expired) = (loaded.items, loaded.order, loaded.expired);
        self.take_attributes(rest)
    }

    /// Takes in an increment.
    fn add_increment(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let (increment, rest) = decode_first(WHAT, bytes)?;
        let Increment { gone, order, expired, changed } = increment;
        for id in &gone {
            self.items.remove(id);
        }
        self.retain_order(|items, id| items.contains_key(&id));
        self.order.extend(order);
        self.expired = expired;
        for (id, mut item) in changed {
            if let Some(before) = self.items.remove(&id) {
                item.attributes = Arc::unwrap_or_clone(before).attributes;
            }
            self.items.insert(id, Arc::new(item));
        }
        self.take_attributes(rest)
    }

    /// Checks what was taken over, and begins to count changes.
    fn restored(&mut self) -> Result<(), Damaged> {
        let mut order = self.order.clone();
        order.sort_unstable();
        order.dedup();
        let known = order.iter().all(|id| self.items.contains_key(id));
        if !known || order.len() != self.items.len() || order.len() != self.order.len() {
            return Err("the corpus is damaged: its order is not that of its items".into());
        }
        self.clock = self.items.values().map(|item| item.touched).max().unwrap_or(0);
        self.known = (self.order.len(), self.order.len());
        self.gone.restored(self.clock);
        self.written.restored(self.clock);
        Ok(())
    }
}
