//! `millrace estimate`

mod audit;
mod print;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::bounded;
use super::session::{ConfigArgs, stop_on_signal};
use crate::commands::output::say;
use crate::config::{Alpha, Config};
use crate::plot::{Marks, Plot, Series, svg};
use crate::progress::ProgressLine;
use crate::stream::decode::Mapping;
use crate::stream::events_of;
use crate::stream::log::Log;
use crate::stream::position::Position;
use crate::stream::produce::{Input, read_line};
use audit::{LookBack, Recent, mean_error};
use millrace_events::Events;
use millrace_train::frequency::{Frequency, FrequencySettings};

/// Steps between two comparisons; each walks over the window's items.
const COMPARE_EVERY: u64 = 10;

/// Arguments of `estimate`.
#[derive(Args)]
#[command(after_help = "\
    Reads the topic of the config (or FILE), feeds each batch to the estimator as training \
    would, and compares what it says of every item with the exact count over a window. \
    Several rates and sizes run side by side in one pass:\n\n\
    \x20 millrace estimate --config c.toml --window 1h --alpha auto,0.01 \
    --buckets 10000,1000000\n\n\
    The error is that of log q, in nats, by event: 0.1 is 10 %. A window shorter than items \
    live shows how well drift is followed; a long one, how much noise there is.")]
pub(super) struct EstimateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// JSON lines, plain or gzip or zstd, instead of the topic; - for standard input.
    #[arg(value_name = "FILE|-", conflicts_with_all = ["from", "to"])]
    file: Option<String>,
    /// The place in the topic to begin at: earliest, latest, 90%, offset:N, time:T.
    #[arg(long, default_value = "earliest", value_parser = str::parse::<Position>)]
    from: Position,
    /// The place to end at, in the same forms.
    #[arg(long, default_value = "latest", value_parser = str::parse::<Position>)]
    to: Position,
    /// Length of the exact count's window: batches (100) or event time (90s, 30m, 1h, 7d).
    #[arg(long, default_value = "100", value_parser = str::parse::<LookBack>)]
    window: LookBack,
    /// Rates to compare, instead of frequency.alpha.
    #[arg(long, value_name = "RATE|auto", value_delimiter = ',')]
    #[arg(value_parser = str::parse::<Alpha>)]
    alpha: Vec<Alpha>,
    /// Buckets of each hash to compare, instead of frequency.buckets (and of frequency.exact).
    #[arg(long, value_name = "H", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    buckets: Vec<u64>,
    /// Numbers of hashes to compare, instead of frequency.hashes (and of frequency.exact).
    #[arg(long, value_name = "M", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=16))]
    hashes: Vec<u64>,
    /// How many of the most frequent items to show.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Draw estimate against exact count, item by item, into this file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &EstimateArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let contestants = contestants(args, &config);
    let mut trial = Trial::new(contestants, args.window, config.batch.size);
    let (stop, _edge) = stop_on_signal()?;
    let began = Instant::now();
    match &args.file {
        Some(file) => read_file(&config, file, &stop, &mut trial)?,
        None => read_topic(args, &config, &stop, &mut trial)?,
    }
    let topics = config.topic_names();
    let source = args.file.as_ref().unwrap_or(&topics);
    if trial.step == 0 {
        bail!("{source} holds no usable event");
    }
    trial.compare();
    if let Some(path) = &args.plot {
        let title = "Copies in a batch, item by item";
        std::fs::write(path, svg(title, &trial.plots())?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        tracing::info!(path = %path.display(), "plotted");
    }
    let report =
        print::TrialReport { source, trial: &trial, top: args.top, elapsed: began.elapsed() };
    if args.json {
        say!("{}", report.json());
    } else {
        report.print();
    }
    Ok(())
}

/// Every combination of what the arguments list; what they leave out is the config's.
fn contestants(args: &EstimateArgs, config: &Config) -> Vec<Contestant> {
    let or = |given: &[u64], own: usize| match given {
        [] => vec![own],
        given => given.iter().map(|&size| size as usize).collect(),
    };
    let own = &config.frequency;
    let alphas = if args.alpha.is_empty() { vec![own.alpha] } else { args.alpha.clone() };
    let mut contestants = Vec::new();
    for &alpha in &alphas {
        for &hashes in &or(&args.hashes, own.hashes) {
            for &buckets in &or(&args.buckets, own.buckets) {
                let mut config = config.clone();
                config.frequency.alpha = alpha;
                config.frequency.hashes = hashes;
                config.frequency.buckets = buckets;
                config.frequency.exact &= args.buckets.is_empty() && args.hashes.is_empty();
                let settings = config.frequency_settings();
                contestants.push(Contestant {
                    alpha,
                    frequency: Frequency::new(settings.clone()),
                    settings,
                    error: Mean::default(),
                    collisions: Mean::default(),
                    busy: Duration::ZERO,
                });
            }
        }
    }
    contestants
}

