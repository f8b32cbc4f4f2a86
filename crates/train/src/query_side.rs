//! What turns queries into vectors, as of one state: the model and the histories.
//!
//! For who answers and does not train: the estimator, the window and the corpus are not there.
//!
//! Must never know: how a step changes them.

use crate::memory::history::Histories;
use crate::model::Model;
use crate::placement::Placement;
use crate::saved::{Damaged, ReadSection};
use crate::settings::TrainSettings;
use millrace_events::Batch;

/// The query side of one state.
pub struct QuerySide {
    /// Tables and towers.
    pub model: Model,
    histories: Histories,
}

impl QuerySide {
    /// From a checkpoint's sections, on the CPU: one query is no work for a GPU.
    ///
    /// # Errors
    /// A section that is missing, damaged or of another shape.
    pub fn restore(settings: &TrainSettings, read: ReadSection<'_>) -> Result<Self, Damaged> {
        let model = Model::restore(&settings.model, &Placement::Cpu, read)?;
        let mut histories =
            Histories::new(settings.queries_max, model.encoder.query.history_length());
        histories.restore(read)?;
        Ok(Self { model, histories })
    }

    /// Vectors of a batch's queries, `[events, dim]`, each with the history given for it (see
    /// [`history`](Self::history)): [`State::embed_now`](crate::State::embed_now) of a state with
    /// this model and these histories gives the same bits.
    pub fn embed(&self, batch: &Batch, histories: &[Vec<u64>]) -> Vec<f32> {
        let before = if self.keeps_histories() { histories } else { &[] };
        self.model.embed_queries(&batch.events.query, batch.len(), before)
    }

    /// The last items of the query of this key once those of `after` have followed, oldest first.
    pub fn history(&self, query: u64, after: &[u64]) -> Vec<u64> {
        self.histories.followed(query, after)
    }

    /// Items of a history that the query tower reads at most; 0: none is kept here.
    pub fn history_length(&self) -> usize {
        self.model.encoder.query.history_length()
    }

    /// Every history that is held, by the key of its query, ascending; items oldest first.
    pub fn histories(&self) -> Vec<(u64, &[u64])> {
        self.histories.sorted()
    }

    /// Whether the query tower reads histories that are kept here.
    pub fn keeps_histories(&self) -> bool {
        self.history_length() > 0
    }
}
