//! How often each item comes in a batch, learned from the gaps between its appearances
//! (paper section 4, Algorithms 2 and 3): the `log q` that corrects the in-batch softmax.
//!
//! Owns a fixed-size array of slots (or, in exact mode, bounded maps) that is a function of the
//! updates made so far, and nothing else.
//!
//! Must never know: the model, the loss that uses `log q`, configuration files, the clock. Time is
//! counted in events, so it does not matter where the stream was cut into updates.
//!
//! # What the estimate is worth
//! With gaps of mean `d` and variance `s²`, a moving average of rate `a` that starts at `d0` has,
//! after `t` *hits of its slot* (not steps):
//! - bias `(1 - a)^t (d0 - d)`,
//! - variance `a / (2 - a) · (1 - (1 - a)^(2t)) · s²`,
//! - mean squared error: variance plus squared bias, at most `(1 - a)^(2t) (d0 - d)² + a s²`.
//!
//! This is Proposition 4.1 corrected. As printed, the bias (7) is `(1-a)^t d0 - (1-a)^(t-1) d`,
//! the bound (8) has `E(Δ1 - a)²` for `E(Δ1 - d)²`, the proof has exponent `2t - 2` for `2t`, and
//! the "ideal initialization" is `d / (1 - a)`; it is `d0 = d`. Gaps of an item that comes with
//! probability p are geometric, `s² = d² (1 - p)`, so at `a = 0.01` the noise of `log q` settles at
//! 7 %, and `E[1/B]` is high by `a / (2 - a) (1 - p)`, half a percent.
//!
//! # Where the default mode goes past the paper
//! The proposition shows the bind: a small rate is slow (69 hits for half of an initial error at
//! `a = 0.01`, which a rare item never has), a large one is noisy. Three rules loosen it:
//! - The first `1 / a` gaps are averaged evenly, rate `max(a, 1 / hits)`.
//! - A *drift guard* tests in each slot whether the gaps still fit their mean. When they do not,
//!   the mean starts afresh, so speed no longer has to be paid for with noise: half of the error
//!   after the paper's switch of laws is gone in 50 steps instead of 1,000, at a lower floor.
//! - With [`Rate::Auto`] the rate itself is the one that lately forecast the traffic best.
//!
//! `scripts/experiment estimator` measures each; [`Mode::Paper`] has none of them.
//!
//! # Threads
//! Large tables are split into 16 shards by the hash of the id; an update runs them on the current
//! rayon pool and gives the same bits on any number of threads.

mod capture;
mod codec;
mod first;
mod lane;
mod rate;
mod slot;
mod slots;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::kernel::marks::Marks;
use capture::FrequencyCopy;
use first::FirstGaps;
use lane::Lane;
use rate::{Ladder, Scores};
use slot::{Now, Rule, Slot, TICKS};
use slots::{Key, Slots};

/// Most hash functions. Each costs a cache miss per id; past a handful they gain nothing.
const HASHES_MAX: usize = 16;

/// Ids below which waking other threads costs more than they save (a slot costs some 20 ns, a
/// wake-up 10 µs).
const PARALLEL_IDS_MIN: usize = 2048;

/// Which rules an update follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An update moves each slot once; the first hit only sets its time (and the count), and stands
    /// for the gap that others' first gaps turned out to be; the rate is `max(alpha, 1 / hits)`,
    /// and the drift guard sets the hits back; items that have been away for a batch or more are
    /// read with their open gap.
    Default,
    /// Algorithms 2 and 3 to the letter, for comparison, at full batches: every slot starts with
    /// last step 0, every occurrence in a batch updates it (the second copy has gap 0), and
    /// `p = 1 / max B` is the only reading. Departs only where `B` would divide by zero.
    Paper,
}

/// What a number read from the estimator stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Copies of the item in a full batch, `C / B`; may exceed 1. Right when duplicates stay in the
    /// softmax.
    ExpectedCount,
    /// Probability that the item is in a full batch, `1 / B`. Right when duplicates are merged.
    Probability,
}

