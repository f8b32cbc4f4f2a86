//! Which columns are no negatives of a row: those of the same item, and of the same query.
//!
//! Must never know: tensors, where the softmax is computed.

use super::{LossInput, Positive};

/// The equal ids of one batch.
#[derive(Debug, Default)]
pub(super) struct Masks {
    pub(super) same_item: Twins,
    same_query: Twins,
    by_query: bool,
}

impl Masks {
    /// Takes over the ids of a batch.
    pub(super) fn find(&mut self, input: &LossInput<'_>) {
        self.same_item.find(input.item_ids);
        self.by_query = input.query_ids.is_some();
        if let Some(ids) = input.query_ids {
            self.same_query.find(ids);
        }
    }

    /// Rows of the batch with the same query, where that masks.
    pub(super) fn same_query(&self) -> Option<&Twins> {
        self.by_query.then_some(&self.same_query)
    }

    /// Whether column `j` counts towards ranks: its item's first one, and in the batch.
    pub(super) fn counts(&self, j: usize, batch: usize) -> bool {
        j < batch && self.same_item.first(j) == j
    }

    /// What turns a row's sum over its negatives into the odds against its positive: `e^shift / n`
    /// with `n` negatives where positives are outside the sum, 1 where they are sampled.
    pub(super) fn odds(&self, input: &LossInput<'_>, i: usize) -> f32 {
        match input.positive {
            Positive::Sampled => 1.0,
            // Without a negative there are no odds, whatever the number.
            Positive::Excluded { shift } => {
                shift[i].exp() / self.negatives(i, input.log_q.len()).max(1) as f32
            }
        }
    }

    /// Columns that are negatives of row `i`.
    fn negatives(&self, i: usize, columns: usize) -> usize {
        let same_item = self.same_item.of(i);
        let masked = match self.same_query().map(|same_query| same_query.of(i)) {
            None => same_item.len(),
            Some(same_query) => {
                let both = |column: &&u32| same_item.binary_search(column).is_ok();
                same_item.len() + same_query.len() - same_query.iter().filter(both).count()
            }
        };
        columns - masked
    }
}

/// Which columns (or rows) carry the same id. Sorted, so a row's twins are one slice: cost grows with
/// the number of duplicates, not with the square of the batch.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Rows by (id, row).
    order: Vec<u32>,
    /// `[batch]`, where in `order` the run of the row's id starts and ends.
    runs: Vec<(u32, u32)>,
}

impl Twins {
    pub(super) fn find(&mut self, ids: &[u64]) {
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
    pub(super) fn of(&self, row: usize) -> &[u32] {
        let (start, end) = self.runs[row];
        &self.order[start as usize..end as usize]
    }

    /// The first row of the same id: a number that stands for the id within the batch.
    pub(super) fn first(&self, row: usize) -> usize {
        self.of(row)[0] as usize
    }
}
