//! The index on real vectors scaled up: recall, processor time a query, time to build, beside kept
//! libraries on the same rows in the same run.
//!
//! A query's time is that of its thread, which a neighbour on the machine hardly moves; p50 and p99
//! are of the same. What the peers do is in `experiments/peers/nearest.py`.

mod rows;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use millrace_events::SplitMix;
use millrace_retrieval::{Allowed, Hit, Index, IndexSettings, Items, Search};

use crate::datasets;
use crate::quantile::quantile;
use rows::Rows;

/// Arguments of `retrieval`.
#[derive(Args)]
pub(crate) struct RetrievalArgs {
    /// A tower trained on this data set gives vectors and queries.
    #[arg(long, default_value = "globo")]
    dataset: String,
    /// Items: the data set's own, scaled up by new ones between near ones.
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000")]
    items: Vec<usize>,
    /// Events that the tower is trained on.
    #[arg(long, default_value_t = 600_000)]
    events: usize,
    /// Queries, from the events after those.
    #[arg(long, default_value_t = 1000)]
    queries: usize,
    /// Lists that a request scans.
    #[arg(long, value_delimiter = ',', default_value = "128")]
    lists: Vec<usize>,
    /// Versions through which centres are kept while every vector moves; 0: leave it out.
    #[arg(long, default_value_t = 0)]
    versions: usize,
    /// A Python with numpy, usearch and faiss (experiments/peers/requirements-nearest.txt).
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,
    /// Which of them.
    #[arg(long, default_value = "faiss,usearch")]
    only: String,
    /// Directory of the data sets.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Items that an answer holds.
const K: usize = 100;
/// Events have so many, of which a request leaves some out.
const EXCLUDED: u32 = 50;

pub(crate) fn run(args: &RetrievalArgs) -> anyhow::Result<()> {
    let directory = datasets::directory(args.data.as_deref());
    let rows = Rows::train(&args.dataset, &directory, args.events, args.queries)?;
    println!("{} items and {} queries of {}", rows.items(), rows.queries(), args.dataset);
    for &count in &args.items {
        let items = rows.scaled(count);
        println!("\n{count} items of {} floats", items.dim);
        measure(args, &items, &rows)?;
        if let Some(python) = &args.peers {
            peers(args, python, &items, &rows)?;
        }
        if args.versions > 0 {
            drift(args, &items, &rows)?;
        }
    }
    Ok(())
}

/// Builds and asks our own index.
fn measure(args: &RetrievalArgs, items: &Items, rows: &Rows) -> anyhow::Result<()> {
    for &lists_probed in &args.lists {
        let settings = IndexSettings { lists_probed, ..IndexSettings::default() };
        let (index, seconds, cpu) = built(items, &settings, None)?;
        println!(
            "built in {seconds:.3} s ({cpu:.3} CPU-s), {:.0} bytes an item, {}",
            index.bytes() as f64 / index.len() as f64,
            if index.is_exact() { "exact".to_owned() } else { format!("{lists_probed} lists") }
        );
        if let Some(kept) = index.centroids() {
            let (_, seconds, cpu) = built(items, &settings, Some(&kept))?;
            println!("built with kept centres in {seconds:.3} s ({cpu:.3} CPU-s)");
        }
        let excluded: Vec<u32> = (0..EXCLUDED).map(|at| at * 97).collect();
        line(&index, rows, "all", |search| search, None);
        line(&index, rows, "popularity 1", |search| Search { popularity: 1.0, ..search }, None);
        let both = |search| Search { popularity: 1.0, excluded: &excluded, ..search };
        line(&index, rows, "popularity 1, 50 excluded", both, None);
        let mut random = SplitMix::new(5);
        for share in [0.5, 0.1, 0.01, 0.001] {
            let chosen = (0..index.len() as u32).filter(|_| f64::from(random.unit()) < share);
            let allowed = index.allow(chosen);
            line(&index, rows, &format!("{share} of the items"), |search| search, Some(&allowed));
        }
    }
    Ok(())
}

/// An index, and the seconds it took: wall and processor.
fn built(
    items: &Items,
    settings: &IndexSettings,
    kept: Option<&millrace_retrieval::Centroids>,
) -> anyhow::Result<(Index, f64, f64)> {
    let items = items.clone();
    let (began, before) = (Instant::now(), cpu_seconds(libc::CLOCK_PROCESS_CPUTIME_ID));
    let index = Index::build(items, settings, kept)?;
    let cpu = cpu_seconds(libc::CLOCK_PROCESS_CPUTIME_ID) - before;
    Ok((index, began.elapsed().as_secs_f64(), cpu))
}

/// One line of figures: every query once, on one thread.
fn line<'a>(
    index: &Index,
    rows: &'a Rows,
    name: &str,
    of: impl Fn(Search<'a>) -> Search<'a>,
    allowed: Option<&'a Allowed>,
) {
    let searches = rows
        .each()
        .map(|query| of(Search { query, k: K, popularity: 0.0, excluded: &[], allowed }));
    let searches: Vec<Search<'_>> = searches.collect();
    let mut times = Vec::with_capacity(searches.len());
    let mut found: Vec<Vec<Hit>> = Vec::with_capacity(searches.len());
    for search in &searches {
        let before = cpu_seconds(libc::CLOCK_THREAD_CPUTIME_ID);
        found.push(index.search(search).expect("finite"));
        times.push(1000.0 * (cpu_seconds(libc::CLOCK_THREAD_CPUTIME_ID) - before));
    }
    let (mut of_ten, mut of_all, mut same, mut sample) = (0.0, 0.0, true, 0usize);
    // The exact answers of a fifth: a scan in f32 takes a while.
    for (search, found) in searches.iter().zip(&found).step_by(5) {
        let exact = index.exact(search).expect("finite");
        let share = |k: usize| {
            let k = k.min(exact.len()).max(1);
            let hits = exact.iter().take(k).filter(|hit| found[..k.min(found.len())].contains(hit));
            hits.count() as f64 / k as f64
        };
        of_ten += share(10);
        of_all += share(K);
        same &= exact == *found;
        sample += 1;
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    times.sort_by(f64::total_cmp);
    println!(
        "{name:<28} recall@10 {:.4} @100 {:.4}{}  CPU ms {mean:.3} (p50 {:.3}, p99 {:.3})",
        of_ten / sample as f64,
        of_all / sample as f64,
        if same { " same ids, order and scores" } else { "" },
        quantile(&times, 0.5),
        quantile(&times, 0.99),
    );
}

/// Every vector moves in every version, by what a step of training moves it and more; centres are
/// kept. What that costs in recall, beside centres that are made anew.
fn drift(args: &RetrievalArgs, items: &Items, rows: &Rows) -> anyhow::Result<()> {
    let settings =
        IndexSettings { exact_max: 0, lists_probed: args.lists[0], ..IndexSettings::default() };
    let (mut items, mut random) = (items.clone(), SplitMix::new(23));
    let mut kept = None;
    for version in 0..=args.versions {
        let index = Index::build(items.clone(), &settings, kept.as_deref())?;
        kept = index.centroids();
        if version == 0 || version == args.versions {
            line(&index, rows, &format!("version {version}, kept"), |search| search, None);
        }
        let turn: Vec<f32> = (0..items.dim).map(|_| random.uniform(0.02)).collect();
        for vector in items.vectors[0].chunks_exact_mut(items.dim) {
            for (x, turn) in vector.iter_mut().zip(&turn) {
                *x += turn + random.uniform(0.01);
            }
            rows::normalise(vector);
        }
    }
    let fresh = Index::build(items, &settings, None)?;
    line(&fresh, rows, "last version, made anew", |search| search, None);
    Ok(())
}

/// The same rows and queries in kept libraries.
fn peers(args: &RetrievalArgs, python: &PathBuf, items: &Items, rows: &Rows) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    std::fs::write(directory.path().join("items.f32"), bytes(&items.vectors[0]))?;
    let queries: Vec<f32> = rows.each().flatten().copied().collect();
    std::fs::write(directory.path().join("queries.f32"), bytes(&queries))?;
    let status = Command::new(python)
        .arg("experiments/peers/nearest.py")
        .arg(directory.path())
        .args([items.dim.to_string(), K.to_string(), args.only.clone()])
        .status()
        .with_context(|| format!("cannot run {}", python.display()))?;
    ensure!(status.success(), "nearest.py failed");
    Ok(())
}

/// Processor time of `clock`, in seconds.
fn cpu_seconds(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clocks asked for exist on Linux, and `time` is a timespec of our own.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(done, 0, "the clock is there");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
