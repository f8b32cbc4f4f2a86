//! The newest records of a topic, whatever they are.
//!
//! Must never know: what a record means.

use std::time::{Duration, Instant};

use anyhow::bail;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;

use super::topic::Topic;
use crate::config::Config;

/// How long an answer, and then the records, are waited for: brokers that are up send both in
/// milliseconds.
const READ_MAX: Duration = Duration::from_secs(5);

/// Shows `take` about `records` of the newest records of the topic `name`, from all partitions
/// alike; none, if the topic is not there.
///
/// # Errors
/// Brokers that do not answer in time, after some records perhaps.
pub(crate) fn read(
    config: &Config,
    name: &str,
    records: i64,
    mut take: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<()> {
    let topic = Topic::named(name, config)?;
    let there = match topic.look(READ_MAX) {
        Some(there) => there,
        // Asked once more, for the words.
        None => topic.partitions()?,
    };
    let bounds = topic.bounds(&there)?;
    let share = (records / i64::try_from(bounds.len().max(1))?).max(1);
    let mut left = topic.assign_newest(&bounds, share)?;
    let deadline = Instant::now() + READ_MAX;
    while left > 0 {
        if Instant::now() > deadline {
            bail!("the newest records of `{name}` did not come within {READ_MAX:?}");
        }
        match topic.consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => take(&record),
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(topic.explain_reading(&error)),
            None => {}
        }
    }
    Ok(())
}
