//! What each idea about the model gives, alone and together, on three data sets.
//!
//! An idea is an edit of a data set's config; ideas add up by `+`. Held-out events are those of
//! `quality`, and Globo's clicks are ranked before they are trained on, as there.

mod coclicks;
mod cold;
mod gramian;
mod list;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use millrace::config::Config;
use millrace::pipeline::placement;
use millrace::stream::cut::Cut;
use millrace_train::evaluation::metrics::{Band, Quality};
use serde_json::{Value, json};

use crate::datasets::{self, load};
use crate::events::Log;
use crate::quality::held_out::Outcome;
use crate::quality::{HELD_OUT, by_k, globo, held_out};

/// Arguments of `ideas`.
#[derive(Args)]
pub(crate) struct IdeasArgs {
    /// File for the results as JSON; what it has of other combinations stays.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seed of weights, rows, shuffles and draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Data sets to measure, of wikispeedia, ml-1m and globo.
    #[arg(long, value_delimiter = ',', default_values = ["wikispeedia", "ml-1m", "globo"])]
    #[arg(value_parser = ["wikispeedia", "ml-1m", "globo"])]
    datasets: Vec<String>,
    /// Combinations to measure, such as `shipped,histories-9+mixed`; `shipped` is the data set's
    /// config.
    #[arg(long, value_delimiter = ',', required_unless_present = "coclicks")]
    combine: Vec<String>,
    /// Weights of the pairs that did not happen: measures each combination by squares instead of a
    /// softmax, too (MSE-Gramian, the paper's third method); not on Globo.
    #[arg(long, value_delimiter = ',')]
    gramian: Vec<f32>,
    /// Half-lives, in hours, of what followed an item: measures a ranking of Globo by those counts
    /// alone.
    #[arg(long, value_delimiter = ',')]
    coclicks: Vec<f64>,
    /// Keys on top of each combination, as of `millrace --set`.
    #[arg(long)]
    set: Vec<String>,
    /// Hides 5 % of the items in training and ranks their first ten clicks; not of Globo, whose
    /// items have no feature beside their id.
    #[arg(long)]
    cold: bool,
    /// The first so many events of Globo's 1,792,908.
    #[arg(long, default_value_t = usize::MAX)]
    globo_events: usize,
    /// Trains Globo in batches of so many events instead of full ones, as a live trainer would
    /// where traffic is low: items to be told apart are still those of `batch.size` events.
    #[arg(long)]
    globo_cut: Option<usize>,
    /// Directory with the data sets [default: $MILLRACE_DATA, else ../shared/data].
    #[arg(long)]
    data: Option<PathBuf>,
}

pub(crate) fn run(args: &IdeasArgs) -> anyhow::Result<()> {
    let data = datasets::directory(args.data.as_deref());
    let mut results = match &args.out {
        Some(path) if path.exists() => serde_json::from_slice(&std::fs::read(path)?)?,
        _ => json!({}),
    };
    if !args.coclicks.is_empty() {
        let config = load("globo", args.seed, &[])?;
        let log = Log::read(&config, &data.join(globo::FILE), args.globo_events)?;
        for &half_life in &args.coclicks {
            let result = json!({ "all": recalls(&coclicks::measure(&log, half_life)) });
            println!("globo        co-clicks, half-life {half_life} h: {}", line(&result));
            results["coclicks"][half_life.to_string()] = result;
        }
        save(args, &results)?;
    }
    for dataset in &args.datasets {
        for combination in &args.combine {
            let config = edited(dataset, combination, args)?;
            let log = Logs::read(&config, dataset, args, &data)?;
            let began = Instant::now();
            let mut result = log.measure(&config, args)?;
            let seconds = began.elapsed().as_secs_f64();
            result["seconds"] = json!(seconds);
            println!("{dataset:<12} {combination:<40} {} ({seconds:.0} s)", line(&result));
            let kind = if args.cold { "cold" } else { "quality" };
            results[kind][dataset][combination] = result;
            save(args, &results)?;
            for &weight in &args.gramian {
                let Some(result) = log.measure_squares(&config, weight) else { continue };
                println!("{dataset:<12} {combination:<40} {} (squares, {weight})", line(&result));
                results["gramian"][dataset][combination][weight.to_string()] = result;
                save(args, &results)?;
            }
        }
    }
    Ok(())
}

