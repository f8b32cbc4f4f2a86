//! One block of rows: its logits, its share of the gradients.
//!
//! Owns the three passes over a block's `[columns, ROWS]` logits (scores; exponentials and the
//! query gradient; the item gradient). A pass is fused into the product beside it, tile by tile, so
//! that the vector loops read from the cache what gemm just wrote. It must never know how blocks
//! are shared out between threads.

use std::ops::Range;

use super::bf16::{Items, Operands};
use super::masks::Masks;
use super::{LossInput, Positive, row_loss};
use crate::kernel::product::{Left, product};
use crate::objective::softmax::simd::{Lanes, ROWS, Rows};

/// Columns per tile. A tile (`4 * ROWS * TILE` bytes, 64 KiB) is still in the L2 cache when the
/// next pass over it starts. Measured: 128 to 1024 take the same time; a tile beyond the cache
/// would be fetched by each pass.
const TILE: usize = 256;

/// What every group reads.
pub(crate) struct Shared<'a> {
    pub(crate) input: &'a LossInput<'a>,
    /// `[batch, dim]`
    pub(crate) query: &'a [f32],
    /// `[columns, dim]`
    pub(crate) item: &'a [f32],
    pub(crate) columns: usize,
    pub(crate) lanes: Lanes,
    /// `[columns]`, see `BatchSoftmax`.
    pub(crate) offsets: &'a [f32],
    pub(crate) counts: &'a [u32],
    pub(crate) masks: &'a Masks,
    /// If given, the products are taken in bf16.
    pub(crate) bf16_items: Option<&'a Items>,
}

/// Where one group writes: its rows of the outputs, and an item gradient of its own.
pub(crate) struct GroupOutput<'a> {
    pub(crate) query_gradient: &'a mut [f32],
    pub(crate) losses: &'a mut [f32],
    pub(crate) ranks: &'a mut [u32],
    pub(crate) item_gradient: &'a mut [f32],
}

/// One block of rows at work: [`ROWS`] queries (fewer in the last block) against all columns.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// `[columns, ROWS]`: dot products, then `exp(logit - max)`, row `r` of the block in lane `r`.
    logits: Vec<f32>,
    /// `[dim, ROWS]`, the block's queries; unused lanes are zero.
    query: Vec<f32>,
    /// `[ROWS, dim]`, each query times its row's gradient scale.
    scaled_query: Vec<f32>,
    bf16: Operands,
    rows: Rows,
}

impl Block {
    /// Rows `start..` of the batch, as many as `out` has room for.
    pub(crate) fn run_group(&mut self, shared: &Shared<'_>, start: usize, out: GroupOutput<'_>) {
        let dim = shared.input.dim;
        self.logits.resize(shared.columns * ROWS, 0.0);
        self.query.resize(dim * ROWS, 0.0);
        self.scaled_query.resize(ROWS * dim, 0.0);
        let chunks = (out.query_gradient.chunks_mut(ROWS * dim))
            .zip(out.losses.chunks_mut(ROWS))
            .zip(out.ranks.chunks_mut(ROWS));
        for (index, ((query_gradient, losses), ranks)) in chunks.enumerate() {
            let row = start + index * ROWS;
            self.score(shared, row, losses.len());
            self.exponentials(shared, query_gradient);
            self.finish_rows(shared, row, query_gradient, losses);
            self.add_item_gradient(shared, row, losses.len(), index > 0, out.item_gradient);
            for (rank, above) in ranks.iter_mut().zip(&self.rows.above) {
                *rank = above + 1;
            }
        }
    }

    /// First pass: dot products, masks and row maxima. The positives and masked pairs are left at
    /// minus infinity: they are no negatives.
    fn score(&mut self, shared: &Shared<'_>, row: usize, rows: usize) {
        let LossInput { dim, log_q, positive, temperature, .. } = *shared.input;
        self.load_queries(shared, row, rows);
        let corrected = matches!(positive, Positive::Sampled);
        let scale = temperature.recip();
        self.rows.begin(rows);
        for start in (0..shared.columns).step_by(TILE) {
            let columns = start..shared.columns.min(start + TILE);
            let logits = &mut self.logits[columns.start * ROWS..columns.end * ROWS];
            // [columns, dim] x [dim, ROWS]
            if let Some(items) = shared.bf16_items {
                self.bf16.scores(items, columns.clone(), logits);
            } else {
                let values = &shared.item[columns.start * dim..columns.end * dim];
                let left = Left { values, strides: (dim, 1) };
                product(logits, left, &self.query, (columns.len(), dim, ROWS), false);
            }
            for r in 0..rows {
                let place = shared.masks.place(row + r);
                if columns.contains(&place) {
                    let dot = &mut logits[(place - start) * ROWS + r];
                    let log_q = if corrected { log_q[place] } else { 0.0 };
                    self.rows.take_positive(r, dot, scale, log_q);
                }
                mask(shared.masks.same_item(row + r), r, columns.clone(), logits);
                if let Some(same_query) = shared.masks.same_query() {
                    mask(same_query.of(row + r), r, columns.clone(), logits);
                }
                mask(shared.masks.had(row + r), r, columns.clone(), logits);
            }
            shared.lanes.scan(logits, scale, &shared.offsets[columns], &mut self.rows);
        }
    }

