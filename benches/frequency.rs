//! Updates of the frequency estimator a second, at the paper's size for YouTube (H = 50M), beside a
//! `DashMap` and a `HashMap` that keep the same average, and beside what memory allows: adding one
//! to random 8-byte words of a table as large.
//!
//! Rounds of all contestants alternate, so that a noisy neighbour slows all of them; the table
//! shows medians, and ratios of the medians. Takes 5 GB. `cargo bench --bench frequency`

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use dashmap::DashMap;
use millrace_events::SplitMix;
use millrace_train::frequency::{Frequency, FrequencySettings, Mode, Rate};
use rayon::prelude::*;

const BUCKETS: usize = 50_000_000;
const IDS: u64 = 10_000_000;
/// The paper's batch.
const BATCH: usize = 8192;
/// 4.2M updates a round: 270 MB of cache lines, eight times the last-level cache.
const BATCHES: usize = 512;
const ROUNDS: usize = 7;
const ALPHA: f32 = 0.01;

type Step<'a> = Box<dyn FnMut(u64, &[u64]) + Send + 'a>;

struct Contestant<'a> {
    name: &'static str,
    threads: usize,
    step: Step<'a>,
    nanoseconds: Vec<f64>,
}

fn main() {
    // `cargo test --benches` runs this too, with --test: nothing to time there.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let uniform: Vec<Vec<u64>> = batches(|unit| (unit * IDS as f64) as u64);
    // Zipf(1) by inversion of the harmonic number: rank = n^u.
    let zipf: Vec<Vec<u64>> = batches(|unit| (IDS as f64).powf(unit) as u64);
    println!("H = {BUCKETS}, batch {BATCH}, {IDS} ids; updates are occurrences");
    run("uniform ids", &uniform);
    run("Zipf(1) ids", &zipf);
}

fn batches(id: impl Fn(f64) -> u64) -> Vec<Vec<u64>> {
    let mut random = SplitMix::new(1);
    let mut unit = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (0..BATCHES).map(|_| (0..BATCH).map(|_| id(unit())).collect()).collect()
}

fn run(title: &str, batches: &[Vec<u64>]) {
    let (mut words, mut plain) = (vec![0u64; 2 * BUCKETS], HashMap::new());
    let shared: DashMap<u64, (u32, f32)> = DashMap::new();
    let words_shared = words.as_mut_ptr() as usize;
    let mut contestants = vec![
        estimator("millrace m=1", 1, 1, Rate::Fixed(ALPHA)),
        estimator("millrace m=1", 1, 2, Rate::Fixed(ALPHA)),
        estimator("millrace m=1, alpha auto", 1, 2, Rate::Auto),
        estimator("millrace m=4", 4, 1, Rate::Fixed(ALPHA)),
        estimator("millrace m=4", 4, 2, Rate::Fixed(ALPHA)),
        contestant("DashMap", 1, |step, ids| ids.iter().for_each(|&id| touch(&shared, step, id))),
        contestant("DashMap", 2, |step, ids| {
            ids.par_chunks(BATCH / 2)
                .for_each(|ids| ids.iter().for_each(|&id| touch(&shared, step, id)));
        }),
        contestant("HashMap", 1, |step, ids| {
            for &id in ids {
                average(plain.entry(id).or_insert((0, 100.0)), step);
            }
        }),
        contestant("random 8-byte words", 1, |_, ids| add_ones(words_shared, ids)),
        contestant("random 8-byte words", 2, |_, ids| {
            ids.par_chunks(BATCH / 2).for_each(|ids| add_ones(words_shared, ids));
        }),
    ];
    let mut step = 0;
    // The first round meets cold pages and growing maps: not counted.
    for round in 0..=ROUNDS {
        for contestant in &mut contestants {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(contestant.threads).build();
            let nanoseconds = pool.expect("a pool").install(|| {
                let start = Instant::now();
                for (batch, ids) in batches.iter().enumerate() {
                    (contestant.step)(step + 1 + batch as u64, ids);
                }
                start.elapsed().as_nanos() as f64 / (BATCH * BATCHES) as f64
            });
            if round > 0 {
                contestant.nanoseconds.push(nanoseconds);
            }
        }
        step += BATCHES as u64;
    }
    report(title, &contestants);
    drop(contestants);
    black_box(&words);
}

fn contestant<'a>(
    name: &'static str,
    threads: usize,
    step: impl FnMut(u64, &[u64]) + Send + 'a,
) -> Contestant<'a> {
    Contestant { name, threads, step: Box::new(step), nanoseconds: Vec::new() }
}

fn estimator<'a>(name: &'static str, hashes: usize, threads: usize, alpha: Rate) -> Contestant<'a> {
    let mut frequency = Frequency::new(FrequencySettings {
        mode: Mode::Default,
        exact: false,
        hashes,
        buckets: BUCKETS,
        alpha,
        initial_gap: 100.0,
        exact_ids_max: 1,
        seed: 1,
        batch: 1,
    });
    contestant(name, threads, move |step, ids| frequency.update(step, ids))
}

/// What both maps do for an occurrence: the paper's average, and no more.
fn average((last, gap): &mut (u32, f32), step: u64) {
    *gap += ALPHA * ((step as u32 - *last) as f32 - *gap);
    *last = step as u32;
}

fn touch(shared: &DashMap<u64, (u32, f32)>, step: u64, id: u64) {
    average(&mut shared.entry(id).or_insert((0, 100.0)), step);
}

/// One addition per id, in place of the id's slot in a table of the estimator's size. The place is
/// a multiplication away, since hashing is not memory's cost.
fn add_ones(words: usize, ids: &[u64]) {
    let words = words as *mut u64;
    for &id in ids {
        let place =
            (u128::from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * 2 * BUCKETS as u128) >> 64;
        // SAFETY: `place` is below the table's length. Two threads may lose an addition to each
        // other, which the timing does not mind: no value is used.
        unsafe {
            let word = words.add(place as usize);
            word.write_volatile(word.read_volatile().wrapping_add(1));
        }
    }
}

fn report(title: &str, contestants: &[Contestant<'_>]) {
    println!("\n{title:<26} threads  M updates/s  min..max  vs DashMap  vs random words");
    let rate = |nanoseconds: f64| 1e3 / nanoseconds;
    let median = |name: &str, threads: usize| {
        let found = contestants.iter().find(|c| c.name == name && c.threads == threads);
        let mut sorted = found.expect("a contestant of this name").nanoseconds.clone();
        sorted.sort_by(f64::total_cmp);
        (rate(sorted[ROUNDS / 2]), rate(sorted[ROUNDS - 1]), rate(sorted[0]))
    };
    for contestant in contestants {
        let threads = contestant.threads;
        let (middle, least, most) = median(contestant.name, threads);
        let (map, words) = (median("DashMap", threads).0, median("random 8-byte words", threads).0);
        println!(
            "{:<26} {threads:>7}  {middle:>11.1}  {least:>3.0}..{most:<3.0}  {:>9.2}x  {:>13.2}x",
            contestant.name,
            middle / map,
            middle / words
        );
    }
}
