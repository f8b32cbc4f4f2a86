//! Is the maths right, does it restore, is it the same on any number of threads?

use super::slot::*;
use super::*;
use crate::capture::{Capture as _, Extent};
use crate::saved::{Damaged, SavedBytes, SavedPart, TakePart};
use millrace_events::SplitMix;
use proptest::prelude::*;

fn settings() -> FrequencySettings {
    FrequencySettings {
        mode: Mode::Default,
        exact: false,
        hashes: 1,
        buckets: 1 << 16,
        alpha: Rate::Fixed(0.01),
        initial_gap: 100.0,
        exact_ids_max: 1000,
        seed: 3,
        batch: 1,
    }
}

fn exact() -> FrequencySettings {
    FrequencySettings { exact: true, ..settings() }
}

fn paper() -> FrequencySettings {
    FrequencySettings { mode: Mode::Paper, alpha: Rate::Fixed(0.5), ..settings() }
}

fn one_bucket() -> FrequencySettings {
    FrequencySettings { buckets: 1, ..settings() }
}

fn read(frequency: &Frequency, id: u64, meaning: Meaning) -> f32 {
    let mut out = [0.0];
    frequency.log_q(&[id], meaning, &mut out);
    out[0].exp()
}

fn count(frequency: &Frequency, id: u64) -> f32 {
    read(frequency, id, Meaning::ExpectedCount)
}

fn probability(frequency: &Frequency, id: u64) -> f32 {
    read(frequency, id, Meaning::Probability)
}

/// Every slot, with its id in exact mode.
fn slots_of(frequency: &Frequency) -> Vec<(Option<u64>, Slot)> {
    match &frequency.table.slots {
        Slots::Hashed(cells) => cells.iter().map(|cell| (None, cell.get())).collect(),
        Slots::Exact(maps) => {
            let map = maps[0].read().expect("no update panicked");
            map.iter().map(|(&id, &slot)| (Some(id), slot)).collect()
        }
    }
}

/// A frequency of these settings as `bytes` have it.
fn loaded(settings: FrequencySettings, bytes: &[u8]) -> Result<Frequency, Damaged> {
    let mut frequency = Frequency::new(settings);
    frequency.load(bytes).map(|()| frequency)
}

fn bytes_of(frequency: &Frequency) -> Vec<u8> {
    frequency.save()
}

#[track_caller]
fn assert_near(got: f32, want: f32) {
    assert!((got / want - 1.0).abs() < 1e-5, "{got}, expected {want}");
}

/// The reading at a hit after `known` gaps of mean `gap`, in steps.
fn at_hit(gap: f32, known: f32) -> f32 {
    gap + (gap - 1.0) / known
}

#[test]
fn default_mode_by_hand() {
    for settings in [settings(), exact()] {
        let mut f = Frequency::new(settings);
        f.update(10, &[1, 1, 1, 2]);
        // First hits: the initial gap stands, the counts are known. The logarithm of such a
        // frequency lies below that of its mean.
        let first = 100.0 * LOG_OF_MEAN.exp();
        assert_near(count(&f, 1), 3.0 / first);
        assert_near(probability(&f, 1), 1.0 / first);
        f.update(14, &[1]);
        // First gap 4 replaces 100; counts 3 and 1 average to 2.
        assert_near(probability(&f, 1), 1.0 / at_hit(4.0, 1.0));
        assert_near(count(&f, 1), 2.0 / at_hit(4.0, 1.0));
        // Eight second sights are taken for granted after 100 batches each; here was one, and two
        // ids waited four batches for it.
        assert_near(f.first_gap(), (8.0 * 100.0 + 2.0 * 4.0) / 9.0);
        f.update(16, &[1, 1]);
        // Gaps 4 and 2; counts 3, 1 and 2.
        assert_near(probability(&f, 1), 1.0 / at_hit(3.0, 2.0));
        assert_near(count(&f, 1), 2.0 / at_hit(3.0, 2.0));
        // Item 2: its gap is open since 10. Item 9: since the start.
        assert_near(count(&f, 2), 1.0 / (100.0 + 6.0));
        assert_near(count(&f, 9), 1.0 / (f.first_gap() + 16.0));
        f.update(19, &[]);
        // Two gaps of mean 3, and 3 steps open.
        assert_near(count(&f, 1), 2.0 / (3.0 + 3.0 / 2.0));
        f.update(25, &[]);
        assert_near(count(&f, 1), 2.0 / (3.0 + 9.0 / 2.0));
        f.update(416, &[]);
        // Eight copies were due long ago: the past is one gap of 3.
        assert_near(count(&f, 1), 2.0 / (3.0 + 400.0));
        f.update(5000, &[]);
        assert_near(count(&f, 2), 1.0 / (100.0 + 4990.0));
        assert_near(count(&f, 9), 1.0 / (f.first_gap() + 5000.0));
    }
}

