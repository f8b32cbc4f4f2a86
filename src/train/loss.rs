//! The corrected batch softmax (paper eq. 4): loss, gradients of both towers' outputs, ranks.
//!
//! Closed form instead of autodiff, and blocked: [`ROWS`] queries against all columns at a time, so
//! no `[batch, columns]` array exists. A block's logits lie transposed in memory, `[columns, ROWS]`:
//! all three products then run on unpacked operands and softmax statistics are lane arithmetic.
//!
//! Columns are the items of the batch, in its order, then further negatives: items that learn as
//! well (drawn from the corpus), then vectors of past batches, which do not.
//!
//! Owns its scratch memory, reused from step to step. The same bits come out for any number of
//! threads: rows are shared out into groups by the batch size alone, each with its own item gradient
//! (at most [`GROUPS_MAX`] `* trained * dim` floats, 32 MiB at 8192 and dim 64), summed in order.
//! It must never know where the batch came from, how `log_q` was estimated, or what the towers are.

mod bf16;
mod block;
mod lanes;

use std::sync::Mutex;

use rayon::prelude::*;

use bf16::Items;
use block::{Block, GroupOutput, Shared};
use lanes::{Lanes, ROWS};

/// Most groups of rows, thus most threads used. More costs memory and a longer final sum.
const GROUPS_MAX: usize = 16;
/// Fewest blocks in a group while there are enough for two: with single blocks the final sum takes a
/// noticeable share of a small batch's time (2% at batch 1024).
const GROUP_BLOCKS_MIN: usize = 2;

/// One batch of tower outputs and what the softmax needs to know about them.
///
/// Row `i` of `query` and row `i` of `item` are a positive pair; every other row of `item` (a column
/// of the logits) is a negative for query `i` unless an id masks it.
#[derive(Clone, Copy, Debug)]
pub struct LossInput<'a> {
    /// Floats per row of `query` and `item`.
    pub dim: usize,
    /// `[batch, dim]`, rows L2-normalised (not relied upon: any finite rows give right results).
    pub query: &'a [f32],
    /// `[columns, dim]`, `columns >= batch`, rows L2-normalised (not relied upon).
    pub item: &'a [f32],
    /// Columns that get a gradient, the first ones: `batch <= trained <= columns`.
    pub trained: usize,
    /// `[columns]`, nats, subtracted from every negative's logit, and from the positive's where
    /// `positive` says so; already scaled by the correction's strength. Zeros give the plain softmax
    /// (eq. 3).
    pub log_q: &'a [f32],
    /// How the positive enters.
    pub positive: Positive<'a>,
    /// `[columns]`, accidental hits: columns `j != i` of the same item are masked for row `i`.
    pub item_ids: &'a [u64],
    /// `[batch]`, if given: columns `j != i` of the same query are masked for row `i` as well.
    pub query_ids: Option<&'a [u64]>,
    /// `[batch]`, the weight `r_i` of each example.
    pub rewards: &'a [f32],
    /// τ; dot products are divided by it before the correction is subtracted.
    pub temperature: f32,
}

/// How a positive enters its row's loss.
#[derive(Clone, Copy, Debug)]
pub enum Positive<'a> {
    /// As one of the sampled items, corrected like the negatives (Yi et al., eq. 4).
    Sampled,
    /// Uncorrected and outside the sum, because it is there with probability 1; the row is weighted
    /// by the estimated probability of a wrong answer (Khrylchenko et al. 2025):
    /// `-sg(1 - P) (s_p - log Σ e^{s_j - log Q'_j})`, `P = e^{s_p} / (e^{s_p} + Σ.../n)` with `n`
    /// negatives and `Q'` the share of item j among them, given that it is not the positive.
    Excluded {
        /// `[batch]`, `log_q - log Q'`, nats: what turns the columns' `log_q`, which are of expected
        /// counts, into those of shares, for the row's positive.
        shift: &'a [f32],
    },
}

/// What one batch gave. The buffers belong to [`BatchSoftmax`] and are overwritten by its next run.
#[derive(Clone, Debug, Default)]
pub struct LossOutput {
    /// Mean over the batch, nats: `-(1/batch) * Σ r_i log P_i` for [`Positive::Sampled`]. NaN if anything in the input was not finite; then the
    /// gradients are of no use either.
    pub loss: f32,
    /// `[batch, dim]`, gradient of `loss` with respect to `query`.
    pub query_gradient: Vec<f32>,
    /// `[trained, dim]`, gradient of `loss` with respect to the first columns of `item`.
    pub item_gradient: Vec<f32>,
    /// `[batch]`, 1 + the number of other items whose dot product with the query, uncorrected, is
    /// strictly greater than the positive's. An item counts once, through its first column in the
    /// batch (columns behind the batch do not count), and not at all where that column is masked for the row. Meaningless if `loss` is NaN.
    pub ranks: Vec<u32>,
}

