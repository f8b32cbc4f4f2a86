//! One tower's layers as burn's graph, on any device; the loss gradient enters it as
//! `sum(output * gradient)`.

use burn::tensor::{Device, Tensor, TensorData, Transaction};

use super::{Layer, Matrix, NORM_EPSILON, Parameter};
use crate::kernel::matrix::{floats, upload};

/// See the module's head.
pub(crate) struct GraphTower {
    input_width: usize,
    dim: usize,
    device: Device,
    /// Weight `[inputs, outputs]` and bias `[1, outputs]` of each layer.
    weights: Vec<(Tensor<2>, Tensor<2>)>,
    /// What waits for its gradient.
    pass: Option<Pass>,
    /// `[rows, dim]`, of the last forward pass.
    output: Option<Tensor<2>>,
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

impl GraphTower {
    pub(crate) fn new(input_width: usize, dim: usize, device: &Device) -> Self {
        Self {
            input_width,
            dim,
            device: device.clone(),
            weights: Vec::new(),
            pass: None,
            output: None,
            input_gradient: Vec::new(),
            gradients: Vec::new(),
        }
    }

    /// Takes over new weights.
    pub(crate) fn upload_weights(&mut self, layers: &[Layer]) {
        self.weights = self.uploaded(layers);
    }

    fn uploaded(&self, layers: &[Layer]) -> Vec<(Tensor<2>, Tensor<2>)> {
        let upload = |parameter: &Parameter| {
            let data = TensorData::new(parameter.values.clone(), parameter.shape());
            Tensor::from_data(data, &self.device)
        };
        layers.iter().map(|layer| (upload(&layer.weight), upload(&layer.bias))).collect()
    }

    /// `[rows, dim]`, rows being `batch` rounded up; the graph is kept for
    /// [`backward`](Self::backward). Does not wait for the device.
    pub(crate) fn forward(&mut self, input: &[f32], batch: usize) -> &Tensor<2> {
        let input = upload(input, self.input_width, &self.device); // [rows, input]
        let input = input.autodiff().require_grad();
        let leaf = |value: &Tensor<2>| value.clone().autodiff().require_grad();
        let leaves: Vec<_> =
            self.weights.iter().map(|(weight, bias)| (leaf(weight), leaf(bias))).collect();
        let output = run(input.clone(), &leaves);
        let values = output.clone().inner();
        self.pass = Some(Pass { input, leaves, output, batch });
        self.output.insert(values)
    }

    /// Weight and bias gradients of each layer; that of the input is kept.
    pub(crate) fn backward(&mut self, gradient: Matrix<'_>) -> &[(Vec<f32>, Vec<f32>)] {
        let pass = self.pass.take().expect("backward follows forward");
        let gradient = gradient.on(&self.device, self.dim); // [rows, dim]
        // d sum(output * gradient) / d output is the gradient itself.
        let gradients = pass.output.mul(gradient.autodiff()).sum().backward();
        let of = |leaf: &Tensor<2>| leaf.grad(&gradients).expect("every leaf requires a gradient");
        // One wait for all of them; whole tensors, so that no shape depends on the batch.
        let read = pass.leaves.iter().fold(
            Transaction::default().register(of(&pass.input)),
            |transaction, (weight, bias)| transaction.register(of(weight)).register(of(bias)),
        );
        let mut values = read.execute().into_iter().map(floats);
        self.input_gradient = values.next().expect("the input's comes first");
        self.input_gradient.truncate(pass.batch * self.input_width);
        self.gradients.clear();
        while let (Some(weight), Some(bias)) = (values.next(), values.next()) {
            self.gradients.push((weight, bias));
        }
        &self.gradients
    }

    /// Weight and bias gradients of each layer, of the last [`backward`](Self::backward).
    pub(crate) fn gradients(&self) -> &[(Vec<f32>, Vec<f32>)] {
        &self.gradients
    }

    /// `[batch, input]`, of the last [`backward`](Self::backward).
    pub(crate) fn input_gradient(&self) -> &[f32] {
        &self.input_gradient
    }

    /// `[batch, dim]`, without a graph; by `others`, if given, instead of the weights.
    pub(crate) fn embed(&self, others: Option<&[Layer]>, input: &[f32], batch: usize) -> Vec<f32> {
        let input = upload(input, self.input_width, &self.device); // [rows, input]
        let others = others.map(|layers| self.uploaded(layers));
        let weights = others.as_ref().unwrap_or(&self.weights);
        let mut vectors = floats(run(input, weights).into_data());
        vectors.truncate(batch * self.dim);
        vectors
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
