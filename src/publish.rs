//! A durable checkpoint becomes embeddings on a topic.
//!
//! Key = item id as the source wrote it; value = JSON with the vector, the version (the
//! checkpoint's id), step and event time; a null value if an item was evicted. Compaction-friendly:
//! the newest value of a key is all a reader needs. A version ends with a marker on the versions
//! topic, sent after every vector was acknowledged, so that a reader never mixes two versions. A
//! version without vectors is never sent: it would empty the stores that follow the markers.
//!
//! Must never know: the live trainer. It works from a checkpoint's sections.

mod versions;

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::sections;
use crate::stream::calendar::now_ms;
use crate::stream::outbox::{Outbox, Outgoing, Patience, SendError};
use crate::stream::topic::Topic;
use millrace_train::evaluation::popularity::Popularity;
use millrace_train::memory::corpus::Corpus;
use millrace_train::model::Model;
use millrace_train::placement::Placement;
pub use versions::newest_version;

/// Larger requests are worth a delay that nobody notices beside a sweep over the corpus.
const LINGER_MS: u32 = 20;
/// Vectors that wait to be sent, some 50,000 of 64 floats: the sweep waits for the brokers beyond
/// it.
const QUEUE_KBYTES: usize = 64 << 10;
/// Reading a topic back to its end takes seconds; past this the broker does not answer.
const READ_BACK_MAX: Duration = Duration::from_secs(60);

/// A version that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The version: the checkpoint's id.
    pub version: String,
    /// Item vectors sent.
    pub vectors: u64,
    /// Tombstones sent.
    pub tombstones: u64,
    /// Step of the checkpoint.
    pub step: u64,
}

/// Value of an item's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemVector {
    /// The checkpoint's id.
    pub version: String,
    /// Its step.
    pub step: u64,
    /// Time of the newest event it was trained on, ms since 1970; one ahead counts as the present.
    pub event_time_ms: i64,
    /// Natural logarithm of the item's estimated frequency (expected occurrences a batch). Score of
    /// a query vector of the same version: `dot / temperature + popularity * log_q`, the constants
    /// being those of the marker.
    pub log_q: f32,
    /// L2-normalised.
    pub vector: Vec<f32>,
}

/// Value of a version's end marker; its key is the version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionMarker {
    /// The checkpoint's id.
    pub version: String,
    /// Its step.
    pub step: u64,
    /// Time of the newest event it was trained on, ms since 1970.
    pub event_time_ms: i64,
    /// Item vectors of this version.
    pub vectors: u64,
    /// Width of a vector.
    pub dim: usize,
    /// Divides the dot products.
    pub temperature: f32,
    /// Weight of log q (`retrieval.popularity`).
    pub popularity: f32,
    /// Topic of the vectors.
    pub topic: String,
    /// The checkpoint, which holds the query tower, tables and config.
    pub artifact: String,
}

/// Sends versions to the output topic.
pub struct Publisher {
    outbox: Outbox,
    config: Config,
    placement: Placement,
}

