//! Scaling of numbers, and the statistics streamed for it.

use serde::{Deserialize, Serialize};

/// A raw number is kept within this. Beside embeddings of ±.05 a hundred is much; what is greater
/// by far saturates the tower, and near f32's limit it makes every product infinite.
pub(crate) const RAW_MAX: f32 = 1e4;

/// A z-score is kept within this: in ordinary data one in two million lies outside.
const ZSCORE_MAX: f32 = 5.0;

/// Events after which moments have faded to a third, so that a number whose law drifts is scaled by
/// what it is of late.
const MEMORY: f64 = 1e6;

/// Once so many values are known, one counts for at most [`OUTLIER`] deviations: a single wrong
/// number must not flatten a feature for a million events.
const KNOWN: f64 = 1000.0;
const OUTLIER: f64 = 20.0;

/// How a number becomes an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scaling {
    Raw,
    Log,
    Zscore { statistic: usize },
}

/// Streamed mean and variance of each `zscore` number (Welford), fading over a million events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics(Vec<Moments>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Scaling {
    pub(crate) fn apply(self, x: f32, statistics: &Statistics) -> f32 {
        match self {
            Self::Raw => x.clamp(-RAW_MAX, RAW_MAX),
            Self::Log => x.signum() * x.abs().ln_1p(),
            Self::Zscore { statistic } => statistics.zscore(statistic, x),
        }
    }
}

impl Statistics {
    pub(crate) fn observe(&mut self, statistic: usize, values: &[f32]) {
        if self.0.len() <= statistic {
            self.0.resize(statistic + 1, Moments::default());
        }
        let moments = &mut self.0[statistic];
        values.iter().for_each(|&value| moments.observe(f64::from(value)));
    }

    /// Whether they may come from numbers.
    pub(crate) fn plausible(&self) -> bool {
        self.0.iter().all(|&Moments { count, mean, squares }| {
            (0.0..=MEMORY).contains(&count) && mean.is_finite() && (0.0..).contains(&squares)
        })
    }

    /// Mean and deviation by which a number is scaled; none: it counts as 0.
    pub fn moments(&self, statistic: usize) -> Option<(f64, f64)> {
        let moments = self.0.get(statistic).filter(|moments| moments.count > 1.0)?;
        let deviation = moments.deviation();
        (deviation > 0.0).then_some((moments.mean, deviation))
    }

    #[expect(clippy::cast_possible_truncation, reason = "a z-score fits a f32")]
    fn zscore(&self, statistic: usize, x: f32) -> f32 {
        let Some((mean, deviation)) = self.moments(statistic) else { return 0.0 };
        let score = ((f64::from(x) - mean) / deviation) as f32;
        score.clamp(-ZSCORE_MAX, ZSCORE_MAX)
    }
}

impl Moments {
    fn deviation(&self) -> f64 {
        (self.squares / (self.count - 1.0)).sqrt()
    }

    fn observe(&mut self, mut value: f64) {
        if self.count >= KNOWN {
            let span = OUTLIER * self.deviation();
            // A number that never differed has no span, and must be able to begin.
            if span > 0.0 {
                value = value.clamp(self.mean - span, self.mean + span);
            }
        }
        if self.count < MEMORY {
            self.count += 1.0;
        } else {
            self.squares *= 1.0 - 1.0 / MEMORY;
        }
        let difference = value - self.mean;
        self.mean += difference / self.count;
        self.squares += difference * (value - self.mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zscores_use_the_mean_and_deviation_so_far() {
        let mut statistics = Statistics::default();
        assert_eq!(Scaling::Zscore { statistic: 0 }.apply(5.0, &statistics), 0.0);
        statistics.observe(0, &[2.0, 4.0]);
        statistics.observe(0, &[4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        // Mean 5, sample deviation sqrt(32 / 7).
        let expected = 4.0 / (32.0f32 / 7.0).sqrt();
        let found = Scaling::Zscore { statistic: 0 }.apply(9.0, &statistics);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn one_number_near_the_limit_does_not_kill_a_feature() {
        let mut statistics = Statistics::default();
        let values: Vec<f32> = (0..2000).map(|i| (i % 10) as f32).collect();
        statistics.observe(0, &values);
        let zscore =
            |x: f32, statistics: &Statistics| Scaling::Zscore { statistic: 0 }.apply(x, statistics);
        let before = zscore(9.0, &statistics);
        assert_eq!(zscore(3e38, &statistics), ZSCORE_MAX);
        statistics.observe(0, &[3e38]);
        let after = zscore(9.0, &statistics);
        assert!(before > 1.0 && (after - before).abs() < 0.2, "{before} {after}");
        assert_eq!(Scaling::Raw.apply(-3e38, &statistics), -RAW_MAX);
    }

    #[test]
    fn moments_follow_a_law_that_drifts() {
        let mut statistics = Statistics::default();
        let around =
            |mean: f32| -> Vec<f32> { (0..3_000_000).map(|i| mean + (i % 3) as f32).collect() };
        statistics.observe(0, &around(0.0));
        statistics.observe(0, &around(10.0));
        let score = Scaling::Zscore { statistic: 0 }.apply(11.0, &statistics);
        // With moments of all time 11 would lie one deviation above a mean of 6.
        assert!(score.abs() < 0.3, "{score}");
    }

    #[test]
    fn what_no_numbers_give_is_known() {
        let mut statistics = Statistics::default();
        statistics.observe(0, &[3e38, -3e38, 0.0]);
        assert!(statistics.plausible());
        for moments in [
            Moments { mean: f64::NAN, ..statistics.0[0] },
            Moments { mean: f64::INFINITY, ..statistics.0[0] },
            Moments { count: -1.0, ..statistics.0[0] },
            Moments { squares: -1.0, ..statistics.0[0] },
        ] {
            assert!(!Statistics(vec![moments]).plausible(), "{moments:?}");
        }
    }

    #[test]
    fn logs_keep_the_sign() {
        let statistics = Statistics::default();
        let log = |x: f32| Scaling::Log.apply(x, &statistics);
        assert_eq!((log(0.0), log(-1.0)), (0.0, -(2.0f32.ln())));
    }
}
