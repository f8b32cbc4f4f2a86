//! The two towers: rows of features in, L2-normalised vectors out.
//!
//! Each tower is a stack of dense layers, ReLU between them and none on top (Yang et al. 2020,
//! section 6.1: a ReLU under the norm confines every cosine to [0, 1]). The loss gradient comes
//! from outside (see [`super::loss`]).
//!
//! Two implementations: on the CPU our own passes ([`host`]), on a GPU burn's graph ([`device`]).
//! The weights and their optimizer are burn's on both ([`super::dense`]), so that a checkpoint of
//! one goes on on the other.

mod device;
mod host;

use burn::tensor::{Device, Tensor, TensorData};

pub use super::dense::DenseRule;
use super::dense::{DenseOptimizer, DenseRecord, DenseSource, Parameter};
use super::random::SplitMix;
use device::DeviceTower;
use host::{HostLayer, HostTower};

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

/// Added to the squared norm, so that an all-zero output has a gradient.
const NORM_EPSILON: f32 = 1e-12;

/// Both towers on one device.
pub struct TwoTower {
    query: Tower,
    item: Tower,
    optimizer: DenseOptimizer,
    learning_rate: f64,
    device: Device,
}

/// Both towers' outputs.
pub struct Vectors<'a> {
    /// `[batch, dim]`, L2-normalised.
    pub query: &'a [f32],
    /// `[batch, dim]`, L2-normalised.
    pub item: &'a [f32],
}

/// Gradients with respect to the towers' inputs.
pub struct InputGradients<'a> {
    /// `[batch, query_width]`
    pub query: &'a [f32],
    /// `[batch, item_width]`
    pub item: &'a [f32],
}

struct Tower {
    layers: Vec<Layer>,
    dim: usize,
    engine: Engine,
}

struct Layer {
    weight: Parameter<2>, // [input, output]
    bias: Parameter<2>,   // [1, output]
}

#[expect(clippy::large_enum_variant, reason = "there are two of these")]
enum Engine {
    Host(HostTower),
    Device(DeviceTower),
}

impl TwoTower {
    /// Towers with fresh weights: uniform in ±sqrt(6 / inputs), biases zero.
    pub fn new(settings: &TowerSettings, device: &Device, gpu: bool) -> Self {
        let tower = |width, seed| Tower::new(width, settings, seed, device, gpu);
        Self {
            query: tower(settings.query_width, settings.seed ^ 0x51),
            item: tower(settings.item_width, settings.seed ^ 0x17),
            optimizer: DenseOptimizer::new(settings.rule, settings.epsilon),
            learning_rate: settings.learning_rate,
            device: device.clone(),
        }
    }

    /// Runs both towers and keeps what [`backward`](Self::backward) needs. Inputs are `[batch,
    /// width]`, row-major.
    pub fn forward(&mut self, query: &[f32], item: &[f32], batch: usize) -> Vectors<'_> {
        let (query, item) =
            rayon::join(|| self.query.forward(query, batch), || self.item.forward(item, batch));
        Vectors { query, item }
    }

    /// Sends the loss gradient with respect to both outputs of the last [`forward`](Self::forward)
    /// (`[batch, dim]` each) backward, moves the dense weights, and returns the gradients with
    /// respect to the inputs, which are given once more.
    pub fn backward(&mut self, inputs: Vectors<'_>, gradients: Vectors<'_>) -> InputGradients<'_> {
        let (optimizer, rate, device) = (&self.optimizer, self.learning_rate, &self.device);
        let (query, item) = rayon::join(
            || self.query.backward(inputs.query, gradients.query, optimizer, rate, device),
            || self.item.backward(inputs.item, gradients.item, optimizer, rate, device),
        );
        InputGradients { query, item }
    }

    /// Query vectors `[batch, dim]`; keeps nothing.
    pub fn embed_queries(&self, input: &[f32], batch: usize) -> Vec<f32> {
        self.query.embed(input, batch)
    }

    /// Item vectors `[batch, dim]`; keeps nothing.
    pub fn embed_items(&self, input: &[f32], batch: usize) -> Vec<f32> {
        self.item.embed(input, batch)
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
        source.finish()?;
        for tower in [&mut self.query, &mut self.item] {
            if let Engine::Host(host) = &mut tower.engine {
                refresh(host, &tower.layers);
            }
        }
        Ok(())
    }
}

impl Tower {
    fn new(width: usize, settings: &TowerSettings, seed: u64, device: &Device, gpu: bool) -> Self {
        let mut random = SplitMix::new(seed);
        let mut inputs = width;
        let (mut layers, mut host) = (Vec::new(), Vec::new());
        for outputs in settings.hidden.iter().copied().chain([settings.dim]) {
            #[expect(clippy::cast_precision_loss, reason = "layer widths are small")]
            let bound = (6.0 / inputs as f32).sqrt();
            let weight: Vec<f32> = (0..inputs * outputs).map(|_| random.uniform(bound)).collect();
            let bias = vec![0.0; outputs];
            layers.push(Layer {
                weight: Parameter::new(weight.clone(), [inputs, outputs], device),
                bias: Parameter::new(bias.clone(), [1, outputs], device),
            });
            host.push(HostLayer::new(weight, bias));
            inputs = outputs;
        }
        let engine = if gpu {
            Engine::Device(DeviceTower::new(width, settings.dim, device))
        } else {
            Engine::Host(HostTower::new(host))
        };
        Self { layers, dim: settings.dim, engine }
    }

