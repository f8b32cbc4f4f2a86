//! `alpha = "auto"`: several rates side by side on a sample of the traffic, and the one that lately
//! forecast it best.
//!
//! Owns the sample and the scores. Must never know: the table whose rate it chooses.

use super::slot::{Rule, Slot};
use super::slots::Key;

/// The rates tried, a factor of 4 apart: the error of the best lies within a few per cent of that
/// of the best rate between them. The slowest averages 1,000 hits (noise 2 %), the fastest 4.
pub(super) const LADDER: [f32; 5] = [0.001, 0.004, 0.016, 0.064, 0.256];

/// Ids followed, over all shards. They are the heads of the traffic, where most of it is; with 96
/// bytes each they fit the second-level cache.
const FOLLOWED: usize = 2048;

/// Copies in which a score fades to about a third, that is how lately "lately" is: enough to tell
/// rates apart that differ by a few thousandths of a nat a copy, and a few dozen batches at most.
const MEMORY_COPIES: f64 = 65_536.0;

/// A score this little worse, in nats a copy, is as good: what 6 % of noise costs. The slower rate
/// is the safer one, since drift has the guard.
const AS_GOOD_NATS: f64 = 0.002;

/// Most misses that a followed id outlives: a head that is gone makes room soon.
const CREDIT_MAX: u32 = 64;

/// What each rate's forecasts were worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Scores {
    /// Log-likelihoods, in nats, up to a constant that all rates share.
    pub(super) nats: [f64; LADDER.len()],
    /// Copies that were scored.
    pub(super) copies: f64,
}

impl Scores {
    /// Takes in one step. Older steps fade by the copies that came since, not by time.
    pub(super) fn add(&mut self, step: &Self) {
        let keep = 1.0 / (1.0 + step.copies / MEMORY_COPIES);
        for (nats, new) in self.nats.iter_mut().zip(step.nats) {
            *nats = keep * *nats + new;
        }
        self.copies = keep * self.copies + step.copies;
    }

    /// The slowest of the rates whose score is as good as the best.
    pub(super) fn best(&self) -> f32 {
        let best = self.nats.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let good = |nats: &f64| *nats >= best - AS_GOOD_NATS * self.copies;
        LADDER[self.nats.iter().position(good).expect("the best is as good as itself")]
    }
}

/// One followed id: a slot for each rate.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Followed {
    pub(super) id: u64,
    pub(super) credit: u32,
    pub(super) slots: [Slot; LADDER.len()],
}

/// The sample of one shard. An id has one place; there it stays while it comes more often than
/// others want the place (Misra and Gries' counter, one a place), so heads win it.
pub(super) struct Ladder {
    pub(super) followed: Vec<Followed>,
}

impl Ladder {
    /// One of `shards` that together follow `FOLLOWED` ids.
    pub(super) fn new(shards: usize) -> Self {
        Self { followed: vec![Followed::default(); FOLLOWED / shards] }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.followed)
    }

    /// Scores the forecast of `copies` of one id at `tick` under each rate, then lets each learn.
    pub(super) fn observe(
        &mut self,
        rules: &[Rule; LADDER.len()],
        tick: u64,
        key: Key,
        copies: u32,
        scores: &mut Scores,
    ) {
        let place = key.hash as usize % self.followed.len();
        let followed = &mut self.followed[place];
        if followed.credit == 0 {
            *followed = Followed { id: key.id, ..Followed::default() };
        } else if followed.id != key.id {
            followed.credit = followed.credit.saturating_sub(copies);
            return;
        }
        followed.credit = followed.credit.saturating_add(copies).min(CREDIT_MAX);
        // None of the slots knows a gap, or all do.
        for (slot, nats) in followed.slots.iter().zip(&mut scores.nats) {
            *nats += slot.score(tick, copies as f32).unwrap_or_default();
        }
        if followed.slots[0].hits > 1 {
            scores.copies += f64::from(copies);
        }
        for (slot, rule) in followed.slots.iter_mut().zip(rules) {
            slot.observe(rule, tick, copies);
        }
    }
}
