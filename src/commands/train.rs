//! `millrace train`

use super::live_lines::LiveLines;
use super::session::{ConfigArgs, setting};
use crate::config::Start;
use crate::pipeline::{self, Bounds, Publication};
use crate::stream::cut::Cut;
use crate::stream::position::Position;

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let config = args.load()?;
    let listen = config.http.listen.clone();
    let (setting, _edge) = setting(config, &listen)?;
    let from = match setting.config.kafka.start {
        Start::Earliest => Position::Earliest,
        Start::Latest => Position::Latest,
    };
    let publication = Publication::Live;
    let bounds = Bounds { from, to: None, passes: 1, cut: Cut::Full, fresh: false, publication };
    let mut lines = LiveLines::new(&setting.config.batch);
    let summary = pipeline::run(&setting, &bounds, &mut |trainer, live| lines.show(trainer, live))?;
    match summary.checkpoint {
        None => tracing::info!("stopped before the first event: there is no checkpoint"),
        Some(checkpoint) => {
            tracing::info!(step = summary.step, checkpoint = %checkpoint.path.display(), "stopped");
        }
    }
    Ok(())
}
