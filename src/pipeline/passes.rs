//! A bounded range that is read several times: for topics without an order in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::config::Config;
use crate::stream::cut::Cut;
use crate::stream::position::Range;
use crate::stream::source::{Next, Source};

/// The source of the pass in progress, and the range that the passes after it read.
pub(super) struct Passes {
    pub(super) source: Source,
    config: Config,
    range: Range,
    cut: Cut,
    stop: Arc<AtomicBool>,
    pass: u32,
    last: u32,
    /// Rejected records of the passes before, by reason.
    rejected: BTreeMap<&'static str, u64>,
}

impl Passes {
    /// Reads `rest` in the `pass`-th pass, then `range` in each one up to the `last`-th. Setting
    /// `stop` ends waits for brokers that are away.
    pub(super) fn begin(
        config: &Config,
        rest: Range,
        range: Range,
        cut: Cut,
        (pass, last): (u32, u32),
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Passes> {
        let source = Source::open(config, rest, pass, cut, stop)?;
        let rejected = BTreeMap::new();
        let (config, stop) = (config.clone(), Arc::clone(stop));
        Ok(Passes { source, config, range, cut, stop, pass, last, rejected })
    }

    /// As [`Source::next`]; the end is that of the last pass.
    pub(super) fn next(&mut self, wait: Duration) -> anyhow::Result<Next> {
        let next = self.source.next(wait)?;
        if !matches!(next, Next::End) || self.pass >= self.last {
            return Ok(next);
        }
        self.rejected = self.rejected_by_reason();
        self.pass += 1;
        tracing::info!(pass = self.pass, of = self.last, "next pass");
        let range = self.range.clone();
        self.source = Source::open(&self.config, range, self.pass, self.cut, &self.stop)?;
        self.source.have_shown(self.rejected.keys().copied());
        Ok(Next::Idle)
    }

    /// Rejected records of all passes of this run.
    pub(super) fn rejected_by_reason(&self) -> BTreeMap<&'static str, u64> {
        let mut rejected = self.rejected.clone();
        for (reason, count) in self.source.rejected_by_reason() {
            *rejected.entry(reason).or_default() += count;
        }
        rejected
    }
}
