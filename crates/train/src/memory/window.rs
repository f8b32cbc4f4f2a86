//! The items of the last events, a full batch of them: what an event is told apart from.
//!
//! The softmax of a batch has that batch's items for its columns. A live stream comes in batches of
//! any size, and an event that is compared with two others learns next to nothing, or the wrong
//! thing. So the columns are always the items of the last `batch.size` events, those of the batch
//! included, embedded afresh: a full batch brings all of them itself, a smaller one is filled up
//! from here.
//!
//! Owns the item side of those events; it is state, and in the checkpoint. Must never know: the
//! loss, the towers, who cut the stream.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::saved::Damaged;
use millrace_events::{Batch, Column};

/// The events before a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Events of a full batch.
    size: usize,
    past: Items,
}

/// The item side of some events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Items {
    item_ids: Vec<u64>,
    query_ids: Vec<u64>,
    /// By item feature.
    columns: Vec<Column>,
}

/// A batch's events and those that fill its window up, in this order.
#[derive(Debug)]
pub(crate) struct Traffic<'a> {
    /// Events of the batch, the first ones.
    pub(crate) own: usize,
    /// `[events]`
    pub(crate) item_ids: Cow<'a, [u64]>,
    /// `[events]`
    pub(crate) query_ids: Cow<'a, [u64]>,
    /// By item feature.
    pub(crate) columns: Cow<'a, [Column]>,
}

impl Traffic<'_> {
    /// Events, the batch's included.
    pub(crate) fn len(&self) -> usize {
        self.item_ids.len()
    }
}

impl Window {
    /// Nothing came yet; `size` is that of a full batch.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, past: Items::default() }
    }

    /// `batch` with the events before it, as many as make a full one together. Costs a copy of the
    /// item side where the batch is not full.
    pub(crate) fn fill_up<'a>(&self, batch: &'a Batch) -> Traffic<'a> {
        let events = &batch.events;
        let mut traffic = Traffic {
            own: batch.len(),
            item_ids: Cow::Borrowed(&events.item_ids),
            query_ids: Cow::Borrowed(&events.query_ids),
            columns: Cow::Borrowed(&events.item),
        };
        let past = &self.past;
        let skip = past.len() - past.len().min(self.size.saturating_sub(batch.len()));
        if skip < past.len() {
            traffic.item_ids.to_mut().extend_from_slice(&past.item_ids[skip..]);
            traffic.query_ids.to_mut().extend_from_slice(&past.query_ids[skip..]);
            for (column, past) in traffic.columns.to_mut().iter_mut().zip(&past.columns) {
                (skip..self.past.len()).for_each(|event| column.push_from(past, event));
            }
        }
        traffic
    }

    /// Takes in the events of `batch`; the oldest go.
    pub(crate) fn push(&mut self, batch: &Batch) {
        let (past, events) = (&mut self.past, &batch.events);
        if past.columns.is_empty() {
            past.columns = vec![Column::default(); events.item.len()];
        }
        past.item_ids.extend_from_slice(&events.item_ids);
        past.query_ids.extend_from_slice(&events.query_ids);
        for (column, new) in past.columns.iter_mut().zip(&events.item) {
            column.append(new);
        }
        past.drop_front(past.len().saturating_sub(self.size));
    }

    /// By item feature; none before the first event.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.past.columns
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain numbers encode")
    }

    /// Takes over what [`save`](Self::to_bytes) gave, for items of `features`.
    pub(crate) fn load(&mut self, bytes: &[u8], features: usize) -> Result<(), Damaged> {
        let saved: Self = postcard::from_bytes(bytes)
            .map_err(|error| Damaged::undecodable("the window of events", error))?;
        let past = &saved.past;
        let whole = |column: &Column| {
            let entries = column.ends.last().map_or(0, |&end| end as usize);
            column.ends.len() == past.len()
                && column.ends.is_sorted()
                && column.values.len() == entries
                && (column.ids.is_empty() || column.ids.len() == entries)
        };
        let columns = past.columns.len() == features || past.len() == 0;
        if !columns || past.query_ids.len() != past.len() || !past.columns.iter().all(whole) {
            return Err("the window of events is damaged".into());
        }
        self.past = saved.past;
        self.past.drop_front(self.past.len().saturating_sub(self.size));
        Ok(())
    }
}

impl Items {
    fn len(&self) -> usize {
        self.item_ids.len()
    }

    fn drop_front(&mut self, events: usize) {
        self.item_ids.drain(..events);
        self.query_ids.drain(..events);
        self.columns.iter_mut().for_each(|column| column.drop_front(events));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::{Event, Events, FeatureValue, Offsets};

    /// Events with a bag of `id % 3` entries and a number for their item.
    fn batch(ids: std::ops::Range<u64>) -> Batch {
        let mut batch = Batch::new(Events::new(0, 2), Offsets::new("t"));
        for id in ids {
            let bag = (0..id % 3).map(|entry| (id + entry, 0.5)).collect();
            batch.events.push(&Event {
                time_ms: 0,
                query_id: id + 100,
                item_id: id,
                item_name: "".into(),
                reward: 1.0,
                query: vec![],
                item: vec![FeatureValue::Bag(bag), FeatureValue::Number(id as f32)],
            });
        }
        batch
    }

    #[test]
    fn the_window_is_full_however_the_stream_is_cut() {
        for cut in [1, 2, 3, 5, 8] {
            let mut window = Window::new(8);
            for start in (0..40).step_by(cut as usize) {
                let own = batch(start..start + cut);
                let traffic = window.fill_up(&own);
                // The batch, then what came before it, as far as there was anything.
                let past = (start + cut).saturating_sub(8)..start;
                let mut want = batch(start..start + cut).events;
                let before = batch(past.clone()).events;
                (0..before.len()).for_each(|event| want.push_from(&before, event));
                assert_eq!(*traffic.item_ids, want.item_ids);
                assert_eq!(*traffic.query_ids, want.query_ids);
                assert_eq!(*traffic.columns, want.item);
                assert_eq!(traffic.own, cut as usize);
                window.push(&own);
                let mut restored = Window::new(8);
                restored.load(&window.save(), 2).expect("just written");
                assert_eq!(restored, window);
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut window = Window::new(8);
        window.push(&batch(0..5));
        let bytes = window.save();
        assert!(Window::new(8).load(&bytes[..bytes.len() - 1], 2).is_err());
        assert!(Window::new(8).load(&bytes, 3).is_err());
        window.past.query_ids.pop();
        assert!(Window::new(8).load(&window.save(), 2).is_err());
    }
}