/// Rate of the moving averages, per hit of a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// This one, in (0, 1]. The default mode's hit count saturates at 65,535, so there a smaller
    /// rate acts as 1/65,535.
    Fixed(f32),
    /// Of five rates from 0.001 to 0.256 the one whose forecasts of the traffic's heads scored best
    /// over the last 100,000 copies or so. Costs 192 KiB whatever the table's size. Default mode
    /// only: the paper's has no forecast worth scoring before its means have settled.
    Auto,
}

/// What a [`Frequency`] is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequencySettings {
    /// The rules of an update.
    pub mode: Mode,
    /// One slot per id instead of per bucket: no collisions, `hashes` and `buckets` unused.
    pub exact: bool,
    /// Hash functions, the paper's m; at least 1.
    pub hashes: usize,
    /// Buckets of each hash function, the paper's H. Memory is exactly `16 * hashes * buckets`
    /// bytes; for the same memory 2 to 4 hashes beat 1 (paper, Figure 5).
    pub buckets: usize,
    /// The paper's alpha.
    pub alpha: Rate,
    /// The paper's B0, in batches: gap of an item until its first gap is known; at least 1. In
    /// default mode the gap until other items' first gaps say better.
    pub initial_gap: f32,
    /// Exact mode: ids kept (about 40 bytes each). Past it the longest unseen are dropped, so the
    /// maps hold at most this many or, if that is more, the distinct ids of one batch.
    pub exact_ids_max: usize,
    /// Seed of the hash functions.
    pub seed: u64,
    /// Events a full batch: the unit of gaps and of expected counts, above 0. At 1 the clock that
    /// [`Frequency::update`] is given counts batches.
    pub batch: u64,
}

impl FrequencySettings {
    fn check(&self) {
        match self.alpha {
            Rate::Fixed(alpha) => assert!(alpha > 0.0 && alpha <= 1.0, "alpha must be in (0, 1]"),
            Rate::Auto => assert!(self.mode == Mode::Default, "paper mode has no auto rate"),
        }
        assert!(self.batch > 0, "a batch has events");
        assert!(self.initial_gap >= 1.0 && self.initial_gap.is_finite(), "initial_gap is under 1");
        if self.exact {
            assert!(self.exact_ids_max > 0, "exact_ids_max must be above 0");
        } else {
            assert!((1..=HASHES_MAX).contains(&self.hashes), "hashes must be 1 to {HASHES_MAX}");
            assert!(self.buckets > 0, "buckets must be above 0");
        }
    }
}

/// The slots, and the time they stand at.
struct Table {
    settings: FrequencySettings,
    slots: Slots,
    /// Of the stream up to the last update, that included.
    events: u64,
    /// See [`Now::span`].
    span: f32,
    /// See [`Now::first_gap`].
    first_gap: f32,
}

impl Table {
    fn new(settings: FrequencySettings, slots: Slots) -> Self {
        let first_gap = settings.initial_gap;
        Self { settings, slots, events: 0, span: 1.0, first_gap }
    }

    fn now(&self) -> Now {
        Now { tick: self.tick(self.events), span: self.span, first_gap: self.first_gap }
    }

    /// The slots' clock after so many events.
    fn tick(&self, events: u64) -> u64 {
        let batch = self.settings.batch;
        // Whole batches first: the product of all events would overflow some day.
        events / batch * TICKS + events % batch * TICKS / batch
    }

    fn estimate(&self, now: Now, id: u64, meaning: Meaning) -> f32 {
        let key = Key::new(id, self.settings.seed);
        let (gap, count) = self.slots.reading(&self.settings, now, key);
        match meaning {
            Meaning::ExpectedCount => count / gap,
            Meaning::Probability => 1.0 / gap,
        }
    }
}

