//! Which vectors lie near each other: the centres of an index's lists.
//!
//! Spherical k-means on a sample of what vectors are off their mean: one belongs to the centre with
//! the largest dot product. Vectors that are nearly alike would all lie nearest to one centre but
//! for that. The centres of one version serve the next, moved to the means of what came to them
//! there, which costs nothing extra. Products are of whole numbers: half the time of products in
//! `f32`, the same lists on every machine, and a vector between two centres may lie with either.
//!
//! The same vectors give the same centres on any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::codes::{ABSENT, Blocks, difference, pack};
use crate::kernel::{ABREAST, Instructions, LANES, Packed, dot};
use crate::vectors::Pieces;
use millrace_events::SplitMix;

/// Vectors a list in the sample: fewer make centres that are worse for the rest.
const SAMPLE_A_LIST: usize = 40;
/// Most passes over the sample. Past them centres hardly move.
const PASSES: usize = 8;
/// Vectors that one task assigns.
const ROWS_A_TASK: usize = 256;
/// Tasks that add up means, however many threads there are: the order of additions stays.
const SUMS: usize = 8;
/// Centres are made anew once the mean cosine between a vector and its centre has fallen by so
/// much since they were made.
const WORSE_MAX: f32 = 0.05;

/// The centres of an index's lists.
pub struct Centroids {
    dim: usize,
    /// `[lists, dim]`, of length 1.
    vectors: Vec<f32>,
    /// The same in whole numbers.
    codes: Blocks,
    /// Mean cosine between a vector and its centre when they were made; NaN: not known yet.
    fit: f32,
}

/// Vectors, and their mean.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    vectors: Pieces<'a>,
    /// `[dim]`
    mean: &'a [f32],
}

impl<'a> Rows<'a> {
    /// `mean` is `[dim]`.
    pub(crate) fn new(vectors: Pieces<'a>, mean: &'a [f32]) -> Self {
        Self { vectors, mean }
    }

    /// Makes `off` what row `at` is off the mean.
    fn off(self, at: usize, off: &mut Vec<f32>) {
        difference(self.vectors.row(at), self.mean, off);
    }
}

/// The mean of vectors of `dim` floats; nothing of none.
pub(crate) fn mean_of<'a>(dim: usize, rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let (mut sum, mut count) = (vec![0.0f64; dim], 0u32);
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        count += 1;
    }
    sum.iter().map(|sum| (sum / f64::from(count.max(1))) as f32).collect()
}

/// Vectors that are assigned to centres.
pub(crate) struct Assigned {
    /// By vector.
    pub(crate) lists: Vec<u32>,
    /// Where the centres' vectors have moved.
    pub(crate) moved: Centroids,
}

impl Centroids {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.codes.numbers.len() * LANES - self.missing()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn missing(&self) -> usize {
        let last = self.codes.numbers.last();
        last.map_or(0, |numbers| numbers.iter().filter(|&&number| number == ABSENT).count())
    }

    fn new(vectors: Vec<f32>, dim: usize, fit: f32) -> Self {
        let lists = vectors.len() / dim;
        let number = |at: usize| if at < lists { at as u32 } else { ABSENT };
        let numbers = (0..lists.div_ceil(LANES))
            .map(|block| std::array::from_fn(|lane| number(block * LANES + lane)));
        let nothing = vec![0.0; dim];
        let row = |at: usize| &vectors[at * dim..][..dim];
        let codes = Blocks::new((&row, dim), &[], numbers.collect(), |_| &nothing);
        Self { dim, vectors, codes, fit }
    }

    /// Puts each of `rows` to one of `lists` centres: to those of `kept` if they still fit, else to
    /// new ones.
    pub(crate) fn assign(rows: Rows<'_>, lists: usize, seed: u64, kept: Option<&Self>) -> Assigned {
        // A corpus that grew to twice what it was deserves lists of its own.
        let fits = |kept: &&Self| {
            kept.dim == rows.mean.len() && kept.len() <= 2 * lists && lists <= 2 * kept.len().max(1)
        };
        if let Some(kept) = kept.filter(fits) {
            let assigned = kept.assign_all(rows);
            if assigned.moved.fit >= kept.fit - WORSE_MAX {
                let moved = Self { fit: kept.fit.max(assigned.moved.fit), ..assigned.moved };
                return Assigned { moved, ..assigned };
            }
        }
        Self::train(rows, lists, seed).assign_all(rows)
    }

