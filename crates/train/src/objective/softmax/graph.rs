//! The batch softmax in burn's tensors, for a GPU: the same closed form, in blocks of rows.
//!
//! Shapes are fixed by construction: rows and columns are padded to multiples of [`ROWS_STEP`],
//! padding columns by a `log_q` so great that their share of every sum is exactly zero, padding
//! rows by a reward of zero. No infinities are made, because shader compilers may assume that there
//! are none.
//!
//! Ids have no type on a GPU: a row's id is the number of the first row of the same id. What is
//! left for the host are the rows' losses, from three numbers a row, where `ln_1p` is exact.
//!
//! Must never know: where the batch came from, what the towers are.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::masks::Masks;
use super::{LossInput, Outcome, Positive, assert_shapes, mean, row_loss};
use crate::kernel::matrix::{Matrix, PerTower, ROWS_STEP, floats, upload};

/// Most logits in a block, 64 MiB. A handful of such tensors exist at once. More costs memory,
/// fewer means smaller products: a block of 256 rows no longer fills a large GPU.
const BLOCK_LOGITS: usize = 1 << 24;
/// Far below every logit, in nats: `exp` of it is zero.
const FAR: f32 = 1e30;
/// Columns of items that a row's query has had come in multiples of so many, lest each batch have a
/// shape of its own.
const HAD_STEP: usize = 32;
/// The id of a padding column.
const NO_ID: i32 = -1;

/// [`BatchSoftmax`](super::BatchSoftmax) on a device.
#[derive(Debug)]
pub struct GraphSoftmax {
    device: Device,
    masks: Masks,
    /// Of the last batch.
    gradients: Option<PerTower<Tensor<2>>>,
    ranks: Vec<u32>,
    /// Most logits in a block; tests make it small.
    pub(crate) block_logits: usize,
}

/// What the device is told of a batch beside the vectors.
struct Batch {
    query: Tensor<2>,                         // [rows, dim]
    item: Tensor<2>,                          // [columns, dim]
    log_q: Tensor<2>,                         // [1, columns]
    counts: Tensor<2>, // [1, columns], 1 where the column counts towards ranks, else 0
    item_ids: Tensor<2, Int>, // [1, columns]
    query_ids: Option<Tensor<2, Int>>, // [1, columns]
    had: Option<(Tensor<2, Int>, Tensor<2>)>, // [rows, n], columns and what their scores get added
    correction: Tensor<2>, // [rows, 1], subtracted from the positive's logit
    odds: Tensor<2>,   // [rows, 1], see `Masks::odds`
    weights: Tensor<2>, // [rows, 1], r_i / (full_batch τ)
    scale: f32,        // 1 / τ
}

/// What one block of rows gives.
struct Block {
    query_gradient: Tensor<2>, // [block, dim]
    own_gradient: Tensor<2>,   // [block, dim], of the positives' items, with the sign turned
    item_gradient: Tensor<2>,  // [trained, dim], of all other pairs
    statistics: Tensor<2>, // [block, 4]: positive's logit, greatest, sum of others, items not below
}

