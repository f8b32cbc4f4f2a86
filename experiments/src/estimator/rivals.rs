//! Ways to follow the share of traffic that each item has: Millrace's estimator and its rivals.

use millrace_train::frequency::{Frequency, FrequencySettings, Meaning};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Follows shares of traffic from batches.
pub(super) trait Follow {
    /// Takes in the batch of a step; steps count from 1.
    fn update(&mut self, step: u64, ids: &[u64]);

    /// Share of an item in the current traffic.
    fn share(&self, id: u64) -> f64;
}

/// The estimator, whose batches all have the same size.
pub(super) struct Estimator {
    frequency: Frequency,
    batch: f64,
}

impl Estimator {
    pub(super) fn new(settings: FrequencySettings, batch: usize) -> Self {
        Self { frequency: Frequency::new(settings), batch: batch as f64 }
    }
}

impl Follow for Estimator {
    fn update(&mut self, step: u64, ids: &[u64]) {
        self.frequency.update(step, ids);
    }

    fn share(&self, id: u64) -> f64 {
        f64::from(self.frequency.estimate(id, Meaning::ExpectedCount)) / self.batch
    }
}

/// A count-min sketch (Cormode and Muthukrishnan 2005) whose counts fade: half of a count is left
/// after a half-life.
pub(super) struct CountMin {
    /// [`ROWS`](Self::ROWS) of `width`. In units that shrink with time, so that a step costs its
    /// batch and not the whole sketch.
    counters: Vec<f32>,
    width: usize,
    seed: u64,
    /// One occurrence now, in these units; and how it grows from step to step.
    unit: f64,
    growth: f64,
    total: f64,
}

impl CountMin {
    pub(super) const ROWS: usize = 4;
    /// The unit starts over here: far from the end of f32 with all counts of a long half-life.
    const UNIT_MAX: f64 = 1e15;

    /// `half_life` in steps.
    pub(super) fn new(width: usize, half_life: f64, seed: u64) -> Self {
        let counters = vec![0.0; Self::ROWS * width];
        Self { counters, width, seed, unit: 1.0, growth: (1.0 / half_life).exp2(), total: 0.0 }
    }

    fn places(&self, id: u64) -> [usize; Self::ROWS] {
        std::array::from_fn(|row| {
            let bits = xxh3_64_with_seed(&id.to_le_bytes(), self.seed.wrapping_add(row as u64));
            let bucket = (u128::from(bits) * self.width as u128) >> 64;
            row * self.width + bucket as usize
        })
    }

    fn start_over(&mut self) {
        let scale = (1.0 / self.unit) as f32;
        self.counters.iter_mut().for_each(|counter| *counter *= scale);
        self.total /= self.unit;
        self.unit = 1.0;
    }
}

impl Follow for CountMin {
    fn update(&mut self, _: u64, ids: &[u64]) {
        self.unit *= self.growth;
        if self.unit > Self::UNIT_MAX {
            self.start_over();
        }
        for &id in ids {
            for place in self.places(id) {
                self.counters[place] += self.unit as f32;
            }
        }
        self.total += self.unit * ids.len() as f64;
    }

    fn share(&self, id: u64) -> f64 {
        let counts = self.places(id).map(|place| self.counters[place]);
        f64::from(counts.into_iter().fold(f32::INFINITY, f32::min)) / self.total
    }
}

/// Exact counts since the start, of items numbered from 0.
#[derive(Default)]
pub(super) struct Static {
    counts: Vec<u64>,
    total: u64,
}

impl Follow for Static {
    fn update(&mut self, _: u64, ids: &[u64]) {
        for &id in ids {
            let at = id as usize;
            if at >= self.counts.len() {
                self.counts.resize(at + 1, 0);
            }
            self.counts[at] += 1;
        }
        self.total += ids.len() as u64;
    }

    fn share(&self, id: u64) -> f64 {
        self.counts.get(id as usize).map_or(0.0, |&count| count as f64 / self.total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::SplitMix;

    #[test]
    fn the_sketch_never_undercounts_and_fades_by_half() {
        let half_life = 3.0;
        let mut sketch = CountMin::new(64, half_life, 1);
        let mut random = SplitMix::new(1);
        let (mut counts, mut total) = (vec![0.0; 300], 0.0);
        // Long enough for the unit to start over.
        for step in 1..=400 {
            let ids: Vec<u64> = (0..50).map(|_| random.next_u64() % 300).collect();
            sketch.update(step, &ids);
            let faded = (-1.0 / half_life).exp2();
            counts.iter_mut().for_each(|count| *count *= faded);
            ids.iter().for_each(|&id| counts[id as usize] += 1.0);
            total = total * faded + 50.0;
            for (id, count) in counts.iter().enumerate() {
                assert!(sketch.share(id as u64) >= count / total * 0.9999, "{id} at {step}");
            }
        }
        let mut wide = CountMin::new(1 << 16, half_life, 1);
        wide.update(1, &[7; 8]);
        (2..=3).for_each(|step| wide.update(step, &[]));
        wide.update(4, &[8; 4]);
        assert!((wide.share(7) - 0.5).abs() < 1e-6, "{}", wide.share(7));
    }

    #[test]
    fn static_counts_by_hand() {
        let mut counts = Static::default();
        counts.update(1, &[0, 2, 2, 5]);
        assert_eq!([0, 1, 2, 5, 9].map(|id| counts.share(id)), [0.25, 0.0, 0.5, 0.25, 0.0]);
    }
}
