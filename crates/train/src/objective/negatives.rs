//! Negatives beside the items of traffic: items drawn from the corpus, vectors of past events.
//!
//! Owns the bank of past vectors. Both kinds are functions of the batches in their order and of the
//! seed. Must never know: the loss, the towers.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::memory::corpus::Corpus;
use crate::saved::Damaged;
use millrace_events::{Column, SplitMix};

/// Items drawn uniformly from the corpus, with replacement: what was never clicked in this batch
/// becomes a negative too (Yang et al. 2020).
#[derive(Debug, Default)]
pub(crate) struct DrawnItems {
    /// Keys of the items.
    pub(crate) ids: Vec<u64>,
    /// One column per item feature.
    pub(crate) columns: Vec<Column>,
}

impl DrawnItems {
    /// `count` items for step `step`, none from an empty corpus. What is drawn depends on the seed,
    /// the step and the order in which items were first seen.
    pub(crate) fn new(corpus: &Corpus, count: usize, seed: u64, step: u64) -> Self {
        let mut random = SplitMix::new(seed ^ step.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let mut drawn = Self::default();
        for (id, item) in corpus.draw(count, &mut || random.next_u64()) {
            drawn.ids.push(id);
            drawn.columns.resize(item.values.len(), Column::default());
            for (column, value) in drawn.columns.iter_mut().zip(&item.values) {
                column.push(value);
            }
        }
        drawn
    }

    /// `columns`, the batch's, with these items' behind them.
    pub(crate) fn behind(&self, mut columns: Vec<Column>) -> Vec<Column> {
        for (column, drawn) in columns.iter_mut().zip(&self.columns) {
            column.append(drawn);
        }
        columns
    }
}

/// Vectors of the items of past events, with the log q they had, first in first out (Wang et al.
/// 2021). They have moved on since, so no gradient flows to them. A vector waits until its event
/// has left the window of columns: no event is a negative twice. Each event has a vector of its
/// own, whoever shares its item: the bank then reaches back equally far however the stream was cut.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bank {
    capacity: usize,
    dim: usize,
    ids: Vec<u64>,
    log_q: Vec<f32>,
    /// `[len, dim]`
    vectors: Vec<f32>,
    /// Where the next vector goes once the bank is full.
    next: usize,
    /// Those whose events are still in the window, oldest first: at most a full batch.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    /// Events of the stream when it was pushed.
    at: u64,
    id: u64,
    log_q: f32,
    vector: Vec<f32>, // [dim]
}

impl Bank {
    /// An empty bank of up to `capacity` vectors of `dim` floats.
    pub(crate) fn new(capacity: usize, dim: usize) -> Self {
        let (ids, log_q, vectors) = (Vec::new(), Vec::new(), Vec::new());
        Self { capacity, dim, ids, log_q, vectors, next: 0, waiting: VecDeque::new() }
    }

    /// Takes the items of a batch, after which the stream has had `at` events: `ids` and `log_q`
    /// are `[batch]`, `vectors` is `[batch, dim]`.
    pub(crate) fn push(&mut self, at: u64, ids: &[u64], log_q: &[f32], vectors: &[f32]) {
        // Of a batch greater than the bank the last items stay.
        let skip = ids.len().saturating_sub(self.capacity);
        let rows = ids.iter().zip(log_q).zip(vectors.chunks_exact(self.dim)).skip(skip);
        let waiting = |((&id, &log_q), vector): ((&u64, &f32), &[f32])| Waiting {
            at,
            id,
            log_q,
            vector: vector.to_vec(),
        };
        self.waiting.extend(rows.map(waiting));
    }

    /// Lets those in whose events came before the window, which begins after `start` events.
    pub(crate) fn settle(&mut self, start: u64) {
        while self.waiting.front().is_some_and(|waiting| waiting.at <= start) {
            let Some(Waiting { id, log_q, vector, .. }) = self.waiting.pop_front() else { return };
            if self.ids.len() < self.capacity {
                self.ids.push(id);
                self.log_q.push(log_q);
                self.vectors.extend_from_slice(&vector);
                continue;
            }
            self.ids[self.next] = id;
            self.log_q[self.next] = log_q;
            self.vectors[self.next * self.dim..][..self.dim].copy_from_slice(&vector);
            self.next = (self.next + 1) % self.capacity;
        }
    }

