//! Exact ranks: every candidate is scored.

use rayon::prelude::*;

use crate::kernel::product::{Left, product};

/// Scores computed at once by a thread: 16 MiB, or one query where there are more candidates.
const SCORES_A_BLOCK: usize = 1 << 22;
/// Most queries of a block: gemm gains nothing from more.
const QUERIES_A_BLOCK: usize = 64;

/// What there is to retrieve, laid out for scoring.
pub struct Candidates {
    dim: usize,
    len: usize,
    transposed: Vec<f32>, // [dim, len]
}

impl Candidates {
    /// From vectors `[len, dim]`.
    pub fn new(vectors: &[f32], dim: usize) -> Self {
        let len = vectors.len() / dim;
        let mut transposed = vec![0.0; vectors.len()];
        for (item, vector) in vectors.chunks_exact(dim).enumerate() {
            for (d, &value) in vector.iter().enumerate() {
                transposed[d * len + item] = value;
            }
        }
        Self { dim, len, transposed }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without candidates.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What `each` makes of every query's dot products `[len]`; `queries` is `[n, dim]`. On the
    /// current rayon pool, results in the order of the queries.
    pub fn score<T: Send>(
        &self,
        queries: &[f32],
        each: impl Fn(usize, &[f32]) -> T + Sync,
    ) -> Vec<T> {
        if self.is_empty() {
            return (0..queries.len() / self.dim).map(|query| each(query, &[])).collect();
        }
        let rows = (SCORES_A_BLOCK / self.len).clamp(1, QUERIES_A_BLOCK);
        let blocks = queries.par_chunks(rows * self.dim).enumerate();
        blocks
            .flat_map_iter(|(block, queries)| {
                let count = queries.len() / self.dim;
                let mut dots = vec![0.0; count * self.len];
                let left = Left { values: queries, strides: (self.dim, 1) };
                // [count, dim] x [dim, len]
                product(&mut dots, left, &self.transposed, (count, self.dim, self.len), false);
                let of_block = dots.chunks_exact(self.len).zip(block * rows..);
                of_block.map(|(dots, query)| each(query, dots)).collect::<Vec<T>>()
            })
            .collect()
    }
}

/// Rank of `target` (1 is best) by a model's `scores`: 1 + the items whose score is not below. What
/// ties with it counts against it, and so does every comparison with what is no number: a model
/// that tells nothing apart, or that has broken, ranks its targets last.
pub fn rank(scores: &[f32], target: usize) -> u32 {
    let own = scores[target];
    let below = scores.iter().filter(|&&score| score < own).count();
    u32::try_from(scores.len() - below).expect("fewer than 2^32 items")
}

/// Rank of `target` by counts of events, which tie more often than not. Items of equal count rank
/// in the order they stand in, so that a constant count is worth what chance gives.
pub fn rank_by_count(counts: &[u32], target: usize) -> u32 {
    let own = counts[target];
    let before = counts[..target].iter().filter(|&&count| count >= own).count();
    let behind = counts[target + 1..].iter().filter(|&&count| count > own).count();
    u32::try_from(1 + before + behind).expect("fewer than 2^32 items")
}

/// [`rank_by_count`] without the items in `excluded`, the target not among them.
pub fn rank_by_count_but(counts: &[u32], target: usize, excluded: &[usize]) -> u32 {
    let own = counts[target];
    let before = |&&place: &&usize| counts[place] > own || counts[place] == own && place < target;
    let gone = excluded.iter().filter(before).count();
    rank_by_count(counts, target) - u32::try_from(gone).expect("fewer than 2^32 items")
}

/// [`rank`] of each query's target by dot product alone; `None` where it has none. `queries` is
/// `[n, dim]`, `items` is `[m, dim]`, `targets` is `[n]`.
pub fn ranks(
    queries: &[f32],
    items: &[f32],
    dim: usize,
    targets: &[Option<usize>],
) -> Vec<Option<u32>> {
    Candidates::new(items, dim)
        .score(queries, |query, dots| targets[query].map(|target| rank(dots, target)))
}

/// The `k` items of highest score, best first, ties in the order they stand in and what is no
/// number last; fewer if there are fewer.
pub fn top(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let worth = |item: usize| if scores[item].is_nan() { f32::NEG_INFINITY } else { scores[item] };
    let better = |&a: &usize, &b: &usize| worth(b).total_cmp(&worth(a)).then(a.cmp(&b));
    if k < order.len() {
        order.select_nth_unstable_by(k, better);
        order.truncate(k);
    }
    order.sort_unstable_by(better);
    order
}

/// Rank of every item by counts of events, fading ones too, ties in the order they stand in.
pub fn static_ranks<C: PartialOrd + Copy>(counts: &[C]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    let falling = |&a: &usize, &b: &usize| counts[b].partial_cmp(&counts[a]);
    order.sort_by(|a, b| falling(a, b).expect("counts are numbers").then(a.cmp(b)));
    let mut ranks = vec![0; counts.len()];
    for (rank, item) in (1..).zip(order) {
        ranks[item] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_dot_product_with_ties_against() {
        let items = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]; // item 2 equals item 0
        let queries = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let targets = [Some(0), Some(2), Some(1), None];
        assert_eq!(ranks(&queries, &items, 2, &targets), [Some(2), Some(2), Some(1), None]);
    }

    #[test]
    fn what_is_no_number_ranks_last() {
        let broken = f32::NAN;
        assert_eq!(rank(&[0.5, broken, 0.1], 1), 3);
        assert_eq!(rank(&[broken; 9], 4), 9);
        // Nobody knows whether the broken one is better.
        assert_eq!(rank(&[0.5, broken, 0.1], 0), 2);
        assert_eq!(top(&[broken, 0.5, f32::INFINITY, -1.0], 4), [2, 1, 3, 0]);
        // A query that is no number finds nothing, whatever the items.
        let items = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8];
        let found = ranks(&[broken, 1.0], &items, 2, &[Some(0)]);
        assert_eq!(found, [Some(3)]);
    }

    #[test]
    fn a_collapsed_model_is_no_better_than_chance() {
        assert_eq!(rank(&[0.7; 100], 3), 100);
        let mean =
            (0..100).map(|target| rank_by_count(&[5; 100], target)).sum::<u32>() as f32 / 100.0;
        assert_eq!(mean, 50.5);
    }

    #[test]
    fn static_ranks_put_the_largest_first() {
        assert_eq!(static_ranks(&[3, 9, 3]), [2, 1, 3]);
    }

    #[test]
    fn the_top_is_what_the_ranks_say() {
        let scores = [0.5, 0.9, 0.25, -1.0, 0.8];
        assert_eq!(top(&scores, 3), [1, 4, 0]);
        assert_eq!(top(&scores, 9), [1, 4, 0, 2, 3]);
        let ranks: Vec<u32> = (0..5).map(|item| rank(&scores, item)).collect();
        assert_eq!(ranks, [3, 1, 4, 5, 2]);
        assert_eq!(top(&[0.5, 0.9, 0.5], 2), [1, 0], "ties stand in their order");
    }
}
