//! `millrace publish`

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::session::ConfigArgs;
use crate::checkpoint::Checkpoint;
use crate::commands::output::say;
use crate::pipeline;
use crate::publish::Publisher;

/// Arguments of `publish`.
#[derive(Args)]
pub(super) struct PublishArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A checkpoint, or a directory of them; default: checkpoint.directory of the config.
    #[arg(long, value_name = "CHECKPOINT")]
    checkpoint: Option<PathBuf>,
    /// Publish although the topic holds a later version, or one of a run that began later: to go
    /// back, or to give the topic to another run.
    #[arg(long)]
    take_over: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PublishArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    if config.publish.topic.is_empty() {
        bail!("publish.topic is empty: there is nowhere to publish to");
    }
    let path =
        args.checkpoint.clone().unwrap_or_else(|| config.checkpoint.directory.clone().into());
    let (checkpoint, _) = Checkpoint::resolve(&path)?;
    let placement = pipeline::placement(config.device)?;
    let mut publisher = Publisher::new(&config, &placement)?;
    if args.take_over {
        publisher = publisher.taking_over();
    }
    let published = publisher.publish(&checkpoint, &|| false)?.context("publishing was stopped")?;
    if args.json {
        say!(
            "{}",
            json!({
                "version": published.version,
                "step": published.step,
                "published": published.vectors,
                "tombstones": published.tombstones,
            })
        );
    } else {
        say!(
            "published {} vectors and {} tombstones to {}, version {}",
            published.vectors,
            published.tombstones,
            config.publish.topic,
            published.version
        );
    }
    Ok(())
}
