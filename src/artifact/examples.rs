//! Queries to compare an implementation with: records of the log, and some that nobody has sent.

use serde_json::{Map, Value, json};

use crate::config::{Config, FeatureConfig, FeatureKind, alternatives};
use crate::stream::decode::Mapping;
use crate::stream::events_of;
use crate::stream::newest;
use millrace_events::{Batch, Offsets};
use millrace_train::{ItemSide, QuerySide};

/// Examples of a bundle.
const COUNT: usize = 20;
/// Of those, so many that no log holds: ids that nobody has seen have vectors, too.
const MADE_UP: usize = 4;
/// Records that are looked at: some may hold what a model cannot use.
const RECORDS_MAX: i64 = 256;
/// A larger one says nothing that a smaller one does not.
const BYTES_MAX: usize = 4096;

/// The fields of a query, and its vector.
pub(super) struct Example {
    pub(super) query: Value,
    /// `[dim]`
    pub(super) vector: Vec<f32>,
}

/// Twenty examples. Without an answer from the brokers of `log` all of them are made up.
pub(super) fn of(
    log: Option<&Config>,
    config: &Config,
    queries: &QuerySide,
    items: &ItemSide,
) -> Vec<Example> {
    let fields = fields(config);
    let mapping = Mapping::new(config);
    let mut examples = Vec::with_capacity(COUNT);
    let mut add = |query: Value, most: usize| {
        if examples.len() >= most {
            return;
        }
        let mut events = events_of(config);
        let text = query.to_string();
        if text.len() <= BYTES_MAX && mapping.query(text.as_bytes(), &mut events).is_ok() {
            let batch = Batch::new(events, Offsets::new(config.kafka.topic.as_str()));
            let keys = batch.events.query_ids.iter();
            let histories: Vec<_> = keys.map(|&key| queries.history(key, &[])).collect();
            examples.push(Example { query, vector: queries.embed(&batch, &histories) });
        }
    };
    let newest = log.map(|log| newest::values(log, &log.kafka.topic, RECORDS_MAX));
    match newest {
        Some(Ok(records)) => {
            for record in records {
                let Ok(Value::Object(mut record)) = serde_json::from_slice(&record) else {
                    continue;
                };
                record.retain(|name, _| fields.contains(name));
                add(Value::Object(record), COUNT - MADE_UP);
            }
        }
        Some(Err(error)) => tracing::warn!("the examples are made up: {error:#}"),
        None => {}
    }
    (0..COUNT).for_each(|number| add(made_up(config, items, number), COUNT));
    examples
}

/// Top-level fields that say something of the query. The others are not for a bundle.
fn fields(config: &Config) -> Vec<String> {
    let features = config.query.features.iter();
    let named = features.flat_map(|feature| [&feature.field, &feature.weights]);
    let named = named.chain([&config.query.id]).filter(|field| !field.is_empty());
    let paths = named.flat_map(|field| alternatives(field));
    paths.map(|path| path.split('.').next().unwrap_or(path).to_owned()).collect()
}

fn made_up(config: &Config, items: &ItemSide, number: usize) -> Value {
    let mut record = Value::Object(Map::new());
    put(&mut record, &config.query.id, json!(format!("nobody {number}")));
    for feature in &config.query.features {
        let FeatureConfig { field, weights, kind, length, .. } = feature;
        // Some lack a field.
        if field.is_empty() || *field == config.query.id || number % 5 == 4 {
            continue;
        }
        let id = |at: usize| {
            let known = (number * 7 + at * 3) % items.len().max(1);
            if at.is_multiple_of(2) {
                items.names.get(known).to_owned()
            } else {
                format!("new {at}")
            }
        };
        let entries = length.unwrap_or(3).min(1 + number % 4);
        let value = match kind {
            FeatureKind::Id => json!(id(number)),
            FeatureKind::Bag | FeatureKind::History => {
                json!((0..entries).map(id).collect::<Vec<_>>())
            }
            FeatureKind::Number => json!(number as f64 * 1.5 - 4.0),
            FeatureKind::Vector => {
                let length = length.unwrap_or(0);
                json!((0..length).map(|at| (at + number) as f64 / 8.0).collect::<Vec<_>>())
            }
        };
        put(&mut record, field, value);
        if !weights.is_empty() {
            let factors = (0..entries).map(|at| 0.5 + at as f64);
            put(&mut record, weights, json!(factors.collect::<Vec<_>>()));
        }
    }
    record
}

/// Puts `value` at the first path of `field`, whose dots reach into objects.
fn put(record: &mut Value, field: &str, value: Value) {
    let path = alternatives(field).next().unwrap_or(field);
    let mut at = record;
    for name in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name];
    }
    *at = value;
}
