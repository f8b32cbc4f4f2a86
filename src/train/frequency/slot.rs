//! One slot of the frequency estimator: what a hit does to its averages.
//!
//! Owns the arithmetic of Algorithms 2 and 3. Must never know: hashing, batches, other slots.

use super::Mode;

/// One bucket, or in exact mode one id: 16 bytes, so that a hit costs one cache line where the
/// paper's separate arrays cost one each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slot {
    /// The paper's A: step of the last hit, modulo 2^32.
    pub(super) last_step: u32,
    /// The paper's B: mean steps between hits.
    pub(super) gap: f32,
    /// C: mean occurrences per hit.
    pub(super) count: f32,
    /// Steps that hit this slot (paper mode: occurrences); saturates. 0 means never.
    pub(super) hits: u16,
    /// Fingerprint of the id that wrote last, see [`Frequency::collisions`].
    pub(super) writer: u16,
}

impl Slot {
    pub(super) const BYTES: usize = 16;

    pub(super) fn new(initial_gap: f32) -> Self {
        Self { last_step: 0, gap: initial_gap, count: 1.0, hits: 0, writer: 0 }
    }

    /// Steps since the last hit or, without one, since the start. The difference wraps, so it is
    /// right past step 2^32 for every gap below 2^32 steps (500 days at 100 steps a second).
    pub(super) fn open_gap(&self, step: u64) -> f32 {
        if self.hits == 0 { step as f32 } else { (step as u32).wrapping_sub(self.last_step) as f32 }
    }

    /// Records who writes; says whether another id wrote here last.
    pub(super) fn claim(&mut self, writer: u16) -> bool {
        let cut = self.hits > 0 && self.writer != writer;
        self.writer = writer;
        cut
    }

    /// One occurrence of an id of this slot. In default mode false, and nothing done, if the step
    /// has updated the slot already: further occurrences are left to [`repeat`](Self::repeat).
    pub(super) fn hit(&mut self, mode: Mode, alpha: f32, step: u64) -> bool {
        let gap = self.open_gap(step);
        match mode {
            Mode::Paper => self.gap = (1.0 - alpha) * self.gap + alpha * gap,
            Mode::Default if self.hits == 0 => {}
            Mode::Default if gap == 0.0 => return false,
            // The maximum only undoes rounding: gap and mean are at least 1.
            Mode::Default => self.gap = blend(self.gap, gap, rate(alpha, self.hits)).max(1.0),
        }
        self.last_step = step as u32;
        self.hits = self.hits.saturating_add(1);
        self.count = blend(self.count, 1.0, rate(alpha, self.hits));
        true
    }

    /// Completes C by the further occurrences of its last step: `(1 - r) C + r (1 + n)` is
    /// [`hit`](Self::hit)'s `(1 - r) C + r`, and `r n` here.
    pub(super) fn repeat(&mut self, alpha: f32, occurrences: usize) {
        self.count += rate(alpha, self.hits) * occurrences as f32;
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let floats = u128::from(self.gap.to_bits()) << 32 | u128::from(self.count.to_bits()) << 64;
        let tags = u128::from(self.hits) << 96 | u128::from(self.writer) << 112;
        (u128::from(self.last_step) | floats | tags).to_le_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let bits = u128::from_le_bytes(bytes);
        Self {
            last_step: bits as u32,
            gap: f32::from_bits((bits >> 32) as u32),
            count: f32::from_bits((bits >> 64) as u32),
            hits: (bits >> 96) as u16,
            writer: (bits >> 112) as u16,
        }
    }
}

/// Rate of the `observation`-th value of a moving average: an even mean until `alpha` takes over,
/// so the first value replaces whatever the average started from.
fn rate(alpha: f32, observation: u16) -> f32 {
    alpha.max(1.0 / f32::from(observation))
}

/// Moves `mean` towards `value`. This form keeps a mean of equal values exactly; at rate 1 it takes
/// the value, because `mean + (value - mean)` loses a small value next to a large mean.
fn blend(mean: f32, value: f32, rate: f32) -> f32 {
    if rate < 1.0 { mean + rate * (value - mean) } else { value }
}
