//! Which column is a row's positive, and which are no negatives of it: those of the same item, and
//! of the same query.
//!
//! Must never know: tensors, where the softmax is computed.

use super::{LossInput, Merged, Positive};

/// The equal ids of one batch.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    same_item: Twins,
    same_query: Twins,
    by_query: bool,
    /// `[batch]`, the column of each row's positive.
    places: Vec<u32>,
    /// How many columns are of traffic: the first ones.
    candidates: usize,
    /// What the columns stand for, a merged one for several events.
    events: usize,
}

impl Masks {
    /// Takes over the ids of a batch.
    pub(crate) fn find(&mut self, input: &LossInput<'_>) {
        let batch = input.rewards.len();
        self.places.clear();
        match input.merged {
            None => self.places.extend(0..batch as u32),
            Some(Merged { places, .. }) => self.places.extend_from_slice(places),
        }
        self.candidates = input.candidates;
        let behind = input.log_q.len() - input.candidates;
        self.events = behind + (0..input.candidates).map(|j| copies(input, j)).sum::<usize>();
        self.same_item.find(input.item_ids);
        self.by_query = input.query_ids.is_some();
        if let Some(ids) = input.query_ids {
            self.same_query.find(ids);
        }
    }

    /// The column of row `i`'s positive.
    pub(crate) fn place(&self, i: usize) -> usize {
        self.places[i] as usize
    }

    /// Columns of the same item as row `i`'s positive, itself too, ascending.
    pub(crate) fn same_item(&self, i: usize) -> &[u32] {
        self.same_item.of(self.place(i))
    }

    /// The first column of the item of column `j`: a number that stands for it.
    pub(crate) fn first(&self, j: usize) -> usize {
        self.same_item.first(j)
    }

    /// Candidates of the same query, where that masks.
    pub(crate) fn same_query(&self) -> Option<&Twins> {
        self.by_query.then_some(&self.same_query)
    }

    /// Whether column `j` counts towards ranks: its item's first one, and a candidate.
    pub(crate) fn counts(&self, j: usize) -> bool {
        j < self.candidates && self.first(j) == j
    }

    /// What turns a row's sum over its negatives into the odds against its positive: `e^shift / n`
    /// with `n` negatives where positives are outside the sum, 1 where they are sampled.
    pub(crate) fn odds(&self, input: &LossInput<'_>, i: usize) -> f32 {
        match input.positive {
            Positive::Sampled => 1.0,
            // Without a negative there are no odds, whatever the number.
            Positive::Excluded { shift } => shift[i].exp() / self.negatives(i, input).max(1) as f32,
        }
    }

    /// Negatives of row `i`: columns, a merged one counting for as many events as share it.
    fn negatives(&self, i: usize, input: &LossInput<'_>) -> usize {
        let same_item = self.same_item(i);
        let masked = match self.same_query().map(|same_query| same_query.of(i)) {
            None => same_item.iter().map(|&j| copies(input, j as usize)).sum(),
            Some(same_query) => {
                let both = |column: &&u32| same_item.binary_search(column).is_ok();
                same_item.len() + same_query.len() - same_query.iter().filter(both).count()
            }
        };
        self.events - masked
    }
}

/// How many events column `j` stands for.
fn copies(input: &LossInput<'_>, j: usize) -> usize {
    input.merged.and_then(|merged| merged.copies.get(j)).map_or(1, |&copies| copies as usize)
}

/// Which columns (or rows) carry the same id. Sorted, so a row's twins are one slice: cost grows
/// with the number of duplicates, not with the square of the batch.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    /// Rows by (id, row).
    order: Vec<u32>,
    /// `[batch]`, where in `order` the run of the row's id starts and ends.
    runs: Vec<(u32, u32)>,
}

impl Twins {
    pub(crate) fn find(&mut self, ids: &[u64]) {
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
    pub(crate) fn of(&self, row: usize) -> &[u32] {
        let (start, end) = self.runs[row];
        &self.order[start as usize..end as usize]
    }

    /// The first row of the same id: a number that stands for the id within the batch.
    pub(crate) fn first(&self, row: usize) -> usize {
        self.of(row)[0] as usize
    }
}
