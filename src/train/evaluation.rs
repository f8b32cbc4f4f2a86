//! Recall, and exact ranks against a whole corpus.

use rayon::prelude::*;

use super::product::dot;

/// Hits at each k over any number of cases.
#[derive(Clone, Debug, PartialEq)]
pub struct Recall {
    ks: Vec<u32>,
    hits: Vec<u64>,
    cases: u64,
}

impl Recall {
    /// Nothing counted yet, for each cut-off in `ks`.
    pub fn new(ks: &[u32]) -> Self {
        Self { ks: ks.to_vec(), hits: vec![0; ks.len()], cases: 0 }
    }

    /// Counts one case: the rank of its item (1 is best), or `None` where the item was not among
    /// the candidates, which is a miss at every k.
    pub fn add(&mut self, rank: Option<u32>) {
        self.cases += 1;
        for (hits, &k) in self.hits.iter_mut().zip(&self.ks) {
            *hits += u64::from(rank.is_some_and(|rank| rank <= k));
        }
    }

    /// Cases counted.
    pub fn cases(&self) -> u64 {
        self.cases
    }

    /// `(k, recall@k)` for every k; NaN without cases.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn values(&self) -> Vec<(u32, f64)> {
        let recall = |&hits: &u64| hits as f64 / self.cases as f64;
        self.ks.iter().copied().zip(self.hits.iter().map(recall)).collect()
    }

    /// recall@k; NaN without cases or where `k` is not counted.
    pub fn at(&self, k: u32) -> f64 {
        self.values().iter().find(|(own, _)| *own == k).map_or(f64::NAN, |(_, value)| *value)
    }
}

/// Rank of each query's target among all items by dot product: 1 + the items that score higher.
/// Items that tie with the target count in the order they stand in, so that a constant score is
/// worth what chance gives. `queries` is `[n, dim]`, `items` is `[m, dim]`; `excluded` lists, per
/// query, distinct items that are no candidates.
pub fn ranks(
    queries: &[f32],
    items: &[f32],
    dim: usize,
    targets: &[Option<usize>],
    excluded: &[Vec<usize>],
) -> Vec<Option<u32>> {
    queries
        .par_chunks_exact(dim)
        .zip(targets)
        .zip(excluded)
        .map(|((query, target), excluded)| {
            target.map(|target| {
                let score = |item: usize| dot::<16>(query, &items[item * dim..(item + 1) * dim]);
                let own = score(target);
                let better = |&item: &usize| {
                    let score = score(item);
                    score > own || (score == own && item < target)
                };
                let ahead = (0..items.len() / dim).filter(better).count();
                let excluded = excluded.iter().copied().filter(better).count();
                u32::try_from(1 + ahead - excluded).expect("fewer than 2^32 items")
            })
        })
        .collect()
}

/// Rank of every item by `scores` alone, ties in the order they stand in.
pub fn static_ranks(scores: &[f64]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
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
    fn recall_counts_misses_and_unknown_items() {
        let mut recall = Recall::new(&[1, 10]);
        for rank in [Some(1), Some(7), Some(11), None] {
            recall.add(rank);
        }
        assert_eq!(recall.values(), [(1, 0.25), (10, 0.5)]);
        assert_eq!(recall.at(10), 0.5);
        assert!(recall.at(3).is_nan());
    }

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
    fn dot_handles_widths_that_are_no_multiple_of_the_lanes() {
        for dim in [1, 15, 16, 17, 64, 70] {
            let a: Vec<f32> = (0..dim).map(|i| i as f32).collect();
            let expected: f32 = a.iter().map(|x| x * x).sum();
            assert!((dot::<16>(&a, &a) - expected).abs() <= expected * 1e-6);
        }
    }
}
