//! Last-seen features of every item: what there is to retrieve.
//!
//! Owns the items; the last writer wins. Bounded: the longest unseen items go, and leave a
//! tombstone for the output topic.
//!
//! Must never know: the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::copying::Copying;
use crate::capture::Capture;
use crate::kernel::id_map::IdMap;
use crate::saved::Damaged;
use millrace_events::{Batch, FeatureValue};

/// Share of the items that goes at once when the bound is reached.
const SWEEP: usize = 16;

/// One item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its id as the source wrote it.
    pub name: Box<str>,
    /// One value per entry of `item.features`, as last seen.
    pub values: Vec<FeatureValue>,
    /// Events it was the item of.
    pub count: u64,
    /// Events of the stream at the last of them.
    pub touched: u64,
}

/// All items.
pub struct Corpus {
    /// Shared with a snapshot that is being written; an item that changes meanwhile is copied.
    items: IdMap<Arc<Item>>,
    /// Their keys by first appearance: what a uniform draw chooses from.
    order: Vec<u64>,
    /// Items that went, by name, with the event at which they did. Each publish repeats their
    /// tombstones until they are this old, so that a publish that failed loses none.
    expired: BTreeMap<Box<str>, u64>,
    /// A copy that is under way.
    capturing: Option<Capturing>,
    items_max: usize,
    tombstone_events: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    items: Vec<(u64, Item)>,
    order: Vec<u64>,
    expired: BTreeMap<Box<str>, u64>,
}

impl Corpus {
    /// A corpus of at most `items_max` items, whose tombstones live for `tombstone_events`.
    pub fn new(items_max: usize, tombstone_events: u64) -> Self {
        Self {
            items: IdMap::default(),
            order: Vec::new(),
            expired: BTreeMap::new(),
            capturing: None,
            items_max,
            tombstone_events,
        }
    }

    /// Remembers the items of `batch`, `now` being the events so far, these included.
    pub fn remember(&mut self, batch: &Batch, now: u64) {
        let events = &batch.events;
        for (event, &id) in events.item_ids.iter().enumerate() {
            if let Some(item) = self.items.get_mut(&id) {
                if let Some(capturing) = &mut self.capturing {
                    capturing.items.keep(id, item);
                }
                let item = Arc::make_mut(item);
                item.count += 1;
                item.touched = now;
                for (value, column) in item.values.iter_mut().zip(&events.item) {
                    if !column.holds(event, value) {
                        *value = column.value(event);
                    }
                }
                continue;
            }
            if self.items.len() >= self.items_max {
                self.sweep(now);
            }
            let name = events.item_names.get(event).into();
            self.expired.remove(&name);
            let values = events.item.iter().map(|column| column.value(event)).collect();
            self.items.insert(id, Arc::new(Item { name, values, count: 1, touched: now }));
            self.order.push(id);
        }
    }

    fn sweep(&mut self, now: u64) {
        let mut ages: Vec<(u64, u64)> =
            self.items.iter().map(|(&id, item)| (item.touched, id)).collect();
        let drop = (ages.len() / SWEEP).max(1);
        ages.select_nth_unstable(drop - 1);
        self.expired.retain(|_, at| now - *at <= self.tombstone_events);
        for (_, id) in &ages[..drop] {
            if let Some(item) = self.items.remove(id) {
                if let Some(capturing) = &mut self.capturing {
                    capturing.items.keep(*id, &item);
                }
                self.expired.insert(item.name.clone(), now);
            }
        }
        self.order.retain(|id| self.items.contains_key(id));
    }

    /// `count` items, each drawn uniformly by a word of `random`; none from an empty corpus.
    pub fn draw(&self, count: usize, random: &mut dyn FnMut() -> u64) -> Vec<(u64, Arc<Item>)> {
        let order = &self.order;
        let count = if order.is_empty() { 0 } else { count };
        let draw = |_| {
            // The high word of a product is uniform to 2^-64 * len; a remainder costs a division.
            let at = (u128::from(random()) * order.len() as u128) >> 64;
            let id = order[usize::try_from(at).expect("below the length")];
            (id, Arc::clone(&self.items[&id]))
        };
        (0..count).map(draw).collect()
    }

    /// The item of key `id`.
    pub fn get(&self, id: u64) -> Option<Item> {
        self.items.get(&id).map(|item| Item::clone(item))
    }

    /// Items held.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True without items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All items, by key.
    pub fn sorted(&self) -> Vec<(u64, Item)> {
        self.capture().sorted()
    }

    /// All there is now, to be written elsewhere while this goes on: costs a pointer an item.
    pub(crate) fn capture(&self) -> CapturedCorpus {
        let items = self.items.iter().map(|(&id, item)| (id, Arc::clone(item)));
        let (order, expired) = (self.order.clone(), self.expired.clone());
        CapturedCorpus { items: items.collect(), order, expired }
    }

    /// Names of items that went not long ago.
    pub fn tombstones(&self) -> Vec<Box<str>> {
        self.expired.keys().cloned().collect()
    }

    /// Everything, by key.
    pub fn save(&self) -> Vec<u8> {
        self.capture().save()
    }

    /// Takes over what [`Corpus::save`] gave.
    ///
    /// # Errors
    /// Damaged bytes.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let saved: Saved = postcard::from_bytes(bytes)
            .map_err(|error| Damaged::undecodable("the corpus", error))?;
        self.items = saved.items.into_iter().map(|(id, item)| (id, Arc::new(item))).collect();
        let known = saved.order.iter().all(|id| self.items.contains_key(id));
        if !known || saved.order.len() != self.items.len() {
            return Err("the corpus is damaged: its order is not that of its items".into());
        }
        self.order = saved.order;
        self.expired = saved.expired;
        Ok(())
    }
}

