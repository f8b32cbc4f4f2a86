//! `millrace train`

use super::{ConfigArgs, report, setting};
use crate::config::Start;
use crate::pipeline::{self, Bounds};
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
    let bounds =
        Bounds { from, to: None, passes: 1, cut: Cut::Full, fresh: false, publish_last: false };
    let mut lines = report::LiveLines::new();
    let summary = pipeline::run(&setting, &bounds, &mut |trainer, live| lines.show(trainer, live))?;
    tracing::info!(
        step = summary.step,
        checkpoint = %summary.checkpoint.path.display(),
        "stopped"
    );
    Ok(())
}