impl GraphSoftmax {
    /// A softmax on `device`; what is kept there between two batches are the last gradients.
    pub fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            masks: Masks::default(),
            gradients: None,
            ranks: Vec::new(),
            block_logits: BLOCK_LOGITS,
        }
    }

    /// Loss, gradients and ranks of one batch, which is not empty; the gradients stay on the
    /// device. Waits for the device once, for four numbers a row.
    pub fn run(&mut self, input: &LossInput<'_>) -> Outcome<'_> {
        let batch = assert_shapes(input);
        assert!(batch > 0, "an empty batch has no loss");
        assert!(input.merged.is_none(), "a step's shapes must not depend on how items repeat");
        self.masks.find(input);
        let query = input.query.on(&self.device, input.dim); // [rows, dim]
        let mut item = input.item.on(&self.device, input.dim); // [trained, dim]
        let trained = item.dims()[0];
        if !input.past.is_empty() {
            let past = upload(input.past, input.dim, &self.device);
            item = Tensor::cat(vec![item, past], 0); // [columns, dim]
        }
        let (gradients, statistics) =
            self.blocks(&self.describe(input, query, item, trained), trained);
        let loss = self.finish_rows(input, &floats(statistics.into_data()));
        let PerTower { query, item } = self.gradients.insert(gradients);
        let gradients = PerTower { query: Matrix::Device(query), item: Matrix::Device(item) };
        Outcome { loss, ranks: &self.ranks, gradients }
    }

    /// Lays everything out as the padded tensors are: the columns that do not learn begin at
    /// `trained`.
    fn describe(
        &self,
        input: &LossInput<'_>,
        query: Tensor<2>,
        item: Tensor<2>,
        trained: usize,
    ) -> Batch {
        let (batch, rows, columns) = (input.rewards.len(), query.dims()[0], item.dims()[0]);
        let (mut log_q, mut counts) = (vec![FAR; columns], vec![0.0; columns]);
        let (mut item_ids, mut query_ids) = (vec![NO_ID; columns], vec![NO_ID; columns]);
        for (j, &value) in input.log_q.iter().enumerate() {
            let at = place(input, j, trained);
            log_q[at] = value;
            item_ids[at] = self.masks.first(j) as i32;
            if self.masks.counts(j) {
                counts[at] = 1.0;
            }
        }
        if let Some(same_query) = self.masks.same_query() {
            (0..input.candidates).for_each(|i| query_ids[i] = same_query.first(i) as i32);
        }
        let scale = input.temperature.recip();
        let (mut correction, mut odds, mut weights) =
            (vec![0.0; rows], vec![1.0; rows], vec![0.0; rows]);
        if matches!(input.positive, Positive::Sampled) {
            correction[..batch].copy_from_slice(&input.log_q[..batch]);
        }
        for (i, reward) in input.rewards.iter().enumerate() {
            odds[i] = self.masks.odds(input, i);
            weights[i] = reward * scale / input.full_batch as f32;
        }
        let row = |values| Tensor::from_data(TensorData::new(values, [1, columns]), &self.device);
        let ids = |values| Tensor::from_data(TensorData::new(values, [1, columns]), &self.device);
        let column = |values| Tensor::from_data(TensorData::new(values, [rows, 1]), &self.device);
        Batch {
            query,
            item,
            log_q: row(log_q),
            counts: row(counts),
            item_ids: ids(item_ids),
            query_ids: self.masks.same_query().map(|_| ids(query_ids)),
            had: self.had(input, rows, trained),
            correction: column(correction),
            odds: column(odds),
            weights: column(weights),
            scale,
        }
    }

    /// Columns of items that each row's query has had and, beside each, what is added to its score;
    /// padding adds nothing to the first column's.
    fn had(
        &self,
        input: &LossInput<'_>,
        rows: usize,
        trained: usize,
    ) -> Option<(Tensor<2, Int>, Tensor<2>)> {
        let batch = input.rewards.len();
        let most = (0..batch).map(|i| self.masks.had(i).len()).max()?;
        if most == 0 {
            return None;
        }
        let width = most.next_multiple_of(HAD_STEP);
        let (mut columns, mut added) = (vec![0; rows * width], vec![0.0; rows * width]);
        for i in 0..batch {
            for (at, &j) in (i * width..).zip(self.masks.had(i)) {
                columns[at] = place(input, j as usize, trained) as i32;
                added[at] = -FAR;
            }
        }
        let columns = Tensor::from_data(TensorData::new(columns, [rows, width]), &self.device);
        let added = Tensor::from_data(TensorData::new(added, [rows, width]), &self.device);
        Some((columns, added))
    }

    /// Gradients, `[rows, dim]` and `[trained, dim]`, and statistics `[rows, 4]`.
    fn blocks(&self, batch: &Batch, trained: usize) -> (PerTower<Tensor<2>>, Tensor<2>) {
        let (rows, columns) = (batch.query.dims()[0], batch.item.dims()[0]);
        let block_rows =
            (self.block_logits / columns / ROWS_STEP * ROWS_STEP).clamp(ROWS_STEP, rows);
        let (mut query, mut own, mut statistics) = (Vec::new(), Vec::new(), Vec::new());
        let mut item: Option<Tensor<2>> = None; // [trained, dim]
        for start in (0..rows).step_by(block_rows) {
            let block = batch.block(start, block_rows.min(rows - start), trained);
            query.push(block.query_gradient);
            own.push(block.own_gradient);
            statistics.push(block.statistics);
            item = Some(match item {
                None => block.item_gradient,
                Some(sum) => sum + block.item_gradient,
            });
        }
        let item = item.expect("a batch has a row");
        let own = Tensor::cat(own, 0); // [rows, dim]
        let dim = own.dims()[1];
        let positives = item.clone().narrow(0, 0, rows) - own; // [rows, dim]
        let item = item.slice_assign([0..rows, 0..dim], positives); // [trained, dim]
        (PerTower { query: Tensor::cat(query, 0), item }, Tensor::cat(statistics, 0))
    }

    /// The loss, and the ranks, from the rows' `[rows, 4]` statistics.
    fn finish_rows(&mut self, input: &LossInput<'_>, statistics: &[f32]) -> f32 {
        let rows = statistics.as_chunks::<4>().0.iter().zip(input.rewards).enumerate();
        let (losses, ranks): (Vec<_>, Vec<_>) = rows
            .map(|(i, (&[positive_logit, max, negatives, above], reward))| {
                let odds = self.masks.odds(input, i);
                let below_max = positive_logit - max;
                let (loss, _) = row_loss(input.positive, i, odds, below_max, negatives);
                // Counts are whole numbers below 2^24, which f32 holds exactly.
                (reward * loss, above as u32 + 1)
            })
            .unzip();
        self.ranks = ranks;
        mean(&losses)
    }
}

