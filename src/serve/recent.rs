//! What queries did after the versions' offsets.
//!
//! A version's histories end where it was trained to, and nothing changes them. What came later is
//! kept here, beside all versions: each click with its place in the log, so that a version's
//! history goes on with those behind its own offsets. Answers name how far that is.
//!
//! The history of a query is the trainer's at the same offsets, bit for bit: its clicks of one
//! partition stand in the log's order, as the trainer takes them, and a keyed topic has a query on
//! one partition. Clicks of several partitions are put by event time, as the trainer merges them
//! where times ascend. A shuffled window (`batch.shuffle_events`) and a trainer that has forgotten
//! the query (`history.queries_max`) are what it cannot know.
//!
//! Bounded in clicks of a query (those that the tower reads) and in bytes: when it is full nothing
//! more is taken, so an answer's offsets stay true.
//!
//! Must never know: where records come from, the clock.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use millrace_events::Offsets;

use super::Version;
use crate::stream::tail::Arrived;

/// Bytes of a query's entry besides its clicks: key, vector, and the map's spare room.
const QUERY_BYTES: usize = 64;

/// Parts that are cut one by one: requests wait for one of them, half a millisecond for a million
/// queries in all.
const PARTS: usize = 256;

/// An event of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Click {
    time_ms: i64,
    offset: i64,
    item: u64,
    partition: i32,
}

/// See the module's head. Requests read it together, for microseconds; a few hundred events are
/// taken in as long.
pub(super) struct Recent {
    clicks: RwLock<Clicks>,
    bytes_max: usize,
}

/// What is there, from one place of the log to another.
struct Clicks {
    /// How records were read ([`Version::reading`]).
    reading: Arc<str>,
    /// Nothing behind this is missing.
    from: Offsets,
    /// Up to here.
    next: Offsets,
    /// Most clicks of a query.
    length: usize,
    /// By query, whose key says the part.
    parts: Vec<HashMap<u64, Vec<Click>>>,
    bytes: usize,
    /// Time of the newest event, ms since 1970; none: nothing came yet.
    newest_ms: Option<i64>,
}

/// What is known of some queries behind a version's offsets.
#[derive(Debug, PartialEq)]
pub(super) struct Known {
    /// How far their histories have been read.
    pub(super) offsets: Offsets,
    /// By query: its items since, oldest first. Empty: nothing is known of any.
    after: Vec<Vec<u64>>,
}

impl Known {
    /// What the version itself knows, and no more.
    pub(super) fn of(version: &Version) -> Self {
        Self { offsets: version.offsets.clone(), after: Vec::new() }
    }

    /// The items since of the query at this place among those that were asked for.
    pub(super) fn after(&self, query: usize) -> &[u64] {
        self.after.get(query).map_or(&[], |items| items)
    }
}

