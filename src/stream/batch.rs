//! Events in columns: what one training step takes.

use super::event::{Event, FeatureValue};
use super::offsets::Offsets;

/// A run of events, with the offsets that reading them leads to.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Next offset to read once this batch is applied.
    pub offsets: Offsets,
    /// Its offsets are exact: true unless more of its shuffle window follows. Then they are those
    /// of the window's start, and the state after it belongs to no offsets.
    pub whole: bool,
    /// Which time over the log this is; 1: the first.
    pub pass: u32,
    /// Records rejected since the batch before.
    pub rejected: u64,
    /// Event times, ms since 1970.
    pub times_ms: Vec<i64>,
    /// Keys of the queries' ids.
    pub query_ids: Vec<u64>,
    /// Keys of the items' ids.
    pub item_ids: Vec<u64>,
    /// Item ids as the source wrote them.
    pub item_names: Vec<Box<str>>,
    /// The items' features as the events gave them: what the corpus remembers of each item.
    pub item_values: Vec<Vec<FeatureValue>>,
    /// Rewards.
    pub rewards: Vec<f32>,
    /// One column per entry of `query.features`.
    pub query: Vec<Column>,
    /// One column per entry of `item.features`.
    pub item: Vec<Column>,
}

/// One feature's values over a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// Where each event's entries end: event `i` has `ends[i - 1]..ends[i]`.
    pub ends: Vec<u32>,
    /// Keys of ids, bags and histories; empty for other kinds.
    pub ids: Vec<u64>,
    /// Pool weights beside `ids`, or the raw numbers and vectors.
    pub values: Vec<f32>,
}

impl Column {
    /// Appends one event's value.
    pub fn push(&mut self, value: &FeatureValue) {
        match value {
            FeatureValue::Absent => {}
            FeatureValue::Id(id) => {
                self.ids.push(*id);
                self.values.push(1.0);
            }
            FeatureValue::Bag(entries) => {
                self.ids.extend(entries.iter().map(|(id, _)| id));
                self.values.extend(entries.iter().map(|(_, weight)| weight));
            }
            FeatureValue::Number(number) => self.values.push(*number),
            FeatureValue::Vector(vector) => self.values.extend_from_slice(vector),
        }
        self.end();
    }

    /// Appends all of another column's events.
    pub fn append(&mut self, other: &Column) {
        let entries =
            u32::try_from(self.values.len()).expect("a batch has under 2^32 feature entries");
        self.ids.extend_from_slice(&other.ids);
        self.values.extend_from_slice(&other.values);
        self.ends.extend(other.ends.iter().map(|end| end + entries));
    }

    /// Ends the current event's entries.
    pub fn end(&mut self) {
        let end = u32::try_from(self.values.len()).expect("a batch has under 2^32 feature entries");
        self.ends.push(end);
    }

    /// Appends event `i` of `other`, a column of the same feature.
    pub fn push_from(&mut self, other: &Column, i: usize) {
        let range = other.range(i);
        // Numbers and vectors have no ids beside their values.
        if !other.ids.is_empty() {
            self.ids.extend_from_slice(&other.ids[range.clone()]);
        }
        self.values.extend_from_slice(&other.values[range]);
        self.end();
    }

    /// Whether events `i` and `j` have the same value, to the bit.
    pub fn equal(&self, i: usize, j: usize) -> bool {
        let (a, b) = (self.range(i), self.range(j));
        // Numbers and vectors have no ids beside their values.
        let same_ids = self.ids.is_empty() || self.ids[a.clone()] == self.ids[b.clone()];
        let bits =
            |range: std::ops::Range<usize>| self.values[range].iter().map(|value| value.to_bits());
        same_ids && bits(a).eq(bits(b))
    }

    /// Where event `i`'s entries stand in `ids` and `values`.
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        start..self.ends[i] as usize
    }
}

impl Batch {
    /// An empty batch for `query` and `item` features, at `offsets`.
    pub fn new(query: usize, item: usize, offsets: Offsets) -> Self {
        Self {
            offsets,
            whole: true,
            pass: 1,
            rejected: 0,
            times_ms: Vec::new(),
            query_ids: Vec::new(),
            item_ids: Vec::new(),
            item_names: Vec::new(),
            item_values: Vec::new(),
            rewards: Vec::new(),
            query: vec![Column::default(); query],
            item: vec![Column::default(); item],
        }
    }

    /// Events in it. It may be 0, when only rejected records lie between two offsets.
    pub fn len(&self) -> usize {
        self.item_ids.len()
    }

    /// True without events.
    pub fn is_empty(&self) -> bool {
        self.item_ids.is_empty()
    }

    /// Time of its newest event, ms since 1970; 0 without events.
    pub fn newest_ms(&self) -> i64 {
        self.times_ms.iter().copied().max().unwrap_or_default()
    }

    /// Appends `event`. Its offset is advanced by the caller, who knows the partition.
    pub fn push(&mut self, event: Event) {
        self.times_ms.push(event.time_ms);
        self.query_ids.push(event.query_id);
        self.item_ids.push(event.item_id);
        self.item_names.push(event.item_name);
        self.rewards.push(event.reward);
        for (column, value) in self.query.iter_mut().zip(&event.query) {
            column.push(value);
        }
        for (column, value) in self.item.iter_mut().zip(&event.item) {
            column.push(value);
        }
        self.item_values.push(event.item);
    }

    /// Appends event `i` of `other`, a batch of the same features. The item's name and values are
    /// moved, so that an event can be taken once.
    pub fn push_from(&mut self, other: &mut Batch, i: usize) {
        self.times_ms.push(other.times_ms[i]);
        self.query_ids.push(other.query_ids[i]);
        self.item_ids.push(other.item_ids[i]);
        self.item_names.push(std::mem::take(&mut other.item_names[i]));
        self.item_values.push(std::mem::take(&mut other.item_values[i]));
        self.rewards.push(other.rewards[i]);
        for (column, other) in self.query.iter_mut().zip(&other.query) {
            column.push_from(other, i);
        }
        for (column, other) in self.item.iter_mut().zip(&other.item) {
            column.push_from(other, i);
        }
    }
}
