//! Does it matter where the clock cuts the stream? From one state the same events are trained in
//! batches of many sizes, as lingering would make them, and each outcome is measured on what
//! follows, beside full batches.
//!
//! Owns what is compared. Must never know: how a model is trained or ranks are found.

mod cost;
mod measure;
mod report;
mod state;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use millrace::pipeline::placement;
use millrace::stream::cut::Cut;
use millrace_events::{Batch, Offsets};
use millrace_train::trainer::Trainer;

use crate::datasets;
use crate::events::Log;
use cost::Reference;
use measure::{Measure, Recalls};
use report::{Outcome, Results, Row};
use state::State;

/// Arguments of `cut`.
#[derive(Args)]
pub(crate) struct CutArgs {
    /// Directory for cut.json and cut.svg; made if missing.
    #[arg(long)]
    out: PathBuf,
    /// Directory with the data sets [default: $MILLRACE_DATA, else ../shared/data].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Data sets to measure, of ml-1m and globo.
    #[arg(long, value_delimiter = ',', default_values = ["ml-1m", "globo"])]
    #[arg(value_parser = ["ml-1m", "globo"])]
    datasets: Vec<String>,
    /// Events a batch, random (a seed's sizes with bursts), or night (43,200 single events and the
    /// morning after). Full batches are always measured, first.
    #[arg(long, value_delimiter = ',')]
    #[arg(default_values = ["256", "64", "16", "2", "1", "random", "night"])]
    cuts: Vec<String>,
    /// Seed of the model and of random cuts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A data set with its protocol.
struct Subject {
    name: &'static str,
    file: &'static str,
    /// Events of the file that are read. Globo has more than this protocol needs.
    events: usize,
    measure: Measure,
}

const SUBJECTS: [Subject; 2] = [
    Subject {
        name: "ml-1m",
        file: "ml-1m/ratings.jsonl.gz",
        events: usize::MAX,
        measure: Measure::HeldOut,
    },
    Subject {
        name: "globo",
        file: crate::quality::globo::FILE,
        events: 800_000,
        measure: Measure::Progressive,
    },
];

/// The share that is trained in full batches before anything is cut.
const TRAINED: f64 = 0.8;
/// Events of a full batch, whatever a data set's config has: one protocol for both.
const FULL: usize = 1024;
/// Events that are cut: six full batches.
const EVENTS: usize = 6 * FULL;
/// One event a second for twelve hours.
const NIGHT_EVENTS: usize = 43_200;

pub(crate) fn run(args: &CutArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    let data = datasets::directory(args.data.as_deref());
    let began = Instant::now();
    let mut results = Results::new(args.seed);
    for subject in SUBJECTS.iter().filter(|subject| args.datasets.iter().any(|d| d == subject.name))
    {
        let trial = Trial::begin(subject, args.seed, &data)?;
        results.begin(subject.name, trial.start);
        trial.run(args, &mut results)?;
    }
    let write = |name: &str, text: String| {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("cut.json", format!("{:#}\n", results.json()))?;
    write("cut.svg", results.svg()?)?;
    println!("\nwritten: {} ({:.0} s)", args.out.display(), began.elapsed().as_secs_f64());
    Ok(())
}

/// A data set, and the state at its first cut.
struct Trial<'a> {
    subject: &'a Subject,
    log: Log,
    /// Events before the first cut.
    start: usize,
    state: State,
}

impl<'a> Trial<'a> {
    /// Trains what comes before the cuts.
    fn begin(subject: &'a Subject, seed: u64, data: &Path) -> anyhow::Result<Self> {
        let size = format!("batch.size={FULL}");
        let config = datasets::load(subject.name, seed, &[&size])?;
        let log = Log::read(&config, &data.join(subject.file), subject.events)?;
        let start = (log.len() as f64 * TRAINED) as usize;
        let mut trainer =
            Trainer::new(&config.train(), &placement(config.device)?, Offsets::new("file"));
        for batch in log.part(0..start).batches() {
            trainer.step(&batch);
        }
        let state = State::of(&trainer, &config, &placement(config.device)?);
        Ok(Self { subject, log, start, state })
    }

    fn run(&self, args: &CutArgs, results: &mut Results) -> anyhow::Result<()> {
        let full = self.log.part(self.start..self.start + cost::FULL_STEPS * self.state.size());
        let mut reference = Reference::new(self.state.restore()?, full.batches().collect());
        let whole = self.train(Cut::Full, EVENTS, &mut reference)?;
        let best = self.measure(whole.0, self.start + EVENTS)?;
        let size = self.state.size();
        results.add(Row { name: size.to_string(), outcomes: vec![(best, best)], cost: whole.1 });
        for name in &args.cuts {
            if name == "night" {
                results.add(self.night(&mut reference)?);
                continue;
            }
            let cut = match name.as_str() {
                "random" => Cut::Random(args.seed),
                events => {
                    Cut::Every(events.parse().ok().filter(|events| *events > 0).with_context(
                        || format!("--cuts {events}: expected events a batch, random or night"),
                    )?)
                }
            };
            let (trainer, cost) = self.train(cut, EVENTS, &mut reference)?;
            let outcome: Outcome = (self.measure(trainer, self.start + EVENTS)?, best);
            results.add(Row { name: name.clone(), outcomes: vec![outcome], cost });
        }
        Ok(())
    }

    /// Single events for a night, and six full batches in the morning; beside the same events in
    /// full batches.
    fn night(&self, reference: &mut Reference) -> anyhow::Result<Row> {
        let (mut single, cost) = self.train(Cut::Every(1), NIGHT_EVENTS, reference)?;
        let (mut full, _) = self.train(Cut::Full, NIGHT_EVENTS, reference)?;
        let dawn = self.start + NIGHT_EVENTS;
        let first = self.measure_both(&single, &full, dawn)?;
        for batch in self.log.part(dawn..dawn + EVENTS).batches() {
            single.step(&batch);
            full.step(&batch);
        }
        let later = self.measure_both(&single, &full, dawn + EVENTS)?;
        Ok(Row { name: "night".to_owned(), outcomes: vec![first, later], cost })
    }

    /// The next `events` events in batches of `cut`, from the state at the first cut.
    fn train(
        &self,
        cut: Cut,
        events: usize,
        reference: &mut Reference,
    ) -> anyhow::Result<(Trainer, cost::Costs)> {
        let mut trainer = self.state.restore()?;
        let log = self.log.part(self.start..self.start + events);
        if log.len() < events {
            bail!("{} ends within the events to cut", self.subject.file);
        }
        let batches: Vec<Batch> = log.cut(cut, self.start).collect();
        let costs = reference.alternate(&mut trainer, &batches);
        Ok((trainer, costs))
    }

    /// Measures copies: the trainers stay as they are.
    fn measure_both(&self, cut: &Trainer, full: &Trainer, from: usize) -> anyhow::Result<Outcome> {
        let measure = |trainer| self.measure(self.state.copy(trainer).restore()?, from);
        Ok((measure(cut)?, measure(full)?))
    }

    fn measure(&self, trainer: Trainer, from: usize) -> anyhow::Result<Recalls> {
        self.subject.measure.run(&self.state, trainer, &self.log, from)
    }
}
