//! A trained state in memory, from which any number of trainers go on.

use std::collections::HashMap;

use millrace::config::Config;
use millrace_train::placement::Placement;
use millrace_train::progress::Progress;
use millrace_train::saved::{SavedBytes, SavedPart, TakePart};
use millrace_train::trainer::Trainer;

/// What a checkpoint would hold, and what it takes to go on from it.
pub(super) struct State {
    pub(super) config: Config,
    placement: Placement,
    progress: Progress,
    sections: HashMap<String, Vec<u8>>,
}

impl State {
    /// `trainer` as it is.
    pub(super) fn of(trainer: &Trainer, config: &Config, placement: &Placement) -> Self {
        Self {
            config: config.clone(),
            placement: placement.clone(),
            progress: trainer.progress().clone(),
            sections: trainer.capture().into_sections().into_iter().collect(),
        }
    }

    /// Another trainer of the same config as it is.
    pub(super) fn copy(&self, trainer: &Trainer) -> Self {
        Self::of(trainer, &self.config, &self.placement)
    }

    /// Events of a full batch.
    pub(super) fn size(&self) -> usize {
        self.config.batch.size
    }

    /// A trainer that goes on from here.
    pub(super) fn restore(&self) -> anyhow::Result<Trainer> {
        let read = |name: &str, take: TakePart<'_>| match self.sections.get(name) {
            Some(bytes) => take(SavedPart::Whole(SavedBytes::of(bytes))),
            None => Err(format!("there is no section {name}").into()),
        };
        let (settings, progress) = (self.config.train(), self.progress.clone());
        Ok(Trainer::restore(&settings, &self.placement, progress, &read)?)
    }
}