#[test]
fn alpha_takes_over_from_the_even_mean() {
    let mut f = Frequency::new(FrequencySettings { alpha: Rate::Fixed(0.5), ..exact() });
    for (step, gap) in [(1, 100.0), (9, 8.0), (11, 5.0), (12, 3.0)] {
        f.update(step, &[1]);
        assert_eq!(slots_of(&f)[0].1.gap, gap); // 8; (8 + 2) / 2; (5 + 1) / 2
    }
}

#[test]
fn readings_are_unbiased_whatever_the_hits() {
    // Many items of one frequency, read at one step: absent ones by their open gap, all together as
    // a Horvitz-Thompson estimate would.
    let (items, p) = (20_000u64, 0.08);
    let mut random = SplitMix::new(4);
    let mut f = Frequency::new(FrequencySettings { exact_ids_max: 1 << 17, ..exact() });
    for step in 1..=400u64 {
        let ids: Vec<u64> = (0..items).filter(|_| uniform(&mut random) < p).collect();
        f.update(step, &ids);
        // Some 10 and 30 gaps are known of each, and the initial one no longer matters.
        if [130, 400].contains(&step) {
            let mean = |ids: &[u64]| {
                ids.iter().map(|&id| f64::from(probability(&f, id))).sum::<f64>() / ids.len() as f64
            };
            let absent: Vec<u64> = (0..items).filter(|id| !ids.contains(id)).collect();
            let (absent, present) = (mean(&absent) / p, mean(&ids) / p);
            assert!((absent - 1.0).abs() < 0.03, "absent {absent} at {step}");
            assert!((present - 1.0).abs() < 0.05, "present {present} at {step}");
        }
    }
}

#[test]
fn paper_mode_by_hand() {
    let mut f = Frequency::new(paper());
    f.update(4, &[1, 1]);
    // 100 -> (100 + 4) / 2 = 52; the second copy has gap 0: 26.
    assert_near(probability(&f, 1), 1.0 / 26.0);
    f.update(10, &[1]);
    assert_near(probability(&f, 1), 1.0 / 16.0);
    assert_near(count(&f, 1), 1.0 / 16.0);
    f.update(1000, &[]);
    assert_near(count(&f, 1), 1.0 / 16.0);
    assert_near(count(&f, 2), 1.0 / 100.0);
    // 100 halves to nothing: the guard keeps log q finite.
    f.update(1001, &[1; 2000]);
    let mut out = [0.0];
    f.log_q(&[1], Meaning::Probability, &mut out);
    assert!(out[0].is_finite() && out[0] > 80.0, "{}", out[0]);
}

#[test]
fn copies_in_a_batch_never_shorten_the_gap() {
    let mut f = Frequency::new(settings());
    for step in 1..=500 {
        f.update(step, &[7; 50]);
    }
    assert_eq!(probability(&f, 7), 1.0);
    assert_near(count(&f, 7), 50.0);
}

#[test]
fn many_copies_lose_nothing_to_rounding() {
    let mut f = Frequency::new(settings());
    for step in 1..=1000 {
        f.update(step, &[7; 8192]);
    }
    assert_near(count(&f, 7), 8192.0);
}

#[test]
fn ids_of_one_bucket_are_one_item() {
    let mut f = Frequency::new(one_bucket());
    for step in 1..=300 {
        f.update(step, &[step, step + 1, step + 2, 5]);
    }
    assert_near(count(&f, 1), 4.0);
    assert_near(probability(&f, 2), 1.0);
    assert!(f.collisions() > 0.99);
}

#[test]
fn collisions_are_the_gaps_cut_short() {
    let mut f = Frequency::new(one_bucket());
    f.update(1, &[1]);
    assert_eq!(f.collisions(), 0.0); // an empty bucket
    f.update(2, &[1, 1, 2, 2]);
    assert_eq!(f.collisions(), 0.25); // the first 2 only
    f.update(3, &[1, 2]);
    assert_eq!(f.collisions(), 1.0);
    f.update(4, &[]);
    assert_eq!(f.collisions(), 0.0);
    let mut f = Frequency::new(exact());
    f.update(1, &[1, 2, 3]);
    f.update(2, &[3, 2, 1]);
    assert_eq!(f.collisions(), 0.0);
}

