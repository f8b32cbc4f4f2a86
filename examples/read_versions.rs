//! Follows the topic of versions and holds the newest vectors, as a vector store would.
//!
//! `cargo run --release --example read_versions -- BROKERS VECTORS VERSIONS [ITEM]`, for example
//! `127.0.0.1:9092 item-embeddings item-embedding-versions i7`
//!
//! A version is complete when its marker names as many vectors as are held of it. Only then it
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

/// What the topics said so far.
#[derive(Default)]
struct Held {
    /// The newest vector of each item, of whatever version.
    items: HashMap<String, ItemVector>,
    /// How many of them each version has.
    counts: HashMap<String, usize>,
    /// The newest marker, while its version is not whole.
    marker: Option<Marker>,
}

impl Held {
    /// Takes an item's record; without a value the item went.
    fn take_item(&mut self, key: String, value: Option<&[u8]>) -> anyhow::Result<()> {
        let new = value.map(serde_json::from_slice::<ItemVector>).transpose()?;
        if let Some(new) = &new {
            *self.counts.entry(new.version.clone()).or_default() += 1;
        }
        let old = match new {
            Some(new) => self.items.insert(key, new),
            None => self.items.remove(&key),
        };
        if let Some(old) = old {
            let count = self.counts.entry(old.version.clone()).or_default();
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old.version);
            }
        }
        Ok(())
    }

    /// The version of the newest marker, once it is whole. If the next one has begun to replace it,
    /// it never will be: the next marker comes.
    fn whole(&mut self) -> Option<Version> {
        let marker = self.marker.take_if(|marker| {
            self.counts.get(&marker.version).is_some_and(|&count| count == marker.vectors)
        })?;
        let own = self.items.iter().filter(|(_, item)| item.version == marker.version);
        let items = own.map(|(key, item)| (key.clone(), item.vector.clone())).collect();
        Some(Version { marker, items })
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
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            held.take_item(key, message.payload())?;
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
