//! The letters that the dead-letter topic holds already.

use std::collections::BTreeSet;

use rdkafka::message::{BorrowedMessage, Headers as _, Message};

use crate::config::Config;
use crate::stream::newest;

/// Letters that are looked at, over all partitions: what a run leaves that ends over its rejected
/// records is a part of one `rejected_window`.
const LETTERS_MAX: i64 = 20_000;

/// What tells a letter from others: the record's topic, partition, offset and time (a topic that
/// was made anew has the same offsets), and the reason, which another config may find another one.
pub(super) type About = (String, i32, i64, Option<i64>, String);

/// The newest letters on the dead-letter topic; those that came, if it cannot be read to its end: a
/// client that may only write to it is as good, and sends some letters twice.
pub(super) fn letters(config: &Config) -> BTreeSet<About> {
    let kafka = &config.kafka;
    let mut found = BTreeSet::new();
    let read = newest::read(config, &kafka.dead_letter_topic, LETTERS_MAX, |letter| {
        found.extend(about(letter, config));
    });
    if let Err(error) = read {
        tracing::debug!("letters of an earlier run may be sent once more: {error:#}");
    }
    found
}

/// What a letter is about, if it is one of the log.
fn about(letter: &BorrowedMessage<'_>, config: &Config) -> Option<About> {
    let headers = letter.headers()?;
    let value = |key: &str| {
        let header = headers.iter().find(|header| header.key == key)?;
        std::str::from_utf8(header.value?).ok()
    };
    let (partition, offset) = (value("partition")?.parse().ok()?, value("offset")?.parse().ok()?);
    let time_ms = value("time_ms").and_then(|time| time.parse().ok());
    let topic = config.topics().find(|topic| value("topic") == Some(topic))?.to_owned();
    Some((topic, partition, offset, time_ms, value("reason")?.to_owned()))
}
