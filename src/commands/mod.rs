//! What `millrace --help` lists: each command is one file that reads like a recipe.
//!
//! Owns arguments, exit codes (0 done, 1 failed, 2 usage or config) and what is printed on stdout.

mod bounded;
mod by_day;
mod check;
mod cut;
mod demo;
mod estimate;
mod evaluate;
mod inspect;
mod live_lines;
mod produce;
mod publish;
mod replay;
mod report;
mod train;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Faults};
use crate::edge::Edge;
use crate::pipeline::{self, Clocks, Setting};
use crate::stream::position::Position;
use crate::telemetry::{self, Health, Metrics};

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Always-on two-tower trainer: interactions from Kafka in, fresh retrieval embeddings out.
///
/// Try it with nothing installed: `millrace demo`. Then map your own log's fields in a config file
/// (start from config/trainer.toml), look it over with `millrace check`, and run `millrace train`.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Logs go to stderr, results to stdout. \
    RUST_LOG=debug shows more. Exit status: 0 done, 1 failed, 2 usage or config."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log lines as JSON.
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Train on a synthetic stream for a minute and show what it learned; needs no Kafka.
    Demo(demo::DemoArgs),
    /// Train without end: read the topic, checkpoint, publish.
    Train(ConfigArgs),
    /// Train on a bounded part of the topic, then end: for backfills and experiments.
    Replay(replay::ReplayArgs),
    /// Measure recall on held-out events against the whole corpus, beside popularity.
    Evaluate(evaluate::EvaluateArgs),
    /// Run the frequency estimator alone, beside exact counts: to choose its rate and its size.
    Estimate(estimate::EstimateArgs),
    /// Send a file of JSON lines to the topic.
    Produce(produce::ProduceArgs),
    /// Publish the embeddings of a checkpoint.
    Publish(publish::PublishArgs),
    /// Show what a checkpoint holds, and verify it.
    Inspect(inspect::InspectArgs),
    /// Check a config: OK, or all that is wrong with it.
    Check(check::CheckArgs),
}

/// Where the config comes from.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// The config file (TOML); config/trainer.toml explains every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Overrides one key; may be given many times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, Faults> {
        Config::load(Some(&self.config), &self.overrides)
    }
}

/// Parses the arguments, runs the command, prints what went wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Bounded work shows a bar on a terminal: only what matters may interrupt it.
    let live = matches!(cli.command, Command::Train(_));
    let bar = std::io::stderr().is_terminal() && !live;
    telemetry::init_logging(cli.log_json, if bar { "warn" } else { "info" });
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Estimate(args) => estimate::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Check(args) => check::run(&args),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Faults>() {
        Some(faults) => {
            let count = faults.0.len();
            let plural = if count == 1 { "fault" } else { "faults" };
            eprintln!("{count} {plural} in the config:\n{faults}");
            ExitCode::from(EXIT_USAGE)
        }
        None => {
            eprintln!("error: {error:#}");
            let usage = error.downcast_ref::<Usage>().is_some();
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

/// Arguments that only a look at the config or at each other shows to be wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Ends the command with exit status 2.
fn usage(message: &str) -> anyhow::Error {
    Usage(message.to_owned()).into()
}

/// Everything a run needs around its config, with the edge (signals, HTTP) started.
///
/// `listen` overrides the config's address.
fn setting(config: Config, listen: &str) -> anyhow::Result<(Setting, Edge)> {
    let metrics = Arc::new(Metrics::new());
    for table in config.table_names() {
        metrics.declare_table(&table);
    }
    let health = Arc::new(Health::new());
    let clocks = Arc::new(Clocks::default());
    let stop = Arc::new(AtomicBool::new(false));
    let ages = {
        let clocks = Arc::clone(&clocks);
        move |metrics: &Metrics| clocks.set_ages(metrics)
    };
    let edge =
        Edge::start(listen, Arc::clone(&metrics), Arc::clone(&health), ages, Arc::clone(&stop))?;
    if let Some(address) = edge.address {
        tracing::info!("metrics and health on http://{address}/");
    }
    let placement = pipeline::placement(config.device)?;
    Ok((Setting { config, placement, metrics, health, stop, clocks }, edge))
}

/// A flag that SIGTERM and SIGINT set, for work without metrics. Holds while the edge lives.
fn stop_on_signal() -> anyhow::Result<(Arc<AtomicBool>, Edge)> {
    let stop = Arc::new(AtomicBool::new(false));
    let (metrics, health) = Default::default();
    let edge = Edge::start("", metrics, health, |_| {}, Arc::clone(&stop))?;
    Ok((stop, edge))
}

/// A place in the log from the command line; the message of a wrong one teaches the forms.
fn position(text: &str) -> Result<Position, String> {
    text.parse()
}
