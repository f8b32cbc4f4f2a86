//! The two towers: rows of features in, L2-normalised vectors out.
//!
//! Each tower is a stack of dense layers, ReLU between them and none on top (Yang et al. 2020,
//! section 6.1: a ReLU under the norm confines every cosine to [0, 1]). The loss gradient comes
//! from outside (see [`super::loss`]) and enters the graph as `sum(output * gradient)`.
//!
//! Owns the dense weights and their optimizer's state, as plain tensors in a fixed order: burn's
//! module records are keyed by random parameter ids, which would make two equal states differ.

use burn::optim::{Adam, AdamConfig, AdaGrad, AdaGradConfig, Optimizer, RecordState};
use burn::optim::{StateSink, StateSource};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::random::SplitMix;

/// What gives the towers their shape and their learning rule.
#[derive(Clone, Debug)]
pub struct TowerSettings {
    /// Width of a query's input.
    pub query_width: usize,
    /// Width of an item's input.
    pub item_width: usize,
    /// Widths of the hidden layers, the same in both towers.
    pub hidden: Vec<usize>,
    /// Width of both outputs.
    pub dim: usize,
    /// Optimizer of the dense weights.
    pub rule: DenseRule,
    /// Its rate.
    pub learning_rate: f64,
    /// Its epsilon.
    pub epsilon: f32,
    /// Seed of the initial weights.
    pub seed: u64,
}

/// Which of burn's optimizers moves the dense weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseRule {
    /// Adagrad, the paper's.
    Adagrad,
    /// Adam.
    Adam,
}

/// On a GPU every batch is padded to a multiple of this many rows: changing shapes fragment
/// burn-wgpu's memory pools and compile kernels anew.
const GPU_ROWS_STEP: usize = 256;

/// Added to the squared norm, so that an all-zero output has a gradient.
const NORM_EPSILON: f32 = 1e-12;

/// Both towers on one device.
pub struct TwoTower {
    query: Tower,
    item: Tower,
    optimizer: DenseOptimizer,
    learning_rate: f64,
    device: Device,
    rows_step: usize,
}

/// One forward pass that waits for its gradient.
pub struct Forward {
    query: Pass,
    item: Pass,
    /// `[batch, dim]`, L2-normalised.
    pub query_vectors: Vec<f32>,
    /// `[batch, dim]`, L2-normalised.
    pub item_vectors: Vec<f32>,
}

/// Gradients with respect to the towers' inputs.
pub struct InputGradients {
    /// `[batch, query_width]`
    pub query: Vec<f32>,
    /// `[batch, item_width]`
    pub item: Vec<f32>,
}

struct Tower {
    layers: Vec<Layer>,
    input_width: usize,
    dim: usize,
}

struct Layer {
    weight: Parameter<2>, // [input, output]
    bias: Parameter<2>,   // [1, output]
}

struct Parameter<const D: usize> {
    value: Tensor<D>,
    state: Option<OptimizerState<D>>,
}

struct Pass {
    input: Tensor<2>,                    // [rows, input]
    leaves: Vec<(Tensor<2>, Tensor<2>)>, // weight and bias of each layer
    output: Tensor<2>,                   // [rows, dim]
    batch: usize,
}

enum DenseOptimizer {
    Adagrad(AdaGrad),
    Adam(Adam),
}

#[expect(clippy::large_enum_variant, reason = "a handful of these exist, one a parameter")]
enum OptimizerState<const D: usize> {
    Adagrad(<AdaGrad as Optimizer>::State<D>),
    Adam(<Adam as Optimizer>::State<D>),
}

/// Everything dense, by name, in a fixed order: the form in which it is saved.
#[derive(Default, Serialize, Deserialize)]
struct DenseRecord {
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    counters: Vec<(String, u64)>,
}

impl TwoTower {
    /// Towers with fresh weights: uniform in ±sqrt(6 / inputs), biases zero.
    pub fn new(settings: &TowerSettings, device: &Device, gpu: bool) -> Self {
        let tower = |width, seed| Tower::new(width, settings, seed, device);
        Self {
            query: tower(settings.query_width, settings.seed ^ 0x51),
            item: tower(settings.item_width, settings.seed ^ 0x17),
            optimizer: DenseOptimizer::new(settings),
            learning_rate: settings.learning_rate,
            device: device.clone(),
            rows_step: if gpu { GPU_ROWS_STEP } else { 1 },
        }
    }

