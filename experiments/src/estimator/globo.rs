//! Real traffic that drifts: how well the estimator and its rivals follow Globo's clicks.

use std::path::Path;

use anyhow::Context;
use millrace::plot::{Marks, Plot, Series};
use millrace_train::frequency::{FrequencySettings, Mode, Rate};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Work;
use super::clicks::{BATCH, Clicks, Moment};
use super::figures::{LADDER, compare, exact, hashed, name, write};
use super::rivals::{CountMin, Estimator, Follow, Static};
use super::sample::{Sample, rounded};

/// Memory of each hashed follower.
const BYTES: usize = 256 << 10;
const HASHES: usize = 4;
/// Ours: last step, gap, count, hits and fingerprint. The paper's A and B have no need of the rest.
const OUR_SLOT_BYTES: usize = 16;
const PAPER_SLOT_BYTES: usize = 8;
const PAPER_RATES: [f32; 3] = [0.01, 0.05, 0.2];
const HALF_LIVES_HOURS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// 1.79 million clicks in nine days.
const STEPS_PER_HOUR: f64 = 8.0;
/// Readings that a point of the figure is the mean of.
const SMOOTH: usize = 5;

#[derive(Clone, Debug, PartialEq)]
enum Rival {
    Ours,
    Paper(f32),
    /// Half-life in hours.
    CountMin(f64),
    Static,
    Exact(Rate),
}

impl Rival {
    fn all() -> Vec<Self> {
        let fixed = LADDER.map(|alpha| Self::Exact(Rate::Fixed(alpha)));
        let hashed = PAPER_RATES.map(Self::Paper).into_iter();
        let mut all = vec![Self::Ours, Self::Static, Self::Exact(Rate::Auto)];
        all.extend(hashed.chain(HALF_LIVES_HOURS.map(Self::CountMin)).chain(fixed));
        all
    }

    /// Those without hashes are the same for every seed.
    fn seeds(&self, seeds: u64) -> u64 {
        if matches!(self, Self::Static | Self::Exact(_)) { 1 } else { seeds }
    }

    fn start(&self, seed: u64) -> Box<dyn Follow> {
        let estimator = |settings, slot_bytes| {
            let buckets = BYTES / slot_bytes / HASHES;
            let settings = FrequencySettings { hashes: HASHES, buckets, seed, ..settings };
            Box::new(Estimator::new(settings, BATCH))
        };
        match *self {
            Self::Ours => estimator(hashed(Mode::Default, Rate::Auto), OUR_SLOT_BYTES),
            Self::Paper(alpha) => {
                estimator(hashed(Mode::Paper, Rate::Fixed(alpha)), PAPER_SLOT_BYTES)
            }
            Self::CountMin(hours) => {
                let width = BYTES / size_of::<f32>() / CountMin::ROWS;
                Box::new(CountMin::new(width, STEPS_PER_HOUR * hours, seed))
            }
            Self::Static => Box::new(Static::default()),
            Self::Exact(rate) => Box::new(Estimator::new(exact(rate), BATCH)),
        }
    }
}

/// How far shares were off at a moment.
#[derive(Clone, Copy)]
struct Errors {
    /// Total variation, over all articles seen so far.
    tv: f64,
    /// Mean over the batch's clicks of the error of log q: what the loss feels.
    log_q: f64,
    /// How surprising the next batch is: its mean negative log-likelihood, nats a click, if
    /// articles come as Poisson streams with these shares (shares that add up to too much cost what
    /// they are over). The last hour is a noisy sample of the present, and whoever repeats its
    /// noise scores well above; this cannot be won so.
    next: f64,
}

/// Share of an article that a follower gives none, since one surprise must not be endless.
const LEAST_SHARE: f64 = 1e-5;