/// What the operands of the three products are rounded to; everything else, sums too, stays f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// No rounding.
    #[default]
    F32,
    /// 8 significant bits: 1.7 times as fast at batch 8192 and dim 64 (Zen 4), gradients within
    /// 0.6% of their norm (0.1% at that size). A score is that of the query and the item rounded to
    /// bf16, a positive's too: equal vectors tie and ranks compare like with like.
    Bf16,
}

/// Computes [`LossOutput`] from [`LossInput`]; holds the scratch memory that steps share.
#[derive(Debug)]
pub struct BatchSoftmax {
    lanes: Lanes,
    /// If given, the products are taken in bf16.
    bf16_items: Option<Items>,
    same_item: Twins,
    same_query: Twins,
    /// `[columns]`, all ones where the column is its item's first and in the batch, else 0: counts
    /// towards ranks.
    counts: Vec<u32>,
    /// `[batch]`, each row's share of the loss.
    row_losses: Vec<f32>,
    /// One `[trained, dim]` item gradient per group of row blocks.
    group_gradients: Vec<Vec<f32>>,
    /// A free list: a group takes a block on entry and puts it back, so there are never more than
    /// threads. Which block a group gets does not matter, every value is written before it is read.
    blocks: Mutex<Vec<Block>>,
    output: LossOutput,
}

impl Default for BatchSoftmax {
    fn default() -> Self {
        Self::new(Precision::default())
    }
}

impl BatchSoftmax {
    /// Empty scratch; memory is taken by the first [`run`](Self::run) and grows with the batch.
    /// [`Precision::Bf16`] needs AVX512-BF16; without it [`precision`](Self::precision) is f32.
    pub fn new(precision: Precision) -> Self {
        Self::with(match precision {
            Precision::F32 => None,
            Precision::Bf16 => Items::detect(),
        })
    }

    fn with(bf16_items: Option<Items>) -> Self {
        Self {
            lanes: Lanes::detect(),
            bf16_items,
            same_item: Twins::default(),
            same_query: Twins::default(),
            counts: Vec::new(),
            row_losses: Vec::new(),
            group_gradients: Vec::new(),
            blocks: Mutex::new(Vec::new()),
            output: LossOutput::default(),
        }
    }

    /// The precision that is used.
    pub fn precision(&self) -> Precision {
        if self.bf16_items.is_some() { Precision::Bf16 } else { Precision::F32 }
    }

    /// Loss, gradients and ranks of one batch, on the current rayon pool. An empty batch gives loss
    /// 0. Panics if the lengths of `input` do not agree; never because of a value in it.
    pub fn run(&mut self, input: &LossInput<'_>) -> &LossOutput {
        let batch = assert_shapes(input);
        let dim = input.dim;
        self.prepare(input, batch);
        if batch > 0 {
            let group_rows = group_rows(batch);
            let group_gradients = &mut self.group_gradients[..batch.div_ceil(group_rows)];
            let shared = Shared {
                input,
                batch,
                columns: input.log_q.len(),
                lanes: self.lanes,
                counts: &self.counts,
                same_item: &self.same_item,
                same_query: input.query_ids.map(|_| &self.same_query),
                bf16_items: self.bf16_items.as_ref(),
            };
            let blocks = &self.blocks;
            (self.output.query_gradient.par_chunks_mut(group_rows * dim))
                .zip(self.row_losses.par_chunks_mut(group_rows))
                .zip(self.output.ranks.par_chunks_mut(group_rows))
                .zip(group_gradients.par_iter_mut())
                .enumerate()
                .with_max_len(1) // a group is milliseconds of work: let idle threads take each one
                .for_each(|(group, (((query_gradient, losses), ranks), item_gradient))| {
                    let mut block = take_block(blocks);
                    let out = GroupOutput { query_gradient, losses, ranks, item_gradient };
                    block.run_group(&shared, group * group_rows, out);
                    put_block(blocks, block);
                });
            sum_in_order(group_gradients, &mut self.output.item_gradient);
        }
        let total: f64 = self.row_losses.iter().map(|&loss| f64::from(loss)).sum();
        let loss = (total / batch.max(1) as f64) as f32;
        self.output.loss = if loss.is_finite() { loss } else { f32::NAN };
        &self.output
    }

