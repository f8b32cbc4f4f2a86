//! Reads a bounded range to its end, for commands without a pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::progress::ProgressLine;
use crate::stream::catalogue::CatalogueRange;
use crate::stream::cut::Cut;
use crate::stream::position::Range;
use crate::stream::source::{Next, Source};
use millrace_events::Batch;

/// How long one poll waits; the stop flag is looked at in between.
const TICK: Duration = Duration::from_millis(100);

/// Reads `range` to its end, batch by batch, with progress called `what`.
pub(super) fn read(
    config: &Config,
    range: Range,
    what: &'static str,
    stop: &Arc<AtomicBool>,
    each: impl FnMut(&Batch),
) -> anyhow::Result<()> {
    read_cut(config, (range, &[]), (1, Cut::Full), what, stop, each)
}

/// As [`read`], for events that a run before has read: their rejected records have their letters.
pub(super) fn read_again(
    config: &Config,
    range: Range,
    what: &'static str,
    stop: &Arc<AtomicBool>,
    each: impl FnMut(&Batch),
) -> anyhow::Result<()> {
    let mut reading = config.clone();
    reading.kafka.dead_letter_topic = String::new();
    read(&reading, range, what, stop, each)
}

/// As [`read`], with these ranges of catalogues, for the `pass`-th time and cut as `cut` says.
pub(super) fn read_cut(
    config: &Config,
    (range, catalogues): (Range, &[CatalogueRange]),
    (pass, cut): (u32, Cut),
    what: &'static str,
    stop: &Arc<AtomicBool>,
    mut each: impl FnMut(&Batch),
) -> anyhow::Result<()> {
    let mut progress = ProgressLine::new(what, range.records(), "events");
    let mut reader = Reader::open(config, (range, catalogues), (pass, cut), what, stop)?;
    let mut done = 0;
    while let Some(batch) = reader.next()? {
        each(&batch);
        done += batch.len() as u64 + batch.rejected;
        progress.set(done, String::new);
    }
    progress.finish();
    Ok(())
}

/// A range, batch by batch, for as long as nobody says stop.
pub(super) struct Reader<'a> {
    source: Source,
    what: &'static str,
    stop: &'a Arc<AtomicBool>,
}

impl<'a> Reader<'a> {
    /// Reads `range`, with these of catalogues, for the so manieth time and in such batches;
    /// messages call it `what`.
    pub(super) fn open(
        config: &Config,
        (range, catalogues): (Range, &[CatalogueRange]),
        pass: (u32, Cut),
        what: &'static str,
        stop: &'a Arc<AtomicBool>,
    ) -> anyhow::Result<Reader<'a>> {
        let source = Source::open_following(config, range, catalogues, pass, stop)?;
        Ok(Reader { source, what, stop })
    }

    /// The next batch; `None` at the end.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped");
            }
            match self.source.next(TICK).with_context(|| format!("{} stopped", self.what))? {
                Next::Idle => {}
                Next::End => return Ok(None),
                Next::Batch(batch) => return Ok(Some(batch)),
            }
        }
    }
}
