//! The corrected batch softmax (paper eq. 4): loss, gradients of both towers' outputs, ranks.
//!
//! Closed form instead of autodiff, and blocked: `ROWS` queries against all columns at a time, so
//! no `[batch, columns]` array exists. A block's logits lie transposed in memory, `[columns,
//! ROWS]`: all three products then run on unpacked operands and softmax statistics are lane
//! arithmetic.
//!
//! Columns are the items of the batch, in its order, then further negatives: items that learn as
//! well (drawn from the corpus), then vectors of past batches, which do not. Events of one item may
//! share a column ([`Merged`]): the sums are the same, and cost what the distinct items cost.
//!
//! Owns its scratch memory, reused from step to step. The same bits come out for any number of
//! threads: rows are shared out into groups by the batch size alone, each with its own item
//! gradient (at most `GROUPS_MAX` `* trained * dim` floats, 32 MiB at 8192 and dim 64), summed in
//! order. It must never know where the batch came from, how `log_q` was estimated, or what the
//! towers are.

mod bf16;
mod block;
#[cfg(feature = "gpu")]
mod graph;
mod host;
mod masks;
mod simd;

use serde::{Deserialize, Serialize};

use crate::kernel::matrix::{Matrix, PerTower};
use crate::placement::Placement;
#[cfg(feature = "gpu")]
pub use graph::GraphSoftmax;
pub use host::BatchSoftmax;
use simd::exp;

/// One batch of tower outputs and what the softmax needs to know about them.
///
/// Row `i` of `query` and row `i` of `item` (that of its place, where items are merged) are a
/// positive pair; every other row of `item` (a column of the logits) is a negative for query `i`
/// unless an id masks it. Columns are the batch's items, then those of the events before it in the
/// window, then drawn ones; what a row is compared with need not depend on the batch.
#[derive(Clone, Copy, Debug)]
pub struct LossInput<'a> {
    /// Floats per row of `query` and `item`.
    pub dim: usize,
    /// `[batch, dim]`, rows L2-normalised (not relied upon: any finite rows give right results).
    pub query: Matrix<'a>,
    /// `[trained, dim]`, rows L2-normalised (not relied upon): the columns that get a gradient.
    pub item: Matrix<'a>,
    /// Columns of traffic, the first ones: ranks are among them.
    pub candidates: usize,
    /// `batch <= candidates <= trained <= columns`, but that merged batches may have fewer columns.
    pub trained: usize,
    /// `[columns - trained, dim]`, the columns behind them, which do not learn.
    pub past: &'a [f32],
    /// If given: which events share a column. Else column `i` is that of event `i`.
    pub merged: Option<Merged<'a>>,
    /// `[columns]`, nats, subtracted from every negative's logit, and from the positive's where
    /// `positive` says so; already scaled by the correction's strength. Zeros give the plain
    /// softmax (eq. 3).
    pub log_q: &'a [f32],
    /// How the positive enters.
    pub positive: Positive<'a>,
    /// `[columns]`, accidental hits: columns `j != i` of the same item are masked for row `i`.
    pub item_ids: &'a [u64],
    /// `[candidates]`, if given: columns `j != i` of the same query are masked for row `i` as well.
    /// Not together with `merged`.
    pub query_ids: Option<&'a [u64]>,
    /// `[batch]`, if given: columns of these items are masked for row `i` as well.
    pub had: Option<&'a [Vec<u64>]>,
    /// `[batch]`, the weight `r_i` of each example.
    pub rewards: &'a [f32],
    /// τ; dot products are divided by it before the correction is subtracted.
    pub temperature: f32,
    /// Events of a full batch: what the gradients are divided by, so that an event moves the model
    /// as far in a small batch as in a full one.
    pub full_batch: usize,
}

/// Equal items of a batch as one column. The softmax over columns with `n` equal ones among them is
/// that with a single one whose exponential counts `n` times.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// `[batch]`, the column of each row's positive.
    pub places: &'a [u32],
    /// `[candidates]`, how many events each column stands for.
    pub copies: &'a [u32],
}

/// What is subtracted from the logit of a negative that stands for `copies` events, nats: its log
/// q, less the logarithm by which its exponential counts so many times.
fn offset_of(log_q: f32, copies: u32) -> f32 {
    log_q - (copies as f32).ln()
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
        /// `[batch]`, `log_q - log Q'`, nats: what turns the columns' `log_q`, which are of
        /// expected counts, into those of shares, for the row's positive.
        shift: &'a [f32],
    },
}

/// What one batch gave. The buffers belong to [`BatchSoftmax`] and are overwritten by its next run.
#[derive(Clone, Debug, Default)]
pub struct LossOutput {
    /// Mean over the batch, nats: `-(1/batch) * Σ r_i log P_i` for [`Positive::Sampled`]. NaN if
    /// anything in the input was not finite; then the gradients are of no use either.
    pub loss: f32,
    /// `[batch, dim]`, gradient of `loss * batch / full_batch` with respect to `query`.
    pub query_gradient: Vec<f32>,
    /// `[trained, dim]`, the same with respect to the first columns of `item`.
    pub item_gradient: Vec<f32>,
    /// `[batch]`, 1 + the number of other candidates whose dot product with the query, uncorrected,
    /// is not below the positive's: a tower that tells nothing apart ranks last. An item counts
    /// once, through its first column, and not at all where that column is masked for the row.
    /// Meaningless if `loss` is NaN.
    pub ranks: Vec<u32>,
}

