//! Last-seen features of every item: what there is to retrieve.
//!
//! Owns the items; the last writer wins, be it an event or a catalogue. Bounded: the longest unseen
//! items go, and leave a tombstone for the output topic, as do those that a catalogue takes out.
//!
//! Must never know: the model.

mod attributes;
mod captured;
mod follow;
mod saved;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::gone::Gone;
use crate::kernel::id_map::IdMap;
pub use attributes::Attributes;
pub use captured::CapturedCorpus;
use captured::Capturing;
use millrace_events::{Batch, Events, FeatureValue};

/// Share of the items that goes at once when the bound is reached.
const SWEEP: usize = 16;
/// Looks for items that are too old, in the events that make one too old: each walks over all.
const EXPIRY_LOOKS: u64 = 16;
/// What the bytes of its section are, in an error.
const WHAT: &str = "the corpus";

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
    /// What is said of it for people and stores. The section has them behind all items.
    #[serde(skip)]
    pub attributes: Attributes,
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
    gone: Gone,
    /// Items that a catalogue has written since the last durable copy: no event tells.
    written: Gone,
    /// So many of the first in `order` were there at the last durable copy, and at the newest one.
    known: (usize, usize),
    /// Events of the stream when an item was last remembered.
    clock: u64,
    items_max: usize,
    tombstone_events: u64,
    expiry_events: Option<u64>,
    /// Names of the attributes that are kept, in the order of each item's.
    attributes: Vec<String>,
}

impl Corpus {
    /// A corpus of at most `items_max` items, whose tombstones live for `tombstone_events`.
    pub fn new(items_max: usize, tombstone_events: u64) -> Self {
        Self {
            items: IdMap::default(),
            order: Vec::new(),
            expired: BTreeMap::new(),
            capturing: None,
            gone: Gone::new(items_max),
            written: Gone::new(items_max),
            known: (0, 0),
            clock: 0,
            items_max,
            tombstone_events,
            expiry_events: None,
            attributes: Vec::new(),
        }
    }

    /// The same, from which items go that have been unseen for `expiry_events`; none: only the
    /// bound makes them go.
    #[must_use]
    pub fn expiring(mut self, expiry_events: Option<u64>) -> Self {
        self.expiry_events = expiry_events;
        self
    }

    /// The same, which keeps what is said of items under these names.
    #[must_use]
    pub fn keeping(mut self, attributes: Vec<String>) -> Self {
        self.attributes = attributes;
        self
    }

    /// Remembers the items of `batch`, `now` being the events so far, these included.
    pub fn remember(&mut self, batch: &Batch, now: u64) {
        self.remember_but(batch, now, None);
    }

