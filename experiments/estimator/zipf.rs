//! Duplicates: what the estimators say of an item that comes many times a batch.

use std::collections::BTreeSet;

use millrace::train::frequency::{Frequency, FrequencySettings, Meaning, Rate};
use millrace_events::SplitMix;
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

/// Zipf(1), batches with replacement: mean expected count of the most frequent item.
pub(super) fn measure(results: &mut Value, seeds: u64) {
    let weights: Vec<f64> = (1..=ITEMS).map(|rank| 1.0 / f64::from(rank)).collect();
    let truth = BATCH as f64 / weights.iter().sum::<f64>();
    println!("\nZipf(1), expected count of the top item (truth {truth:.2})");
    results["truth"] = rounded(truth);
    let work = Work::new("zipf", seeds);
    let of_seed = |seed| {
        let means = top_counts(&weights, seed);
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

fn top_counts(weights: &[f64], seed: u64) -> [f64; 4] {
    let sums = weights.iter().scan(0.0, |sum, weight| {
        *sum += weight;
        Some(*sum)
    });
    let sums: Vec<f64> = sums.collect();
    let mut random = SplitMix::new(seed);
    let mut draw = || {
        let at = uniform(&mut random) * sums[sums.len() - 1];
        sums.partition_point(|&sum| sum < at) as u64
    };
    let mut estimators = cases().map(|(_, settings, distinct)| {
        (Frequency::new(FrequencySettings { seed, ..settings }), distinct)
    });
    let mut means = [0.0; 4];
    for step in 1..=STEPS {
        let ids: Vec<u64> = (0..BATCH).map(|_| draw()).collect();
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
