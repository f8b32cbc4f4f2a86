//! The consumer group: offsets of the newest durable checkpoint, and a note on whose they are.
//!
//! Nobody resumes from it: offsets travel with the state. Dashboards read the offsets. The note
//! says that a live run has come so far: all that is left of it when its checkpoints are gone.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::topic::Topic;
use millrace_events::Offsets;

/// A group's coordinator answers in milliseconds; past this it is away, and the question is not
/// worth a longer wait.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells the group's offsets to Kafka, with a note. A failure is only logged.
pub(super) fn commit(topic: &Topic, offsets: &Offsets, note: &str) {
    let list = offsets_with(offsets, note);
    let committed = list.and_then(|list| topic.consumer.commit(&list, CommitMode::Async));
    if let Err(error) = committed {
        tracing::debug!(%error, "offsets not committed");
    }
}

fn offsets_with(offsets: &Offsets, note: &str) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (lane, next) in offsets.iter() {
        let (topic, partition) = offsets.place(lane);
        let offset = Offset::Offset(next);
        let mut element = list.add_partition(topic, partition);
        element.set_offset(offset)?;
        element.set_metadata(note);
    }
    Ok(list)
}

/// The note that came with the group's offsets in `topic`; none: no live run has committed any.
///
/// # Errors
/// The group's coordinator does not answer, or refuses to.
pub fn note(topic: &Topic) -> anyhow::Result<Option<String>> {
    let mut list = TopicPartitionList::new();
    for partition in topic.partitions()? {
        list.add_partition(&topic.name, partition);
    }
    let found = topic.consumer.committed_offsets(list, REQUEST_TIMEOUT);
    let found = found.with_context(|| {
        format!("cannot ask {} for the offsets that the group has committed", topic.brokers)
    })?;
    let elements = found.elements();
    let notes = elements.iter().map(|element| element.metadata());
    Ok(notes.filter(|note| !note.is_empty()).max().map(str::to_owned))
}
