//! The two towers: rows of features in, L2-normalised vectors out.
//!
//! Each tower is a stack of dense layers, ReLU between them and none on top (Yang et al. 2020,
//! section 6.1: a ReLU under the norm confines every cosine to [0, 1]). The loss gradient comes
//! from outside (see [`crate::objective::softmax`]).
//!
//! Two implementations: on the CPU our own passes (`host`), on a GPU burn's graph (`graph`).
//! The weights and their optimizer are the same for both (`dense`), so that a checkpoint
//! of one goes on on the other.

pub(crate) mod dense;
#[cfg(feature = "gpu")]
mod graph;
mod host;
mod mean;

use crate::kernel::matrix::{Matrix, PerTower};
use crate::kernel::product::dot;
use crate::placement::Placement;
use crate::portion::Portion;
use crate::saved::{Damaged, decode};
use dense::{DenseRecord, Parameter};
pub use dense::{DenseRule, DenseSettings};
#[cfg(feature = "gpu")]
use graph::GraphTower;
use host::HostTower;
use mean::{Mean, MeanRecord};
use millrace_events::SplitMix;

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
    /// How the dense weights move.
    pub dense: DenseSettings,
    /// Seed of the initial weights.
    pub seed: u64,
}

/// Added to the squared norm, so that an all-zero output has a gradient.
const NORM_EPSILON: f32 = 1e-12;

/// Both towers on one device.
pub struct TwoTower {
    query: Tower,
    item: Tower,
    dense: DenseSettings,
    gpu: bool,
}

struct Tower {
    layers: Vec<Layer>,
    /// What vectors are made with outside of training, if not with the last weights.
    mean: Option<Mean>,
    width: usize,
    dim: usize,
    engine: Engine,
    /// Sum of the squared weight gradients of the last backward pass.
    squares: f32,
}

struct Layer {
    weight: Parameter, // [inputs, outputs]
    bias: Parameter,   // [1, outputs]
}

#[cfg_attr(feature = "gpu", expect(clippy::large_enum_variant, reason = "there are two of these"))]
enum Engine {
    Host(HostTower),
    #[cfg(feature = "gpu")]
    Device(GraphTower),
}

/// One layer's weights, for who computes it elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct DenseLayer<'m> {
    /// Width of its input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
    /// `[inputs, outputs]`
    pub weight: &'m [f32],
    /// `[outputs]`
    pub bias: &'m [f32],
}

impl TwoTower {
    /// Towers with fresh weights: uniform in ±sqrt(6 / inputs), biases zero.
    pub fn new(settings: &TowerSettings, placement: &Placement) -> Self {
        let tower = |width, seed| Tower::new(width, settings, seed, placement);
        Self {
            query: tower(settings.query_width, settings.seed ^ 0x51),
            item: tower(settings.item_width, settings.seed ^ 0x17),
            dense: settings.dense.clone(),
            gpu: placement.is_gpu(),
        }
    }

