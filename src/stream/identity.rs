//! Whether a log is the one that a state was trained on.
//!
//! A topic that was made anew and has grown past the offset, another cluster with a topic of the
//! same name, a log whose end an unclean election threw away: in each of them the offset fits, and
//! the records are others. Kafka's client tells none of them apart across a restart.
//!
//! Must never know: a checkpoint's files.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use millrace_events::{Trace, lane_place};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use xxhash_rust::xxh3::Xxh3;

use super::log::Log;
use super::topic::Topic;

/// How long the records to compare are waited for. One that does not come in time proves nothing.
const READ_MAX: Duration = Duration::from_secs(10);
/// Partitions of a topic that are looked at: another log differs in each of them.
const PARTITIONS_MAX: usize = 64;

/// A record as a [`Witness`](millrace_events::Witness) keeps it.
pub fn trace(message: &impl Message) -> Trace {
    let mut hasher = Xxh3::new();
    for part in [message.key(), message.payload()] {
        // No key and an empty one are not the same.
        hasher.update(&part.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default());
    }
    Trace { offset: message.offset(), hash: hasher.digest() }
}

/// The answer of [`verify`] for a log that is, or may be, the one it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its cluster's id; none: the brokers do not say.
    pub cluster: Option<String>,
    /// What a person should know.
    pub warning: Option<String>,
}

/// Compares records of the log with those that are `wanted`, by lane, and its cluster with the one
/// that it was read from.
///
/// # Errors
/// A record that is another one, or another cluster whose log cannot be shown to be the same.
pub fn verify(
    log: &Log,
    cluster: Option<&String>,
    wanted: BTreeMap<i32, Trace>,
) -> anyhow::Result<Verified> {
    let mut equal = 0;
    // Topic by topic: word of a partition's end does not say of which topic it is.
    for (number, topic) in log.topics().iter().enumerate() {
        let own = wanted.iter().map(|(&lane, trace)| (lane_place(lane), *trace));
        let own = own.filter(|((topic, _), _)| *topic == number);
        let (same, other) = compare(topic, own.map(|((_, id), trace)| (id, trace)).collect())?;
        equal += same;
        if let Some((partition, offset)) = other {
            bail!(
                "record {offset} of partition {partition} of `{}` is not the one that the \
                 checkpoint was trained on: the topic was made anew, its end was lost in an \
                 unclean election, or kafka.brokers names another cluster. Point it to the right \
                 log, restore the topic, or start over with `--fresh`",
                topic.name
            );
        }
    }
    let now = log.first().cluster();
    let (Some(was), Some(is)) = (cluster, &now) else {
        return Ok(Verified { cluster: now, warning: None });
    };
    if was == is {
        return Ok(Verified { cluster: now, warning: None });
    }
    if equal == 0 {
        bail!(
            "the checkpoint was trained on cluster `{was}`, kafka.brokers names cluster `{is}`, \
             and no record of {} shows that it is the same log. Point kafka.brokers to the right \
             cluster, or start over with `--fresh`",
            log.name()
        );
    }
    let warning = format!(
        "kafka.brokers names cluster `{is}`, the checkpoint was trained on `{was}`; {equal} \
         records that were compared are the same, so this log is taken for a copy"
    );
    Ok(Verified { cluster: now, warning: Some(warning) })
}

/// How many of the records are the same, and one that is another.
fn compare(
    topic: &Topic,
    wanted: BTreeMap<i32, Trace>,
) -> anyhow::Result<(usize, Option<(i32, i64)>)> {
    let mut wanted: BTreeMap<i32, Trace> = wanted.into_iter().take(PARTITIONS_MAX).collect();
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    for (&partition, trace) in &wanted {
        list.add_partition_offset(&topic.name, partition, Offset::Offset(trace.offset))?;
    }
    topic.consumer.assign(&list)?;
    let (mut equal, mut other) = (0, None);
    let deadline = Instant::now() + READ_MAX;
    while !wanted.is_empty() && other.is_none() && Instant::now() < deadline {
        match topic.consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let Some(was) = wanted.remove(&message.partition()) else { continue };
                match trace(&message) {
                    is if is == was => equal += 1,
                    is if is.offset == was.offset => {
                        other = Some((message.partition(), is.offset));
                    }
                    // Compaction has taken it.
                    _ => {}
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                wanted.remove(&partition);
            }
            Some(Err(_)) | None => {}
        }
    }
    topic.consumer.assign(&TopicPartitionList::new())?;
    Ok((equal, other))
}
