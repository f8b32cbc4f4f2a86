//! Which rows a batch touches, and where each of its entries finds its own.
//!
//! A row is looked up, marked and updated once a step, however often its id comes. What a row's
//! gradient is made of is written down row by row, so that the update reads the towers' input
//! gradients and writes nothing but the row. Owns buffers that steps share.

use std::ops::Range;

use rayon::prelude::*;

use super::attention::Attention;
use super::pooling::give_back;
use super::{Encoded, Encoder, Side};
use crate::kernel::matrix::PerTower;
use crate::kernel::product::add_scaled;
use crate::model::feature::Pool;
use crate::table::{Table, TouchedRows};

/// Where the entries of a batch found their rows, and the towers' inputs. Kept and used again from
/// step to step.
#[derive(Default)]
pub struct Lookup {
    /// By table.
    tables: Vec<Found>,
    inputs: PerTower<Vec<f32>>,
}

/// What one table has of a batch.
#[derive(Default)]
struct Found {
    /// Ids of all entries, part after part.
    ids: Vec<u64>,
    touched: TouchedRows,
    /// `[ids]`, each one's slot.
    slots: Vec<u32>,
    /// Which entries are those of a part.
    parts: Vec<OfPart>,
    /// By row of `touched`, in one piece: its terms end where those of the next row begin.
    terms: Vec<Term>,
    /// `[rows]`, where a row's terms end.
    ends: Vec<u32>,
    /// Events of parts that are pooled by attention.
    attended: Vec<Attended>,
    /// `[entries of these]`, their weights in a mean.
    weights: Vec<f32>,
    /// `[entries of these, dim]`, the gradients of their rows.
    of_attended: Vec<f32>,
}

/// What one event has of a part that is pooled by attention.
struct Attended {
    side: usize,
    /// Where its slots are.
    entries: Range<usize>,
    /// Where the piece of the input begins.
    start: usize,
}

struct OfPart {
    side: usize,
    part: usize,
    entries: Range<usize>,
}

/// What one entry adds to its row's gradient: a piece of an input gradient, weighted.
#[derive(Clone, Copy, Default)]
struct Term {
    side: u8,
    /// Where the row is the greatest of its event, instead of weighted.
    greatest: bool,
    /// Where the piece begins.
    start: u32,
    weight: f32,
}

const QUERY: usize = 0;
const ITEM: usize = 1;
/// Stands for a side where the piece is one of [`Found::of_attended`].
const ATTENDED: u8 = 2;

impl Lookup {
    /// Finds or creates the rows of every id in the batch, `now` in events, and gathers the towers'
    /// inputs.
    pub fn run(
        &mut self,
        encoder: &Encoder,
        query: &Encoded,
        item: &Encoded,
        tables: &mut [Table],
        now: u64,
    ) {
        let sides = [(&encoder.query, query), (&encoder.item, item)];
        self.tables.resize_with(tables.len(), Found::default);
        let tasks = self.tables.par_iter_mut().zip(&mut *tables).enumerate().with_max_len(1);
        tasks.for_each(|(index, (found, table))| found.find(&sides, index, table, now));
        let gather = |side: usize, input: &mut Vec<f32>| {
            let (layout, encoded) = sides[side];
            layout.gather(encoded, &slots_of(&self.tables, layout, side), tables, input);
        };
        gather(QUERY, &mut self.inputs.query);
        gather(ITEM, &mut self.inputs.item);
    }

    /// Inputs of both towers, `[rows, width]` each.
    pub fn inputs(&self) -> PerTower<&[f32]> {
        PerTower { query: &self.inputs.query, item: &self.inputs.item }
    }

    /// Row-wise update of every touched row from the gradients of both inputs, `[rows, width]`
    /// each. Returns how many rows stayed because their gradient is not finite.
    pub fn update(&mut self, gradients: &PerTower<&[f32]>, tables: &mut [Table]) -> usize {
        let gradients = [gradients.query, gradients.item];
        let inputs = [&self.inputs.query[..], &self.inputs.item];
        // Tables are independent, and within a row the order of additions is fixed: the same bits
        // for any number of threads.
        let tables = self.tables.par_iter_mut().zip(tables).with_max_len(1);
        let nonfinite = tables.map(|(found, table)| {
            found.attend(&gradients, &inputs, table);
            let found = &*found;
            table.apply(&found.touched, |row, values, gradient| {
                for term in found.terms_of(row) {
                    let start = term.start as usize;
                    let piece = match term.side {
                        ATTENDED => &found.of_attended[start..],
                        side => &gradients[usize::from(side)][start..],
                    };
                    if term.greatest {
                        give_back(
                            gradient,
                            piece,
                            &inputs[usize::from(term.side)][start..],
                            values,
                        );
                    } else {
                        add_scaled(gradient, term.weight, piece);
                    }
                }
            })
        });
        nonfinite.sum()
    }
}

