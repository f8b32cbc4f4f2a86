//! The log cut into days, and each day's events split.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::commands::bounded::Reader;
use crate::config::Config;
use crate::stream::cut::Cut;
use crate::stream::position::Range;
use millrace_events::{Batch, Events, Offsets};

/// Without leap seconds, as event times have none.
const DAY_MS: i64 = 86_400_000;

/// Which events are held out: a function of the seed and the event alone.
#[derive(Clone, Copy)]
pub(super) struct Split {
    seed: u64,
    /// Hashes below it are held out.
    below: u64,
}

impl Split {
    /// Holds out this share of the events, in (0, 1).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of 2^64, whose last bits do not matter"
    )]
    pub(super) fn new(seed: u64, share: f64) -> Split {
        Split { seed, below: (share * 2f64.powi(64)) as u64 }
    }

    pub(super) fn holds_out(&self, batch: &Batch, i: usize) -> bool {
        let time = batch.events.times_ms[i].to_le_bytes();
        let [seed, query, item] =
            [self.seed, batch.events.query_ids[i], batch.events.item_ids[i]].map(u64::to_le_bytes);
        let event = [seed, query, item, time].concat();
        xxhash_rust::xxh3::xxh3_64(&event) < self.below
    }
}

/// Reads a range day by day.
pub(super) struct Days<'a> {
    reader: Reader<'a>,
    batch: Batch,
    /// The next event of `batch`.
    at: usize,
    /// The day in progress, in days since 1970; `None` before the first.
    day: Option<i64>,
    /// Records behind us.
    pub(super) read: u64,
    /// Those of them that could not be used.
    pub(super) rejected: u64,
    /// Events of a day before the one in progress, which they were counted under: a day that is
    /// over does not begin again.
    pub(super) late: u64,
}

impl<'a> Days<'a> {
    pub(super) fn open(
        config: &Config,
        range: Range,
        stop: &'a Arc<AtomicBool>,
    ) -> anyhow::Result<Days<'a>> {
        let batch = Batch::new(Events::new(0, 0), Offsets::new(config.kafka.topic.as_str()));
        let reader = Reader::open(config, (range, &[]), (1, Cut::Full), "by day", stop)?;
        Ok(Days { reader, batch, at: 0, day: None, read: 0, rejected: 0, late: 0 })
    }

    /// Day of the next event; `None` at the end.
    fn peek(&mut self) -> anyhow::Result<Option<i64>> {
        while self.at == self.batch.len() {
            let Some(batch) = self.reader.next()? else { return Ok(None) };
            (self.read, self.rejected) =
                (self.read + batch.rejected, self.rejected + batch.rejected);
            (self.batch, self.at) = (batch, 0);
        }
        Ok(Some(day_of(self.batch.events.times_ms[self.at])))
    }

    /// Begins the day of the next event, after the one before has been read to its end; `None` at
    /// the end of the log.
    pub(super) fn begin_day(&mut self) -> anyhow::Result<Option<i64>> {
        let next = self.peek()?;
        if let Some(next) = next {
            self.day = Some(next);
        }
        Ok(next)
    }

    /// Moves events of the day that are `wanted` into `out` until it has `size` of them; false:
    /// the day is over.
    pub(super) fn fill(
        &mut self,
        out: &mut Batch,
        size: usize,
        wanted: impl Fn(&Batch, usize) -> bool,
    ) -> anyhow::Result<bool> {
        while let Some(next) = self.peek()?
            && Some(next) <= self.day
        {
            if out.len() == size {
                return Ok(true);
            }
            self.late += u64::from(Some(next) < self.day);
            if wanted(&self.batch, self.at) {
                out.events.push_from(&self.batch.events, self.at);
                out.offsets.clone_from(&self.batch.offsets);
            }
            self.at += 1;
            self.read += 1;
        }
        Ok(false)
    }

    /// Reads over a day.
    pub(super) fn skip_day(&mut self) -> anyhow::Result<()> {
        self.begin_day()?;
        let mut nothing = Batch::new(Events::new(0, 0), self.batch.offsets.clone());
        self.fill(&mut nothing, usize::MAX, |_, _| false).map(drop)
    }
}

/// The day of a time in ms since 1970, UTC.
fn day_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::calendar::date_of;
    use millrace_events::Event;

    /// Events of 100 users and 70 items, a second apart.
    fn batch(events: i64) -> Batch {
        let mut batch = Batch::new(Events::new(0, 0), Offsets::new("t"));
        for n in 0..events {
            batch.events.push(&Event {
                time_ms: 1_506_816_000_000 + 1000 * n,
                query_id: n as u64 % 100,
                item_id: n as u64 % 70,
                item_name: "".into(),
                reward: 1.0,
                query: vec![],
                item: vec![],
            });
        }
        batch
    }

    #[test]
    fn the_split_has_its_share_and_is_one_of_the_event_alone() {
        let batch = batch(50_000);
        let of = |seed, share| -> Vec<bool> {
            let split = Split::new(seed, share);
            (0..batch.len()).map(|i| split.holds_out(&batch, i)).collect()
        };
        let count = |held: &[bool]| held.iter().filter(|held| **held).count();
        let tenth = of(0, 0.1);
        // Five standard deviations are 335.
        assert!(count(&tenth).abs_diff(5000) < 335, "{}", count(&tenth));
        assert_ne!(tenth, of(1, 0.1));
        // Among any neighbours as among all, and whatever batch it stands in.
        for (n, part) in tenth.chunks(10_000).enumerate() {
            assert!(count(part).abs_diff(1000) < 150, "{n}: {}", count(part));
        }
        let mut other = Batch::new(Events::new(0, 0), Offsets::new("t"));
        (0..batch.len()).rev().for_each(|i| other.events.push_from(&batch.events, i));
        let split = Split::new(0, 0.1);
        let reversed: Vec<bool> =
            (0..batch.len()).rev().map(|i| split.holds_out(&other, i)).collect();
        assert_eq!(tenth, reversed);
        // A larger share holds out what a smaller one does, and more.
        assert!(tenth.iter().zip(of(0, 0.3)).all(|(small, large)| large || !small));
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        let dates = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (86_399_999, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_506_815_999_999, "2017-09-30"),
            (1_506_816_000_000, "2017-10-01"),
            (4_107_542_400_000, "2100-03-01"),
        ];
        for (time_ms, expected) in dates {
            assert_eq!(date_of(day_of(time_ms)), expected, "{time_ms}");
        }
    }
}