fn save(args: &IdeasArgs, results: &Value) -> anyhow::Result<()> {
    let Some(path) = &args.out else { return Ok(()) };
    std::fs::write(path, format!("{results:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn edited(dataset: &str, combination: &str, args: &IdeasArgs) -> anyhow::Result<Config> {
    let set: Vec<&str> = args.set.iter().map(String::as_str).collect();
    let mut config = load(dataset, args.seed, &set)?;
    for name in combination.split('+').filter(|&name| name != "shipped") {
        let idea = list::IDEAS.iter().find(|idea| idea.name == name);
        let idea = idea.with_context(|| {
            let names: Vec<&str> = list::IDEAS.iter().map(|idea| idea.name).collect();
            format!("no idea `{name}`; there are shipped, {}", names.join(", "))
        })?;
        (idea.edit)(&mut config);
    }
    Ok(config)
}

/// A data set's events, as they are measured.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Logs {
    HeldOut { passes: u32, train: Log, test: Log },
    Progressive(Log),
}

impl Logs {
    /// Read anew for each config: columns are as its features are.
    fn read(config: &Config, dataset: &str, args: &IdeasArgs, data: &Path) -> anyhow::Result<Self> {
        let Some(held_out) = HELD_OUT.iter().find(|held_out| held_out.name == dataset) else {
            return Ok(Logs::Progressive(Log::read(
                config,
                &data.join(globo::FILE),
                args.globo_events,
            )?));
        };
        let log = Log::read(config, &data.join(held_out.file), usize::MAX)?;
        let (train, test) = log.split(0.9);
        Ok(Logs::HeldOut { passes: held_out.passes, train, test })
    }

    fn measure(&self, config: &Config, args: &IdeasArgs) -> anyhow::Result<Value> {
        let placement = placement(config.device)?;
        match self {
            Logs::HeldOut { passes, train, test } if args.cold => {
                Ok(cold::measure(config, &placement, *passes, (train, test)))
            }
            Logs::HeldOut { passes, train, test } => {
                Ok(of_outcome(&held_out::measure(config, &placement, *passes, (train, test))))
            }
            Logs::Progressive(log) => {
                let log = (log, args.globo_cut.map_or(Cut::Full, Cut::Every));
                let progressive = globo::pass(config, &placement, log, &globo::WEIGHTS, None);
                Ok(json!({ "all": recalls(&progressive.chosen.total) }))
            }
        }
    }

    /// The same of squares with this weight; none: these events are not held out.
    fn measure_squares(&self, config: &Config, weight: f32) -> Option<Value> {
        let Logs::HeldOut { passes, train, test } = self else { return None };
        Some(of_outcome(&gramian::measure(config, *passes, (train, test), weight)))
    }
}

fn of_outcome(outcome: &Outcome) -> Value {
    let all = recalls(&outcome.all.model);
    let unseen = recalls(&outcome.excluding_seen.model);
    let new = recalls(&outcome.excluding_past.model);
    json!({ "all": all, "unseen": unseen, "new": new })
}

/// `{"10": .., "50": .., ..}` of all cases, and below `tail` of those of the rarest items.
fn recalls(quality: &Quality) -> Value {
    let of = |bands: &[Band]| by_k(quality.recall(bands).map(|recall| recall.value));
    let mut all = of(&Band::ALL);
    all["tail"] = of(&[Band::Tail]);
    all
}

fn line(result: &Value) -> String {
    if result["hidden"].is_number() {
        return result.to_string();
    }
    let of = |ways: &Value| {
        let at = |k: &str| format!("{:.4}", ways[k].as_f64().unwrap_or(f64::NAN));
        format!(
            "{} {} (tail {:.4})",
            at("10"),
            at("100"),
            ways["tail"]["100"].as_f64().unwrap_or(f64::NAN)
        )
    };
    match &result["unseen"] {
        Value::Null => of(&result["all"]),
        unseen => {
            format!("{} | unseen {} | new {}", of(&result["all"]), of(unseen), of(&result["new"]))
        }
    }
}
