//! Cuts: what the estimator says of a law that stands still while the batches change their size.
//!
//! Beside it runs the same estimator with a clock that counts batches, as it did before. Its gaps
//! are right for one size of batch only: after a change the heads learn the new gaps in a few
//! steps, the tail only when it comes again, and log q is off by the difference.

use std::ops::RangeInclusive;
use std::path::Path;

use millrace::plot::Series;
use millrace_train::frequency::{Frequency, FrequencySettings, Meaning, Rate};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Work;
use super::figures::{exact, panel, write};
use super::sample::{Sample, rounded};
use super::zipf::Zipf;

const ITEMS: u32 = 20_000;
const FULL: u64 = 1024;
/// Steps, and events a step. The first one learns the law.
const PHASES: [(u64, u64); 7] =
    [(600, FULL), (100, 16), (1500, 16), (6000, 16), (20, FULL), (300, FULL), (6000, 1)];
/// By decades of the rank.
const BANDS: [&str; 5] = ["1-9", "10-99", "100-999", "1,000-9,999", "10,000-"];
/// Steps between readings, each of which asks for every item.
const READ_EVERY: u64 = 20;
/// Most that the sum of expected counts may be off, as a share.
const SUM_OFF_MAX: f64 = 0.05;

/// What the estimator's clock counts.
#[derive(Clone, Copy, PartialEq)]
enum Clock {
    Events,
    Batches,
}

impl Clock {
    const ALL: [Self; 2] = [Self::Events, Self::Batches];

    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Batches => "batches",
        }
    }

    /// Events that a reading is the expected count of, in a step of `size`.
    fn unit(self, size: u64) -> u64 {
        match self {
            Self::Events => FULL,
            Self::Batches => size,
        }
    }
}

/// How far all items' expected counts are off.
#[derive(Clone, Copy)]
struct Reading {
    step: u64,
    /// By band: mean of `ln(estimate / truth)`.
    errors: [f64; BANDS.len()],
    /// Expected counts of all items over the columns that there are.
    sum: f64,
}

impl Reading {
    /// `share`: what the estimator says that an item has of the stream.
    fn new(step: u64, zipf: &Zipf, share: impl Fn(u64) -> f64) -> Self {
        let (mut errors, mut counts, mut sum) = ([0.0; BANDS.len()], [0.0; BANDS.len()], 0.0);
        for id in 0..u64::from(ITEMS) {
            let share = share(id);
            let band = (id + 1).ilog10() as usize;
            errors[band] += (share / zipf.share(id)).ln();
            counts[band] += 1.0;
            sum += share;
        }
        errors.iter_mut().zip(counts).for_each(|(error, count)| *error /= count);
        Self { step, errors, sum }
    }

    fn worst(&self) -> f64 {
        worst(self.errors)
    }

    fn off(&self) -> f64 {
        self.sum - 1.0
    }
}

/// Of signed errors the one farthest from 0.
fn worst(errors: impl IntoIterator<Item = f64>) -> f64 {
    errors
        .into_iter()
        .fold(0.0, |worst, error| if error.abs() > worst.abs() { error } else { worst })
}

/// Readings of one stream, from the end of the first phase on: every [`READ_EVERY`] steps, and
/// every step right after a change.
fn follow(clock: Clock, seed: u64) -> Vec<Reading> {
    let batch = if clock == Clock::Events { FULL } else { 1 };
    let settings = FrequencySettings { seed, batch, ..exact(Rate::Auto) };
    let (mut frequency, mut zipf) = (Frequency::new(settings), Zipf::new(ITEMS, seed));
    let (mut step, mut events) = (0, 0);
    let mut readings = Vec::new();
    for (phase, (steps, size)) in PHASES.into_iter().enumerate() {
        for of_phase in 1..=steps {
            step += 1;
            events += size;
            let now = if clock == Clock::Events { events } else { step };
            frequency.update(now, &zipf.batch(size));
            let is_fresh = phase > 0 && of_phase <= READ_EVERY;
            if step >= PHASES[0].0 && (is_fresh || of_phase % READ_EVERY == 0) {
                let unit = clock.unit(size) as f64;
                let count = |id| f64::from(frequency.estimate(id, Meaning::ExpectedCount));
                readings.push(Reading::new(step, &zipf, |id| count(id) / unit));
            }
        }
    }
    readings
}

/// One clock's readings.
struct Runs {
    clock: Clock,
    /// `[seed][moment]`
    readings: Vec<Vec<Reading>>,
}

impl Runs {
    /// A figure of one moment, of each seed.
    fn at(&self, step: u64, figure: impl Fn(&Reading) -> f64) -> Vec<f64> {
        let moment = |readings: &Vec<Reading>| {
            let at = readings.binary_search_by_key(&step, |reading| reading.step);
            figure(&readings[at.expect("only moments that were read are asked for")])
        };
        self.readings.iter().map(moment).collect()
    }

    /// Prints and returns what it says after each phase and at its worst.
    fn report(&self) -> Value {
        let mut value = json!({});
        let mut step = 0;
        for (steps, size) in PHASES {
            step += steps;
            let what = format!("{steps} x {size}");
            print!("  {:<8} {what:<10}", self.clock.name());
            for (band, name) in BANDS.iter().enumerate() {
                let errors = self.at(step, |reading| reading.errors[band]);
                let (mean, worst) = (Sample::new(errors.clone()).mean, worst(errors));
                print!("  {mean:+.2} ({worst:+.2})");
                value[&what][name] = json!({ "mean": rounded(mean), "worst": rounded(worst) });
            }
            let sums = self.at(step, |reading| reading.sum);
            let off = worst(self.at(step, Reading::off));
            let mean = Sample::new(sums).mean;
            let far = self.far_sums(step - steps + 1..=step);
            println!("  {mean:.3} ({:.3})  {far}", 1.0 + off);
            value[&what]["sums_off"] = json!(far);
            value[&what]["sum"] = json!({ "mean": rounded(mean), "worst": rounded(1.0 + off) });
        }
        value["worst"] = self.report_worst();
        value
    }