/// One estimator, and how it did.
struct Contestant {
    alpha: Alpha,
    settings: FrequencySettings,
    frequency: Frequency,
    /// Over time, of [`mean_error`].
    error: Mean,
    /// Over steps, of [`Frequency::collisions`].
    collisions: Mean,
    /// Time spent in updates.
    busy: Duration,
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// `None` of nothing.
    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// All contestants over the same batches.
struct Trial {
    contestants: Vec<Contestant>,
    recent: Recent,
    size: usize,
    step: u64,
    events: u64,
    rejected: u64,
}

impl Trial {
    fn new(contestants: Vec<Contestant>, window: LookBack, size: usize) -> Self {
        let recent = Recent::new(window);
        Self { contestants, recent, size, step: 0, events: 0, rejected: 0 }
    }

    /// One step: a batch's items, their names and times.
    fn step(&mut self, events: &Events) {
        let ids = &events.item_ids;
        if ids.is_empty() {
            return;
        }
        self.step += 1;
        self.events += ids.len() as u64;
        for contestant in &mut self.contestants {
            let began = Instant::now();
            contestant.frequency.update(self.events, ids);
            contestant.busy += began.elapsed();
            contestant.collisions.add(contestant.frequency.collisions());
        }
        for (&id, (name, &time_ms)) in
            ids.iter().zip(events.item_names.iter().zip(&events.times_ms))
        {
            self.recent.add(self.step, time_ms, id, name);
        }
        self.recent.slide(self.step);
        if self.recent.full && self.step.is_multiple_of(COMPARE_EVERY) {
            self.compare();
        }
    }

    fn compare(&mut self) {
        for contestant in &mut self.contestants {
            let compared = self.recent.compare(&contestant.frequency, self.size);
            contestant.error.add(mean_error(&compared));
        }
    }

    fn plots(&self) -> Vec<Plot> {
        let plot = |contestant: &Contestant| {
            let compared = self.recent.compare(&contestant.frequency, self.size);
            let points = compared.iter().map(|item| (item.exact, item.estimate)).collect();
            Plot {
                title: format!("alpha {}, {}", contestant.alpha, print::size(&contestant.settings)),
                x: "exact, over the window".into(),
                y: "estimated".into(),
                marks: Marks::Scatter,
                series: vec![Series { points, ..Series::default() }],
            }
        };
        self.contestants.iter().map(plot).collect()
    }
}

fn read_topic(
    args: &EstimateArgs,
    config: &Config,
    stop: &Arc<AtomicBool>,
    trial: &mut Trial,
) -> anyhow::Result<()> {
    let range = Log::of(config)?.range(args.from, args.to)?;
    bounded::read(config, range, "estimate", stop, |batch| {
        trial.rejected += batch.rejected;
        trial.step(&batch.events);
    })
}

fn read_file(
    config: &Config,
    file: &str,
    stop: &AtomicBool,
    trial: &mut Trial,
) -> anyhow::Result<()> {
    let mut input = Input::open(file)?;
    let read = Arc::clone(&input.read);
    let mut progress = ProgressLine::new("estimate", input.total.unwrap_or(0), "bytes");
    let mut mapping = Mapping::new(config);
    let (mut line, mut events) = (Vec::new(), events_of(config));
    for number in 1.. {
        let ended = !read_line(&mut input.lines, &mut line, number)?;
        if !line.trim_ascii().is_empty() {
            // A file has no record time; if the config names no field, all events have the same.
            let decoded = mapping.decode(Some(line.trim_ascii()), Some(0), &mut events);
            if let Err(error) = decoded {
                trial.rejected += 1;
                tracing::debug!("rejected: {error}");
            }
        }
        if events.len() == config.batch.size || ended {
            trial.step(&events);
            events = events_of(config);
            progress.set(read.load(Ordering::Relaxed), || format!("step {}", trial.step));
        }
        if ended {
            break;
        }
        if stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
    }
    progress.finish();
    Ok(())
}
