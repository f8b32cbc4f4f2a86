//! The ids of a sample: how many there are of each kind, and where each query's records lie.

use std::collections::{BTreeSet, HashMap, HashSet};

use millrace_events::Events;
use serde::Serialize;

use crate::config::{Config, FeatureConfig, FeatureKind};

/// Ids of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// `query.id`, `item.id`, or the feature: ``query `country` ``.
    pub of: String,
    /// Different ones.
    pub distinct: usize,
}

/// What a sample tells of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ids {
    /// Events that were counted.
    pub events: usize,
    /// The queries, the items, and the features that have a table.
    pub kinds: Vec<Kind>,
    /// Partitions that the sample's events lie on.
    pub partitions: usize,
    /// Queries whose events lie on more than one of them.
    pub split_queries: usize,
}

/// Counts. All of it is bounded by the sample.
#[derive(Debug)]
pub(super) struct Tally {
    kinds: Vec<(String, Source, HashSet<u64>)>,
    /// The partition where a query was first seen; none: it was seen on others, too.
    queries: HashMap<u64, Option<i32>>,
    partitions: BTreeSet<i32>,
    events: usize,
}

/// Where an event has an id.
#[derive(Clone, Copy, Debug)]
enum Source {
    Query,
    Item,
    QueryFeature(usize),
    ItemFeature(usize),
}

impl Tally {
    pub(super) fn new(config: &Config) -> Tally {
        let mut kinds = vec![("query.id".to_owned(), Source::Query)];
        kinds.push(("item.id".to_owned(), Source::Item));
        // A history without a field is the trainer's, and a number has no ids.
        let told = |feature: &FeatureConfig| {
            let FeatureConfig { kind, table, field, .. } = feature;
            *kind != FeatureKind::Number && !table.is_empty() && !field.is_empty()
        };
        for (index, feature) in config.query.features.iter().enumerate().filter(|(_, f)| told(f)) {
            kinds.push((format!("query `{}`", feature.name), Source::QueryFeature(index)));
        }
        for (index, feature) in config.item.features.iter().enumerate().filter(|(_, f)| told(f)) {
            kinds.push((format!("item `{}`", feature.name), Source::ItemFeature(index)));
        }
        let kinds = kinds.into_iter().map(|(of, source)| (of, source, HashSet::new())).collect();
        Tally { kinds, queries: HashMap::new(), partitions: BTreeSet::new(), events: 0 }
    }

    /// Counts a record's events.
    pub(super) fn count(&mut self, partition: i32, events: &Events) {
        self.events += events.len();
        self.partitions.insert(partition);
        for &query in &events.query_ids {
            let first = self.queries.entry(query).or_insert(Some(partition));
            *first = first.filter(|first| *first == partition);
        }
        for (_, source, seen) in &mut self.kinds {
            seen.extend(match *source {
                Source::Query => &events.query_ids,
                Source::Item => &events.item_ids,
                Source::QueryFeature(index) => &events.query[index].ids,
                Source::ItemFeature(index) => &events.item[index].ids,
            });
        }
    }

    pub(super) fn ids(self) -> Ids {
        let kind =
            |(of, _, seen): (String, Source, HashSet<u64>)| Kind { of, distinct: seen.len() };
        Ids {
            events: self.events,
            kinds: self.kinds.into_iter().map(kind).collect(),
            partitions: self.partitions.len(),
            split_queries: self.queries.values().filter(|first| first.is_none()).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::decode::Mapping;
    use crate::stream::events_of;

    #[test]
    fn ids_are_counted_once_and_queries_on_two_partitions_are_seen() {
        let config = Config::from_toml(
            r#"
            [query]
            id = "user"
            features = [
                { name = "user", kind = "id", field = "user", table = "user" },
                { name = "seen", kind = "history", length = 3, table = "item" },
            ]
            [item]
            id = "sku"
            features = [
                { name = "tags", kind = "bag", field = "tags", table = "tag", optional = true },
                { name = "price", kind = "number", field = "price", optional = true },
            ]
            "#,
        )
        .expect("valid");
        let mut tally = Tally::new(&config);
        for (partition, user, tags) in
            [(0, "a", r#"["x","y"]"#), (1, "a", "[]"), (1, "b", r#""x""#)]
        {
            let record = format!(r#"{{"user": "{user}", "sku": "s", "tags": {tags}}}"#);
            let mut events = events_of(&config);
            let decoded =
                Mapping::new(&config).decode(Some(record.as_bytes()), Some(1), &mut events);
            assert_eq!(decoded, Ok(1));
            tally.count(partition, &events);
        }
        let ids = tally.ids();
        let kinds: Vec<_> = ids.kinds.iter().map(|kind| (&*kind.of, kind.distinct)).collect();
        let want = [("query.id", 2), ("item.id", 1), ("query `user`", 2), ("item `tags`", 2)];
        assert_eq!(kinds, want);
        assert_eq!((ids.events, ids.partitions, ids.split_queries), (3, 2, 1));
    }
}
