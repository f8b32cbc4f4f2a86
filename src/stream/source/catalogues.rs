//! The topics of catalogues, each a lane of the merge for every partition.
//!
//! Owns their connections, and what of a catalogue comes before all events: a record before the
//! bootstrap's end has no time but the earliest, so nothing overtakes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::bail;
use crossbeam_channel::Sender;
use rdkafka::consumer::Consumer;
use rdkafka::message::{BorrowedMessage, Message};

use super::census::{Census, Finding};
use super::decoders::outside;
use super::held::Held;
use super::intake::Intake;
use super::lanes::{Lanes, Numbering, Stop};
use crate::config::{CatalogueConfig, Config, OnDataLoss};
use crate::stream::catalogue::CatalogueRange;
use crate::stream::dead_letter::DeadLetters;
use crate::stream::decode::catalogue::CatalogueMapping;
use crate::stream::decode::{DecodeError, Envelope};
use crate::stream::events_of;
use crate::stream::merge::{Record, Run};
use crate::stream::position::Range;
use crate::stream::refusal::Wish;
use crate::stream::topic::{LOOK_MAX, Topic, discover};
use crate::stream::verdict;
use crate::stream::wire::Wires;
use millrace_events::{Events, Offsets};

/// Records of a catalogue that wait in the merge: a few rounds. It is read as fast as events are.
const BUFFER: usize = 4096;

/// Reads a catalogue.
pub(super) struct Feed {
    /// Dropped before the topic's consumer.
    lanes: Lanes,
    mapping: CatalogueMapping,
    empty: Events,
    followed: Followed,
    census: Census,
    /// Where partitions begin that the topic has got since.
    new: Offsets,
}

/// How far a topic is read.
struct Followed {
    topic: Topic,
    /// Lanes by partition.
    numbers: BTreeMap<i32, i32>,
    bootstrap: Offsets,
    to: Option<Offsets>,
    finished: BTreeSet<i32>,
}

/// Consecutive records of one partition, decoded.
struct Part<'m> {
    messages: Vec<BorrowedMessage<'m>>,
    run: Run,
    errors: Vec<DecodeError>,
    unread: u64,
}

impl Feed {
    /// Begins to read `range` of the catalogue, whose partitions have these lanes. `ring` rings
    /// when records come.
    ///
    /// # Errors
    /// If librdkafka refuses the config, or a partition.
    pub(super) fn open(
        config: &Config,
        catalogue: &CatalogueConfig,
        range: &CatalogueRange,
        numbers: BTreeMap<i32, i32>,
        ring: &Sender<()>,
        intake: &mut Intake,
    ) -> anyhow::Result<Feed> {
        let partitions = range.from.iter().len();
        let topic = Topic::to_read(config, &catalogue.topic, partitions)?;
        let mut finished = BTreeSet::new();
        for (partition, next) in range.from.iter() {
            let end = range.to.as_ref().and_then(|to| to.next(partition));
            if end.is_some_and(|end| next >= end) {
                intake.merge.finish(numbers[&partition]);
                finished.insert(partition);
            }
        }
        let followed = Followed {
            topic,
            numbers,
            bootstrap: range.bootstrap.clone(),
            to: range.to.clone(),
            finished,
        };
        for (partition, next) in range.from.iter() {
            if followed.past_bootstrap(partition, next) {
                intake.may_pass_over(followed.numbers[&partition]);
            }
        }
        let reads = Range { from: range.from.clone(), to: range.to.clone() };
        let Followed { topic, numbers, finished, .. } = &followed;
        // It is the only topic of its connection, so its lanes there are its partitions.
        let place = |partition| (topic.name.as_str(), partition);
        let number = |partition| numbers[&partition];
        let numbering = Numbering { ring, place: &place, number: &number };
        let every = discover(config).filter(|_| range.to.is_none());
        Ok(Feed {
            lanes: Lanes::open(&topic.consumer, &reads, finished, BUFFER, numbering)?,
            mapping: CatalogueMapping::new(config, catalogue),
            empty: events_of(config),
            followed,
            census: Census::new(every, Instant::now()),
            new: range.from.unread(),
        })
    }

