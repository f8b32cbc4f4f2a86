//! Scaling of numbers, and the statistics streamed for it.

use serde::{Deserialize, Serialize};

/// How a number becomes an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scaling {
    Raw,
    Log,
    Zscore { statistic: usize },
}

/// Streamed mean and variance of each `zscore` number (Welford).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics(Vec<Moments>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Scaling {
    pub(super) fn apply(self, x: f32, statistics: &Statistics) -> f32 {
        match self {
            Self::Raw => x,
            Self::Log => x.signum() * x.abs().ln_1p(),
            Self::Zscore { statistic } => statistics.zscore(statistic, x),
        }
    }
}

impl Statistics {
    pub(super) fn observe(&mut self, statistic: usize, values: &[f32]) {
        if self.0.len() <= statistic {
            self.0.resize(statistic + 1, Moments::default());
        }
        let moments = &mut self.0[statistic];
        for &value in values {
            let value = f64::from(value);
            moments.count += 1.0;
            let difference = value - moments.mean;
            moments.mean += difference / moments.count;
            moments.squares += difference * (value - moments.mean);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a z-score fits a f32")]
    fn zscore(&self, statistic: usize, x: f32) -> f32 {
        let Some(moments) = self.0.get(statistic).filter(|moments| moments.count > 1.0) else {
            return 0.0;
        };
        let deviation = (moments.squares / (moments.count - 1.0)).sqrt();
        if deviation > 0.0 { ((f64::from(x) - moments.mean) / deviation) as f32 } else { 0.0 }
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
    fn logs_keep_the_sign() {
        let statistics = Statistics::default();
        let log = |x: f32| Scaling::Log.apply(x, &statistics);
        assert_eq!((log(0.0), log(-1.0)), (0.0, -(2.0f32.ln())));
    }
}