    /// Whether it ever holds anything.
    pub(crate) fn takes(&self) -> bool {
        self.capacity > 0
    }

    pub(crate) fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Nats, as the columns had them in their own batch.
    pub(crate) fn log_q(&self) -> &[f32] {
        &self.log_q
    }

    /// `[len, dim]`
    pub(crate) fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain numbers encode")
    }

    /// Takes over what [`Bank::save`] gave. A bank of another capacity or width starts empty:
    /// it is full again after as many events.
    pub(crate) fn load(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let saved: Self = postcard::from_bytes(bytes)
            .map_err(|error| Damaged::undecodable("the bank of negatives", error))?;
        let length = saved.ids.len();
        let whole = saved.log_q.len() == length
            && length.checked_mul(saved.dim) == Some(saved.vectors.len())
            && saved.waiting.iter().all(|waiting| waiting.vector.len() == saved.dim);
        let takes = saved.capacity > 0 || saved.waiting.is_empty();
        if !whole || !takes || length > saved.capacity || saved.next >= saved.capacity.max(1) {
            return Err("the bank of negatives is damaged".into());
        }
        if (saved.capacity, saved.dim) == (self.capacity, self.dim) {
            *self = saved;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if the events left the window at once.
    fn push(bank: &mut Bank, ids: &[u64], log_q: &[f32], vectors: &[f32]) {
        bank.push(1, ids, log_q, vectors);
        bank.settle(1);
    }

    #[test]
    fn the_bank_keeps_the_newest() {
        let mut bank = Bank::new(3, 2);
        push(&mut bank, &[1, 2], &[0.1, 0.2], &[1.0, 1.0, 2.0, 2.0]);
        push(&mut bank, &[3, 4], &[0.3, 0.4], &[3.0, 3.0, 4.0, 4.0]);
        assert_eq!(bank.ids(), [4, 2, 3]);
        assert_eq!(bank.log_q(), [0.4, 0.2, 0.3]);
        assert_eq!(bank.vectors(), [4.0, 4.0, 2.0, 2.0, 3.0, 3.0]);
        push(&mut bank, &[5, 6, 7, 8], &[0.0; 4], &[9.0; 8]);
        let mut ids = bank.ids().to_vec();
        ids.sort_unstable();
        assert_eq!(ids, [6, 7, 8]);
    }

    #[test]
    fn what_is_still_in_the_window_waits() {
        let mut bank = Bank::new(3, 1);
        bank.push(4, &[1, 2], &[0.0; 2], &[1.0, 2.0]);
        bank.push(6, &[3], &[0.0], &[3.0]);
        for (start, ids) in [(3, &[][..]), (4, &[1, 2]), (5, &[1, 2]), (6, &[1, 2, 3])] {
            bank.settle(start);
            assert_eq!(bank.ids(), ids, "the window begins after {start}");
        }
    }

    #[test]
    fn a_restored_bank_goes_on_alike_and_another_shape_starts_empty() {
        let mut bank = Bank::new(3, 1);
        push(&mut bank, &[1, 2, 3, 4], &[0.0; 4], &[1.0, 2.0, 3.0, 4.0]);
        bank.push(9, &[5], &[0.0], &[5.0]);
        let mut restored = Bank::new(3, 1);
        restored.load(&bank.save()).expect("just written");
        for bank in [&mut bank, &mut restored] {
            bank.push(10, &[6, 7], &[0.0; 2], &[6.0, 7.0]);
            bank.settle(9);
        }
        assert_eq!(bank.save(), restored.save());
        let mut other = Bank::new(4, 1);
        other.load(&bank.save()).expect("whole");
        assert!(other.ids().is_empty());
    }

    #[test]
    fn no_bank_holds_nothing() {
        let mut bank = Bank::new(0, 1);
        push(&mut bank, &[1], &[0.0], &[1.0]);
        assert!(bank.ids().is_empty());
    }
}
