//! What catalogues say of items or queries: one row an id, the newest word on it.
//!
//! Owns the rows of one side, those that were taken out among them, so that an event of one does
//! not bring it back. Bounded: beyond it the rows that nobody has written for the longest time go.
//! Counts its own changes, since there may be many between two events.
//!
//! Must never know: the model, which batch a change came with.

use std::borrow::Cow;

use super::stamped::{Section, Snapshot, Stamped};
use crate::capture::{Capture, Extent};
use crate::saved::{Damaged, ReadSection};
use millrace_events::{CatalogueChange, Column, EventSide, FeatureValue};

/// The rows of one side.
pub struct Catalogue {
    side: EventSide,
    rows: Stamped<Row>,
}

/// One value per feature of the side; none: the id was taken out.
type Row = Option<Vec<FeatureValue>>;

/// A catalogue as it was at one step.
pub(crate) type CapturedCatalogue = Snapshot<Row>;

/// The section of a side.
const fn section(side: EventSide) -> Section {
    let name = match side {
        EventSide::Item => "catalogue.item",
        EventSide::Query => "catalogue.query",
    };
    Section { name, what: "a catalogue" }
}

impl Catalogue {
    /// No row yet, and never more than `rows_max`.
    pub fn new(side: EventSide, rows_max: usize) -> Self {
        Self { side, rows: Stamped::new(section(side), rows_max) }
    }

    /// What its ids are.
    pub fn side(&self) -> EventSide {
        self.side
    }

    /// Rows held, those that were taken out among them.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// Whether the id is one of it now.
    pub fn lists(&self, id: u64) -> bool {
        self.rows.get(id).is_some_and(Option::is_some)
    }

    /// Whether the id was taken out.
    pub fn has_removed(&self, id: u64) -> bool {
        self.rows.get(id).is_some_and(Option::is_none)
    }

    /// The values of the id's features; none: nothing is known of it.
    pub fn values(&self, id: u64) -> Option<&[FeatureValue]> {
        self.rows.get(id)?.as_deref()
    }

    /// Every id's values, in any order.
    pub(crate) fn all_values(&self) -> impl Iterator<Item = &[FeatureValue]> {
        self.rows.iter().filter_map(|(_, row)| row.as_deref())
    }

    /// Takes the catalogue's word on an id.
    pub(crate) fn apply(&mut self, change: &CatalogueChange) {
        self.rows.change(change.id, |row| row.clone_from(&change.values));
    }

    /// Finds what `events`, whose ids are among `ids`, lack in `columns`, those of their side's
    /// features, in the rows that there are now, and adds it to `found`.
    pub(crate) fn find_missing(
        &self,
        ids: &[u64],
        columns: &[Column],
        events: std::ops::Range<usize>,
        found: &mut Filling,
    ) {
        found.resize(columns.len(), Vec::new());
        for event in events {
            let Some(values) = self.values(ids[event]) else { continue };
            for (feature, (value, column)) in values.iter().zip(columns).enumerate() {
                if *value != FeatureValue::Absent && column.range(event).is_empty() {
                    found[feature].push((event, value.clone()));
                }
            }
        }
    }

    /// All there is now, to be written elsewhere while this goes on: costs a pointer a row.
    pub(crate) fn capture(&self) -> CapturedCatalogue {
        self.rows.capture()
    }

    /// Takes over what its section holds, increments included.
    ///
    /// # Errors
    /// Damaged bytes.
    pub fn restore(&mut self, read: ReadSection<'_>) -> Result<(), Damaged> {
        self.rows.restore(read, &|_, _, ahead| match ahead {
            true => Err("a row of the catalogue is ahead of its clock: damaged".into()),
            false => Ok(()),
        })
    }
}

/// By feature: places of events, ascending, and the value that each of them lacks.
pub(crate) type Filling = Vec<Vec<(usize, FeatureValue)>>;

/// `columns` with what was found for them.
pub(crate) fn filled<'c>(columns: &'c [Column], found: &Filling) -> Cow<'c, [Column]> {
    let mut columns = Cow::Borrowed(columns);
    for (feature, missing) in found.iter().enumerate().filter(|(_, missing)| !missing.is_empty()) {
        let before = std::mem::take(&mut columns.to_mut()[feature]);
        let (mut column, mut missing) = (Column::like(&before), missing.iter().peekable());
        for event in 0..before.ends.len() {
            match missing.next_if(|(at, _)| *at == event) {
                Some((_, value)) => column.push(value),
                None => column.push_from(&before, event),
            }
        }
        columns.to_mut()[feature] = column;
    }
    columns
}

/// The share is in pointers, one a row.
impl Capture for Catalogue {
    type Copy = CapturedCatalogue;

