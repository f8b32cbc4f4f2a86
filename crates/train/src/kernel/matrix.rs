//! Rows of floats, on the host or where a device left them, so that what the towers and the loss
//! hand each other need not leave a GPU.
//!
//! Must never know: what the rows mean.

use std::borrow::Cow;

#[cfg(feature = "gpu")]
use burn::tensor::{Device, Tensor, TensorData};

/// Rows on a device are padded to a multiple of this: changing shapes fragment burn-wgpu's memory
/// pools and compile kernels anew. A multiple of what its buffers are aligned to, so that a slice
/// of whole steps is a view.
#[cfg(feature = "gpu")]
pub(crate) const ROWS_STEP: usize = 256;

/// `[rows, width]`.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// Row-major.
    Host(&'a [f32]),
    /// Padded; what padding rows hold is of no importance, but finite.
    #[cfg(feature = "gpu")]
    Device(&'a Tensor<2>),
}

/// What there is one of for each tower. The towers may have different numbers of rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerTower<T> {
    /// Of the query tower.
    pub query: T,
    /// Of the item tower.
    pub item: T,
}

impl<'a> Matrix<'a> {
    /// The values. Panics if a device has them.
    pub fn host(self) -> &'a [f32] {
        match self {
            Self::Host(values) => values,
            #[cfg(feature = "gpu")]
            Self::Device(_) => panic!("rows of a device were given to the host"),
        }
    }

    pub(crate) fn has_shape(self, rows: usize, width: usize) -> bool {
        match self {
            Self::Host(values) => values.len() == rows * width,
            #[cfg(feature = "gpu")]
            Self::Device(tensor) => tensor.dims() == [rows.next_multiple_of(ROWS_STEP), width],
        }
    }

    /// The first `rows` of them; a device finishes all its work first.
    pub(crate) fn read(self, rows: usize, width: usize) -> Cow<'a, [f32]> {
        match self {
            Self::Host(values) => Cow::Borrowed(&values[..rows * width]),
            #[cfg(feature = "gpu")]
            Self::Device(tensor) => {
                let mut values = floats(tensor.to_data());
                values.truncate(rows * width);
                Cow::Owned(values)
            }
        }
    }

    /// On the device, padded.
    #[cfg(feature = "gpu")]
    pub(crate) fn on(self, device: &Device, width: usize) -> Tensor<2> {
        match self {
            Self::Host(values) => upload(values, width, device),
            #[cfg(feature = "gpu")]
            Self::Device(tensor) => tensor.clone(),
        }
    }
}

/// `[rows, width]` values as a tensor, padded with zeros.
#[cfg(feature = "gpu")]
pub(crate) fn upload(values: &[f32], width: usize, device: &Device) -> Tensor<2> {
    let rows = (values.len() / width).next_multiple_of(ROWS_STEP);
    let mut padded = Vec::with_capacity(rows * width);
    padded.extend_from_slice(values);
    padded.resize(rows * width, 0.0);
    Tensor::from_data(TensorData::new(padded, [rows, width]), device)
}

/// What was read from a device.
#[cfg(feature = "gpu")]
pub(crate) fn floats(data: TensorData) -> Vec<f32> {
    data.try_into_vec().expect("everything is computed in f32")
}
