//! The towers' dense weights, the rule that moves them, and the form in which both are saved.
//!
//! They live on the host whatever the device: a few hundred kilobytes, which a GPU is sent after
//! each step. burn's optimizers took 0.7 of 11 ms a step on them at batch 1024 (fresh tensors for
//! every operation), know no decay of Adagrad's sums, and key their records by random ids, so that
//! two equal states differ.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::portion::Portion;
use crate::saved::{Damaged, decode_first};

/// Adam's decay of both moments, as published (Kingma and Ba 2015).
const ADAM_DECAYS: (f32, f32) = (0.9, 0.999);
/// Values a task of an update: below some ten thousand a second thread costs more than it does.
pub(crate) const VALUES_A_TASK: usize = 16_384;

/// Which rule moves the dense weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenseRule {
    /// `sum = decay sum + g²`, `value -= rate g / (sqrt(sum) + epsilon)`: the paper's, with a
    /// decay of 1.
    Adagrad,
    /// Adam, bias-corrected; a decay of its own kind is built in.
    Adam,
}

/// The rule and its constants.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseSettings {
    /// Which.
    pub rule: DenseRule,
    /// Its rate.
    pub learning_rate: f32,
    /// Added to the root of the sum.
    pub epsilon: f32,
    /// Adagrad: what is left of the sums a full batch later, in (0, 1].
    pub decay: f32,
    /// What is left of the weights' mean a full batch later, in (0, 1): vectors outside of training
    /// are made with it. 0: with the weights as they are.
    pub average: f32,
}

/// One weight array with its optimizer's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parameter {
    /// `[inputs, outputs]`
    pub(crate) values: Vec<f32>,
    shape: [usize; 2],
    /// Sums (Adagrad) or means (Adam) of squared gradients.
    squares: Vec<f32>,
    /// Means of gradients (Adam).
    means: Vec<f32>,
    /// Events that the updates so far were made of.
    events: u64,
}

/// Everything dense, by name, in a fixed order: the form in which it is saved.
#[derive(Serialize, Deserialize)]
pub(crate) struct DenseRecord {
    version: u8,
    rule: DenseRule,
    parameters: Vec<(String, Parameter)>,
}

/// Version 1 were burn's optimizers, version 2 counted updates where this counts events.
const VERSION: u8 = 3;

impl Parameter {
    pub(crate) fn new(values: Vec<f32>, shape: [usize; 2]) -> Self {
        assert_eq!(values.len(), shape[0] * shape[1], "values are not of this shape");
        Self { values, shape, squares: Vec::new(), means: Vec::new(), events: 0 }
    }

    /// `[inputs, outputs]`
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Whether every value is a number.
    pub(crate) fn is_finite(&self) -> bool {
        self.values.iter().chain(&self.squares).chain(&self.means).all(|value| value.is_finite())
    }

    /// One step against `gradient`, of the values' shape: the sum over the step's events, divided
    /// by the events of a full batch. All else that a step does is scaled by its `portion`. Sums of
    /// squares take small steps as they come: where events disagree, theirs add up to what the full
    /// batch's gradient has.
    pub(crate) fn update(&mut self, gradient: &[f32], settings: &DenseSettings, portion: Portion) {
        let length = self.values.len();
        assert_eq!(gradient.len(), length, "the gradient is not of the values' shape");
        self.events += portion.events;
        self.squares.resize(length, 0.0);
        match settings.rule {
            DenseRule::Adagrad => self.adagrad(gradient, settings, portion),
            DenseRule::Adam => self.adam(gradient, settings, portion),
        }
    }

    fn adagrad(&mut self, gradient: &[f32], settings: &DenseSettings, portion: Portion) {
        let DenseSettings { learning_rate, epsilon, decay, .. } = *settings;
        let decay = portion.left(decay);
        let values = self.values.par_chunks_mut(VALUES_A_TASK);
        let squares = self.squares.par_chunks_mut(VALUES_A_TASK);
        let chunks = values.zip(squares).zip(gradient.par_chunks(VALUES_A_TASK));
        chunks.for_each(|((values, squares), gradients)| {
            for ((value, square), g) in values.iter_mut().zip(squares).zip(gradients) {
                *square = *square * decay + g * g;
                *value -= learning_rate * g / (square.sqrt() + epsilon);
            }
        });
    }

    fn adam(&mut self, gradient: &[f32], settings: &DenseSettings, portion: Portion) {
        let DenseSettings { learning_rate, epsilon, .. } = *settings;
        self.means.resize(self.values.len(), 0.0);
        let rate = learning_rate * portion.share();
        let so_far = Portion { events: self.events, ..portion }.share();
        // The first decay is of the mean, the second of the squares.
        let (first, second) = ADAM_DECAYS;
        let (bias, bias_squares) = (1.0 - first.powf(so_far), 1.0 - second.powf(so_far));
        let (left, left_squares) = (portion.left(first), portion.left(second));
        let values = self.values.par_chunks_mut(VALUES_A_TASK);
        let squares = self.squares.par_chunks_mut(VALUES_A_TASK);
        let means = self.means.par_chunks_mut(VALUES_A_TASK);
        let chunks = values.zip(squares).zip(means).zip(gradient.par_chunks(VALUES_A_TASK));
        chunks.for_each(|(((values, squares), means), gradients)| {
            let states = values.iter_mut().zip(squares).zip(means);
            for (((value, square), mean), g) in states.zip(gradients) {
                *mean = left * *mean + (1.0 - first) * g;
                *square = left_squares * *square + (1.0 - second) * g * g;
                let root = (*square / bias_squares).sqrt();
                *value -= rate * (*mean / bias) / (root + epsilon);
            }
        });
    }
}

