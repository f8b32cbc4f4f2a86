//! The newest records of a topic, read once through the mapping: would a run take them?
//!
//! Nothing is assigned for good, committed or dead-lettered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _, Timestamp};

use crate::config::Config;
use crate::stream::events_of;
use crate::stream::log::Log;
use crate::stream::refusal::Wish;
use crate::stream::topic::{Topic, Watermarks};
pub use crate::stream::wire::Sampled;
use crate::stream::wire::Wires;

use super::decoders::Decoder;
use super::ids::{Ids, Tally};
use super::{example, intake};

/// Brokers that answered a moment ago send records within this.
const WAIT_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// What became of some records.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Records that became events.
    pub accepted: u64,
    /// Records that are no events (`[[event]]`, deletions).
    pub skipped: u64,
    /// The others, by reason.
    pub rejected: BTreeMap<&'static str, Reason>,
    /// Events whose time lies more than ten years from their record's.
    pub odd_times: u64,
    /// Time of the newest record, ms since 1970.
    pub newest_record_ms: Option<i64>,
    /// That time is one of the broker's clock.
    pub by_broker: bool,
    /// Times of the oldest and of the newest event, ms since 1970.
    pub event_times_ms: Option<(i64, i64)>,
    /// What its ids tell, if there are events.
    pub ids: Option<Ids>,
}

/// Records that were rejected for one reason.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Reason {
    /// How many.
    pub count: u64,
    /// The first one: where it is, what is wrong, and its value there.
    pub example: String,
}

impl Sample {
    /// Records that were read.
    pub fn records(&self) -> u64 {
        self.accepted
            + self.skipped
            + self.rejected.values().map(|rejected| rejected.count).sum::<u64>()
    }

    fn take(
        &mut self,
        decoder: &mut Decoder,
        (config, tally): (&Config, &mut Tally),
        lane: i32,
        message: &BorrowedMessage<'_>,
    ) {
        let time = message.timestamp();
        let record_ms = time.to_millis();
        if record_ms > self.newest_record_ms {
            self.newest_record_ms = record_ms;
            self.by_broker = matches!(time, Timestamp::LogAppendTime(_));
        }
        let mut events = events_of(config);
        match decoder.decode(lane, message, &mut events) {
            Ok(0) => self.skipped += 1,
            Ok(_) => {
                tally.count(lane, &events);
                let time_ms = events.times_ms[0];
                let (oldest, newest) = self.event_times_ms.unwrap_or((time_ms, time_ms));
                self.event_times_ms = Some((oldest.min(time_ms), newest.max(time_ms)));
                self.odd_times += u64::from(intake::is_odd(time_ms, record_ms));
                self.accepted += 1;
            }
            Err(error) => {
                let rejected = self.rejected.entry(error.reason()).or_default();
                rejected.count += 1;
                if rejected.count == 1 {
                    let (partition, offset) = (message.partition(), message.offset());
                    let value = example::value(message.payload(), error.field());
                    rejected.example =
                        format!("partition {partition} offset {offset}: {error}; there is {value}");
                }
            }
        }
    }
}

/// Reads about `records` of the newest records of `log`, from all lanes alike.
///
/// # Errors
/// If the brokers do not send them.
pub(in crate::stream) fn sample(
    log: &Log,
    watermarks: &Watermarks,
    config: &Config,
    records: usize,
) -> anyhow::Result<Sample> {
    let wires = Wires::open(config)?;
    let (mut sample, mut decoder) = (Sample::default(), Decoder::new(config, &wires));
    let mut tally = Tally::new(config);
    newest(log, watermarks, records, |lane, message| {
        wires.of(lane).wait_for_schema(message.payload())?;
        sample.take(&mut decoder, (config, &mut tally), lane, message);
        Ok(())
    })?;
    sample.ids = (sample.accepted > 0).then(|| tally.ids());
    Ok(sample)
}

/// The values of about `records` of the newest records of the config's log, as JSON.
///
/// # Errors
/// If the brokers do not answer, if the registry is not named, does not answer, or refuses us, or
/// if no value can be read.
pub fn newest_values(config: &Config, records: usize) -> anyhow::Result<Sampled> {
    let log = Log::of(config)?;
    let watermarks = log.watermarks()?;
    let mut values = Vec::new();
    newest(&log, &watermarks, records, |_, message| {
        values.extend(message.payload().map(<[u8]>::to_vec));
        Ok(())
    })?;
    Sampled::new(config, values)
}

/// Calls `take` with the lane and the record of about `records` of the newest ones, from all lanes
/// alike.
fn newest(
    log: &Log,
    watermarks: &Watermarks,
    records: usize,
    mut take: impl FnMut(i32, &BorrowedMessage<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let topic @ Topic { consumer, .. } = log.first();
    let share = i64::try_from(records.div_ceil(watermarks.len().max(1))).unwrap_or(i64::MAX);
    let mut open = log.assign_newest(watermarks, share)?;
    let deadline = Instant::now() + WAIT_MAX;
    let mut taken = 0;
    while open > 0 && taken < records {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let Some(lane) = log.lane_of(&message) else { continue };
                taken += 1;
                take(lane, &message)?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            _ => {}
        }
        if let Some((refusal, said)) = consumer.context().errors.refusing() {
            bail!(topic.remedies.explain(refusal, Wish::Read(&topic.name), &said));
        }
        if Instant::now() > deadline {
            bail!(
                "the brokers sent no more than {taken} of the newest records of {} within \
                 {} s ({})",
                log.name(),
                WAIT_MAX.as_secs(),
                topic.last_error()
            );
        }
    }
    consumer.unassign()?;
    Ok(())
}