impl Publisher {
    /// A publisher to `publish.topic` of `config`.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub fn new(config: &Config, placement: &Placement) -> anyhow::Result<Self> {
        let outbox = Outbox::new(config, LINGER_MS, QUEUE_KBYTES, Patience::Bounded)?;
        let (config, placement) = (config.clone(), placement.clone());
        Ok(Self { outbox, config, placement })
    }

    /// Publishes every item of `checkpoint`, then its end marker; `None` if `stop` said so in
    /// between (a version without a marker does not exist).
    ///
    /// # Errors
    /// A checkpoint that does not load or holds no item, or a record that the broker did not take
    /// in time: the first of them ends the version. The marker is only sent after all vectors were
    /// acknowledged.
    pub fn publish(
        &mut self,
        checkpoint: &Checkpoint,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<Published>> {
        let published = self.sweep(checkpoint, stop);
        if published.is_err() {
            // Records that the failed version left in the queue must not follow those of a later
            // version, and after a fatal error an idempotent producer sends nothing more.
            self.outbox = Outbox::new(&self.config, LINGER_MS, QUEUE_KBYTES, Patience::Bounded)?;
        }
        published
    }

    fn sweep(
        &mut self,
        checkpoint: &Checkpoint,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<Published>> {
        let read = sections::of(checkpoint);
        let settings = self.config.train();
        let mut corpus = Corpus::new(settings.items_max, settings.tombstone_events);
        corpus.restore(&read)?;
        let items = corpus.sorted();
        ensure!(
            !items.is_empty(),
            "{} holds no item: a version without vectors is not published",
            checkpoint.path.display()
        );
        let model = Model::restore(&settings.model, &self.placement, &read)
            .with_context(|| format!("cannot load {}", checkpoint.path.display()))?;
        model.check(&corpus)?;
        let vectors = model.embed_items(&items); // [items, dim]
        let popularity = Popularity::restore(&settings, self.config.retrieval.popularity, &read)?;
        let ids: Vec<u64> = items.iter().map(|(id, _)| *id).collect();
        let log_q = popularity.log_q(&ids); // [items]
        let manifest = &checkpoint.manifest;
        let dim = model.towers.dim();
        // One event of a wrong clock must not date every version after it.
        let event_time_ms = manifest.event_time_ms.min(now_ms());
        let topic = self.config.publish.topic.clone();
        for (((_, item), vector), log_q) in items.iter().zip(vectors.chunks_exact(dim)).zip(log_q) {
            if stop() {
                return Ok(None);
            }
            let value = serde_json::to_vec(&ItemVector {
                version: manifest.version.clone(),
                step: manifest.step,
                event_time_ms,
                log_q,
                vector: vector.to_vec(),
            })?;
            self.send(&topic, &item.name, Some(&value))?;
        }
        let tombstones = corpus.tombstones();
        for name in &tombstones {
            self.send(&topic, name, None)?;
        }
        self.outbox.flush()?;
        let marker = VersionMarker {
            version: manifest.version.clone(),
            step: manifest.step,
            event_time_ms,
            vectors: items.len() as u64,
            dim,
            temperature: popularity.temperature,
            popularity: popularity.weight,
            topic,
            artifact: checkpoint.path.display().to_string(),
        };
        let versions_topic = self.config.publish.versions_topic.clone();
        self.send(&versions_topic, &manifest.version, Some(&serde_json::to_vec(&marker)?))?;
        self.outbox.flush()?;
        Ok(Some(Published {
            version: manifest.version.clone(),
            vectors: items.len() as u64,
            tombstones: tombstones.len() as u64,
            step: manifest.step,
        }))
    }

    fn send(&mut self, topic: &str, key: &str, payload: Option<&[u8]>) -> Result<(), SendError> {
        let key = Some(key.as_bytes());
        self.outbox.send(Outgoing { topic, key, payload, ..Outgoing::default() })
    }
}

/// Reads the output topic from its beginning and returns the newest vector of each item of
/// `version`, by item id: what a consumer that feeds a vector store would hold.
///
/// # Errors
/// A topic that cannot be read to its end within a minute.
pub fn read_back(config: &Config, version: &str) -> anyhow::Result<Vec<(String, ItemVector)>> {
    let topic = Topic::named(&config.publish.topic, config)?;
    let partitions = topic.partitions()?;
    let Topic { consumer, name, .. } = &topic;
    let mut assignment = TopicPartitionList::new();
    for &partition in &partitions {
        assignment.add_partition_offset(name, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut open = partitions.len();
    let mut vectors = std::collections::BTreeMap::new();
    let deadline = Instant::now() + READ_BACK_MAX;
    while open > 0 {
        if Instant::now() > deadline {
            bail!("{name} could not be read to its end within {READ_BACK_MAX:?}");
        }
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error).context("cannot read the output topic"),
            Some(Ok(message)) => {
                let name = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                match message.payload() {
                    None => {
                        vectors.remove(&name);
                    }
                    Some(payload) => {
                        vectors.insert(name, serde_json::from_slice::<ItemVector>(payload)?);
                    }
                }
            }
        }
    }
    Ok(vectors.into_iter().filter(|(_, vector)| vector.version == version).collect())
}

#[cfg(test)]
mod tests;