    /// The same, but for those that `catalogue` has taken out; what it lists does not expire.
    pub(crate) fn remember_but(&mut self, batch: &Batch, now: u64, catalogue: Option<&Catalogue>) {
        let events = &batch.events;
        let before = self.clock;
        self.clock = before.max(now);
        for (event, &id) in events.item_ids.iter().enumerate() {
            if catalogue.is_some_and(|catalogue| catalogue.has_removed(id)) {
                continue;
            }
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
                item.attributes.take(batch, event, now);
                continue;
            }
            if self.items.len() >= self.items_max {
                self.sweep(now);
            }
            let name = events.item_names.get(event).into();
            self.expired.remove(&name);
            let values = events.item.iter().map(|column| column.value(event)).collect();
            let mut attributes = Attributes::default();
            attributes.take(batch, event, now);
            let item = Item { name, values, count: 1, touched: now, attributes };
            self.items.insert(id, Arc::new(item));
            self.order.push(id);
        }
        self.expire(before, catalogue);
    }

    /// Drops the items that are too old and in no `catalogue`, if a look is due since the clock was
    /// at `before`. Which event a look falls on is a matter of the stream alone, not of restarts.
    fn expire(&mut self, before: u64, catalogue: Option<&Catalogue>) {
        let Some(expiry) = self.expiry_events else { return };
        let period = (expiry / EXPIRY_LOOKS).max(1);
        let now = self.clock;
        if before / period == now / period {
            return;
        }
        let old = |item: &Item| now.saturating_sub(item.touched) >= expiry;
        let listed = |id| catalogue.is_some_and(|catalogue| catalogue.lists(id));
        let old = self.items.iter().filter(|&(&id, item)| old(item) && !listed(id));
        let old = old.map(|(&id, _)| id);
        let mut old: Vec<u64> = old.collect();
        if !old.is_empty() {
            // The map's order is not that of a restored one.
            old.sort_unstable();
            self.drop_items(old.into_iter(), now);
        }
    }

    /// Events, by place, whose item has the key of another item that is here or comes earlier in
    /// the batch. Two ids meet by chance once in 2^64 pairs: such an id was made to.
    pub fn impostors(&self, events: &Events) -> Vec<u32> {
        let mut fresh: IdMap<&str> = IdMap::default();
        let mut impostors = Vec::new();
        for ((place, id), name) in (0u32..).zip(&events.item_ids).zip(events.item_names.iter()) {
            let known = match self.items.get(id) {
                Some(item) => &item.name,
                None => *fresh.entry(*id).or_insert(name),
            };
            if known != name {
                impostors.push(place);
            }
        }
        impostors
    }

    fn sweep(&mut self, now: u64) {
        let mut ages: Vec<(u64, u64)> =
            self.items.iter().map(|(&id, item)| (item.touched, id)).collect();
        let drop = (ages.len() / SWEEP).max(1);
        ages.select_nth_unstable(drop - 1);
        self.drop_items(ages[..drop].iter().map(|(_, id)| *id), now);
    }

    fn drop_items(&mut self, ids: impl Iterator<Item = u64>, now: u64) {
        self.expired.retain(|_, at| now.saturating_sub(*at) <= self.tombstone_events);
        for id in ids {
            if let Some(item) = self.items.remove(&id) {
                self.gone.push(id);
                if let Some(capturing) = &mut self.capturing {
                    capturing.items.keep(id, &item);
                }
                self.expired.insert(item.name.clone(), now);
            }
        }
        self.retain_order(|items, id| items.contains_key(&id));
    }

    /// Takes the keys out of the order that do not stay.
    fn retain_order(&mut self, stays: impl Fn(&IdMap<Arc<Item>>, u64) -> bool) {
        let (items, before) = (&self.items, self.known);
        let mut at = 0;
        self.order.retain(|&id| {
            let stays = stays(items, id);
            self.known.0 -= usize::from(!stays && at < before.0);
            self.known.1 -= usize::from(!stays && at < before.1);
            at += 1;
            stays
        });
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

    /// All items, in any order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(|item| &**item)
    }

    /// All items, by key.
    pub fn sorted(&self) -> Vec<(u64, Item)> {
        self.capture().sorted()
    }

    /// All items, by key, of a corpus that is needed no more; each goes from it when it comes.
    pub(crate) fn into_sorted(self) -> impl Iterator<Item = (u64, Item)> {
        let Self { mut items, order: mut keys, .. } = self;
        keys.sort_unstable();
        keys.into_iter().filter_map(move |key| {
            let item = items.remove(&key)?;
            Some((key, Arc::unwrap_or_clone(item)))
        })
    }

    /// All there is now, to be written elsewhere while this goes on: costs a pointer an item.
    pub(crate) fn capture(&self) -> CapturedCorpus {
        let items = self.items.iter().map(|(&id, item)| (id, Arc::clone(item)));
        let (order, expired) = (self.order.clone(), self.expired.clone());
        let (items, attributes) = (items.collect(), self.attributes.clone());
        CapturedCorpus { items, order, expired, attributes, since: None }
    }

    /// Names of items that went not long ago.
    pub fn tombstones(&self) -> Vec<Box<str>> {
        self.expired.keys().cloned().collect()
    }

    /// The same, each with the events of the stream when it went.
    pub fn gone(&self) -> impl Iterator<Item = (&str, u64)> {
        self.expired.iter().map(|(name, &at)| (&**name, at))
    }

    /// Everything, by key.
    pub fn save(&self) -> Vec<u8> {
        self.capture().save()
    }

    /// Events of the stream when an item was last remembered.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Capture, Extent};
    use crate::saved::{SavedBytes, SavedPart, TakePart};
    use millrace_events::{Event, Events, Offsets, id_key};

    pub(super) fn batch(names: &[&str]) -> Batch {
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
    fn an_id_that_has_the_key_of_another_is_an_impostor() {
        let mut corpus = Corpus::new(10, 100);
        corpus.remember(&batch(&["a", "b"]), 1);
        let mut next = batch(&["a", "x", "c", "y", "c", "b"]);
        assert!(corpus.impostors(&next.events).is_empty());
        // As if their hashes were those of `a`, which is known, and of `c`, which is new.
        next.events.item_ids[1] = id_key(b"a");
        next.events.item_ids[3] = id_key(b"c");
        assert_eq!(corpus.impostors(&next.events), [1, 3]);
        let only = next.part(&[1]);
        assert_eq!(corpus.impostors(&only.events), [0], "alone in its batch, too");
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
    fn what_is_unseen_for_too_long_goes_at_the_same_event_after_a_restart() {
        let expiring = || Corpus::new(10, 1000).expiring(Some(32));
        let mut corpus = expiring();
        corpus.remember(&batch(&["a"]), 1);
        corpus.remember(&batch(&["b"]), 20);
        corpus.remember(&batch(&["b"]), 32);
        assert_eq!((corpus.len(), corpus.tombstones().len()), (2, 0), "31 events are not 32");
        let mut restored = expiring();
        restored.load(&corpus.save()).expect("good bytes");
        for corpus in [&mut corpus, &mut restored] {
            // 33 falls between two looks.
            corpus.remember(&batch(&["b"]), 33);
            assert_eq!(corpus.len(), 2);
            corpus.remember(&batch(&["b"]), 34);
            assert_eq!((corpus.len(), corpus.tombstones()), (1, vec!["a".into()]));
            assert_eq!(corpus.gone().collect::<Vec<_>>(), [("a", 34)]);
        }
        assert_eq!(corpus.save(), restored.save());
        corpus.remember(&batch(&["a"]), 35);
        assert!(corpus.tombstones().is_empty(), "it is back");
    }

    #[test]
    fn a_restart_goes_on_to_drop_what_is_unseen() {
        let expiring = || Corpus::new(10, 1000).expiring(Some(32));
        let mut corpus = expiring();
        corpus.remember(&batch(&["a"]), 1);
        let bytes = corpus.save();
        let read = |_: &str, take: TakePart<'_>| take(SavedPart::Whole(SavedBytes::of(&bytes)));
        let mut restored = expiring();
        restored.restore(&read).expect("good bytes");
        restored.remember(&batch(&["b"]), 40);
        assert_eq!((restored.len(), restored.tombstones()), (1, vec!["a".into()]));
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
        corpus.begin_capture(Extent::Whole);
        let captured = (30..60).find_map(|step| {
            remember(&mut corpus, step);
            corpus.advance_capture(&mut 1)
        });
        assert_eq!(captured.expect("20 items in 30 turns").save(), want);
        assert_ne!(corpus.save(), want);
        corpus.begin_capture(Extent::Whole);
        corpus.settle_capture(false);
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
