//! Ids that have not come often enough for a row of their own.
//!
//! A sight is an id among an event's own features. Of a kept history, which repeats what earlier
//! events had, only the newest item is one, and only where no feature of an event has the table:
//! else it has been counted as that event's.

use super::{Encoded, Encoder, Side, Source};
use crate::table::{Table, UNKNOWN};
use millrace_events::{Column, Events};

impl Encoder {
    /// Counts the ids of `events`, whose queries had these items `before`, in the tables that
    /// admit ids by count.
    pub(crate) fn see(&self, events: &Events, before: &[Vec<u64>], tables: &mut [Table]) {
        if !tables.iter().any(Table::admits_by_count) {
            return;
        }
        self.query.see(&events.query, tables);
        self.item.see(&events.item, tables);
        for part in &self.query.parts {
            let Source::Kept { table, .. } = part.source else { continue };
            if !self.has_rows(table) {
                before
                    .iter()
                    .filter_map(|items| items.last())
                    .for_each(|&id| tables[table].see(id));
            }
        }
    }

    /// Whether a feature of an event reads this table.
    fn has_rows(&self, index: usize) -> bool {
        let mut parts = self.query.parts.iter().chain(&self.item.parts);
        parts.any(|part| matches!(part.source, Source::Rows { table } if table == index))
    }
}

impl Side {
    fn see(&self, columns: &[Column], tables: &mut [Table]) {
        for (part, column) in self.parts.iter().zip(columns) {
            if let Source::Rows { table } = part.source {
                column.ids.iter().for_each(|&id| tables[table].see(id));
            }
        }
    }

    /// Takes ids that are not admitted for unknown ones. Buckets of numbers always are.
    pub(crate) fn leave_out(&self, encoded: &mut Encoded, tables: &[Table]) {
        for (part, column) in self.parts.iter().zip(&mut encoded.columns) {
            let (Source::Rows { table } | Source::Kept { table, .. }) = part.source else {
                continue;
            };
            let table = &tables[table];
            if table.admits_by_count() {
                let unknown = column.ids.iter_mut().filter(|id| !table.admits(**id));
                unknown.for_each(|id| *id = UNKNOWN);
            }
        }
    }

    /// Whether ids of a feature wait until they get a row.
    pub(crate) fn admits_by_count(&self, feature: usize, tables: &[Table]) -> bool {
        self.parts[feature].source.table().is_some_and(|table| tables[table].admits_by_count())
    }

    /// Features of this side.
    pub(crate) fn features(&self) -> usize {
        self.parts.len()
    }
}
