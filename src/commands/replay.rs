//! `millrace replay`

use std::sync::atomic::Ordering;

use anyhow::bail;
use clap::Args;

use super::by_day::{self, ByDayArgs};
use super::cut::CutArgs;
use super::report;
use super::session::{ConfigArgs, site};
use crate::commands::output::say;
use crate::pipeline::{self, Publication, RunPlan};
use crate::progress::ProgressLine;
use crate::stream::position::Position;

/// Arguments of `replay`.
#[derive(Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The place to begin at if there is no checkpoint: earliest, latest, 90%, offset:N, time:T.
    #[arg(long, default_value = "earliest", value_parser = str::parse::<Position>)]
    from: Position,
    /// The place to end at, in the same forms; `latest` is the topic's end when the run starts.
    #[arg(long, default_value = "latest", value_parser = str::parse::<Position>)]
    to: Position,
    /// Passes over the range, for topics without an order in time, such as a link graph: with
    /// batch.shuffle_events each has an order of its own. A killed replay resumes in its pass.
    /// Rejected records are counted, and sent to the dead-letter topic, in each pass.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// Start from nothing: existing checkpoints are set aside. Without it a replay resumes from the
    /// newest checkpoint, so a killed one loses nothing.
    #[arg(long)]
    fresh: bool,
    /// Publish as `train` does, and the last checkpoint; the first publication that fails ends the
    /// run. Without it nothing is published: an experiment must not replace what is served.
    #[arg(long, conflicts_with = "by_day")]
    publish: bool,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    by_day: ByDayArgs,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    if args.by_day.by_day {
        return by_day::run(&args.by_day, &config, (args.from, args.to), args.json);
    }
    if args.publish && config.publish.topic.is_empty() {
        bail!("publish.topic is empty: there is nowhere to publish to");
    }
    // A replay beside a live trainer must not fail for want of the metrics port.
    let listen = match std::net::TcpListener::bind(&config.http.listen) {
        Ok(_) => config.http.listen.clone(),
        Err(error) => {
            if !config.http.listen.is_empty() {
                tracing::warn!("no metrics: cannot listen on {}: {error}", config.http.listen);
            }
            String::new()
        }
    };
    let cut = args.cut.of(&config)?;
    let (site, _edge) = site(config, &listen)?;
    if args.passes > 1 && site.config.batch.shuffle_events == 0 {
        tracing::warn!("every pass has the same order: set batch.shuffle_events to shuffle each");
    }
    let plan = RunPlan {
        passes: args.passes,
        cut,
        fresh: args.fresh,
        publication: if args.publish { Publication::Complete } else { Publication::Never },
        ..RunPlan::replay(args.from, args.to)
    };
    let mut progress: Option<ProgressLine> = None;
    let summary = pipeline::run(&site, &plan, &mut |trainer, stats| {
        let progress =
            progress.get_or_insert_with(|| ProgressLine::new("replay", stats.total, "events"));
        let records = trainer.progress().records() - stats.records_before;
        progress.set(records, || match args.passes {
            1 => report::message(stats),
            passes => {
                format!("pass {} of {passes}, {}", trainer.progress().pass, report::message(stats))
            }
        });
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    if site.stop.load(Ordering::Relaxed) {
        tracing::warn!("stopped before the end; the same command goes on from the checkpoint");
    }
    if args.json {
        say!("{}", report::summary_json(&summary));
    } else {
        report::print_summary(&summary);
    }
    if summary.step == 0 {
        bail!("the range holds no usable event");
    }
    Ok(())
}
