//! The frequency estimator: the paper's simulation and figures in both modes, duplicates, real
//! traffic beside rivals, streams cut into batches of other sizes, items seen for the first time.
//!
//! Owns what is measured and written. Must never know: how the estimator or the plots work inside.

mod clicks;
mod cuts;
mod figures;
mod first_sights;
mod globo;
mod rivals;
mod sample;
mod simulation;
mod zipf;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use clap::Args;
use millrace::progress::ProgressLine;
use serde_json::json;

/// Most seeds of the simulations that take seconds a seed; theirs differ by hundredths.
const LONG_SEEDS_MAX: u64 = 5;

/// Arguments of `estimator`.
#[derive(Args)]
pub(crate) struct EstimatorArgs {
    /// Directory for the figures (SVG) and estimator.json; made if missing. A relative path begins
    /// at the repository's root.
    #[arg(long)]
    out: PathBuf,
    /// Seeds 1 to N; each seeds a stream and its estimators' hashes. Cuts and first sights, whose
    /// streams are long, take five at most.
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Directory with the sample data sets [default: $MILLRACE_DATA, else ../shared/data].
    #[arg(long)]
    data: Option<PathBuf>,
}

pub(crate) fn run(args: &EstimatorArgs) -> anyhow::Result<()> {
    let out = args.out.as_path();
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let of_environment = || std::env::var_os("MILLRACE_DATA").map(PathBuf::from);
    let data = args.data.clone().or_else(of_environment).unwrap_or("../shared/data".into());

    println!("seeds 1 to {}; mean ± standard deviation", args.seeds);
    let mut results = json!({ "seeds": args.seeds });
    figures::measure(&mut results, args.seeds, out)?;
    zipf::measure(&mut results["zipf_top"], args.seeds);
    let seeds = args.seeds.min(LONG_SEEDS_MAX);
    cuts::measure(&mut results["cuts"], seeds, out)?;
    first_sights::measure(&mut results["first_sights"], seeds, out)?;
    globo::measure(&mut results, &data, args.seeds, out)?;

    let path = out.join("estimator.json");
    std::fs::write(&path, format!("{results:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nwritten: {}", out.display());
    Ok(())
}

/// Progress of runs on several threads.
struct Work(Mutex<(ProgressLine, u64)>);

impl Work {
    fn new(what: &'static str, runs: u64) -> Self {
        Self(Mutex::new((ProgressLine::new(what, runs, "runs"), 0)))
    }

    /// One more run is done.
    fn done(&self) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (progress, done) = &mut *work;
        *done += 1;
        progress.set(*done, || format!("{} threads", rayon::current_num_threads()));
    }

    fn finish(self) {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).0.finish();
    }
}
