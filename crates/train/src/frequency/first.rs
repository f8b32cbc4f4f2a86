//! How long the items that are seen for the first time have stayed away until their second sight.
//!
//! Owns the sum of such waits. An item's first sight says nothing of its frequency; those before it
//! do. Where items are born and die by the hour the second sight follows within a batch, in a long
//! tail after thousands. A constant is wrong in one of the two, by 3 to 4 nats.
//!
//! # The estimate
//! Second sights over the batches waited for them, open waits counted: the rate at which ids that
//! were seen once are seen again. In a stream that stands still this rate is the same at every age
//! of the wait (an id of frequency λ, seen once by the time t, has weight `λ e^(-λ t)` whenever
//! that sight was), and it is Good and Turing's `2 N2 / (N1 t)`. So young waits are enough, and
//! they alone tell a newborn item from one that died after a single click.
//!
//! The rate is a mean of frequencies, and the loss takes logarithms. A positive number of which the
//! mean alone is known is taken to be exponentially distributed; its logarithm then lies
//! [`LOG_OF_MEAN`](super::slot::LOG_OF_MEAN) nats below that of the mean.

use super::slot::{Slot, TICKS};

/// Waits are followed for so many batches: enough that a long tail shows second sights at all, few
/// enough that what died does not pass for rare.
const YOUNG: usize = 32;

/// Second sights in which the sums fade to a third: a noise of 6 %.
const MEMORY: f64 = 256.0;

/// Second sights that the configured gap counts for at the start.
const PRIOR: f64 = 8.0;

/// What one shard saw of it in one update.
#[derive(Clone, Debug, Default)]
pub(super) struct Sights {
    /// Ids seen for the first time.
    first: u64,
    /// Ids seen for the second time: the ticks since the first.
    second: Vec<u32>,
    /// As many whose slot was taken over by another id meanwhile.
    lost: Vec<u32>,
}

impl Sights {
    pub(super) fn clear(&mut self) {
        self.first = 0;
        self.second.clear();
        self.lost.clear();
    }

    /// An id meets `slot`, as it was before, at `tick`; `taken`: another id wrote there last.
    #[inline]
    pub(super) fn note(&mut self, slot: &Slot, tick: u64, taken: bool) {
        match slot.hits {
            0 => self.first += 1,
            1 => {
                let waited = (tick as u32).wrapping_sub(slot.last_tick);
                if waited > 0 && u64::from(waited) < YOUNG as u64 * TICKS {
                    let gaps = if taken { &mut self.lost } else { &mut self.second };
                    gaps.push(waited);
                }
            }
            _ => {}
        }
    }
}

/// The waits of all shards.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FirstGaps {
    /// Second sights, fading.
    second: f64,
    /// Batches waited, fading alike.
    waited: f64,
    /// Ids that wait, by the batch of their first sight modulo [`YOUNG`].
    young: [u64; YOUNG],
    tick: u64,
}

impl FirstGaps {
    pub(super) const BYTES: usize = 8 * (YOUNG + 3);

    /// Before the first event: a gap of `initial_gap` batches.
    pub(super) fn new(initial_gap: f32) -> Self {
        let waited = PRIOR * f64::from(initial_gap);
        Self { second: PRIOR, waited, young: [0; YOUNG], tick: 0 }
    }

    /// Batches from a first sight to the second, as of now.
    pub(super) fn gap(&self) -> f32 {
        (self.waited / self.second) as f32
    }

    /// Takes in an update at `tick`: those who wait have waited on, then come the sights.
    pub(super) fn update<'s>(&mut self, tick: u64, sights: impl Iterator<Item = &'s Sights>) {
        let young: u64 = self.young.iter().sum();
        // A pause of more than the whole span is one of the span: none waits longer.
        let ticks = (tick - self.tick).min(YOUNG as u64 * TICKS);
        self.waited += young as f64 * ticks as f64 / TICKS as f64;
        let (before, batch) = (self.tick / TICKS, tick / TICKS);
        for aged in (before + 1..=batch).rev().take(YOUNG) {
            self.young[aged as usize % YOUNG] = 0;
        }
        self.tick = tick;
        let mut second = 0;
        for sights in sights {
            self.young[batch as usize % YOUNG] += sights.first;
            second += sights.second.len();
            for &waited in sights.second.iter().chain(&sights.lost) {
                let born = (tick - u64::from(waited)) / TICKS;
                // Within a batch of the span's end the place may be another batch's by now.
                if batch - born < YOUNG as u64 {
                    let young = &mut self.young[born as usize % YOUNG];
                    *young = young.saturating_sub(1);
                }
            }
        }
        if second > 0 {
            let keep = 1.0 / (1.0 + second as f64 / MEMORY);
            self.second = (self.second + second as f64) * keep;
            self.waited *= keep;
        }
    }

    /// The tick of the last update.
    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    /// Appends it to `out`.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.second.to_le_bytes());
        out.extend(self.waited.to_le_bytes());
        out.extend(self.tick.to_le_bytes());
        self.young.iter().for_each(|young| out.extend(young.to_le_bytes()));
    }

    /// What [`save`](Self::save) appended.
    pub(super) fn load(bytes: [u8; Self::BYTES]) -> Self {
        let number = |at: usize| {
            let bytes = bytes[8 * at..].first_chunk::<8>().expect("the array has as many");
            u64::from_le_bytes(*bytes)
        };
        Self {
            second: f64::from_bits(number(0)),
            waited: f64::from_bits(number(1)),
            tick: number(2),
            young: std::array::from_fn(|at| number(3 + at)),
        }
    }
}