    fn forward(&mut self, input: &[f32], batch: usize) -> &[f32] {
        match &mut self.engine {
            Engine::Host(host) => host.forward(input, batch),
            Engine::Device(device) => device.forward(&self.layers, input, batch),
        }
    }

    fn backward(
        &mut self,
        input: &[f32],
        gradient: &[f32],
        optimizer: &DenseOptimizer,
        learning_rate: f64,
        device: &Device,
    ) -> &[f32] {
        match &mut self.engine {
            Engine::Host(host) => {
                host.backward(input, gradient);
                for (layer, (weight, bias)) in self.layers.iter_mut().zip(host.gradients()) {
                    let shape = layer.weight.value.dims();
                    let upload = |values: &[f32], shape| {
                        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
                    };
                    layer.weight.update(upload(weight, shape), optimizer, learning_rate);
                    layer.bias.update(upload(bias, [1, shape[1]]), optimizer, learning_rate);
                }
                refresh(host, &self.layers);
                host.input_gradient()
            }
            Engine::Device(device) => {
                let gradients = device.backward(gradient);
                for (layer, (weight, bias)) in self.layers.iter_mut().zip(gradients) {
                    layer.weight.update(weight, optimizer, learning_rate);
                    layer.bias.update(bias, optimizer, learning_rate);
                }
                device.input_gradient()
            }
        }
    }

    fn embed(&self, input: &[f32], batch: usize) -> Vec<f32> {
        match &self.engine {
            Engine::Host(host) => host.embed(input, batch),
            Engine::Device(device) => device.embed(&self.layers, input, batch),
        }
    }
}

/// Gives the host's passes the weights as they are now.
fn refresh(host: &mut HostTower, layers: &[Layer]) {
    for (index, layer) in layers.iter().enumerate() {
        let values = |value: &Tensor<2>| -> Vec<f32> {
            value.to_data().try_into_vec().expect("towers compute in f32")
        };
        host.set(index, &values(&layer.weight.value), &values(&layer.bias.value));
    }
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
        let mut towers = TwoTower::new(&settings(), &Device::flex(), false);
        let (query, item) = (values(6 * 5, 1), values(6 * 3, 2));
        let embedded = (towers.embed_queries(&query, 6), towers.embed_items(&item, 6));
        let vectors = towers.forward(&query, &item, 6);
        assert_eq!((vectors.query, vectors.item), (&embedded.0[..], &embedded.1[..]));
        for row in vectors.query.chunks(4).chain(vectors.item.chunks(4)) {
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
        towers.forward(&query, &item, 6);
        let inputs = Vectors { query: &query, item: &item };
        let gradients = Vectors { query: &query_gradient, item: &item_gradient };
        let found = towers.backward(inputs, gradients);
        for (found, expected) in [(found.query, &expected[0]), (found.item, &expected[1])] {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 5e-3, "{found} {expected}");
            }
        }
    }

    fn step(towers: &mut TwoTower, seed: u64) {
        steps(towers, 6, seed);
    }

    /// One step of `batch` rows; the input gradients.
    fn steps(towers: &mut TwoTower, batch: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let (query, item) = (values(5 * batch, seed), values(3 * batch, seed + 1));
        towers.forward(&query, &item, batch);
        let gradients = (values(4 * batch, seed + 2), values(4 * batch, seed + 3));
        let found = towers.backward(
            Vectors { query: &query, item: &item },
            Vectors { query: &gradients.0, item: &gradients.1 },
        );
        (found.query.to_vec(), found.item.to_vec())
    }

    #[test]
    fn the_hosts_passes_are_those_of_burns_graph() {
        for hidden in [vec![], vec![7], vec![70, 33, 9]] {
            let settings = TowerSettings { hidden, ..settings() };
            let mut host = TwoTower::new(&settings, &Device::flex(), false);
            let mut graph = TwoTower::new(&settings, &Device::flex(), true);
            for (batch, seed) in [(1, 1), (64, 10), (130, 20), (2100, 30), (5, 40)] {
                let (a, b) = (steps(&mut host, batch, seed), steps(&mut graph, batch, seed));
                let pairs = a.0.iter().zip(&b.0).chain(a.1.iter().zip(&b.1));
                for (a, b) in pairs {
                    assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}, batch {batch}");
                }
            }
            let probe = values(5 * 9, 50);
            let (a, b) = (host.embed_queries(&probe, 9), graph.embed_queries(&probe, 9));
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() < 1e-3, "{a} {b} after five steps");
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a small pool").install(|| {
                let settings = TowerSettings { hidden: vec![70, 33], ..settings() };
                let mut towers = TwoTower::new(&settings, &Device::flex(), false);
                let gradients = steps(&mut towers, 1500, 3);
                (gradients, towers.to_bytes())
            })
        };
        let one = on(1);
        assert!(one == on(2) && one == on(8));
    }

    #[test]
    fn restored_towers_go_on_with_the_same_bits() {
        for rule in [DenseRule::Adagrad, DenseRule::Adam] {
            let settings = TowerSettings { rule, ..settings() };
            let mut original = TwoTower::new(&settings, &Device::flex(), false);
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
        step(&mut towers, 1);
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
