//! Vectors as whole numbers, with a bound on what that costs.
//!
//! What a row is off the mean of its list becomes codes of 8 bits and one scale: the error follows
//! how far rows lie apart, not how long they are, so those that are nearly alike are told apart,
//! too. A query becomes codes of 16 bits, whose error is a few thousandths of a row's. The bound is
//! that of Cauchy and Schwarz: with `r = r' + e` and `q = q' + f`, `r·q - r'·q' = e·q + r'·f`, so
//! it is off by at most `|e| |q| + |r'| |f|`.

use std::ops::Range;

use rayon::prelude::*;

use crate::kernel::{LANES, Packed, Pair, Run, dot};

/// Largest code of a row.
const ROW_MAX: f32 = 127.0;
/// Largest code of a query, unless a sum of so many dimensions could pass 2^31.
const QUERY_MAX: i32 = 32_767;

/// Rows in blocks of [`LANES`]; those of the last block that are missing are masked.
pub(crate) struct Blocks {
    /// Two dimensions each.
    pub(crate) pairs: usize,
    codes: Vec<Pair>,
    scales: Vec<[f32; LANES]>,
    log_q: Vec<[f32; LANES]>,
    errors: Vec<f32>,
    /// `[blocks]`, the number of each row in what was given.
    pub(crate) numbers: Vec<[u32; LANES]>,
}

impl Blocks {
    /// The rows that `numbers` names, block by block; [`ABSENT`] where there is none. `row` gives
    /// those, `[dim]`. Codes are of what a row is off its block's `mean`, `[dim]`. On the current
    /// rayon pool.
    pub(crate) fn new<'a>(
        (row, dim): (&(impl Fn(usize) -> &'a [f32] + Sync), usize),
        log_q: &[f32],
        numbers: Vec<[u32; LANES]>,
        mean: impl Fn(usize) -> &'a [f32] + Sync,
    ) -> Self {
        let (count, pairs) = (numbers.len(), dim.div_ceil(2));
        let mut blocks = Self {
            pairs,
            codes: vec![[0; 2 * LANES]; count * pairs],
            scales: vec![[0.0; LANES]; count],
            log_q: vec![[0.0; LANES]; count],
            errors: vec![0.0; count],
            numbers,
        };
        let codes = blocks.codes.par_chunks_mut(pairs);
        let scales = blocks.scales.par_iter_mut().zip(&mut blocks.log_q);
        let others = blocks.errors.par_iter_mut().zip(&blocks.numbers);
        let all = codes.zip(scales).zip(others).enumerate();
        all.for_each_init(Vec::new, |off, (block, ((codes, (scales, own_log_q)), others))| {
            let ((error, numbers), mean) = (others, mean(block));
            for (lane, &number) in numbers.iter().enumerate().filter(|(_, n)| **n != ABSENT) {
                let number = number as usize;
                difference(row(number), mean, off);
                let (scale, rest) = encode(off, lane, codes);
                scales[lane] = scale;
                own_log_q[lane] = log_q.get(number).copied().unwrap_or_default();
                *error = error.max(rest);
            }
        });
        blocks
    }

    /// Blocks held.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Rows that there are, a bit each.
    pub(crate) fn masks(&self) -> Vec<u16> {
        let bit = |(lane, &number): (usize, &u32)| u16::from(number != ABSENT) << lane;
        let mask = |numbers: &[u32; LANES]| numbers.iter().enumerate().map(bit).sum();
        self.numbers.iter().map(mask).collect()
    }

    /// What the codes of the row at `lane` of a block stand for, off the mean of its list, is
    /// `out * scale`: the scale.
    pub(crate) fn decode(&self, (block, lane): (usize, usize), out: &mut [f32]) -> f32 {
        let pairs = &self.codes[block * self.pairs..][..self.pairs];
        for (out, pair) in out.chunks_mut(2).zip(pairs) {
            out.iter_mut().zip(&pair[2 * lane..]).for_each(|(x, &code)| *x = f32::from(code));
        }
        self.scales[block][lane]
    }

    /// No row's codes stand for a longer vector.
    pub(crate) fn reach(&self) -> f32 {
        let largest = self.scales.iter().flatten().fold(0.0f32, |most, scale| most.max(*scale));
        largest * ROW_MAX * (2.0 * self.pairs as f32).sqrt()
    }

    /// Codes of all rows, and their scales.
    pub(crate) fn parts(&self) -> (&[Pair], &[[f32; LANES]]) {
        (&self.codes, &self.scales)
    }

    /// The blocks of `range`, of which `masks` lets rows be found; `base` is the score of their
    /// mean.
    pub(crate) fn run<'a>(&'a self, range: Range<usize>, masks: &'a [u16], base: f32) -> Run<'a> {
        Run {
            base,
            codes: &self.codes[range.start * self.pairs..range.end * self.pairs],
            scales: &self.scales[range.clone()],
            log_q: &self.log_q[range.clone()],
            errors: &self.errors[range.clone()],
            masks: &masks[range.clone()],
            first: range.start,
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.codes)
            + size_of_val(&*self.scales)
            + size_of_val(&*self.log_q)
            + size_of_val(&*self.errors)
            + size_of_val(&*self.numbers)
    }
}

/// No row.
pub(crate) const ABSENT: u32 = u32::MAX;

/// Makes `out` what `row` is off `mean`.
pub(crate) fn difference(row: &[f32], mean: &[f32], out: &mut Vec<f32>) {
    out.clear();
    out.extend(row.iter().zip(mean).map(|(x, mean)| x - mean));
}

/// Writes a row's codes into its lane of a block; its scale, and how far the codes lie from it.
fn encode(row: &[f32], lane: usize, block: &mut [Pair]) -> (f32, f32) {
    let largest = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let scale = largest / ROW_MAX;
    if scale == 0.0 {
        // Nothing, or so little that a code cannot say it.
        return (0.0, dot(row, row).sqrt());
    }
    let (inverse, mut squares) = (1.0 / scale, 0.0f32);
    for (at, &x) in row.iter().enumerate() {
        let code = whole(x * inverse).clamp(-ROW_MAX, ROW_MAX);
        block[at / 2][2 * lane + at % 2] = code as i8;
        squares += (x - code * scale) * (x - code * scale);
    }
    (scale, squares.sqrt())
}

/// The nearest whole number. `f32::round` is a call where the processor is not known to have the
/// instruction; added to this, a number of 22 bits or fewer loses its fraction.
#[inline(always)]
fn whole(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    (x + SHIFT) - SHIFT
}

/// Makes `out` the codes of a query or of a row that looks for its list; what a code is worth, and
/// how far the codes lie from `values` at most.
pub(crate) fn pack(values: &[f32], out: &mut Vec<Packed>) -> (f32, f32) {
    out.clear();
    out.resize(values.len().div_ceil(2), 0);
    let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let room = i32::MAX / (ROW_MAX as i32 * 2 * out.len().max(1) as i32);
    let scale = largest / QUERY_MAX.min(room) as f32;
    if scale == 0.0 {
        return (0.0, dot(values, values).sqrt());
    }
    let inverse = 1.0 / scale;
    for (packed, values) in out.iter_mut().zip(values.chunks(2)) {
        let code = |at: usize| values.get(at).map_or(0, |x| whole(x * inverse) as i32);
        *packed = code(0) & 0xffff | code(1) << 16;
    }
    (scale, scale * 0.51 * (values.len() as f32).sqrt())
}
