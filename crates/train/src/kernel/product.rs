//! Products of matrices and vectors on the calling thread: the only calls to gemm.
//!
//! Owns the bounds of what gemm reads and writes.

use gemm::{Parallelism, gemm};

/// A left operand: element `(i, j)` is `values[i * strides.0 + j * strides.1]`.
pub(crate) struct Left<'a, T = f32> {
    pub(crate) values: &'a [T],
    pub(crate) strides: (usize, usize),
}

impl<T> Left<'_, T> {
    /// Panics unless the operands of a product of `shape`, `(rows, inner, columns)`, reach no
    /// further than they are long. `right` and `out` are lengths; a row of the right operand takes
    /// `stride`.
    pub(crate) fn assert_fits(
        &self,
        right: usize,
        stride: usize,
        out: usize,
        (rows, inner, columns): (usize, usize, usize),
    ) {
        assert!(rows > 0 && inner > 0 && columns > 0, "empty product");
        let last = (rows - 1) * self.strides.0 + (inner - 1) * self.strides.1;
        assert!(last < self.values.len(), "left operand too short");
        assert!(inner * stride <= right, "right operand too short");
        assert!(rows * columns <= out, "product does not fit");
    }
}

/// Dot product in a fixed number of lanes: it vectorises, and gives the same bits on every CPU,
/// because the order of the additions is written down.
#[inline(always)]
pub(crate) fn dot<const LANES: usize>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `sum += factor * values`, the same bits on every CPU: each element is a product and an addition.
#[inline]
pub(crate) fn add_scaled(sum: &mut [f32], factor: f32, values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function was compiled for.
        unsafe { add_scaled_avx2(sum, factor, values) };
        return;
    }
    add_scaled_lanes(sum, factor, values);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_scaled_avx2(sum: &mut [f32], factor: f32, values: &[f32]) {
    add_scaled_lanes(sum, factor, values);
}

#[inline(always)]
fn add_scaled_lanes(sum: &mut [f32], factor: f32, values: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

/// `out = left * right`, or `out += left * right`, of shape `(rows, inner, columns)`: `left` is
/// `[rows, inner]`, `right` `[inner, columns]` and `out` `[rows, columns]`, both row-major. With
/// the right operand's rows contiguous gemm packs nothing. On the calling thread only.
pub(crate) fn product(
    out: &mut [f32],
    left: Left<'_>,
    right: &[f32],
    shape: (usize, usize, usize),
    accumulate: bool,
) {
    let (rows, inner, columns) = shape;
    left.assert_fits(right.len(), columns, out.len(), shape);
    // gemm thinks in columns: it is told the transpose of everything, with the operands swapped.
    // SAFETY: the check above bounds every element that the strides reach, and `out` is borrowed
    // mutably, so it overlaps neither operand.
    unsafe {
        gemm(
            columns,
            rows,
            inner,
            out.as_mut_ptr(),
            columns as isize,
            1,
            accumulate,
            right.as_ptr(),
            columns as isize,
            1,
            left.values.as_ptr(),
            left.strides.0 as isize,
            left.strides.1 as isize,
            1.0, // factor of the old `out`
            1.0, // factor of the product
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
