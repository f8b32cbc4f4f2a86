//! Progress: which part of a log a state has already applied.
//!
//! A batch carries the offsets that applying it leads to, so that a state and its offsets are
//! stored together and never disagree. An offset here ALWAYS means *the next offset to read*, never
//! the last one read.
//!
//! A log is one topic or several. A *lane* is one partition of one of them, as one number: the
//! partition itself for the first topic, so that the log of a single topic has lanes that are its
//! partitions.
//!
//! Owns the rules of moving forward. Must never know a consumer, a file or a clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Lanes of one topic. No Kafka has so many partitions (a cluster holds some millions in all, and
/// clients give up long before), and an `i32` holds the lanes of 2,047 topics.
const LANES: i32 = 1 << 20;

/// The lane of a partition of the log's `topic`-th topic.
///
/// # Panics
/// If there is no such lane: a partition below 0 or past 2^20, a topic past the 2,047th.
pub fn lane(topic: usize, partition: i32) -> i32 {
    assert!((0..LANES).contains(&partition), "no topic has a partition {partition}");
    let first = i32::try_from(topic).ok().and_then(|topic| topic.checked_mul(LANES));
    first.expect("a log has few topics") + partition
}

/// Which topic of the log a lane is of, and its partition there.
///
/// # Panics
/// If it is below 0.
pub fn lane_place(lane: i32) -> (usize, i32) {
    let topic = usize::try_from(lane / LANES).expect("lanes of a log are not negative");
    (topic, lane % LANES)
}

/// The next offset to read, per lane of one log.
///
/// A lane that is absent has not been read at all; where to start it is the caller's choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Offsets {
    /// One at least; their places are those of the lanes.
    topics: Vec<String>,
    lanes: BTreeMap<i32, i64>,
}

/// How offsets are written down: topic by topic, each with its partitions. The first one stands as
/// that of a log of one topic does.
#[derive(Serialize, Deserialize)]
struct Stored {
    topic: String,
    partitions: BTreeMap<i32, i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Stored>,
}

impl From<Stored> for Offsets {
    fn from(first: Stored) -> Offsets {
        let Stored { topic, partitions, others } = first;
        let mut offsets = Offsets { topics: vec![topic], lanes: partitions };
        for Stored { topic, partitions, .. } in others {
            let number = offsets.topics.len();
            offsets.topics.push(topic);
            let lanes = partitions.into_iter().map(|(id, next)| (number as i32 * LANES + id, next));
            offsets.lanes.extend(lanes);
        }
        offsets
    }
}

impl From<Offsets> for Stored {
    fn from(offsets: Offsets) -> Stored {
        let mut topics = offsets.by_topic().map(|(topic, partitions)| Stored {
            topic: topic.to_owned(),
            partitions: partitions.into_iter().collect(),
            others: Vec::new(),
        });
        let first = topics.next().expect("a log has a topic");
        Stored { others: topics.collect(), ..first }
    }
}

impl Offsets {
    /// Nothing read yet from any partition of `topic`.
    pub fn new(topic: impl Into<String>) -> Self {
        Self { topics: vec![topic.into()], lanes: BTreeMap::new() }
    }

    /// Nothing read yet of the same topics.
    #[must_use]
    pub fn unread(&self) -> Self {
        Self { topics: self.topics.clone(), lanes: BTreeMap::new() }
    }

    /// One more topic, of which nothing is read yet: the log's last one.
    #[must_use]
    pub fn and(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// The first topic these offsets belong to; of catalogues, the only one.
    pub fn topic(&self) -> &str {
        &self.topics[0]
    }

    /// All topics, in the order of their lanes.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Topic and partition of a lane.
    ///
    /// # Panics
    /// If it is of none of the topics.
    pub fn place(&self, lane: i32) -> (&str, i32) {
        let (topic, partition) = lane_place(lane);
        (&self.topics[topic], partition)
    }

    /// Every topic with its `(partition, next offset to read)`, by ascending partition.
    pub fn by_topic(&self) -> impl Iterator<Item = (&str, Vec<(i32, i64)>)> {
        self.topics.iter().enumerate().map(|(number, topic)| {
            let own = self.lanes.range(lane(number, 0)..=lane(number, LANES - 1));
            (topic.as_str(), own.map(|(lane, &next)| (lane_place(*lane).1, next)).collect())
        })
    }

    /// The next offset to read from `lane`; `None` if nothing of it was read.
    pub fn next(&self, lane: i32) -> Option<i64> {
        self.lanes.get(&lane).copied()
    }

    /// `(lane, next offset to read)`, by ascending lane.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i32, i64)> + '_ {
        self.lanes.iter().map(|(&lane, &next)| (lane, next))
    }

    /// Sum of the next offsets over the lanes: a place in the log as one number. Every
    /// record that is read raises it.
    pub fn total(&self) -> u64 {
        self.lanes.values().map(|&next| next.unsigned_abs()).sum()
    }

    /// Moves `lane` on to `next`.
    ///
    /// # Panics
    /// If the lane is of none of the topics, if `next` is negative (Kafka's logical offsets such as
    /// `END` must be resolved before they get here) or lies before the present one: a state cannot
    /// unlearn what it applied, so going back means that records would count twice.
    pub fn advance(&mut self, lane: i32, next: i64) {
        let before = self.next(lane);
        let (topic, partition) = self.place(lane);
        assert!(next >= 0, "offset {next} of {topic}/{partition} is not a position");
        assert!(
            before.is_none_or(|before| before <= next),
            "offsets of {topic}/{partition} go backwards: from {before:?} to {next}"
        );
        self.lanes.insert(lane, next);
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

    #[test]
    fn a_log_of_one_topic_is_written_as_ever_and_more_topics_behind_it() {
        let mut one = Offsets::new("clicks");
        one.advance(0, 5);
        one.advance(3, 9);
        let text = serde_json::to_string(&one).expect("plain maps");
        assert_eq!(text, r#"{"topic":"clicks","partitions":{"0":5,"3":9}}"#);
        assert_eq!(serde_json::from_str::<Offsets>(&text).expect("its own"), one);

        let mut more = one.and("orders").and("views");
        more.advance(lane(2, 1), 4);
        let text = serde_json::to_string(&more).expect("plain maps");
        let others = concat!(
            r#""others":[{"topic":"orders","partitions":{}},"#,
            r#"{"topic":"views","partitions":{"1":4}}]"#
        );
        assert!(text.ends_with(&format!("{others}}}")), "{text}");
        let read: Offsets = serde_json::from_str(&text).expect("its own");
        assert_eq!(read, more);
        let by_topic: Vec<_> = read.by_topic().collect();
        assert_eq!(by_topic[0], ("clicks", vec![(0, 5), (3, 9)]));
        assert_eq!(by_topic[1..], [("orders", vec![]), ("views", vec![(1, 4)])]);
        assert_eq!((read.place(lane(2, 1)), read.total()), (("views", 1), 18));
    }

    #[test]
    #[should_panic(expected = "offsets of orders/7 go backwards")]
    fn a_lane_has_the_name_of_its_topic() {
        let mut offsets = Offsets::new("clicks").and("orders");
        offsets.advance(lane(1, 7), 5);
        offsets.advance(lane(1, 7), 4);
    }
}
