//! A durable checkpoint becomes embeddings on a topic.
//!
//! Key = item id as the source wrote it; value = JSON with the vector, the version (the
//! checkpoint's id), step and event time; a null value where an item went. Compaction-friendly:
//! the newest value of a key is all a reader needs. A version ends with a marker on the versions
//! topic, sent after every vector was acknowledged, so that a reader never mixes two versions.
//!
//! Must never know: the live trainer. It works from a checkpoint's sections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::stream::source;
use crate::train::model::{Model, Placement};
use crate::train::popularity::Popularity;

/// A delivery that takes longer than this failed; librdkafka retries until then.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Wait between tries when the producer's queue is full.
const QUEUE_WAIT: Duration = Duration::from_millis(10);

/// What was published.
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
    /// Time of the newest event it was trained on, ms since 1970.
    pub event_time_ms: i64,
    /// Natural logarithm of the item's estimated frequency (expected occurrences a batch). Score of a
    /// query vector of the same version: `dot / temperature + popularity * log_q`, the constants being
    /// those of the marker.
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
    /// Where the query tower, tables and config are: the checkpoint.
    pub artifact: String,
}

/// Counts deliveries that failed for good.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(topic = message.topic(), %error, "a record was not delivered");
        }
    }
}

/// Sends versions to the output topic.
pub struct Publisher {
    producer: ThreadedProducer<Deliveries>,
    config: Config,
    placement: Placement,
}

impl Publisher {
    /// A publisher to `publish.topic` of `config`.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub fn new(config: &Config, placement: &Placement) -> anyhow::Result<Self> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &config.kafka.brokers)
            .set("client.id", "millrace-publisher")
            // Retries must not write a vector twice or out of order: with compaction the last
            // record of a key is what stays.
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("compression.type", "lz4")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string());
        for (key, value) in &config.kafka.properties {
            client.set(key, value);
        }
        let producer = client
            .create_with_context(Deliveries::default())
            .context("cannot create the publisher's producer; check kafka.properties")?;
        let (config, placement) = (config.clone(), placement.clone());
        Ok(Self { producer, config, placement })
    }

    /// Publishes every item of `checkpoint`, then its end marker; `None` where `stop` said so in
    /// between (a version without a marker is none).
    ///
    /// # Errors
    /// A checkpoint that does not load, or a record that the broker did not take in time. The
    /// marker is only sent after all vectors were acknowledged.
    pub fn publish(
        &self,
        checkpoint: &Checkpoint,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<Published>> {
        let read = |name: &str| checkpoint.section(name).map_err(|error| format!("{error:#}"));
        let model = Model::restore(&self.config, &self.placement, &read)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("cannot load {}", checkpoint.path.display()))?;
        let corpus = crate::train::trainer::corpus(&self.config);
        corpus.load(&checkpoint.section("corpus")?).map_err(anyhow::Error::msg)?;
        let items = corpus.sorted();
        let vectors = model.embed_items(&items); // [items, dim]
        let popularity = Popularity::restore(&self.config, &read).map_err(anyhow::Error::msg)?;
        let ids: Vec<u64> = items.iter().map(|(id, _)| *id).collect();
        let log_q = popularity.log_q(&ids); // [items]
        let manifest = &checkpoint.manifest;
        let failed_before = self.failed();
        let dim = model.towers.dim();
        let topic = &self.config.publish.topic;
        for (((_, item), vector), log_q) in items.iter().zip(vectors.chunks_exact(dim)).zip(log_q) {
            if stop() {
                return Ok(None);
            }
            let value = serde_json::to_vec(&ItemVector {
                version: manifest.version.clone(),
                step: manifest.step,
                event_time_ms: manifest.event_time_ms,
                log_q,
                vector: vector.to_vec(),
            })?;
            self.send(topic, &item.name, Some(&value))?;
        }
        let tombstones = corpus.tombstones();
        for name in &tombstones {
            self.send(topic, name, None)?;
        }
        self.flush(failed_before)?;
        let marker = VersionMarker {
            version: manifest.version.clone(),
            step: manifest.step,
            event_time_ms: manifest.event_time_ms,
            vectors: items.len() as u64,
            dim,
            temperature: popularity.temperature,
            popularity: popularity.weight,
            topic: topic.clone(),
            artifact: checkpoint.path.display().to_string(),
        };
        let versions_topic = &self.config.publish.versions_topic;
        self.send(versions_topic, &manifest.version, Some(&serde_json::to_vec(&marker)?))?;
        self.flush(failed_before)?;
        Ok(Some(Published {
            version: manifest.version.clone(),
            vectors: items.len() as u64,
            tombstones: tombstones.len() as u64,
            step: manifest.step,
        }))
    }

    fn send(&self, topic: &str, key: &str, value: Option<&[u8]>) -> anyhow::Result<()> {
        let deadline = std::time::Instant::now() + DELIVERY_TIMEOUT;
        let mut record = BaseRecord::<str, [u8]>::to(topic).key(key);
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    if std::time::Instant::now() > deadline {
                        bail!("the producer's queue stayed full for {DELIVERY_TIMEOUT:?}");
                    }
                    record = returned;
                    std::thread::sleep(QUEUE_WAIT);
                }
                Err((error, _)) => return Err(error).context("cannot send to the output topic"),
            }
        }
    }

    fn failed(&self) -> u64 {
        self.producer.context().failed.load(Ordering::Relaxed)
    }

    fn flush(&self, failed_before: u64) -> anyhow::Result<()> {
        self.producer
            .flush(DELIVERY_TIMEOUT)
            .context("the brokers did not acknowledge all item vectors in time")?;
        let failed = self.failed() - failed_before;
        if failed > 0 {
            bail!(
                "{failed} records of the output topic were not delivered; see the warnings above"
            );
        }
        Ok(())
    }
}

/// Reads the output topic from its beginning and returns the newest vector of each item of
/// `version`, by item id: what a consumer that feeds a vector store would hold.
///
/// # Errors
/// A topic that cannot be read to its end within a minute.
pub fn read_back(config: &Config, version: &str) -> anyhow::Result<Vec<(String, ItemVector)>> {
    let consumer = source::consumer(config)?;
    let topic = &config.publish.topic;
    let timeout = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let topic_metadata = metadata.topics().first().context("the output topic does not exist")?;
    let mut assignment = TopicPartitionList::new();
    for partition in topic_metadata.partitions() {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut open = topic_metadata.partitions().len();
    let mut vectors = std::collections::BTreeMap::new();
    let deadline = std::time::Instant::now() + DELIVERY_TIMEOUT;
    while open > 0 {
        if std::time::Instant::now() > deadline {
            bail!("{topic} could not be read to its end within {DELIVERY_TIMEOUT:?}");
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
