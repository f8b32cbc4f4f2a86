//! Every knob, its default, its unit and the checks across sections.
//!
//! Owns: the shape of a config file, `--set` overrides, and finding *all* faults of a file in one
//! pass (unknown keys, wrong types, values that contradict each other), each with its key's path.
//!
//! Must never know: what a knob does. Rooms take the section they need and build their own
//! settings from it. `config/trainer.toml` shows every key with its default; a test keeps it so.

mod alpha;
mod attributes;
mod catalogue;
mod defaults;
mod features;
mod interactions;
mod lengths;
mod load;
mod publishing;
mod records;
mod references;
mod registry;
mod serving;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod training;
mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use alpha::Alpha;
pub(crate) use attributes::attribute_name;
pub use catalogue::{CatalogueBegin, CatalogueConfig};
pub use features::*;
pub use interactions::{InteractionsConfig, OtherFields};
pub(crate) use load::leaves;
pub use load::{Fault, Faults, parse_override};
pub use publishing::{ArtifactConfig, PublishConfig, PublishFormat, VectorFormat};
pub use records::{Beside, Condition, EventRule, RecordFormat, Scalar, Step};
pub use records::{alternatives, beside, steps};
pub use registry::RegistryConfig;
pub use serving::{ArmConfig, HttpConfig, ServeConfig, ServeKeys};
pub use training::*;
pub(crate) use validate::BAG_LENGTH;

/// A whole config file. Every key has a default, so an empty file parses (and fails validation
/// for want of features).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the towers run.
    pub device: DeviceChoice,
    /// Seeds dense weights, embedding rows and hash functions.
    pub seed: u64,
    /// Brokers, topics, and what to do about bad or lost data.
    pub kafka: KafkaConfig,
    /// Where the schemas of records are.
    pub registry: RegistryConfig,
    /// How events become batches.
    pub batch: BatchConfig,
    /// Where an event's time stands in the record.
    pub timestamp: TimestampConfig,
    /// Which records are events; none: all are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event: Vec<EventRule>,
    /// Further topics of interactions, behind `kafka.topic`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interactions: Vec<InteractionsConfig>,
    /// Topics that say what items or queries are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub catalogue: Vec<CatalogueConfig>,
    /// What an event is worth.
    pub reward: RewardConfig,
    /// The query side: its id and features.
    pub query: SideConfig,
    /// The item side: its id and features.
    pub item: SideConfig,
    /// Defaults of every embedding table.
    pub embedding: EmbeddingConfig,
    /// Per-table departures from `[embedding]`.
    pub tables: BTreeMap<String, TableConfig>,
    /// The two towers.
    pub model: ModelConfig,
    /// The in-batch softmax.
    pub loss: LossConfig,
    /// Negatives beside the batch's own items.
    pub negatives: NegativesConfig,
    /// How the towers' dense weights move.
    pub optimizer: OptimizerConfig,
    /// How items are ranked for a query.
    pub retrieval: RetrievalConfig,
    /// The streaming frequency estimator.
    pub frequency: FrequencyConfig,
    /// Histories that the trainer keeps itself.
    pub history: HistoryConfig,
    /// The items there are to retrieve.
    pub corpus: CorpusConfig,
    /// Durable snapshots.
    pub checkpoint: CheckpointConfig,
    /// Embeddings on a topic.
    pub publish: PublishConfig,
    /// Versions as bundles of files.
    pub artifact: ArtifactConfig,
    /// Metrics and health over HTTP.
    pub http: HttpConfig,
    /// How `serve` answers.
    pub serve: ServeConfig,
}

/// `auto` takes a GPU only where a hardware adapter is found, never a software one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// GPU if there is a real one, else CPU.
    #[default]
    Auto,
    /// Our own passes over `gemm`.
    Cpu,
    /// burn-wgpu, on whatever adapter there is (a software one included).
    Gpu,
}

/// `[kafka]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port`, comma-separated.
    pub brokers: String,
    /// The topic of interactions; `[[interactions]]` has further ones.
    pub topic: String,
    /// What a record's bytes are, and what surrounds its fields.
    pub format: RecordFormat,
    /// The Avro schema of records that name none; empty: `[registry]` has it.
    pub schema_file: String,
    /// Where records that cannot be used go; empty: they are only counted.
    pub dead_letter_topic: String,
    /// Where to begin without a checkpoint.
    pub start: Start,
    /// What to do where the log no longer holds the checkpoint's offset.
    pub on_data_loss: OnDataLoss,
    /// What a record without a value is.
    pub tombstone: Tombstone,
    /// Order between partitions.
    pub order: Order,
    /// Events held back for the merge by event time, over all partitions.
    pub buffer_events: usize,
    /// A live merge waits this long for a silent partition, in ms; 0: for ever.
    pub merge_wait_ms: u64,
    /// Seconds between two looks for partitions that a live topic has got since; 0: nobody looks.
    pub discover_s: u64,
    /// The run stops when more than this share of a window's records is rejected.
    pub rejected_share_max: f64,
    /// Records per window of that share.
    pub rejected_window: u64,
    /// Longest id of a query, an item or a feature, in bytes.
    pub id_bytes_max: usize,
    /// Consumer group that offsets are committed to, for dashboards and to notice at a start that
    /// the checkpoint directory has been lost; empty: nothing is committed.
    pub group: String,
    /// Name of this client in the brokers' logs and quotas.
    pub client_id: String,
    /// librdkafka properties, passed through (security, fetch sizes).
    pub properties: BTreeMap<String, String>,
}

