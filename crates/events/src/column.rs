//! One feature's values over many events.

use std::ops::Range;

use crate::FeatureValue;

/// One feature's values, event after event.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Column {
    /// Where each event's entries end: event `i` has `ends[i - 1]..ends[i]`.
    pub ends: Vec<u32>,
    /// Keys of ids, bags and histories; empty for other kinds.
    pub ids: Vec<u64>,
    /// Pool weights beside `ids`, or the raw numbers and vectors.
    pub values: Vec<f32>,
}

impl Column {
    /// An empty column with room for as much as `other` has: batches of one topic are alike.
    pub fn like(other: &Column) -> Column {
        Column {
            ends: Vec::with_capacity(other.ends.len()),
            ids: Vec::with_capacity(other.ids.len()),
            values: Vec::with_capacity(other.values.len()),
        }
    }

    /// Appends one event's value.
    pub fn push(&mut self, value: &FeatureValue) {
        match value {
            FeatureValue::Absent => {}
            FeatureValue::Id(id) => self.entry(*id, 1.0),
            FeatureValue::Bag(entries) => {
                entries.iter().for_each(|&(id, weight)| self.entry(id, weight));
            }
            FeatureValue::Number(number) => self.values.push(*number),
            FeatureValue::Vector(vector) => self.values.extend_from_slice(vector),
        }
        self.end();
    }

    /// Appends an id and its weight to the current event's entries.
    #[inline]
    pub fn entry(&mut self, id: u64, weight: f32) {
        self.ids.push(id);
        self.values.push(weight);
    }

    /// Ends the current event's entries.
    #[inline]
    pub fn end(&mut self) {
        let end = u32::try_from(self.values.len()).expect("a batch has under 2^32 feature entries");
        self.ends.push(end);
    }

    /// Appends all of another column's events.
    pub fn append(&mut self, other: &Column) {
        let entries =
            u32::try_from(self.values.len()).expect("a batch has under 2^32 feature entries");
        self.ids.extend_from_slice(&other.ids);
        self.values.extend_from_slice(&other.values);
        self.ends.extend(other.ends.iter().map(|end| end + entries));
    }

    /// Appends event `i` of `other`, a column of the same feature.
    #[inline]
    pub fn push_from(&mut self, other: &Column, i: usize) {
        let range = other.range(i);
        match (other.ids_of(&range), &other.values[range]) {
            // Most are like this, and cost less than a copy of unknown length.
            ([id], [value]) => self.entry(*id, *value),
            (ids, values) => {
                self.ids.extend_from_slice(ids);
                self.values.extend_from_slice(values);
            }
        }
        self.end();
    }

    /// Drops the first `events` events.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn drop_front(&mut self, events: usize) {
        let Some(last) = events.checked_sub(1) else { return };
        let entries = self.ends[last];
        self.ends.drain(..events);
        self.ends.iter_mut().for_each(|end| *end -= entries);
        // A column of numbers has no ids.
        self.ids.drain(..self.ids.len().min(entries as usize));
        self.values.drain(..entries as usize);
    }

    /// Keeps the first `events` events, and drops entries that no event's end follows.
    pub fn truncate(&mut self, events: usize) {
        self.ends.truncate(events);
        let entries = self.ends.last().map_or(0, |&end| end as usize);
        self.ids.truncate(entries);
        self.values.truncate(entries);
    }

    /// Whether events `i` and `j` have the same value, to the bit.
    pub fn equal(&self, i: usize, j: usize) -> bool {
        let (a, b) = (self.range(i), self.range(j));
        let bits = |range: Range<usize>| self.values[range].iter().map(|value| value.to_bits());
        self.ids_of(&a) == self.ids_of(&b) && bits(a).eq(bits(b))
    }

    /// Whether event `i`'s entries are those that `value` would append.
    pub fn holds(&self, i: usize, value: &FeatureValue) -> bool {
        let range = self.range(i);
        let (ids, values) = (self.ids_of(&range), &self.values[range]);
        match value {
            FeatureValue::Absent => values.is_empty(),
            FeatureValue::Id(id) => ids == [*id] && values == [1.0],
            FeatureValue::Bag(entries) => {
                ids.iter().copied().zip(values.iter().copied()).eq(entries.iter().copied())
            }
            FeatureValue::Number(number) => ids.is_empty() && values == [*number],
            FeatureValue::Vector(vector) => ids.is_empty() && values == vector,
        }
    }

    /// A value that would append event `i`'s entries. (What was a bag of one id may come back as
    /// an id, and a vector of one number as a number: their entries are the same.)
    pub fn value(&self, i: usize) -> FeatureValue {
        let range = self.range(i);
        match (self.ids_of(&range), &self.values[range]) {
            ([], []) => FeatureValue::Absent,
            ([], [number]) => FeatureValue::Number(*number),
            ([], vector) => FeatureValue::Vector(vector.to_vec()),
            ([id], [1.0]) => FeatureValue::Id(*id),
            (ids, values) => {
                FeatureValue::Bag(ids.iter().copied().zip(values.iter().copied()).collect())
            }
        }
    }

    /// Where event `i`'s entries stand in `ids` and `values`.
    #[inline]
    pub fn range(&self, i: usize) -> Range<usize> {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        start..self.ends[i] as usize
    }

    /// Numbers and vectors have no ids beside their values.
    #[inline]
    fn ids_of(&self, range: &Range<usize>) -> &[u64] {
        if self.ids.is_empty() { &[] } else { &self.ids[range.clone()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_one_with_the_same_entries() {
        let ids = [
            FeatureValue::Absent,
            FeatureValue::Id(7),
            FeatureValue::Bag(vec![(7, 1.0)]),
            FeatureValue::Bag(vec![]),
            FeatureValue::Bag(vec![(7, 0.5), (8, -2.0)]),
        ];
        let vectors = [
            FeatureValue::Absent,
            FeatureValue::Number(3.0),
            FeatureValue::Vector(vec![3.0]),
            FeatureValue::Vector(vec![3.0, 4.0]),
        ];
        for values in [&ids[..], &vectors[..]] {
            let mut column = Column::default();
            values.iter().for_each(|value| column.push(value));
            let mut again = Column::default();
            (0..values.len()).for_each(|i| again.push(&column.value(i)));
            assert_eq!(column, again);
            for (i, own) in values.iter().enumerate() {
                for (j, other) in values.iter().enumerate() {
                    assert_eq!(column.holds(i, other), column.equal(i, j), "{own:?}, {other:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_cut_off_leaves_no_entries() {
        let mut column = Column::default();
        column.push(&FeatureValue::Id(1));
        let kept = column.clone();
        column.push(&FeatureValue::Bag(vec![(2, 0.5), (3, 0.5)]));
        column.entry(4, 1.0);
        column.truncate(1);
        assert_eq!(column, kept);
        column.truncate(0);
        assert_eq!(column, Column::default());
    }
}
