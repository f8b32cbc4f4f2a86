//! Does it learn? Loss modes and ways of ranking on three data sets, as one page and one JSON file.
//!
//! Owns what is compared and written. Must never know: how a model is trained or ranks are found.

pub(crate) mod globo;
pub(crate) mod held_out;
mod modes;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use millrace::config::Config;
use millrace::pipeline::placement;
use millrace_train::evaluation::metrics::Band;
use millrace_train::placement::Placement;
use serde_json::{Map, Value, json};

use crate::datasets::{self, load};
use crate::events::Log;
use held_out::Outcome;
use report::{Measured, Page, Ranked};

/// Arguments of `quality`.
#[derive(Args)]
pub(crate) struct QualityArgs {
    /// Directory for quality.json, report.html and globo.svg; made if missing. A relative path
    /// begins at the repository's root.
    #[arg(long)]
    out: PathBuf,
    /// Seed of weights, rows, shuffles and draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Data sets to measure, of wikispeedia, ml-1m and globo.
    #[arg(long, value_delimiter = ',', default_values = ["wikispeedia", "ml-1m", "globo"])]
    #[arg(value_parser = ["wikispeedia", "ml-1m", "globo"])]
    datasets: Vec<String>,
    /// Modes to measure on held-out events, by their names in quality.json; all if none is given.
    #[arg(long, value_delimiter = ',')]
    modes: Vec<String>,
    /// Directory with the data sets [default: $MILLRACE_DATA, else ../shared/data].
    #[arg(long)]
    data: Option<PathBuf>,
}

/// A data set with its file, and how often the training part is passed over.
pub(crate) struct Dataset {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    what: &'static str,
    pub(crate) passes: u32,
}

pub(crate) const HELD_OUT: [Dataset; 2] = [
    Dataset {
        name: "wikispeedia",
        file: "wikispeedia/links.jsonl.gz",
        what: "links between Wikipedia articles, 20 passes over the first 90%, shuffled anew in \
               each; ranked among all articles, and among those that the page is not known to \
               link to",
        passes: 20,
    },
    Dataset {
        name: "ml-1m",
        file: "ml-1m/ratings.jsonl.gz",
        what: "MovieLens ratings as interactions, one pass over the first 90% in order; ranked \
               among all films, and among those that the user did not have in that part",
        passes: 1,
    },
];

pub(crate) fn run(args: &QualityArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let out = args.out.as_path();
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let data = datasets::directory(args.data.as_deref());
    let wanted = |name: &str| args.datasets.iter().any(|dataset| dataset == name);

    let mut page = Page::default();
    for dataset in HELD_OUT.iter().filter(|dataset| wanted(dataset.name)) {
        page.add(measure_held_out(dataset, args.seed, &args.modes, &data)?);
    }
    if wanted("globo") {
        page.add(measure_globo(args.seed, &data)?);
    }
    let mut results = json!({ "seed": args.seed });
    for measured in &page.datasets {
        results[&measured.name] = measured.json();
    }
    let write = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("quality.json", format!("{results:#}\n"))?;
    for measured in &page.datasets {
        if let Some(svg) = measured.by_day()? {
            write(&format!("{}.svg", measured.name), svg)?;
        }
    }
    write("report.html", page.html()?)?;
    println!("\nwritten: {} ({:.0} s)", out.display(), began.elapsed().as_secs_f64());
    Ok(())
}

fn start(config: &Config) -> anyhow::Result<Placement> {
    placement(config.device)
}

fn measure_held_out(
    dataset: &Dataset,
    seed: u64,
    wanted: &[String],
    data: &Path,
) -> anyhow::Result<Measured> {
    let config = load(dataset.name, seed, &[])?;
    let events = Log::read(&config, &data.join(dataset.file), usize::MAX)?;
    let (train, test) = events.split(0.9);
    let mut measured = Measured::new(dataset.name, dataset.what);
    measured.cases = test.len();
    println!("\n{}: {} events trained, {} held out", dataset.name, train.len(), test.len());
    let mut popularity = None;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    for mode in modes::HELD_OUT.iter().filter(|mode| is_wanted(mode.name)) {
        let config = load(dataset.name, seed, mode.set)?;
        let Outcome { all, excluding_seen, .. } =
            held_out::measure(&config, &start(&config)?, dataset.passes, (&train, &test));
        measured.candidates = Some(all.candidates());
        let (model, unseen) = (Ranked::of_model(&all), Ranked::of_model(&excluding_seen));
        add_row(&mut measured, (mode.name, mode.what), model, unseen);
        popularity = Some([all.popularity, excluding_seen.popularity]);
    }
    let [all, unseen] = popularity.context("no mode of this name")?.map(Ranked::of);
    add_row(&mut measured, ("popularity", "events in training"), all, unseen);
    Ok(measured)
}

/// A row with both ways of choosing candidates, printed as well.
fn add_row(
    measured: &mut Measured,
    (name, what): (&'static str, &'static str),
    all: Ranked,
    excluding_seen: Ranked,
) {
    print_line(name, &all);
    print_line("  excluding seen", &excluding_seen);
    measured.row(name, what, all).excluding_seen = Some(excluding_seen);
}

fn measure_globo(seed: u64, data: &Path) -> anyhow::Result<Measured> {
    let config = load("globo", seed, &[])?;
    let events = Log::read(&config, &data.join(globo::FILE), usize::MAX)?;
    println!("\nglobo: {} events, each ranked before it is trained on", events.len());
    let of_mode = |set: &[&str]| load("globo", seed, set);
    let mut runs = 0;
    let rankings = globo::measure(&of_mode, &start(&config)?, &events, || {
        runs += 1;
        eprintln!("  pass {runs} done");
    })?;
    let mut measured = Measured::new(
        "globo",
        "news clicks in time order, one pass; each click is ranked among the articles clicked in \
         the 24 hours before it (clicks on articles that the user has had are left out), then \
         trained on",
    );
    for (name, what, ranking) in rankings {
        measured.cases = ranking.total.all.cases() as usize;
        let (ranked, days) = (Ranked::of(ranking.total), ranking.days);
        print_line(name, &ranked);
        measured.row(name, what, ranked).days = days.into_values().collect();
    }
    Ok(measured)
}

fn print_line(name: &str, ranked: &Ranked) {
    let recall = ranked.quality.recall(&Band::ALL);
    let [at_10, at_50, at_100, at_300] = recall.map(|recall| recall.value);
    println!("{name:<28} recall@10/50/100/300 {at_10:.4} {at_50:.4} {at_100:.4} {at_300:.4}");
}

/// `{"10": .., "50": ..}`
pub(crate) fn by_k<T: Into<Value>>(values: impl IntoIterator<Item = T>) -> Value {
    let keys = millrace_train::evaluation::KS.iter().map(u32::to_string);
    Value::Object(keys.zip(values.into_iter().map(Into::into)).collect::<Map<_, _>>())
}
