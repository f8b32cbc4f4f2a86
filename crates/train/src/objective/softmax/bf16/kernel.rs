//! Conversion to pairs of bf16 and the matrix product on them, in AVX-512 intrinsics.
//!
//! Safe to call: that an [`Instructions`] exists proves the processor has them, and every function
//! asserts the bounds that its pointers stay in.

use std::arch::x86_64::*;

use crate::kernel::product::Left;

/// Two bf16 numbers, the first in the low half.
pub(crate) type Pair = u32;

/// Lanes of a vector: the lanes of right operands are padded to a multiple.
pub(crate) const LANES: usize = 16;
/// Rows and vectors of the kernel's tile. 24 sums, 4 vectors of the right operand and one pair of
/// the left fit the 32 registers, and a step of the loop has 10 loads for 24 multiplications.
const TILE_ROWS: usize = 6;
const TILE_VECTORS: usize = 4;

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instructions(());

impl Instructions {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        found.then_some(Self(()))
    }

    /// Pairs up rows `2i` and `2i + 1` of `values`, `[rows, columns]`: `[rows / 2, columns]`, both
    /// rounded up, the columns to whole vectors.
    pub(crate) fn pair_rows(self, values: &[f32], columns: usize, pairs: &mut [Pair]) {
        let stride = columns.next_multiple_of(LANES);
        assert!(values.len().is_multiple_of(columns), "values are not [rows, columns]");
        assert_eq!(pairs.len(), (values.len() / columns).div_ceil(2) * stride, "pairs do not fit");
        for (two, pairs) in values.chunks(2 * columns).zip(pairs.chunks_exact_mut(stride)) {
            let (first, second) = two.split_at(columns);
            // SAFETY: `self` proves the instructions.
            unsafe { interleave(first, second, pairs) };
        }
    }

    /// Pairs up columns `2j` and `2j + 1` of `values`, `[rows, columns]`: `[rows, columns / 2]`,
    /// rounded up.
    pub(crate) fn pair_columns(self, values: &[f32], columns: usize, pairs: &mut [Pair]) {
        let stride = columns.div_ceil(2);
        assert!(values.len().is_multiple_of(columns), "values are not [rows, columns]");
        assert_eq!(pairs.len(), values.len() / columns * stride, "pairs do not fit");
        for (values, pairs) in values.chunks_exact(columns).zip(pairs.chunks_exact_mut(stride)) {
            // SAFETY: `self` proves the instructions.
            unsafe { convert(values, pairs) };
        }
    }

    /// `out = left * right`, or `out += left * right`, of shape `(rows, inner, columns)`, `inner`
    /// in pairs: `left` is `[rows, inner]`, `right` `[inner, columns]` with rows padded to whole
    /// vectors, `out` `[rows, columns]`. Sums run along `inner` in order, whatever the tile.
    pub(crate) fn product(
        self,
        out: &mut [f32],
        left: Left<'_, Pair>,
        right: &[Pair],
        shape: (usize, usize, usize),
        accumulate: bool,
    ) {
        let (rows, inner, columns) = shape;
        left.assert_fits(right.len(), columns.next_multiple_of(LANES), out.len(), shape);
        let vectors = columns.div_ceil(LANES);
        for vector in (0..vectors).step_by(TILE_VECTORS) {
            let strip = Strip {
                out: out.as_mut_ptr().wrapping_add(vector * LANES),
                left: left.values.as_ptr(),
                left_strides: left.strides,
                right: right.as_ptr().wrapping_add(vector * LANES),
                rows,
                inner,
                columns,
                // The last vector may reach beyond the columns.
                last_mask: match (vector + TILE_VECTORS).min(vectors) * LANES {
                    end if end > columns => !0 >> (end - columns),
                    _ => !0,
                },
                accumulate,
            };
            // SAFETY: `self` proves the instructions. The check bounds every pair the strides
            // reach; of `out` only the columns under the mask are touched, and no operand overlaps
            // it, because it is borrowed mutably.
            unsafe {
                match vectors - vector {
                    1 => strip.run::<1>(),
                    2 => strip.run::<2>(),
                    3 => strip.run::<3>(),
                    _ => strip.run::<TILE_VECTORS>(),
                }
            }
        }
    }
}

