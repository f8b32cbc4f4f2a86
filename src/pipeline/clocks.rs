//! When each stage of the line last did something, and what it is busy with: for gauges that are
//! ages, and for `/livez`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::{Beat, Metrics, Stage};
use super::unpublished::Unpublished;
use crate::stream::calendar::now_ms;

/// Times that ages are computed from, ms since 1970; 0: not yet.
pub struct Clocks {
    pub(super) decoded: AtomicI64,
    pub(super) trained: AtomicI64,
    pub(super) published: AtomicI64,
    pub(super) checkpoint: AtomicI64,
    /// Of events that no published version has learned from.
    unpublished: Mutex<Unpublished>,
    /// Each stage's last sign of life, the start being one, by [`Beat`].
    beats: [AtomicI64; Beat::ALL.len()],
    /// Since when each stage has been at the piece of work that it has, ms after `began`; 0: it has
    /// none. A clock that is set does not move it.
    busy: [AtomicU64; Beat::ALL.len()],
    began: Instant,
}

impl Default for Clocks {
    fn default() -> Clocks {
        let zero = || AtomicI64::new(0);
        Clocks {
            decoded: zero(),
            trained: zero(),
            published: zero(),
            checkpoint: zero(),
            unpublished: Mutex::default(),
            beats: std::array::from_fn(|_| AtomicI64::new(now_ms())),
            busy: Default::default(),
            began: Instant::now(),
        }
    }
}

impl Clocks {
    /// An event of `time_ms` has come as far as `clock` tells. A time ahead counts as the present,
    /// so that the age grows in a stall.
    pub(super) fn reach(clock: &AtomicI64, time_ms: i64) {
        clock.fetch_max(time_ms.min(now_ms()), Ordering::Relaxed);
    }

    /// The model has learned from events of `times_ms` in `step`.
    pub(super) fn learned(&self, step: u64, times_ms: &[i64]) {
        let mut unpublished = self.unpublished.lock().unwrap_or_else(PoisonError::into_inner);
        unpublished.learned(step, times_ms);
    }

    /// The brokers have acknowledged the version of `step`, whose newest event is of
    /// `event_time_ms`: how old what it has learned from is now.
    #[expect(clippy::cast_precision_loss, reason = "ages in ms stay below 2^53")]
    pub(super) fn acknowledged(&self, step: u64, event_time_ms: i64, metrics: &Metrics) {
        let now = now_ms();
        self.published.store(event_time_ms.min(now), Ordering::Relaxed);
        self.beat(Beat::Version);
        let mut unpublished = self.unpublished.lock().unwrap_or_else(PoisonError::into_inner);
        let times = unpublished.published(step);
        drop(unpublished);
        let freshness = metrics.freshness();
        // A time ahead counts as the present.
        times.iter().for_each(|time| freshness.observe((now - time).max(0) as f64 / 1000.0));
    }

    /// Sets the gauges that are ages. Called before each scrape.
    #[expect(clippy::cast_precision_loss, reason = "ages in ms stay below 2^53")]
    pub fn set_ages(&self, metrics: &Metrics) {
        let now = now_ms();
        let age = |clock: &AtomicI64| match clock.load(Ordering::Relaxed) {
            0 => f64::NAN,
            at => (now - at) as f64 / 1000.0,
        };
        let stages = [
            (Stage::Decoded, &self.decoded),
            (Stage::Trained, &self.trained),
            (Stage::Published, &self.published),
        ];
        for (stage, clock) in stages {
            metrics.event_age(stage).set(age(clock));
        }
        metrics.checkpoint_age_seconds.set(age(&self.checkpoint));
        for &beat in Beat::ALL {
            metrics.stage_age(beat).set(age(&self.beats[beat as usize]));
        }
    }

    /// A stage shows a sign of life.
    pub(super) fn beat(&self, beat: Beat) {
        self.beats[beat as usize].store(now_ms(), Ordering::Relaxed);
    }

    /// A stage has a piece of work, from now until the value goes. A stage is one thread.
    pub(super) fn busy(&self, beat: Beat) -> Busy<'_> {
        let busy = &self.busy[beat as usize];
        busy.store(self.now(), Ordering::Relaxed);
        Busy(busy)
    }

    /// The first stage that has been at one piece of work for longer than any takes, in words.
    pub fn stuck(&self) -> Option<String> {
        self.stuck_at(self.now())
    }

    fn stuck_at(&self, now: u64) -> Option<String> {
        Beat::ALL.iter().find_map(|&beat| {
            let since = self.busy[beat as usize].load(Ordering::Relaxed);
            let took = Duration::from_millis(now.saturating_sub(since));
            let (work, bound) = bound(beat);
            let is_stuck = since > 0 && took > bound;
            is_stuck.then(|| format!("{work} has taken {} s and counting", took.as_secs()))
        })
    }

    /// Milliseconds after `began`, from 1 on.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// A stage's piece of work. It is done, or given up, when this goes.
#[must_use]
pub(super) struct Busy<'a>(&'a AtomicU64);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What a stage does, and how long one piece of it may take before a restart is the better way on.
/// Each is several times the longest that was seen: a restart reads everything again, and what it
/// cures is a deadlock or a disk that answers no more.
fn bound(beat: Beat) -> (&'static str, Duration) {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    match beat {
        // A round that begins without the brokers is no work. One in which they go away waits for
        // them with its dead letters; a restart after an hour of that costs nothing.
        Beat::Polled => ("a round of reading", minutes(60)),
        // 13 s for a large batch on software Vulkan.
        Beat::Batch => ("a training step", minutes(10)),
        // 100 GB at 100 MB/s.
        Beat::Durable => ("a checkpoint", minutes(30)),
        // Ten million items at 3,000 a second.
        Beat::Version => ("a publication", minutes(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_event_from_a_clock_that_is_ahead_is_as_old_as_its_arrival() {
        let config = Config::from_toml(include_str!("../../config/demo.toml")).expect("valid");
        let (metrics, clocks) = (Metrics::new(&config), Clocks::default());
        let year = 365 * 86_400_000;
        Clocks::reach(&clocks.trained, now_ms() + year);
        Clocks::reach(&clocks.trained, now_ms() - year);
        Clocks::reach(&clocks.published, now_ms() - year);
        Clocks::reach(&clocks.decoded, 0);
        clocks.set_ages(&metrics);
        let age = |stage| metrics.event_age(stage).get();
        assert!((0.0..60.0).contains(&age(Stage::Trained)), "{}", age(Stage::Trained));
        assert!(age(Stage::Published) >= 365.0 * 86_400.0);
        assert!(age(Stage::Decoded).is_nan(), "not yet");
    }

    #[test]
    fn a_stage_is_stuck_at_a_piece_of_work_and_never_without_one() {
        let clocks = Clocks::default();
        let year = 365 * 86_400_000;
        assert_eq!(clocks.stuck_at(year), None, "nothing to do for a year");
        for &beat in Beat::ALL {
            let (work, bound) = bound(beat);
            let busy = clocks.busy(beat);
            let began = clocks.now();
            let bound = u64::try_from(bound.as_millis()).expect("an hour or less");
            assert_eq!(clocks.stuck_at(began + bound), None, "{work} may take so long");
            let stuck = clocks.stuck_at(began + bound + 1_000).expect("past its bound");
            assert!(stuck.starts_with(work), "{stuck}");
            // The next piece begins anew.
            let _next = clocks.busy(beat);
            assert_eq!(clocks.stuck_at(clocks.now()), None);
            drop(busy);
        }
        assert_eq!(clocks.stuck_at(year), None, "all done");
    }
}
