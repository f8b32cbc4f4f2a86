//! Experiments whose results the README quotes: `scripts/experiment --help`.

mod cut;
mod datasets;
mod estimator;
mod events;
mod faults;
mod ideas;
mod live;
mod load;
mod process;
mod quality;
mod quantile;
mod retrieval;
mod serving;
mod soak;

use clap::{Parser, Subcommand};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures parts of Millrace and draws what came out.
#[derive(Parser)]
#[command(bin_name = "scripts/experiment", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Subcommand)]
enum Experiment {
    /// The same events in batches of many sizes: what they teach, and what they cost.
    Cut(cut::CutArgs),
    /// The frequency estimator: the paper's Figures 4 and 5, and real clicks beside its rivals.
    Estimator(estimator::EstimatorArgs),
    /// A live trainer and its brokers, broken in every way that is known.
    Faults(faults::FaultsArgs),
    /// What each idea about the model gives, alone and together.
    Ideas(ideas::IdeasArgs),
    /// A live run on a real broker beside a replay of the same topic.
    Live(live::LiveArgs),
    /// Requests at a fixed rate at a `serve` of this machine, however long answers take.
    Load(load::LoadArgs),
    /// Recall of the loss modes and ways of ranking on wikispeedia, ml-1m and Globo's clicks.
    Quality(quality::QualityArgs),
    /// The index on real vectors scaled up, beside faiss and usearch.
    Retrieval(retrieval::RetrievalArgs),
    /// From an event to an answer: freshness, answers beside training, memory.
    Serving(serving::ServingArgs),
    /// A trainer at full speed and in a trickle, its memory watched.
    Soak(soak::SoakArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    millrace::telemetry::init_logging(false, "info");
    match cli.experiment {
        Experiment::Cut(args) => cut::run(&args),
        Experiment::Estimator(args) => estimator::run(&args),
        Experiment::Faults(args) => faults::run(&args),
        Experiment::Ideas(args) => ideas::run(&args),
        Experiment::Live(args) => live::run(&args),
        Experiment::Load(args) => load::run(&args),
        Experiment::Quality(args) => quality::run(&args),
        Experiment::Retrieval(args) => retrieval::run(&args),
        Experiment::Serving(args) => serving::run(&args),
        Experiment::Soak(args) => soak::run(&args),
    }
}
