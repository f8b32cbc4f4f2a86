//! What turns queries into vectors, as of one state: the model and the histories.
//!
//! For who answers and does not train: the estimator, the window and the corpus are not there.
//!
//! Must never know: how a step changes them.

use std::borrow::Cow;

use crate::memory::catalogue::{Catalogue, Filling, filled};
use crate::memory::history::Histories;
use crate::model::Model;
use crate::placement::Placement;
use crate::saved::{Damaged, ReadSection};
use crate::settings::TrainSettings;
use millrace_events::{Batch, EventSide};

/// The query side of one state.
pub struct QuerySide {
    /// Tables and towers.
    pub model: Model,
    histories: Histories,
    /// What is known of queries.
    catalogue: Option<Catalogue>,
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
        Ok(Self { model, histories, catalogue: None })
    }

    /// The same, of a state that follows a catalogue of queries.
    ///
    /// # Errors
    /// A section that is missing or damaged.
    pub fn with_catalogue(
        mut self,
        settings: &TrainSettings,
        read: ReadSection<'_>,
    ) -> Result<Self, Damaged> {
        let mut catalogue = settings.catalogue(EventSide::Query);
        catalogue.restore(read)?;
        self.model.check_catalogue(&catalogue)?;
        self.catalogue = Some(catalogue);
        Ok(self)
    }

    /// `batch` with what the catalogue knows of its queries, and they lack.
    pub fn completed<'b>(&self, batch: &'b Batch) -> Cow<'b, Batch> {
        let Some(catalogue) = &self.catalogue else { return Cow::Borrowed(batch) };
        let (events, mut found) = (&batch.events, Filling::new());
        catalogue.find_missing(&events.query_ids, &events.query, 0..batch.len(), &mut found);
        match filled(&events.query, &found) {
            Cow::Borrowed(_) => Cow::Borrowed(batch),
            Cow::Owned(query) => {
                let mut batch = batch.clone();
                batch.events.query = query;
                Cow::Owned(batch)
            }
        }
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
