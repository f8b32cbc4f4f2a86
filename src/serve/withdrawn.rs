//! Items that a catalogue has taken out behind the versions' offsets, and the thread that reads of
//! them: an answer must not wait for the next version to stop naming what is not for sale.
//!
//! A word on an item counts for a version that has not read it. Only removals are kept: a version
//! has no vector of what came later. Bounded in items; when it is full nothing more is read until a
//! newer version makes room.
//!
//! Whatever goes wrong is said once, and answers go on with what is known.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use millrace_events::Offsets;

use super::Version;
use super::shelf::{Row, Shelf};
use crate::config::{Config, KafkaConfig};
use crate::stream::catalogue::{CatalogueTail, Said};

/// A new version, or the end, is noticed within this.
const WAIT: Duration = Duration::from_millis(100);
/// The topic is opened again after this long: a broker restarts within seconds.
const RETRY: Duration = Duration::from_secs(5);
/// Removals behind the oldest version at most, some 40 MB.
const ITEMS_MAX: usize = 1 << 20;

/// See the module's head.
#[derive(Default)]
pub(super) struct Withdrawn(RwLock<Removals>);

#[derive(Default)]
struct Removals {
    /// Place of the newest word on each item that is a removal, by the item's key.
    places: HashMap<u64, (i32, i64)>,
    /// Numbers of the items that are out, by version.
    by_version: HashMap<String, Arc<[u32]>>,
}

impl Withdrawn {
    fn write(&self) -> RwLockWriteGuard<'_, Removals> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of the items of `version` that are out, ascending.
    pub(super) fn of(&self, version: &Version) -> Arc<[u32]> {
        let Some(next) = version.catalogue_next() else { return Arc::default() };
        let there = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(numbers) = there.by_version.get(&version.id) {
            return Arc::clone(numbers);
        }
        drop(there);
        let mut removals = self.write();
        let numbers = removals.numbers(next, |key| version.number_of_key(key));
        removals.by_version.insert(version.id.clone(), Arc::clone(&numbers));
        numbers
    }

    /// Takes what the catalogue says.
    fn take(&self, said: &[Said]) {
        if said.is_empty() {
            return;
        }
        let mut removals = self.write();
        removals.by_version.clear();
        for (partition, offset, change) in said {
            match change.values {
                None => drop(removals.places.insert(change.id, (*partition, *offset))),
                Some(_) => drop(removals.places.remove(&change.id)),
            }
        }
    }

    /// Forgets what all versions have read, and which versions there were.
    fn cut(&self, least: &Offsets) {
        let mut removals = self.write();
        removals.by_version.clear();
        removals.places.retain(|_, (partition, offset)| {
            least.next(*partition).is_none_or(|next| *offset >= next)
        });
    }

    fn is_full(&self) -> bool {
        let removals = self.0.read().unwrap_or_else(PoisonError::into_inner);
        removals.places.len() >= ITEMS_MAX
    }
}

impl Removals {
    /// Numbers of the items whose removal lies at or behind `next`.
    fn numbers(&self, next: &Offsets, number: impl Fn(u64) -> Option<u32>) -> Arc<[u32]> {
        let behind = |(partition, offset): &(i32, i64)| {
            next.next(*partition).is_none_or(|next| *offset >= next)
        };
        let out = self.places.iter().filter(|(_, place)| behind(place));
        let mut numbers: Vec<u32> = out.filter_map(|(key, _)| number(*key)).collect();
        numbers.sort_unstable();
        numbers.into()
    }
}

/// Reads the catalogue of items.
pub(super) struct Withdrawals {
    config: Config,
    shelf: Arc<Shelf>,
    withdrawn: Arc<Withdrawn>,
    tail: Option<CatalogueTail>,
    /// When it is tried again.
    retry: Option<Instant>,
    /// What was wrong the last time.
    trouble: Option<String>,
    /// Which versions there were, how the catalogue is read, and where that began.
    seen: Option<(Vec<String>, String, Offsets)>,
}

impl Withdrawals {
    pub(super) fn new(config: &Config, shelf: Arc<Shelf>, withdrawn: Arc<Withdrawn>) -> Self {
        let (config, tail, retry) = (config.clone(), None, None);
        Self { config, shelf, withdrawn, tail, retry, trouble: None, seen: None }
    }

