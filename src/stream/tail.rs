//! A log as it comes: each lane from an offset of its own on, in no order between them.
//!
//! For who wants the newest at once and keeps what belongs together apart by itself. Records are
//! decoded, and passed over, as [`super::source`] does it; none becomes a dead letter here, since
//! the trainer sends it.
//!
//! Must never know: what an event is for.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use millrace_events::{Events, Offsets, Witness, lane};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};

use super::log::Log;
use super::refusal::Wish;
use super::source::decoders::Decoder;
use super::topic::{LOOK_MAX, Topic, Watermarks, discover, lag};
use super::wire::Wires;
use super::{events_of, identity};
use crate::config::{Config, Tombstone};

/// Most records that are handed out together: so many are decoded in a third of a millisecond, and
/// a reader of what becomes of them waits no longer.
const RECORDS: usize = 256;
/// And most bytes of their values, which may be a megabyte each.
const RECORDS_BYTES: usize = 4 << 20;

/// See the module's head.
pub struct Tail {
    log: Log,
    wires: Wires,
    decoder: Decoder,
    /// A record whose schema is not known yet; those behind it wait.
    held: Option<(i32, OwnedMessage)>,
    empty: Events,
    /// Records without a value are passed over.
    skips: bool,
    /// The next offset of each partition that is read.
    offsets: Offsets,
    /// When the topic's partitions are counted next, and how often that is; none: never.
    census: Option<(Instant, Duration)>,
}

/// Records that came, decoded.
#[derive(Debug)]
pub struct Arrived {
    /// Their events, as they came: those of one partition in its order.
    pub events: Events,
    /// Lane and offset of each event.
    pub origins: Vec<(i32, i64)>,
    /// Records without an event: lane, offset, and the reason; none: it is passed over.
    pub without: Vec<(i32, i64, Option<&'static str>)>,
    /// The next offsets to read behind all of them.
    pub next: Offsets,
}

impl Tail {
    /// Begins to read the log of `config` at `from`; lanes that it does not name from their
    /// beginning. `witness` knows some records that the log must have before `from`.
    ///
    /// # Errors
    /// A topic that is not there or is another one, brokers that do not answer or refuse us, an
    /// offset that the log no longer holds.
    pub fn open(config: &Config, from: &Offsets, witness: &Witness) -> anyhow::Result<Tail> {
        let there = Log::of(config)?;
        let (bounds, _) = there.bounds_known()?;
        identity::verify(&there, witness.cluster.as_ref(), witness.newest(&bounds))?;
        let mut offsets = from.clone();
        for (&lane, &(first, next)) in &bounds {
            match from.next(lane) {
                None => offsets.advance(lane, first),
                Some(wanted) if wanted < first || wanted > next => {
                    let (topic, partition) = there.place(lane);
                    bail!(
                        "`{}`/{partition} holds the offsets {first} to {next}, not {wanted}: what \
                         lay between was lost to retention, or the topic was made anew",
                        topic.name
                    )
                }
                Some(_) => {}
            }
        }
        let log = Log::to_read(config, offsets.iter().len())?;
        let wires = Wires::open(config)?;
        let tail = Tail {
            log,
            decoder: Decoder::new(config, &wires),
            wires,
            held: None,
            empty: events_of(config),
            skips: config.kafka.tombstone == Tombstone::Skip,
            offsets,
            census: census(config),
        };
        tail.log.first().assign(&tail.offsets)?;
        Ok(tail)
    }

