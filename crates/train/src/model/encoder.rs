//! Feature columns become the towers' inputs, and input gradients become row gradients.
//!
//! Each side's input is the concatenation of its features: a pooled embedding for ids, bags,
//! histories and bucketed numbers, the values themselves for numbers and vectors. Pooling happens
//! here, on the host: the tower's leaf is `[events, width]` (`[items, width]` where equal items are
//! merged) instead of `[unique rows, dim]`, whose shape on a GPU would change every step.
//!
//! Knows the layout; the rows belong to [`crate::table`].

mod admitted;
mod attention;
mod lookup;
mod pooling;

use rayon::prelude::*;

use super::statistics::{RAW_MAX, Scaling, Statistics};
use crate::model::ModelSettings;
use crate::model::feature::{Feature, FeatureInput, NumberScale, Pool};
use crate::table::{Table, UNKNOWN};
use attention::Scratch;
pub use lookup::Lookup;
use millrace_events::{Column, FeatureValue, SplitMix, mix};

/// Slot of an entry whose id has no row (only where nothing is trained).
const NO_SLOT: u32 = u32::MAX;

/// Rows of input that one task fills: enough work to pay for handing it to a thread.
const ROWS_A_TASK: usize = 64;

/// How the features of both sides lie in the towers' inputs.
pub struct Encoder {
    /// The query side.
    pub query: Side,
    /// The item side.
    pub item: Side,
    /// Names of the tables, by table index.
    pub tables: Vec<String>,
}

/// One side's layout.
pub struct Side {
    parts: Vec<Part>,
    /// Floats of one input row.
    pub width: usize,
}

struct Part {
    source: Source,
    start: usize,
    width: usize,
    feature: Feature,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// Rows of a table, pooled by the column's weights.
    Rows { table: usize },
    /// The item's history that the trainer keeps: the last `length` items, mean-pooled.
    Kept { table: usize, length: usize },
    /// A number's bucket as a row.
    Buckets { table: usize, boundaries: Vec<f32>, salt: u64 },
    /// One float.
    Number(Scaling),
    /// The column's floats.
    Vector,
}

/// The ids of one batch in one side, ready to be looked up: what the columns hold, plus kept
/// histories and buckets.
pub struct Encoded {
    columns: Vec<Column>,
    events: usize,
}

impl Encoder {
    /// The layout of these features.
    ///
    /// # Panics
    /// If a feature names a table that `settings.tables` lacks.
    pub fn new(settings: &ModelSettings) -> Self {
        let mut statistics = 0;
        let query = Side::new(&settings.query, settings, &mut statistics);
        let item = Side::new(&settings.item, settings, &mut statistics);
        Self { query, item, tables: settings.tables.keys().cloned().collect() }
    }
}

impl Side {
    fn new(features: &[Feature], settings: &ModelSettings, statistics: &mut usize) -> Self {
        let mut start = 0;
        let mut parts = Vec::with_capacity(features.len());
        for feature in features {
            let source = Source::new(feature, settings, statistics);
            let width = match &feature.input {
                FeatureInput::Number(_) => 1 + usize::from(feature.missing),
                FeatureInput::Vector { length } => *length,
                FeatureInput::Rows { table }
                | FeatureInput::Kept { table, .. }
                | FeatureInput::Buckets { table, .. } => settings.tables[table].dim,
            };
            parts.push(Part { source, start, width, feature: feature.clone() });
            start += width;
        }
        Self { parts, width: start }
    }

    /// Items of a query's history that this side reads, at most.
    pub fn history_length(&self) -> usize {
        let lengths = self.parts.iter().map(|part| match part.source {
            Source::Kept { length, .. } => length,
            _ => 0,
        });
        lengths.max().unwrap_or(0)
    }

