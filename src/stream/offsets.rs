//! The algebra of progress: which part of a topic a state has already applied.
//!
//! [`Offsets`] is where to read on, per partition; a [`Span`] is what one batch took from one
//! partition. Applying a batch's spans to the offsets of the state it is applied to gives the
//! offsets of the new state, so the two can be stored together and never disagree.
//!
//! An offset here ALWAYS means *the next offset to read*, never the last one read.
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

    /// Whether nothing was read from any partition.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether the record at `offset` lies before the next one to read: it was applied, or it was
    /// a gap that was passed. Reading it again would apply it twice.
    pub fn covers(&self, partition: i32, offset: i64) -> bool {
        self.next(partition).is_some_and(|next| offset < next)
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

    /// Whether `span` may be applied: it starts at the next offset to read or, across a gap, later.
    /// Gaps are legal: transaction markers and compaction leave offsets that no record has.
    pub fn accepts(&self, span: Span) -> bool {
        !self.covers(span.partition, span.from)
    }

    /// The progress made by applying `span`: its partition moves on to the span's end.
    ///
    /// # Panics
    /// If the span starts before the next offset to read ([`Self::accepts`]).
    pub fn apply(&mut self, span: Span) {
        assert!(
            self.accepts(span),
            "{span:?} of {} starts before the next offset to read, {:?}",
            self.topic,
            self.next(span.partition)
        );
        self.advance(span.partition, span.to);
    }

    /// The least offsets that cover all that either side covers: per partition the later one.
    ///
    /// For two views of one reader's progress (partitions handled apart, or an older and a newer
    /// report). It does not make one state of two: a state holds only what it applied itself.
    ///
    /// # Panics
    /// If the topics differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.topic, other.topic, "offsets of two topics cannot be merged");
        for (partition, next) in other.iter() {
            let mine = self.partitions.entry(partition).or_insert(next);
            *mine = next.max(*mine);
        }
    }
}

/// The offsets `from..to` of one partition (half open): what was taken from it in one go.
///
/// May contain offsets that no record has, and may be empty: a reader that passed nothing but
/// transaction markers has moved on all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    partition: i32,
    from: i64,
    to: i64,
}

impl Span {
    /// The offsets from `from` up to, but without, `to`.
    ///
    /// # Panics
    /// If `from` is negative or `to` lies before it.
    pub fn new(partition: i32, from: i64, to: i64) -> Self {
        assert!(0 <= from && from <= to, "offsets {from}..{to} of partition {partition}");
        Self { partition, from, to }
    }

    /// The span of the one record at `offset`.
    ///
    /// # Panics
    /// If `offset` is negative.
    pub fn record(partition: i32, offset: i64) -> Self {
        Self::new(partition, offset, offset + 1)
    }

    /// The partition the offsets belong to.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The first offset of the span.
    pub fn from(&self) -> i64 {
        self.from
    }

    /// The offset after the last one of the span: the next to read once it is applied.
    pub fn to(&self) -> i64 {
        self.to
    }

