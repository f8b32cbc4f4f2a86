//! What turns features into vectors: tables, towers and the layout between them.
//!
//! The trainer changes a model; the publisher and `evaluate` load one from a checkpoint's
//! sections and only read it.

pub mod encoder;
pub mod feature;
pub mod statistics;
pub mod towers;

use std::collections::BTreeMap;

use crate::memory::catalogue::Catalogue;
use crate::memory::corpus::{Corpus, Item};
use crate::placement::Placement;
use crate::saved::{Damaged, ReadSection, decode, decode_first, whole};
use crate::table::{Admission, Table, TableSettings};
use encoder::Encoder;
use feature::Feature;
use millrace_events::{Column, EventSide, id_key};
use statistics::Statistics;
use towers::{DenseRule, DenseSettings, TowerSettings, TwoTower};

/// Items embedded at once: bounds the memory of a sweep over the corpus.
pub(crate) const ITEMS_A_PASS: usize = 4096;

/// What a [`Model`] is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// Seed of dense weights.
    pub seed: u64,
    /// Features of the query side, one a column of [`Events`](millrace_events::Events).
    pub query: Vec<Feature>,
    /// Features of the item side, one a column.
    pub item: Vec<Feature>,
    /// Every table that a feature names.
    pub tables: BTreeMap<String, TableSettings>,
    /// Widths of the hidden layers (ReLU) of each tower.
    pub hidden: Vec<usize>,
    /// Width of both towers' output, which is L2-normalised.
    pub dim: usize,
    /// How the towers' dense weights move.
    pub dense: DenseSettings,
}

impl ModelSettings {
    /// The program's defaults for these features, at batches of so many events.
    pub fn new(batch: usize, query: Vec<Feature>, item: Vec<Feature>) -> Self {
        let mut settings = Self {
            seed: 0,
            query,
            item,
            tables: BTreeMap::new(),
            hidden: vec![128],
            dim: 64,
            dense: DenseSettings {
                rule: DenseRule::Adagrad,
                learning_rate: 0.01,
                epsilon: 1e-5,
                decay: 0.99,
                average: 0.0,
            },
        };
        for name in settings.table_names() {
            let table = TableSettings {
                dim: 32,
                rows_max: 1_000_000,
                init_scale: 0.05,
                seed: settings.table_seed(&name),
                learning_rate: 0.05,
                epsilon: 1e-8,
                decay: 0.95,
                batch: batch as u64,
                admit_after: 1,
                expiry_events: None,
            };
            settings.tables.insert(name, table);
        }
        settings
    }