#[test]
fn a_second_hash_reads_past_a_collision() {
    // Find two ids that share their bucket under the first hash but not under the second.
    let s = FrequencySettings { hashes: 2, buckets: 64, ..settings() };
    let bucket = |hash, id| slots::shard_at(&s, 0).place(hash, Key::new(id, s.seed));
    let other = (1..10_000)
        .find(|&id| bucket(0, id) == bucket(0, 0) && bucket(1, id) != bucket(1, 0))
        .expect("one in 64 ids");
    let mut f = Frequency::new(s.clone());
    for step in 1..=400 {
        let ids = [0, other];
        f.update(step, &ids[..if step % 20 == 0 { 2 } else { 1 }]);
        assert_eq!(f.collisions(), 0.0);
    }
    assert_near(probability(&f, other), 1.0 / at_hit(20.0, 19.0));
    // Item 0 has gap 1 under both; the smaller count is its own.
    assert_near(count(&f, 0), 1.0);
}

#[test]
fn an_empty_batch_is_a_step() {
    let mut f = Frequency::new(settings());
    f.update(1, &[1]);
    f.update(2, &[]);
    f.update(3, &[1]);
    assert_near(probability(&f, 1), 1.0 / at_hit(2.0, 1.0));
    f.log_q(&[], Meaning::Probability, &mut []);
}

#[test]
#[should_panic(expected = "event 3 after 3")]
fn a_repeated_step_is_refused() {
    let mut f = Frequency::new(settings());
    f.update(3, &[1]);
    f.update(3, &[1]);
}

#[test]
fn steps_past_two_to_the_32_count_on() {
    let start = (1u64 << 32) - 3;
    for settings in [settings(), exact(), paper()] {
        let mode = settings.mode;
        let mut f = Frequency::new(settings);
        for step in (start..start + 60).step_by(2) {
            f.update(step, &[1]);
        }
        if mode == Mode::Default {
            assert_near(probability(&f, 1), 1.0 / at_hit(2.0, 29.0));
            assert_near(probability(&f, 2), 1.0 / (start + 58) as f32);
            f.update(start + 58 + 500, &[]);
            assert_near(probability(&f, 1), 1.0 / 502.0);
        } else {
            // B = start / 2 at once, then halves towards 2.
            assert!((probability(&f, 1) - 1.0 / 6.0).abs() < 0.02, "{}", probability(&f, 1));
        }
    }
}

#[test]
fn exact_mode_drops_the_longest_unseen_ties_by_id() {
    let mut f = Frequency::new(FrequencySettings { exact_ids_max: 32, ..exact() });
    f.update(1, &(0..32).rev().collect::<Vec<_>>());
    f.update(2, &[0, 5]);
    f.update(3, &[100]);
    let kept = |f: &Frequency, id| slots_of(f).iter().any(|(kept, _)| *kept == Some(id));
    // 33 ids shrink to 30: ids 1, 2 and 3 of step 1 go.
    assert!([1, 2, 3].iter().all(|&id| !kept(&f, id)));
    assert!([0, 4, 5, 31, 100].iter().all(|&id| kept(&f, id)));
    // A batch larger than the bound stays whole while it is the newest.
    f.update(4, &(200..250).collect::<Vec<_>>());
    assert!((200..250).all(|id| kept(&f, id)) && !kept(&f, 100));
    f.update(5, &[300]);
    assert!(kept(&f, 300) && !kept(&f, 220) && kept(&f, 221));
}

/// A law, and a stream of it, `Zipf(1)`.
struct Zipf {
    cumulative: Vec<f64>,
    random: SplitMix,
}

impl Zipf {
    fn new(items: usize, seed: u64) -> Self {
        let sums = (1..=items).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { cumulative: sums.collect(), random: SplitMix::new(seed) }
    }

    fn total(&self) -> f64 {
        self.cumulative[self.cumulative.len() - 1]
    }

    fn draw(&mut self) -> u64 {
        let at = uniform(&mut self.random) * self.total();
        self.cumulative.partition_point(|&sum| sum < at) as u64
    }

    /// Expected copies of an item in a batch of 1,024.
    fn copies(&self, id: u64) -> f64 {
        1024.0 / ((id + 1) as f64 * self.total())
    }
}

/// Expected counts must not depend on where the clock cut the stream: batches of 1,024, then of 16,
/// then of 1,024 again, a law that stands still. Counted in batches, the tail came out 4 nats too
/// frequent against the head after the first change, and as much too rare after the second.
#[test]
fn counts_are_the_same_however_the_stream_is_cut() {
    const ITEMS: u64 = 20_000;
    let settings = FrequencySettings { exact_ids_max: 1 << 17, batch: 1024, ..exact() };
    for alpha in [Rate::Fixed(0.004), Rate::Auto] {
        let mut f = Frequency::new(FrequencySettings { alpha, ..settings.clone() });
        let mut zipf = Zipf::new(ITEMS as usize, 1);
        let mut events = 0;
        let phases: [(usize, u64); 7] =
            [(600, 1024), (5, 16), (100, 16), (3000, 16), (20, 1), (3000, 1), (20, 1024)];
        for (steps, size) in phases {
            for _ in 0..steps {
                let ids: Vec<u64> = (0..size).map(|_| zipf.draw()).collect();
                events += size;
                f.update(events, &ids);
            }
            let mut errors = [(0.0, 0u32); 5];
            let mut sum = 0.0;
            for id in 0..ITEMS {
                let estimate = f64::from(f.estimate(id, Meaning::ExpectedCount));
                sum += estimate / 1024.0;
                let band = &mut errors[(id + 1).ilog10() as usize];
                *band = (band.0 + (estimate / zipf.copies(id)).ln(), band.1 + 1);
            }
            let errors = errors.map(|(sum, count)| sum / f64::from(count));
            println!("{alpha:?}, after {steps} of {size}: sum {sum:.3}, by band {errors:.2?}");
            assert!((sum - 1.0).abs() < 0.05, "the sum is {sum} after {steps} of {size}");
            assert!(errors.iter().all(|error| error.abs() < 0.3), "{errors:?}, {steps} of {size}");
        }
    }
}

