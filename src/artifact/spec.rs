//! `spec.json`: all that one has to know of a bundle's arrays to turn a query into its vector.

use serde_json::{Map, Value, json};

use super::examples::Example;
use crate::checkpoint::Checkpoint;
use crate::config::{Config, FeatureConfig, FeatureKind, Transform};
use millrace_events::{Offsets, id_key};
use millrace_train::model::Model;
use millrace_train::table::UNKNOWN;
use millrace_train::{ItemSide, QuerySide};

/// Grows with every change that an older reader would misread.
const FORMAT: u32 = 2;
/// Texts whose hashes are given.
const HASHED: [&str; 5] =
    ["", "858", "i7", "Ärger", "a text of more than sixteen bytes, as ids may be"];

/// One file of the bundle.
pub(super) struct FileSum {
    pub(super) name: &'static str,
    pub(super) bytes: u64,
    /// xxh3-128, in hex.
    pub(super) checksum: String,
}

/// What a spec tells of.
pub(super) struct Content<'c> {
    pub(super) checkpoint: &'c Checkpoint,
    pub(super) config: &'c Config,
    pub(super) queries: &'c QuerySide,
    pub(super) items: &'c ItemSide,
    pub(super) tensors: Vec<(String, Vec<usize>)>,
    pub(super) files: Vec<FileSum>,
    pub(super) examples: Vec<Example>,
}

/// The text of the spec. Whole numbers of 64 bits are texts: not every reader of JSON holds them.
pub(super) fn text(content: &Content<'_>) -> String {
    let Content { checkpoint, config, queries, items, tensors, files, examples } = content;
    let (manifest, model) = (&checkpoint.manifest, &queries.model);
    let hashes: Map<String, Value> =
        HASHED.iter().map(|&text| (text.into(), word(id_key(text.as_bytes())))).collect();
    let tensors: Map<String, Value> =
        tensors.iter().map(|(name, shape)| (name.clone(), json!(shape))).collect();
    let file = |file: &FileSum| json!({"bytes": file.bytes, "xxh3_128": file.checksum});
    let files: Map<String, Value> =
        files.iter().map(|sum| (sum.name.to_owned(), file(sum))).collect();
    let example = |example: &Example| json!({"query": example.query, "vector": example.vector});
    let spec = json!({
        "format": FORMAT,
        "program": manifest.program,
        "version": manifest.version,
        "run": manifest.run,
        "step": manifest.step,
        "event_time_ms": manifest.event_time_ms,
        "events": manifest.events_trained,
        "offsets": offsets(&manifest.offsets),
        "state_digest": manifest.digest,
        "config_digest": manifest.config_digest,
        "dim": items.dim,
        "items": items.len(),
        "attributes": items.attributes.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "temperature": items.temperature,
        "popularity": config.retrieval.popularity,
        "exclude_seen": config.retrieval.exclude_seen,
        "score": "dot(query, item) / temperature + popularity * log_q",
        "hash": {
            "name": "xxh3_64",
            "seed": 0,
            "of": "the id's text in UTF-8; an integer's decimal digits; true, false",
            "tests": hashes,
        },
        "tables": tables(model),
        "query": {"id": config.query.id, "features": features(config, model)},
        "tower": {
            "layers": model.towers.query_layers().count(),
            "between": "relu",
            "normalised": "x / sqrt(sum(x * x) + 1e-12)",
            "onnx": cfg!(feature = "onnx")
                .then_some("query_tower.onnx: input [batch, width], vector [batch, dim]"),
        },
        "tensors": tensors,
        "files": files,
        "examples": examples.iter().map(example).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&spec).expect("texts and numbers are JSON")
}

/// The next offsets to read, as the manifest has them but for the name of the partitions' object.
fn offsets(offsets: &Offsets) -> Value {
    let topic = |(topic, next): (&str, Vec<(i32, i64)>)| {
        let next = next.into_iter().map(|(partition, next)| (partition.to_string(), json!(next)));
        json!({"topic": topic, "next": next.collect::<Map<String, Value>>()})
    };
    let mut topics = offsets.by_topic().map(topic);
    let mut first = topics.next().expect("a log has a topic");
    let others: Vec<Value> = topics.collect();
    if !others.is_empty() {
        first["others"] = Value::Array(others);
    }
    first
}

fn word(value: u64) -> Value {
    Value::String(value.to_string())
}

/// What the rows of ids that are not there begin with, by table.
fn tables(model: &Model) -> Value {
    let tables = model.query_tables().into_iter().map(|table| {
        let (name, table) = (&model.encoder.tables[table], &model.tables[table]);
        let key = id_key(b"nobody 0");
        let mut row = vec![0.0; table.dim()];
        table.initial_row(key, &mut row);
        let test = json!({"key": word(key), "row": row});
        let (seed, scale) = table.initial();
        let about = json!({"dim": table.dim(), "seed": word(seed), "init_scale": scale,
            "unknown_key": table.find(UNKNOWN).map(|_| word(UNKNOWN)), "unknown": test});
        (name.clone(), about)
    });
    Value::Object(tables.collect())
}

/// The features in the order in which they lie in the tower's input.
fn features(config: &Config, model: &Model) -> Vec<Value> {
    let (mut start, mut statistic) = (0, 0);
    let feature = |feature: &FeatureConfig| {
        let mut about = json!(feature);
        let width = match feature.kind {
            FeatureKind::Vector => feature.length.unwrap_or(0),
            FeatureKind::Number if feature.table.is_empty() => 1 + usize::from(feature.missing),
            _ => config.table(&feature.table).dim,
        };
        about["start"] = json!(start);
        about["width"] = json!(width);
        start += width;
        if feature.kind == FeatureKind::Bag && feature.length.is_none() {
            about["length"] = json!(crate::config::BAG_LENGTH);
        }
        match feature.transform {
            Some(Transform::Buckets) => about["salt"] = word(id_key(feature.name.as_bytes())),
            Some(Transform::Zscore) => {
                // Without two different numbers there is nothing to scale by: it counts as 0.
                let moments = model.statistics.moments(statistic);
                about["mean"] = json!(moments.map(|(mean, _)| mean));
                about["deviation"] = json!(moments.map(|(_, deviation)| deviation));
                statistic += 1;
            }
            _ => {}
        }
        about
    };
    config.query.features.iter().map(feature).collect()
}
