//! A data set's events, decoded as the trainer decodes records.

use std::io::BufRead;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use millrace::config::Config;
use millrace::stream::batch::Batch;
use millrace::stream::decode::Mapping;
use millrace::stream::offsets::Offsets;
use millrace::stream::produce::Input;
use millrace::stream::shuffle::Shuffle;

/// All events in the order of the file.
pub(super) struct Events {
    all: Batch,
    size: usize,
    seed: u64,
}

impl Events {
    /// Reads `path` with the mapping of `config`.
    pub(super) fn read(config: &Config, path: &Path) -> anyhow::Result<Self> {
        let mapping = Mapping::new(config);
        let input = Input::open(&path.display().to_string())?;
        let mut all = empty(config);
        for (number, line) in input.lines.lines().enumerate() {
            let event = mapping
                .decode(Some(line?.as_bytes()), Some(0))
                .with_context(|| format!("line {} of {}", number + 1, path.display()))?;
            all.push(event);
        }
        Ok(Self { all, size: config.batch.size, seed: config.seed })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The first `share` of the events, and the rest.
    pub(super) fn split(self, share: f64) -> (Self, Self) {
        let Self { mut all, size, seed } = self;
        let cut = (all.len() as f64 * share) as usize;
        let mut part = |range| Self { all: part(&mut all, range), size, seed };
        (part(0..cut), part(cut..usize::MAX))
    }

    /// Batches in the order of the file.
    pub(super) fn batches(&self) -> impl Iterator<Item = Batch> {
        let (mut all, size) = (self.all.clone(), self.size);
        (0..self.len()).step_by(size).map(move |start| part(&mut all, start..start + size))
    }

    /// Batches of the `pass`-th pass, shuffled anew in each by the seed.
    pub(super) fn shuffled(&self, pass: u32) -> impl Iterator<Item = Batch> {
        let mut shuffle = Shuffle::new(self.size, self.seed, pass, offsets());
        shuffle.load(self.all.clone());
        std::iter::from_fn(move || shuffle.deal())
    }
}

fn empty(config: &Config) -> Batch {
    Batch::new(config.query.features.len(), config.item.features.len(), offsets())
}

/// Moves a part of the events, as far as there are any, to a batch of its own.
fn part(all: &mut Batch, range: Range<usize>) -> Batch {
    let mut part = Batch::new(all.query.len(), all.item.len(), offsets());
    for event in range.start..all.len().min(range.end) {
        part.push_from(all, event);
    }
    part
}

/// A file has none.
fn offsets() -> Offsets {
    Offsets::new("file")
}
