//! `millrace serve`

use std::path::PathBuf;

use clap::Args;

use super::session::{ConfigArgs, stop_on_signal, usage};
use crate::serve;

/// Arguments of `serve`.
#[derive(Args)]
#[command(after_help = "\
    It follows the directory: a newer checkpoint answers as soon as its index is built, without a \
    pause and without an answer that mixes two. Histories that the trainer keeps go on with what \
    users do meanwhile: it reads kafka.topic itself (serve.follow). Fields, temperature and \
    weight of popularity are those that a checkpoint was trained with. \
    docs/reference/serve.md lists the routes.")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A checkpoint, or a directory of them; default: checkpoint.directory of the config.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    if let Some(reason) = config.serve.refuses(&config.http.listen) {
        return Err(usage(&reason));
    }
    let from = args.from.clone().unwrap_or_else(|| config.checkpoint.directory.clone().into());
    let (stop, _edge) = stop_on_signal()?;
    serve::run(&config, from, &stop)
}
