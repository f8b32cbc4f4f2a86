//! Follows the topic of versions and holds the newest vectors, as a vector store would.
//!
//! `cargo run --release --example read_versions -- BROKERS VECTORS VERSIONS [ITEM]`, for example
//! `127.0.0.1:9092 item-embeddings item-embedding-versions i7`
//!
//! A version is whole when as many vectors of it have come as its marker says. Only then it
//! replaces the one before, so that no answer mixes two. docs/reference/topics.md has the fields.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;

/// The value of an item's record, as far as this reader wants it.
#[derive(Clone, Deserialize)]
struct ItemVector {
    version: String,
    vector: Vec<f32>,
}

/// The marker of a version.
#[derive(Clone, Deserialize)]
pub(crate) struct Marker {
    /// Its name.
    pub(crate) version: String,
    /// How many vectors it has.
    pub(crate) vectors: usize,
    /// Where its records lie: of each partition the first offset, and the one after the last.
    offsets: HashMap<i32, (i64, i64)>,
}

/// A version that is whole: the vectors of its items.
pub(crate) struct Version {
    /// Its marker.
    pub(crate) marker: Marker,
    items: HashMap<String, Vec<f32>>,
}

impl Version {
    /// The items nearest to `item` with their cosines; vectors have length 1.
    pub(crate) fn neighbours(&self, item: &str, count: usize) -> Vec<(&str, f32)> {
        let Some(own) = self.items.get(item) else { return Vec::new() };
        let mut cosines = Vec::new();
        for (name, vector) in self.items.iter().filter(|(name, _)| *name != item) {
            cosines.push((name.as_str(), own.iter().zip(vector).map(|(a, b)| a * b).sum()));
        }
        cosines.sort_by(|(_, a): &(&str, f32), (_, b)| b.total_cmp(a));
        cosines.truncate(count);
        cosines
    }
}

/// An item's record; without a value the item went.
struct Record {
    partition: i32,
    offset: i64,
    key: String,
    value: Option<ItemVector>,
}

/// What the topics said so far.
#[derive(Default)]
struct Held {
    /// The vectors of the version that is held.
    items: HashMap<String, Vec<f32>>,
    /// What came after it.
    waiting: Vec<Record>,
    /// How many vectors of each version wait.
    counts: HashMap<String, usize>,
    /// The newest marker, while its version is not whole.
    marker: Option<Marker>,
}

impl Held {
    fn take_item(&mut self, record: Record) {
        if let Some(value) = &record.value {
            *self.counts.entry(value.version.clone()).or_default() += 1;
        }
        self.waiting.push(record);
    }

    /// The version of the newest marker, once it is whole. Compaction has taken records out of
    /// those before it: they never are, and the next marker comes.
    fn whole(&mut self) -> Option<Version> {
        let marker = self.marker.take_if(|marker| {
            self.counts.get(&marker.version).is_some_and(|&count| count == marker.vectors)
        })?;
        let end = |partition: &i32| marker.offsets.get(partition).map_or(0, |(_, to)| *to);
        let own = |record: &mut Record| record.offset < end(&record.partition);
        for Record { key, value, .. } in self.waiting.extract_if(.., own) {
            match value {
                Some(value) => self.items.insert(key, value.vector),
                None => self.items.remove(&key),
            };
        }
        self.counts.remove(&marker.version);
        Some(Version { marker, items: self.items.clone() })
    }
}

/// Reads both topics from their beginning and calls `shown` with every version that becomes whole,
/// until it returns false.
///
/// # Errors
/// A broker or a topic that is not there, a record of another shape.
pub(crate) fn follow(
    brokers: &str,
    [vectors, versions]: [&str; 2],
    mut shown: impl FnMut(&Version) -> bool,
) -> anyhow::Result<()> {
    // Nothing is committed: a store that restarts reads the compacted topic once more.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "read-versions")
        .set("enable.auto.commit", "false")
        // A version is one transaction. This is the default here, and not that of Java's client.
        .set("isolation.level", "read_committed")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for topic in [vectors, versions] {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
        let found = metadata.topics().first().filter(|found| !found.partitions().is_empty());
        for partition in found.with_context(|| format!("no topic `{topic}`"))?.partitions() {
            assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&assignment)?;
    let mut held = Held::default();
    loop {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        let message = message?;
        if message.topic() == versions {
            let value = message.payload().context("a marker without a value")?;
            held.marker = Some(serde_json::from_slice(value)?);
        } else {
            let (partition, offset) = (message.partition(), message.offset());
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let value = message.payload().map(serde_json::from_slice).transpose()?;
            held.take_item(Record { partition, offset, key, value });
        }
        if held.whole().is_some_and(|version| !shown(&version)) {
            return Ok(());
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (brokers, vectors, versions, item) = match &*arguments {
        [brokers, vectors, versions] => (brokers, vectors, versions, None),
        [brokers, vectors, versions, item] => (brokers, vectors, versions, Some(item)),
        _ => bail!("usage: read_versions BROKERS VECTORS VERSIONS [ITEM]"),
    };
    follow(brokers, [vectors, versions], |version| {
        println!("version {}: {} vectors", version.marker.version, version.marker.vectors);
        for (name, cosine) in item.map_or(Vec::new(), |item| version.neighbours(item, 5)) {
            println!("  {cosine:.3}  {name}");
        }
        true
    })
}
