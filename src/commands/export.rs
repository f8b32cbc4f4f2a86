//! `millrace export`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::session::ConfigArgs;
use crate::artifact;
use crate::checkpoint::Checkpoint;
use crate::commands::output::say;

/// Arguments of `export`.
#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A directory that is not there or empty, for the bundle's files.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// A checkpoint, or a directory of them; default: checkpoint.directory of the config.
    #[arg(long, value_name = "CHECKPOINT")]
    checkpoint: Option<PathBuf>,
    /// Make up all examples instead of taking most of them from the newest records of kafka.topic.
    #[arg(long)]
    offline: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let path =
        args.checkpoint.clone().unwrap_or_else(|| config.checkpoint.directory.clone().into());
    let (checkpoint, _) = Checkpoint::resolve(&path)?;
    let log = (!args.offline).then_some(&config);
    let bundle = artifact::write(&checkpoint, log, &args.to)?;
    let (version, path) = (&checkpoint.manifest.version, bundle.path.display());
    if args.json {
        let (digest, bytes) = (&bundle.digest, bundle.bytes);
        let path = path.to_string();
        say!("{}", json!({"version": version, "path": path, "digest": digest, "bytes": bytes}));
    } else {
        say!("exported version {version} to {path}, {} bytes", bundle.bytes);
    }
    Ok(())
}