impl Errors {
    fn at(moment: &Moment, batch: &[u64], next: &[u64], follower: &dyn Follow) -> Self {
        let shares = moment.shares.iter().zip(0..);
        let off = shares.map(|(&share, id)| (follower.share(id) - f64::from(share)).abs());
        let tv = off.sum::<f64>() / 2.0;
        // A batch may take more than an hour at night; a click that old has no true share.
        let shares = batch.iter().map(|&id| (id, f64::from(moment.shares[id as usize])));
        let current = shares.filter(|&(_, share)| share > 0.0);
        let off = current.map(|(id, share)| (follower.share(id) / share).ln().abs());
        let log_q = Sample::new(off).mean;
        let total: f64 = (0..moment.shares.len() as u64).map(|id| follower.share(id)).sum();
        let forecast = next.iter().map(|&id| follower.share(id).max(LEAST_SHARE).ln());
        Self { tv, log_q, next: total - Sample::new(forecast).mean }
    }
}

/// Errors of every rival.
struct Outcome {
    moments: Vec<Moment>,
    /// One a seed and moment.
    errors: Vec<(Rival, Vec<Vec<Errors>>)>,
}

impl Outcome {
    fn new(clicks: &Clicks, seeds: u64) -> Self {
        let moments = clicks.moments();
        let rivals = Rival::all();
        let work = Work::new("globo", rivals.iter().map(|rival| rival.seeds(seeds)).sum());
        let run = |rival: &Rival, seed| {
            let errors = follow(clicks, &moments, &mut *rival.start(seed));
            work.done();
            errors
        };
        let of_rival = |rival: Rival| {
            let seeds = (1..=rival.seeds(seeds)).into_par_iter();
            let errors = seeds.map(|seed| run(&rival, seed)).collect();
            (rival, errors)
        };
        let errors = rivals.into_par_iter().map(of_rival).collect();
        work.finish();
        Self { moments, errors }
    }

    fn of(&self, rival: &Rival) -> &[Vec<Errors>] {
        let found = self.errors.iter().find(|errors| errors.0 == *rival);
        &found.expect("all rivals ran").1
    }

    /// Mean over the moments.
    fn sample(&self, rival: &Rival, error: fn(&Errors) -> f64) -> Sample {
        let seeds = self.of(rival).iter();
        Sample::new(seeds.map(|errors| Sample::new(errors.iter().map(error)).mean))
    }

    /// The one with the least total variation.
    fn best<T>(&self, rivals: impl IntoIterator<Item = (T, Rival)>) -> (T, Rival) {
        let tv = |rival: &Rival| self.sample(rival, |errors| errors.tv).mean;
        let best = rivals.into_iter().min_by(|(_, a), (_, b)| tv(a).total_cmp(&tv(b)));
        best.expect("there are settings to choose from")
    }

    fn json(&self, rival: &Rival) -> Value {
        let mut value = json!({});
        self.sample(rival, |errors| errors.tv).put(&mut value, "tv");
        self.sample(rival, |errors| errors.log_q).put(&mut value, "log_q");
        self.sample(rival, |errors| errors.next).put(&mut value, "next");
        value
    }

    fn print(&self, what: &str, rival: &Rival) {
        let tv = self.sample(rival, |errors| errors.tv);
        let log_q = self.sample(rival, |errors| errors.log_q);
        let next = self.sample(rival, |errors| errors.next);
        println!(
            "  {what:<28} {:.4} ± {:.4}  {:.4} ± {:.4}  {:.4} ± {:.4}",
            tv.mean, tv.sd, log_q.mean, log_q.sd, next.mean, next.sd
        );
    }

    /// Mean over the seeds and some neighbouring moments.
    fn line(&self, name: &str, rival: &Rival, error: fn(&Errors) -> f64) -> Series {
        let runs = self.of(rival);
        let point = |(at, moments): (usize, &[Moment])| {
            let near = runs.iter().flat_map(|errors| &errors[at..at + moments.len()]);
            let days = Sample::new(moments.iter().map(|moment| moment.days)).mean;
            (days, Sample::new(near.map(error)).mean)
        };
        let points = self.moments.windows(SMOOTH).enumerate().map(point).collect();
        Series { name: name.to_owned(), points, ..Series::default() }
    }
}

