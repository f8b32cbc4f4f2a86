//! The items of a step's traffic, each once: the loss, the item tower and the rows pay for distinct
//! items.
//!
//! Logs are skewed: of 1,024 clicks a few hundred items are left, and those of one item have the
//! same vector and the same log q. What must never be merged: events whose features differ.

use crate::kernel::id_map::IdMap;
use crate::memory::window::Traffic;
use millrace_events::Column;

/// Which events of a step share an item.
#[derive(Debug, PartialEq)]
pub(crate) struct Distinct {
    /// `[items]`, the first event of each, ascending: the batch's own items come first.
    pub(crate) events: Vec<u32>,
    /// How many of the items are of the batch.
    pub(crate) own: usize,
    /// `[events]`, index into `events` of each event's item.
    pub(crate) places: Vec<u32>,
    /// `[items]`, how many events each has.
    pub(crate) copies: Vec<u32>,
}

impl Distinct {
    /// Events apart, whatever their items.
    pub(crate) fn each(traffic: &Traffic<'_>) -> Self {
        let events: Vec<u32> = (0..traffic.len() as u32).collect();
        let (own, copies) = (traffic.own, vec![1; traffic.len()]);
        Self { places: events.clone(), events, own, copies }
    }

    /// Events together that have the item and all its features in common with the item's first
    /// event. Another value of a feature stands apart, with each of its repetitions.
    pub(crate) fn merged(traffic: &Traffic<'_>) -> Self {
        let count = traffic.len();
        let mut seen: IdMap<u32> = IdMap::with_capacity_and_hasher(count, Default::default());
        let mut distinct = Self {
            events: Vec::new(),
            own: 0,
            places: Vec::with_capacity(count),
            copies: Vec::new(),
        };
        for (event, &id) in traffic.item_ids.iter().enumerate() {
            let next = distinct.events.len() as u32;
            let first = *seen.entry(id).or_insert(next);
            let known = first < next && {
                let first = distinct.events[first as usize] as usize;
                traffic.columns.iter().all(|column| column.equal(first, event))
            };
            if known {
                distinct.copies[first as usize] += 1;
                distinct.places.push(first);
            } else {
                distinct.places.push(next);
                distinct.events.push(event as u32);
                distinct.copies.push(1);
                distinct.own += usize::from(event < traffic.own);
            }
        }
        distinct
    }

    /// The items' features: `columns` are those of the events.
    pub(crate) fn columns(&self, columns: &[Column]) -> Vec<Column> {
        let of_items = |column: &Column| {
            let mut out = Column::default();
            self.events.iter().for_each(|&event| out.push_from(column, event as usize));
            out
        };
        columns.iter().map(of_items).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::window::Window;
    use millrace_events::{Batch, Event, Events, FeatureValue, Offsets};

    fn batch(items: &[(u64, f32)]) -> Batch {
        let mut batch = Batch::new(Events::new(0, 2), Offsets::new("clicks"));
        for &(item_id, price) in items {
            batch.events.push(&Event {
                time_ms: 0,
                query_id: 0,
                item_id,
                item_name: "".into(),
                reward: 1.0,
                query: vec![],
                item: vec![FeatureValue::Id(item_id), FeatureValue::Number(price)],
            });
        }
        batch
    }

    #[test]
    fn equal_items_are_one_and_other_features_stand_apart() {
        let batch = batch(&[(7, 1.0), (8, 1.0), (7, 1.0), (7, 2.0), (8, 1.0), (7, 2.0)]);
        let distinct = Distinct::merged(&Window::new(6).fill_up(&batch));
        assert_eq!((distinct.own, &distinct.events[..]), (4, &[0, 1, 3, 5][..]));
        assert_eq!(distinct.places, [0, 1, 0, 2, 1, 3]);
        assert_eq!(distinct.copies, [2, 2, 1, 1]);
        let columns = distinct.columns(&batch.events.item);
        assert_eq!(columns[0].ids, [7, 8, 7, 7]);
        assert_eq!(columns[1].values, [1.0, 1.0, 2.0, 2.0]);
        assert_eq!(columns[1].ends, [1, 2, 3, 4]);
    }

    #[test]
    fn the_batchs_own_items_come_first() {
        let mut window = Window::new(6);
        window.push(&batch(&[(5, 1.0), (7, 1.0), (6, 1.0), (5, 1.0)]));
        let batch = batch(&[(7, 1.0), (8, 1.0)]);
        let distinct = Distinct::merged(&window.fill_up(&batch));
        assert_eq!((distinct.own, &distinct.events[..]), (2, &[0, 1, 2, 4][..]));
        assert_eq!(distinct.places, [0, 1, 2, 0, 3, 2]);
        assert_eq!(distinct.copies, [2, 1, 2, 1]);
    }

    #[test]
    fn values_that_are_absent_differ_from_all_others() {
        let mut batch = batch(&[(7, 0.0)]);
        for value in [FeatureValue::Absent, FeatureValue::Absent, FeatureValue::Number(-0.0)] {
            batch.events.push(&Event {
                time_ms: 0,
                query_id: 0,
                item_id: 9,
                item_name: "".into(),
                reward: 1.0,
                query: vec![],
                item: vec![FeatureValue::Id(9), value],
            });
        }
        let distinct = Distinct::merged(&Window::new(4).fill_up(&batch));
        assert_eq!(distinct.places, [0, 1, 1, 2]);
    }
}
