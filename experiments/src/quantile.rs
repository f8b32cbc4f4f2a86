//! Quantiles of what was measured.

/// The value below which `share` of `sorted` lie, rounded down to one that is there.
///
/// # Panics
/// If there is none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}
