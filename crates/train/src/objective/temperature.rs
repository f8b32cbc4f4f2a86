//! The softmax's temperature, fixed or learned.
//!
//! Owns it and Adagrad's sum for its logarithm. Must never know: the logits.

use serde::{Deserialize, Serialize};

use crate::kernel::product::dot;
use crate::objective::ObjectiveSettings;
use crate::saved::Damaged;

/// A learned temperature stays in here: below, logits span more than e^{±80}; above, the softmax of
/// cosines is nearly flat.
const BOUNDS: (f32, f32) = (0.0125, 1.0);
/// Keeps the first step finite.
const EPSILON: f32 = 1e-8;

/// See the module's head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Temperature {
    value: f32,
    squares: f32,
    #[serde(skip)]
    learning_rate: f32,
}

impl Temperature {
    pub(crate) fn new(settings: &ObjectiveSettings) -> Self {
        let learning_rate = settings.temperature_learning_rate;
        Self { value: settings.temperature, squares: 0.0, learning_rate }
    }

    pub(crate) fn value(&self) -> f32 {
        self.value
    }

    /// Whether it is learned.
    pub(crate) fn learns(&self) -> bool {
        self.learning_rate > 0.0
    }

    /// One Adagrad step on log τ. The logits hold τ only in dot / τ, so the slope of the loss is
    /// read off the gradient that the queries get anyway: `dL/d log τ = -Σ <u_i, dL/du_i>`.
    /// Both are `[batch, dim]`.
    pub(crate) fn learn(&mut self, query: &[f32], gradient: &[f32]) {
        if !self.learns() {
            return;
        }
        let slope = -dot::<16>(query, gradient);
        self.squares += slope * slope;
        let step = self.learning_rate * slope / (self.squares.sqrt() + EPSILON);
        self.value = (self.value.ln() - step).exp().clamp(BOUNDS.0, BOUNDS.1);
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain numbers encode")
    }

    /// Takes over what [`Temperature::save`] gave. A fixed temperature is what the config says.
    pub(crate) fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let saved: Self = postcard::from_bytes(bytes)
            .map_err(|error| Damaged::undecodable("the temperature", error))?;
        if self.learns() {
            (self.value, self.squares) = (saved.value, saved.squares);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::matrix::Matrix;
    use crate::objective::softmax::{BatchSoftmax, LossInput, Positive};
    use millrace_events::SplitMix;

    /// The slope that is read off the query gradient is that of the loss (central difference), and
    /// descending it lowers the loss.
    #[test]
    fn learns_along_the_slope_of_the_loss() {
        let (batch, dim, mut random) = (20, 6, SplitMix::new(4));
        let mut rows = || -> Vec<f32> { (0..batch * dim).map(|_| random.uniform(0.7)).collect() };
        let (query, item) = (rows(), rows());
        let log_q: Vec<f32> = (0..batch).map(|i| -(i as f32) / 10.0).collect();
        let ids: Vec<u64> = (0..batch as u64).map(|i| i % 17).collect();
        let mut softmax = BatchSoftmax::default();
        let mut run = |temperature: f32| {
            let output = softmax.run(&LossInput {
                dim,
                query: Matrix::Host(&query),
                item: Matrix::Host(&item),
                candidates: batch,
                trained: batch,
                past: &[],
                merged: None,
                log_q: &log_q,
                positive: Positive::Sampled,
                item_ids: &ids,
                query_ids: None,
                had: None,
                rewards: &vec![1.0; batch],
                temperature,
                full_batch: batch,
            });
            (output.loss, output.query_gradient.clone())
        };
        let settings = ObjectiveSettings {
            temperature: 0.3,
            temperature_learning_rate: 0.05,
            ..ObjectiveSettings::default()
        };
        let mut temperature = Temperature::new(&settings);
        let before = run(0.3);
        temperature.learn(&query, &before.1);
        let slope = -dot::<16>(&query, &before.1);
        let difference = (run(0.3 * 1.01).0 - run(0.3 / 1.01).0) / (2.0 * 1.01f32.ln());
        assert!((slope - difference).abs() < 0.01 * slope.abs(), "{slope} {difference}");
        for _ in 0..200 {
            let (_, gradient) = run(temperature.value());
            temperature.learn(&query, &gradient);
        }
        assert!(run(temperature.value()).0 < before.0);
        let mut restored = Temperature::new(&settings);
        restored.load(&temperature.save()).expect("just written");
        assert_eq!(restored.value(), temperature.value());
        let fixed = ObjectiveSettings { temperature_learning_rate: 0.0, ..settings };
        let mut fixed = Temperature::new(&fixed);
        fixed.load(&temperature.save()).expect("just written");
        fixed.learn(&query, &before.1);
        assert_eq!(fixed.value(), 0.3);
    }
}
