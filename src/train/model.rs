//! What turns features into vectors: tables, towers and the layout between them.
//!
//! The trainer changes a model; the publisher and `evaluate` load one from a checkpoint's
//! sections and only read it.

use super::embedding::{Table, TableSettings};
use super::encoder::Encoder;
use super::placement::Placement;
use super::statistics::Statistics;
use super::two_tower::{DenseRule, DenseSettings, TowerSettings, TwoTower};
use crate::config::{Config, DenseOptimizer};
use crate::train::corpus::Item;
use millrace_events::Column;

/// Bytes of a part of the state, by section name.
pub type ReadSection<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

/// Items embedded at once: bounds the memory of a sweep over the corpus.
const ITEMS_A_PASS: usize = 4096;

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
    pub fn new(config: &Config, placement: &Placement) -> Self {
        let encoder = Encoder::new(config);
        let tables =
            encoder.tables.iter().map(|name| Table::new(table_settings(config, name))).collect();
        let towers = TwoTower::new(
            &TowerSettings {
                query_width: encoder.query.width,
                item_width: encoder.item.width,
                hidden: config.model.hidden.clone(),
                dim: config.model.dim,
                dense: DenseSettings {
                    rule: match config.optimizer.dense {
                        DenseOptimizer::Adagrad => DenseRule::Adagrad,
                        DenseOptimizer::Adam => DenseRule::Adam,
                    },
                    learning_rate: config.optimizer.learning_rate,
                    epsilon: config.optimizer.epsilon,
                    decay: config.optimizer.accumulator_decay,
                },
                seed: config.seed,
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
        config: &Config,
        placement: &Placement,
        read: ReadSection<'_>,
    ) -> Result<Self, String> {
        let mut model = Self::new(config, placement);
        model.towers.load(&read("towers")?)?;
        model.statistics = postcard::from_bytes(&read("statistics")?)
            .map_err(|error| format!("statistics do not decode: {error}"))?;
        for (name, table) in model.encoder.tables.iter().zip(&mut model.tables) {
            let bytes = read(&section_of_table(name))?;
            *table = Table::read_from(table_settings(config, name), &bytes)?;
        }
        Ok(model)
    }

    /// Whether every weight and every row is a number.
    pub fn is_finite(&self) -> bool {
        self.towers.is_finite() && self.tables.iter().all(Table::is_finite)
    }

    /// Name and bytes of every section but the tables'.
    pub fn small_sections(&self) -> Vec<(String, Vec<u8>)> {
        let statistics = postcard::to_stdvec(&self.statistics).expect("plain numbers encode");
        vec![("towers".to_owned(), self.towers.to_bytes()), ("statistics".into(), statistics)]
    }

    /// Vectors of `items`, `[items, dim]`, without training.
    pub fn embed_items(&self, items: &[(u64, Item)]) -> Vec<f32> {
        let mut vectors = Vec::with_capacity(items.len() * self.towers.dim());
        for items in items.chunks(ITEMS_A_PASS) {
            let features = items.first().map_or(0, |(_, item)| item.values.len());
            let mut columns = vec![Column::default(); features];
            for (_, item) in items {
                for (column, value) in columns.iter_mut().zip(&item.values) {
                    column.push(value);
                }
            }
            let side = &self.encoder.item;
            let encoded = side.encode(&columns, items.len(), &[], &self.statistics);
            let input = side.input(&encoded, &self.tables); // [items, item_width]
            vectors.extend(self.towers.embed_items(&input));
        }
        vectors
    }

    /// Vectors of a batch's queries, `[events, dim]`, without training. `histories` holds the
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

/// The section that holds the table `name`.
pub(super) fn section_of_table(name: &str) -> String {
    format!("table.{name}")
}

fn table_settings(config: &Config, name: &str) -> TableSettings {
    let table = config.table(name);
    TableSettings {
        dim: table.dim,
        rows_max: table.rows_max,
        init_scale: table.init_scale,
        seed: config.seed ^ millrace_events::id_key(name.as_bytes()),
        learning_rate: table.learning_rate,
        epsilon: table.epsilon,
        decay: table.accumulator_decay,
        batch: config.batch.size as u64,
        expiry_events: (table.expiry_events > 0).then_some(table.expiry_events),
    }
}