/// The share is in pointers, one an item.
impl Capture for Corpus {
    type Copy = CapturedCorpus;

    fn begin_capture(&mut self) {
        assert!(self.capturing.is_none(), "one capture at a time");
        let items = Copying::new(self.order.clone());
        self.capturing = Some(Capturing { items, expired: self.expired.clone() });
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<CapturedCorpus> {
        let get = |id| self.items.get(&id).map(Arc::clone);
        if !self.capturing.as_mut()?.items.advance(share, get) {
            return None;
        }
        let Capturing { items, expired } = self.capturing.take()?;
        let (order, items) = items.finish();
        Some(CapturedCorpus { items: order.iter().copied().zip(items).collect(), order, expired })
    }

    fn cancel_capture(&mut self) {
        self.capturing = None;
    }
}

/// A copy that is under way.
struct Capturing {
    items: Copying<Item>,
    expired: BTreeMap<Box<str>, u64>,
}

/// A corpus as it was at one step.
pub struct CapturedCorpus {
    items: Vec<(u64, Arc<Item>)>,
    order: Vec<u64>,
    expired: BTreeMap<Box<str>, u64>,
}

impl CapturedCorpus {
    fn sorted(self) -> Vec<(u64, Item)> {
        let items = self.items.into_iter().map(|(id, item)| (id, Arc::unwrap_or_clone(item)));
        let mut items: Vec<(u64, Item)> = items.collect();
        items.sort_unstable_by_key(|(id, _)| *id);
        items
    }

    /// Everything, by key.
    pub fn save(mut self) -> Vec<u8> {
        let expired = std::mem::take(&mut self.expired);
        let order = std::mem::take(&mut self.order);
        let saved = Saved { items: self.sorted(), order, expired };
        postcard::to_stdvec(&saved).expect("always encodes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::{Event, Events, Offsets, id_key};

    fn batch(names: &[&str]) -> Batch {
        let mut batch = Batch::new(Events::new(0, 1), Offsets::new("t"));
        for name in names {
            let item_id = id_key(name.as_bytes());
            batch.events.push(&Event {
                time_ms: 0,
                query_id: 1,
                item_id,
                item_name: (*name).into(),
                reward: 1.0,
                query: vec![],
                item: vec![FeatureValue::Id(item_id)],
            });
        }
        batch
    }

    #[test]
    fn counts_and_remembers() {
        let mut corpus = Corpus::new(10, 100);
        corpus.remember(&batch(&["a", "b", "a"]), 1);
        let items = corpus.sorted();
        let a = items.iter().find(|(_, item)| &*item.name == "a").expect("remembered");
        assert_eq!((a.1.count, a.1.touched, items.len()), (2, 1, 2));
    }

    #[test]
    fn the_longest_unseen_go_with_a_tombstone_and_may_return() {
        let mut corpus = Corpus::new(2, 100);
        corpus.remember(&batch(&["a"]), 1);
        corpus.remember(&batch(&["b"]), 2);
        corpus.remember(&batch(&["c"]), 3);
        assert_eq!(corpus.len(), 2);
        assert_eq!(corpus.tombstones(), ["a".into()]);
        corpus.remember(&batch(&["a"]), 4);
        assert_eq!(corpus.tombstones(), ["b".into()]);
    }

    #[test]
    fn draws_are_uniform_over_what_is_there() {
        let mut corpus = Corpus::new(4, 100);
        assert!(corpus.draw(5, &mut || 0).is_empty());
        for (step, name) in (1..).zip(["a", "b", "c", "d", "e"]) {
            corpus.remember(&batch(&[name]), step);
        }
        let mut random = millrace_events::SplitMix::new(1);
        let drawn = corpus.draw(4000, &mut || random.next_u64());
        for name in ["b", "c", "d", "e"] {
            let count = drawn.iter().filter(|(_, item)| &*item.name == name).count();
            assert!((880..1120).contains(&count), "{name}: {count} of 4000");
        }
        let mut restored = Corpus::new(4, 100);
        restored.load(&corpus.save()).expect("just written");
        let names = |corpus: &Corpus| -> Vec<Box<str>> {
            let mut random = millrace_events::SplitMix::new(2);
            let drawn = corpus.draw(50, &mut || random.next_u64());
            drawn.into_iter().map(|(_, item)| item.name.clone()).collect()
        };
        assert_eq!(names(&corpus), names(&restored));
    }

    #[test]
    fn a_capture_is_the_corpus_as_it_was() {
        let mut corpus = Corpus::new(20, 100);
        let mut random = millrace_events::SplitMix::new(5);
        let mut remember = |corpus: &mut Corpus, step| {
            let names: Vec<String> =
                (0..3).map(|_| format!("item {}", random.next_u64() % 40)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            corpus.remember(&batch(&names), step);
        };
        (0..30).for_each(|step| remember(&mut corpus, step));
        let want = corpus.save();
        corpus.begin_capture();
        let captured = (30..60).find_map(|step| {
            remember(&mut corpus, step);
            corpus.advance_capture(&mut 1)
        });
        assert_eq!(captured.expect("20 items in 30 turns").save(), want);
        assert_ne!(corpus.save(), want);
        corpus.begin_capture();
        corpus.cancel_capture();
        assert!(corpus.advance_capture(&mut 9).is_none());
    }

    #[test]
    fn restored_bytes_are_the_same() {
        let mut corpus = Corpus::new(3, 100);
        for step in 0..20 {
            let name = format!("item {}", step % 7);
            corpus.remember(&batch(&[&name]), step);
        }
        let mut restored = Corpus::new(3, 100);
        restored.load(&corpus.save()).expect("just written");
        assert_eq!(corpus.save(), restored.save());
    }
}
