//! Which rows a batch touches, and where each of its entries finds its own.
//!
//! Ids are made distinct once a table and step, so that a row is looked up, gathered from and updated
//! once however often its id comes.

use super::super::embedding::{IdMap, Table};
use super::{Encoded, Encoder, Side};

/// Where the entries of a batch found their rows.
pub struct Lookup {
    /// Per table: the distinct ids of the batch.
    pub(super) distinct: Vec<Vec<u64>>,
    /// Per table: the rows' slots, beside `distinct`.
    pub(super) slots: Vec<Vec<u32>>,
    pub(super) query: Vec<Vec<u32>>, // per part, per entry: index into `distinct`
    pub(super) item: Vec<Vec<u32>>,
}

/// What one table has of a batch.
pub(super) struct Found {
    pub(super) distinct: Vec<u64>,
    pub(super) slots: Vec<u32>,
    /// Side, part, and for each of its entries the index into `distinct`.
    pub(super) places: Vec<(usize, usize, Vec<u32>)>,
}

impl Found {
    pub(super) fn new(
        sides: &[(&Side, &Encoded)],
        index: usize,
        table: &mut Table,
        step: u64,
    ) -> Self {
        let parts = sides.iter().enumerate().flat_map(|(side, (layout, encoded))| {
            let parts = layout.parts.iter().zip(&encoded.columns).enumerate();
            parts.map(move |(number, (part, column))| (side, number, part, column))
        });
        let own: Vec<_> =
            parts.filter(|(.., part, _)| part.source.table() == Some(index)).collect();
        let entries = own.iter().map(|(.., column)| column.ids.len()).sum();
        let mut seen: IdMap<u32> = IdMap::with_capacity_and_hasher(entries, Default::default());
        let mut distinct = Vec::with_capacity(entries);
        let mut place = |&id: &u64| {
            *seen.entry(id).or_insert_with(|| {
                distinct.push(id);
                u32::try_from(distinct.len() - 1).expect("a batch has under 2^32 ids")
            })
        };
        let places = own
            .into_iter()
            .map(|(side, number, _, column)| {
                (side, number, column.ids.iter().map(&mut place).collect())
            })
            .collect();
        let mut slots = Vec::with_capacity(distinct.len());
        table.touch(&distinct, step, &mut slots);
        Self { distinct, slots, places }
    }
}

impl Lookup {
    /// Slots per entry of the query side, per part.
    fn entry_slots(&self, side: &Side, places: &[Vec<u32>]) -> Vec<Vec<u32>> {
        side.parts
            .iter()
            .zip(places)
            .map(|(part, places)| match part.source.table() {
                None => Vec::new(),
                Some(table) => {
                    places.iter().map(|&place| self.slots[table][place as usize]).collect()
                }
            })
            .collect()
    }

    /// Input of the query tower, `[batch, width]`.
    pub fn query_input(&self, encoder: &Encoder, encoded: &Encoded, tables: &[Table]) -> Vec<f32> {
        let slots = self.entry_slots(&encoder.query, &self.query);
        encoder.query.gather(encoded, &slots, tables)
    }

    /// Input of the item tower, `[batch, width]`.
    pub fn item_input(&self, encoder: &Encoder, encoded: &Encoded, tables: &[Table]) -> Vec<f32> {
        let slots = self.entry_slots(&encoder.item, &self.item);
        encoder.item.gather(encoded, &slots, tables)
    }
}