    /// Looks for new partitions of the topic beside those of `done`, if it is time to.
    ///
    /// # Errors
    /// New ones that have lost records already, if `on_data_loss` does not allow it.
    pub(super) fn look(&mut self, done: &Offsets, on_data_loss: OnDataLoss) -> anyhow::Result<()> {
        let now = Instant::now();
        if !self.census.is_due(now) {
            return Ok(());
        }
        let topic = &self.followed.topic;
        // One that is gone is what its lanes hear of.
        let there = topic.look(LOOK_MAX);
        let Finding::New(partitions) = self.census.compare(done, there.as_deref(), now) else {
            return Ok(());
        };
        let Ok(bounds) = topic.bounds(&partitions) else {
            self.census.retry(now); // They have no leaders yet.
            return Ok(());
        };
        let begun = verdict::judge(&done.unread(), &bounds, &[], on_data_loss)?;
        begun.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let name = &topic.name;
        tracing::info!("the catalogue has grown: {name}'s partitions {partitions:?} are read, too");
        self.new = begun.offsets;
        Ok(())
    }

    /// Whether the topic has partitions that are not read yet.
    pub(super) fn has_grown(&self) -> bool {
        self.new.iter().len() > 0
    }

    /// Takes the records that have arrived. Whether there were any, or word of an end.
    pub(super) fn poll(
        &mut self,
        intake: &mut Intake,
        dead: &mut DeadLetters,
    ) -> anyhow::Result<bool> {
        let Feed { lanes, mapping, empty, followed, .. } = self;
        followed.serve()?;
        let places = (&followed.numbers, &followed.bootstrap);
        // Its records are JSON: none waits for a schema.
        let (wires, held) = (Wires::text(), Held::default());
        let mut round = lanes.round(&intake.merge, &wires, &held);
        let mut parts = Vec::new();
        while let Some((_, messages)) = round.part() {
            parts.push(part(mapping, empty, places, messages));
        }
        let stopped = round.stopped;
        let moved = !parts.is_empty() || stopped.is_some();
        if moved {
            followed.topic.consumer.context().errors.answered();
        }
        for part in parts {
            let Part { messages, run, errors, unread } = part;
            let last = messages.last().expect("a part has records");
            let (partition, next) = (last.partition(), last.offset() + 1);
            intake.take_changes(run, &messages, errors, unread, dead)?;
            followed.took(partition, next, intake);
        }
        match stopped {
            None => {}
            Some(Stop::RangeEnd(partition)) => followed.finish(partition, intake),
            Some(Stop::LogEnd(partition)) => followed.reached_end(partition, intake),
            Some(Stop::Trouble(_, error)) => followed.topic.lasting(&error)?,
        }
        lanes.close(&followed.topic.consumer, &followed.finished)?;
        Ok(moved)
    }

    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.followed.topic.name
    }

    /// The partition of a lane, if it is one of this catalogue.
    pub(super) fn partition_of(&self, lane: i32) -> Option<i32> {
        let mut numbers = self.followed.numbers.iter();
        numbers.find(|(_, number)| **number == lane).map(|(partition, _)| *partition)
    }

    /// Records of each partition between `next`, what is in a batch, and the topic's end, where it
    /// is known.
    pub(super) fn lag(&self, next: &Offsets) -> Vec<(i32, i64)> {
        self.followed.topic.lag(next)
    }

    /// Partitions that hold everything back.
    pub(super) fn starved(&self, intake: &Intake) -> Vec<i32> {
        let numbers = self.followed.numbers.iter();
        let starved = numbers.filter(|(_, lane)| intake.merge.starved(**lane));
        starved.map(|(partition, _)| *partition).collect()
    }

    /// The same range, from `from` on, and new partitions from their beginning.
    pub(super) fn range(&self, mut from: Offsets) -> CatalogueRange {
        self.new.iter().for_each(|(partition, next)| from.advance(partition, next));
        let Followed { bootstrap, to, .. } = &self.followed;
        CatalogueRange { from, bootstrap: bootstrap.clone(), to: to.clone() }
    }
}