    /// Readings in these steps whose sum is off by more than [`SUM_OFF_MAX`].
    fn far_sums(&self, steps: RangeInclusive<u64>) -> usize {
        let readings = self.readings.iter().flatten();
        let is_far =
            |reading: &&Reading| steps.contains(&reading.step) && reading.off().abs() > SUM_OFF_MAX;
        readings.filter(is_far).count()
    }

    /// The same for the farthest reading of all moments and seeds, and how many sums are off.
    fn report_worst(&self) -> Value {
        let readings = || self.readings.iter().flatten();
        let farthest = |figure: fn(&Reading) -> f64| {
            let by_size = |a: &&Reading, b: &&Reading| figure(a).abs().total_cmp(&figure(b).abs());
            let reading = readings().max_by(by_size).expect("every seed was read");
            (figure(reading), reading.step)
        };
        let (error, error_step) = farthest(Reading::worst);
        let (off, sum_step) = farthest(Reading::off);
        let count = readings().count();
        let far = self.far_sums(0..=u64::MAX);
        println!(
            "  {:<8} worst of {count} readings: band {error:+.2} at step {error_step}, \
             sum {:.3} at step {sum_step}; {far} sums off by more than {SUM_OFF_MAX}",
            self.clock.name(),
            1.0 + off
        );
        json!({
            "error": rounded(error),
            "error_step": error_step,
            "sum": rounded(1.0 + off),
            "sum_step": sum_step,
            "readings": count,
            "sums_off": far,
        })
    }

    /// Mean over the seeds at every moment.
    fn line(&self, name: &str, figure: impl Fn(&Reading) -> f64) -> Series {
        let steps = self.readings[0].iter().map(|reading| reading.step);
        let mean = |step| Sample::new(self.at(step, &figure)).mean;
        let points = steps.map(|step| (step as f64, mean(step))).collect();
        Series { name: name.to_owned(), points, ..Series::default() }
    }
}

/// Simulates, prints, draws, and fills in `cuts`.
pub(super) fn measure(results: &mut Value, seeds: u64, out: &Path) -> anyhow::Result<()> {
    let work = Work::new("cuts", seeds * Clock::ALL.len() as u64);
    let runs = Clock::ALL.map(|clock| {
        let of_seed = |seed| {
            let readings = follow(clock, seed);
            work.done();
            readings
        };
        Runs { clock, readings: (1..=seeds).into_par_iter().map(of_seed).collect() }
    });
    work.finish();
    println!(
        "\nZipf(1) over {ITEMS} items in batches of changing size (exact slots), {seeds} seeds:"
    );
    println!("mean (worst) over them of the mean of ln(estimate / truth) by rank, and the sum,");
    println!("with how many sums of the phase are off by more than {SUM_OFF_MAX}");
    println!("  clock    after       {}", BANDS.map(|band| format!("{band:<13}")).join("  "));
    results["seeds"] = json!(seeds);
    for runs in &runs {
        results[runs.clock.name()] = runs.report();
    }
    draw(&runs, out)
}

fn draw(runs: &[Runs; 2], out: &Path) -> anyhow::Result<()> {
    let errors = |runs: &Runs| {
        let line = |(band, name): (usize, &&str)| {
            let mut line = runs.line(name, |reading| reading.errors[band]);
            line.points.iter_mut().for_each(|point| point.1 = point.1.abs());
            line
        };
        BANDS.iter().enumerate().map(line).collect()
    };
    let sums = runs.iter().map(|runs| runs.line(runs.clock.name(), |reading| reading.sum));
    let y = "|mean ln(estimate / truth)|, nats";
    let plots = [
        panel("the clock counts events, by rank", y, errors(&runs[0])),
        panel("the clock counts batches, by rank", y, errors(&runs[1])),
        panel("both clocks", "expected counts of all items over columns", sums.collect()),
    ];
    let title =
        "600 batches of 1,024, then 7,600 of 16, 320 of 1,024, 6,000 of 1: one law, Zipf(1)";
    write(&out.join("cuts.svg"), title, &plots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_twice_too_frequent_shows_in_its_band_and_in_the_sum() {
        let zipf = Zipf::new(ITEMS, 1);
        let is_tail = |id: u64| id >= 9_999;
        let double = |id| if is_tail(id) { 2.0 * zipf.share(id) } else { zipf.share(id) };
        let reading = Reading::new(1, &zipf, double);
        let tail: f64 =
            (0..u64::from(ITEMS)).filter(|&id| is_tail(id)).map(|id| zipf.share(id)).sum();
        assert!((reading.sum - 1.0 - tail).abs() < 1e-9, "{}", reading.sum);
        assert!(reading.errors[..4].iter().all(|error| error.abs() < 1e-9));
        assert!((reading.worst() - 2f64.ln()).abs() < 1e-9, "{}", reading.worst());
        assert_eq!(worst([0.5, -2.0, 1.0]), -2.0);
    }
}