/// The streaming frequency estimator. Call [`update`](Self::update) with a step's events, then read
/// with [`log_q`](Self::log_q).
///
/// Deterministic: equal update sequences give equal bits, on any number of threads.
///
/// ```
/// use millrace_train::TrainSettings;
/// use millrace_train::frequency::{Frequency, FrequencySettings, Meaning};
///
/// let settings = TrainSettings::new(8, vec![], vec![]).frequency;
/// let mut frequency = Frequency::new(FrequencySettings { exact: true, ..settings });
/// for batch in 1..=50 {
///     // Item 7 four times in each batch of eight, and four that nobody has seen before.
///     let rare = (0..4).map(|n| 1000 * batch + n);
///     let ids: Vec<u64> = [7; 4].into_iter().chain(rare).collect();
///     frequency.update(8 * batch, &ids);
/// }
/// let copies = frequency.estimate(7, Meaning::ExpectedCount);
/// assert!((copies - 4.0).abs() < 0.01, "{copies} of a full batch");
/// ```
pub struct Frequency {
    table: Table,
    /// One a shard.
    lanes: Vec<Lane>,
    /// With [`Rate::Auto`]: what its rates were worth lately.
    scores: Scores,
    first_gaps: FirstGaps,
    /// Occurrences in the last update, and those of them that [`collisions`](Self::collisions)
    /// counts.
    occurrences: u64,
    collided: u64,
    /// A copy of the state that is under way.
    capture: Option<FrequencyCopy>,
    /// Slots that had changed when a capture began that is not durable yet.
    unsettled: Marks,
}

impl Frequency {
    /// An estimator that has seen nothing. Panics on settings that cannot work; the config layer
    /// reports them first.
    pub fn new(settings: FrequencySettings) -> Self {
        settings.check();
        let shards = slots::shards(&settings);
        let ladder = || (settings.alpha == Rate::Auto).then(|| Ladder::new(shards));
        let lanes = (0..shards).map(|_| Lane::new(ladder())).collect();
        let slots = Slots::new(&settings);
        let first_gaps = FirstGaps::new(settings.initial_gap);
        Self {
            table: Table::new(settings, slots),
            lanes,
            scores: Scores::default(),
            first_gaps,
            occurrences: 0,
            collided: 0,
            capture: None,
            unsettled: Marks::default(),
        }
    }

    /// Takes in a run of the stream: `ids` are its items, duplicates included, and `events` is how
    /// many events there have been with it, which must increase. Time may pass without an id. Large
    /// runs use the current rayon pool.
    ///
    /// Times are stored in 64ths of a batch, modulo 2^32. A longer gap is read modulo 2^32, which
    /// in the default mode makes a gap of exactly a multiple of it look like a copy in the same
    /// update.
    pub fn update(&mut self, events: u64, ids: &[u64]) {
        let last = self.table.events;
        assert!(events > last, "event {events} after {last}: the clock must go forward");
        let (rule, table) = (self.rule(), &self.table);
        let tick = table.tick(events);
        let threads = if ids.len() < PARALLEL_IDS_MIN { 1 } else { rayon::current_num_threads() };
        let share = self.lanes.len().div_ceil(threads);
        if threads == 1 {
            table.bring(0, &mut self.lanes, &rule, tick, ids);
        } else {
            self.lanes.par_chunks_mut(share).enumerate().for_each(|(group, lanes)| {
                table.bring(group * share, lanes, &rule, tick, ids);
            });
        }
        self.finish(events, ids.len());
    }

    /// Sums up the lanes, in their order, since sums of floats depend on it.
    fn finish(&mut self, events: u64, occurrences: usize) {
        self.occurrences = occurrences as u64;
        self.collided = self.lanes.iter().map(|lane| lane.collided).sum();
        self.lanes.iter().for_each(|lane| self.scores.add(&lane.scores));
        let (tick, last) = (self.table.tick(events), self.table.events);
        if self.table.settings.mode == Mode::Default {
            self.first_gaps.update(tick, self.lanes.iter().map(|lane| &lane.sights));
        }
        let table = &mut self.table;
        let span = (events - last) as f32 / table.settings.batch as f32;
        table.events = events;
        table.span = span.min(1.0);
        table.first_gap = self.first_gaps.gap();
    }