    /// Runs both towers on their inputs, `[rows, width]`, and keeps what
    /// [`backward`](Self::backward) needs. Outputs are L2-normalised.
    pub fn forward(&mut self, inputs: &PerTower<&[f32]>) -> PerTower<Matrix<'_>> {
        let (query, item) =
            join(self.gpu, || self.query.forward(inputs.query), || self.item.forward(inputs.item));
        PerTower { query, item }
    }

    /// Sends the loss gradient with respect to both outputs of the last [`forward`](Self::forward)
    /// backward, moves the dense weights by a step of this `portion`, and returns the gradients
    /// with respect to the inputs, which are given once more. Where a weight's gradient is not
    /// finite none of them moves: `None`.
    pub fn backward(
        &mut self,
        inputs: &PerTower<&[f32]>,
        gradients: &PerTower<Matrix<'_>>,
        portion: Portion,
    ) -> Option<PerTower<&[f32]>> {
        let (query, item) = join(
            self.gpu,
            || self.query.backward(inputs.query, gradients.query),
            || self.item.backward(inputs.item, gradients.item),
        );
        if !(query.is_finite() && item.is_finite()) {
            return None;
        }
        let dense = &self.dense;
        let (query, item) = join(
            self.gpu,
            || self.query.descend(dense, portion),
            || self.item.descend(dense, portion),
        );
        Some(PerTower { query, item })
    }

    /// Whether every weight is a number.
    pub fn is_finite(&self) -> bool {
        [&self.query, &self.item].into_iter().all(|tower| {
            let mut layers = tower.layers.iter();
            layers.all(|layer| layer.weight.is_finite() && layer.bias.is_finite())
                && tower.mean.as_ref().is_none_or(Mean::is_finite)
        })
    }

    /// Query vectors `[rows, dim]` of inputs `[rows, query_width]`; keeps nothing.
    pub fn embed_queries(&self, input: &[f32]) -> Vec<f32> {
        self.query.embed(input)
    }

    /// Item vectors `[rows, dim]` of inputs `[rows, item_width]`; keeps nothing.
    pub fn embed_items(&self, input: &[f32]) -> Vec<f32> {
        self.item.embed(input)
    }

    /// The query tower's layers from its input up, a ReLU between two and the norm on top; those
    /// that [`embed_queries`](Self::embed_queries) takes.
    pub fn query_layers(&self) -> impl Iterator<Item = DenseLayer<'_>> {
        self.query.shown().iter().map(|layer| DenseLayer {
            inputs: layer.inputs(),
            outputs: layer.outputs(),
            weight: &layer.weight.values,
            bias: &layer.bias.values,
        })
    }

    /// Width of the outputs.
    pub fn dim(&self) -> usize {
        self.item.dim
    }

    /// Weights and optimizer state, in a fixed order; behind them the weights' means, if there are.
    pub fn save(&self) -> Vec<u8> {
        let mut record = DenseRecord::new(self.dense.rule);
        for (name, tower) in [("query", &self.query), ("item", &self.item)] {
            for (index, layer) in tower.layers.iter().enumerate() {
                record.push(format!("{name}.{index}.weight"), &layer.weight);
                record.push(format!("{name}.{index}.bias"), &layer.bias);
            }
        }
        let mut bytes = record.save();
        if let (Some(query), Some(item)) = (&self.query.mean, &self.item.mean) {
            let means = (query.record(), item.record());
            bytes.extend(postcard::to_stdvec(&means).expect("plain numbers encode"));
        }
        bytes
    }

    /// Takes over what [`TwoTower::save`] gave. Means that nobody asks for now are left; those that
    /// were not taken before begin with the weights.
    ///
    /// # Errors
    /// Damaged bytes, or towers of another shape or optimizer.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let (mut record, means) = DenseRecord::load(bytes, self.dense.rule)?;
        for (name, tower) in [("query", &mut self.query), ("item", &mut self.item)] {
            for (index, layer) in tower.layers.iter_mut().enumerate() {
                record.take(&format!("{name}.{index}.weight"), &mut layer.weight)?;
                record.take(&format!("{name}.{index}.bias"), &mut layer.bias)?;
            }
        }
        record.finish()?;
        for tower in [&mut self.query, &mut self.item] {
            tower.engine.refresh(&tower.layers);
            tower.mean = tower.mean.is_some().then(|| Mean::new(&tower.layers));
        }
        if let (Some(query), Some(item), false) =
            (&mut self.query.mean, &mut self.item.mean, means.is_empty())
        {
            let saved: (MeanRecord, MeanRecord) = decode("the towers' means", means)?;
            query.load(saved.0)?;
            item.load(saved.1)?;
        }
        Ok(())
    }
}

