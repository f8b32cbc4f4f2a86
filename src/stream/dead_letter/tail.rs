//! The letters that the dead-letter topic holds already.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};

use crate::config::Config;
use crate::stream::topic::Topic;

/// Letters that are looked at, over all partitions: what a run leaves that ends over its rejected
/// records is a part of one `rejected_window`.
const LETTERS_MAX: i64 = 20_000;
/// How long they are waited for. Without them some letters are sent twice, and none is lost.
const READ_MAX: Duration = Duration::from_secs(5);

/// What tells a letter from others: the record's partition, offset and time (a topic that was made
/// anew has the same offsets), and the reason, which another config may find another one.
pub(super) type About = (i32, i64, Option<i64>, String);

/// The newest letters on the dead-letter topic. None if it cannot be read: a client that may only
/// write to it is as good.
pub(super) fn letters(config: &Config) -> BTreeSet<About> {
    read(config).unwrap_or_else(|error| {
        tracing::debug!("letters of an earlier run may be sent once more: {error:#}");
        BTreeSet::new()
    })
}

fn read(config: &Config) -> anyhow::Result<BTreeSet<About>> {
    let topic = Topic::named(&config.kafka.dead_letter_topic, config)?;
    let there = topic.look(READ_MAX).context("no answer")?;
    let bounds = topic.bounds(&there)?;
    let share = LETTERS_MAX / i64::try_from(bounds.len().max(1))?;
    let (mut found, mut left) = (BTreeSet::new(), topic.assign_newest(&bounds, share)?);
    let deadline = Instant::now() + READ_MAX;
    while left > 0 && Instant::now() < deadline {
        match topic.consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => found.extend(about(&message, &config.kafka.topic)),
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
    }
    Ok(found)
}

/// What a letter is about, if it is one of `topic`.
fn about(letter: &BorrowedMessage<'_>, topic: &str) -> Option<About> {
    let headers = letter.headers()?;
    let value = |key: &str| {
        let header = headers.iter().find(|header| header.key == key)?;
        std::str::from_utf8(header.value?).ok()
    };
    let (partition, offset) = (value("partition")?.parse().ok()?, value("offset")?.parse().ok()?);
    let time_ms = value("time_ms").and_then(|time| time.parse().ok());
    (value("topic")? == topic).then_some((partition, offset, time_ms, value("reason")?.to_owned()))
}
