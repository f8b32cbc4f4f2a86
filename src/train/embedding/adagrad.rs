//! Row-wise Adagrad: one accumulator a row.

use super::TableSettings;
use crate::train::product::dot;

/// One step of one row; `values` and `gradient` are `[dim]`.
pub(super) fn descend(
    values: &mut [f32],
    accumulator: &mut f32,
    gradient: &[f32],
    settings: &TableSettings,
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function was compiled for.
        unsafe { descend_avx2(values, accumulator, gradient, settings) };
        return;
    }
    descend_lanes(values, accumulator, gradient, settings);
}

/// The same additions and products, eight at once: the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn descend_avx2(
    values: &mut [f32],
    accumulator: &mut f32,
    gradient: &[f32],
    settings: &TableSettings,
) {
    descend_lanes(values, accumulator, gradient, settings);
}

#[inline(always)]
fn descend_lanes(
    values: &mut [f32],
    accumulator: &mut f32,
    gradient: &[f32],
    settings: &TableSettings,
) {
    let TableSettings { dim, learning_rate, epsilon, decay, .. } = *settings;
    *accumulator = *accumulator * decay + dot::<8>(gradient, gradient) / dim as f32;
    let rate = learning_rate / (accumulator.sqrt() + epsilon);
    for (value, g) in values.iter_mut().zip(gradient) {
        *value -= rate * g;
    }
}