/// What the operands of the three products are rounded to; everything else, sums too, stays f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// No rounding.
    #[default]
    F32,
    /// 8 significant bits: 1.7 times as fast at batch 8192 and dim 64 (Zen 4), gradients within
    /// 0.6% of their norm (0.1% at that size). A score is that of the query and the item rounded to
    /// bf16, a positive's too: equal vectors tie and ranks compare like with like.
    Bf16,
}

/// [`LossOutput`], wherever it was computed.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// See [`LossOutput::loss`].
    pub loss: f32,
    /// See [`LossOutput::ranks`].
    pub ranks: &'a [u32],
    /// See [`LossOutput`].
    pub gradients: PerTower<Matrix<'a>>,
}

/// The softmax where the towers are.
#[derive(Debug)]
#[cfg_attr(feature = "gpu", expect(clippy::large_enum_variant, reason = "a trainer has one"))]
pub enum Softmax {
    /// On the CPU.
    Host(BatchSoftmax),
    /// On a GPU.
    #[cfg(feature = "gpu")]
    Device(GraphSoftmax),
}

impl Softmax {
    /// The one for `placement`. A GPU computes in f32 whatever the `precision`.
    pub fn new(placement: &Placement, precision: Precision) -> Self {
        match placement {
            Placement::Cpu => Self::Host(BatchSoftmax::new(precision)),
            #[cfg(feature = "gpu")]
            Placement::Gpu(device) => Self::Device(GraphSoftmax::new(device)),
        }
    }

    /// Loss, gradients and ranks of one batch.
    pub fn run(&mut self, input: &LossInput<'_>) -> Outcome<'_> {
        match self {
            Self::Host(softmax) => {
                let LossOutput { loss, query_gradient, item_gradient, ranks } = softmax.run(input);
                let gradients = PerTower {
                    query: Matrix::Host(query_gradient),
                    item: Matrix::Host(item_gradient),
                };
                Outcome { loss: *loss, ranks, gradients }
            }
            #[cfg(feature = "gpu")]
            Self::Device(softmax) => softmax.run(input),
        }
    }
}

/// Checks that all lengths agree and returns the batch size.
fn assert_shapes(input: &LossInput<'_>) -> usize {
    let (batch, columns) = (input.rewards.len(), input.log_q.len());
    assert!(input.dim > 0, "dim must be positive");
    assert!(u32::try_from(columns).is_ok(), "too many columns for 32-bit numbers");
    match input.merged {
        None => assert!(batch <= input.candidates, "candidates is not in batch.."),
        Some(Merged { places, copies }) => {
            assert_eq!(places.len(), batch, "places is not [batch]");
            assert!(places.iter().all(|&place| (place as usize) < copies.len()), "no such place");
            assert!(input.query_ids.is_none(), "rows of one query mask single events");
            assert_eq!(copies.len(), input.candidates, "copies is not [candidates]");
        }
    }
    let trained = input.candidates..=columns;
    assert!(trained.contains(&input.trained), "trained is not in candidates..=columns");
    assert!(input.full_batch > 0, "a full batch has events");
    assert!(input.query.has_shape(batch, input.dim), "query is not [batch, dim]");
    assert!(input.item.has_shape(input.trained, input.dim), "item is not [trained, dim]");
    let past = columns - input.trained;
    assert_eq!(input.past.len(), past * input.dim, "past is not [columns - trained, dim]");
    assert_eq!(input.item_ids.len(), columns, "item_ids is not [columns]");
    if let Positive::Excluded { shift } = input.positive {
        assert_eq!(shift.len(), batch, "shift is not [batch]");
    }
    let named = input.query_ids.is_none_or(|ids| ids.len() == input.candidates);
    assert!(named, "query_ids is not [candidates]");
    assert!(input.had.is_none_or(|had| had.len() == batch), "had is not [batch]");
    batch
}

/// One row's loss before its reward, `below_max` being the positive's logit less the row's greatest
/// and `negatives` the sum of their `e^(logit - max)`; and the factor of its gradient, by which
/// that sum's shares are multiplied. The positive's own share is taken from the sum of the
/// negatives, never as a difference, so that it stays exact when P_i nears 1.
fn row_loss(
    positive: Positive<'_>,
    i: usize,
    odds: f32,
    below_max: f32,
    negatives: f32,
) -> (f32, f32) {
    let exponential = exp::<false>(below_max);
    match positive {
        Positive::Sampled => {
            let loss = ((exponential - 1.0) + negatives).ln_1p() - below_max;
            (loss, (exponential + negatives).recip())
        }
        Positive::Excluded { .. } if negatives == 0.0 => (0.0, 0.0),
        Positive::Excluded { shift } => {
            let others = negatives * odds;
            let wrong = others / (exponential + others);
            (wrong * (negatives.ln() + shift[i] - below_max), wrong / negatives)
        }
    }
}

/// Mean of the rows' losses; NaN if one is not finite.
fn mean(row_losses: &[f32]) -> f32 {
    let total: f64 = row_losses.iter().map(|&loss| f64::from(loss)).sum();
    let loss = (total / row_losses.len().max(1) as f64) as f32;
    if loss.is_finite() { loss } else { f32::NAN }
}

#[cfg(test)]
mod tests;