    /// Natural logarithm of the frequency of each id; `out` is as long as `ids`. As
    /// [`estimate`](Self::estimate), on the current rayon pool.
    pub fn log_q(&self, ids: &[u64], meaning: Meaning, out: &mut [f32]) {
        assert_eq!(ids.len(), out.len(), "log_q writes one value per id");
        let now = self.table.now();
        let chunks = out.par_chunks_mut(PARALLEL_IDS_MIN).zip(ids.par_chunks(PARALLEL_IDS_MIN));
        chunks.for_each(|(out, ids)| {
            for (out, &id) in out.iter_mut().zip(ids) {
                *out = self.table.estimate(now, id, meaning).ln();
            }
        });
    }

    /// Frequency of any id, seen or not, as of the last update: above 0. Of the hashes it reads the
    /// one with the largest mean gap, since a collision can only shorten it.
    ///
    /// In default mode an item that has been away for a batch or more is read with its open gap, so
    /// it fades while it stays away, the sooner the fewer gaps are known of it, and for all once
    /// eight copies were due and none came. One never seen is as rare as others' first gaps and the
    /// batches without it say together. Paper mode reads `1 / B` whatever the `meaning`.
    pub fn estimate(&self, id: u64, meaning: Meaning) -> f32 {
        self.table.estimate(self.table.now(), id, meaning)
    }

    /// Batches from an item's first sight to its second, as those of late turned out.
    pub fn first_gap(&self) -> f32 {
        self.first_gaps.gap()
    }

    /// The rate of the next update.
    pub fn alpha(&self) -> f32 {
        match self.table.settings.alpha {
            Rate::Fixed(alpha) => alpha,
            Rate::Auto => self.scores.best(),
        }
    }

    /// Events of the stream up to the last update.
    pub(crate) fn events(&self) -> u64 {
        self.table.events
    }

    /// Memory of the slots and the rates' samples, in bytes: exactly 16 a slot, about 40 an id in
    /// exact mode.
    pub fn bytes(&self) -> usize {
        let ladders = self.lanes.iter().filter_map(|lane| lane.ladder.as_ref());
        self.table.slots.bytes() + ladders.map(Ladder::bytes).sum::<usize>()
    }

    /// Share of the last batch's occurrences that found *every* one of their buckets last written
    /// by another id, 0 for an empty batch and in exact mode. These are the occurrences that no
    /// hash gave a gap of their own: with one hash it is the share of gaps that a collision cut
    /// short. A share of traffic, not of ids.
    ///
    /// Ids are told apart by 8 bits of their hash, so 1 in 256 collisions is missed; an id that
    /// shares its bucket but came twice in a row is not counted, nor need it be, its gap is right.
    pub fn collisions(&self) -> f64 {
        self.collided as f64 / self.occurrences.max(1) as f64
    }

    fn rule(&self) -> Rule {
        let settings = &self.table.settings;
        Rule::new(settings.mode, self.alpha(), self.first_gaps.gap())
    }
}

impl Table {
    /// Brings the shards `first..` up to `tick`, one a lane. Every thread looks at all ids for its
    /// shards': that costs less than to wait for one that deals them out.
    fn bring(&self, first: usize, lanes: &mut [Lane], rule: &Rule, tick: u64, ids: &[u64]) {
        let settings = &self.settings;
        lanes.iter_mut().for_each(|lane| lane.keys.clear());
        for &id in ids {
            let key = Key::new(id, settings.seed);
            let shard = slots::shard_of(settings, key);
            if let Some(lane) = lanes.get_mut(shard.wrapping_sub(first)) {
                lane.keys.push(key);
            }
        }
        for (lane, shard) in lanes.iter_mut().zip(first..) {
            match &self.slots {
                Slots::Hashed(cells) => {
                    let shard = slots::shard_at(settings, shard);
                    lane.update_hashed(cells, shard, settings.hashes, rule, tick);
                }
                Slots::Exact(maps) => {
                    let ids_max = settings.exact_ids_max / maps.len();
                    let mut map = maps[shard].write().expect("no update panicked");
                    lane.update_exact(&mut map, ids_max, rule, tick);
                }
            }
        }
    }
}