impl Followed {
    /// Records up to `next` were taken.
    fn took(&mut self, partition: i32, next: i64, intake: &mut Intake) {
        if self.past_bootstrap(partition, next) {
            intake.may_pass_over(self.numbers[&partition]);
        }
        match self.to.as_ref().and_then(|to| to.next(partition)) {
            Some(to) if next >= to => self.finish(partition, intake),
            None if self.topic.cached_end(partition) == Some(next) => self.rest(partition, intake),
            _ => {}
        }
    }

    /// Serves events that belong to no partition (errors, callbacks).
    fn serve(&mut self) -> anyhow::Result<()> {
        let Topic { consumer, name, remedies, .. } = &self.topic;
        if let Some((refusal, said)) = consumer.context().errors.refused() {
            bail!(remedies.explain(refusal, Wish::Read(name), &said));
        }
        match consumer.poll(Duration::ZERO) {
            None => Ok(()),
            Some(Err(error)) => self.topic.lasting(&error),
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                bail!("{name}/{partition} offset {offset} came out of turn")
            }
        }
    }

    fn past_bootstrap(&self, partition: i32, next: i64) -> bool {
        self.bootstrap.next(partition).is_none_or(|bootstrap| next >= bootstrap)
    }

    /// The partition has nothing more at present.
    fn reached_end(&mut self, partition: i32, intake: &mut Intake) {
        let end = self.topic.cached_end(partition);
        match self.to.as_ref().and_then(|to| to.next(partition)) {
            Some(to) if end.is_some_and(|end| end >= to) => self.finish(partition, intake),
            Some(_) => {}
            None => {
                self.rest(partition, intake);
                if let Some(position) = self.topic.position(partition) {
                    intake.merge.pass(self.numbers[&partition], position);
                }
            }
        }
    }

    /// Nothing waits for more of the partition, unless its bootstrap ends further on; what comes of
    /// it comes when it comes.
    fn rest(&self, partition: i32, intake: &mut Intake) {
        let end = self.topic.cached_end(partition);
        if end.is_some_and(|end| self.past_bootstrap(partition, end)) {
            let lane = self.numbers[&partition];
            intake.may_pass_over(lane);
            intake.heard(lane);
            intake.merge.set_idle(lane, true);
        }
    }

    fn finish(&mut self, partition: i32, intake: &mut Intake) {
        intake.merge.finish(self.numbers[&partition]);
        self.finished.insert(partition);
    }
}

fn part<'m>(
    mapping: &mut CatalogueMapping,
    empty: &Events,
    (numbers, bootstrap): (&BTreeMap<i32, i32>, &Offsets),
    messages: Vec<BorrowedMessage<'m>>,
) -> Part<'m> {
    let partition = messages.first().expect("a part has records").partition();
    let before_all = bootstrap.next(partition).unwrap_or(0);
    let (mut errors, mut changes) = (Vec::new(), Vec::new());
    let record = |message: &BorrowedMessage<'_>| {
        let offset = message.offset();
        let outside = |what: &_| outside(message, what);
        let time_ms = message.timestamp().to_millis();
        let envelope = Envelope { time_ms, outside: &outside };
        let known = time_ms.ok_or_else(|| DecodeError::MissingField {
            field: "timestamp of the Kafka record".to_owned(),
        });
        let time = if offset < before_all { Ok(i64::MIN) } else { known };
        let decoded =
            time.and_then(|time| Ok((time, mapping.decode(message.payload(), &envelope)?)));
        let time_ms = match decoded {
            Ok((time, change)) => {
                changes.push(change);
                Some(time)
            }
            Err(error) => {
                errors.push(error);
                None
            }
        };
        Record { offset, time_ms, events: 0 }
    };
    let records = messages.iter().map(record).collect();
    let run = Run { partition: numbers[&partition], records, events: empty.clone(), changes };
    Part { messages, run, errors, unread: mapping.take_unread().values }
}
