//! What there is to retrieve, as of one state: a vector, an id and a log q for each item.
//!
//! For who publishes, exports or answers. Items whose rows were evicted are not among them.
//!
//! Must never know: queries.

use crate::evaluation::popularity::Popularity;
use crate::memory::corpus::{Corpus, Item};
use crate::model::{ITEMS_A_PASS, Model};
use crate::saved::{Damaged, ReadSection};
use crate::settings::TrainSettings;
use millrace_events::Names;

/// The items of one state, by key.
pub struct ItemSide {
    /// Their keys, ascending: an item's number is its place here.
    pub keys: Vec<u64>,
    /// Their ids as the source wrote them.
    pub names: Names,
    /// `[items, dim]`, each of length 1, in pieces of equally many items, the last of which may
    /// have fewer: who makes something else of them gives them up one by one.
    pub vectors: Vec<Vec<f32>>,
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

    /// As [`restore`](Self::restore); `look` sees the items with their features, some thousand at a
    /// time, in the order of their numbers, before these go.
    ///
    /// # Errors
    /// As of [`restore`](Self::restore).
    pub fn restore_looking(
        settings: &TrainSettings,
        model: &Model,
        read: ReadSection<'_>,
        mut look: impl FnMut(&[(u64, Item)]),
    ) -> Result<Self, Damaged> {
        let mut corpus = settings.corpus();
        corpus.restore(read)?;
        model.check(&corpus)?;
        let mut side = Self::of_none(&corpus, model.towers.dim());
        let mut rest = corpus.into_sorted();
        loop {
            let items = side.next_piece(model, &mut rest);
            if items.is_empty() {
                break;
            }
            look(&items);
            side.vectors.push(model.embed_items(&items)); // [piece, dim]
            side.note(&items);
        }
        drop(rest);
        let popularity = Popularity::restore(settings, read)?;
        side.log_q = popularity.log_q(&side.keys); // [items]
        side.temperature = popularity.temperature;
        Ok(side)
    }

    /// Without any item of `corpus`, whose others went.
    fn of_none(corpus: &Corpus, dim: usize) -> Self {
        let attributes = corpus.attributes().iter();
        Self {
            keys: Vec::with_capacity(corpus.len()),
            names: Names::default(),
            vectors: Vec::new(),
            log_q: Vec::new(),
            dim,
            temperature: 1.0,
            gone: corpus.gone().map(|(name, at)| (name.into(), at)).collect(),
            rowless: Vec::new(),
            attributes: attributes.map(|name| (name.clone(), Names::default())).collect(),
        }
    }

    /// The next items of `rest` that have rows, as many as are embedded at once; none: these were
    /// all.
    fn next_piece(
        &mut self,
        model: &Model,
        rest: &mut impl Iterator<Item = (u64, Item)>,
    ) -> Vec<(u64, Item)> {
        let mut items = Vec::with_capacity(ITEMS_A_PASS);
        while items.len() < ITEMS_A_PASS {
            let mut more: Vec<_> = rest.by_ref().take(ITEMS_A_PASS - items.len()).collect();
            if more.is_empty() {
                break;
            }
            let rowless = model.take_rowless(&mut more).into_iter();
            self.rowless.extend(rowless.map(|(key, item)| (key, item.name)));
            items.append(&mut more);
        }
        items
    }

    /// Notes who `items` are, and what is said of them.
    fn note(&mut self, items: &[(u64, Item)]) {
        for (key, item) in items {
            self.keys.push(*key);
            self.names.push(&item.name);
            for (place, (_, column)) in self.attributes.iter_mut().enumerate() {
                column.push(item.attributes.get(place));
            }
        }
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
        let piece = self.vectors.first().map_or(1, |piece| piece.len() / self.dim);
        &self.vectors[number / piece][number % piece * self.dim..][..self.dim]
    }
}
