//! The log of a run without end: a line a minute whatever happens, and a warning if batches are far
//! below their size.

use std::time::{Duration, Instant};

use crate::config::BatchConfig;
use crate::pipeline::RunStats;
use millrace_train::{Progress, Trainer};

/// A live run says how it is this often: a line a minute is what a person reads.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// A person who has read the warning of small batches has decided.
const WARNING_EVERY: Duration = Duration::from_secs(600);
/// Batches are small if their mean is below this part of `batch.size`: then the step's fixed
/// cost is paid sixteen times and more.
const SMALL_PART: f64 = 16.0;

/// The counts of a run as of one moment.
#[derive(Clone, Copy, Debug)]
struct Counts {
    step: u64,
    events: u64,
}

/// Log lines of a run without end.
pub(super) struct LiveLines {
    batch: BatchConfig,
    shown_at: Instant,
    shown: Option<Counts>,
    warned_at: Option<Instant>,
}

/// The lines about one minute.
#[derive(Debug)]
struct Minute {
    summary: String,
    warning: Option<String>,
}

impl LiveLines {
    pub(super) fn new(batch: &BatchConfig) -> Self {
        Self { batch: batch.clone(), shown_at: Instant::now(), shown: None, warned_at: None }
    }

    /// Logs what there is to say by now. Called often, also while no batch comes.
    pub(super) fn show(&mut self, trainer: &Trainer, stats: &RunStats) {
        let Progress { step, events, rejected, .. } = *trainer.progress();
        let counts = Counts { step, events };
        let waits_for = || stats.outlook.waits_for();
        let Some(minute) = self.minute(Instant::now(), counts, stats.loss(), waits_for) else {
            return;
        };
        let lag = stats.outlook.lag().map_or("unknown".to_owned(), |lag| lag.to_string());
        tracing::info!(step, events, rejected, lag, "{}", minute.summary);
        if let Some(warning) = minute.warning {
            tracing::warn!("{warning}");
        }
    }

    /// The lines to log at `now`; `None` until a minute has passed since the last time.
    #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
    fn minute(
        &mut self,
        now: Instant,
        counts: Counts,
        loss: f64,
        waits_for: impl FnOnce() -> String,
    ) -> Option<Minute> {
        let before = *self.shown.get_or_insert(counts);
        let elapsed = now - self.shown_at;
        if elapsed < LINE_EVERY {
            return None;
        }
        self.shown_at = now;
        self.shown = Some(counts);
        let steps = counts.step - before.step;
        let events = counts.events - before.events;
        if steps == 0 {
            let summary =
                format!("no batch for {} s; waits for {}", elapsed.as_secs(), waits_for());
            return Some(Minute { summary, warning: None });
        }
        let rate = events as f64 / elapsed.as_secs_f64();
        let mean = events as f64 / steps as f64;
        let rate = if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
        let summary = format!("{rate} events/s, {mean:.0} a batch, loss {loss:.4}");
        Some(Minute { summary, warning: self.warning(now, mean) })
    }

    /// A warning if batches of `mean` events are small, unless there was one lately.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    fn warning(&mut self, now: Instant, mean: f64) -> Option<String> {
        let BatchConfig { size, linger_ms, .. } = self.batch;
        let lately = self.warned_at.is_some_and(|at| now - at < WARNING_EVERY);
        if lately || mean * SMALL_PART >= size as f64 {
            return None;
        }
        self.warned_at = Some(now);
        Some(format!(
            "batches hold {mean:.1} events of batch.size = {size}: the topic brings no more within \
             batch.linger_ms = {linger_ms}. Each step embeds the columns of the window again, \
             however few its events are, so a small step costs most of a full one. If the \
             processor is busy, raise batch.linger_ms or batch.min_events: steps are fewer, and an \
             event waits longer before it is learned. If not, nothing is wrong"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lines() -> (LiveLines, Instant) {
        let lines = LiveLines::new(&BatchConfig { size: 1024, ..BatchConfig::default() });
        let began = lines.shown_at;
        (lines, began)
    }

    fn counts(step: u64, events: u64) -> Counts {
        Counts { step, events }
    }

    fn never() -> String {
        panic!("batches come: nothing is waited for")
    }

    #[test]
    fn a_line_comes_every_minute_though_no_batch_does() {
        let (mut lines, began) = lines();
        let mut said = Vec::new();
        for second in 0..=180 {
            let now = began + second * SECOND;
            let minute = lines.minute(now, counts(7, 700), f64::NAN, || "new records".into());
            said.extend(minute.map(|minute| (second, minute.summary)));
        }
        let line = "no batch for 60 s; waits for new records".to_owned();
        assert_eq!(said, [(60, line.clone()), (120, line.clone()), (180, line)]);
    }

    #[test]
    fn rates_are_those_of_the_minute_and_of_this_run() {
        let (mut lines, began) = lines();
        // The state had a million events behind it when the run began.
        assert!(lines.minute(began, counts(1000, 1_000_000), 1.0, never).is_none());
        let minute = lines.minute(began + 60 * SECOND, counts(1060, 1_061_440), 0.5, never);
        let minute = minute.expect("a minute has passed");
        assert_eq!(minute.summary, "1024 events/s, 1024 a batch, loss 0.5000");
        assert!(minute.warning.is_none());
        let minute = lines.minute(began + 120 * SECOND, counts(1061, 1_061_740), 0.5, never);
        assert_eq!(minute.expect("another").summary, "5.0 events/s, 300 a batch, loss 0.5000");
    }

    #[test]
    fn small_batches_are_warned_of_once_in_ten_minutes() {
        let (mut lines, began) = lines();
        lines.minute(began, counts(0, 0), 1.0, never);
        let mut warned = Vec::new();
        for minute in 1..=21_u32 {
            // A batch of two events a second.
            let counts = counts(60 * u64::from(minute), 120 * u64::from(minute));
            let said = lines.minute(began + minute * 60 * SECOND, counts, 1.0, never);
            let warning = said.expect("a minute has passed").warning;
            warned.extend(warning.map(|text| (minute, text)));
        }
        assert_eq!(warned.iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [1, 11, 21]);
        for part in ["2.0 events", "batch.linger_ms", "batch.min_events", "columns"] {
            assert!(warned[0].1.contains(part), "no {part} in: {}", warned[0].1);
        }
    }

    #[test]
    fn a_sixteenth_of_a_batch_is_not_small() {
        let (mut lines, began) = lines();
        lines.minute(began, counts(0, 0), 1.0, never);
        let mut warned_at = |minute: u32, mean: u64| {
            let said = lines.minute(
                began + minute * 60 * SECOND,
                counts(u64::from(minute), mean * u64::from(minute)),
                1.0,
                never,
            );
            said.expect("a minute has passed").warning.is_some()
        };
        assert!(!warned_at(1, 64));
        assert!(warned_at(2, 63));
    }
}