    /// The tables that its features read, by index; one may come twice.
    pub(crate) fn tables(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|part| part.source.table())
    }

    /// The features of `event` that have ids, none of which has a row: what nobody has learned of.
    pub fn unknown(&self, columns: &[Column], event: usize, tables: &[Table]) -> Vec<usize> {
        let parts = self.parts.iter().zip(columns).enumerate();
        let unknown = parts.filter(|(_, (part, column))| {
            let Source::Rows { table } = part.source else { return false };
            let ids = &column.ids[column.range(event)];
            !ids.is_empty() && ids.iter().all(|&id| tables[table].find(id).is_none())
        });
        unknown.map(|(feature, _)| feature).collect()
    }

    /// Turns raw columns into entries to look up. `histories` holds, per event, the items before
    /// it, oldest first (empty where no feature asks for it).
    pub fn encode(
        &self,
        columns: &[Column],
        events: usize,
        histories: &[Vec<u64>],
        statistics: &Statistics,
    ) -> Encoded {
        let columns = self
            .parts
            .iter()
            .zip(columns)
            .map(|(part, column)| part.encode(column, events, histories, statistics))
            .collect();
        Encoded { columns, events }
    }

    /// Takes a share of the ids for unknown, as the features' dropout says: which ones is a
    /// function of `seed` and of their places.
    pub(crate) fn drop_ids(&self, encoded: &mut Encoded, seed: u64) {
        let parts = self.parts.iter().zip(&mut encoded.columns).enumerate();
        for (number, (part, column)) in parts.filter(|(_, (part, _))| part.feature.dropout > 0.0) {
            let mut random = SplitMix::new(mix(seed ^ mix(number as u64)));
            for id in &mut column.ids {
                if random.unit() < part.feature.dropout {
                    *id = UNKNOWN;
                }
            }
        }
    }

    /// Adds a batch's raw numbers to the statistics of its `zscore` features.
    pub fn observe(&self, columns: &[Column], statistics: &mut Statistics) {
        for (part, column) in self.parts.iter().zip(columns) {
            if let Source::Number(Scaling::Zscore { statistic }) = part.source {
                match part.feature.clip {
                    None => statistics.observe(statistic, &column.values),
                    Some(_) => {
                        let values = column.values.iter().map(|&x| part.clipped(x));
                        statistics.observe(statistic, &values.collect::<Vec<f32>>());
                    }
                }
            }
        }
    }

    /// Whether `values` are of its features, one each.
    pub(crate) fn takes(&self, values: &[FeatureValue]) -> bool {
        let mut pairs = self.parts.iter().zip(values);
        values.len() == self.parts.len() && pairs.all(|(part, value)| part.takes(value))
    }

    /// Whether `columns`, whole ones, are of its features, one each.
    pub(crate) fn takes_columns(&self, columns: &[Column]) -> bool {
        let mut pairs = self.parts.iter().zip(columns);
        columns.len() == self.parts.len() && pairs.all(|(part, column)| part.takes_column(column))
    }

    /// Input without training: ids that have no row read that of unknown ones or, where there is
    /// none, the value a new row would have.
    pub fn input(&self, encoded: &Encoded, tables: &[Table]) -> Vec<f32> {
        let slots: Vec<Vec<u32>> = self
            .parts
            .iter()
            .zip(&encoded.columns)
            .map(|(part, column)| match part.source.table() {
                None => Vec::new(),
                Some(table) => {
                    let table = &tables[table];
                    let unknown = table.find(UNKNOWN).unwrap_or(NO_SLOT);
                    column.ids.iter().map(|&id| table.find(id).unwrap_or(unknown)).collect()
                }
            })
            .collect();
        let slots: Vec<&[u32]> = slots.iter().map(|slots| &slots[..]).collect();
        let mut input = Vec::new();
        self.gather(encoded, &slots, tables, &mut input);
        input
    }

    /// Makes `input` the tower's input, `[events, width]`; `slots` holds those of each part's
    /// entries.
    fn gather(&self, encoded: &Encoded, slots: &[&[u32]], tables: &[Table], input: &mut Vec<f32>) {
        input.resize(encoded.events * self.width, 0.0);
        input.par_chunks_mut(ROWS_A_TASK * self.width).enumerate().for_each(|(task, rows)| {
            let mut scratch = Scratch::default();
            for (offset, row) in rows.chunks_exact_mut(self.width).enumerate() {
                let event = task * ROWS_A_TASK + offset;
                row.fill(0.0);
                for ((part, column), slots) in self.parts.iter().zip(&encoded.columns).zip(slots) {
                    part.prefetch(column, event + 1, slots, tables);
                    let out = &mut row[part.start..part.start + part.width];
                    part.gather(column, event, slots, tables, &mut scratch, out);
                }
            }
        });
    }
}

impl Source {
    fn new(feature: &Feature, settings: &ModelSettings, statistics: &mut usize) -> Self {
        let position = |name: &String| {
            settings.tables.keys().position(|table| table == name).expect("a table of the settings")
        };
        match &feature.input {
            FeatureInput::Rows { table } => Self::Rows { table: position(table) },
            FeatureInput::Kept { table, length } => {
                Self::Kept { table: position(table), length: *length }
            }
            FeatureInput::Vector { .. } => Self::Vector,
            FeatureInput::Buckets { table, boundaries } => Self::Buckets {
                table: position(table),
                boundaries: boundaries.clone(),
                salt: millrace_events::id_key(feature.name.as_bytes()),
            },
            FeatureInput::Number(NumberScale::Log) => Self::Number(Scaling::Log),
            FeatureInput::Number(NumberScale::Raw) => Self::Number(Scaling::Raw),
            FeatureInput::Number(NumberScale::Zscore) => {
                *statistics += 1;
                Self::Number(Scaling::Zscore { statistic: *statistics - 1 })
            }
        }
    }