    /// Reads on a thread of its own until `stop` is set.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn start(mut self, stop: Arc<AtomicBool>) -> std::io::Result<()> {
        std::thread::Builder::new().name("withdrawals".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = self.turn() {
                    self.lose(format!("{error:#}"));
                }
            }
        })?;
        Ok(())
    }

    /// Takes what the catalogue has, or waits a moment.
    fn turn(&mut self) -> anyhow::Result<()> {
        let row = Arc::clone(&self.shelf.row());
        let reads = self.follow_shelf(&row);
        let waits = self.retry.is_some_and(|due| Instant::now() < due);
        let Some(active) = row.active.as_ref().filter(|_| reads && !waits) else {
            std::thread::sleep(WAIT);
            return Ok(());
        };
        let of_active = self.tail.is_none().then(|| {
            let mut config = active.config.clone();
            let (topic, own) = (config.kafka.topic.clone(), self.config.kafka.clone());
            config.kafka = KafkaConfig { topic, ..own.reading_as(&config.kafka) };
            let (catalogue, _) = active.catalogue.as_ref().expect("it is read");
            (config, catalogue.clone())
        });
        // Brokers that are away let it wait for seconds: no version stays in memory for that.
        drop(row);
        if let Some((config, catalogue)) = of_active {
            let (_, _, from) = self.seen.as_ref().expect("versions were seen");
            self.tail = Some(CatalogueTail::open(&config, &catalogue, from)?);
        }
        let tail = self.tail.as_mut().expect("just opened");
        let said = tail.next(WAIT)?;
        self.withdrawn.take(&said);
        self.trouble = None;
        Ok(())
    }

    /// Says why it does not go on, and tries again later, from where it was.
    fn lose(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!("items that a catalogue takes out stay in answers for now: {why}");
        }
        if let (Some(tail), Some((_, _, from))) = (self.tail.take(), &mut self.seen) {
            from.clone_from(tail.offsets());
        }
        self.retry = Some(Instant::now() + RETRY);
        self.trouble = Some(why);
    }

    /// Notes which versions there are, and forgets what all of them know. Whether the catalogue is
    /// to be read.
    fn follow_shelf(&mut self, row: &Row) -> bool {
        let Some(active) = &row.active else { return false };
        let Some((catalogue, _)) = &active.catalogue else {
            self.tail = None;
            return false;
        };
        let (ids, reading) = (row.ids(), format!("{} {}", catalogue.topic, catalogue.reading()));
        if self.seen.as_ref().is_none_or(|(known, ..)| *known != ids) {
            let least = least_offsets(row, active);
            let goes_on = self.seen.as_ref().is_some_and(|(_, known, from)| {
                let reached = |(partition, from)| least.next(partition).is_some_and(|l| l >= from);
                *known == reading && from.iter().all(reached)
            });
            if goes_on {
                self.withdrawn.cut(&least);
                let (known, ..) = self.seen.as_mut().expect("it goes on");
                *known = ids;
            } else {
                *self.withdrawn.write() = Removals::default();
                (self.tail, self.retry) = (None, None);
                self.seen = Some((ids, reading, least));
            }
        }
        !self.withdrawn.is_full()
    }
}

/// The least next offset of the catalogue, by partition, of the versions that read it as `active`
/// does.
fn least_offsets(row: &Row, active: &Version) -> Offsets {
    let own = active.catalogue.as_ref().expect("it is read");
    let alike = row.versions.iter().filter_map(|version| version.catalogue.as_ref());
    let alike: Vec<&Offsets> =
        alike.filter(|(catalogue, _)| *catalogue == own.0).map(|(_, next)| next).collect();
    let mut least = Offsets::new(own.1.topic());
    for (partition, next) in own.1.iter() {
        let others = alike.iter().map(|other| other.next(partition).unwrap_or(0));
        least.advance(partition, others.fold(next, i64::min));
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::{CatalogueChange, EventSide};

    fn said(partition: i32, offset: i64, id: u64, there: bool) -> Said {
        let values = there.then(Vec::new);
        let (side, name) = (EventSide::Item, id.to_string().into());
        (
            partition,
            offset,
            CatalogueChange { at: 0, side, id, name, values, attributes: Vec::new() },
        )
    }

    #[test]
    fn a_removal_counts_for_versions_that_have_not_read_it() {
        let withdrawn = Withdrawn::default();
        let next = |at| {
            let mut offsets = Offsets::new("items");
            offsets.advance(0, at);
            offsets
        };
        let numbers = |at| {
            let removals = withdrawn.0.read().expect("nobody panicked");
            removals.numbers(&next(at), |key| (key < 9).then_some(key as u32)).to_vec()
        };
        withdrawn.take(&[said(0, 4, 7, false), said(0, 5, 3, false), said(0, 6, 99, false)]);
        assert_eq!((numbers(4), numbers(5), numbers(7)), (vec![3, 7], vec![3], vec![]));
        withdrawn.take(&[said(0, 8, 3, true)]);
        assert_eq!(numbers(0), [7], "it is back");
        withdrawn.take(&[said(2, 0, 1, false)]);
        assert_eq!(numbers(9), [1], "a partition that the version does not know");
        withdrawn.cut(&next(5));
        assert_eq!(numbers(0), [1]);
    }
}
