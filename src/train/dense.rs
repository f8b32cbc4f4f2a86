//! Dense weights, burn's optimizers on them, and the form in which both are saved.
//!
//! Plain tensors in a fixed order: burn's module records are keyed by random parameter ids, which
//! would make two equal states differ.

use burn::optim::{AdaGrad, AdaGradConfig, Adam, AdamConfig, Optimizer, RecordState};
use burn::optim::{StateSink, StateSource};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Which of burn's optimizers moves the dense weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseRule {
    /// Adagrad, the paper's.
    Adagrad,
    /// Adam.
    Adam,
}

/// One weight tensor with its optimizer's state.
pub(super) struct Parameter<const D: usize> {
    pub(super) value: Tensor<D>,
    state: Option<OptimizerState<D>>,
}

/// The rule at work.
pub(super) enum DenseOptimizer {
    Adagrad(AdaGrad),
    Adam(Adam),
}

#[expect(clippy::large_enum_variant, reason = "a handful of these exist, one a parameter")]
pub(super) enum OptimizerState<const D: usize> {
    Adagrad(<AdaGrad as Optimizer>::State<D>),
    Adam(<Adam as Optimizer>::State<D>),
}

/// Everything dense, by name, in a fixed order: the form in which it is saved.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct DenseRecord {
    pub(super) tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    pub(super) counters: Vec<(String, u64)>,
}

impl<const D: usize> Parameter<D> {
    pub(super) fn new(values: Vec<f32>, shape: [usize; D], device: &Device) -> Self {
        Self { value: Tensor::from_data(TensorData::new(values, shape), device), state: None }
    }

    pub(super) fn update(
        &mut self,
        gradient: Tensor<D>,
        optimizer: &DenseOptimizer,
        learning_rate: f64,
    ) {
        let (value, state) =
            optimizer.step(learning_rate, self.value.clone(), gradient, self.state.take());
        self.value = value;
        self.state = state;
    }

    pub(super) fn save(&self, name: &str, record: &mut DenseRecord) {
        let mut push = |name: String, data: TensorData| {
            let shape = data.shape().iter().copied().collect();
            let values = data.try_into_vec().expect("towers compute in f32");
            record.tensors.push((name, shape, values));
        };
        push(name.to_owned(), self.value.to_data());
        let mut sink = StateSink::default();
        match &self.state {
            None => {}
            Some(OptimizerState::Adagrad(state)) => state.state_flatten(name, &mut sink),
            Some(OptimizerState::Adam(state)) => state.state_flatten(name, &mut sink),
        }
        for (name, data) in sink.tensors {
            push(name, data);
        }
        for (name, scalar) in sink.scalars {
            let count = u64::try_from(scalar).expect("optimizers count steps in integers");
            record.counters.push((name, count));
        }
    }

    pub(super) fn load(
        &mut self,
        name: &str,
        source: &mut DenseSource,
        optimizer: &DenseOptimizer,
        device: &Device,
    ) -> Result<(), String> {
        let data = source.take(name)?;
        let (own, saved) = (self.value.shape(), data.shape());
        if *saved != own {
            return Err(format!("{name} is {saved:?} in the checkpoint, {own:?} here"));
        }
        self.value = Tensor::from_data(data, device);
        let mut state = source.state(name);
        if !state.has_under(name) {
            self.state = None;
            return Ok(());
        }
        self.state = optimizer.restore(name, &mut state, device);
        match self.state {
            Some(_) => Ok(()),
            None => Err(format!("{name} was trained with another dense optimizer")),
        }
    }
}

impl DenseOptimizer {
    pub(super) fn new(rule: DenseRule, epsilon: f32) -> Self {
        match rule {
            DenseRule::Adagrad => Self::Adagrad(AdaGradConfig::new().with_epsilon(epsilon).build()),
            DenseRule::Adam => Self::Adam(AdamConfig::new().with_epsilon(epsilon).build()),
        }
    }

    fn step<const D: usize>(
        &self,
        learning_rate: f64,
        value: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<OptimizerState<D>>,
    ) -> (Tensor<D>, Option<OptimizerState<D>>) {
        match (self, state) {
            (Self::Adagrad(rule), state) => {
                let state = match state {
                    Some(OptimizerState::Adagrad(state)) => Some(state),
                    _ => None,
                };
                let (value, state) = rule.step(learning_rate, value, gradient, state);
                (value, state.map(OptimizerState::Adagrad))
            }
            (Self::Adam(rule), state) => {
                let state = match state {
                    Some(OptimizerState::Adam(state)) => Some(state),
                    _ => None,
                };
                let (value, state) = rule.step(learning_rate, value, gradient, state);
                (value, state.map(OptimizerState::Adam))
            }
        }
    }

    fn restore<const D: usize>(
        &self,
        name: &str,
        source: &mut StateSource,
        device: &Device,
    ) -> Option<OptimizerState<D>> {
        match self {
            Self::Adagrad(_) => {
                <<AdaGrad as Optimizer>::State<D>>::state_unflatten(name, source, device)
                    .map(OptimizerState::Adagrad)
            }
            Self::Adam(_) => <<Adam as Optimizer>::State<D>>::state_unflatten(name, source, device)
                .map(OptimizerState::Adam),
        }
    }
}

/// A [`DenseRecord`] being taken apart by name.
pub(super) struct DenseSource {
    tensors: std::collections::BTreeMap<String, TensorData>,
    counters: Vec<(String, u64)>,
}

impl DenseSource {
    pub(super) fn new(record: DenseRecord) -> Self {
        let tensors = record
            .tensors
            .into_iter()
            .map(|(name, shape, values)| (name, TensorData::new(values, shape)))
            .collect();
        Self { tensors, counters: record.counters }
    }

    fn take(&mut self, name: &str) -> Result<TensorData, String> {
        self.tensors.remove(name).ok_or_else(|| format!("the checkpoint has no {name}"))
    }

    /// The optimizer state of one parameter: all that stands under `name.`.
    fn state(&mut self, name: &str) -> StateSource {
        let prefix = format!("{name}.");
        let counters = self
            .counters
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(name, count)| (name.clone(), (*count).into()))
            .collect();
        let mut source = StateSource::new(counters);
        let names: Vec<String> =
            self.tensors.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        for name in names {
            if let Some(data) = self.tensors.remove(&name) {
                source.insert_tensor(name, data);
            }
        }
        source
    }

    pub(super) fn finish(self) -> Result<(), String> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("the checkpoint has {name}, which this model lacks")),
        }
    }
}
