//! One tower's layers as burn's graph, on any device; the loss gradient enters it as
//! `sum(output * gradient)`.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Layer, NORM_EPSILON, Parameter};

/// Every batch is padded to a multiple of this many rows: changing shapes fragment burn-wgpu's
/// memory pools and compile kernels anew.
const ROWS_STEP: usize = 256;

/// See the module's head.
pub(super) struct DeviceTower {
    input_width: usize,
    dim: usize,
    device: Device,
    /// Weight `[inputs, outputs]` and bias `[1, outputs]` of each layer.
    weights: Vec<(Tensor<2>, Tensor<2>)>,
    /// What waits for its gradient.
    pass: Option<Pass>,
    /// `[batch, dim]`, of the last forward pass.
    output: Vec<f32>,
    /// `[batch, input]`, of the last backward pass.
    input_gradient: Vec<f32>,
    /// Weight and bias gradients of each layer, of the last backward pass.
    gradients: Vec<(Vec<f32>, Vec<f32>)>,
}

struct Pass {
    input: Tensor<2>,                    // [rows, input]
    leaves: Vec<(Tensor<2>, Tensor<2>)>, // weight and bias of each layer
    output: Tensor<2>,                   // [rows, dim]
    batch: usize,
}

impl DeviceTower {
    pub(super) fn new(input_width: usize, dim: usize, device: &Device) -> Self {
        Self {
            input_width,
            dim,
            device: device.clone(),
            weights: Vec::new(),
            pass: None,
            output: Vec::new(),
            input_gradient: Vec::new(),
            gradients: Vec::new(),
        }
    }

    /// Takes over new weights.
    pub(super) fn upload_weights(&mut self, layers: &[Layer]) {
        let upload = |parameter: &Parameter| {
            let data = TensorData::new(parameter.values.clone(), parameter.shape());
            Tensor::from_data(data, &self.device)
        };
        let weights = layers.iter().map(|layer| (upload(&layer.weight), upload(&layer.bias)));
        self.weights = weights.collect();
    }

    /// `[batch, dim]`; the graph is kept for [`backward`](Self::backward).
    pub(super) fn forward(&mut self, input: &[f32], batch: usize) -> &[f32] {
        let input = self.upload(input, self.input_width, batch).autodiff().require_grad(); // [rows, input]
        let leaf = |value: &Tensor<2>| value.clone().autodiff().require_grad();
        let leaves: Vec<_> =
            self.weights.iter().map(|(weight, bias)| (leaf(weight), leaf(bias))).collect();
        let output = run(input.clone(), &leaves);
        self.output = host(output.clone().inner(), batch * self.dim);
        self.pass = Some(Pass { input, leaves, output, batch });
        &self.output
    }

    /// Weight and bias gradients of each layer; that of the input is kept.
    pub(super) fn backward(&mut self, gradient: &[f32]) -> &[(Vec<f32>, Vec<f32>)] {
        let pass = self.pass.take().expect("backward follows forward");
        let gradient = self.upload(gradient, self.dim, pass.batch); // [rows, dim]
        // d sum(output * gradient) / d output is the gradient itself.
        let gradients = pass.output.mul(gradient.autodiff()).sum().backward();
        let of = |leaf: &Tensor<2>, length| {
            host(leaf.grad(&gradients).expect("every leaf requires a gradient"), length)
        };
        self.input_gradient = of(&pass.input, pass.batch * self.input_width);
        let leaves = pass.leaves.iter();
        self.gradients =
            leaves.map(|(weight, bias)| (of(weight, usize::MAX), of(bias, usize::MAX))).collect();
        &self.gradients
    }

    /// `[batch, input]`, of the last [`backward`](Self::backward).
    pub(super) fn input_gradient(&self) -> &[f32] {
        &self.input_gradient
    }

    /// `[batch, dim]`, without a graph.
    pub(super) fn embed(&self, input: &[f32], batch: usize) -> Vec<f32> {
        let input = self.upload(input, self.input_width, batch); // [rows, input]
        host(run(input, &self.weights), batch * self.dim)
    }

    /// `[batch, width]` values as a tensor of `[rows, width]`, rows being `batch` rounded up.
    fn upload(&self, values: &[f32], width: usize, batch: usize) -> Tensor<2> {
        let rows = batch.next_multiple_of(ROWS_STEP);
        let mut padded = Vec::with_capacity(rows * width);
        padded.extend_from_slice(values);
        padded.resize(rows * width, 0.0);
        Tensor::from_data(TensorData::new(padded, [rows, width]), &self.device)
    }
}

/// The layers, then the L2 norm.
fn run(input: Tensor<2>, layers: &[(Tensor<2>, Tensor<2>)]) -> Tensor<2> {
    let top = layers.len() - 1;
    let mut x = input; // [rows, input]
    for (index, (weight, bias)) in layers.iter().enumerate() {
        x = x.matmul(weight.clone()) + bias.clone(); // [rows, output]
        if index < top {
            x = burn::tensor::activation::relu(x);
        }
    }
    let norm = x.clone().square().sum_dim(1).add_scalar(NORM_EPSILON).sqrt(); // [rows, 1]
    x / norm // [rows, dim]
}

/// At most the first `length` values of a tensor, on the host.
fn host<const D: usize>(tensor: Tensor<D>, length: usize) -> Vec<f32> {
    let mut values: Vec<f32> = tensor.into_data().try_into_vec().expect("towers compute in f32");
    values.truncate(length);
    values
}