impl Tower {
    fn new(width: usize, settings: &TowerSettings, seed: u64, placement: &Placement) -> Self {
        let mut random = SplitMix::new(seed);
        let mut inputs = width;
        let mut layers = Vec::new();
        for outputs in settings.hidden.iter().copied().chain([settings.dim]) {
            #[expect(clippy::cast_precision_loss, reason = "layer widths are small")]
            let bound = (6.0 / inputs as f32).sqrt();
            let weight = (0..inputs * outputs).map(|_| random.uniform(bound)).collect();
            layers.push(Layer {
                weight: Parameter::new(weight, [inputs, outputs]),
                bias: Parameter::new(vec![0.0; outputs], [1, outputs]),
            });
            inputs = outputs;
        }
        let mut engine = match placement {
            Placement::Cpu => Engine::Host(HostTower::new(&layers)),
            #[cfg(feature = "gpu")]
            Placement::Gpu(device) => Engine::Device(GraphTower::new(width, settings.dim, device)),
        };
        engine.refresh(&layers);
        let mean = (settings.dense.average > 0.0).then(|| Mean::new(&layers));
        Self { layers, mean, width, dim: settings.dim, engine, squares: 0.0 }
    }

    fn rows(&self, input: &[f32]) -> usize {
        let rows = input.len() / self.width;
        assert_eq!(input.len(), rows * self.width, "input does not match the tower's width");
        rows
    }

    fn forward(&mut self, input: &[f32]) -> Matrix<'_> {
        let rows = self.rows(input);
        match &mut self.engine {
            Engine::Host(host) => Matrix::Host(host.forward(&self.layers, input, rows)),
            #[cfg(feature = "gpu")]
            Engine::Device(device) => Matrix::Device(device.forward(input, rows)),
        }
    }

    /// Gradients of the weights and of the input; the sum of the weights' squared.
    fn backward(&mut self, input: &[f32], gradient: Matrix<'_>) -> f32 {
        let gradients = match &mut self.engine {
            Engine::Host(host) => host.backward(&self.layers, input, gradient.host()),
            #[cfg(feature = "gpu")]
            Engine::Device(device) => device.backward(gradient),
        };
        let square = |values: &[f32]| dot::<16>(values, values);
        self.squares = gradients.iter().map(|(weight, bias)| square(weight) + square(bias)).sum();
        self.squares
    }

    /// Moves the weights against the gradients of the last pass; the input's. Without a gradient
    /// they stay, and so do their sums of squares: nothing is forgotten for nothing.
    fn descend(&mut self, dense: &DenseSettings, portion: Portion) -> &[f32] {
        let gradients = match &self.engine {
            Engine::Host(host) => host.gradients(),
            #[cfg(feature = "gpu")]
            Engine::Device(device) => device.gradients(),
        };
        if self.squares > 0.0 {
            for (layer, (weight, bias)) in self.layers.iter_mut().zip(gradients) {
                layer.weight.update(weight, dense, portion);
                layer.bias.update(bias, dense, portion);
            }
            self.engine.refresh(&self.layers);
            if let Some(mean) = &mut self.mean {
                mean.follow(&self.layers, dense.average, portion);
            }
        }
        match &self.engine {
            Engine::Host(host) => host.input_gradient(),
            #[cfg(feature = "gpu")]
            Engine::Device(device) => device.input_gradient(),
        }
    }

    /// The layers that make vectors outside of training.
    fn shown(&self) -> &[Layer] {
        self.mean.as_ref().map_or(&self.layers, |mean| &mean.layers)
    }

    fn embed(&self, input: &[f32]) -> Vec<f32> {
        let rows = self.rows(input);
        match &self.engine {
            Engine::Host(host) => host.embed(self.shown(), input, rows),
            #[cfg(feature = "gpu")]
            Engine::Device(device) => {
                device.embed(self.mean.as_ref().map(|mean| &mean.layers[..]), input, rows)
            }
        }
    }
}

/// Both at once on the CPU. Work for a GPU stays on one thread: each thread has a queue of its own
/// there, with memory pools of its own.
fn join<A: Send, B: Send>(
    gpu: bool,
    query: impl FnOnce() -> A + Send,
    item: impl FnOnce() -> B + Send,
) -> (A, B) {
    if gpu { (query(), item()) } else { rayon::join(query, item) }
}

impl Layer {
    fn inputs(&self) -> usize {
        self.weight.shape()[0]
    }

    fn outputs(&self) -> usize {
        self.weight.shape()[1]
    }
}

