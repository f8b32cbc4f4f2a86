//! Where to begin and where to end: from words to offsets, against what the log holds.
//!
//! Owns: the forms of `--from` and `--to`, the bounded questions to the broker, and the verdict
//! on a checkpoint's offsets.
//!
//! Must never know: records, checkpoints' files.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::OnDataLoss;

use millrace_events::Offsets;

/// A broker that is up answers in milliseconds; one that is being restarted within seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a missing topic or an unreachable broker is waited for: long enough for an
/// auto-created topic or a restart, short enough to tell the person who just started us.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A place in every partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// The first record kept.
    Earliest,
    /// Past the last record there is now.
    Latest,
    /// This offset, or the nearest that the partition has.
    Offset(i64),
    /// This much of the records that the partition has now, in percent.
    Percent(f64),
    /// The first record whose Kafka timestamp is at or after this time (ms since 1970).
    TimeMs(i64),
}

/// The forms, for messages.
const FORMS: &str = "expected earliest, latest, 90%, offset:123, time:1506826800026 (ms) or \
                     time:2017-10-01T03:00:00Z";

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        let wrong = |why: &str| format!("`{text}`: {why}{FORMS}");
        let offset = |digits: &str| {
            let offset = digits.parse::<i64>().map_err(|_| wrong("not an offset; "))?;
            if offset < 0 { Err(wrong("an offset is not negative; ")) } else { Ok(offset) }
        };
        match text {
            "earliest" => return Ok(Position::Earliest),
            "latest" => return Ok(Position::Latest),
            _ => {}
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.parse::<f64>().map_err(|_| wrong("not a number; "))?;
            let valid = (0.0..=100.0).contains(&percent);
            return if valid {
                Ok(Position::Percent(percent))
            } else {
                Err(wrong("not in 0..=100; "))
            };
        }
        if let Some(time) = text.strip_prefix("time:") {
            let time = time.parse::<i64>().ok().or_else(|| rfc3339_ms(time));
            return time.map(Position::TimeMs).ok_or_else(|| wrong("not a time in UTC; "));
        }
        if let Some(digits) = text.strip_prefix("offset:") {
            return Ok(Position::Offset(offset(digits)?));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Position::Offset(offset(text)?));
        }
        Err(wrong(""))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Earliest => f.write_str("earliest"),
            Position::Latest => f.write_str("latest"),
            Position::Offset(offset) => write!(f, "offset:{offset}"),
            Position::Percent(percent) => write!(f, "{percent}%"),
            Position::TimeMs(ms) => write!(f, "time:{ms}"),
        }
    }
}

/// `2017-10-01T03:00:00Z`, with or without a fraction; UTC only.
fn rfc3339_ms(text: &str) -> Option<i64> {
    let text = text.strip_suffix(['Z', 'z'])?;
    let (date, clock) = text.split_once(['T', 't', ' '])?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts = |text: &str, between: char, widths: [usize; 3]| -> Option<[i64; 3]> {
        let mut parts = text.split(between).zip(widths).map(|(part, width)| {
            let digits = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse::<i64>().ok() } else { None }
        });
        let three = [parts.next()??, parts.next()??, parts.next()??];
        (text.split(between).count() == 3).then_some(three)
    };
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = parts(clock, ':', [2, 2, 2])?;
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !fraction.is_empty();
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && digits;
    let ms = format!("{fraction:0<3}")[..3].parse::<i64>().ok().filter(|_| valid)?;
    Some((((days_from_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

fn days_in(year: i64, month: i64) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_1970(next.0, next.1, 1) - days_from_1970(year, month, 1)
}

/// Days of the civil calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// What to read: from these offsets, and up to those (exclusive) if it is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The next offset to read of every partition.
    pub from: Offsets,
    /// Where each partition ends; none: it never does.
    pub to: Option<Offsets>,
}

/// First offset kept and next offset to be written, by partition. With `read_committed` (which
/// [`super::source`] sets) the latter is the end of what is committed.
pub type Watermarks = BTreeMap<i32, (i64, i64)>;

/// The partitions of `topic`. A topic that is not there yet, and brokers that do not answer, are
/// waited for, but not for long.
///
/// # Errors
/// A message that names topic and brokers and says what to do.
pub fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    brokers: &str,
) -> anyhow::Result<Vec<i32>> {
    let started = Instant::now();
    loop {
        let failure = match consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT) {
            Ok(metadata) => match metadata.topics().first() {
                Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                    let mut ids: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
                    ids.sort_unstable();
                    return Ok(ids);
                }
                Some(found) => found.error().map(RDKafkaErrorCode::from),
                None => None,
            },
            Err(error) => error.rdkafka_error_code(),
        };
        if started.elapsed() >= WAIT_MAX || failure.is_some_and(refused) {
            bail!(explain_missing(topic, brokers, failure));
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// Errors that no waiting cures.
fn refused(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::InvalidTopic
    )
}

fn explain_missing(topic: &str, brokers: &str, failure: Option<RDKafkaErrorCode>) -> String {
    use RDKafkaErrorCode as Code;
    let missing = [Code::UnknownTopicOrPartition, Code::UnknownTopic, Code::UnknownPartition];
    match failure {
        Some(code) if !missing.contains(&code) && !refused(code) => format!(
            "no answer from the brokers {brokers} about topic `{topic}`: {code}; check that they \
             run and that kafka.brokers is right"
        ),
        Some(code) if refused(code) => format!(
            "the brokers {brokers} refuse topic `{topic}`: {code}; check kafka.topic, the \
             credentials in kafka.properties and the broker's ACLs"
        ),
        _ => format!(
            "topic `{topic}` does not exist on {brokers}; create it (kafka-topics.sh \
             --bootstrap-server {brokers} --create --topic {topic} --partitions 4) or correct \
             kafka.topic"
        ),
    }
}

/// First and next offsets of every partition of `topic`.
///
/// # Errors
/// As [`partitions`].
pub fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    brokers: &str,
) -> anyhow::Result<Watermarks> {
    let ask = |partition| {
        let bounds = patiently(|| consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT));
        let what = || format!("cannot ask {brokers} for the bounds of {topic}/{partition}");
        Ok((partition, bounds.with_context(what)?))
    };
    partitions(consumer, topic, brokers)?.into_iter().map(ask).collect()
}