/// An item's first sight is read as others' first gaps turned out: in a long tail they are
/// thousands of batches, and 100 is 3 to 4 nats off.
#[test]
fn first_sights_are_as_rare_as_first_gaps_are_long() {
    let settings = FrequencySettings { exact_ids_max: 1 << 21, batch: 1024, ..exact() };
    let mut f = Frequency::new(settings);
    let mut zipf = Zipf::new(1_000_000, 2);
    let mut seen = std::collections::HashSet::new();
    for step in 1..=3000u64 {
        let ids: Vec<u64> = (0..1024).map(|_| zipf.draw()).collect();
        f.update(1024 * step, &ids);
        let new: Vec<u64> = ids.into_iter().filter(|&id| seen.insert(id)).collect();
        if [100, 300, 1000, 3000].contains(&step) {
            let error = |&id: &u64| {
                (f64::from(f.estimate(id, Meaning::ExpectedCount)) / zipf.copies(id)).ln()
            };
            let mean = new.iter().map(error).sum::<f64>() / new.len() as f64;
            let gap = f.first_gap();
            println!("step {step}: {} first sights, {mean:+.2} nats off, gap {gap:.0}", new.len());
            // Early in a tail as long as this, frequencies of a first sight span four decades.
            let limit = if step < 300 { 0.8 } else { 0.5 };
            assert!(mean.abs() < limit, "{mean} at step {step}");
        }
    }
}

/// The same estimator among items that live for a few batches learns that the second sight follows
/// at once, and goes back when the births end.
#[test]
fn births_and_long_tails_tell_themselves_apart() {
    let mut f = Frequency::new(FrequencySettings { exact_ids_max: 1 << 18, ..exact() });
    let mut random = SplitMix::new(3);
    // Ten items are born a batch; each comes in half of its first eight batches, then never again.
    for step in 1..=400u64 {
        let young = (step.saturating_sub(8) * 10..step * 10).filter(|_| uniform(&mut random) < 0.5);
        f.update(step, &young.collect::<Vec<_>>());
    }
    assert!((1.0..6.0).contains(&f.first_gap()), "{}", f.first_gap());
    // From now on nothing that is new comes twice.
    for step in 401..=900u64 {
        let new: Vec<u64> = (0..50).map(|id| 1_000_000 + step * 50 + id).collect();
        f.update(step, &new);
    }
    assert!(f.first_gap() > 100.0, "{}", f.first_gap());
}