/// Up to [`TILE_VECTORS`] vectors of columns of a product.
struct Strip {
    out: *mut f32,
    left: *const Pair,
    left_strides: (usize, usize),
    right: *const Pair,
    rows: usize,
    inner: usize,
    columns: usize,
    last_mask: __mmask16,
    accumulate: bool,
}

impl Strip {
    /// # Safety
    ///
    /// For all `rows`, `inner` pairs and `VECTORS` vectors the pointers must stay in their arrays.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn run<const VECTORS: usize>(&self) {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: the rows are there.
            unsafe {
                row += match self.rows - row {
                    TILE_ROWS.. => self.tile::<TILE_ROWS, VECTORS>(row),
                    4.. => self.tile::<4, VECTORS>(row),
                    2.. => self.tile::<2, VECTORS>(row),
                    _ => self.tile::<1, VECTORS>(row),
                };
            }
        }
    }

    /// Rows `row..row + ROWS`; returns how many they are.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run), and these rows must exist.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize>(&self, row: usize) -> usize {
        let right_stride = self.columns.next_multiple_of(LANES);
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        // SAFETY: the caller's promise; masked lanes are not touched.
        unsafe {
            let mut left = self.left.add(row * self.left_strides.0);
            let mut right = self.right;
            for _ in 0..self.inner {
                let vectors: [__m512bh; VECTORS] = std::array::from_fn(|v| {
                    right.add(v * LANES).cast::<__m512bh>().read_unaligned()
                });
                for (r, sums) in sums.iter_mut().enumerate() {
                    let pair = *left.add(r * self.left_strides.0);
                    let pair: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair.cast_signed()));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = _mm512_dpbf16_ps(*sum, pair, vector);
                    }
                }
                left = left.wrapping_add(self.left_strides.1);
                right = right.wrapping_add(right_stride);
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, mut sum) in sums.into_iter().enumerate() {
                    let mask = if v + 1 == VECTORS { self.last_mask } else { !0 };
                    let out = self.out.add((row + r) * self.columns + v * LANES);
                    if self.accumulate {
                        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sum);
                    }
                    _mm512_mask_storeu_ps(out, mask, sum);
                }
            }
        }
        ROWS
    }
}

/// The mask of the first `count` lanes, all if there are more.
fn first(count: usize) -> __mmask16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}

/// Loads up to 16 floats, zeros behind the end.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32], start: usize) -> __m512 {
    let values = values.get(start..).unwrap_or_default();
    // SAFETY: lanes beyond the slice are masked.
    unsafe { _mm512_maskz_loadu_ps(first(values.len()), values.as_ptr()) }
}

/// `pairs[j] = (low[j], high[j])`, zeros behind an end.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleave(low: &[f32], high: &[f32], pairs: &mut [Pair]) {
    // Words 0, 16, 1, 17 and so on: `vcvtne2ps2bf16` leaves the halves side by side.
    let order: [u16; 32] = std::array::from_fn(|word| (word / 2 + word % 2 * LANES) as u16);
    let (chunks, _) = pairs.as_chunks_mut::<LANES>();
    // SAFETY: array and chunks are 64 bytes long.
    unsafe {
        let order = _mm512_loadu_si512(order.as_ptr().cast());
        for (chunk, pairs) in chunks.iter_mut().enumerate() {
            let at = chunk * LANES;
            let both = _mm512_cvtne2ps_pbh(load(high, at), load(low, at));
            let both =
                _mm512_permutexvar_epi16(order, std::mem::transmute::<__m512bh, __m512i>(both));
            _mm512_storeu_si512(pairs.as_mut_ptr().cast(), both);
        }
    }
}

/// `pairs[j] = (values[2j], values[2j + 1])`, zero behind the end.
#[target_feature(enable = "avx512f,avx512bf16")]
fn convert(values: &[f32], pairs: &mut [Pair]) {
    for (chunk, pairs) in pairs.chunks_mut(LANES).enumerate() {
        let at = chunk * 2 * LANES;
        let both = _mm512_cvtne2ps_pbh(load(values, at + LANES), load(values, at));
        // SAFETY: lanes beyond the slice are masked.
        unsafe {
            let both = std::mem::transmute::<__m512bh, __m512i>(both);
            _mm512_mask_storeu_epi32(pairs.as_mut_ptr().cast(), first(pairs.len()), both);
        }
    }
}
