//! All that accumulates, with its [`Progress`]: what a checkpoint holds and a restore takes over.
//!
//! Owns which parts there are, and the names and order of their sections. Must never know: how a
//! step changes them, what a checkpoint is written to.

use std::borrow::Cow;

use crate::frequency::Frequency;
use crate::memory::catalogue::{Catalogue, Filling, filled};
use crate::memory::corpus::Corpus;
use crate::memory::history::Histories;
use crate::memory::window::Window;
use crate::model::Model;
use crate::objective::Objective;
use crate::placement::Placement;
use crate::progress::Progress;
use crate::saved::{Damaged, ReadSection, whole};
use crate::settings::TrainSettings;
use millrace_events::{Batch, CataloguePlace, EventSide};

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
    /// One for each that is followed, in the order of its places.
    pub(crate) catalogues: Vec<Catalogue>,
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
            catalogues: Vec::new(),
        }
    }

    /// Follows the catalogues of these places from now on. One of a side that was followed before
    /// goes on, any other begins without a row.
    pub fn follow(&mut self, settings: &TrainSettings, places: Vec<CataloguePlace>) {
        let mut before = std::mem::take(&mut self.catalogues);
        for place in &places {
            let known = before.iter().position(|catalogue| catalogue.side() == place.side);
            self.catalogues.push(match known {
                Some(known) => before.swap_remove(known),
                None => settings.catalogue(place.side),
            });
        }
        self.progress.catalogues = places;
    }

    /// The rows that are known of a side; none: no catalogue has them.
    pub fn catalogue(&self, side: EventSide) -> Option<&Catalogue> {
        self.catalogues.iter().find(|catalogue| catalogue.side() == side)
    }

    /// Takes what catalogues say in `batch`, and gives the batch with what its events lack, each as
    /// of its place.
    pub(crate) fn take_changes<'b>(&mut self, batch: &'b Batch) -> Cow<'b, Batch> {
        if self.catalogues.is_empty() {
            return Cow::Borrowed(batch);
        }
        let events = &batch.events;
        let sides = [
            (EventSide::Query, &events.query_ids, &events.query),
            (EventSide::Item, &events.item_ids, &events.item),
        ];
        let mut found: Vec<(EventSide, Filling)> = Vec::new();
        for (side, ids, columns) in sides {
            let followed = self.catalogues.iter_mut().find(|catalogue| catalogue.side() == side);
            let Some(catalogue) = followed else { continue };
            let (mut filling, mut from) = (Filling::new(), 0);
            for change in batch.changes.iter().filter(|change| change.side == side) {
                let at = change.at as usize;
                catalogue.find_missing(ids, columns, from..at, &mut filling);
                catalogue.apply(change);
                from = at;
            }
            catalogue.find_missing(ids, columns, from..batch.len(), &mut filling);
            found.push((side, filling));
        }
        let items = batch.changes.iter().filter(|change| change.side == EventSide::Item);
        self.corpus.follow(items, self.progress.events + batch.len() as u64);
        filled_up(batch, &found)
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
        for place in &state.progress.catalogues {
            let mut catalogue = settings.catalogue(place.side);
            catalogue.restore(read)?;
            state.catalogues.push(catalogue);
        }
        let features = settings.model.item.len();
        whole(read, "window", |bytes| state.window.load(bytes, features))?;
        state.model.check(&state.corpus)?;
        state.catalogues.iter().try_for_each(|catalogue| state.model.check_catalogue(catalogue))?;
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

/// `batch` with what was `found` for its events.
fn filled_up<'b>(batch: &'b Batch, found: &[(EventSide, Filling)]) -> Cow<'b, Batch> {
    if found.iter().all(|(_, filling)| filling.iter().all(Vec::is_empty)) {
        return Cow::Borrowed(batch);
    }
    let mut whole = batch.clone();
    for (side, filling) in found {
        let columns = match side {
            EventSide::Query => &mut whole.events.query,
            EventSide::Item => &mut whole.events.item,
        };
        if let Cow::Owned(filled) = filled(columns, filling) {
            *columns = filled;
        }
    }
    Cow::Owned(whole)
}