/// Uniform in (0, 1).
fn uniform(random: &mut SplitMix) -> f64 {
    ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Mean expected count and probability of some items over steps 4,000 to 20,000 of a Zipf(1)
/// stream, 1,000 items, 128 draws a step with replacement.
fn zipf(settings: FrequencySettings, items: [u64; 4]) -> [(f32, f32); 4] {
    let mut cumulative: Vec<f64> = (1..=1000).map(|rank| 1.0 / rank as f64).collect();
    for i in 1..cumulative.len() {
        cumulative[i] += cumulative[i - 1];
    }
    let total = cumulative[999];
    let mut random = SplitMix::new(1);
    let mut f = Frequency::new(settings);
    let mut means = [(0.0, 0.0); 4];
    for step in 1..=20_000 {
        let mut draw = || {
            let u = uniform(&mut random) * total;
            cumulative.partition_point(|&c| c < u) as u64
        };
        let ids: Vec<u64> = (0..128).map(|_| draw()).collect();
        f.update(step, &ids);
        if step > 4000 && step % 16 == 0 {
            for (mean, &id) in means.iter_mut().zip(&items) {
                mean.0 += count(&f, id) / 1000.0;
                mean.1 += probability(&f, id) / 1000.0;
            }
        }
    }
    means
}

#[test]
fn zipf_counts_match_theory() {
    let expected = [(17.10, 1.0), (3.42, 0.969), (1.71, 0.821), (0.342, 0.290)];
    let wide = FrequencySettings { buckets: 1 << 22, ..settings() };
    let wide = zipf(wide, [0, 4, 9, 49]);
    let exact = zipf(exact(), [0, 4, 9, 49]);
    for ((wide, exact), want) in wide.iter().zip(exact).zip(expected) {
        assert_eq!(*wide, exact, "wide enough for no collision");
        let error = |got: f32, want: f32| (got / want - 1.0).abs();
        // The rarer the item, the noisier its mean.
        let limit = if want.0 > 1.0 { 0.02 } else { 0.05 };
        assert!(error(exact.0, want.0) < limit, "{exact:?}, expected {want:?}");
        assert!(error(exact.1, want.1) < limit, "{exact:?}, expected {want:?}");
    }
}

/// The paper's section 6.1: 1,000 items, `q ∝ i²`, 128 a step without replacement (the 128
/// smallest of `exponential / weight`, Efraimidis and Spirakis). Returns the error, half the
/// summed `|p̂ - 128 q|` over 128, after each of `stops`.
fn simulation<const N: usize>(settings: FrequencySettings, stops: [u64; N]) -> [f64; N] {
    let total: f64 = (0..1000).map(|i| f64::from(i * i)).sum();
    let weights: Vec<f64> = (0..1000).map(|i| f64::from(i * i) / total).collect();
    let all: Vec<u64> = (0..1000).collect();
    let mut random = SplitMix::new(settings.seed);
    let mut f = Frequency::new(settings);
    let mut log_p = vec![0.0; all.len()];
    let mut step = 0;
    stops.map(|stop| {
        while step < stop {
            step += 1;
            let keyed = |&id: &u64| (-uniform(&mut random).ln() / weights[id as usize], id);
            let mut keys: Vec<(f64, u64)> = all.iter().map(keyed).collect();
            keys.select_nth_unstable_by(128, |a, b| a.0.total_cmp(&b.0));
            let batch: Vec<u64> = keys[..128].iter().map(|key| key.1).collect();
            f.update(step, &batch);
        }
        f.log_q(&all, Meaning::Probability, &mut log_p);
        let errors = log_p.iter().zip(&weights);
        errors.map(|(p, q)| (f64::from(p.exp()) - 128.0 * q).abs()).sum::<f64>() / 256.0
    })
}

fn mean_simulation<const N: usize>(
    settings: FrequencySettings,
    seeds: u64,
    stops: [u64; N],
) -> [f64; N] {
    let mut mean = [0.0; N];
    for seed in 1..=seeds {
        let errors = simulation(FrequencySettings { seed, ..settings.clone() }, stops);
        mean.iter_mut().zip(errors).for_each(|(mean, error)| *mean += error / seeds as f64);
    }
    mean
}

fn figure_4(mode: Mode) -> FrequencySettings {
    FrequencySettings { mode, buckets: 5000, ..settings() }
}

#[test]
fn paper_mode_reaches_the_floor_of_figure_4() {
    let [first, late] = mean_simulation(figure_4(Mode::Paper), 3, [1, 10_000]);
    assert!((first - 0.469).abs() < 0.002, "{first}");
    assert!((late - 0.137).abs() < 0.02, "{late}");
}

#[test]
fn default_mode_is_there_after_500_steps() {
    // Its floor is lower too: two items of one bucket in one batch are one hit, not two.
    let [early, late] = mean_simulation(figure_4(Mode::Default), 3, [500, 5000]);
    assert!(early <= 0.16, "{early}");
    assert!(late <= 0.13, "{late}");
}

#[test]
fn without_collisions_little_but_the_ideal_error_is_left() {
    // A perfect estimator has 0.0238: without replacement the top items' inclusion is not B q.
    let exact = FrequencySettings { exact: true, ..figure_4(Mode::Default) };
    let auto = FrequencySettings { alpha: Rate::Auto, ..exact.clone() };
    let [late] = mean_simulation(auto, 2, [8000]);
    assert!(late < 0.030, "{late}");
    let [late] = mean_simulation(exact, 2, [8000]);
    assert!((late - 0.035).abs() < 0.005, "{late}");
}

#[test]
fn foreign_or_damaged_bytes_are_refused() {
    let small = FrequencySettings { hashes: 2, buckets: 3, ..settings() };
    let mut f = Frequency::new(small.clone());
    f.update(1, &[1, 2, 3]);
    let bytes = bytes_of(&f);
    let refuse = |settings, bytes: &[u8]| loaded(settings, bytes).err().expect("refused").0;
    let other = FrequencySettings { initial_gap: 50.0, ..small.clone() };
    assert_eq!(
        refuse(other, &bytes),
        "frequency state was written with initial_gap = 100, the settings say 50"
    );
    assert!(refuse(FrequencySettings { buckets: 4, ..small.clone() }, &bytes).contains("buckets"));
    assert!(refuse(FrequencySettings { seed: 4, ..small.clone() }, &bytes).contains("seed"));
    assert!(
        refuse(FrequencySettings { mode: Mode::Paper, ..small.clone() }, &bytes).contains("mode")
    );
    for end in 0..bytes.len() {
        refuse(small.clone(), &bytes[..end]);
    }
    let longer = [&bytes[..], &[0; 16]].concat();
    assert!(refuse(small, &longer).contains("damaged"));
}

/// Sharded and large enough to run on several threads.
fn large() -> [FrequencySettings; 3] {
    let auto = FrequencySettings { alpha: Rate::Auto, ..settings() };
    let hashed = FrequencySettings { hashes: 2, buckets: (1 << 16) + 5, ..auto.clone() };
    let exact = FrequencySettings { exact: true, exact_ids_max: 1 << 16, ..auto };
    [hashed, exact, FrequencySettings { buckets: 1 << 16, ..paper() }]
}

/// Batches of 3,000 ids, few of them often and most of them seldom.
fn skewed(seed: u64, steps: usize) -> Vec<Vec<u64>> {
    let mut random = SplitMix::new(seed);
    let mut id = || (100_000.0 * uniform(&mut random).powi(6)) as u64;
    (0..steps).map(|_| (0..3000).map(|_| id()).collect()).collect()
}

fn run(settings: &FrequencySettings, batches: &[Vec<u64>]) -> Frequency {
    let mut frequency = Frequency::new(settings.clone());
    batches.iter().zip(1..).for_each(|(ids, step)| frequency.update(step, ids));
    frequency
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for settings in large() {
        let batches = skewed(settings.seed, 40);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a small pool").install(|| {
                let frequency = run(&settings, &batches);
                let mut log_q = vec![0.0; 3000];
                frequency.log_q(&batches[39], Meaning::ExpectedCount, &mut log_q);
                let collisions = frequency.collisions();
                (bytes_of(&frequency), log_q, collisions)
            })
        };
        let one = on(1);
        assert!(one == on(2) && one == on(8), "{settings:?}");
    }
}

