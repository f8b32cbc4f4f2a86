//! The thread that reads the topic of interactions behind the versions' offsets.
//!
//! Whatever goes wrong here is said once, and answers go on with what is known: their offsets say
//! how far that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use millrace_events::{Offsets, Witness};

use super::Version;
use super::arms::Stock;
use super::metrics::{ServeMetrics, Stage, age};
use super::shelf::Row;
use super::standing::State;
use crate::config::{Config, KafkaConfig};
use crate::stream::tail::{Arrived, Tail};

/// A new version, or the end, is noticed within this.
const WAIT: Duration = Duration::from_millis(100);
/// The topic is opened again after this long: a broker restarts within seconds.
const RETRY: Duration = Duration::from_secs(5);
/// An end that finds the thread waiting for brokers goes on without it.
const END_WAIT: Duration = Duration::from_secs(1);

/// See the module's head.
pub(super) struct Reader {
    config: Config,
    stock: Stock,
    metrics: Arc<ServeMetrics>,
    tail: Option<Tail>,
    /// When it is tried again.
    retry: Option<Instant>,
    /// What was on the shelf the last time.
    seen: Option<Seen>,
    /// Records before these have been counted, however often they are read.
    counted: Offsets,
}

/// What was on a shelf: no version, or it would stay in memory.
struct Seen {
    ids: Vec<String>,
    active: String,
    /// Of the active one.
    offsets: Offsets,
}

/// The reading thread.
pub(super) struct Reading {
    ended: Receiver<()>,
}

impl Reading {
    /// Waits for the thread's end, but not for long.
    pub(super) fn join(self) {
        // An error is the end itself: the other side is gone.
        self.ended.recv_timeout(END_WAIT).ok();
    }
}

impl Reader {
    pub(super) fn new(config: &Config, stock: Stock, metrics: Arc<ServeMetrics>) -> Self {
        Self {
            config: config.clone(),
            stock,
            metrics,
            tail: None,
            retry: None,
            seen: None,
            counted: Offsets::new(""),
        }
    }