    /// Names of the tables that features name, sorted.
    pub fn table_names(&self) -> Vec<String> {
        let features = self.query.iter().chain(&self.item);
        let mut names: Vec<String> =
            features.filter_map(|feature| feature.table().map(str::to_owned)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The seed of the rows of the table `name`.
    pub fn table_seed(&self, name: &str) -> u64 {
        self.seed ^ id_key(name.as_bytes())
    }
}

/// Tables, towers, layout.
pub struct Model {
    /// Layout of the inputs.
    pub encoder: Encoder,
    /// One table per name in `encoder.tables`.
    pub tables: Vec<Table>,
    /// The towers.
    pub towers: TwoTower,
    /// Streamed statistics of `zscore` numbers.
    pub statistics: Statistics,
}

impl Model {
    /// A fresh model.
    pub fn new(settings: &ModelSettings, placement: &Placement) -> Self {
        let encoder = Encoder::new(settings);
        let tables = settings.tables.values().map(|table| Table::new(table.clone())).collect();
        let towers = TwoTower::new(
            &TowerSettings {
                query_width: encoder.query.width,
                item_width: encoder.item.width,
                hidden: settings.hidden.clone(),
                dim: settings.dim,
                dense: settings.dense.clone(),
                seed: settings.seed,
            },
            placement,
        );
        Self { encoder, tables, towers, statistics: Statistics::default() }
    }

    /// A model from a checkpoint's sections.
    ///
    /// # Errors
    /// A section that is missing, damaged or of another shape.
    pub fn restore(
        settings: &ModelSettings,
        placement: &Placement,
        read: ReadSection<'_>,
    ) -> Result<Self, Damaged> {
        let mut model = Self::new(settings, placement);
        model.load(read)?;
        Ok(model)
    }

    /// As [`Model::restore`], without the tables that no feature of an item reads: those of queries
    /// may be most of a checkpoint. It embeds items alone.
    ///
    /// # Errors
    /// As [`Model::restore`].
    pub fn restore_items(
        settings: &ModelSettings,
        placement: &Placement,
        read: ReadSection<'_>,
    ) -> Result<Self, Damaged> {
        let mut model = Self::new(settings, placement);
        let wanted: Vec<usize> = model.encoder.item.tables().collect();
        model.load_with(read, |table| wanted.contains(&table))?;
        Ok(model)
    }

    /// Takes over what a checkpoint's sections hold.
    pub(crate) fn load(&mut self, read: ReadSection<'_>) -> Result<(), Damaged> {
        self.load_with(read, |_| true)
    }

    /// The same, of tables only those that `wanted` names by their index.
    fn load_with(
        &mut self,
        read: ReadSection<'_>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<(), Damaged> {
        whole(read, "towers", |bytes| self.towers.load(bytes))?;
        self.statistics = whole(read, "statistics", |bytes| {
            let (statistics, counted): (Statistics, _) = decode_first("the statistics", bytes)?;
            if !statistics.plausible() {
                return Err("the statistics are damaged: no numbers give them".into());
            }
            self.load_counted(counted)?;
            Ok(statistics)
        })?;
        let tables = self.encoder.tables.iter().zip(&mut self.tables).enumerate();
        for (_, (name, table)) in tables.filter(|(index, _)| wanted(*index)) {
            table.restore(read, &section_of_table(name))?;
        }
        Ok(())
    }

    /// Takes over how often ids came that have no row yet; nothing, if none were counted. A table
    /// that counts now and did not begins without any.
    fn load_counted(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut counted: BTreeMap<String, Admission> = decode("ids without rows", bytes)?;
        for (name, table) in self.encoder.tables.iter().zip(&mut self.tables) {
            if let Some(admission) = counted.remove(name) {
                table.count_on(admission)?;
            }
        }
        Ok(())
    }

    /// Whether the items of `corpus` are such as this model embeds.
    ///
    /// # Errors
    /// One that is not.
    pub fn check(&self, corpus: &Corpus) -> Result<(), Damaged> {
        match corpus.items().find(|item| !self.encoder.item.takes(&item.values)) {
            None => Ok(()),
            Some(item) => Err(Damaged(format!(
                "section corpus: item {:?} has not the features that the config names: damaged",
                item.name
            ))),
        }
    }

    /// Whether the rows of `catalogue` are such as this model takes.
    ///
    /// # Errors
    /// One that is not.
    pub(crate) fn check_catalogue(&self, catalogue: &Catalogue) -> Result<(), Damaged> {
        let side = match catalogue.side() {
            EventSide::Query => &self.encoder.query,
            EventSide::Item => &self.encoder.item,
        };
        match catalogue.all_values().all(|values| side.takes(values)) {
            true => Ok(()),
            false => Err("a row of a catalogue has not the features of the config: damaged".into()),
        }
    }

    /// Events of the stream at the last touch of any row, by the section of its table; 0 without
    /// one.
    pub(crate) fn newest_touches(&self) -> impl Iterator<Item = (String, u64)> {
        let tables = self.encoder.tables.iter().zip(&self.tables);
        tables.map(|(name, table)| (section_of_table(name), table.newest_touch()))
    }

    /// Whether every weight and every row is a number.
    pub fn is_finite(&self) -> bool {
        self.towers.is_finite() && self.tables.iter().all(Table::is_finite)
    }

    /// Name and bytes of every section but the tables'.
    pub fn small_sections(&self) -> Vec<(String, Vec<u8>)> {
        let mut statistics = postcard::to_stdvec(&self.statistics).expect("plain numbers encode");
        let tables = self.encoder.tables.iter().zip(&self.tables);
        let counted = tables.filter(|(_, table)| table.admits_by_count());
        let counted: BTreeMap<&str, &Admission> =
            counted.map(|(name, table)| (&**name, table.admission())).collect();
        if !counted.is_empty() {
            statistics.extend(postcard::to_stdvec(&counted).expect("plain numbers encode"));
        }
        vec![("towers".to_owned(), self.towers.save()), ("statistics".into(), statistics)]
    }

    /// The tables that features of a query read, by index, each once.
    pub fn query_tables(&self) -> Vec<usize> {
        let mut tables: Vec<usize> = self.encoder.query.tables().collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// Gives up the tables that no feature of a query reads: it embeds queries alone from now on.
    pub fn forget_items(&mut self) {
        let wanted = self.query_tables();
        for (index, table) in self.tables.iter_mut().enumerate() {
            if !wanted.contains(&index) {
                table.clear();
            }
        }
    }

    /// Takes the items out whose rows went: a vector of theirs would be that of nobody. One is out
    /// if a feature of it had rows and has none left. One that only a catalogue knows has not had
    /// any: what it shares with others places it. Where ids are admitted by count, one without a
    /// row is like all that wait for one: it is out if nothing else places it.
    pub(crate) fn take_rowless(&self, items: &mut Vec<(u64, Item)>) -> Vec<(u64, Item)> {
        let mut rowless = Vec::new();
        for items in items.chunks(ITEMS_A_PASS) {
            let columns = columns(items);
            rowless.extend((0..items.len()).map(|item| {
                let (side, count) = (&self.encoder.item, items[item].1.count);
                let unknown = side.unknown(&columns, item, &self.tables);
                let had_one = |&feature: &usize| !side.admits_by_count(feature, &self.tables);
                let unplaced = || unknown.len() == side.features();
                count > 0 && (unknown.iter().any(had_one) || unplaced())
            }));
        }
        let mut at = 0..;
        items.extract_if(.., |_| rowless[at.next().expect("endless")]).collect()
    }

    /// PerTower of `items`, `[items, dim]`, without training.
    pub fn embed_items(&self, items: &[(u64, Item)]) -> Vec<f32> {
        let mut vectors = Vec::with_capacity(items.len() * self.towers.dim());
        for items in items.chunks(ITEMS_A_PASS) {
            let columns = columns(items);
            let side = &self.encoder.item;
            let encoded = side.encode(&columns, items.len(), &[], &self.statistics);
            let input = side.input(&encoded, &self.tables); // [items, item_width]
            vectors.extend(self.towers.embed_items(&input));
        }
        vectors
    }

    /// PerTower of a batch's queries, `[events, dim]`, without training. `histories` holds the
    /// items before each event.
    pub fn embed_queries(
        &self,
        columns: &[Column],
        events: usize,
        histories: &[Vec<u64>],
    ) -> Vec<f32> {
        let side = &self.encoder.query;
        let encoded = side.encode(columns, events, histories, &self.statistics);
        let input = side.input(&encoded, &self.tables); // [events, query_width]
        self.towers.embed_queries(&input)
    }
}

/// The features of `items`, a column each.
fn columns(items: &[(u64, Item)]) -> Vec<Column> {
    let features = items.first().map_or(0, |(_, item)| item.values.len());
    let mut columns = vec![Column::default(); features];
    for (_, item) in items {
        for (column, value) in columns.iter_mut().zip(&item.values) {
            column.push(value);
        }
    }
    columns
}

/// The section that holds the table `name`.
pub(crate) fn section_of_table(name: &str) -> String {
    format!("table.{name}")
}
