//! A figure measured once a seed: mean and spread.

use serde_json::{Value, json};

/// Mean and standard deviation over the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) mean: f64,
    /// With n - 1; 0 for a single value.
    pub(super) sd: f64,
}

impl Sample {
    pub(super) fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, sd: (squares / (count - 1.0).max(1.0)).sqrt() }
    }

    /// Puts `name` and `<name>_sd` into an object of the results.
    pub(super) fn put(self, object: &mut Value, name: &str) {
        object[name] = rounded(self.mean);
        object[format!("{name}_sd")] = rounded(self.sd);
    }
}

/// To six decimals: more are noise.
pub(super) fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_spread_by_hand() {
        assert_eq!(Sample::new([1.0, 2.0, 3.0]), Sample { mean: 2.0, sd: 1.0 });
        assert_eq!(Sample::new([5.0]), Sample { mean: 5.0, sd: 0.0 });
    }
}
