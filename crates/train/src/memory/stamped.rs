//! A bounded map of values that know when they last changed.
//!
//! Owns the values, the clock, which counts the map's own changes, the copy that is under way, and
//! what a section of a checkpoint and its increments hold. At the bound the values go that nobody
//! has changed for the longest time. A function of the changes in their order, so a restored map
//! goes on with the same bits.
//!
//! Must never know: what a value is.

use std::fmt::Debug;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::copying::Copying;
use super::gone::{Gone, Since};
use super::pieces::Pieces;
use crate::capture::{Capture, Extent, Piece};
use crate::kernel::id_map::IdMap;
use crate::saved::{Damaged, ReadSection, decode, grown};

/// Share of the values that goes at once when the bound is reached: one sweep over all of them pays
/// for this many insertions.
const SWEEP: usize = 16;

/// The name of a map's section, and what its bytes are in an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
}

/// See the module's head.
pub(super) struct Stamped<V> {
    section: Section,
    len_max: usize,
    /// Shared with a snapshot that is being written; one that changes meanwhile is copied.
    entries: IdMap<Arc<Entry<V>>>,
    /// Changes so far.
    pub(super) clock: u64,
    /// A copy that is under way.
    capturing: Option<Capturing<V>>,
    gone: Gone,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Entry<V> {
    value: V,
    /// The change that it is.
    changed: u64,
}

/// A copy that is under way.
struct Capturing<V> {
    entries: Copying<Entry<V>>,
    /// At the beginning.
    clock: u64,
    since: Option<Since>,
}

/// A map as it was at one step.
#[derive(Debug)]
pub(crate) struct Snapshot<V> {
    section: Section,
    clock: u64,
    entries: Vec<(u64, Arc<Entry<V>>)>,
    /// What an increment builds upon; none: all is to be written.
    since: Option<Since>,
}

#[derive(Serialize, Deserialize)]
struct Saved<V> {
    clock: u64,
    entries: Vec<(u64, Entry<V>)>,
}

#[derive(Deserialize)]
struct Increment<V> {
    clock: u64,
    gone: Vec<u64>,
    changed: Vec<(u64, Entry<V>)>,
}

/// Refuses a value that cannot be, by its key; the last is whether it is ahead of the clock.
pub(super) type Check<'c, V> = &'c dyn Fn(u64, &V, bool) -> Result<(), Damaged>;

impl<V: Clone + Debug + Default + Serialize + DeserializeOwned> Stamped<V> {
    /// Nothing yet, and never more than `len_max` values.
    pub(super) fn new(section: Section, len_max: usize) -> Self {
        let (entries, gone) = (IdMap::default(), Gone::new(len_max));
        Self { section, len_max, entries, clock: 0, capturing: None, gone }
    }

    pub(super) fn get(&self, key: u64) -> Option<&V> {
        self.entries.get(&key).map(|entry| &entry.value)
    }

    /// All of them, in any order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.entries.iter().map(|(&key, entry)| (key, &entry.value))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Changes the value of `key`, which begins as the default.
    pub(super) fn change(&mut self, key: u64, edit: impl FnOnce(&mut V)) {
        self.clock += 1;
        if !self.entries.contains_key(&key) && self.entries.len() >= self.len_max {
            self.sweep();
        }
        let entry = self.entries.entry(key).or_default();
        if let Some(capturing) = &mut self.capturing {
            capturing.entries.keep(key, entry);
        }
        let entry = Arc::make_mut(entry);
        edit(&mut entry.value);
        entry.changed = self.clock;
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        for (key, entry) in self.entries.drain() {
            if let Some(capturing) = &mut self.capturing {
                capturing.entries.keep(key, &entry);
            }
            self.gone.push(key);
        }
    }

    fn sweep(&mut self) {
        let mut changed: Vec<u64> = self.entries.values().map(|entry| entry.changed).collect();
        let drop = (changed.len() / SWEEP).max(1);
        // `changed` values are distinct, so the cut is exact.
        let (_, &mut newest_dropped, _) = changed.select_nth_unstable(drop - 1);
        let (capturing, gone) = (&mut self.capturing, &mut self.gone);
        self.entries.retain(|&key, entry| {
            let stays = entry.changed > newest_dropped;
            if !stays {
                gone.push(key);
                if let Some(capturing) = capturing {
                    capturing.entries.keep(key, entry);
                }
            }
            stays
        });
    }