/// Asks until there is an answer or [`WAIT_MAX`] is over.
fn patiently<T>(mut ask: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if started.elapsed() >= WAIT_MAX => return Err(error),
            Err(_) => std::thread::sleep(RETRY_PAUSE),
        }
    }
}

/// The offsets of `position` in every partition of `topic`, within what the log holds now.
///
/// # Errors
/// As [`partitions`].
pub fn resolve<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    brokers: &str,
    position: Position,
) -> anyhow::Result<Offsets> {
    let bounds = watermarks(consumer, topic, brokers)?;
    let times = match position {
        Position::TimeMs(ms) => {
            let times = patiently(|| first_since(consumer, topic, &bounds, ms));
            times.with_context(|| format!("cannot ask {brokers} for {position} in {topic}"))?
        }
        _ => BTreeMap::new(),
    };
    let mut offsets = Offsets::new(topic);
    for (&partition, &(low, high)) in &bounds {
        let next = match position {
            Position::Earliest => low,
            Position::Latest => high,
            Position::Offset(offset) => offset.clamp(low, high),
            Position::Percent(percent) => {
                low + ((high - low) as f64 * percent / 100.0).floor() as i64
            }
            Position::TimeMs(_) => times.get(&partition).map_or(high, |&at| at.clamp(low, high)),
        };
        offsets.advance(partition, next);
    }
    Ok(offsets)
}

/// Offsets of the first records at or after `ms`; a partition without one is not in it.
fn first_since<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    bounds: &Watermarks,
    ms: i64,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let mut query = TopicPartitionList::new();
    for &partition in bounds.keys() {
        query.add_partition_offset(topic, partition, Offset::Offset(ms))?;
    }
    let answer = consumer.offsets_for_times(query, REQUEST_TIMEOUT)?;
    let mut found = BTreeMap::new();
    for element in answer.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            found.insert(element.partition(), offset);
        }
    }
    Ok(found)
}

/// A checkpoint's offsets after comparison with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Where to read on.
    pub offsets: Offsets,
    /// What was lost on the way, one sentence a partition; to be logged.
    pub warnings: Vec<String>,
}

