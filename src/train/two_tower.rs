//! The two towers: rows of features in, L2-normalised vectors out.
//!
//! Each tower is a stack of dense layers, ReLU between them and none on top (Yang et al. 2020,
//! section 6.1: a ReLU under the norm confines every cosine to [0, 1]). The loss gradient comes
//! from outside (see [`super::loss`]) and enters the graph as `sum(output * gradient)`.
//!
//! Owns the graph; the weights and their optimizer are in [`super::dense`].

use burn::tensor::{Device, Tensor, TensorData};

pub use super::dense::DenseRule;
use super::dense::{DenseOptimizer, DenseRecord, DenseSource, Parameter};
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

struct Pass {
    input: Tensor<2>,                    // [rows, input]
    leaves: Vec<(Tensor<2>, Tensor<2>)>, // weight and bias of each layer
    output: Tensor<2>,                   // [rows, dim]
    batch: usize,
}

impl TwoTower {
    /// Towers with fresh weights: uniform in ±sqrt(6 / inputs), biases zero.
    pub fn new(settings: &TowerSettings, device: &Device, gpu: bool) -> Self {
        let tower = |width, seed| Tower::new(width, settings, seed, device);
        Self {
            query: tower(settings.query_width, settings.seed ^ 0x51),
            item: tower(settings.item_width, settings.seed ^ 0x17),
            optimizer: DenseOptimizer::new(settings.rule, settings.epsilon),
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
            query: self.query.backward(
                query_pass,
                query,
                step,
                &self.optimizer,
                self.learning_rate,
            ),
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
        let record: DenseRecord = postcard::from_bytes(bytes)
            .map_err(|error| format!("towers do not decode: {error}"))?;
        let mut source = DenseSource::new(record);
        for (name, tower) in [("query", &mut self.query), ("item", &mut self.item)] {
            for (index, layer) in tower.layers.iter_mut().enumerate() {
                for (part, parameter) in [("weight", &mut layer.weight), ("bias", &mut layer.bias)]
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
        let input =
            upload(input, self.input_width, batch, rows_step, device).autodiff().require_grad(); // [rows, input]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TowerSettings {
        TowerSettings {
            query_width: 5,
            item_width: 3,
            hidden: vec![7],
            dim: 4,
            rule: DenseRule::Adagrad,
            learning_rate: 0.05,
            epsilon: 1e-5,
            seed: 9,
        }
    }

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix::new(seed);
        (0..count).map(|_| random.uniform(1.0)).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn outputs_have_length_1_with_and_without_a_graph() {
        let towers = TwoTower::new(&settings(), &Device::flex(), false);
        let (query, item) = (values(6 * 5, 1), values(6 * 3, 2));
        let forward = towers.forward(&query, &item, 6);
        assert_eq!(forward.query_vectors, towers.embed_queries(&query, 6));
        assert_eq!(forward.item_vectors, towers.embed_items(&item, 6));
        for row in forward.query_vectors.chunks(4).chain(forward.item_vectors.chunks(4)) {
            assert!((dot(row, row) - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn input_gradients_agree_with_finite_differences() {
        let mut towers = TwoTower::new(&settings(), &Device::flex(), false);
        let (query, item) = (values(6 * 5, 3), values(6 * 3, 4));
        let (query_gradient, item_gradient) = (values(6 * 4, 5), values(6 * 4, 6));
        let objective = |towers: &TwoTower, query: &[f32], item: &[f32]| {
            dot(&towers.embed_queries(query, 6), &query_gradient)
                + dot(&towers.embed_items(item, 6), &item_gradient)
        };
        let mut expected = [Vec::new(), Vec::new()];
        for (side, width) in [(0, query.len()), (1, item.len())] {
            for i in 0..width {
                let nudged = |step: f32| {
                    let mut inputs = [query.clone(), item.clone()];
                    inputs[side][i] += step;
                    objective(&towers, &inputs[0], &inputs[1])
                };
                expected[side].push((nudged(1e-3) - nudged(-1e-3)) / 2e-3);
            }
        }
        let forward = towers.forward(&query, &item, 6);
        let found = towers.backward(forward, &query_gradient, &item_gradient);
        for (found, expected) in [(found.query, &expected[0]), (found.item, &expected[1])] {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 5e-3, "{found} {expected}");
            }
        }
    }

    #[test]
    fn restored_towers_go_on_with_the_same_bits() {
        for rule in [DenseRule::Adagrad, DenseRule::Adam] {
            let settings = TowerSettings { rule, ..settings() };
            let mut original = TwoTower::new(&settings, &Device::flex(), false);
            let step = |towers: &mut TwoTower, seed| {
                let forward = towers.forward(&values(30, seed), &values(18, seed + 1), 6);
                towers.backward(forward, &values(24, seed + 2), &values(24, seed + 3));
            };
            step(&mut original, 10);
            step(&mut original, 20);
            let other = TowerSettings { seed: 77, ..settings.clone() };
            let mut restored = TwoTower::new(&other, &Device::flex(), false);
            restored.load(&original.to_bytes()).expect("just written");
            step(&mut original, 30);
            step(&mut restored, 30);
            assert_eq!(original.to_bytes(), restored.to_bytes(), "{rule:?}");
        }
    }

    #[test]
    fn other_shapes_and_optimizers_are_refused() {
        let mut towers = TwoTower::new(&settings(), &Device::flex(), false);
        let forward = towers.forward(&values(30, 1), &values(18, 2), 6);
        towers.backward(forward, &values(24, 3), &values(24, 4));
        let bytes = towers.to_bytes();
        for other in [
            TowerSettings { hidden: vec![8], ..settings() },
            TowerSettings { hidden: vec![], ..settings() },
            TowerSettings { rule: DenseRule::Adam, ..settings() },
        ] {
            let mut towers = TwoTower::new(&other, &Device::flex(), false);
            assert!(towers.load(&bytes).is_err(), "{other:?}");
        }
    }
}