#[test]
fn shards_in_any_order_give_the_same_bits() {
    for settings in large() {
        let batches = skewed(settings.seed, 10);
        let want = bytes_of(&run(&settings, &batches));
        let mut f = Frequency::new(settings.clone());
        let mut random = SplitMix::new(1);
        for (ids, step) in batches.iter().zip(1..) {
            // What `update` does, shard after shard in random order.
            let (rule, tick) = (f.rule(), f.table.tick(step));
            let mut order: Vec<usize> = (0..f.lanes.len()).collect();
            order.sort_by_key(|_| random.next_u64());
            for shard in order {
                f.table.bring(shard, &mut f.lanes[shard..=shard], &rule, tick, ids);
            }
            f.finish(step, ids.len());
        }
        assert!(bytes_of(&f) == want, "{settings:?}");
    }
}

/// Geometric gaps of an item that comes with probability `p`.
fn geometric(random: &mut SplitMix, p: f64) -> u64 {
    1 + (uniform(random).ln() / (1.0 - p).ln()) as u64
}

#[test]
fn the_drift_guard_is_seldom_wrong_and_quick_when_right() {
    // A step is a batch here.
    let rule = Rule::new(Mode::Default, 0.001, 100.0);
    let mut random = SplitMix::new(1);
    for (p, after) in [(0.3, 0.03), (0.03, 0.3), (0.05, 0.1), (0.1, 0.05)] {
        let (mut slot, mut step, mut alarms) = (Slot::default(), 0, 0);
        for _ in 0..200_000 {
            step += geometric(&mut random, p);
            let hits = slot.hits;
            slot.observe(&rule, step * TICKS, 1);
            alarms += u32::from(slot.hits < hits);
        }
        assert!(alarms < 200, "{alarms} false alarms in 200,000 hits at {p}");
        // Hits until the mean gap is closer to the new one than to the old.
        let mut delays = 0;
        for _ in 0..200 {
            let mut slot = slot;
            let mut step = step;
            let middle = (p * after).sqrt();
            delays += (1..)
                .find(|_| {
                    step += geometric(&mut random, after);
                    slot.observe(&rule, step * TICKS, 1);
                    (f64::from(slot.gap) > 1.0 / middle) == (after < middle)
                })
                .expect("ends");
        }
        let limit = if after > 3.0 * p || p > 3.0 * after { 15 } else { 40 };
        assert!(delays < 200 * limit, "{p} to {after}: {} hits", delays / 200);
    }
}