    /// The next offset of each partition that is read.
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Waits for records, at most `wait`. Must be called often: librdkafka reports errors only
    /// then.
    ///
    /// # Errors
    /// What no retry cures: an offset that left the log, a refusal that lasts, a damaged record.
    pub fn next(&mut self, wait: Duration) -> anyhow::Result<Arrived> {
        self.count_partitions()?;
        let Topic { consumer, name, remedies, .. } = self.log.first();
        if let Some((refusal, said)) = consumer.context().errors.refused() {
            bail!(remedies.explain(refusal, Wish::Read(name), &said));
        }
        let mut arrived = Arrived {
            events: self.empty.clone(),
            origins: Vec::new(),
            without: Vec::new(),
            next: self.offsets.clone(),
        };
        let known =
            |(lane, held): &mut (i32, OwnedMessage)| !self.wires.lacks(*lane, held.payload());
        if let Some((lane, message)) = self.held.take_if(known) {
            take(&mut self.decoder, self.skips, (lane, &message), &mut arrived);
        }
        let (mut bytes, mut wait) = (0, wait);
        if self.held.is_some() {
            std::thread::sleep(wait);
        }
        while self.held.is_none()
            && arrived.origins.len() + arrived.without.len() < RECORDS
            && bytes < RECORDS_BYTES
        {
            match consumer.poll(std::mem::take(&mut wait)) {
                None => break,
                Some(Ok(message)) => {
                    consumer.context().errors.answered();
                    bytes += message.payload_len();
                    let Some(lane) = self.log.lane_of(&message) else { continue };
                    if self.wires.lacks(lane, message.payload()) {
                        self.held = Some((lane, message.detach()));
                    } else {
                        take(&mut self.decoder, self.skips, (lane, &message), &mut arrived);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    consumer.context().errors.answered();
                    // Of one topic, and nobody says of which.
                    let lanes = (0..self.log.topics().len()).map(|topic| lane(topic, partition));
                    for lane in lanes.filter(|&lane| self.offsets.next(lane).is_some()) {
                        // Past the markers of transactions, and what these took back.
                        if let Some(position) = self.log.position(lane)
                            && arrived.next.next(lane).is_none_or(|next| next < position)
                        {
                            arrived.next.advance(lane, position);
                        }
                    }
                }
                Some(Err(error)) => self.log.first().lasting(&error)?,
            }
        }
        self.offsets.clone_from(&arrived.next);
        self.decoder.take_unread();
        Ok(arrived)
    }

    /// Reads partitions, too, that the topic has got since, from their beginning: the keys of new
    /// events go there as well.
    fn count_partitions(&mut self) -> anyhow::Result<()> {
        if !is_due(&mut self.census) {
            return Ok(());
        }
        let (log, there) = (&self.log, self.log.look(LOOK_MAX).unwrap_or_default());
        log.first().assign_new(&there, |lanes| log.bounds(lanes), &mut self.offsets)
    }

    /// Records between what was handed out and the log's end, by lane, where the end is known.
    pub fn lag(&self) -> Vec<(i32, i64)> {
        self.log.lag(&self.offsets)
    }

    /// Why nothing comes: no broker can be reached, or the registry of schemas, or they refuse us.
    pub fn away(&self) -> Option<String> {
        let registry = || self.wires.away().map(|why| format!("the schema registry: {why}"));
        self.log.first().brokers_away().or_else(registry)
    }
}

/// When the partitions are counted first, and how often; none: never.
pub(super) fn census(config: &Config) -> Option<(Instant, Duration)> {
    discover(config).map(|every| (Instant::now() + every, every))
}

/// Whether it is time to count them.
pub(super) fn is_due(census: &mut Option<(Instant, Duration)>) -> bool {
    let Some((due, every)) = census else { return false };
    let is_due = Instant::now() >= *due;
    if is_due {
        *due = Instant::now() + *every;
    }
    is_due
}

fn take(
    decoder: &mut Decoder,
    skips: bool,
    (lane, message): (i32, &impl Message),
    arrived: &mut Arrived,
) {
    let offset = message.offset();
    // What was on its way when the lanes were assigned anew.
    if arrived.next.next(lane).is_none_or(|next| offset < next) {
        return;
    }
    arrived.next.advance(lane, offset + 1);
    if skips && message.payload().is_none() {
        arrived.without.push((lane, offset, None));
        return;
    }
    match decoder.decode(lane, message, &mut arrived.events) {
        Ok(0) => arrived.without.push((lane, offset, None)),
        Ok(events) => arrived.origins.extend(std::iter::repeat_n((lane, offset), events)),
        Err(error) => arrived.without.push((lane, offset, Some(error.reason()))),
    }
}

impl Topic {
    /// Reads lanes that are `there` and not among `offsets`, too, from where `bounds` has them
    /// begin.
    pub(super) fn assign_new(
        &self,
        there: &[i32],
        bounds: impl Fn(&[i32]) -> anyhow::Result<Watermarks>,
        offsets: &mut Offsets,
    ) -> anyhow::Result<()> {
        let new: Vec<i32> =
            there.iter().copied().filter(|&lane| offsets.next(lane).is_none()).collect();
        // Those that have no leader yet are found the next time.
        let Ok(bounds) = bounds(&new) else { return Ok(()) };
        if bounds.is_empty() {
            return Ok(());
        }
        bounds.iter().for_each(|(&lane, &(first, _))| offsets.advance(lane, first));
        self.assign(offsets)
    }

    /// Reads these lanes over its connection, each from its offset on, and no others.
    pub(super) fn assign(&self, offsets: &Offsets) -> anyhow::Result<()> {
        let Topic { consumer, name, .. } = self;
        let mut list = TopicPartitionList::new();
        for (lane, next) in offsets.iter() {
            let (topic, partition) = offsets.place(lane);
            list.add_partition_offset(topic, partition, Offset::Offset(next))?;
        }
        consumer.assign(&list).with_context(|| format!("cannot assign {name}"))
    }

    /// Records of each partition between `next` and its end, where that is known.
    pub(super) fn lag(&self, next: &Offsets) -> Vec<(i32, i64)> {
        lag(next, |partition| self.cached_end(partition))
    }

    /// Nothing, if `error` passes by itself: librdkafka retries, and [`super::client::Watch`] has
    /// logged it.
    ///
    /// # Errors
    /// One that does not.
    pub(super) fn lasting(&self, error: &KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode as Code;
        let (topic, last) = (&self.name, || self.last_error());
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => bail!(
                "the log of `{topic}` no longer holds the offset to read next: {}; it was lost to \
                 retention while we were behind, or the topic was created anew",
                last()
            ),
            Some(Code::BadMessage | Code::InvalidMessage) => bail!(
                "a record of `{topic}` arrived damaged: {}; check the broker's disks, and skip it \
                 by hand if it stays so",
                last()
            ),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                bail!("kafka client failed: {}", last())
            }
            _ => Ok(()),
        }
    }

    /// Why its brokers give nothing: none can be reached, or they refuse us.
    pub(super) fn brokers_away(&self) -> Option<String> {
        let errors = &self.consumer.context().errors;
        errors.refusing().map(|(_, said)| said).or_else(|| errors.all_down())
    }
}