    /// Runs both towers and keeps the graph. Inputs are `[batch, width]`, row-major.
    pub fn forward(&self, query: &[f32], item: &[f32], batch: usize) -> Forward {
        let query = self.query.pass(query, batch, self.rows_step, &self.device);
        let item = self.item.pass(item, batch, self.rows_step, &self.device);
        let query_vectors = host(query.output.clone().inner(), batch * self.query.dim);
        let item_vectors = host(item.output.clone().inner(), batch * self.item.dim);
        Forward { query, item, query_vectors, item_vectors }
    }

    /// Sends the loss gradient with respect to both outputs (`[batch, dim]` each) backward, moves
    /// the dense weights, and returns the gradients with respect to the inputs.
    pub fn backward(&mut self, forward: Forward, query: &[f32], item: &[f32]) -> InputGradients {
        let Forward { query: query_pass, item: item_pass, .. } = forward;
        let step = self.rows_step;
        InputGradients {
            query: self.query.backward(query_pass, query, step, &self.optimizer, self.learning_rate),
            item: self.item.backward(item_pass, item, step, &self.optimizer, self.learning_rate),
        }
    }

    /// Query vectors `[batch, dim]` without a graph.
    pub fn embed_queries(&self, input: &[f32], batch: usize) -> Vec<f32> {
        self.query.embed(input, batch, self.rows_step, &self.device)
    }

    /// Item vectors `[batch, dim]` without a graph.
    pub fn embed_items(&self, input: &[f32], batch: usize) -> Vec<f32> {
        self.item.embed(input, batch, self.rows_step, &self.device)
    }

    /// Width of the outputs.
    pub fn dim(&self) -> usize {
        self.item.dim
    }

    /// Weights and optimizer state, in a fixed order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut record = DenseRecord::default();
        for (name, tower) in [("query", &self.query), ("item", &self.item)] {
            for (index, layer) in tower.layers.iter().enumerate() {
                layer.weight.save(&format!("{name}.{index}.weight"), &mut record);
                layer.bias.save(&format!("{name}.{index}.bias"), &mut record);
            }
        }
        postcard::to_stdvec(&record).expect("plain numbers always encode")
    }

    /// Takes over what [`TwoTower::to_bytes`] gave.
    ///
    /// # Errors
    /// Damaged bytes, or towers of another shape or optimizer.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let record: DenseRecord =
            postcard::from_bytes(bytes).map_err(|error| format!("towers do not decode: {error}"))?;
        let mut source = DenseSource::new(record);
        for (name, tower) in [("query", &mut self.query), ("item", &mut self.item)] {
            for (index, layer) in tower.layers.iter_mut().enumerate() {
                for (part, parameter) in
                    [("weight", &mut layer.weight), ("bias", &mut layer.bias)]
                {
                    let name = format!("{name}.{index}.{part}");
                    parameter.load(&name, &mut source, &self.optimizer, &self.device)?;
                }
            }
        }
        source.finish()
    }
}

impl Tower {
    fn new(width: usize, settings: &TowerSettings, seed: u64, device: &Device) -> Self {
        let mut random = SplitMix::new(seed);
        let mut inputs = width;
        let outputs = settings.hidden.iter().copied().chain([settings.dim]);
        let layers = outputs
            .map(|outputs| {
                #[expect(clippy::cast_precision_loss, reason = "layer widths are small")]
                let bound = (6.0 / inputs as f32).sqrt();
                let weight: Vec<f32> =
                    (0..inputs * outputs).map(|_| random.uniform(bound)).collect();
                let layer = Layer {
                    weight: Parameter::new(weight, [inputs, outputs], device),
                    bias: Parameter::new(vec![0.0; outputs], [1, outputs], device),
                };
                inputs = outputs;
                layer
            })
            .collect();
        Self { layers, input_width: width, dim: settings.dim }
    }

    fn pass(&self, input: &[f32], batch: usize, rows_step: usize, device: &Device) -> Pass {
        let input = upload(input, self.input_width, batch, rows_step, device)
            .autodiff()
            .require_grad(); // [rows, input]
        let leaves: Vec<_> = self
            .layers
            .iter()
            .map(|layer| {
                let leaf = |value: &Tensor<2>| value.clone().autodiff().require_grad();
                (leaf(&layer.weight.value), leaf(&layer.bias.value))
            })
            .collect();
        let output = run(input.clone(), leaves.iter().map(|(weight, bias)| (weight, bias)));
        Pass { input, leaves, output, batch }
    }

