//! What leaves for other systems, and how: `[publish]`.

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
            version_max_s: 600,
            threads: 1,
        }
    }
}

/// A record may be on its way for a minute, and its transaction must outlive it.
const VERSION_S_MIN: u64 = 60;

impl PublishConfig {
    pub(super) fn validate(&self, config: &Config, faults: &mut Faults) {
        at_least(faults, "publish.every_checkpoints", self.every_checkpoints, 1);
        at_least(faults, "publish.version_max_s", self.version_max_s, VERSION_S_MIN);
        at_least(faults, "publish.threads", self.threads as u64, 1);
        if self.topic.is_empty() {
            return;
        }
        if self.versions_topic.is_empty() {
            faults.add("publish.versions_topic", "must not be empty where publish.topic is set");
        }
        let kafka = &config.kafka;
        let reads = [&kafka.topic, &kafka.dead_letter_topic];
        if reads.contains(&&self.topic) || self.topic == self.versions_topic {
            faults.add("publish.topic", "must differ from every other topic");
        }
        if reads.contains(&&self.versions_topic) {
            faults.add("publish.versions_topic", "must differ from every other topic");
        }
    }
}
