//! The three products of a block with bf16 operands, accumulated in f32 (AVX512-BF16).
//!
//! `vdpbf16ps` adds two products to a lane, of neighbours along the inner dimension, so operands
//! are arrays of pairs: `[inner / 2, lanes]` on the right, with any strides on the left. Zeros
//! stand in for a missing neighbour and fill lanes up to whole vectors. Owns the operands' bf16
//! copies; it must never know about masks, statistics or the order of tiles.

#[cfg_attr(not(target_arch = "x86_64"), path = "bf16/absent.rs")]
mod kernel;

use std::ops::Range;

use crate::kernel::product::Left;
use crate::objective::softmax::simd::ROWS;
use kernel::{Instructions, LANES, Pair};

/// The items of all columns, shared by all blocks.
#[derive(Debug)]
pub(crate) struct Items {
    instructions: Instructions,
    dim: usize,
    /// `[columns, dim / 2]`, pairs along the dimension: left operand of the scores.
    along_dim: Vec<Pair>,
    /// `[columns / 2, dim]`, pairs along the columns: right operand of the query gradient.
    along_columns: Vec<Pair>,
}

impl Items {
    /// None if the processor lacks the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let instructions = Instructions::detect()?;
        Some(Self { instructions, dim: 1, along_dim: Vec::new(), along_columns: Vec::new() })
    }

    /// Converts `item`, `[columns, dim]`.
    pub(crate) fn load(&mut self, item: &[f32], dim: usize) {
        let columns = item.len() / dim;
        self.dim = dim;
        self.along_dim.resize(columns * dim.div_ceil(2), 0);
        self.along_columns.resize(columns.div_ceil(2) * padded(dim), 0);
        self.instructions.pair_columns(item, dim, &mut self.along_dim);
        self.instructions.pair_rows(item, dim, &mut self.along_columns);
    }
}

/// A block's operands beside the items.
#[derive(Debug, Default)]
pub(crate) struct Operands {
    /// `[dim / 2, ROWS]`, pairs along the dimension.
    query: Vec<Pair>,
    /// `[columns / 2, ROWS]`, pairs along the columns of the tile at work.
    tile: Vec<Pair>,
    /// `[columns, ROWS / 2]`, pairs along the block's rows.
    exponentials: Vec<Pair>,
    /// `[ROWS / 2, dim]`, pairs along the block's rows.
    scaled_query: Vec<Pair>,
}

impl Operands {
    /// Converts the block's queries, `[dim, ROWS]`.
    pub(crate) fn load_queries(&mut self, items: &Items, query: &[f32]) {
        self.query.resize(items.dim.div_ceil(2) * ROWS, 0);
        items.instructions.pair_rows(query, ROWS, &mut self.query);
    }

    /// `scores = items * query`, `[columns, ROWS]`, for some of the columns.
    pub(crate) fn scores(&self, items: &Items, columns: Range<usize>, scores: &mut [f32]) {
        let pairs = items.dim.div_ceil(2);
        let values = &items.along_dim[columns.start * pairs..columns.end * pairs];
        let left = Left { values, strides: (pairs, 1) };
        items.instructions.product(scores, left, &self.query, (columns.len(), pairs, ROWS), false);
    }

    /// Converts the tile of exponentials from column `start` on, `[columns, ROWS]`, keeps it for
    /// the item gradient and adds its product with the items to `gradient`, `[rows, dim]`; the
    /// first tile overwrites.
    pub(crate) fn query_gradient(
        &mut self,
        items: &Items,
        start: usize,
        tile: &[f32],
        gradient: &mut [f32],
    ) {
        let Items { instructions, dim, .. } = *items;
        assert!(start.is_multiple_of(2), "a tile starts within a pair of columns");
        let columns = start..start + tile.len() / ROWS;
        let pairs = columns.len().div_ceil(2);
        self.tile.resize(pairs * ROWS, 0);
        instructions.pair_rows(tile, ROWS, &mut self.tile);
        self.exponentials.resize(self.exponentials.len().max(columns.end * ROWS / 2), 0);
        let kept = &mut self.exponentials[columns.start * ROWS / 2..columns.end * ROWS / 2];
        instructions.pair_columns(tile, ROWS, kept);
        let left = Left { values: &self.tile, strides: (1, ROWS) };
        let right = &items.along_columns[columns.start / 2 * padded(dim)..];
        let shape = (gradient.len() / dim, pairs, dim);
        instructions.product(gradient, left, right, shape, columns.start > 0);
    }

    /// The product of the first columns' exponentials with the scaled queries, `[rows, dim]`, is
    /// added to `gradient`, `[trained, dim]`, or overwrites it.
    pub(crate) fn item_gradient(
        &mut self,
        items: &Items,
        scaled_query: &[f32],
        gradient: &mut [f32],
        accumulate: bool,
    ) {
        let Items { instructions, dim, .. } = *items;
        let pairs = (scaled_query.len() / dim).div_ceil(2);
        self.scaled_query.resize(pairs * padded(dim), 0);
        instructions.pair_rows(scaled_query, dim, &mut self.scaled_query);
        let left = Left { values: &self.exponentials, strides: (ROWS / 2, 1) };
        let shape = (gradient.len() / dim, pairs, dim);
        instructions.product(gradient, left, &self.scaled_query, shape, accumulate);
    }
}

/// Lanes of a right operand.
fn padded(lanes: usize) -> usize {
    lanes.next_multiple_of(LANES)
}