impl Batch {
    /// Rows `start..start + rows` against all columns.
    fn block(&self, start: usize, rows: usize, trained: usize) -> Block {
        let of_rows = |tensor: &Tensor<2>| tensor.clone().narrow(0, start, rows);
        let (query, own_item) = (of_rows(&self.query), of_rows(&self.item)); // [rows, dim]
        // [rows, dim] x [dim, columns]
        let scores = query.clone().mul_scalar(self.scale).matmul(self.item.clone().transpose());
        // Taken out of the product, not computed beside it, so that equal vectors tie.
        let diagonal = Tensor::arange(start as i64..(start + rows) as i64, &query.device());
        let positive = scores.clone().gather(1, diagonal.reshape([rows, 1])); // [rows, 1]
        let scores = self.mask(scores, start, rows);
        let above = scores.clone().greater_equal(positive.clone()).float(); // [rows, columns]
        let above = (above * self.counts.clone()).sum_dim(1); // [rows, 1]

        let positive_logit = positive - of_rows(&self.correction); // [rows, 1]
        let logits = scores - self.log_q.clone(); // [rows, columns]
        let max = logits.clone().max_dim(1).max_pair(positive_logit.clone()); // [rows, 1]
        let exponentials = (logits - max.clone()).exp(); // [rows, columns]
        let negatives = exponentials.clone().sum_dim(1); // [rows, 1]
        let positive = (positive_logit.clone() - max.clone()).exp(); // [rows, 1]
        // See `row_loss`: its factor is this quotient whichever way the positive enters.
        let odds = of_rows(&self.odds); // [rows, 1]
        let factor = odds.clone() / (positive + odds * negatives.clone()); // [rows, 1]
        let scaled = factor * of_rows(&self.weights); // [rows, 1]

        // [rows, columns] x [columns, dim], less the positive's own share
        let pulled = exponentials.clone().matmul(self.item.clone());
        let query_gradient = (pulled - own_item * negatives.clone()) * scaled.clone();
        let scaled_query = query * scaled; // [rows, dim]
        let own_gradient = scaled_query.clone() * negatives.clone(); // [rows, dim]
        // [trained, rows] x [rows, dim]
        let item_gradient = exponentials.narrow(1, 0, trained).transpose().matmul(scaled_query);
        let statistics = Tensor::cat(vec![positive_logit, max, negatives, above], 1);
        Block { query_gradient, own_gradient, item_gradient, statistics }
    }

    /// The scores with those of the same item, thus each positive's, of the same query and of what
    /// the query has had, far down.
    fn mask(&self, scores: Tensor<2>, start: usize, rows: usize) -> Tensor<2> {
        let same = |ids: &Tensor<2, Int>| {
            let own = ids.clone().narrow(1, start, rows).reshape([rows, 1]); // [rows, 1]
            ids.clone().equal(own) // [rows, columns]
        };
        let scores = scores.mask_fill(same(&self.item_ids), -FAR);
        let scores = match &self.query_ids {
            None => scores,
            Some(query_ids) => scores.mask_fill(same(query_ids), -FAR),
        };
        let Some((columns, added)) = &self.had else { return scores };
        let (columns, added) =
            (columns.clone().narrow(0, start, rows), added.clone().narrow(0, start, rows));
        scores.scatter(1, columns, added, IndexingUpdateOp::Add)
    }
}

/// Where column `j` stands on the device: those that do not learn begin at `trained`.
fn place(input: &LossInput<'_>, j: usize, trained: usize) -> usize {
    if j < input.trained { j } else { trained + j - input.trained }
}
