//! A budget for rejected records: too many mean a fault that skipping does not cure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

/// Counts records, and refuses to continue when a window has too many bad ones.
#[derive(Debug)]
pub(crate) struct Guard {
    window: u64,
    share_max: f64,
    seen: u64,
    rejected: u64,
    reasons: BTreeMap<&'static str, u64>,
    total: BTreeMap<&'static str, u64>,
    skipped: u64,
    unread: u64,
    /// Reasons whose first record is known to the log already.
    shown: BTreeSet<&'static str>,
}

impl Guard {
    pub(crate) fn new(window: u64, share_max: f64) -> Guard {
        Guard {
            window,
            share_max,
            seen: 0,
            rejected: 0,
            reasons: BTreeMap::new(),
            total: BTreeMap::new(),
            skipped: 0,
            unread: 0,
            shown: BTreeSet::new(),
        }
    }

    /// One record was good.
    pub(crate) fn accept(&mut self) {
        self.seen += 1;
        self.roll();
    }

    /// Records were passed over, and values of good ones not read: neither good nor bad.
    pub(crate) fn skip(&mut self, records: u64, values: u64) {
        self.skipped += records;
        self.unread += values;
    }

    /// Values of optional features that could not be read since the start.
    pub(crate) fn unread(&self) -> u64 {
        self.unread
    }

    /// Records passed over since the start.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether this is the first record that is rejected for `reason`: a person wants to see it.
    pub(crate) fn is_first(&mut self, reason: &'static str) -> bool {
        self.shown.insert(reason)
    }

    /// One record was rejected; `example` describes it.
    ///
    /// # Errors
    /// If the window now holds more rejected records than its share, whatever its others are.
    pub(crate) fn reject(
        &mut self,
        reason: &'static str,
        example: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        self.seen += 1;
        self.rejected += 1;
        *self.reasons.entry(reason).or_default() += 1;
        *self.total.entry(reason).or_default() += 1;
        if self.rejected as f64 > self.share_max * self.window as f64 {
            let mut reasons: Vec<_> = self.reasons.iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let reasons: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            bail!(
                "{} of the last {} records were rejected ({}); the limit is {}% of {}; the last \
                 one: {}; correct the mapping or the producer, or raise kafka.rejected_share_max",
                self.rejected,
                self.seen,
                reasons.join(", "),
                self.share_max * 100.0,
                self.window,
                example()
            );
        }
        self.roll();
        Ok(())
    }

    fn roll(&mut self) {
        if self.seen >= self.window {
            (self.seen, self.rejected) = (0, 0);
            self.reasons.clear();
        }
    }

    /// Rejected records since the start, by reason.
    pub(crate) fn by_reason(&self) -> &BTreeMap<&'static str, u64> {
        &self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_as_soon_as_a_window_is_over_its_share() {
        let mut guard = Guard::new(100, 0.05);
        for _ in 0..5 {
            guard.reject("not_json", String::new).expect("5 of 100 are allowed");
        }
        guard.accept();
        let error = guard.reject("empty", || "p/7: empty".into()).expect_err("6 of 100 are not");
        let text = error.to_string();
        assert!(text.starts_with("6 of the last 7 records were rejected (5 not_json, 1 empty)"));
        assert!(text.contains("p/7: empty"), "{text}");
    }

    #[test]
    fn the_first_of_each_reason_is_one() {
        let mut guard = Guard::new(10, 0.5);
        let first = ["empty", "not_json", "empty", "not_json"].map(|reason| guard.is_first(reason));
        assert_eq!(first, [true, true, false, false]);
    }

    #[test]
    fn windows_do_not_add_up() {
        let mut guard = Guard::new(10, 0.1);
        for _ in 0..100 {
            guard.reject("empty", String::new).expect("1 of 10 is allowed");
            (0..9).for_each(|_| guard.accept());
        }
        assert_eq!(guard.by_reason()["empty"], 100);
    }
}