/// One event an update: copies that come within a tick are evidence like all others.
#[test]
fn the_drift_guard_is_as_seldom_wrong_in_a_finely_cut_stream() {
    let rule = Rule::new(Mode::Default, 0.001, 100.0);
    let mut random = SplitMix::new(2);
    for share in [0.02, 0.1, 0.3] {
        let (mut slot, mut alarms) = (Slot::default(), 0);
        for event in 1..=400_000u64 {
            if uniform(&mut random) < share {
                let hits = slot.hits;
                slot.observe(&rule, event * TICKS / 1024, 1);
                alarms += u32::from(slot.hits < hits);
            }
        }
        let hits = (share * 400_000.0) as u32;
        assert!(alarms <= hits / 1000, "{alarms} false alarms in {hits} hits at {share}");
    }
}

/// A head of 17 copies a batch of 1,024 goes on in batches of 64, and the guard is wrong about it:
/// the frequency must come through.
#[test]
fn a_false_alarm_after_the_batches_shrank_keeps_the_frequency() {
    let rule = Rule::new(Mode::Default, 0.001, 100.0);
    let mut slot = Slot::default();
    (1..=200).for_each(|batch| slot.observe(&rule, batch * TICKS, 17));
    let rate = |slot: Slot| slot.count / slot.gap;
    for (drift, first) in [(i8::MAX, 17.0), (i8::MIN, 17.0)] {
        let mut slot = Slot { drift, ..slot };
        let mut tick = 200 * TICKS + TICKS / 16;
        slot.observe(&rule, tick, 1);
        assert_eq!(slot.hits, 2, "the guard believed it");
        assert!((rate(slot) / first - 1.0).abs() < 0.15, "{} copies a batch", rate(slot));
        for _ in 0..16 {
            tick += TICKS / 16;
            slot.observe(&rule, tick, 1);
        }
        assert!((rate(slot) - 16.5).abs() < 1.5, "{} copies a batch", rate(slot));
    }
}

/// What one over a single gap may be has no bound: an item of two copies a batch that comes again a
/// tick after a false alarm must not read as 64 times itself.
#[test]
fn a_false_alarm_makes_an_item_no_more_than_four_times_itself() {
    let rule = Rule::new(Mode::Default, 0.001, 100.0);
    let mut slot = Slot::default();
    (1..=200).for_each(|batch| slot.observe(&rule, batch * TICKS, 2));
    for (drift, most) in [(i8::MAX, 4.0), (i8::MIN, 1.0)] {
        let mut slot = Slot { drift, ..slot };
        slot.observe(&rule, 200 * TICKS + 1, 1);
        let rate = slot.count / slot.gap / 2.0;
        assert!(rate <= most * 1.01, "{rate} times itself");
    }
}

#[test]
fn auto_takes_the_slowest_rate_in_peace_and_a_fast_one_in_a_storm() {
    // 50 items, each of its own frequency; in the storm it is redrawn from step to step, a little.
    let run = |storm: f64| {
        let mut random = SplitMix::new(2);
        let mut f = Frequency::new(FrequencySettings { alpha: Rate::Auto, ..exact() });
        let mut log_p = vec![-2.0f64; 50];
        for step in 1..=4000 {
            let mut ids = Vec::new();
            for (id, log_p) in log_p.iter_mut().enumerate() {
                *log_p = (*log_p + storm * (uniform(&mut random) - 0.5)).clamp(-4.0, 0.0);
                // Four tries, so that counts speak as well as gaps.
                ids.extend(
                    (0..4).filter(|_| uniform(&mut random).ln() < *log_p).map(|_| id as u64),
                );
            }
            f.update(step, &ids);
        }
        f.alpha()
    };
    assert_eq!(run(0.0), 0.001);
    assert!(run(0.6) > 0.05, "{}", run(0.6));
}

fn any_settings() -> impl Strategy<Value = FrequencySettings> {
    let alpha = prop_oneof![Just(1.0f32), 1e-6f32..1.0].prop_map(Rate::Fixed);
    let rules = prop_oneof![
        alpha.clone().prop_map(|alpha| (Mode::Paper, alpha)),
        prop_oneof![alpha, Just(Rate::Auto)].prop_map(|alpha| (Mode::Default, alpha)),
    ];
    (rules, any::<bool>(), 1usize..4, 1usize..40, 1.0f32..1e6).prop_map(
        |((mode, alpha), exact, hashes, buckets, initial_gap)| FrequencySettings {
            mode,
            exact,
            hashes,
            buckets,
            alpha,
            initial_gap,
            exact_ids_max: 20,
            seed: 5,
            batch: 1,
        },
    )
}