impl DenseRecord {
    pub(crate) fn new(rule: DenseRule) -> Self {
        Self { version: VERSION, rule, parameters: Vec::new() }
    }

    pub(crate) fn push(&mut self, name: String, parameter: &Parameter) {
        self.parameters.push((name, parameter.clone()));
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain numbers always encode")
    }

    /// What [`DenseRecord::save`] gave, if it was trained with `rule`, and the bytes behind it.
    pub(crate) fn load(bytes: &[u8], rule: DenseRule) -> Result<(Self, &[u8]), Damaged> {
        match bytes.first() {
            Some(&VERSION) => {}
            version => {
                return Err(Damaged(format!(
                    "the towers are of version {}, this program reads {VERSION}; it cannot go on \
                     from this checkpoint",
                    version.map_or_else(|| "unknown".to_owned(), u8::to_string)
                )));
            }
        }
        let (record, rest): (Self, _) = decode_first("towers", bytes)?;
        if record.rule != rule {
            return Err(Damaged(format!(
                "the towers were trained with {:?}, not {rule:?}",
                record.rule
            )));
        }
        Ok((record, rest))
    }

    /// Moves the next parameter into `parameter`, which must have its name and shape.
    pub(crate) fn take(&mut self, name: &str, parameter: &mut Parameter) -> Result<(), Damaged> {
        if self.parameters.is_empty() {
            return Err(Damaged(format!("the checkpoint has no {name}")));
        }
        let (saved_name, saved) = self.parameters.remove(0);
        if saved_name != name || saved.shape != parameter.shape {
            return Err(Damaged(format!(
                "the checkpoint has {saved_name} {:?} where this model has {name} {:?}",
                saved.shape, parameter.shape
            )));
        }
        let whole = |part: &[f32]| part.is_empty() || part.len() == saved.values.len();
        let length = saved.shape[0] * saved.shape[1];
        if saved.values.len() != length || !whole(&saved.squares) || !whole(&saved.means) {
            return Err(Damaged(format!("{name} is damaged")));
        }
        *parameter = saved;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), Damaged> {
        match self.parameters.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Damaged(format!("the checkpoint has {name}, which this model lacks")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rule: DenseRule, decay: f32) -> DenseSettings {
        DenseSettings { rule, learning_rate: 0.1, epsilon: 0.0, decay, average: 0.0 }
    }

    /// Gradients 3 and 4: the sum is 9 and then 25, or 9/2 + 16 = 20.5 with a decay of one half.
    #[test]
    fn adagrad_by_hand() {
        for (decay, sum) in [(1.0, 25.0f32), (0.5, 20.5)] {
            let mut parameter = Parameter::new(vec![1.0, 1.0], [1, 2]);
            parameter.update(&[3.0, -3.0], &settings(DenseRule::Adagrad, decay), Portion::WHOLE);
            assert_eq!(parameter.values, [0.9, 1.1]);
            parameter.update(&[4.0, -4.0], &settings(DenseRule::Adagrad, decay), Portion::WHOLE);
            let step = 0.1 * 4.0 / sum.sqrt();
            assert!((parameter.values[0] - (0.9 - step)).abs() < 1e-6);
            assert!((parameter.values[1] - (1.1 + step)).abs() < 1e-6);
        }
    }

    /// Bias-corrected, so the first step has the rate's length; after gradients 1 and 3 the means
    /// are (.9 * .1 + .3) / (1 - .81) and (.999 * .001 + .009) / (1 - .998001).
    #[test]
    fn adam_by_hand() {
        let mut parameter = Parameter::new(vec![0.0], [1, 1]);
        parameter.update(&[1.0], &settings(DenseRule::Adam, 1.0), Portion::WHOLE);
        assert!((parameter.values[0] + 0.1).abs() < 1e-6);
        parameter.update(&[3.0], &settings(DenseRule::Adam, 1.0), Portion::WHOLE);
        let step = 0.1 * (0.39 / 0.19) / (0.009_999_f64 / 0.001_999).sqrt();
        assert!((f64::from(parameter.values[0]) + 0.1 + step).abs() < 1e-5);
    }

    /// One full batch, and the same in halves that agree: the sums of halves are smaller, so the
    /// steps are longer, by no more than the root of 2.
    #[test]
    fn halves_of_a_batch_move_as_far() {
        for rule in [DenseRule::Adagrad, DenseRule::Adam] {
            let settings = settings(rule, 0.9);
            let (mut whole, mut halves) =
                (Parameter::new(vec![0.0], [1, 1]), Parameter::new(vec![0.0], [1, 1]));
            let length = |parameter: &mut Parameter, events: u64| {
                let before = parameter.values[0];
                for _ in 0..64 / events {
                    let part = Portion { events, batch: 64 };
                    parameter.update(&[part.share()], &settings, part);
                }
                before - parameter.values[0]
            };
            for _ in 0..50 {
                length(&mut whole, 64);
                length(&mut halves, 32);
            }
            let ratio = length(&mut halves, 32) / length(&mut whole, 64);
            assert!((1.0..1.45).contains(&ratio), "{rule:?}: {ratio}");
        }
    }
}
