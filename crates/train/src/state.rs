//! All that accumulates, with its [`Progress`]: what a checkpoint holds and a restore takes over.
//!
//! Owns which parts there are, and the names and order of their sections. Must never know: how a
//! step changes them, what a checkpoint is written to.

use crate::frequency::Frequency;
use crate::memory::corpus::Corpus;
use crate::memory::history::Histories;
use crate::memory::window::Window;
use crate::model::Model;
use crate::objective::Objective;
use crate::placement::Placement;
use crate::progress::Progress;
use crate::saved::{Damaged, ReadSection, whole};
use crate::settings::TrainSettings;
use millrace_events::Batch;

/// All that accumulates. Every change of it is a function of the batches in their order.
pub struct State {
    /// Tables and towers.
    pub model: Model,
    /// Last-seen features of every item.
    pub corpus: Corpus,
    /// The streaming estimator.
    pub frequency: Frequency,
    /// How far it has come.
    pub progress: Progress,
    pub(crate) histories: Histories,
    pub(crate) window: Window,
    pub(crate) objective: Objective,
}

impl State {
    /// A state that has learned nothing.
    pub(crate) fn new(settings: &TrainSettings, placement: &Placement, progress: Progress) -> Self {
        let model = Model::new(&settings.model, placement);
        let length = model.encoder.query.history_length();
        Self {
            corpus: settings.corpus(),
            frequency: Frequency::new(settings.frequency.clone()),
            progress,
            histories: Histories::new(settings.queries_max, length),
            window: Window::new(settings.batch),
            objective: Objective::new(
                &settings.objective,
                settings.model.dim,
                settings.batch,
                placement,
            ),
            model,
        }
    }

    /// The state that a checkpoint's sections hold.
    pub(crate) fn restore(
        settings: &TrainSettings,
        placement: &Placement,
        progress: Progress,
        read: ReadSection<'_>,
    ) -> Result<Self, Damaged> {
        let mut state = Self::new(settings, placement, progress);
        state.model.load(read)?;
        state.frequency.restore(read)?;
        state.histories.restore(read)?;
        state.corpus.restore(read)?;
        state.objective.load(read)?;
        let features = settings.model.item.len();
        whole(read, "window", |bytes| state.window.load(bytes, features))?;
        state.model.check(&state.corpus)?;
        let columns = state.window.columns();
        if !columns.is_empty() && !state.model.encoder.item.takes_columns(columns) {
            return Err("section window: it has not the features of the config: damaged".into());
        }
        state.check_clocks()?;
        Ok(state)
    }

    /// Nothing is ahead of the events that there have been: a step would take it for damage in its
    /// own work.
    fn check_clocks(&self) -> Result<(), Damaged> {
        let now = self.progress.events;
        let others = [("frequency", self.frequency.events()), ("corpus", self.corpus.clock())];
        let others = others.map(|(section, newest)| (section.to_owned(), newest));
        match self.model.newest_touches().chain(others).find(|&(_, newest)| newest > now) {
            None => Ok(()),
            Some((section, newest)) => Err(Damaged(format!(
                "section {section} is of event {newest}, the manifest of event {now}: damaged"
            ))),
        }
    }

    /// Name and bytes of the sections that say what the next step's columns are.
    pub(crate) fn column_sections(&self) -> Vec<(String, Vec<u8>)> {
        let mut sections = self.objective.sections();
        sections.push(("window".to_owned(), self.window.save()));
        sections
    }

    /// Vectors of a batch's queries, `[events, dim]`, as the next step will see them: each history
    /// has the items of the events before, those of this batch too. Changes nothing.
    pub fn embed_ahead(&self, batch: &Batch) -> Vec<f32> {
        let before = self.histories.peek(&batch.events.query_ids, &batch.events.item_ids);
        self.model.embed_queries(&batch.events.query, batch.len(), &before)
    }

    /// Vectors of a batch's queries, `[events, dim]`, each with its history as it is now, which
    /// stays so.
    pub fn embed_now(&self, batch: &Batch) -> Vec<f32> {
        let before = self.histories.now(&batch.events.query_ids);
        self.model.embed_queries(&batch.events.query, batch.len(), &before)
    }

    /// Divides the dot products in the loss, at present.
    pub fn temperature(&self) -> f32 {
        self.objective.temperature()
    }

    /// Queries whose history is kept.
    pub fn histories(&self) -> usize {
        self.histories.len()
    }
}
