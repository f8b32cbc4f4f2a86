//! One slot of the frequency estimator: what a hit does to its averages, and what they say.
//!
//! Owns the arithmetic of Algorithms 2 and 3 and of the drift guard. Must never know: hashing,
//! batches, other slots.

use std::f32::consts::LN_2;

use super::Mode;

/// Evidence, in nats, at which the drift guard believes that the frequency of an item of one copy a
/// batch, or less, has changed. A slot whose frequency stands still crosses it by chance once in
/// some 4,000 hits, and then has a noisier mean for a while. A change to twice the frequency takes
/// 35 hits, tenfold 11, to a tenth 2 (measured in the tests). At 5 the noise costs steady items
/// more than the speed brings the others.
const DRIFT_NATS: f32 = 6.0;

/// Steps of the stored evidence in a nat: [`DRIFT_MOST`] is 10.6 nats.
const DRIFT_SCALE: f32 = 12.0;

/// The most that is kept, since more would not fit.
const DRIFT_MOST: f32 = i8::MAX as f32 / DRIFT_SCALE;

/// An item silent while this many copies of it were due has stopped: by chance once in `e^8 =
/// 3,000` hits.
const SILENT_COPIES: f32 = 8.0;

/// Ticks of the stored clock in a batch. The clock counts events, wherever batches were cut; a slot
/// has 32 bits for it. More would tell apart what comes within a sixty-fourth of a batch, which
/// needs no telling apart (its copies are counted in one hit), and would wrap sooner: so it is
/// after 2^26 batches, two years of 1,000 events a second at a batch of 1,024.
pub(super) const TICKS: u64 = 64;

/// Euler's constant: the mean of `-ln x` where x is exponentially distributed with mean 1.
pub(super) const LOG_OF_MEAN: f32 = 0.577_215_7;

/// What an update must know besides the slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) mode: Mode,
    pub(super) alpha: f32,
    pub(super) initial_gap: f32,
    /// Hits after which `alpha` has taken over from the even mean.
    hits_max: u16,
}

impl Rule {
    pub(super) fn new(mode: Mode, alpha: f32, initial_gap: f32) -> Self {
        Self { mode, alpha, initial_gap, hits_max: (1.0 / alpha).ceil() as u16 }
    }
}

/// What a reading must know besides the slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Of the last update.
    pub(super) tick: u64,
    /// Batches that the last update spans: 1 for a full one.
    pub(super) span: f32,
    /// Batches until an item never seen before comes again.
    pub(super) first_gap: f32,
}

/// One bucket, or in exact mode one id: 16 bytes, so that a hit costs one cache line where the
/// paper's separate arrays cost one each. All zeros is a slot never hit, so that a table costs
/// nothing until it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slot {
    /// The paper's A: tick of the last hit, modulo 2^32.
    pub(super) last_tick: u32,
    /// The paper's B: mean batches between hits.
    pub(super) gap: f32,
    /// C: mean copies per hit.
    pub(super) count: f32,
    /// Hits averaged in `count` (in `gap` one less), at most `1 / alpha`; 0 means never hit.
    pub(super) hits: u16,
    /// Evidence that the frequency has risen (above 0) or fallen, see [`Slot::drifted`].
    pub(super) drift: i8,
    /// Fingerprint of the id that wrote last, see [`super::Frequency::collisions`].
    pub(super) writer: u8,
}

impl Slot {
    pub(super) const BYTES: usize = 16;

    /// Batches since the last hit or, without one, since the start. The difference wraps, so it is
    /// right past tick 2^32 for every gap below 2^32 ticks.
    #[inline]
    fn open_gap(&self, tick: u64) -> f32 {
        let last = self.last_tick;
        let ticks =
            if self.hits == 0 { tick as f32 } else { (tick as u32).wrapping_sub(last) as f32 };
        ticks * (1.0 / TICKS as f32)
    }

    /// Records who writes; says whether another id wrote here last.
    #[inline]
    pub(super) fn claim(&mut self, writer: u8) -> bool {
        let cut = self.hits > 0 && self.writer != writer;
        self.writer = writer;
        cut
    }

    /// One id's `copies` in the update at `tick`.
    #[inline]
    pub(super) fn observe(&mut self, rule: &Rule, tick: u64, copies: u32) {
        match rule.mode {
            Mode::Paper => self.observe_paper(rule, tick, copies),
            Mode::Default => self.observe_default(rule, tick, copies as f32),
        }
    }

