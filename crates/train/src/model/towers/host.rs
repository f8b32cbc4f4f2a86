//! One tower's dense layers on the CPU: forward and backward, fused and without allocation.
//!
//! burn's autodiff on flex took two and a half times as long as its own products at batch 1024: the
//! graph, fresh memory for every result, and element-wise passes on one thread over memory that had
//! left the cache. Here [`ROWS`] rows of the batch go through all layers while they are in the
//! second-level cache, and threads take groups of rows.
//!
//! The same bits come out for any number of threads: rows are shared out into groups by the batch
//! size alone, each with its own weight gradient (at most [`GROUPS_MAX`] times the weights' bytes),
//! summed in order. Must never know: the loss, optimizers.

use rayon::prelude::*;

use super::Layer;
use crate::kernel::product::{Left, dot, product};

/// Rows that go through the layers together. 128 to 256 take the same time, 64 a few per cent more;
/// at 128 the sixteen groups of a large batch come out even.
const ROWS: usize = 128;
/// Most groups of rows, thus most threads used.
const GROUPS_MAX: usize = 16;

/// See the module's head.
pub(crate) struct HostTower {
    /// By layer: its weight `[outputs, inputs]`, for the backward product: gemm packs nothing whose
    /// rows are contiguous.
    transposed: Vec<Vec<f32>>,
    /// By layer: `[batch, outputs]`, after the ReLU; of the last layer before the norm.
    outputs: Vec<Vec<f32>>,
    /// `[batch, dim]`, L2-normalised.
    normalised: Vec<f32>,
    /// `[batch]`, 1 / norm.
    scales: Vec<f32>,
    /// `[batch, inputs]`, of the objective with respect to the tower's input.
    input_gradient: Vec<f32>,
    groups: Vec<Gradients>,
    sum: Vec<(Vec<f32>, Vec<f32>)>,
}

/// What one group of rows adds to the gradients, and its working memory.
#[derive(Clone, Default)]
struct Gradients {
    /// By layer: weight `[inputs, outputs]` and bias `[outputs]`.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    /// `[ROWS, widest]`, the gradient above a layer and below it.
    above: Vec<f32>,
    below: Vec<f32>,
}

impl HostTower {
    pub(crate) fn new(layers: &[Layer]) -> Self {
        let sum = layers
            .iter()
            .map(|layer| (vec![0.0; layer.weight.values.len()], vec![0.0; layer.outputs()]))
            .collect();
        Self {
            transposed: vec![Vec::new(); layers.len()],
            outputs: vec![Vec::new(); layers.len()],
            normalised: Vec::new(),
            scales: Vec::new(),
            input_gradient: Vec::new(),
            groups: Vec::new(),
            sum,
        }
    }

    /// Takes over the weights as they are now.
    pub(crate) fn transpose(&mut self, layers: &[Layer]) {
        for (transposed, layer) in self.transposed.iter_mut().zip(layers) {
            transposed.resize(layer.weight.values.len(), 0.0);
            for (i, row) in layer.weight.values.chunks_exact(layer.outputs()).enumerate() {
                for (o, &value) in row.iter().enumerate() {
                    transposed[o * layer.inputs() + i] = value;
                }
            }
        }
    }

    /// Output `[batch, dim]` for `input`, `[batch, inputs]`; what [`backward`](Self::backward)
    /// needs is kept.
    pub(crate) fn forward(&mut self, layers: &[Layer], input: &[f32], batch: usize) -> &[f32] {
        let (inputs, dim, rows) = (inputs(layers), dim(layers), group_rows(batch));
        for (outputs, layer) in self.outputs.iter_mut().zip(layers) {
            outputs.resize(batch * layer.outputs(), 0.0);
        }
        self.normalised.resize(batch * dim, 0.0);
        self.scales.resize(batch, 0.0);
        let mut groups: Vec<Vec<&mut [f32]>> =
            (0..batch.div_ceil(rows)).map(|_| Vec::new()).collect();
        for (outputs, layer) in self.outputs.iter_mut().zip(layers) {
            let chunks = outputs.chunks_mut(rows * layer.outputs());
            groups.iter_mut().zip(chunks).for_each(|(group, chunk)| group.push(chunk));
        }
        groups
            .into_par_iter()
            .zip(input.par_chunks(rows * inputs))
            .zip(self.normalised.par_chunks_mut(rows * dim))
            .zip(self.scales.par_chunks_mut(rows))
            .with_max_len(1)
            .for_each(|(((mut outputs, input), normalised), scales)| {
                for chunk in 0..scales.len().div_ceil(ROWS) {
                    forward_chunk(layers, chunk, input, &mut outputs);
                    let top = part(outputs[layers.len() - 1], chunk, dim);
                    normalise(top, part_mut(normalised, chunk, dim), part_mut(scales, chunk, 1));
                }
            });
        &self.normalised
    }