    /// Reads on a thread of its own until `stop` is set.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn start(mut self, stop: Arc<AtomicBool>) -> std::io::Result<Reading> {
        let (sender, ended): (Sender<()>, _) = crossbeam_channel::bounded(0);
        std::thread::Builder::new().name("histories".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                self.turn();
            }
            drop(sender);
        })?;
        Ok(Reading { ended })
    }

    /// Takes what the topic has, or waits a moment.
    fn turn(&mut self) {
        let row = Arc::clone(&self.stock.shelf.row());
        self.follow_shelf(&row);
        let Some(active) = &row.active else { return self.rest(State::Waiting) };
        if !active.queries.keeps_histories() {
            return self.rest(State::Unused);
        }
        if self.stock.recent.is_full() {
            return self.rest(State::Full);
        }
        if self.tail.is_none() {
            if self.retry.is_some_and(|due| Instant::now() < due) {
                drop(row);
                return std::thread::sleep(WAIT);
            }
            let (config, witness) = (self.config_of(active), active.witness.clone());
            // Brokers that are away let it wait for seconds: no version stays in memory for that.
            drop(row);
            return self.open(&config, &witness);
        }
        let active = Arc::clone(active);
        drop(row);
        let Some(tail) = &mut self.tail else { return };
        let read = tail.next(WAIT);
        let lag = tail.lag();
        match (read, tail.away()) {
            (Err(error), _) => self.lose(format!("{error:#}")),
            (Ok(arrived), None) => {
                self.take(&arrived, &active);
                self.stock.standing.set(State::Following, &lag, &self.stock.recent);
            }
            (Ok(arrived), Some(away)) => {
                self.take(&arrived, &active);
                self.stock.standing.set(State::Away(away), &lag, &self.stock.recent);
            }
        }
    }

    /// Reads nothing for now.
    fn rest(&mut self, why: State) {
        self.tail = None;
        self.stock.standing.set(why, &[], &self.stock.recent);
        std::thread::sleep(WAIT);
    }

    /// Says why it does not go on, and tries again later.
    fn lose(&mut self, why: String) {
        self.tail = None;
        self.retry = Some(Instant::now() + RETRY);
        self.stock.standing.set(State::Away(why), &[], &self.stock.recent);
    }

    /// Notes which versions there are: what all of them know is forgotten, and what the one that
    /// answers has learned since is measured.
    fn follow_shelf(&mut self, row: &Row) {
        let Some(active) = &row.active else { return };
        let ids = row.ids();
        if self.seen.as_ref().is_some_and(|seen| seen.ids == ids && seen.active == active.id) {
            return;
        }
        let before = self.seen.replace(Seen {
            ids,
            active: active.id.clone(),
            offsets: active.offsets.clone(),
        });
        if let Some(Seen { offsets, .. }) = before.filter(|seen| seen.active != active.id) {
            let since = row.since;
            for time_ms in self.stock.recent.times(&offsets, &active.offsets) {
                self.metrics.fresh(Stage::Served, age(since, time_ms));
            }
        }
        let least = least_offsets(row, active);
        let mut alike = row.versions.iter().filter(|version| is_alike(version, active));
        if alike.all(|version| self.stock.recent.continues(version)) {
            let behind = self.stock.recent.next();
            self.stock.recent.cut(&least);
            // What it skips need not be read.
            if behind != self.stock.recent.next() {
                self.tail = None;
            }
        } else {
            let reading = Arc::clone(&active.reading);
            self.stock.recent.begin(least, reading, active.queries.history_length());
            (self.tail, self.retry) = (None, None);
        }
    }

    /// How the log of `active` is read here.
    fn config_of(&self, active: &Version) -> Config {
        let mut config = active.config.clone();
        let topic = active.offsets.topic().to_owned();
        let own = self.config.kafka.clone();
        config.kafka = KafkaConfig { topic, ..own.reading_as(&config.kafka) };
        // The version's names the same registry, without a login.
        if !self.config.registry.url.is_empty() {
            config.registry = self.config.registry.clone();
        }
        // What is said of items is the version's.
        config.item.attributes.clear();
        config
    }

    /// Opens the topic where it is to be read on.
    fn open(&mut self, config: &Config, witness: &Witness) {
        match Tail::open(config, &self.stock.recent.next(), witness) {
            Ok(tail) => {
                self.stock.recent.grow(tail.offsets());
                self.tail = Some(tail);
            }
            Err(error) => self.lose(format!("{error:#}")),
        }
    }

    fn take(&mut self, arrived: &Arrived, active: &Version) {
        let impostors = impostors(active, arrived);
        self.stock.recent.take(arrived, &impostors);
        let now = SystemTime::now();
        if self.counted.topics() != arrived.next.topics() {
            self.counted = arrived.next.unread();
        }
        let is_new = |partition, offset| {
            self.counted.next(partition).is_none_or(|counted| offset >= counted)
        };
        for (event, &(partition, offset)) in arrived.origins.iter().enumerate() {
            if !is_new(partition, offset) {
                continue;
            }
            if impostors.binary_search(&event).is_ok() {
                self.metrics.no_event(Some("id_collision"));
            } else {
                self.metrics.history_event();
                self.metrics.fresh(Stage::History, age(now, arrived.events.times_ms[event]));
            }
        }
        for &(partition, offset, reason) in &arrived.without {
            if is_new(partition, offset) {
                self.metrics.no_event(reason);
            }
        }
        for (partition, next) in arrived.next.iter() {
            if self.counted.next(partition).is_none_or(|counted| counted < next) {
                self.counted.advance(partition, next);
            }
        }
    }
}

/// Events whose item has the key of another one that `version` knows: a trainer does not train on
/// them either.
fn impostors(version: &Version, arrived: &Arrived) -> Vec<usize> {
    let events = &arrived.events;
    let keyed = events.item_ids.iter().zip(events.item_names.iter()).enumerate();
    let other = |(key, name): (&u64, &str)| {
        version.number_of_key(*key).is_some_and(|number| version.name(number) != name)
    };
    keyed.filter(|&(_, event)| other(event)).map(|(at, _)| at).collect()
}

/// Whether what is read for one is right for the other: the same topics, read in the same way.
fn is_alike(one: &Version, other: &Version) -> bool {
    one.offsets.topics() == other.offsets.topics() && one.reading == other.reading
}

/// The least next offset, by partition, of the versions that are read like `active`; a partition
/// that one of them does not know is not in it.
fn least_offsets(row: &Row, active: &Version) -> Offsets {
    let alike = || row.versions.iter().filter(|version| is_alike(version, active));
    let mut least = active.offsets.unread();
    for (partition, _) in active.offsets.iter() {
        let known: Option<Vec<i64>> =
            alike().map(|version| version.offsets.next(partition)).collect();
        if let Some(next) = known.and_then(|known| known.into_iter().min()) {
            least.advance(partition, next);
        }
    }
    least
}
