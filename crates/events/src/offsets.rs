//! Progress: which part of a topic a state has already applied.
//!
//! A batch carries the offsets that applying it leads to, so that a state and its offsets are
//! stored together and never disagree. An offset here ALWAYS means *the next offset to read*, never
//! the last one read.
//!
//! Owns the rules of moving forward. Must never know a consumer, a file or a clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The next offset to read, per partition of one topic.
///
/// A partition that is absent has not been read at all; where to start it is the caller's choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    topic: String,
    partitions: BTreeMap<i32, i64>,
}

impl Offsets {
    /// Nothing read yet from any partition of `topic`.
    pub fn new(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), partitions: BTreeMap::new() }
    }

    /// The topic these offsets belong to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The next offset to read from `partition`; `None` if nothing of it was read.
    pub fn next(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition).copied()
    }

    /// `(partition, next offset to read)`, by ascending partition.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i32, i64)> + '_ {
        self.partitions.iter().map(|(&partition, &next)| (partition, next))
    }

    /// Sum of the next offsets over the partitions: a place in the topic as one number. Every
    /// record that is read raises it.
    pub fn total(&self) -> u64 {
        self.partitions.values().map(|&next| next.unsigned_abs()).sum()
    }

    /// Moves `partition` on to `next`.
    ///
    /// # Panics
    /// If `next` is negative (Kafka's logical offsets such as `END` must be resolved before they
    /// get here) or lies before the present one: a state cannot unlearn what it applied, so going
    /// back means that records would count twice.
    pub fn advance(&mut self, partition: i32, next: i64) {
        assert!(next >= 0, "offset {next} of {}/{partition} is not a position", self.topic);
        let before = self.next(partition);
        assert!(
            before.is_none_or(|before| before <= next),
            "offsets of {}/{partition} go backwards: from {before:?} to {next}",
            self.topic
        );
        self.partitions.insert(partition, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_moves_forward_and_the_total_with_it() {
        let mut offsets = Offsets::new("t");
        assert_eq!((offsets.next(3), offsets.total()), (None, 0));
        offsets.advance(3, 5);
        offsets.advance(1, 2);
        offsets.advance(3, 5);
        offsets.advance(3, 9);
        assert_eq!(offsets.iter().collect::<Vec<_>>(), [(1, 2), (3, 9)]);
        assert_eq!(offsets.total(), 11);
    }

    #[test]
    #[should_panic(expected = "offsets of t/3 go backwards: from Some(5) to 4")]
    fn a_state_cannot_unlearn() {
        let mut offsets = Offsets::new("t");
        offsets.advance(3, 5);
        offsets.advance(3, 4);
    }

    #[test]
    #[should_panic(expected = "offset -1 of t/0 is not a position")]
    fn a_logical_offset_is_no_position() {
        Offsets::new("t").advance(0, -1);
    }
}