    /// All there is now, to be written elsewhere while this goes on: costs a pointer a value.
    pub(super) fn capture(&self) -> Snapshot<V> {
        let entries = self.entries.iter().map(|(&key, entry)| (key, Arc::clone(entry))).collect();
        Snapshot { section: self.section, clock: self.clock, entries, since: None }
    }

    /// Takes over what its section holds, increments included.
    ///
    /// # Errors
    /// Damaged bytes.
    pub(super) fn restore(
        &mut self,
        read: ReadSection<'_>,
        check: Check<'_, V>,
    ) -> Result<(), Damaged> {
        let (section, len_max) = (self.section, self.len_max);
        let whole = |bytes: &[u8]| {
            let mut map = Self::new(section, len_max);
            map.load(bytes, check)?;
            Ok(map)
        };
        let add = |map: &mut Self, bytes: &[u8]| map.add_increment(bytes, check);
        *self = grown(read, section.name, whole, add)?;
        self.gone.restored(self.clock);
        Ok(())
    }

    /// Takes over what [`Snapshot::save`] gave.
    pub(super) fn load(&mut self, bytes: &[u8], check: Check<'_, V>) -> Result<(), Damaged> {
        let saved: Saved<V> = decode(self.section.what, bytes)?;
        self.clock = saved.clock;
        self.entries.clear();
        self.take_over(saved.entries, check)
    }

    fn add_increment(&mut self, bytes: &[u8], check: Check<'_, V>) -> Result<(), Damaged> {
        let Increment { clock, gone, changed } = decode(self.section.what, bytes)?;
        self.clock = clock;
        for key in gone {
            self.entries.remove(&key);
        }
        self.take_over(changed, check)
    }

    fn take_over(
        &mut self,
        entries: Vec<(u64, Entry<V>)>,
        check: Check<'_, V>,
    ) -> Result<(), Damaged> {
        for (key, entry) in entries {
            check(key, &entry.value, entry.changed > self.clock)?;
            self.entries.insert(key, Arc::new(entry));
        }
        Ok(())
    }
}

/// The share is in pointers, one a value.
impl<V> Capture for Stamped<V> {
    type Copy = Snapshot<V>;

    fn begin_capture(&mut self, extent: Extent) {
        assert!(self.capturing.is_none(), "one capture at a time");
        let entries = Copying::new(self.entries.keys().copied().collect());
        let since = self.gone.begin(self.clock, extent);
        self.capturing = Some(Capturing { entries, clock: self.clock, since });
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<Snapshot<V>> {
        let get = |key| self.entries.get(&key).cloned();
        if !self.capturing.as_mut()?.entries.advance(share, get) {
            return None;
        }
        let Capturing { entries, clock, since } = self.capturing.take()?;
        let (keys, entries) = entries.finish();
        let entries = keys.into_iter().zip(entries).collect();
        Some(Snapshot { section: self.section, clock, entries, since })
    }

    fn is_copied(&self) -> bool {
        self.capturing.is_none()
    }

    fn settle_capture(&mut self, durable: bool) {
        self.capturing = None;
        self.gone.settle(durable);
    }
}

impl<V: Clone + Serialize> Snapshot<V> {
    /// The name of its section.
    pub(crate) fn section(&self) -> &'static str {
        self.section.name
    }

    /// The section, a piece at a time: the bytes of [`save`](Self::save).
    pub(crate) fn pieces<E>(
        mut self,
        take: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        self.entries.sort_unstable_by_key(|(key, _)| *key);
        let since = self.since.as_ref();
        let changed = |entry: &Entry<V>| since.is_some_and(|since| entry.changed > since.time);
        let mut pieces = Pieces::new(self.section.name, since.is_some(), take);
        pieces.content(&(self.clock, self.entries.len()));
        if let Some(Since { gone, .. }) = since {
            let count = self.entries.iter().filter(|(_, entry)| changed(entry)).count();
            pieces.increment(&(self.clock, gone, count));
        }
        for (key, entry) in &self.entries {
            pieces.content(&(key, &**entry));
            if changed(entry) {
                pieces.increment(&(key, &**entry));
            }
            pieces.turn()?;
        }
        pieces.finish()
    }

    /// All values, by key.
    pub(crate) fn save(self) -> Vec<u8> {
        let entries = self.entries.into_iter();
        let mut entries: Vec<(u64, Entry<V>)> =
            entries.map(|(key, entry)| (key, Arc::unwrap_or_clone(entry))).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        postcard::to_stdvec(&Saved { clock: self.clock, entries }).expect("always encodes")
    }
}
