//! First sights: what the estimator says of an item in the batch that it comes in for the first
//! time.
//!
//! Beside it stands the reading that it gave before: the copies over a constant gap, however rare
//! such items are by then.

use std::collections::BTreeMap;
use std::path::Path;

use millrace::plot::Series;
use millrace_train::frequency::{Frequency, FrequencySettings, Meaning, Rate};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Work;
use super::figures::{exact, panel, write};
use super::sample::{Sample, rounded};
use super::zipf::Zipf;

const ITEMS: u32 = 1_000_000;
const BATCH: u64 = 1024;
const STEPS: u64 = 3000;
const SHOWN: [u64; 3] = [300, 1000, STEPS];
/// The gap of a first sight before it was learned, in batches: `frequency.initial_gap`.
const CONSTANT_GAP: f64 = 100.0;
/// Steps that a point of the figure pools.
const SMOOTH: usize = 50;

/// The columns of a step that are first sights, or of several steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sights {
    columns: f64,
    /// Items seen for the first time.
    first: f64,
    /// Sums over these of `ln(estimate / truth)`.
    learned: f64,
    constant: f64,
}

impl Sights {
    fn pool(steps: &[Self]) -> Self {
        let sum = |figure: fn(&Self) -> f64| steps.iter().map(figure).sum();
        Self {
            columns: sum(|step| step.columns),
            first: sum(|step| step.first),
            learned: sum(|step| step.learned),
            constant: sum(|step| step.constant),
        }
    }

    fn share(&self) -> f64 {
        self.first / self.columns
    }

    fn learned(&self) -> f64 {
        self.learned / self.first
    }

    fn constant(&self) -> f64 {
        self.constant / self.first
    }
}

/// The steps of one stream, and at those of [`SHOWN`] the learned gap.
fn follow(seed: u64) -> (Vec<Sights>, [f64; SHOWN.len()]) {
    let settings = FrequencySettings { seed, batch: BATCH, ..exact(Rate::Auto) };
    let (mut frequency, mut zipf) = (Frequency::new(settings), Zipf::new(ITEMS, seed));
    let mut seen = vec![false; ITEMS as usize];
    let mut gaps = [0.0; SHOWN.len()];
    let mut steps = Vec::with_capacity(STEPS as usize);
    for step in 1..=STEPS {
        let ids = zipf.batch(BATCH);
        frequency.update(step * BATCH, &ids);
        let mut copies = BTreeMap::new();
        ids.iter().for_each(|&id| *copies.entry(id).or_insert(0.0) += 1.0);
        let mut sights = Sights { columns: copies.len() as f64, ..Sights::default() };
        for (id, copies) in copies {
            if std::mem::replace(&mut seen[id as usize], true) {
                continue;
            }
            let truth = BATCH as f64 * zipf.share(id);
            let learned = f64::from(frequency.estimate(id, Meaning::ExpectedCount));
            sights.first += 1.0;
            sights.learned += (learned / truth).ln();
            sights.constant += (copies / CONSTANT_GAP / truth).ln();
        }
        steps.push(sights);
        if let Some(at) = SHOWN.iter().position(|&shown| shown == step) {
            gaps[at] = f64::from(frequency.first_gap());
        }
    }
    (steps, gaps)
}

/// Simulates, prints, draws, and fills in `first_sights`.
pub(super) fn measure(results: &mut Value, seeds: u64, out: &Path) -> anyhow::Result<()> {
    let work = Work::new("first sights", seeds);
    let of_seed = |seed| {
        let run = follow(seed);
        work.done();
        run
    };
    let runs: Vec<_> = (1..=seeds).into_par_iter().map(of_seed).collect();
    work.finish();
    println!("\nFirst sights, Zipf(1) over {ITEMS} items (exact slots), {seeds} seeds: mean of");
    println!("ln(estimate / truth) over the columns of one step that are seen for the first time");
    println!("  step  columns  share  learned gap, batches  error  constant gap {CONSTANT_GAP}");
    results["seeds"] = json!(seeds);
    for (at, step) in SHOWN.into_iter().enumerate() {
        let of_step = |figure: fn(&Sights) -> f64| {
            Sample::new(runs.iter().map(|(steps, _)| figure(&steps[step as usize - 1])))
        };
        let gap = Sample::new(runs.iter().map(|(_, gaps)| gaps[at]));
        let (first, share) = (of_step(|step| step.first), of_step(Sights::share));
        let (learned, constant) = (of_step(Sights::learned), of_step(Sights::constant));
        println!(
            "  {step:4}  {:7.0}  {:4.1}%  {:8.0} ± {:<9.0}  {:+.2} ± {:.2}  {:+.2} ± {:.2}",
            first.mean,
            100.0 * share.mean,
            gap.mean,
            gap.sd,
            learned.mean,
            learned.sd,
            constant.mean,
            constant.sd
        );
        let leaf = &mut results[step.to_string()];
        leaf["columns"] = rounded(first.mean);
        leaf["share"] = rounded(share.mean);
        gap.put(leaf, "gap");
        learned.put(leaf, "learned");
        constant.put(leaf, "constant");
    }
    let steps: Vec<Vec<Sights>> = runs.into_iter().map(|(steps, _)| steps).collect();
    draw(&steps, out)
}

/// Mean over the seeds of pooled steps, with a band of one standard deviation.
fn line(name: &str, runs: &[Vec<Sights>], figure: fn(&Sights) -> f64) -> Series {
    let mut series = Series { name: name.to_owned(), ..Series::default() };
    for end in (SMOOTH..=runs[0].len()).step_by(SMOOTH) {
        let pooled = runs.iter().map(|steps| figure(&Sights::pool(&steps[end - SMOOTH..end])));
        let Sample { mean, sd } = Sample::new(pooled);
        series.points.push((end as f64, mean));
        series.band.push((mean - sd, mean + sd));
    }
    series
}

fn draw(runs: &[Vec<Sights>], out: &Path) -> anyhow::Result<()> {
    let errors = vec![
        line("gap learned from first gaps", runs, |sights| sights.learned().abs()),
        line("constant gap of 100 batches", runs, |sights| sights.constant().abs()),
    ];
    let share = vec![line("", runs, Sights::share)];
    let plots = [
        panel("items seen for the first time", "|mean ln(estimate / truth)|, nats", errors),
        panel("how many they are", "share of a batch's columns", share),
    ];
    let title = "First sights in a long tail: Zipf(1) over a million items, batches of 1,024";
    write(&out.join("first_sights.svg"), title, &plots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_pooled_by_their_columns() {
        let few = Sights { columns: 10.0, first: 1.0, learned: -1.0, constant: 4.0 };
        let many = Sights { columns: 30.0, first: 3.0, learned: 3.0, constant: 8.0 };
        let pooled = Sights::pool(&[few, many]);
        assert_eq!((pooled.share(), pooled.learned(), pooled.constant()), (0.1, 0.5, 3.0));
        let run: Vec<_> = [few; SMOOTH].into_iter().chain([many; SMOOTH]).collect();
        let line = line("", &[run], Sights::learned);
        assert_eq!(line.points, [(50.0, -1.0), (100.0, 1.0)]);
    }
}