/// Batches with the step each comes at; steps leap, so that large gaps occur.
#[test]
fn a_capture_is_the_estimator_as_it_was() {
    // Sharded, of three blocks, with and without the rates' samples; and one that is exact.
    let large = FrequencySettings { hashes: 2, buckets: 80_000, ..settings() };
    let auto = FrequencySettings { alpha: Rate::Auto, ..large.clone() };
    for settings in [large, auto, exact()] {
        let mut random = SplitMix::new(11);
        let mut frequency = Frequency::new(settings);
        let mut update = |frequency: &mut Frequency, step| {
            let ids: Vec<u64> = (0..3000).map(|_| random.next_u64() % 20_000).collect();
            frequency.update(step, &ids);
        };
        (1..=20).for_each(|step| update(&mut frequency, step));
        let (mut base, exact) = (Vec::new(), frequency.table.settings.exact);
        for (begin, extent) in [(21, Extent::Whole), (40, Extent::Changed), (60, Extent::Changed)] {
            let want = bytes_of(&frequency);
            frequency.begin_capture(extent);
            let (mut got, mut increment) = (Vec::new(), Vec::new());
            for step in begin..begin + 14 {
                update(&mut frequency, step);
                let mut blocks = usize::from(step % 2 == 0);
                if let Some((content, changed)) = frequency.advance_capture(&mut blocks) {
                    got.extend(content);
                    increment.extend(changed.unwrap_or_default());
                }
            }
            assert!(frequency.is_copied() && got == want && bytes_of(&frequency) != want);
            assert_eq!(increment.is_empty(), exact || extent == Extent::Whole);
            if !increment.is_empty() {
                assert!(increment.len() < want.len());
                let mut restored = Frequency::new(frequency.table.settings.clone());
                let parts = |_: &str, take: TakePart<'_>| {
                    take(SavedPart::Whole(SavedBytes::of(&base)))?;
                    take(SavedPart::Increment(SavedBytes::of(&increment)))
                };
                restored.restore(&parts).expect("just written");
                assert!(bytes_of(&restored) == want);
            }
            base = want;
            frequency.settle_capture(true);
        }
        frequency.begin_capture(Extent::Whole);
        update(&mut frequency, 90);
        frequency.settle_capture(false);
        assert!(frequency.advance_capture(&mut 9).is_none());
        assert!(frequency.lanes.iter_mut().all(|lane| lane.take_kept().is_empty()));
    }
}

fn any_batches() -> impl Strategy<Value = Vec<(u64, Vec<u64>)>> {
    let leap = prop_oneof![4 => 1u64..4, 1 => 1u64..1 << 31];
    let batch = (leap, prop::collection::vec(0u64..50, 0..20));
    prop::collection::vec(batch, 1..40).prop_map(|mut batches| {
        let mut step = 0;
        for batch in &mut batches {
            step += batch.0;
            batch.0 = step;
        }
        batches
    })
}

proptest! {
    #[test]
    fn gaps_and_counts_stay_at_least_1(s in any_settings(), batches in any_batches()) {
        let mut f = Frequency::new(FrequencySettings { mode: Mode::Default, ..s });
        for (step, ids) in batches {
            f.update(step, &ids);
            let slots: Vec<Slot> = slots_of(&f).into_iter().map(|(_, slot)| slot).collect();
            let slots: Vec<&Slot> = slots.iter().filter(|slot| slot.hits > 0).collect();
            prop_assert!(slots.iter().all(|slot| slot.gap >= 1.0 && slot.gap.is_finite()));
            prop_assert!(slots.iter().all(|slot| slot.count > 0.9999 && slot.count < 20.001));
        }
    }

    #[test]
    fn a_restored_estimator_goes_on_with_the_same_bits(
        s in any_settings(),
        batches in any_batches(),
        stop in 0usize..40,
    ) {
        let mut f = Frequency::new(s.clone());
        let mut restored = None;
        for (i, (step, ids)) in batches.iter().enumerate() {
            if i == stop {
                let bytes = bytes_of(&f);
                let read = loaded(s.clone(), &bytes).expect("own bytes");
                prop_assert_eq!(bytes_of(&read), bytes);
                restored = Some(read);
            }
            f.update(*step, ids);
            if let Some(restored) = &mut restored {
                restored.update(*step, ids);
                prop_assert_eq!(bytes_of(restored), bytes_of(&f));
                prop_assert_eq!(restored.collisions(), f.collisions());
            }
        }
    }

    #[test]
    fn slots_do_not_depend_on_other_slots_order(ids in prop::collection::vec(0u64..50, 0..60)) {
        // The ground for sharding: within a step, only the order inside a slot could matter,
        // and in default mode not even that (but for the fingerprint of the last writer).
        let (mut ahead, mut sorted) = (Frequency::new(settings()), Frequency::new(settings()));
        let mut order = ids.clone();
        order.sort_unstable();
        ahead.update(1, &ids);
        sorted.update(1, &order);
        prop_assert_eq!(bytes_of(&ahead), bytes_of(&sorted));
    }
}