    /// Algorithm 2, line by line: each copy is an update, and all but the first have gap 0.
    #[inline]
    fn observe_paper(&mut self, rule: &Rule, tick: u64, copies: u32) {
        let mut gap = self.open_gap(tick);
        let mut mean = if self.hits == 0 { rule.initial_gap } else { self.gap };
        for _ in 0..copies {
            mean = (1.0 - rule.alpha) * mean + rule.alpha * gap;
            gap = 0.0;
        }
        let hits = u32::from(self.hits).saturating_add(copies).min(u32::from(u16::MAX));
        *self = Self { last_tick: tick as u32, gap: mean, count: 1.0, hits: hits as u16, ..*self };
    }

    #[inline(always)]
    fn observe_default(&mut self, rule: &Rule, tick: u64, copies: f32) {
        if self.hits == 0 {
            let (last_tick, gap) = (tick as u32, rule.initial_gap);
            *self = Self { last_tick, gap, count: copies, hits: 1, ..*self };
            return;
        }
        let mut gap = self.open_gap(tick);
        if gap == 0.0 {
            // Another id of this bucket was here in this update, or the same one within the tick:
            // the copies belong to the same hit.
            self.count += rate(rule.alpha, self.hits) * copies;
            if self.hits > 1 {
                // They were due with the hit. Left out of the evidence, they would pass for copies
                // that never came, and heads of a finely cut stream would start afresh for ever.
                (_, self.drift) = self.drifted(0.0, copies);
            }
            return;
        }
        if self.hits > 1 {
            let drifted;
            (drifted, self.drift) = self.drifted(gap, copies);
            if drifted {
                gap = self.start_afresh(gap, copies);
            }
        }
        let mean = blend(self.gap, gap, rate(rule.alpha, self.hits));
        // This only undoes rounding: no gap is shorter than a tick, nor is a mean.
        const TICK: f32 = 1.0 / TICKS as f32;
        self.gap = if mean > TICK { mean } else { TICK };
        self.hits = self.hits.saturating_add(1).min(rule.hits_max);
        self.count = blend(self.count, copies, rate(rule.alpha, self.hits));
        self.last_tick = tick as u32;
    }

    /// Forgets what is known but for which way the frequency went, and returns the gap that is
    /// known instead. One over a single gap has no mean, so of an item of many copies a batch,
    /// which weighs in the sum of all counts, the new gap is not believed whole: one that is rarer
    /// now has no shorter gap than before, and one that is more frequent a quarter at least. A head
    /// that the guard is wrong about reads as four times itself at most. Others may have come from
    /// nothing to fame.
    ///
    /// The mean count was of the old gaps: copies a hit are fewer where a stream is cut finer, and
    /// 17 a batch are not 17 in a sixteenth of one. So it first moves to what was due in the new
    /// gap, but no farther than to the copies that came, and goes on as a single hit.
    #[cold]
    fn start_afresh(&mut self, gap: f32, copies: f32) -> f32 {
        let frequency = self.count / self.gap;
        let count = (frequency * gap).clamp(self.count.min(copies), self.count.max(copies));
        let was = count / frequency;
        let least = if frequency <= 1.0 {
            0.0
        } else if self.drift > 0 {
            0.25 * was
        } else {
            was
        };
        (self.count, self.hits, self.drift) = (count, 1, 0);
        gap.max(least)
    }

    /// The drift guard: whether the hits since the frequency last looked steady say that it has
    /// doubled or halved, and the evidence to keep if not. A two-sided CUSUM (Page 1954) of the
    /// log-likelihood ratio of a Poisson stream: with `C/B` copies due a batch, `c` copies after a
    /// gap of `g` batches are `c ln 2 - g C/B` nats for twice the frequency and
    /// `g C/B / 2 - c ln 2` for half of it. One side at a time is kept, since both cannot be
    /// likely; it fits 8 bits.
    #[inline(always)]
    fn drifted(&self, gap: f32, copies: f32) -> (bool, i8) {
        let due = self.count / self.gap * gap;
        let (risen, fallen) = (copies * LN_2 - due, 0.5 * due - copies * LN_2);
        let evidence = f32::from(self.drift) * (1.0 / DRIFT_SCALE);
        let falling = evidence < 0.0;
        let (ahead, back) = if falling { (fallen, risen) } else { (risen, fallen) };
        let after = evidence.abs() + ahead;
        // Evidence used up one way starts the other way.
        let back = if back > 0.0 { -back } else { 0.0 };
        let after = if after > 0.0 { after } else { back };
        let evidence = if falling { -after } else { after };
        let kept = evidence.clamp(-DRIFT_MOST, DRIFT_MOST);
        // The first says no to nearly all, and costs no logarithm.
        let believed = evidence.abs() > DRIFT_NATS && evidence.abs() > self.drift_nats();
        (believed, round(kept * DRIFT_SCALE))
    }