    /// Sizes every buffer for this batch and finds the equal ids.
    fn prepare(&mut self, input: &LossInput<'_>, batch: usize) {
        self.same_item.find(input.item_ids);
        if let Some(ids) = input.query_ids {
            self.same_query.find(ids);
        }
        if let Some(items) = &mut self.bf16_items {
            items.load(input.item, input.dim);
        }
        let same_item = &self.same_item;
        self.counts.clear();
        self.counts.extend((0..batch).map(|j| if same_item.first(j) { u32::MAX } else { 0 }));
        self.counts.resize(input.log_q.len(), 0);
        self.row_losses.resize(batch, 0.0);
        self.output.ranks.resize(batch, 0);
        self.output.query_gradient.resize(batch * input.dim, 0.0);
        self.output.item_gradient.resize(input.trained * input.dim, 0.0);
        // Never shrunk: a shorter batch in between costs no memory traffic later.
        let groups = batch.div_ceil(group_rows(batch)).max(self.group_gradients.len());
        self.group_gradients.resize(groups, Vec::new());
        for gradient in &mut self.group_gradients {
            gradient.resize(input.trained * input.dim, 0.0);
        }
    }
}

/// Rows per group, whole blocks. From the batch size alone: it decides the order of additions.
fn group_rows(batch: usize) -> usize {
    batch.div_ceil(ROWS).div_ceil(GROUPS_MAX).max(GROUP_BLOCKS_MIN) * ROWS
}

/// Checks that all lengths agree and returns the batch size.
fn assert_shapes(input: &LossInput<'_>) -> usize {
    let (batch, columns) = (input.rewards.len(), input.log_q.len());
    assert!(input.dim > 0, "dim must be positive");
    assert!(u32::try_from(columns).is_ok(), "too many columns for 32-bit numbers");
    assert!((batch..=columns).contains(&input.trained), "trained is not in batch..=columns");
    assert_eq!(input.query.len(), batch * input.dim, "query is not [batch, dim]");
    assert_eq!(input.item.len(), columns * input.dim, "item is not [columns, dim]");
    assert_eq!(input.item_ids.len(), columns, "item_ids is not [columns]");
    if let Positive::Excluded { shift } = input.positive {
        assert_eq!(shift.len(), batch, "shift is not [batch]");
    }
    assert!(input.query_ids.is_none_or(|ids| ids.len() == batch), "query_ids is not [batch]");
    batch
}

/// Adds the groups' item gradients in group order: the one place where threads' work meets.
fn sum_in_order(groups: &[Vec<f32>], sum: &mut [f32]) {
    const CHUNK: usize = 4096; // 16 KiB: the running sum stays in the L1 cache
    sum.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, sum)| {
        let range = chunk * CHUNK..chunk * CHUNK + sum.len();
        sum.copy_from_slice(&groups[0][range.clone()]);
        for group in &groups[1..] {
            for (sum, part) in sum.iter_mut().zip(&group[range.clone()]) {
                *sum += part;
            }
        }
    });
}

fn take_block(blocks: &Mutex<Vec<Block>>) -> Block {
    blocks.lock().expect("no code panics while it holds the free list").pop().unwrap_or_default()
}

fn put_block(blocks: &Mutex<Vec<Block>>, block: Block) {
    blocks.lock().expect("no code panics while it holds the free list").push(block);
}

/// Which columns (or rows) carry the same id. Sorted, so a row's twins are one slice: cost grows with
/// the number of duplicates, not with the square of the batch.
#[derive(Debug, Default)]
struct Twins {
    /// Rows by (id, row).
    order: Vec<u32>,
    /// `[batch]`, where in `order` the run of the row's id starts and ends.
    runs: Vec<(u32, u32)>,
}

impl Twins {
    fn find(&mut self, ids: &[u64]) {
        self.order.clear();
        self.order.extend(0..ids.len() as u32);
        self.order.sort_unstable_by_key(|&row| (ids[row as usize], row));
        self.runs.resize(ids.len(), (0, 0));
        let mut start = 0;
        for run in self.order.chunk_by(|&a, &b| ids[a as usize] == ids[b as usize]) {
            let end = start + run.len() as u32;
            for &row in run {
                self.runs[row as usize] = (start, end);
            }
            start = end;
        }
    }

    /// Every row of the same id, `row` itself too, ascending.
    fn of(&self, row: usize) -> &[u32] {
        let (start, end) = self.runs[row];
        &self.order[start as usize..end as usize]
    }

    fn first(&self, row: usize) -> bool {
        self.of(row)[0] as usize == row
    }
}

#[cfg(test)]
mod tests;
