//! What leaves for other systems, and how: `[publish]`, `[artifact]`.

use serde::{Deserialize, Serialize};

use super::Config;
use super::load::Faults;
use super::validate::at_least;

/// `[publish]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishConfig {
    /// Topic of item vectors; empty: nothing is published.
    pub topic: String,
    /// Topic of end markers, one a version.
    pub versions_topic: String,
    /// Topics of the two that are not there are made, compacted.
    pub create_topics: bool,
    /// Every this-many-th checkpoint is published; by `replay --publish` the last one as well.
    pub every_checkpoints: u64,
    /// What an item's record looks like.
    pub format: PublishFormat,
    /// What its vector looks like.
    pub vector: VectorFormat,
    /// Names of the attributes that an item's record has.
    pub attributes: Vec<String>,
    /// Every this-many-th version sends all vectors, those between only what has moved; 1: all do.
    pub full_every: u64,
    /// A vector is sent between full versions once it is further from what was sent of it than
    /// this, by cosine distance.
    pub moved_min: f32,
    /// A version that takes longer to send is given up, in seconds.
    pub version_max_s: u64,
    /// Threads that compute the vectors of a version.
    pub threads: usize,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            topic: "item-embeddings".into(),
            versions_topic: "item-embedding-versions".into(),
            create_topics: true,
            every_checkpoints: 1,
            format: PublishFormat::Flat,
            vector: VectorFormat::Json,
            attributes: Vec::new(),
            full_every: 1,
            moved_min: 0.001,
            version_max_s: 600,
            threads: 1,
        }
    }
}

/// `[artifact]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArtifactConfig {
    /// Directory of bundles, one a published version; empty: none is written.
    pub directory: String,
    /// Newest bundles kept.
    pub keep: usize,
}

impl Default for ArtifactConfig {
    fn default() -> Self {
        Self { directory: String::new(), keep: 3 }
    }
}

impl ArtifactConfig {
    pub(super) fn validate(&self, faults: &mut Faults) {
        at_least(faults, "artifact.keep", self.keep as u64, 1);
    }
}

/// Shape of an item's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishFormat {
    /// Key: the item's id. Value: an object of plain fields.
    Flat,
    /// Points as Qdrant's connector takes them.
    Qdrant,
    /// Key and value with their schemas, as Kafka Connect's `JsonConverter` reads them.
    Connect,
}

/// Shape of a vector in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VectorFormat {
    /// An array of numbers.
    Json,
    /// 32-bit floats, little-endian, in base64.
    Base64F32,
    /// Their upper halves.
    Base64Bf16,
}

/// A record may be on its way for a minute, and its transaction must outlive it.
const VERSION_S_MIN: u64 = 60;

impl PublishConfig {
    pub(super) fn validate(&self, config: &Config, faults: &mut Faults) {
        at_least(faults, "publish.every_checkpoints", self.every_checkpoints, 1);
        at_least(faults, "publish.version_max_s", self.version_max_s, VERSION_S_MIN);
        at_least(faults, "publish.threads", self.threads as u64, 1);
        at_least(faults, "publish.full_every", self.full_every, 1);
        if !(0.0..1.0).contains(&self.moved_min) {
            faults.add("publish.moved_min", format!("is {}; must be in 0..1", self.moved_min));
        }
        if self.format != PublishFormat::Flat && self.vector != VectorFormat::Json {
            let reason = "only the format \"flat\" has encoded vectors: connectors read numbers";
            faults.add("publish.vector", reason);
        }
        if self.topic.is_empty() {
            return;
        }
        if self.versions_topic.is_empty() {
            faults.add("publish.versions_topic", "must not be empty where publish.topic is set");
        }
        let kafka = &config.kafka;
        let reads: Vec<&str> = config.topics().chain([kafka.dead_letter_topic.as_str()]).collect();
        if reads.contains(&&*self.topic) || self.topic == self.versions_topic {
            faults.add("publish.topic", "must differ from every other topic");
        }
        if reads.contains(&&*self.versions_topic) {
            faults.add("publish.versions_topic", "must differ from every other topic");
        }
    }
}
