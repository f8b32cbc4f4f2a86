//! Exact ranks: every candidate is scored.

use rayon::prelude::*;

use super::super::product::{Left, product};

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

/// Rank of `target` (1 is best): 1 + the items of higher `score`. Items that tie with it count in
/// the order they stand in, so that a constant score is worth what chance gives. `excluded` are
/// distinct items, the target not among them, that are no candidates.
pub fn rank<S: PartialOrd + Copy>(scores: &[S], target: usize, excluded: &[usize]) -> u32 {
    let own = scores[target];
    let before = scores[..target].iter().filter(|&&score| score >= own).count();
    let behind = scores[target + 1..].iter().filter(|&&score| score > own).count();
    let better = |&&item: &&usize| scores[item] > own || (scores[item] == own && item < target);
    let excluded = excluded.iter().filter(better).count();
    u32::try_from(1 + before + behind - excluded).expect("fewer than 2^32 items")
}

/// [`rank`] of each query's target by dot product alone; `None` where it has none. `queries` is
/// `[n, dim]`, `items` is `[m, dim]`, `targets` and `excluded` are `[n]`.
pub fn ranks(
    queries: &[f32],
    items: &[f32],
    dim: usize,
    targets: &[Option<usize>],
    excluded: &[Vec<usize>],
) -> Vec<Option<u32>> {
    Candidates::new(items, dim).score(queries, |query, dots| {
        targets[query].map(|target| rank(dots, target, &excluded[query]))
    })
}

/// The `k` items of highest score, best first, ties in the order they stand in; fewer if there are
/// fewer.
pub fn top(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let better = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
    if k < order.len() {
        order.select_nth_unstable_by(k, better);
        order.truncate(k);
    }
    order.sort_unstable_by(better);
    order
}

/// Rank of every item by `scores` alone, ties in the order they stand in.
pub fn static_ranks<S: PartialOrd + Copy>(scores: &[S]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let falling = |&a: &usize, &b: &usize| scores[b].partial_cmp(&scores[a]);
    order.sort_by(|a, b| falling(a, b).expect("scores are numbers").then(a.cmp(b)));
    let mut ranks = vec![0; scores.len()];
    for (rank, item) in (1..).zip(order) {
        ranks[item] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_dot_product_with_ties_in_order() {
        let items = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]; // item 2 equals item 0
        let queries = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let targets = [Some(0), Some(2), Some(1), None];
        let all = vec![vec![]; 4];
        assert_eq!(ranks(&queries, &items, 2, &targets, &all), [Some(1), Some(2), Some(1), None]);
        let without_0 = [vec![], vec![0], vec![0, 2], vec![]];
        let ranks = ranks(&queries, &items, 2, &targets, &without_0);
        assert_eq!(ranks, [Some(1), Some(1), Some(1), None]);
    }

    #[test]
    fn static_ranks_put_the_largest_first() {
        assert_eq!(static_ranks(&[3.0, 9.0, 3.0]), [2, 1, 3]);
    }

    #[test]
    fn the_top_is_what_the_ranks_say() {
        let scores = [0.5, 0.9, 0.5, -1.0, 0.9];
        assert_eq!(top(&scores, 3), [1, 4, 0]);
        assert_eq!(top(&scores, 9), [1, 4, 0, 2, 3]);
        let ranks: Vec<u32> = (0..5).map(|item| rank(&scores, item, &[])).collect();
        assert_eq!(ranks, [3, 1, 4, 5, 2]);
    }
}
