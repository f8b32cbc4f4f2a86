//! The partitions that the topic has, beside those that are read.
//!
//! A topic may grow while it is read: the keys of new events then go to the new partitions as well,
//! and who does not look loses a share of the users. It may also be gone, for a moment (a new
//! controller does not know it yet) or for good.

use std::time::{Duration, Instant};

use millrace_events::Offsets;

/// Between two looks at a topic that lacks a partition, or could not be looked at.
const SOON: Duration = Duration::from_secs(2);
/// A topic that is not there for this long has been deleted: a cluster elects a controller, and
/// that one loads its metadata, within seconds.
const MISSING_MAX: Duration = Duration::from_secs(60);

/// When to look, and what was seen.
#[derive(Debug)]
pub(super) struct Census {
    /// None: only on suspicion.
    every: Option<Duration>,
    due: Option<Instant>,
    missing_since: Option<Instant>,
}

/// How the topic's partitions compare with those that are read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// They are the same, or nobody can tell.
    Same,
    /// These are not read yet.
    New(Vec<i32>),
    /// These are not there; seen for the first time.
    Missing(Vec<i32>),
    /// These are not there, and have not been for [`MISSING_MAX`].
    Gone(Vec<i32>),
}

impl Census {
    pub(super) fn new(every: Option<Duration>, now: Instant) -> Census {
        Census { every, due: every.map(|every| now + every), missing_since: None }
    }

    /// Brings the next look forward: an error says that a partition is unknown.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Looks again soon.
    pub(super) fn retry(&mut self, now: Instant) {
        self.due = Some(now + SOON);
    }

    /// Compares the partitions that are `read` with those that are `there`; none: no answer.
    pub(super) fn compare(
        &mut self,
        read: &Offsets,
        there: Option<&[i32]>,
        now: Instant,
    ) -> Finding {
        let Some(there) = there else {
            self.retry(now);
            return Finding::Same;
        };
        let reads = |partition: &i32| read.next(*partition).is_some();
        let missing: Vec<i32> =
            read.iter().map(|(id, _)| id).filter(|id| !there.contains(id)).collect();
        if !missing.is_empty() {
            self.retry(now);
            return match self.missing_since {
                None => {
                    self.missing_since = Some(now);
                    Finding::Missing(missing)
                }
                Some(since) if now - since >= MISSING_MAX => Finding::Gone(missing),
                Some(_) => Finding::Same,
            };
        }
        self.missing_since = None;
        self.due = self.every.map(|every| now + every);
        let new: Vec<i32> = there.iter().copied().filter(|id| !reads(id)).collect();
        if self.every.is_none() || new.is_empty() { Finding::Same } else { Finding::New(new) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(partitions: &[i32]) -> Offsets {
        let mut offsets = Offsets::new("clicks");
        partitions.iter().for_each(|&partition| offsets.advance(partition, 7));
        offsets
    }

    #[test]
    fn new_partitions_are_found_at_the_next_look() {
        let start = Instant::now();
        let every = Duration::from_secs(60);
        let mut census = Census::new(Some(every), start);
        assert!(!census.is_due(start + every / 2) && census.is_due(start + every));
        let now = start + every;
        assert_eq!(census.compare(&read(&[0, 1]), Some(&[0, 1]), now), Finding::Same);
        assert!(!census.is_due(now + every / 2) && census.is_due(now + every));
        let found = census.compare(&read(&[0, 1]), Some(&[0, 1, 2, 3]), now + every);
        assert_eq!(found, Finding::New(vec![2, 3]));
    }

    #[test]
    fn a_topic_is_gone_only_if_it_stays_away() {
        let start = Instant::now();
        let mut census = Census::new(None, start);
        let at = |s| start + Duration::from_secs(s);
        assert!(!census.is_due(at(1_000_000)), "a bounded range looks on suspicion only");
        census.suspect(at(10));
        assert!(census.is_due(at(10)));
        let there = read(&[0, 1]);
        assert_eq!(census.compare(&there, Some(&[0]), at(10)), Finding::Missing(vec![1]));
        assert!(census.is_due(at(12)));
        assert_eq!(census.compare(&there, Some(&[]), at(40)), Finding::Same, "it was said");
        assert_eq!(census.compare(&there, None, at(71)), Finding::Same, "no answer is no proof");
        assert_eq!(census.compare(&there, Some(&[0, 1, 2]), at(72)), Finding::Same);
        assert!(!census.is_due(at(1_000_000)));
        assert_eq!(census.compare(&there, Some(&[0]), at(80)), Finding::Missing(vec![1]));
        assert_eq!(census.compare(&there, Some(&[0]), at(139)), Finding::Same);
        assert_eq!(census.compare(&there, Some(&[0]), at(140)), Finding::Gone(vec![1]));
    }
}