    fn table(&self) -> Option<usize> {
        match self {
            Self::Rows { table } | Self::Kept { table, .. } | Self::Buckets { table, .. } => {
                Some(*table)
            }
            Self::Number(_) | Self::Vector => None,
        }
    }
}

impl Part {
    fn takes(&self, value: &FeatureValue) -> bool {
        match (&self.source, value) {
            (_, FeatureValue::Absent)
            | (Source::Rows { .. }, FeatureValue::Id(_) | FeatureValue::Bag(_))
            | (Source::Number(_) | Source::Buckets { .. }, FeatureValue::Number(_)) => true,
            (Source::Vector, FeatureValue::Number(_)) => self.width == 1,
            (Source::Vector, FeatureValue::Vector(vector)) => vector.len() == self.width,
            _ => false,
        }
    }

    fn takes_column(&self, column: &Column) -> bool {
        let most = match self.source {
            Source::Rows { .. } => return column.ids.len() == column.values.len(),
            Source::Kept { .. } => 0,
            Source::Number(_) | Source::Buckets { .. } => 1,
            Source::Vector => self.width,
        };
        let takes = |event| [0, most].contains(&column.range(event).len());
        column.ids.is_empty() && (0..column.ends.len()).all(takes)
    }

    fn encode(
        &self,
        column: &Column,
        events: usize,
        histories: &[Vec<u64>],
        statistics: &Statistics,
    ) -> Column {
        let mut out = Column::default();
        match &self.source {
            Source::Rows { .. } => return pooling::weighed(column, &self.feature),
            Source::Vector => {
                out = column.clone();
                out.values.iter_mut().for_each(|x| *x = x.clamp(-RAW_MAX, RAW_MAX));
            }
            Source::Kept { length, .. } => {
                for history in histories {
                    let last = &history[history.len().saturating_sub(*length)..];
                    out.ids.extend_from_slice(last);
                    out.values.extend(pooling::of_history(last.len(), self.feature.half_life));
                    out.end();
                }
                assert_eq!(out.ends.len(), events, "a history for each event");
            }
            Source::Buckets { boundaries, salt, .. } => {
                for event in 0..events {
                    for &number in &column.values[column.range(event)] {
                        let bucket = boundaries.partition_point(|&boundary| boundary <= number);
                        out.ids.push(salt.wrapping_add(bucket as u64));
                        out.values.push(1.0);
                    }
                    out.end();
                }
            }
            Source::Number(scaling) => {
                for event in 0..events {
                    let number = column.values[column.range(event)].first();
                    let scaled = number.map(|&x| scaling.apply(self.clipped(x), statistics));
                    if self.feature.missing {
                        let missing = if scaled.is_none() { 1.0 } else { 0.0 };
                        out.values.extend([scaled.unwrap_or(0.0), missing]);
                    } else {
                        out.values.extend(scaled);
                    }
                    out.end();
                }
            }
        }
        out
    }

    fn clipped(&self, number: f32) -> f32 {
        self.feature.clip.map_or(number, |[least, most]| number.clamp(least, most))
    }

    fn gather(
        &self,
        column: &Column,
        event: usize,
        slots: &[u32],
        tables: &[Table],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let range = column.range(event);
        let Some(table) = self.source.table() else {
            // An optional number or vector that the record lacks stays zero.
            if !range.is_empty() {
                out.copy_from_slice(&column.values[range]);
            }
            return;
        };
        let table = &tables[table];
        let Scratch { new_row, attention } = scratch;
        let attends = self.feature.pool == Pool::Attention && !range.is_empty();
        attention.rows.clear();
        for (before, entry) in range.clone().enumerate() {
            let row = match slots[entry] {
                NO_SLOT => {
                    new_row.resize(out.len(), 0.0);
                    table.initial_row(column.ids[entry], new_row);
                    &new_row[..]
                }
                slot => table.row(slot),
            };
            match attends {
                true => attention.rows.extend_from_slice(row),
                false => {
                    pooling::take_in(self.feature.pool, before, column.values[entry], row, out);
                }
            }
        }
        if attends {
            attention.pool(&column.values[range], out);
        }
    }

    /// Asks for the rows of `event` ahead of their use, if there is such an event.
    fn prefetch(&self, column: &Column, event: usize, slots: &[u32], tables: &[Table]) {
        let Some(table) = self.source.table() else { return };
        if event < column.ends.len() {
            let slots = slots[column.range(event)].iter().filter(|&&slot| slot != NO_SLOT);
            slots.for_each(|&slot| tables[table].prefetch(slot));
        }
    }
}

#[cfg(test)]
mod tests;