    fn backward(
        &mut self,
        pass: Pass,
        gradient: &[f32],
        rows_step: usize,
        optimizer: &DenseOptimizer,
        learning_rate: f64,
    ) -> Vec<f32> {
        let device = self.layers[0].weight.value.device();
        let gradient = upload(gradient, self.dim, pass.batch, rows_step, &device); // [rows, dim]
        // d sum(output * gradient) / d output is the gradient itself.
        let gradients = pass.output.mul(gradient.autodiff()).sum().backward();
        let of = |leaf: &Tensor<2>| leaf.grad(&gradients).expect("every leaf requires a gradient");
        let input = host(of(&pass.input), pass.batch * self.input_width);
        for (layer, (weight, bias)) in self.layers.iter_mut().zip(&pass.leaves) {
            layer.weight.update(of(weight), optimizer, learning_rate);
            layer.bias.update(of(bias), optimizer, learning_rate);
        }
        input
    }

    fn embed(&self, input: &[f32], batch: usize, rows_step: usize, device: &Device) -> Vec<f32> {
        let input = upload(input, self.input_width, batch, rows_step, device);
        let layers = self.layers.iter().map(|layer| (&layer.weight.value, &layer.bias.value));
        host(run(input, layers), batch * self.dim)
    }
}

/// The layers, then the L2 norm.
fn run<'a>(
    input: Tensor<2>,
    layers: impl ExactSizeIterator<Item = (&'a Tensor<2>, &'a Tensor<2>)>,
) -> Tensor<2> {
    let top = layers.len() - 1;
    let mut x = input; // [rows, input]
    for (index, (weight, bias)) in layers.enumerate() {
        x = x.matmul(weight.clone()) + bias.clone(); // [rows, output]
        if index < top {
            x = burn::tensor::activation::relu(x);
        }
    }
    let norm = x.clone().square().sum_dim(1).add_scalar(NORM_EPSILON).sqrt(); // [rows, 1]
    x / norm // [rows, dim]
}

/// `[batch, width]` values as a tensor of `[rows, width]`, rows being `batch` rounded up.
fn upload(
    values: &[f32],
    width: usize,
    batch: usize,
    rows_step: usize,
    device: &Device,
) -> Tensor<2> {
    assert_eq!(values.len(), width * batch, "input does not match the tower's width");
    let rows = batch.next_multiple_of(rows_step);
    let mut padded = Vec::with_capacity(rows * width);
    padded.extend_from_slice(values);
    padded.resize(rows * width, 0.0);
    Tensor::from_data(TensorData::new(padded, [rows, width]), device)
}

/// The first `length` values of a tensor, on the host.
fn host<const D: usize>(tensor: Tensor<D>, length: usize) -> Vec<f32> {
    let mut values: Vec<f32> = tensor.into_data().try_into_vec().expect("towers compute in f32");
    values.truncate(length);
    values
}

impl<const D: usize> Parameter<D> {
    fn new(values: Vec<f32>, shape: [usize; D], device: &Device) -> Self {
        Self { value: Tensor::from_data(TensorData::new(values, shape), device), state: None }
    }

    fn update(&mut self, gradient: Tensor<D>, optimizer: &DenseOptimizer, learning_rate: f64) {
        let (value, state) =
            optimizer.step(learning_rate, self.value.clone(), gradient, self.state.take());
        self.value = value;
        self.state = state;
    }

    fn save(&self, name: &str, record: &mut DenseRecord) {
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

    fn load(
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
    fn new(settings: &TowerSettings) -> Self {
        match settings.rule {
            DenseRule::Adagrad => {
                Self::Adagrad(AdaGradConfig::new().with_epsilon(settings.epsilon).build())
            }
            DenseRule::Adam => Self::Adam(AdamConfig::new().with_epsilon(settings.epsilon).build()),
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
            Self::Adagrad(_) => <<AdaGrad as Optimizer>::State<D>>::state_unflatten(name, source, device)
                .map(OptimizerState::Adagrad),
            Self::Adam(_) => <<Adam as Optimizer>::State<D>>::state_unflatten(name, source, device)
                .map(OptimizerState::Adam),
        }
    }
}

/// A [`DenseRecord`] being taken apart by name.
struct DenseSource {
    tensors: std::collections::BTreeMap<String, TensorData>,
    counters: Vec<(String, u64)>,
}

impl DenseSource {
    fn new(record: DenseRecord) -> Self {
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

    fn finish(self) -> Result<(), String> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("the checkpoint has {name}, which this model lacks")),
        }
    }
}
