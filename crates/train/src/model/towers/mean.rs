//! The mean of a tower's weights over its steps, which fades: what vectors are made with, where the
//! config asks for it.
//!
//! The last step's weights are wherever its batch has pulled them; the mean lies in the middle of
//! where the last batches did. Training never reads it, so that it costs a pass over the weights a
//! full batch and nothing else. Small steps share a sample: a share of a hundredth of a thousandth
//! would be lost in the rounding of f32.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Layer;
use super::dense::{Parameter, VALUES_A_TASK};
use crate::portion::Portion;
use crate::saved::Damaged;

/// See the module's head.
pub(crate) struct Mean {
    /// Without an optimizer's state.
    pub(crate) layers: Vec<Layer>,
    /// Samples so far, one a full batch. Before the first the mean is the weights as they are.
    samples: u64,
    /// Since the last sample.
    events: u64,
}

/// The form in which it is saved.
#[derive(Serialize, Deserialize)]
pub(crate) struct MeanRecord {
    samples: u64,
    events: u64,
    /// Weight and bias of each layer.
    values: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Mean {
    /// Of `layers` alone.
    pub(crate) fn new(layers: &[Layer]) -> Self {
        let copy =
            |parameter: &Parameter| Parameter::new(parameter.values.clone(), parameter.shape());
        let copies = layers
            .iter()
            .map(|layer| Layer { weight: copy(&layer.weight), bias: copy(&layer.bias) });
        Self { layers: copies.collect(), samples: 0, events: 0 }
    }

    /// Takes in `layers` after a step of this `portion`; `decay` of what was before stays a full
    /// batch later. Samples count from the first on, not from weights that nobody has trained.
    pub(crate) fn follow(&mut self, layers: &[Layer], decay: f32, portion: Portion) {
        self.events += portion.events;
        if self.events >= portion.batch {
            self.events -= portion.batch;
            self.samples += 1;
        } else if self.samples > 0 {
            return;
        }
        let samples = i32::try_from(self.samples.max(1)).unwrap_or(i32::MAX);
        let share = (1.0 - decay) / (1.0 - decay.powi(samples));
        for (mean, layer) in self.layers.iter_mut().zip(layers) {
            move_by(&mut mean.weight.values, &layer.weight.values, share);
            move_by(&mut mean.bias.values, &layer.bias.values, share);
        }
    }

    /// Whether every value is a number.
    pub(crate) fn is_finite(&self) -> bool {
        self.layers.iter().all(|layer| layer.weight.is_finite() && layer.bias.is_finite())
    }

    pub(crate) fn record(&self) -> MeanRecord {
        let values = |layer: &Layer| (layer.weight.values.clone(), layer.bias.values.clone());
        let values = self.layers.iter().map(values).collect();
        MeanRecord { samples: self.samples, events: self.events, values }
    }

    /// Takes over what [`record`](Self::record) gave.
    pub(crate) fn load(&mut self, record: MeanRecord) -> Result<(), Damaged> {
        let MeanRecord { samples, events, values } = record;
        let fits = |(layer, (weight, bias)): (&Layer, &(Vec<f32>, Vec<f32>))| {
            layer.weight.values.len() == weight.len() && layer.bias.values.len() == bias.len()
        };
        if values.len() != self.layers.len() || !self.layers.iter().zip(&values).all(fits) {
            return Err("the mean of the towers' weights is damaged".into());
        }
        for (layer, (weight, bias)) in self.layers.iter_mut().zip(values) {
            layer.weight.values = weight;
            layer.bias.values = bias;
        }
        (self.samples, self.events) = (samples, events);
        Ok(())
    }
}

/// A share of 1 gives `values` to the bit.
fn move_by(mean: &mut [f32], values: &[f32], share: f32) {
    if share >= 1.0 {
        mean.copy_from_slice(values);
        return;
    }
    let chunks = mean.par_chunks_mut(VALUES_A_TASK).zip(values.par_chunks(VALUES_A_TASK));
    chunks.for_each(|(mean, values)| {
        mean.iter_mut().zip(values).for_each(|(mean, value)| *mean += share * (value - *mean));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(value: f32) -> [Layer; 1] {
        let of = |value| Parameter::new(vec![value], [1, 1]);
        [Layer { weight: of(value), bias: of(2.0 * value) }]
    }

    fn values(mean: &Mean) -> [f32; 2] {
        [mean.layers[0].weight.values[0], mean.layers[0].bias.values[0]]
    }

    /// Decay 1/2, weights 2, 5 and 1: 2; (2/2 + 5) / (1/2 + 1); (2/4 + 5/2 + 1) / (1/4 + 1/2 + 1).
    #[test]
    fn samples_by_hand() {
        let mut mean = Mean::new(&layer(70.0));
        assert_eq!(values(&mean), [70.0, 140.0]);
        for (weight, want) in [(2.0, 2.0), (5.0, 4.0), (1.0, 16.0 / 7.0)] {
            mean.follow(&layer(weight), 0.5, Portion::WHOLE);
            let [weight, bias] = values(&mean);
            assert!((weight - want).abs() < 1e-6 && (bias - 2.0 * want).abs() < 1e-6, "{weight}");
        }
    }

    #[test]
    fn small_steps_share_a_sample() {
        let mut mean = Mean::new(&layer(0.0));
        let mut step = |weight: f32, events, want: f32| {
            mean.follow(&layer(weight), 0.5, Portion { events, batch: 4 });
            assert!((values(&mean)[0] - want).abs() < 1e-6, "{weight}");
        };
        // The weights themselves until a full batch has come.
        step(7.0, 1, 7.0);
        step(8.0, 2, 8.0);
        step(2.0, 2, 2.0);
        step(3.0, 2, 2.0);
        step(5.0, 1, 4.0);
        step(9.0, 3, 4.0);
        step(1.0, 1, 16.0 / 7.0);
    }
}
