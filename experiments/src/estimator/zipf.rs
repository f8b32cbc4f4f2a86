//! Duplicates: what the estimators say of an item that comes many times a batch.

use std::collections::BTreeSet;

use millrace_events::SplitMix;
use millrace_train::frequency::{Frequency, FrequencySettings, Meaning, Rate};
use rayon::prelude::*;
use serde_json::Value;

use super::Work;
use super::figures::{exact, wide};
use super::sample::{Sample, rounded};
use super::simulation::{BATCH, uniform};

const ITEMS: u32 = 1000;
const STEPS: u64 = 20_000;
/// The initial gap is forgotten by then.
const READ_FROM: u64 = 4000;

/// Name, estimator, whether it is fed each step's distinct ids.
fn cases() -> [(&'static str, FrequencySettings, bool); 4] {
    [
        ("paper", wide(), false),
        ("paper_deduplicated", wide(), true),
        ("default", exact(Rate::Auto), false),
        ("default_0.01", exact(Rate::Fixed(0.01)), false),
    ]
}

/// A stream of Zipf(1), drawn with replacement: the item of rank r has number r - 1.
pub(super) struct Zipf {
    sums: Vec<f64>,
    random: SplitMix,
}

impl Zipf {
    pub(super) fn new(items: u32, seed: u64) -> Self {
        let sums = (1..=items).scan(0.0, |sum, rank| {
            *sum += 1.0 / f64::from(rank);
            Some(*sum)
        });
        Self { sums: sums.collect(), random: SplitMix::new(seed) }
    }

    fn total(&self) -> f64 {
        self.sums[self.sums.len() - 1]
    }

    /// The share that an item has of all draws.
    pub(super) fn share(&self, id: u64) -> f64 {
        1.0 / ((id + 1) as f64 * self.total())
    }

    fn draw(&mut self) -> u64 {
        let at = uniform(&mut self.random) * self.total();
        self.sums.partition_point(|&sum| sum < at) as u64
    }

    pub(super) fn batch(&mut self, events: u64) -> Vec<u64> {
        (0..events).map(|_| self.draw()).collect()
    }
}

/// Zipf(1), batches with replacement: mean expected count of the most frequent item.
pub(super) fn measure(results: &mut Value, seeds: u64) {
    let truth = BATCH as f64 * Zipf::new(ITEMS, 0).share(0);
    println!("\nZipf(1), expected count of the top item (truth {truth:.2})");
    results["truth"] = rounded(truth);
    let work = Work::new("zipf", seeds);
    let of_seed = |seed| {
        let means = top_counts(seed);
        work.done();
        means
    };
    let means: Vec<[f64; 4]> = (1..=seeds).into_par_iter().map(of_seed).collect();
    work.finish();
    for (at, (name, ..)) in cases().iter().enumerate() {
        let sample = Sample::new(means.iter().map(|means| means[at]));
        sample.put(results, name);
        println!("  {name:<20} {:6.3} ± {:.3}", sample.mean, sample.sd);
    }
}

fn top_counts(seed: u64) -> [f64; 4] {
    let mut zipf = Zipf::new(ITEMS, seed);
    let mut estimators = cases().map(|(_, settings, distinct)| {
        (Frequency::new(FrequencySettings { seed, ..settings }), distinct)
    });
    let mut means = [0.0; 4];
    for step in 1..=STEPS {
        let ids = zipf.batch(BATCH as u64);
        let distinct: Vec<u64> = BTreeSet::from_iter(ids.iter().copied()).into_iter().collect();
        for ((estimator, is_distinct), mean) in estimators.iter_mut().zip(&mut means) {
            estimator.update(step, if *is_distinct { &distinct } else { &ids });
            if step > READ_FROM {
                let count = f64::from(estimator.estimate(0, Meaning::ExpectedCount));
                *mean += count / (STEPS - READ_FROM) as f64;
            }
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_as_often_as_their_shares_say() {
        let mut zipf = Zipf::new(3, 1);
        assert!((zipf.share(0) - 6.0 / 11.0).abs() < 1e-12);
        let ids = zipf.batch(30_000);
        for id in 0..3 {
            let share = ids.iter().filter(|&&drawn| drawn == id).count() as f64 / 30_000.0;
            assert!((share - zipf.share(id)).abs() < 0.01, "{share} of item {id}");
        }
    }
}