/// Where a run without a checkpoint begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The log's first record.
    Earliest,
    /// What is produced from now on.
    Latest,
}

/// Policy where the checkpoint's offset has left the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDataLoss {
    /// Stop with a message.
    Fail,
    /// Go on at the log's first record, with a warning.
    Earliest,
}

/// What a record without a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tombstone {
    /// A broken one: a log of interactions has no use for it.
    Reject,
    /// Compaction's way to remove a key: passed over.
    Skip,
}

/// Order of events between partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Merged by event time: the same log gives the same batches, to the bit.
    EventTime,
    /// As the broker delivers: no buffering, no repeatable batches over several partitions.
    Arrival,
}

/// `[batch]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchConfig {
    /// Events of a full batch, and of the window that supplies every step's columns.
    pub size: usize,
    /// How often each batch is trained on, one time after another.
    pub times: u32,
    /// An incomplete batch is trained after this long without a full one, in ms; 0: never.
    pub linger_ms: u64,
    /// A lingering batch with fewer events waits for more.
    pub min_events: usize,
    /// It waits at most this long since its first record, in ms.
    pub min_events_wait_ms: u64,
    /// Events that are shuffled together before they become batches; 0: none are.
    pub shuffle_events: usize,
    /// Batches that wait for the trainer.
    pub queue: usize,
}

/// `[timestamp]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimestampConfig {
    /// Field (dots reach into objects); empty: the Kafka record's own timestamp.
    pub field: String,
    /// Unit of a number, or of a string that is one.
    pub unit: TimeUnit,
    /// Form of any other string, as `strftime` has it; empty: ISO 8601.
    pub format: String,
    /// Time zone of strings that name none.
    pub zone: String,
    /// A record is rejected whose event is this much later than the Kafka record's own time, in
    /// seconds; 0: none is.
    pub ahead_max_s: u64,
}

/// Unit of a numeric timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    /// Seconds since 1970.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds since 1970.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds since 1970.
    #[serde(rename = "us")]
    Microseconds,
    /// Nanoseconds since 1970.
    #[serde(rename = "ns")]
    Nanoseconds,
}

/// `[reward]`: reward = clip(scale * value), or 0/1 by threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardConfig {
    /// Field; empty: every event is worth 1.
    pub field: String,
    /// Field by which it is divided; empty: none.
    pub per: String,
    /// What a record without the value is worth.
    pub missing: MissingReward,
    /// Factor before the clip.
    pub scale: f32,
    /// Lower bound.
    pub min: f32,
    /// Upper bound.
    pub max: f32,
    /// If set, the reward is 1 from this raw value on and 0 below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
}

/// What a record without a reward is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, or \"reject\"")]
pub enum MissingReward {
    /// So much, clipped as any reward is.
    Worth(f32),
    /// Nothing: it is rejected.
    Not(Reject),
}

/// The word `reject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reject {
    /// Such a record is rejected.
    Reject,
}

/// `[history]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryConfig {
    /// Queries whose history is kept; beyond it the longest unseen go.
    pub queries_max: usize,
}

/// `[corpus]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorpusConfig {
    /// Items held; beyond it the longest unseen go.
    pub items_max: usize,
    /// For this many events each publish repeats the tombstone of an item that went.
    pub tombstone_events: u64,
    /// An item goes that has been unseen for this many events; 0: only the bound makes it go.
    pub expiry_events: u64,
}

/// `[checkpoint]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointConfig {
    /// Directory of checkpoints; one trainer a directory.
    pub directory: String,
    /// Steps between checkpoints.
    pub every_steps: u64,
    /// A checkpoint is also taken after this many seconds with new steps; 0: never.
    pub every_s: u64,
    /// Newest checkpoints kept.
    pub keep: usize,
    /// Every this-many-th checkpoint at least is whole, the others hold what has changed; 1: all.
    pub base_every: u64,
}

impl Config {
    /// Settings of `table`: `[embedding]` with `[tables.NAME]` on top.
    pub fn table(&self, name: &str) -> EmbeddingConfig {
        let own = self.tables.get(name).cloned().unwrap_or_default();
        EmbeddingConfig {
            dim: own.dim.unwrap_or(self.embedding.dim),
            rows_max: own.rows_max.unwrap_or(self.embedding.rows_max),
            admit_after: own.admit_after.unwrap_or(self.embedding.admit_after),
            ..self.embedding.clone()
        }
    }

    /// Names of all embedding tables that features ask for, sorted.
    pub fn table_names(&self) -> Vec<String> {
        let features = self.query.features.iter().chain(&self.item.features);
        let mut names: Vec<String> =
            features.map(|feature| feature.table.clone()).filter(|name| !name.is_empty()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// This config without the values of `kafka.properties`, where passwords and private keys
    /// stand, without the login of `registry`, and without the keys of `serve`. A checkpoint holds
    /// this one: it is handed to others, and nothing reads any of them from it.
    #[must_use]
    pub fn without_credentials(&self) -> Config {
        let mut config = self.clone();
        config.kafka.properties.clear();
        (config.registry.user, config.registry.password) = Default::default();
        config.serve.keys = ServeKeys::default();
        config
    }

    /// The file as TOML, every key included: what a checkpoint carries to describe itself.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a config of plain values is valid TOML")
    }
}