/// Slots of the entries of each part of a side.
fn slots_of<'f>(tables: &'f [Found], layout: &Side, side: usize) -> Vec<&'f [u32]> {
    let of_part = |(number, part): (usize, &super::Part)| {
        let Some(table) = part.source.table() else { return &[][..] };
        let found = &tables[table];
        let part = found.parts.iter().find(|part| (part.side, part.part) == (side, number));
        &found.slots[part.expect("every part of a table was looked up").entries.clone()]
    };
    layout.parts.iter().enumerate().map(of_part).collect()
}

impl Found {
    fn find(&mut self, sides: &[(&Side, &Encoded); 2], index: usize, table: &mut Table, now: u64) {
        self.ids.clear();
        self.parts.clear();
        for (side, (layout, encoded)) in sides.iter().enumerate() {
            for (part, (of, column)) in layout.parts.iter().zip(&encoded.columns).enumerate() {
                if of.source.table() == Some(index) {
                    let start = self.ids.len();
                    self.ids.extend_from_slice(&column.ids);
                    self.parts.push(OfPart { side, part, entries: start..self.ids.len() });
                }
            }
        }
        table.touch(&self.ids, now, &mut self.touched);
        let slots = self.touched.slots();
        self.slots.clear();
        self.slots.extend(self.touched.places().iter().map(|&place| slots[place as usize]));
        self.sort_terms(sides, table.dim());
    }

    /// Sorts the entries' terms by row; those of one row stay in the order of the entries.
    fn sort_terms(&mut self, sides: &[(&Side, &Encoded); 2], dim: usize) {
        let Self { touched, terms, ends, parts, attended, weights, of_attended, .. } = self;
        attended.clear();
        weights.clear();
        ends.clear();
        ends.resize(touched.slots().len(), 0);
        touched.places().iter().for_each(|&place| ends[place as usize] += 1);
        let mut sum = 0;
        for end in &mut *ends {
            // For now where they begin; each term moves it on, in the end to where they end.
            sum += std::mem::replace(end, sum);
        }
        terms.resize(touched.places().len(), Term::default());
        for OfPart { side, part, entries } in parts {
            let (layout, encoded) = sides[*side];
            let (width, part, column) =
                (layout.width, &layout.parts[*part], &encoded.columns[*part]);
            let places = &touched.places()[entries.clone()];
            let (greatest, attends) =
                (part.feature.pool == Pool::Max, part.feature.pool == Pool::Attention);
            for event in 0..encoded.events {
                let (start, range) = (event * width + part.start, column.range(event));
                if attends && !range.is_empty() {
                    let entries = entries.start + range.start..entries.start + range.end;
                    attended.push(Attended { side: *side, entries, start });
                }
                for entry in range {
                    let end = &mut ends[places[entry] as usize];
                    let weight = column.values[entry];
                    terms[*end as usize] = if attends {
                        let start = place(weights.len() * dim);
                        weights.push(weight);
                        Term { side: ATTENDED, greatest, start, weight: 1.0 }
                    } else {
                        Term { side: *side as u8, greatest, start: place(start), weight }
                    };
                    *end += 1;
                }
            }
        }
        of_attended.resize(weights.len() * dim, 0.0);
    }

    /// The gradients of rows that are pooled by attention, before any row moves.
    fn attend(&mut self, gradients: &[&[f32]; 2], inputs: &[&[f32]; 2], table: &Table) {
        let Self { attended, weights, of_attended, slots, .. } = self;
        let (dim, mut attention, mut at) = (table.dim(), Attention::default(), 0);
        for Attended { side, entries, start } in attended {
            let own = at..at + entries.len();
            at = own.end;
            let piece = *start..*start + dim;
            attention.rows.clear();
            for &slot in &slots[entries.clone()] {
                attention.rows.extend_from_slice(table.row(slot));
            }
            let (of_pooled, pooled) = (&gradients[*side][piece.clone()], &inputs[*side][piece]);
            let of_rows = &mut of_attended[own.start * dim..own.end * dim];
            attention.give_back(&weights[own], of_pooled, pooled, of_rows);
        }
    }

    fn terms_of(&self, row: usize) -> &[Term] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.terms[start..self.ends[row] as usize]
    }
}

fn place(float: usize) -> u32 {
    u32::try_from(float).expect("inputs and gradients have under 2^32 floats")
}