    /// Whether the span holds no offset.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// This span and then `later`, with any gap between them, as one.
    ///
    /// # Panics
    /// If the partitions differ, or `later` starts before this span ends.
    pub fn then(self, later: Self) -> Self {
        assert!(
            self.partition == later.partition && self.to <= later.from,
            "{later:?} does not follow {self:?}"
        );
        Self { to: later.to, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offsets() -> impl Strategy<Value = Offsets> {
        prop::collection::btree_map(0..6_i32, 0..50_i64, 0..6)
            .prop_map(|partitions| Offsets { topic: "watch".into(), partitions })
    }

    /// Consecutive spans of one partition: `(gap before, length)` laid end to end.
    fn spans(partition: i32) -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec((0..4_i64, 0..9_i64), 1..12).prop_map(move |pieces| {
            let mut at = 0;
            let span = |(gap, length)| {
                let from = at + gap;
                at = from + length;
                Span::new(partition, from, at)
            };
            pieces.into_iter().map(span).collect()
        })
    }

    fn merged(left: &Offsets, right: &Offsets) -> Offsets {
        let mut both = left.clone();
        both.merge(right);
        both
    }

    fn panics<T>(action: impl FnOnce() -> T + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(action).is_err()
    }

    #[test]
    fn an_offset_is_the_next_to_read() {
        let mut offsets = Offsets::new("watch");
        assert!(offsets.is_empty() && offsets.next(0).is_none() && !offsets.covers(0, 0));
        offsets.apply(Span::record(0, 7));
        assert_eq!(offsets.next(0), Some(8));
        assert!(offsets.covers(0, 7) && !offsets.covers(0, 8) && !offsets.covers(1, 7));
        assert_eq!(offsets.iter().collect::<Vec<_>>(), [(0, 8)]);
    }

    #[test]
    fn impossible_moves_panic() {
        let mut offsets = Offsets::new("watch");
        offsets.advance(0, 5);
        let moved = |next| {
            let mut offsets = offsets.clone();
            panics(move || offsets.advance(0, next))
        };
        assert!(moved(4) && moved(-1) && !moved(5) && !moved(6));
        let topic = offsets.clone();
        assert!(panics(move || Offsets::new("click").merge(&topic)));
        assert!(panics(|| Span::new(0, 3, 2)));
        assert!(panics(|| Span::new(0, 0, 3).then(Span::new(0, 2, 4))));
        assert!(panics(|| Span::new(0, 0, 3).then(Span::new(1, 3, 4))));
    }

    proptest! {
        #[test]
        fn a_span_is_accepted_from_the_next_offset_on(
            offsets in offsets(), partition in 0..6_i32, from in 0..60_i64, length in 0..9_i64
        ) {
            let span = Span::new(partition, from, from + length);
            let legal = offsets.next(partition).is_none_or(|next| from >= next);
            prop_assert_eq!(offsets.accepts(span), legal);
            let mut after = offsets.clone();
            let applied = !panics(std::panic::AssertUnwindSafe(|| after.apply(span)));
            prop_assert_eq!(applied, legal);
            if legal {
                prop_assert_eq!(after.next(partition), Some(span.to()));
                let mut taken = span.from()..span.to();
                prop_assert!(taken.all(|offset| after.covers(partition, offset)));
                prop_assert!(span.is_empty() || !after.accepts(span), "applied twice");
            }
            let others = |offsets: &Offsets| -> Vec<_> {
                offsets.iter().filter(|&(other, _)| other != partition).collect()
            };
            prop_assert_eq!(others(&after), others(&offsets));
        }

        #[test]
        fn cutting_the_stream_differently_changes_nothing(spans in spans(3), cut in 0..12_usize) {
            let mut one_by_one = Offsets::new("watch");
            spans.iter().for_each(|&span| one_by_one.apply(span));
            let join = |spans: &[Span]| spans.iter().copied().reduce(Span::then);
            let (head, tail) = spans.split_at(cut.min(spans.len()));
            let mut joined = Offsets::new("watch");
            [join(head), join(tail)].into_iter().flatten().for_each(|span| joined.apply(span));
            prop_assert_eq!(one_by_one, joined);
        }

        #[test]
        fn the_order_between_partitions_does_not_matter(left in spans(0), right in spans(1)) {
            let (mut first, mut second) = (Offsets::new("watch"), Offsets::new("watch"));
            left.iter().chain(&right).for_each(|&span| first.apply(span));
            right.iter().chain(&left).for_each(|&span| second.apply(span));
            prop_assert_eq!(first, second);
        }

        #[test]
        fn merge_is_a_join(a in offsets(), b in offsets(), c in offsets(),
            partition in 0..6_i32, offset in 0..60_i64) {
            prop_assert_eq!(merged(&a, &a), a.clone());
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(
                merged(&a, &b).covers(partition, offset),
                a.covers(partition, offset) || b.covers(partition, offset)
            );
        }

        #[test]
        fn json_keeps_them(offsets in offsets()) {
            let text = serde_json::to_string(&offsets).expect("offsets are plain maps");
            prop_assert_eq!(serde_json::from_str::<Offsets>(&text).expect("own output"), offsets);
        }
    }
}