    /// Evidence that it takes. Frequencies change with time, not with hits: an item of many copies
    /// is tested as many times between two changes, so chance gets `C/B` times as many tries, and
    /// each nat more lets an e-th of them through. It has its evidence sooner, too.
    #[cold]
    fn drift_nats(&self) -> f32 {
        (DRIFT_NATS + (self.count / self.gap).max(1.0).ln()).min(DRIFT_MOST - 0.5)
    }

    /// Gap to divide by, in batches, and copies per hit, as they stand `now`.
    ///
    /// In default mode the gap that is still open counts. After `n` gaps, at a time that has
    /// nothing to do with the item's hits, `n / (n B + open)` is unbiased for a Poisson stream
    /// (`max(B, open)` is not: more than a third of all open gaps are longer than their mean, and
    /// reading so more than doubles the error of steady items). A column of the softmax is there
    /// because of a hit, in this update or less than a batch ago; for such a one `1/B` is high by
    /// the factor `1 + (1 - p) / n`, and a whole mean gap, less what an update spans, in place of
    /// the open one undoes it. Before the first gap is known, [`LOG_OF_MEAN`] does. Once
    /// [`SILENT_COPIES`] were due in the open gap, the past counts as one gap only.
    #[inline]
    pub(super) fn reading(&self, mode: Mode, now: Now) -> (f32, f32) {
        if mode == Mode::Paper {
            let gap = if self.hits == 0 { now.first_gap } else { self.gap };
            // Many copies in one batch can drive B to 0.
            return (gap.max(f32::MIN_POSITIVE), 1.0);
        }
        let open = self.open_gap(now.tick);
        if self.hits == 0 {
            return (now.first_gap + open, 1.0);
        }
        let Self { gap, count, .. } = *self;
        if open < 1.0 {
            return match self.hits {
                1 => (gap * LOG_OF_MEAN.exp(), count),
                hits => (gap + (gap - now.span).max(0.0) / (f32::from(hits) - 1.0), count),
            };
        }
        let silent = count * open > SILENT_COPIES * gap;
        let past = if silent { 1.0 } else { f32::from(self.hits.max(2)) - 1.0 };
        (gap + open / past, count)
    }

    /// Log-likelihood of `copies` at `tick` in a Poisson stream of the slot's frequency, up to
    /// terms without the slot; `None` until a gap is known. A gap far longer than any forecast
    /// (the item was gone) says nothing of rates, so it is cut off.
    pub(super) fn score(&self, tick: u64, copies: f32) -> Option<f64> {
        const LONGEST: f32 = 32.0;
        let due = self.count / self.gap;
        let score = copies * due.ln() - (due * self.open_gap(tick)).min(copies + LONGEST);
        (self.hits > 1).then_some(f64::from(score))
    }

    #[inline]
    pub(super) fn to_words(self) -> [u64; 2] {
        let tags = [self.drift as u8, self.writer];
        let tags = u32::from(self.hits) | u32::from(u16::from_le_bytes(tags)) << 16;
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [join(self.last_tick, self.gap.to_bits()), join(self.count.to_bits(), tags)]
    }

    #[inline]
    pub(super) fn from_words([first, second]: [u64; 2]) -> Self {
        let [drift, writer] = ((second >> 48) as u16).to_le_bytes();
        Self {
            last_tick: first as u32,
            gap: f32::from_bits((first >> 32) as u32),
            count: f32::from_bits(second as u32),
            hits: (second >> 32) as u16,
            drift: drift as i8,
            writer,
        }
    }
}

/// Rate of the `observation`-th value of a moving average: an even mean until `alpha` takes over,
/// so the first value replaces whatever the average started from.
#[inline]
fn rate(alpha: f32, observation: u16) -> f32 {
    let even = 1.0 / f32::from(observation);
    if even > alpha { even } else { alpha }
}

/// Moves `mean` towards `value`. This form keeps a mean of equal values exactly; at rate 1 it takes
/// the value, because `mean + (value - mean)` loses a small value next to a large mean.
#[inline]
fn blend(mean: f32, value: f32, rate: f32) -> f32 {
    if rate < 1.0 { mean + rate * (value - mean) } else { value }
}

/// The nearest integer of a value within ±127, by adding a float so large that its mantissa has no
/// fraction; a checked conversion takes eight instructions more. Other values give any.
#[inline]
fn round(value: f32) -> i8 {
    const NO_FRACTION: f32 = 1.5 * (1 << 23) as f32;
    (value + NO_FRACTION).to_bits() as i8
}
