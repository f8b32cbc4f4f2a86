//! A catalogue says which items there are, and what.

use std::sync::Arc;

use super::{Attributes, Corpus, Item};
use crate::kernel::id_map::IdMap;
use millrace_events::{CatalogueChange, FeatureValue};

impl Corpus {
    /// Takes in what a catalogue says of items, at `now` events: those it lists are there from now
    /// on with the features that it has, those it has taken out are not. The last word on an item
    /// counts.
    pub(crate) fn follow<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c CatalogueChange> + Clone,
        now: u64,
    ) {
        let mut last: IdMap<(usize, &CatalogueChange)> = IdMap::default();
        changes.clone().enumerate().for_each(|(place, change)| {
            last.insert(change.id, (place, change));
        });
        if last.is_empty() {
            return;
        }
        self.clock = self.clock.max(now);
        let mut last: Vec<(usize, &CatalogueChange)> = last.into_values().collect();
        last.sort_unstable_by_key(|(place, _)| *place);
        let of_another = |items: &IdMap<Arc<Item>>, change: &CatalogueChange| {
            items.get(&change.id).is_some_and(|item| item.name != change.name)
        };
        // An id that has the key of another item: as for events, that one was there first.
        last.retain(|(_, change)| !of_another(&self.items, change));
        let removed = last.iter().filter(|(_, change)| change.values.is_none());
        let removed: Vec<&CatalogueChange> = removed.map(|(_, change)| *change).collect();
        if !removed.is_empty() {
            self.drop_items(removed.iter().map(|change| change.id), now);
            // The output topic may hold it all the same.
            self.expired.extend(removed.iter().map(|change| (change.name.clone(), now)));
        }
        for (_, change) in last {
            if let Some(values) = &change.values {
                self.write(change, values, now);
            }
        }
        self.follow_attributes(changes, now);
    }

    /// Writes a catalogue's values of an item, which may be new.
    fn write(&mut self, change: &CatalogueChange, values: &[FeatureValue], now: u64) {
        let id = change.id;
        if let Some(item) = self.items.get_mut(&id) {
            if let Some(capturing) = &mut self.capturing {
                capturing.items.keep(id, item);
            }
            let item = Arc::make_mut(item);
            for (own, value) in item.values.iter_mut().zip(values) {
                if *value != FeatureValue::Absent {
                    own.clone_from(value);
                }
            }
        } else {
            if self.items.len() >= self.items_max {
                self.sweep(now);
            }
            self.expired.remove(&change.name);
            let (name, values) = (change.name.clone(), values.to_vec());
            let attributes = Attributes::default();
            let item = Item { name, values, count: 0, touched: now, attributes };
            self.items.insert(id, Arc::new(item));
            self.order.push(id);
        }
        self.written.push(id);
    }
}