/// Compares a checkpoint's offsets with what the log holds. Partitions that the checkpoint does
/// not know are new, and are read from their beginning.
///
/// # Errors
/// A message that says what to do: where the log no longer (or never) holds an offset and
/// `on_data_loss` does not allow to go on, and where the topic is not the one it was.
pub fn check_stored(
    stored: &Offsets,
    watermarks: &Watermarks,
    on_data_loss: OnDataLoss,
) -> anyhow::Result<Checked> {
    let topic = stored.topic();
    let mut checked = Checked { offsets: Offsets::new(topic), warnings: Vec::new() };
    let gone: Vec<i32> = stored
        .iter()
        .map(|(partition, _)| partition)
        .filter(|partition| !watermarks.contains_key(partition))
        .collect();
    if !gone.is_empty() {
        bail!(
            "topic `{topic}` has no partition {gone:?} any more, but the checkpoint has read from \
             it; the topic was probably deleted and created anew: point kafka.topic to the right \
             topic, or start over in an empty checkpoint.directory"
        );
    }
    let mut lost = Vec::new();
    for (&partition, &(low, high)) in watermarks {
        let next = stored.next(partition).unwrap_or(low);
        if next > high {
            bail!(
                "the checkpoint has read partition {partition} of `{topic}` up to offset {next}, \
                 but the log ends at {high}; the topic was probably deleted and created anew: \
                 restore it, or start over in an empty checkpoint.directory"
            );
        }
        if next < low {
            lost.push(format!(
                "partition {partition} of `{topic}`: the checkpoint reads on at offset {next}, but \
                 the log begins at {low}; {} records are lost",
                low - next
            ));
        }
        checked.offsets.advance(partition, next.max(low));
    }
    if !lost.is_empty() && on_data_loss == OnDataLoss::Fail {
        bail!(
            "{}; set kafka.on_data_loss = \"earliest\" to go on without them, or restore the topic \
             (and give it a longer retention)",
            lost.join("; ")
        );
    }
    checked.warnings = lost;
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        for (text, position) in [
            ("earliest", Position::Earliest),
            ("latest", Position::Latest),
            ("90%", Position::Percent(90.0)),
            ("12.5%", Position::Percent(12.5)),
            ("offset:123", Position::Offset(123)),
            ("123", Position::Offset(123)),
            ("time:1506826800026", Position::TimeMs(1_506_826_800_026)),
            ("time:2017-10-01T03:00:00Z", Position::TimeMs(1_506_826_800_000)),
            ("time:2017-10-01T03:00:00.0261Z", Position::TimeMs(1_506_826_800_026)),
            ("time:2024-02-29 00:00:00z", Position::TimeMs(1_709_164_800_000)),
            ("time:1969-12-31T23:59:59.5Z", Position::TimeMs(-500)),
        ] {
            assert_eq!(text.parse(), Ok(position), "{text}");
            assert_eq!(position.to_string().parse(), Ok(position), "{text}");
        }
    }

    #[test]
    fn teaches_the_forms_where_it_cannot_read() {
        for text in [
            "",
            "begin",
            "-1",
            "offset:-1",
            "offset:x",
            "99999999999999999999",
            "101%",
            "NaN%",
            "%",
            "time:",
            "time:2017-10-01",
            "time:2017-10-01T03:00:00",
            "time:2017-10-01T03:00:00+02:00",
            "time:2017-02-29T03:00:00Z",
            "time:2017-13-01T03:00:00Z",
            "time:2017-10-01T24:00:00Z",
            "time:2017-10-01T03:00:00.Z",
            "time:2017-10-1T03:00:00Z",
            "time:2017-10-01T03:00:00:00Z",
            "time:20é7-10-01T03:00:00Z",
        ] {
            let error = text.parse::<Position>().expect_err(text);
            assert!(error.contains("time:2017-10-01T03:00:00Z"), "{error}");
        }
    }

    fn stored(next: &[(i32, i64)]) -> Offsets {
        let mut offsets = Offsets::new("clicks");
        next.iter().for_each(|&(partition, next)| offsets.advance(partition, next));
        offsets
    }

    #[test]
    fn stored_offsets_within_the_log_are_taken_and_new_partitions_begin_at_the_beginning() {
        let bounds = Watermarks::from([(0, (5, 50)), (1, (0, 7)), (2, (3, 9))]);
        let checked =
            check_stored(&stored(&[(0, 50), (1, 0)]), &bounds, OnDataLoss::Fail).expect("within");
        assert_eq!(checked.offsets, stored(&[(0, 50), (1, 0), (2, 3)]));
        assert!(checked.warnings.is_empty());
    }

    #[test]
    fn lost_records_stop_the_run_unless_it_may_go_on() {
        let bounds = Watermarks::from([(0, (5, 50)), (1, (2, 7))]);
        let offsets = stored(&[(0, 3), (1, 7)]);
        let error = check_stored(&offsets, &bounds, OnDataLoss::Fail).expect_err("2 are lost");
        let text = error.to_string();
        assert!(text.contains("partition 0 of `clicks`") && text.contains("2 records"), "{text}");
        assert!(text.contains("kafka.on_data_loss = \"earliest\""), "{text}");
        let checked = check_stored(&offsets, &bounds, OnDataLoss::Earliest).expect("allowed");
        assert_eq!(checked.offsets, stored(&[(0, 5), (1, 7)]));
        assert_eq!(checked.warnings.len(), 1);
    }

    #[test]
    fn another_topic_of_the_same_name_is_refused() {
        for policy in [OnDataLoss::Fail, OnDataLoss::Earliest] {
            let bounds = Watermarks::from([(0, (0, 10))]);
            let error = check_stored(&stored(&[(0, 11)]), &bounds, policy).expect_err("beyond");
            assert!(error.to_string().contains("ends at 10"), "{error}");
            let error =
                check_stored(&stored(&[(0, 1), (1, 1)]), &bounds, policy).expect_err("gone");
            assert!(error.to_string().contains("no partition [1]"), "{error}");
        }
    }
}
