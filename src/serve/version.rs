//! A checkpoint as what answers: one object, which nothing changes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, ensure};

use super::attributes::Attributes;
use super::features::Features;
use crate::checkpoint::Checkpoint;
use crate::config::{CatalogueConfig, Config};
use crate::sections;
use crate::stream::decode::Mapping;
use millrace_events::{EventSide, Names, Offsets, Witness, id_key};
use millrace_retrieval::{Centroids, Index, IndexSettings, Items};
use millrace_train::memory::corpus::Item;
use millrace_train::{ItemSide, QuerySide};

/// All that answers of one checkpoint need.
pub struct Version {
    /// The checkpoint's id: its run and its step.
    pub id: String,
    /// Names the run that began from nothing and led here.
    pub run: String,
    /// Steps trained.
    pub step: u64,
    /// Time of the newest event it was trained on, ms since 1970.
    pub event_time_ms: i64,
    /// The log up to where it was trained, and histories go.
    pub offsets: Offsets,
    /// Digest of its state.
    pub digest: String,
    /// When the checkpoint was written.
    pub made: SystemTime,
    /// The query tower, its tables, the histories.
    pub queries: QuerySide,
    /// The config that it was trained under.
    pub config: Config,
    /// How records become the events that histories are made of: equal for versions that read
    /// alike.
    pub reading: Arc<str>,
    /// The catalogue of items, and the next offset to read of it.
    pub(super) catalogue: Option<(CatalogueConfig, Offsets)>,
    /// Some records that it was trained on.
    pub witness: Witness,
    /// What fields a query has, and what becomes of them.
    pub mapping: Mapping,
    /// Names of the query's features.
    pub features: Vec<String>,
    /// The field that identifies a query.
    pub query_id: String,
    /// Vectors and log q of the items.
    pub index: Index,
    /// What items are, for filters.
    pub(super) item_features: Features,
    /// What is said of them.
    pub(super) attributes: Attributes,
    /// Divides the dot products.
    pub temperature: f32,
    /// Weight of log q unless a request says another.
    pub popularity: f32,
    /// Keys of the items, ascending: an item's number is its place here.
    keys: Vec<u64>,
    names: Names,
}

impl Version {
    /// The version that `checkpoint` holds, under the config that it was trained with. `kept` are
    /// the centres of the version before.
    ///
    /// # Errors
    /// Sections that are damaged, a config that this program does not read, or no item.
    pub fn load(
        checkpoint: &Checkpoint,
        settings: &IndexSettings,
        kept: Option<&Centroids>,
    ) -> anyhow::Result<Self> {
        let path = checkpoint.path.display();
        let config = Config::from_toml(&checkpoint.config()?)
            .map_err(|faults| anyhow!("the config in {path} is not valid here: {faults}"))?;
        let train = config.train();
        let read = sections::of(checkpoint);
        let cannot = || format!("cannot load {path}");
        let mut queries = QuerySide::restore(&train, &read).with_context(cannot)?;
        let places = &checkpoint.manifest.catalogues;
        if places.iter().any(|place| place.side == EventSide::Query) {
            queries = queries.with_catalogue(&train, &read).with_context(cannot)?;
        }
        let mut item_features = Features::new(&config);
        let look = |items: &[(u64, Item)]| item_features.add(items);
        let items = ItemSide::restore_looking(&train, &queries.model, &read, look);
        let items = items.with_context(cannot)?;
        ensure!(!items.is_empty(), "{path} holds no item: there is nothing to answer with");
        queries.model.forget_items();
        let ItemSide { keys, names, vectors, log_q, dim, temperature, attributes, .. } = items;
        let index = Index::build(Items { dim, vectors, log_q, temperature }, settings, kept)
            .with_context(cannot)?;
        let manifest = &checkpoint.manifest;
        let place = manifest.catalogues.iter().find(|place| place.side == EventSide::Item);
        let entry = config.catalogue.iter().find(|entry| entry.side == EventSide::Item);
        let catalogue = entry.zip(place).map(|(entry, place)| (entry.clone(), place.next.clone()));
        Ok(Self {
            catalogue,
            id: manifest.version.clone(),
            run: manifest.run.clone(),
            step: manifest.step,
            event_time_ms: manifest.event_time_ms,
            offsets: manifest.offsets.clone(),
            digest: manifest.digest.clone(),
            made: made(checkpoint).with_context(cannot)?,
            queries,
            mapping: Mapping::new(&config),
            features: config.query.features.iter().map(|feature| feature.name.clone()).collect(),
            query_id: config.query.id.clone(),
            reading: config.reading().into(),
            witness: manifest.witness.clone(),
            popularity: config.retrieval.popularity,
            config,
            index,
            item_features,
            attributes: Attributes::new(attributes),
            temperature,
            keys,
            names,
        })
    }

    /// The next offset to read of the catalogue of items; none: there is no such catalogue.
    pub(super) fn catalogue_next(&self) -> Option<&Offsets> {
        self.catalogue.as_ref().map(|(_, next)| next)
    }

    /// Items that may be found.
    pub fn items(&self) -> usize {
        self.keys.len()
    }

    /// The number of the item `id`, if there is one.
    pub fn number(&self, id: &str) -> Option<u32> {
        let number = self.number_of_key(id_key(id.as_bytes()))?;
        // Two ids may share a key.
        (self.name(number) == id).then_some(number)
    }

    /// The number of the item of this key.
    pub fn number_of_key(&self, key: u64) -> Option<u32> {
        let number = self.keys.binary_search(&key).ok()?;
        u32::try_from(number).ok()
    }

    /// The id of item `number`, as the log wrote it.
    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize)
    }
}

/// When a checkpoint was written.
fn made(checkpoint: &Checkpoint) -> io::Result<SystemTime> {
    match checkpoint.manifest.written_ms.and_then(|ms| u64::try_from(ms).ok()) {
        Some(ms) => Ok(UNIX_EPOCH + Duration::from_millis(ms)),
        // A manifest of format 2 does not say it.
        None => checkpoint.path.metadata()?.modified(),
    }
}
