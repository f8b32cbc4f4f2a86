//! A data set's events, decoded as the trainer decodes records.

use std::io::BufRead;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use millrace::config::Config;
use millrace::stream::batch::Batch;
use millrace::stream::cut::Cut;
use millrace::stream::decode::Mapping;
use millrace::stream::events::Events;
use millrace::stream::offsets::Offsets;
use millrace::stream::produce::Input;
use millrace::stream::shuffle::Shuffle;

/// All events in the order of the file.
pub(super) struct Log {
    all: Events,
    size: usize,
    seed: u64,
}

impl Log {
    /// Reads `path` with the mapping of `config`.
    pub(super) fn read(config: &Config, path: &Path) -> anyhow::Result<Self> {
        let mut mapping = Mapping::new(config);
        let input = Input::open(&path.display().to_string())?;
        let mut all = Events::of(config);
        for (number, line) in input.lines.lines().enumerate() {
            mapping
                .decode(Some(line?.as_bytes()), Some(0), &mut all)
                .with_context(|| format!("line {} of {}", number + 1, path.display()))?;
        }
        Ok(Self { all, size: config.batch.size, seed: config.seed })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The first `share` of the events, and the rest.
    pub(super) fn split(self, share: f64) -> (Self, Self) {
        let Self { all, size, seed } = self;
        let cut = (all.len() as f64 * share) as usize;
        let part = |range| Self { all: part(&all, range), size, seed };
        (part(0..cut), part(cut..usize::MAX))
    }

    /// Batches in the order of the file.
    pub(super) fn batches(&self) -> impl Iterator<Item = Batch> {
        (0..self.len())
            .step_by(self.size)
            .map(|start| Batch::new(part(&self.all, start..start + self.size), offsets()))
    }

    /// Batches of the `pass`-th pass, shuffled anew in each by the seed.
    pub(super) fn shuffled(&self, pass: u32) -> impl Iterator<Item = Batch> {
        let mut shuffle = Shuffle::new(self.size, Cut::Full, self.seed, pass, offsets());
        shuffle.load(Batch::new(self.all.clone(), offsets()));
        std::iter::from_fn(move || shuffle.deal())
    }
}

/// A part of the events, as far as there are any.
fn part(all: &Events, range: Range<usize>) -> Events {
    let mut part = Events::new(all.query.len(), all.item.len());
    let places: Vec<_> =
        (range.start..all.len().min(range.end)).map(|event| (all, event)).collect();
    part.gather(&places);
    part
}

/// A file has none.
fn offsets() -> Offsets {
    Offsets::new("file")
}
