//! The commands of `millrace --help`: each is one file that reads like a recipe.
//!
//! Owns arguments, exit codes (0 done, 1 failed, 2 usage or config) and what is printed on stdout.

mod bounded;
mod by_day;
mod check;
mod cut;
mod demo;
mod estimate;
mod evaluate;
mod init;
mod inspect;
mod live_lines;
mod output;
mod produce;
mod publish;
mod replay;
mod report;
mod serve;
mod session;
mod synthesize;
#[cfg(test)]
mod tests;
mod train;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Faults;
use crate::telemetry;
use session::Usage;

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
    /// Propose a config for a log, from a file of JSON lines or from a topic.
    Init(init::InitArgs),
    /// Train without end: read the topic, checkpoint, publish.
    Train(train::TrainArgs),
    /// Train on a bounded part of the topic, then end: for backfills and experiments.
    Replay(replay::ReplayArgs),
    /// Measure recall on held-out events against the whole corpus, beside popularity.
    Evaluate(evaluate::EvaluateArgs),
    /// Run the frequency estimator alone, beside exact counts: to choose its rate and its size.
    Estimate(estimate::EstimateArgs),
    /// Send a file of JSON lines to the topic.
    Produce(produce::ProduceArgs),
    /// Print a synthetic stream of interactions, at a rate and without end: to try things out.
    Synthesize(synthesize::SynthesizeArgs),
    /// Publish the embeddings of a checkpoint.
    Publish(publish::PublishArgs),
    /// Answer queries over HTTP from the newest checkpoint, and follow the trainer.
    Serve(serve::ServeArgs),
    /// Show what a checkpoint holds, and verify it.
    Inspect(inspect::InspectArgs),
    /// Check a config: OK, or all that is wrong with it.
    Check(check::CheckArgs),
}

/// Parses the arguments, runs the command, prints its error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Bounded work shows a bar on a terminal: only what matters may interrupt it.
    let live = matches!(cli.command, Command::Train(_));
    let bar = std::io::stderr().is_terminal() && !live;
    // A synthetic stream has nothing to say about its end.
    let quiet = bar || matches!(cli.command, Command::Synthesize(_));
    telemetry::init_logging(cli.log_json, if quiet { "warn" } else { "info" });
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Estimate(args) => estimate::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Synthesize(args) => synthesize::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Serve(args) => serve::run(&args),
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