    /// New centres for `rows`.
    fn train(rows: Rows<'_>, lists: usize, seed: u64) -> Self {
        let (n, dim) = (rows.vectors.len(), rows.mean.len());
        let mut random = SplitMix::new(seed);
        let size = n.min(lists * SAMPLE_A_LIST);
        // One of each stretch of rows: a sample of all, whatever their order.
        let mut sample = Vec::with_capacity(size * dim);
        for at in 0..size {
            let (start, end) = (at * n / size, (at + 1) * n / size);
            let row = start + (random.next_u64() % (end - start) as u64) as usize;
            sample.extend_from_slice(rows.vectors.row(row));
        }
        let sample = [sample];
        let sample = Rows::new(Pieces::new(&sample, dim), rows.mean);
        let mut off = Vec::with_capacity(dim);
        let picked = (0..lists).flat_map(|list| {
            sample.off(list * size / lists, &mut off);
            normal(&off)
        });
        let mut centroids = Self::new(picked.collect(), dim, f32::NAN);
        for _ in 0..PASSES {
            let assigned = centroids.assign_all(sample);
            let gained = assigned.moved.fit - centroids.fit;
            centroids = assigned.moved;
            if gained < 1e-4 {
                break;
            }
        }
        centroids
    }

    /// Puts each of `rows` to the nearest centre.
    fn assign_all(&self, rows: Rows<'_>) -> Assigned {
        let (dim, count) = (self.dim, rows.vectors.len());
        let tasks = (0..count.div_ceil(ROWS_A_TASK)).into_par_iter();
        let part = |task: usize| task * ROWS_A_TASK..count.min((task + 1) * ROWS_A_TASK);
        let lists = tasks.flat_map_iter(|task| self.nearest(rows, part(task)));
        let lists: Vec<u32> = lists.collect();
        let sums = self.sums(rows, &lists);
        let (mut along, mut lengths, mut off) = (0.0f64, 0.0f64, Vec::with_capacity(dim));
        for row in 0..count {
            rows.off(row, &mut off);
            lengths += f64::from(dot(&off, &off).sqrt());
        }
        let mut moved = Vec::with_capacity(self.vectors.len());
        for (sum, centre) in sums.chunks_exact(dim).zip(self.vectors.chunks_exact(dim)) {
            along += f64::from(dot(sum, centre));
            // Nothing came: it stays where it was.
            if dot(sum, sum) > 0.0 {
                moved.extend(normal(sum));
            } else {
                moved.extend_from_slice(centre);
            }
        }
        let fit = if lengths > 0.0 { (along / lengths) as f32 } else { 1.0 };
        Assigned { lists, moved: Self::new(moved, dim, fit) }
    }

    /// The nearest centre of each of the rows of `part`.
    fn nearest(&self, rows: Rows<'_>, part: Range<usize>) -> Vec<u32> {
        let (codes, scales) = self.codes.parts();
        let instructions = Instructions::detect();
        let mut packed: [Vec<Packed>; ABREAST] = Default::default();
        let mut off = Vec::with_capacity(self.dim);
        let mut nearest = Vec::with_capacity(part.len() + ABREAST);
        for first in part.clone().step_by(ABREAST) {
            for (at, packed) in packed.iter_mut().enumerate() {
                rows.off((first + at).min(part.end - 1), &mut off);
                pack(&off, packed);
            }
            let [a, b, c, d] = &packed;
            nearest.extend(instructions.nearest(codes, scales, [a, b, c, d]));
        }
        nearest.truncate(part.len());
        nearest
    }

    /// `[lists, dim]`, the sum of what each list's rows are off the mean.
    fn sums(&self, rows: Rows<'_>, lists: &[u32]) -> Vec<f32> {
        let (dim, mean) = (self.dim, rows.mean);
        let share = lists.len().div_ceil(SUMS).max(1);
        let parts = lists.par_chunks(share).enumerate();
        let parts: Vec<Vec<f32>> = parts
            .map(|(part, lists)| {
                let mut sums = vec![0.0; self.vectors.len()];
                for (row, &list) in (part * share..).zip(lists) {
                    let sum = &mut sums[list as usize * dim..][..dim];
                    let off = rows.vectors.row(row).iter().zip(mean).map(|(x, mean)| x - mean);
                    sum.iter_mut().zip(off).for_each(|(sum, off)| *sum += off);
                }
                sums
            })
            .collect();
        let mut sums = vec![0.0; self.vectors.len()];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        sums
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.vectors) + self.codes.bytes()
    }
}

/// `vector` at length 1; as it is if it has none.
fn normal(vector: &[f32]) -> Vec<f32> {
    let length = dot(vector, vector).sqrt();
    let factor = if length > 0.0 { 1.0 / length } else { 1.0 };
    vector.iter().map(|x| x * factor).collect()
}