    /// Takes `gradient` with respect to the outputs of the last [`forward`](Self::forward),
    /// `[batch, dim]`, back to its input, which is given once more. Weight and bias gradients of
    /// each layer.
    pub(crate) fn backward(
        &mut self,
        layers: &[Layer],
        input: &[f32],
        gradient: &[f32],
    ) -> &[(Vec<f32>, Vec<f32>)] {
        let (inputs, dim, batch) = (inputs(layers), dim(layers), self.scales.len());
        self.input_gradient.resize(batch * inputs, 0.0);
        let rows = group_rows(batch);
        let count = batch.div_ceil(rows);
        self.groups.resize(self.groups.len().max(count), Gradients::default());
        let (transposed, outputs) = (&self.transposed, &self.outputs);
        let (normalised, scales) = (&self.normalised, &self.scales);
        (self.groups[..count].par_iter_mut())
            .zip(self.input_gradient.par_chunks_mut(rows * inputs))
            .enumerate()
            .with_max_len(1)
            .for_each(|(group, (gradients, input_gradient))| {
                gradients.make_room(layers);
                let first = group * rows;
                for (chunk, input_gradient) in input_gradient.chunks_mut(ROWS * inputs).enumerate()
                {
                    let begin = first + chunk * ROWS;
                    let range = begin..begin + input_gradient.len() / inputs;
                    let of = |values: &'_ [f32], width: usize| -> std::ops::Range<usize> {
                        debug_assert!(values.len() >= range.end * width);
                        range.start * width..range.end * width
                    };
                    unnormalise(
                        &gradient[of(gradient, dim)],
                        &normalised[of(normalised, dim)],
                        &scales[range.clone()],
                        &mut gradients.above,
                    );
                    for (index, layer) in layers.iter().enumerate().rev() {
                        let below = match index {
                            0 => &input[of(input, inputs)],
                            _ => &outputs[index - 1][of(&outputs[index - 1], layer.inputs())],
                        };
                        let into = (index == 0).then_some(&mut *input_gradient);
                        let transposed = &transposed[index];
                        gradients.layer_backward(index, transposed, below, chunk > 0, into);
                    }
                }
            });
        sum_in_order(&self.groups[..count], &mut self.sum);
        &self.sum
    }

    /// Weight and bias gradients of each layer, of the last [`backward`](Self::backward).
    pub(crate) fn gradients(&self) -> &[(Vec<f32>, Vec<f32>)] {
        &self.sum
    }

    /// `[batch, inputs]`, of the last [`backward`](Self::backward).
    pub(crate) fn input_gradient(&self) -> &[f32] {
        &self.input_gradient
    }

    /// Output `[batch, dim]`; keeps nothing.
    pub(crate) fn embed(&self, layers: &[Layer], input: &[f32], batch: usize) -> Vec<f32> {
        let (inputs, dim) = (inputs(layers), dim(layers));
        let mut normalised = vec![0.0; batch * dim];
        let chunks = normalised.par_chunks_mut(ROWS * dim).zip(input.par_chunks(ROWS * inputs));
        chunks.for_each(|(normalised, input)| {
            let rows = normalised.len() / dim;
            let mut buffers: Vec<Vec<f32>> =
                layers.iter().map(|layer| vec![0.0; rows * layer.outputs()]).collect();
            let mut outputs: Vec<&mut [f32]> = buffers.iter_mut().map(|b| &mut b[..]).collect();
            forward_chunk(layers, 0, input, &mut outputs);
            normalise(outputs[layers.len() - 1], normalised, &mut vec![0.0; rows]);
        });
        normalised
    }
}

impl Gradients {
    fn make_room(&mut self, layers: &[Layer]) {
        self.layers.resize(layers.len(), Default::default());
        for ((weight, bias), layer) in self.layers.iter_mut().zip(layers) {
            weight.resize(layer.weight.values.len(), 0.0);
            bias.resize(layer.outputs(), 0.0);
        }
        let widest = layers.iter().map(|layer| layer.inputs().max(layer.outputs())).max();
        let size = ROWS * widest.unwrap_or(0);
        self.above.resize(size, 0.0);
        self.below.resize(size, 0.0);
    }

