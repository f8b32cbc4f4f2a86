//! A data set's events, decoded as the trainer decodes records.

use std::io::BufRead;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use millrace::config::Config;
use millrace::stream::cut::Cut;
use millrace::stream::decode::Mapping;
use millrace::stream::events_of;
use millrace::stream::produce::Input;
use millrace::stream::shuffle::Shuffle;
use millrace_events::{Batch, Events, Offsets};

/// All events in the order of the file.
pub(crate) struct Log {
    all: Events,
    size: usize,
    seed: u64,
}

impl Log {
    /// Reads the first events of `path`, at most so many, with the mapping of `config`.
    pub(crate) fn read(config: &Config, path: &Path, at_most: usize) -> anyhow::Result<Self> {
        let mut mapping = Mapping::new(config);
        let input = Input::open(&path.display().to_string())?;
        let mut all = events_of(config);
        for (number, line) in input.lines.lines().take(at_most).enumerate() {
            mapping
                .decode(Some(line?.as_bytes()), Some(0), &mut all)
                .with_context(|| format!("line {} of {}", number + 1, path.display()))?;
        }
        Ok(Self { all, size: config.batch.size, seed: config.seed })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The first `share` of the events, and the rest.
    pub(crate) fn split(self, share: f64) -> (Self, Self) {
        let cut = (self.len() as f64 * share) as usize;
        (self.part(0..cut), self.part(cut..usize::MAX))
    }

    /// The events of `range`, as far as there are any.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        Self { all: part(&self.all, range), size: self.size, seed: self.seed }
    }

    /// The events of the items that are `wanted`.
    pub(crate) fn of_items(&self, wanted: impl Fn(u64) -> bool) -> Self {
        let mut all = Events::none_of(&self.all);
        let events = (0..self.len()).filter(|&event| wanted(self.all.item_ids[event]));
        let places: Vec<_> = events.map(|event| (&self.all, event)).collect();
        all.gather(&places);
        Self { all, size: self.size, seed: self.seed }
    }

    /// Batches in the order of the file.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Batch> {
        self.cut(Cut::Full, 0)
    }

    /// Batches in the order of the file, cut as `cut` says of a log whose next record is the
    /// `position`-th.
    pub(crate) fn cut(&self, cut: Cut, position: usize) -> impl Iterator<Item = Batch> {
        let mut start = 0;
        std::iter::from_fn(move || {
            if start >= self.len() {
                return None;
            }
            let end = start + cut.size(self.size, (position + start) as u64);
            let batch = Batch::new(part(&self.all, start..end), offsets());
            start = end;
            Some(batch)
        })
    }

    /// Gives `step` the batches of the `pass`-th of so many passes: of a single one in the order of
    /// the file, of several shuffled anew in each.
    pub(crate) fn pass(&self, pass: u32, passes: u32, step: impl FnMut(Batch)) {
        match passes {
            1 => self.batches().for_each(step),
            _ => self.shuffled(pass).for_each(step),
        }
    }

    /// Batches of the `pass`-th pass, shuffled anew in each by the seed.
    fn shuffled(&self, pass: u32) -> impl Iterator<Item = Batch> {
        let mut shuffle = Shuffle::new(self.size, Cut::Full, self.seed, pass, offsets());
        shuffle.load(Batch::new(self.all.clone(), offsets()));
        std::iter::from_fn(move || shuffle.deal())
    }
}

/// A part of the events, as far as there are any.
fn part(all: &Events, range: Range<usize>) -> Events {
    let mut part = Events::none_of(all);
    let places: Vec<_> =
        (range.start..all.len().min(range.end)).map(|event| (all, event)).collect();
    part.gather(&places);
    part
}

/// A file has none.
fn offsets() -> Offsets {
    Offsets::new("file")
}