    /// Lays the queries out with the dimension outside, padded to [`ROWS`] lanes.
    fn load_queries(&mut self, shared: &Shared<'_>, row: usize, rows: usize) {
        let dim = shared.input.dim;
        let query = &shared.query[row * dim..(row + rows) * dim];
        if rows < ROWS {
            self.query.fill(0.0);
        }
        for (r, query) in query.chunks_exact(dim).enumerate() {
            for (d, &value) in query.iter().enumerate() {
                self.query[d * ROWS + r] = value;
            }
        }
        if let Some(items) = shared.bf16_items {
            self.bf16.load_queries(items, &self.query);
        }
    }

    /// Second pass: logits become exponentials, their sums are taken, items not below the positive
    /// are counted, and the exponentials' product with the items goes to `query_gradient` while the
    /// tile is in the cache. Rows are normalised afterwards.
    fn exponentials(&mut self, shared: &Shared<'_>, query_gradient: &mut [f32]) {
        let LossInput { dim, temperature, .. } = *shared.input;
        let rows = query_gradient.len() / dim;
        let scale = temperature.recip();
        let columns = shared.offsets.chunks(TILE).zip(shared.counts.chunks(TILE));
        let tiles = self.logits.chunks_mut(TILE * ROWS).zip(columns);
        for (index, ((tile, (offsets, counts)), item)) in
            tiles.zip(shared.item.chunks(TILE * dim)).enumerate()
        {
            shared.lanes.exponentials(tile, scale, offsets, counts, &mut self.rows);
            // [rows, columns] x [columns, dim]
            if let Some(items) = shared.bf16_items {
                self.bf16.query_gradient(items, index * TILE, tile, query_gradient);
            } else {
                let left = Left { values: tile, strides: (1, ROWS) };
                product(query_gradient, left, item, (rows, offsets.len(), dim), index > 0);
            }
        }
    }

    /// Losses and the rows' gradient scales: `r_i / (full_batch τ Z_i)`, Z_i being the sum that the
    /// gradient's softmax is over.
    fn finish_rows(
        &mut self,
        shared: &Shared<'_>,
        row: usize,
        query_gradient: &mut [f32],
        losses: &mut [f32],
    ) {
        let LossInput { dim, positive, rewards, temperature, full_batch, .. } = *shared.input;
        for (r, loss) in losses.iter_mut().enumerate() {
            let i = row + r;
            let place = shared.masks.place(i);
            let below_max = self.rows.positive_logit[r] - self.rows.max[r];
            let negatives = self.rows.negatives[r];
            let odds = shared.masks.odds(shared.input, i);
            let (row_loss, factor) = row_loss(positive, i, odds, below_max, negatives);
            *loss = rewards[i] * row_loss;
            let scale = rewards[i] * factor / (full_batch as f32 * temperature);
            let gradient = &mut query_gradient[r * dim..(r + 1) * dim];
            for (gradient, item) in gradient.iter_mut().zip(&shared.item[place * dim..]) {
                *gradient = scale * (*gradient - negatives * item);
            }
            let scaled = &mut self.scaled_query[r * dim..(r + 1) * dim];
            for (scaled, query) in scaled.iter_mut().zip(&shared.query[i * dim..]) {
                *scaled = scale * query;
            }
            self.logits[place * ROWS + r] = -negatives;
        }
    }

    /// Third pass: the transposed product with the queries.
    fn add_item_gradient(
        &mut self,
        shared: &Shared<'_>,
        row: usize,
        rows: usize,
        accumulate: bool,
        gradient: &mut [f32],
    ) {
        let LossInput { dim, trained, .. } = *shared.input;
        // [trained, rows] x [rows, dim]
        if let Some(items) = shared.bf16_items {
            let scaled_query = &self.scaled_query[..rows * dim];
            self.bf16.item_gradient(items, scaled_query, gradient, accumulate);
            // In bf16 the positives, the greatest share of all, would be off by up to 0.4%.
            let scaled_queries = scaled_query.chunks_exact(dim).zip(self.rows.negatives);
            for (r, (query, negatives)) in scaled_queries.enumerate() {
                let own = &mut gradient[shared.masks.place(row + r) * dim..];
                for (own, query) in own.iter_mut().zip(query) {
                    *own -= negatives * query;
                }
            }
        } else {
            let left = Left { values: &self.logits, strides: (ROWS, 1) };
            product(gradient, left, &self.scaled_query, (trained, rows, dim), accumulate);
        }
    }
}

/// Sets the logits of row `r` to minus infinity where `masked` ones lie in `columns`, the tile's. A
/// positive is its own twin; it has been taken by then and is no negative.
fn mask(masked: &[u32], r: usize, columns: Range<usize>, tile: &mut [f32]) {
    let begin = masked.partition_point(|&column| (column as usize) < columns.start);
    let end = masked.partition_point(|&column| (column as usize) < columns.end);
    for &column in &masked[begin..end] {
        tile[(column as usize - columns.start) * ROWS + r] = f32::NEG_INFINITY;
    }
}
