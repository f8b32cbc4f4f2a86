//! Row-wise Adagrad: one accumulator a row.

use super::TableSettings;
use crate::kernel::product::dot;
use crate::portion::Portion;

/// What is left of an accumulator after so many events. Rows that follow each other mostly waited
/// alike, and a power costs as much as a row's update.
pub(super) struct Decay {
    decay: f32,
    batch: u64,
    /// The last answer, and its question.
    last: (u32, f32),
}

impl Decay {
    pub(super) fn new(settings: &TableSettings) -> Self {
        Self { decay: settings.decay, batch: settings.batch, last: (0, 1.0) }
    }

    /// After `wait` events, at most a batch.
    pub(super) fn after(&mut self, wait: u32) -> f32 {
        if wait != self.last.0 {
            let waited = Portion { events: u64::from(wait), batch: self.batch };
            self.last = (wait, waited.left(self.decay));
        }
        self.last.1
    }
}

/// One step of one row; `values` and `gradient` are `[dim]`. Nothing moves without a gradient, nor
/// by one whose square is not finite: false for that.
pub(super) fn descend(
    values: &mut [f32],
    accumulator: &mut f32,
    gradient: &[f32],
    decay: f32,
    settings: &TableSettings,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { descend_avx2(values, accumulator, gradient, decay, settings) };
    }
    descend_lanes(values, accumulator, gradient, decay, settings)
}

/// The same additions and products, eight at once: the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn descend_avx2(
    values: &mut [f32],
    accumulator: &mut f32,
    gradient: &[f32],
    decay: f32,
    settings: &TableSettings,
) -> bool {
    descend_lanes(values, accumulator, gradient, decay, settings)
}

#[inline(always)]
fn descend_lanes(
    values: &mut [f32],
    accumulator: &mut f32,
    gradient: &[f32],
    decay: f32,
    settings: &TableSettings,
) -> bool {
    let TableSettings { dim, learning_rate, epsilon, .. } = *settings;
    let squares = dot::<8>(gradient, gradient);
    if squares == 0.0 || !squares.is_finite() {
        return squares == 0.0;
    }
    *accumulator = *accumulator * decay + squares / dim as f32;
    let rate = learning_rate / (accumulator.sqrt() + epsilon);
    for (value, g) in values.iter_mut().zip(gradient) {
        *value -= rate * g;
    }
    true
}
