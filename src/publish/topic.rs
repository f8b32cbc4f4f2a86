//! The output topic, read from its beginning to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::bail;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::ItemVector;
use crate::config::Config;
use crate::stream::topic::Topic;

/// Nothing comes for so long: the broker does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The newest vector of each item of `version`, by item id: what a consumer that feeds a vector
/// store would hold.
///
/// # Errors
/// A topic that cannot be read, or holds something else.
pub fn read_back(config: &Config, version: &str) -> anyhow::Result<Vec<(String, ItemVector)>> {
    let mut vectors = BTreeMap::new();
    read(config, &|| false, |key, value| {
        let name = String::from_utf8_lossy(key).into_owned();
        match value {
            None => drop(vectors.remove(&name)),
            Some(value) => {
                vectors.insert(name, serde_json::from_slice::<ItemVector>(value)?);
            }
        }
        Ok(())
    })?;
    Ok(vectors.into_iter().filter(|(_, vector)| vector.version == version).collect())
}

/// Keys that have a value on the topic and are none of `known`: of a run before this one, or gone
/// so long ago that nobody remembers. `None` if `stop` said so.
///
/// # Errors
/// A topic that cannot be read.
pub(super) fn strangers(
    config: &Config,
    stop: &dyn Fn() -> bool,
    known: impl Fn(&[u8]) -> bool,
) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
    let mut strangers = BTreeSet::new();
    let whole = read(config, stop, |key, value| {
        match value {
            None => drop(strangers.remove(key)),
            Some(_) if known(key) || strangers.contains(key) => {}
            Some(_) => drop(strangers.insert(key.to_owned())),
        }
        Ok(())
    })?;
    Ok(whole.then(|| strangers.into_iter().collect()))
}

/// Shows `take` key and value of every committed record; those of one key in their order. Whether
/// it came to the end before `stop` said so.
fn read(
    config: &Config,
    stop: &dyn Fn() -> bool,
    mut take: impl FnMut(&[u8], Option<&[u8]>) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let topic = Topic::named(&config.publish.topic, config)?;
    let partitions = topic.partitions()?;
    let Topic { consumer, name, .. } = &topic;
    let mut assignment = TopicPartitionList::new();
    for &partition in &partitions {
        assignment.add_partition_offset(name, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut open = partitions.len();
    let mut heard = Instant::now();
    while open > 0 {
        if stop() {
            return Ok(false);
        }
        match consumer.poll(Duration::from_millis(200)) {
            None if heard.elapsed() > SILENCE_MAX => {
                bail!("{name} was not read to its end: nothing came for {SILENCE_MAX:?}")
            }
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(topic.explain_reading(&error)),
            Some(Ok(message)) => take(message.key().unwrap_or_default(), message.payload())?,
        }
        heard = Instant::now();
    }
    Ok(true)
}
