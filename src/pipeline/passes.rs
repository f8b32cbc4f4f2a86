//! The sources of a run, one after the other: a bounded range that is read several times (for
//! topics without an order in time), a topic that grows.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::stream::catalogue::CatalogueRange;
use crate::stream::cut::Cut;
use crate::stream::position::Range;
use crate::stream::source::{Next, Source};
use millrace_events::Witness;

/// The source of the pass in progress, and the range that the passes after it read.
pub(super) struct Passes {
    pub(super) source: Source,
    config: Config,
    range: Range,
    cut: Cut,
    stop: Arc<AtomicBool>,
    witness: Arc<Mutex<Witness>>,
    pass: u32,
    last: u32,
    /// Rejected records of the passes before, by reason.
    rejected: BTreeMap<&'static str, u64>,
    /// Skipped ones.
    skipped: u64,
    /// Values of optional features that could not be read.
    unread: u64,
}

impl Passes {
    /// Reads `rest` in the `pass`-th pass, then `range` in each one up to the `last`-th. Setting
    /// `stop` ends waits for brokers that are away; `witness` remembers some of the records.
    pub(super) fn begin(
        config: &Config,
        (rest, catalogues): (Range, &[CatalogueRange]),
        range: Range,
        cut: Cut,
        (pass, last): (u32, u32),
        stop: &Arc<AtomicBool>,
        witness: &Arc<Mutex<Witness>>,
    ) -> anyhow::Result<Passes> {
        let source = open(config, rest, catalogues, (pass, cut), stop, witness)?;
        let (rejected, skipped, unread) = (BTreeMap::new(), 0, 0);
        let (config, stop, witness) = (config.clone(), Arc::clone(stop), Arc::clone(witness));
        Ok(Passes {
            source,
            config,
            range,
            cut,
            stop,
            witness,
            pass,
            last,
            rejected,
            skipped,
            unread,
        })
    }

    /// As [`Source::next`]; the end is that of the last pass.
    pub(super) fn next(&mut self, wait: Duration) -> anyhow::Result<Next> {
        if let Some(from) = self.source.grown() {
            self.reopen(Range { from, to: None })?;
        }
        let next = self.source.next(wait)?;
        if !matches!(next, Next::End) || self.pass >= self.last {
            return Ok(next);
        }
        self.pass += 1;
        tracing::info!(pass = self.pass, of = self.last, "next pass");
        self.reopen(self.range.clone())?;
        Ok(Next::Idle)
    }

    fn reopen(&mut self, range: Range) -> anyhow::Result<()> {
        self.rejected = self.rejected_by_reason();
        (self.skipped, self.unread) = (self.skipped(), self.unread());
        let Passes { config, pass, cut, stop, witness, .. } = &*self;
        let catalogues = self.source.catalogues();
        self.source = open(config, range, &catalogues, (*pass, *cut), stop, witness)?;
        self.source.have_shown(self.rejected.keys().copied());
        Ok(())
    }

    /// Tells a durable checkpoint's offsets to Kafka.
    pub(super) fn commit(&self, checkpoint: &Checkpoint) {
        let manifest = &checkpoint.manifest;
        self.source.commit(&manifest.offsets, &manifest.version);
    }

    /// Records passed over in all passes of this run.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped + self.source.skipped()
    }

    /// Values of optional features that could not be read, in all passes of this run.
    pub(super) fn unread(&self) -> u64 {
        self.unread + self.source.unread()
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

/// A source that lets `witness` remember some of its records.
fn open(
    config: &Config,
    range: Range,
    catalogues: &[CatalogueRange],
    pass: (u32, Cut),
    stop: &Arc<AtomicBool>,
    witness: &Arc<Mutex<Witness>>,
) -> anyhow::Result<Source> {
    let mut source = Source::open_following(config, range, catalogues, pass, stop)?;
    source.remember(witness);
    Ok(source)
}