    fn begin_capture(&mut self, extent: Extent) {
        self.rows.begin_capture(extent);
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<CapturedCatalogue> {
        self.rows.advance_capture(share)
    }

    fn is_copied(&self) -> bool {
        self.rows.is_copied()
    }

    fn settle_capture(&mut self, durable: bool) {
        self.rows.settle_capture(durable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::{SavedBytes, SavedPart, TakePart};

    fn change(id: u64, value: Option<f32>) -> CatalogueChange {
        let values = value.map(|value| vec![FeatureValue::Absent, FeatureValue::Number(value)]);
        let (side, name) = (EventSide::Item, id.to_string().into());
        CatalogueChange { at: 0, side, id, name, values, attributes: Vec::new() }
    }

    #[test]
    fn an_event_keeps_what_it_has_and_gets_what_it_lacks() {
        let mut catalogue = Catalogue::new(EventSide::Item, 10);
        catalogue.apply(&change(1, Some(5.0)));
        catalogue.apply(&change(2, Some(6.0)));
        catalogue.apply(&change(2, None));
        let mut columns = vec![Column::default(), Column::default()];
        for value in [FeatureValue::Absent, FeatureValue::Number(9.0), FeatureValue::Absent] {
            columns[0].push(&FeatureValue::Id(7));
            columns[1].push(&value);
        }
        let mut found = Filling::new();
        catalogue.find_missing(&[1, 1, 2], &columns, 0..3, &mut found);
        let filled = filled(&columns, &found);
        assert_eq!(filled[0], columns[0]);
        let values: Vec<FeatureValue> = (0..3).map(|event| filled[1].value(event)).collect();
        let own = [FeatureValue::Number(5.0), FeatureValue::Number(9.0), FeatureValue::Absent];
        assert_eq!(values, own, "what was taken out is not known");
        assert!(catalogue.lists(1) && catalogue.has_removed(2) && !catalogue.has_removed(3));
    }

    #[test]
    fn rows_that_nobody_writes_for_the_longest_time_go_at_the_bound() {
        let mut catalogue = Catalogue::new(EventSide::Item, 32);
        (0..32).for_each(|id| catalogue.apply(&change(id, Some(1.0))));
        catalogue.apply(&change(0, Some(2.0)));
        catalogue.apply(&change(99, Some(1.0)));
        let there: Vec<u64> = (0..100).filter(|&id| catalogue.lists(id)).collect();
        assert_eq!(there, (0..1).chain(3..32).chain([99]).collect::<Vec<u64>>());
    }

    #[test]
    fn increments_add_up_though_no_event_came_between() {
        let mut catalogue = Catalogue::new(EventSide::Item, 32);
        let mut parts: Vec<(bool, Vec<u8>)> = Vec::new();
        for turn in 0..12_u64 {
            for n in 0..9 {
                let id = (turn * 7 + n * 5) % 40;
                catalogue.apply(&change(id, (n % 3 > 0).then_some(turn as f32)));
            }
            let extent = if turn == 0 { Extent::Whole } else { Extent::Changed };
            let want = catalogue.capture().save();
            catalogue.begin_capture(extent);
            // It changes while it is copied.
            catalogue.apply(&change(turn, None));
            let copy = catalogue.advance_capture(&mut 1000).expect("all of it");
            let (mut whole, mut increment) = (Vec::new(), Vec::new());
            let Ok(()) = copy.pieces::<std::convert::Infallible>(&mut |piece| {
                whole.extend(piece.content);
                increment.extend(piece.increment.unwrap_or_default());
                Ok(())
            });
            assert_eq!(whole, want);
            let durable = turn % 4 != 2;
            catalogue.settle_capture(durable);
            if durable {
                parts.push((turn > 0, if turn == 0 { whole } else { increment }));
            }
            let mut restored = Catalogue::new(EventSide::Item, 32);
            let read = |name: &str, take: TakePart<'_>| {
                assert_eq!(name, "catalogue.item");
                parts.iter().try_for_each(|(increment, bytes)| match increment {
                    true => take(SavedPart::Increment(SavedBytes::of(bytes))),
                    false => take(SavedPart::Whole(SavedBytes::of(bytes))),
                })
            };
            restored.restore(&read).expect("whole");
            if durable {
                assert_eq!(restored.capture().save(), want, "turn {turn}");
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut catalogue = Catalogue::new(EventSide::Query, 4);
        catalogue.apply(&change(1, Some(1.0)));
        let bytes = catalogue.capture().save();
        catalogue.rows.clock = 0;
        let ahead = catalogue.capture().save();
        for bytes in [&bytes[..bytes.len() - 1], &ahead] {
            let read = |_: &str, take: TakePart<'_>| take(SavedPart::Whole(SavedBytes::of(bytes)));
            assert!(Catalogue::new(EventSide::Query, 4).restore(&read).is_err());
        }
    }
}