impl Recent {
    /// Nothing yet; never more than about `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { clicks: RwLock::new(Clicks::new(Offsets::new(""), "".into(), 0)), bytes_max }
    }

    fn read(&self) -> RwLockReadGuard<'_, Clicks> {
        self.clicks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Clicks> {
        self.clicks.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything and begins at `from`, for versions that read records as `reading` says,
    /// with at most `length` clicks a query.
    pub(super) fn begin(&self, from: Offsets, reading: Arc<str>, length: usize) {
        let before = std::mem::replace(&mut *self.write(), Clicks::new(from, reading, length));
        // Only now: to free millions of clicks takes long.
        drop(before);
    }

    /// Whether the histories of `version` can go on with what is here.
    pub(super) fn continues(&self, version: &Version) -> bool {
        self.read().continues(&version.offsets, &version.reading)
    }

    /// Reads partitions, too, that are in `offsets` alone, from there on.
    pub(super) fn grow(&self, offsets: &Offsets) {
        let mut clicks = self.write();
        let known = clicks.next.clone();
        let new = offsets.iter().filter(|(partition, _)| known.next(*partition).is_none());
        new.for_each(|(partition, next)| clicks.next.advance(partition, next));
    }

    /// The next offsets to read.
    pub(super) fn next(&self) -> Offsets {
        self.read().next.clone()
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// Whether nothing more is taken until a newer version makes room.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    /// Time of the newest event, ms since 1970; none: nothing came yet.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.read().newest_ms
    }

    /// Takes in what has arrived but the events at the places of `except`, which ascend.
    pub(super) fn take(&self, arrived: &Arrived, except: &[usize]) {
        let mut clicks = self.write();
        let events = &arrived.events;
        for (event, &(partition, offset)) in arrived.origins.iter().enumerate() {
            if except.binary_search(&event).is_ok() {
                continue;
            }
            let (time_ms, item) = (events.times_ms[event], events.item_ids[event]);
            let click = Click { time_ms, offset, item, partition };
            clicks.push(events.query_ids[event], click);
        }
        clicks.next.clone_from(&arrived.next);
    }

    /// Forgets what lies before `offsets`, which all versions know, and goes on from there.
    pub(super) fn cut(&self, offsets: &Offsets) {
        self.write().begin_at(offsets);
        // Who reads meanwhile leaves out what is not cut yet.
        (0..PARTS).for_each(|part| self.write().cut(part, offsets));
    }

    /// Times of the events from `from` on to before `to` that are here, ms since 1970.
    pub(super) fn times(&self, from: &Offsets, to: &Offsets) -> Vec<i64> {
        let clicks = self.read();
        let all = clicks.parts.iter().flat_map(HashMap::values).flatten();
        let between = all.filter(|click| !click.is_before(from) && click.is_before(to));
        between.map(|click| click.time_ms).collect()
    }

    /// What these queries did behind the offsets of `version`, all as of one moment.
    pub(super) fn of(&self, version: &Version, queries: &[u64]) -> Known {
        if !version.queries.keeps_histories() {
            return Known::of(version);
        }
        let known = self.behind(&version.offsets, &version.reading, queries);
        known.unwrap_or_else(|| Known::of(version))
    }

    fn behind(&self, own: &Offsets, reading: &str, queries: &[u64]) -> Option<Known> {
        let clicks = self.read();
        if !clicks.continues(own, reading) {
            return None;
        }
        let mut offsets = own.clone();
        for (partition, next) in clicks.next.iter() {
            if own.next(partition).is_none_or(|own| own < next) {
                offsets.advance(partition, next);
            }
        }
        let after = |query: &u64| {
            let all = clicks.parts[part_of(*query)].get(query).into_iter().flatten();
            all.filter(|click| !click.is_before(own)).map(|click| click.item).collect()
        };
        Some(Known { offsets, after: queries.iter().map(after).collect() })
    }
}

impl Click {
    fn is_before(&self, offsets: &Offsets) -> bool {
        offsets.next(self.partition).is_some_and(|next| self.offset < next)
    }
}

/// Keys are hashes: any of their bits will do.
fn part_of(query: u64) -> usize {
    (query >> 32) as usize % PARTS
}

impl Clicks {
    fn new(from: Offsets, reading: Arc<str>, length: usize) -> Self {
        let (next, parts) = (from.clone(), vec![HashMap::new(); PARTS]);
        Self { reading, from, next, length, parts, bytes: 0, newest_ms: None }
    }

    fn continues(&self, offsets: &Offsets, reading: &str) -> bool {
        let known = |(partition, from)| offsets.next(partition).is_none_or(|next| next >= from);
        let is_alike = offsets.topics() == self.from.topics() && *reading == *self.reading;
        is_alike && self.from.iter().all(known)
    }

    fn push(&mut self, query: u64, click: Click) {
        self.newest_ms = self.newest_ms.max(Some(click.time_ms));
        let clicks = self.parts[part_of(query)].entry(query).or_insert_with(|| {
            self.bytes += QUERY_BYTES;
            Vec::new()
        });
        let before = clicks.capacity();
        // Behind all of its own partition, before what is later on others; the log of one partition
        // is right whatever its times are.
        let later = |other: &&Click| {
            other.partition != click.partition
                && (other.time_ms, other.partition) > (click.time_ms, click.partition)
        };
        let place = clicks.len() - clicks.iter().rev().take_while(later).count();
        clicks.insert(place, click);
        if clicks.len() > self.length {
            clicks.remove(0);
        }
        self.bytes += (clicks.capacity() - before) * size_of::<Click>();
    }

    fn begin_at(&mut self, offsets: &Offsets) {
        for (partition, from) in offsets.iter() {
            for own in [&mut self.from, &mut self.next] {
                if own.next(partition).is_none_or(|own| own < from) {
                    own.advance(partition, from);
                }
            }
        }
    }

    fn cut(&mut self, part: usize, offsets: &Offsets) {
        let bytes = &mut self.bytes;
        self.parts[part].retain(|_, clicks| {
            *bytes -= clicks.capacity() * size_of::<Click>();
            clicks.retain(|click| !click.is_before(offsets));
            if clicks.is_empty() {
                *bytes -= QUERY_BYTES;
                return false;
            }
            clicks.shrink_to(2 * clicks.len());
            *bytes += clicks.capacity() * size_of::<Click>();
            true
        });
        let there = self.parts[part].len();
        self.parts[part].shrink_to(2 * there);
    }
}

#[cfg(test)]
mod tests;