fn follow(clicks: &Clicks, moments: &[Moment], follower: &mut dyn Follow) -> Vec<Errors> {
    let mut errors = Vec::with_capacity(moments.len());
    let mut due = moments.iter().peekable();
    let batches = clicks.batches();
    for ((batch, next), step) in batches.clone().zip(batches.skip(1)).zip(1..) {
        follower.update(step as u64, batch);
        if let Some(moment) = due.next_if(|moment| moment.step == step) {
            errors.push(Errors::at(moment, batch, next, follower));
        }
    }
    errors
}

/// Prints, draws, and fills in `globo` and `auto.globo`; without the data, says so.
pub(super) fn measure(
    results: &mut Value,
    data: &Path,
    seeds: u64,
    out: &Path,
) -> anyhow::Result<()> {
    let path = data.join(crate::quality::globo::FILE);
    if !path.exists() {
        println!("\nGlobo left out: {} does not exist", path.display());
        return Ok(());
    }
    let clicks = Clicks::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let outcome = Outcome::new(&clicks, seeds);
    let (hours, sketch) = outcome.best(HALF_LIVES_HOURS.map(|h| (h, Rival::CountMin(h))));
    let shown = [
        ("ours", "ours".to_owned(), Rival::Ours),
        ("ours_exact", "ours, exact slots (1 MB)".to_owned(), Rival::Exact(Rate::Auto)),
        ("paper", "paper, α = 0.01".to_owned(), Rival::Paper(0.01)),
        ("count_min", format!("count-min, half-life {hours} h"), sketch),
        ("static", "counts since the start".to_owned(), Rival::Static),
    ];
    println!(
        "\nGlobo clicks, {} KiB each      tv               log q, nats      next batch, nats",
        BYTES >> 10
    );
    for (key, what, rival) in &shown {
        outcome.print(what, rival);
        results["globo"][key] = outcome.json(rival);
    }
    results["globo"]["count_min"]["half_life_hours"] = json!(hours);
    describe(&mut results["globo"], &outcome);
    let tv = |rate| outcome.sample(&Rival::Exact(rate), |errors| errors.tv);
    results["auto"]["globo"] = compare("Globo, tv, exact", tv);
    draw(&outcome, &shown, out)
}

/// What was tried, and with what.
fn describe(results: &mut Value, outcome: &Outcome) {
    let (best, _) = outcome.best(PAPER_RATES.map(|alpha| (alpha, Rival::Paper(alpha))));
    results["paper_best_alpha"] = rounded(f64::from(best));
    for alpha in PAPER_RATES {
        let name = name(Rate::Fixed(alpha));
        results["paper_alpha"][name] = outcome.json(&Rival::Paper(alpha));
    }
    for hours in HALF_LIVES_HOURS {
        let rival = Rival::CountMin(hours);
        results["count_min_half_life_hours"][hours.to_string()] = outcome.json(&rival);
    }
    results["settings"] = json!({
        "batch": BATCH,
        "bytes": BYTES,
        "hashes": HASHES,
        "our_buckets": BYTES / OUR_SLOT_BYTES / HASHES,
        "paper_buckets": BYTES / PAPER_SLOT_BYTES / HASHES,
        "sketch_rows": CountMin::ROWS,
        "sketch_counters": BYTES / size_of::<f32>(),
        "sketch_steps_per_hour": STEPS_PER_HOUR,
    });
}

fn draw(outcome: &Outcome, shown: &[(&str, String, Rival)], out: &Path) -> anyhow::Result<()> {
    let panel = |title: &str, y: &str, error: fn(&Errors) -> f64| Plot {
        title: title.to_owned(),
        x: "days since the first click".to_owned(),
        y: y.to_owned(),
        marks: Marks::Lines,
        series: shown.iter().map(|(_, name, rival)| outcome.line(name, rival, error)).collect(),
    };
    let plots = [
        panel("over all articles", "total variation: ½ Σ |q̂ − q|", |errors| errors.tv),
        panel("over a batch's clicks", "mean |ln q̂ − ln q|, nats", |errors| errors.log_q),
        panel("the next batch", "surprise, nats a click", |errors| errors.next),
    ];
    let title = "Share of each article in the last hour's clicks (Globo.com): error over time";
    write(&out.join("globo.svg"), title, &plots)
}
