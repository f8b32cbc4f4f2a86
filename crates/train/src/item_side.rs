//! What there is to retrieve, as of one state: a vector, an id and a log q for each item.
//!
//! For who publishes, exports or answers. Items whose rows were evicted are not among them.
//!
//! Must never know: queries.

use crate::evaluation::popularity::Popularity;
use crate::memory::corpus::Item;
use crate::model::Model;
use crate::saved::{Damaged, ReadSection};
use crate::settings::TrainSettings;
use millrace_events::Names;

/// The items of one state, by key.
pub struct ItemSide {
    /// Their keys, ascending: an item's number is its place here.
    pub keys: Vec<u64>,
    /// Their ids as the source wrote them.
    pub names: Names,
    /// `[items, dim]`, each of length 1.
    pub vectors: Vec<f32>,
    /// `[items]`, nats, of expected occurrences a batch.
    pub log_q: Vec<f32>,
    /// Width of a vector.
    pub dim: usize,
    /// Divides the dot products.
    pub temperature: f32,
    /// Items that went, each with the events of the stream when it did.
    pub gone: Vec<(Box<str>, u64)>,
    /// Key and id of items that are there and have no row: nobody knows their vectors.
    pub rowless: Vec<(u64, Box<str>)>,
    /// Attributes by name, each the JSON of every item; empty: nothing is said.
    pub attributes: Vec<(String, Names)>,
}

impl ItemSide {
    /// From a checkpoint's sections, of which `model` has been restored. Embeds on the pool of the
    /// calling thread.
    ///
    /// # Errors
    /// A section that is missing, damaged, or does not fit the model.
    pub fn restore(
        settings: &TrainSettings,
        model: &Model,
        read: ReadSection<'_>,
    ) -> Result<Self, Damaged> {
        Self::restore_looking(settings, model, read, |_| {})
    }

    /// As [`restore`](Self::restore); `look` sees the items with their features, in the order of
    /// their numbers, before these go.
    ///
    /// # Errors
    /// As of [`restore`](Self::restore).
    pub fn restore_looking(
        settings: &TrainSettings,
        model: &Model,
        read: ReadSection<'_>,
        look: impl FnOnce(&[(u64, Item)]),
    ) -> Result<Self, Damaged> {
        let mut corpus = settings.corpus();
        corpus.restore(read)?;
        model.check(&corpus)?;
        let gone = corpus.gone().map(|(name, at)| (name.into(), at)).collect();
        let attributes = corpus.attributes().to_vec();
        let mut items = corpus.into_sorted();
        let rowless = model.take_rowless(&mut items).into_iter();
        let rowless = rowless.map(|(key, item)| (key, item.name)).collect();
        look(&items);
        let vectors = model.embed_items(&items); // [items, dim]
        let keys: Vec<u64> = items.iter().map(|(key, _)| *key).collect();
        let mut names = Names::default();
        items.iter().for_each(|(_, item)| names.push(&item.name));
        let column = |(place, name): (usize, String)| {
            let mut column = Names::default();
            items.iter().for_each(|(_, item)| column.push(item.attributes.get(place)));
            (name, column)
        };
        let attributes = attributes.into_iter().enumerate().map(column).collect();
        drop(items);
        let popularity = Popularity::restore(settings, read)?;
        let log_q = popularity.log_q(&keys); // [items]
        let (dim, temperature) = (model.towers.dim(), popularity.temperature);
        Ok(Self { keys, names, vectors, log_q, dim, temperature, gone, rowless, attributes })
    }

    /// Items that have a vector.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The vector of item `number`, `[dim]`.
    pub fn vector(&self, number: usize) -> &[f32] {
        &self.vectors[number * self.dim..][..self.dim]
    }
}
