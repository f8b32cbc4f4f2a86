//! `millrace serve`

use clap::Args;

use super::session::{ConfigArgs, stop_on_signal, usage};
use crate::config::ArmConfig;
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
    /// A checkpoint, or a directory of them; default: [[serve.arms]] of the config, or else
    /// checkpoint.directory.
    #[arg(long, value_name = "DIR")]
    from: Option<String>,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    if let Some(reason) = config.serve.refuses(&config.http.listen) {
        return Err(usage(&reason));
    }
    let arms = match &args.from {
        Some(_) if !config.serve.arms.is_empty() => {
            return Err(usage("[[serve.arms]] says what is served, and so does --from: use one"));
        }
        Some(from) => vec![ArmConfig::only(from.clone())],
        None if config.serve.arms.is_empty() => {
            vec![ArmConfig::only(config.checkpoint.directory.clone())]
        }
        None => config.serve.arms.clone(),
    };
    let (stop, _edge) = stop_on_signal()?;
    serve::run(&config, &arms, &stop)
}
