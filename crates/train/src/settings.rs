//! What a trainer is built from: plain values, whoever wrote them down.
//!
//! The defaults are those of the program's config; a test there keeps both the same.

use crate::frequency::{FrequencySettings, Mode, Rate};
use crate::memory::catalogue::Catalogue;
use crate::memory::corpus::Corpus;
use crate::model::ModelSettings;
use crate::model::feature::Feature;
use crate::objective::ObjectiveSettings;
use millrace_events::EventSide;

/// What a [`Trainer`](crate::Trainer) is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSettings {
    /// Seed of drawn negatives.
    pub seed: u64,
    /// Events of a full batch, and of the window that supplies every step's columns.
    pub batch: usize,
    /// How often each batch is trained on, one time after another, from 1 up.
    pub times: u32,
    /// Features, tables and towers.
    pub model: ModelSettings,
    /// The loss and its negatives.
    pub objective: ObjectiveSettings,
    /// The streaming estimator.
    pub frequency: FrequencySettings,
    /// Queries whose history is kept; beyond it the longest unseen go.
    pub queries_max: usize,
    /// Items held to draw from and to retrieve; beyond it the longest unseen go.
    pub items_max: usize,
    /// Events for which the corpus remembers that an item went.
    pub tombstone_events: u64,
    /// An item goes that has been unseen for so many events; none: only the bound makes it go.
    pub item_expiry_events: Option<u64>,
    /// Names of the attributes of items that are kept for people and stores: first those that
    /// events have, in their order, then those that only a catalogue has.
    pub attributes: Vec<String>,
}

impl TrainSettings {
    /// The program's defaults for these features, at batches of so many events.
    pub fn new(batch: usize, query: Vec<Feature>, item: Vec<Feature>) -> Self {
        Self {
            seed: 0,
            batch,
            times: 1,
            model: ModelSettings::new(batch, query, item),
            objective: ObjectiveSettings::default(),
            frequency: FrequencySettings {
                mode: Mode::Default,
                exact: false,
                hashes: 2,
                buckets: 1_000_000,
                alpha: Rate::Auto,
                initial_gap: 100.0,
                exact_ids_max: 1_000_000,
                seed: 0,
                batch: batch as u64,
            },
            queries_max: 1_000_000,
            items_max: 1_000_000,
            tombstone_events: 100_000_000,
            item_expiry_events: None,
            attributes: Vec::new(),
        }
    }

    /// The catalogue of a side, without a row: as many at most as there are items or histories.
    pub fn catalogue(&self, side: EventSide) -> Catalogue {
        let rows_max = match side {
            EventSide::Item => self.items_max,
            EventSide::Query => self.queries_max,
        };
        Catalogue::new(side, rows_max)
    }

    /// The corpus, without an item.
    pub fn corpus(&self) -> Corpus {
        Corpus::new(self.items_max, self.tombstone_events)
            .expiring(self.item_expiry_events)
            .keeping(self.attributes.clone())
    }
}
