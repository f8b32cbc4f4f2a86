//! Event times that the model has learned from and no published version has.
//!
//! Must never know: the clock.

/// Times kept at most, 256 KB. A version's freshness is told from so many as well as from all.
const TIMES_MAX: usize = 1 << 14;

/// See the module's head. The trainer adds, the publisher takes.
pub(super) struct Unpublished {
    /// Step and time of every `stride`-th event, ms since 1970; steps ascend.
    times: Vec<(u64, i64)>,
    stride: u64,
    passed: u64,
}

impl Default for Unpublished {
    fn default() -> Self {
        Self { times: Vec::new(), stride: 1, passed: 0 }
    }
}

impl Unpublished {
    /// The model has learned from events of `times_ms` in `step`.
    pub(super) fn learned(&mut self, step: u64, times_ms: &[i64]) {
        for &time_ms in times_ms {
            self.passed += 1;
            if !self.passed.is_multiple_of(self.stride) {
                continue;
            }
            if self.times.len() == TIMES_MAX {
                let mut at = 0;
                self.times.retain(|_| {
                    at += 1;
                    at % 2 == 0
                });
                self.stride *= 2;
            }
            self.times.push((step, time_ms));
        }
    }

    /// Takes out the times of events up to `step`, the whole of a version's.
    pub(super) fn published(&mut self, step: u64) -> Vec<i64> {
        let behind = self.times.partition_point(|(learned, _)| *learned <= step);
        let times = self.times.drain(..behind).map(|(_, time_ms)| time_ms).collect();
        // A long wait for the brokers does not thin out what comes after it.
        if self.times.len() < TIMES_MAX / 4 {
            self.stride = (self.stride / 2).max(1);
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_takes_the_events_of_its_steps_and_no_others() {
        let mut unpublished = Unpublished::default();
        unpublished.learned(1, &[10, 11]);
        unpublished.learned(2, &[20]);
        unpublished.learned(3, &[30]);
        assert_eq!(unpublished.published(2), [10, 11, 20]);
        assert_eq!(unpublished.published(2), [0i64; 0]);
        unpublished.learned(4, &[40]);
        assert_eq!(unpublished.published(9), [30, 40]);
    }

    #[test]
    fn without_a_publisher_every_n_th_is_kept_evenly_and_afterwards_all_again() {
        let mut unpublished = Unpublished::default();
        let count = 40 * TIMES_MAX as i64;
        (0..count).for_each(|at| unpublished.learned(1, &[at]));
        let times = unpublished.published(1);
        assert!((TIMES_MAX / 2..=TIMES_MAX).contains(&times.len()), "{}", times.len());
        let mean = times.iter().sum::<i64>() / times.len() as i64;
        assert!((mean - count / 2).abs() < count / 50, "{mean} of {count}");
        (0..10).for_each(|_| assert!(unpublished.published(1).is_empty()));
        unpublished.learned(2, &[1, 2, 3]);
        assert_eq!(unpublished.published(2), [1, 2, 3]);
    }
}
