//! `millrace train`

use clap::Args;

use super::live_lines::LiveLines;
use super::session::{ConfigArgs, site};
use crate::config::Start;
use crate::pipeline::{self, RunPlan, Stopped};
use crate::stream::position::Position;

/// Arguments of `train`.
#[derive(Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Start from nothing, once: existing checkpoints are set aside. Without it a run goes on from
    /// the newest checkpoint, and one without a checkpoint is refused if Kafka holds offsets or
    /// versions of an earlier run.
    #[arg(long)]
    fresh: bool,
}

pub(super) fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let listen = config.http.listen.clone();
    let (site, _edge) = site(config, &listen)?;
    let from = match site.config.kafka.start {
        Start::Earliest => Position::Earliest,
        Start::Latest => Position::Latest,
    };
    let mut lines = LiveLines::new(&site.config.batch);
    let plan = RunPlan { fresh: args.fresh, ..RunPlan::live(from) };
    let summary = pipeline::run(&site, &plan, &mut |trainer, stats| lines.show(trainer, stats));
    let summary = match summary {
        Err(error) if error.is::<Stopped>() => {
            tracing::info!("{error}");
            return Ok(());
        }
        summary => summary?,
    };
    match summary.checkpoint {
        None => tracing::info!("stopped before the first event: there is no checkpoint"),
        Some(checkpoint) => {
            tracing::info!(step = summary.step, checkpoint = %checkpoint.path.display(), "stopped");
        }
    }
    Ok(())
}
