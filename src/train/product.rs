//! Matrix products on the calling thread: the only calls to gemm.
//!
//! Owns the bounds of what gemm reads and writes.

use gemm::{Parallelism, gemm};

/// A left operand: element `(i, j)` is `values[i * strides.0 + j * strides.1]`.
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) strides: (usize, usize),
}

/// `out = left * right`, or `out += left * right`, of shape `(rows, inner, columns)`: `left` is
/// `[rows, inner]`, `right` `[inner, columns]` and `out` `[rows, columns]`, both row-major. With the
/// right operand's rows contiguous gemm packs nothing. On the calling thread only.
pub(super) fn product(
    out: &mut [f32],
    left: Left<'_>,
    right: &[f32],
    shape: (usize, usize, usize),
    accumulate: bool,
) {
    let (rows, inner, columns) = shape;
    assert!(rows > 0 && inner > 0 && columns > 0, "empty product");
    let last = (rows - 1) * left.strides.0 + (inner - 1) * left.strides.1;
    assert!(last < left.values.len(), "left operand too short");
    assert!(inner * columns <= right.len(), "right operand too short");
    assert!(rows * columns <= out.len(), "product does not fit");
    // gemm thinks in columns: it is told the transpose of everything, with the operands swapped.
    // SAFETY: the asserts above bound every element that the strides reach, and `out` is borrowed
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