    /// Through one layer, down: `above` is the gradient of its outputs, `input` what it got,
    /// `transposed` its weight. The weights' gradients are added to those of the chunk before
    /// (`accumulate`) or overwrite them. The gradient of `input` goes to `into`, or becomes `above`
    /// for the layer below.
    fn layer_backward(
        &mut self,
        index: usize,
        transposed: &[f32],
        input: &[f32],
        accumulate: bool,
        into: Option<&mut [f32]>,
    ) {
        let (weight, bias) = &mut self.layers[index];
        let outputs = bias.len();
        let inputs = weight.len() / outputs;
        let rows = input.len() / inputs;
        let above = &self.above[..rows * outputs];
        if !accumulate {
            bias.fill(0.0);
        }
        for row in above.chunks_exact(outputs) {
            bias.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        // [inputs, rows] x [rows, outputs]
        let left = Left { values: input, strides: (1, inputs) };
        product(weight, left, above, (inputs, rows, outputs), accumulate);
        // [rows, outputs] x [outputs, inputs]
        let left = Left { values: above, strides: (outputs, 1) };
        let shape = (rows, outputs, inputs);
        match into {
            Some(into) => product(into, left, transposed, shape, false),
            None => {
                let below = &mut self.below[..rows * inputs];
                product(below, left, transposed, shape, false);
                for (gradient, &output) in below.iter_mut().zip(input) {
                    // The ReLU was below its corner.
                    *gradient = if output > 0.0 { *gradient } else { 0.0 };
                }
                std::mem::swap(&mut self.above, &mut self.below);
            }
        }
    }
}

/// `[rows, inputs]` to `[rows, outputs]`: `x W + b`.
fn affine(layer: &Layer, input: &[f32], output: &mut [f32]) {
    let (inputs, outputs) = (layer.inputs(), layer.outputs());
    output.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(&layer.bias.values));
    let rows = output.len() / outputs;
    let left = Left { values: input, strides: (inputs, 1) };
    // [rows, inputs] x [inputs, outputs]
    product(output, left, &layer.weight.values, (rows, inputs, outputs), true);
}

fn inputs(layers: &[Layer]) -> usize {
    layers[0].inputs()
}

fn dim(layers: &[Layer]) -> usize {
    layers[layers.len() - 1].outputs()
}

/// One chunk of a group through the layers.
fn forward_chunk(layers: &[Layer], chunk: usize, input: &[f32], outputs: &mut [&mut [f32]]) {
    for (index, layer) in layers.iter().enumerate() {
        let (below, from) = outputs.split_at_mut(index);
        let input = match below.last() {
            None => part(input, chunk, layer.inputs()),
            Some(below) => part(below, chunk, layer.inputs()),
        };
        let output = part_mut(from[0], chunk, layer.outputs());
        affine(layer, input, output);
        if index + 1 < layers.len() {
            // Not `max`: that would hide what is not a number.
            output.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value });
        }
    }
}

fn part(values: &[f32], chunk: usize, width: usize) -> &[f32] {
    &values[chunk * ROWS * width..values.len().min((chunk + 1) * ROWS * width)]
}

fn part_mut(values: &mut [f32], chunk: usize, width: usize) -> &mut [f32] {
    let end = values.len().min((chunk + 1) * ROWS * width);
    &mut values[chunk * ROWS * width..end]
}

/// `y = x / sqrt(|x|² + ε)`, and the factor.
fn normalise(top: &[f32], normalised: &mut [f32], scales: &mut [f32]) {
    let dim = top.len() / scales.len();
    let rows = top.chunks_exact(dim).zip(normalised.chunks_exact_mut(dim));
    for ((x, y), scale) in rows.zip(scales) {
        *scale = (dot::<8>(x, x) + super::NORM_EPSILON).sqrt().recip();
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * *scale);
    }
}

/// The gradient with respect to x from that of y: `(g - y (y·g)) / norm`.
fn unnormalise(gradient: &[f32], normalised: &[f32], scales: &[f32], above: &mut [f32]) {
    let dim = gradient.len() / scales.len();
    let rows = gradient.chunks_exact(dim).zip(normalised.chunks_exact(dim));
    for (((g, y), scale), out) in rows.zip(scales).zip(above.chunks_exact_mut(dim)) {
        let along = dot::<8>(y, g);
        for ((out, g), y) in out.iter_mut().zip(g).zip(y) {
            *out = (g - along * y) * scale;
        }
    }
}

/// Rows per group, whole chunks. From the batch size alone: it decides the order of additions.
fn group_rows(batch: usize) -> usize {
    batch.div_ceil(ROWS).div_ceil(GROUPS_MAX).max(1) * ROWS
}

/// Adds the groups' gradients in group order: the one place where threads' work meets.
fn sum_in_order(groups: &[Gradients], sum: &mut [(Vec<f32>, Vec<f32>)]) {
    const CHUNK: usize = 4096;
    sum.par_iter_mut().enumerate().for_each(|(layer, (weight, bias))| {
        weight.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, sum)| {
            sum.fill(0.0);
            let begin = chunk * CHUNK;
            for group in groups {
                let part = &group.layers[layer].0[begin..begin + sum.len()];
                sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            }
        });
        bias.fill(0.0);
        for group in groups {
            bias.iter_mut().zip(&group.layers[layer].1).for_each(|(sum, value)| *sum += value);
        }
    });
}
