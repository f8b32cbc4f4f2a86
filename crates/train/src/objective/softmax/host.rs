//! The softmax on the CPU: blocks of rows over threads.

use std::sync::Mutex;

use rayon::prelude::*;

use super::bf16::Items;
use super::block::{Block, GroupOutput, Shared};
use super::masks::Masks;
use super::{LossInput, LossOutput, Merged, Precision, assert_shapes, mean, offset_of};
use crate::objective::softmax::simd::{Lanes, ROWS};

/// Most groups of rows, thus most threads used. More costs memory and a longer final sum.
const GROUPS_MAX: usize = 16;
/// Fewest blocks in a group while there are enough for two: with single blocks the final sum takes
/// a noticeable share of a small batch's time (2% at batch 1024).
const GROUP_BLOCKS_MIN: usize = 2;

/// Computes [`LossOutput`] from [`LossInput`]; holds the scratch memory that steps share.
#[derive(Debug)]
pub struct BatchSoftmax {
    lanes: Lanes,
    /// If given, the products are taken in bf16.
    bf16_items: Option<Items>,
    masks: Masks,
    /// `[columns, dim]`, where there are columns behind the trained ones.
    items: Vec<f32>,
    /// `[columns]`, nats, subtracted from the logits of negatives: log q less the logarithm of the
    /// events that the column stands for.
    offsets: Vec<f32>,
    /// `[columns]`, all ones where the column is its item's first and a candidate, else 0: counts
    /// towards ranks.
    counts: Vec<u32>,
    /// `[batch]`, each row's share of the loss.
    row_losses: Vec<f32>,
    /// One `[trained, dim]` item gradient per group of row blocks.
    group_gradients: Vec<Vec<f32>>,
    /// A free list: a group takes a block on entry and puts it back, so there are never more than
    /// threads. Which block a group gets does not matter, every value is written before it is read.
    blocks: Mutex<Vec<Block>>,
    pub(crate) output: LossOutput,
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

    pub(crate) fn with(bf16_items: Option<Items>) -> Self {
        Self {
            lanes: Lanes::detect(),
            bf16_items,
            masks: Masks::default(),
            items: Vec::new(),
            offsets: Vec::new(),
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
        let item = if input.past.is_empty() { input.item.host() } else { &self.items };
        if let Some(items) = &mut self.bf16_items {
            items.load(item, dim);
        }
        if batch > 0 {
            let group_rows = group_rows(batch);
            let group_gradients = &mut self.group_gradients[..batch.div_ceil(group_rows)];
            let shared = Shared {
                input,
                query: input.query.host(),
                item,
                columns: input.log_q.len(),
                lanes: self.lanes,
                offsets: &self.offsets,
                counts: &self.counts,
                masks: &self.masks,
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
        self.output.loss = mean(&self.row_losses);
        &self.output
    }

    /// Sizes every buffer for this batch and finds the equal ids.
    fn prepare(&mut self, input: &LossInput<'_>, batch: usize) {
        self.masks.find(input);
        if !input.past.is_empty() {
            self.items.clear();
            self.items.extend_from_slice(input.item.host());
            self.items.extend_from_slice(input.past);
        }
        self.offsets.clear();
        self.offsets.extend_from_slice(input.log_q);
        if let Some(Merged { copies, .. }) = input.merged {
            for (offset, &copies) in self.offsets.iter_mut().zip(copies) {
                *offset = offset_of(*offset, copies);
            }
        }
        let masks = &self.masks;
        self.counts.clear();
        self.counts
            .extend((0..input.log_q.len()).map(|j| if masks.counts(j) { u32::MAX } else { 0 }));
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
