//! Which column is a row's positive, and which are no negatives of it: those of the same item, of
//! the same query, and of items that the query has had.
//!
//! Must never know: tensors, where the softmax is computed.

use super::{LossInput, Merged, Positive};

/// The equal ids of one batch.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    same_item: Twins,
    same_query: Twins,
    by_query: bool,
    had: Had,
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
        self.had.clear();
        for (i, items) in input.had.into_iter().flatten().enumerate() {
            let same_query = input.query_ids.map_or(&[][..], |_| self.same_query.of(i));
            let known = [self.same_item.of(self.places[i] as usize), same_query];
            self.had.push(items, input.item_ids, &self.same_item, known);
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

    /// Columns of items that row `i`'s query has had, ascending, none of which is masked otherwise.
    pub(crate) fn had(&self, i: usize) -> &[u32] {
        self.had.of(i)
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
        let had = self.had(i).iter().map(|&j| copies(input, j as usize)).sum::<usize>();
        self.events - masked - had
    }
}

/// How many events column `j` stands for.
fn copies(input: &LossInput<'_>, j: usize) -> usize {
    input.merged.and_then(|merged| merged.copies.get(j)).map_or(1, |&copies| copies as usize)
}

/// By row: columns of items that its query has had.
#[derive(Debug, Default)]
struct Had {
    columns: Vec<u32>,
    /// `[rows]`, where in `columns` the row's ones end.
    ends: Vec<u32>,
}

impl Had {
    fn clear(&mut self) {
        self.columns.clear();
        self.ends.clear();
    }

    /// The next row, whose query has had `items`; `ids` are the columns' and `twins` tells equal
    /// ones. What is in one of the `known` lists is masked already.
    fn push(&mut self, items: &[u64], ids: &[u64], twins: &Twins, known: [&[u32]; 2]) {
        let begin = self.columns.len();
        for &item in items {
            let fresh = twins
                .with(item, ids)
                .iter()
                .filter(|column| known.iter().all(|known| known.binary_search(column).is_err()));
            self.columns.extend(fresh);
        }
        self.columns[begin..].sort_unstable();
        // An item may be there several times.
        let mut kept = begin;
        for at in begin..self.columns.len() {
            if at == begin || self.columns[at] != self.columns[kept - 1] {
                self.columns[kept] = self.columns[at];
                kept += 1;
            }
        }
        self.columns.truncate(kept);
        self.ends.push(kept as u32);
    }

    /// Of `row`, ascending; empty where nothing is asked for.
    fn of(&self, row: usize) -> &[u32] {
        let Some(&end) = self.ends.get(row) else { return &[] };
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.columns[begin as usize..end as usize]
    }
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

    /// Every row of `id`, ascending; `ids` are those that were [taken in](Self::find).
    fn with(&self, id: u64, ids: &[u64]) -> &[u32] {
        let of = |&row: &u32| ids[row as usize];
        let begin = self.order.partition_point(|row| of(row) < id);
        let end = begin + self.order[begin..].partition_point(|row| of(row) == id);
        &self.order[begin..end]
    }

    /// The first row of the same id: a number that stands for the id within the batch.
    pub(crate) fn first(&self, row: usize) -> usize {
        self.of(row)[0] as usize
    }
}