impl Engine {
    /// Takes over the weights as they are now.
    fn refresh(&mut self, layers: &[Layer]) {
        match self {
            Self::Host(host) => host.transpose(layers),
            #[cfg(feature = "gpu")]
            Self::Device(device) => device.upload_weights(layers),
        }
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
            dense: DenseSettings {
                rule: DenseRule::Adagrad,
                learning_rate: 0.05,
                epsilon: 1e-5,
                decay: 1.0,
                average: 0.0,
            },
            seed: 9,
        }
    }

    fn with_rule(rule: DenseRule) -> TowerSettings {
        let settings = settings();
        TowerSettings { dense: DenseSettings { rule, ..settings.dense.clone() }, ..settings }
    }

    fn averaged() -> TowerSettings {
        let settings = settings();
        TowerSettings {
            dense: DenseSettings { average: 0.5, ..settings.dense.clone() },
            ..settings
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
        let mut towers = TwoTower::new(&settings(), &Placement::Cpu);
        let (query, item) = (values(6 * 5, 1), values(6 * 3, 2));
        let embedded = (towers.embed_queries(&query), towers.embed_items(&item));
        let vectors = towers.forward(&PerTower { query: &query[..], item: &item[..] });
        let (query, item) = (vectors.query.host(), vectors.item.host());
        assert_eq!((query, item), (&embedded.0[..], &embedded.1[..]));
        for row in query.chunks(4).chain(item.chunks(4)) {
            assert!((dot(row, row) - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn input_gradients_agree_with_finite_differences() {
        let mut towers = TwoTower::new(&settings(), &Placement::Cpu);
        let (query, item) = (values(6 * 5, 3), values(6 * 3, 4));
        let (query_gradient, item_gradient) = (values(6 * 4, 5), values(6 * 4, 6));
        let objective = |towers: &TwoTower, query: &[f32], item: &[f32]| {
            dot(&towers.embed_queries(query), &query_gradient)
                + dot(&towers.embed_items(item), &item_gradient)
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
        let inputs = PerTower { query: &query[..], item: &item[..] };
        towers.forward(&inputs);
        let gradients =
            PerTower { query: Matrix::Host(&query_gradient), item: Matrix::Host(&item_gradient) };
        let found = towers.backward(&inputs, &gradients, Portion::WHOLE).expect("finite gradients");
        for (found, expected) in [(found.query, &expected[0]), (found.item, &expected[1])] {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 5e-3, "{found} {expected}");
            }
        }
    }

    fn step(towers: &mut TwoTower, seed: u64) {
        steps(towers, 6, seed);
    }

    /// One step of `batch` queries and some more items; the input gradients.
    fn steps(towers: &mut TwoTower, batch: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let items = batch + batch / 3;
        let (query, item) = (values(5 * batch, seed), values(3 * items, seed + 1));
        let inputs = PerTower { query: &query[..], item: &item[..] };
        towers.forward(&inputs);
        let gradients = (values(4 * batch, seed + 2), values(4 * items, seed + 3));
        let gradients =
            PerTower { query: Matrix::Host(&gradients.0), item: Matrix::Host(&gradients.1) };
        let found = towers.backward(&inputs, &gradients, Portion::WHOLE).expect("finite gradients");
        (found.query.to_vec(), found.item.to_vec())
    }

    /// On whatever adapter wgpu finds, Mesa's software Vulkan included.
    #[cfg(feature = "gpu")]
    #[test]
    fn the_hosts_passes_are_those_of_burns_graph() {
        let placement = Placement::Gpu(crate::placement::any_gpu());
        let hidden = [vec![], vec![7], vec![70, 33, 9]].map(|hidden| (hidden, settings()));
        for (hidden, settings) in hidden.into_iter().chain([(vec![7], averaged())]) {
            let settings = TowerSettings { hidden, ..settings };
            let mut host = TwoTower::new(&settings, &Placement::Cpu);
            let mut graph = TwoTower::new(&settings, &placement);
            for (batch, seed) in [(1, 1), (64, 10), (130, 20), (2100, 30), (5, 40)] {
                let (a, b) = (steps(&mut host, batch, seed), steps(&mut graph, batch, seed));
                let pairs = a.0.iter().zip(&b.0).chain(a.1.iter().zip(&b.1));
                for (a, b) in pairs {
                    assert!((a - b).abs() < 5e-4 * (1.0 + b.abs()), "{a} {b}, batch {batch}");
                }
            }
            let probe = values(5 * 9, 50);
            let (a, b) = (host.embed_queries(&probe), graph.embed_queries(&probe));
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
                let mut towers = TwoTower::new(&settings, &Placement::Cpu);
                let gradients = steps(&mut towers, 1500, 3);
                (gradients, towers.save())
            })
        };
        let one = on(1);
        assert!(one == on(2) && one == on(8));
    }

    #[test]
    fn restored_towers_go_on_with_the_same_bits() {
        for rule in [DenseRule::Adagrad, DenseRule::Adam] {
            let settings = with_rule(rule);
            let mut original = TwoTower::new(&settings, &Placement::Cpu);
            step(&mut original, 10);
            step(&mut original, 20);
            let other = TowerSettings { seed: 77, ..settings.clone() };
            let mut restored = TwoTower::new(&other, &Placement::Cpu);
            restored.load(&original.save()).expect("just written");
            step(&mut original, 30);
            step(&mut restored, 30);
            assert_eq!(original.save(), restored.save(), "{rule:?}");
        }
    }

    #[test]
    fn vectors_are_made_with_the_mean_and_training_does_not_see_it() {
        let mut plain = TwoTower::new(&settings(), &Placement::Cpu);
        let mut averaged = TwoTower::new(&averaged(), &Placement::Cpu);
        let (query, item) = (values(5 * 9, 50), values(3 * 9, 51));
        let embed = |towers: &TwoTower| (towers.embed_queries(&query), towers.embed_items(&item));
        assert_eq!(steps(&mut plain, 6, 1), steps(&mut averaged, 6, 1));
        assert!(embed(&plain) == embed(&averaged), "a mean of one");
        let first: Vec<Vec<f32>> =
            plain.query_layers().map(|layer| layer.weight.to_vec()).collect();
        assert_eq!(steps(&mut plain, 6, 2), steps(&mut averaged, 6, 2));
        assert!(embed(&plain) != embed(&averaged));
        for ((mean, last), first) in averaged.query_layers().zip(plain.query_layers()).zip(&first) {
            for ((mean, last), first) in mean.weight.iter().zip(last.weight).zip(first) {
                assert!((mean - (first + 2.0 * last) / 3.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn means_are_saved_behind_the_weights_for_who_takes_them() {
        let mut original = TwoTower::new(&averaged(), &Placement::Cpu);
        (1..5).for_each(|seed| step(&mut original, 10 * seed));
        let restored = |settings: &TowerSettings, bytes: &[u8]| {
            let mut towers = TwoTower::new(settings, &Placement::Cpu);
            towers.load(bytes).map(|()| towers)
        };
        let bytes = original.save();
        let mut same = restored(&averaged(), &bytes).expect("just written");
        step(&mut original, 60);
        step(&mut same, 60);
        assert_eq!(original.save(), same.save());

        let plain = restored(&settings(), &bytes).expect("the weights are there").save();
        assert!(bytes.starts_with(&plain) && bytes.len() > plain.len());
        let late = restored(&averaged(), &plain).expect("a mean begins anew");
        let query = values(5, 1);
        let last = restored(&settings(), &plain).expect("just written");
        assert_eq!(late.embed_queries(&query), last.embed_queries(&query));
        let other = TowerSettings { hidden: vec![8], ..averaged() };
        assert!(restored(&other, &bytes).is_err());
        assert!(restored(&averaged(), &bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn other_shapes_and_optimizers_are_refused() {
        let mut towers = TwoTower::new(&settings(), &Placement::Cpu);
        step(&mut towers, 1);
        let bytes = towers.save();
        for other in [
            TowerSettings { hidden: vec![8], ..settings() },
            TowerSettings { hidden: vec![], ..settings() },
            with_rule(DenseRule::Adam),
        ] {
            let mut towers = TwoTower::new(&other, &Placement::Cpu);
            assert!(towers.load(&bytes).is_err(), "{other:?}");
        }
    }
}
