//! The partitions' queues: which of them is read next, and how far.
//!
//! librdkafka fetches each partition ahead into a queue of its own, up to a bound. Records for
//! which the merge has no room stay there. (With one queue for all, a partition far ahead must be
//! paused, and a pause throws away its fetched records: four partitions were fetched twice, 64 of
//! them 17 times.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::Sender;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};

use crate::stream::client::{AHEAD_BYTES, Watch};
use crate::stream::merge::Merge;
use crate::stream::position::Range;
use crate::stream::wire::Wires;

use super::held::Held;

/// Records that a thread decodes at a time: takes longer (150 us) than to wake or start the thread.
pub(super) const PART: usize = 256;
/// Most records of a round: amortises its threads' start, and keeps what is decoded in the cache.
pub(super) const ROUND: usize = 2048;
/// And most bytes of their values: what librdkafka fetches ahead. A round of ten-megabyte records
/// would hold gigabytes, since a queue is filled again while it is drained.
const ROUND_BYTES: usize = AHEAD_BYTES;

/// The partitions that are read.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Whose turn it is.
    turn: usize,
    /// Records of one partition that may wait in the merge.
    share: usize,
}

/// What the lanes of one connection have to do with topics, and with those of the others.
pub(super) struct Numbering<'a> {
    /// Rings when a queue is no longer empty.
    pub(super) ring: &'a Sender<()>,
    /// The topic and the partition of each lane.
    pub(super) place: &'a dyn Fn(i32) -> (&'a str, i32),
    /// The number in the merge of each lane.
    pub(super) number: &'a dyn Fn(i32) -> i32,
}

struct Lane {
    /// As the range has it.
    lane: i32,
    /// Its topic and partition.
    place: (String, i32),
    /// In the merge.
    number: i32,
    queue: PartitionQueue<Watch>,
    end: Option<i64>,
    /// False: there is nothing in the queue until the bell has rung.
    ready: Arc<AtomicBool>,
}

impl Lanes {
    /// Assigns those lanes of `range` that are not `finished`. At most `budget` of their
    /// records wait in the merge, or one part of each if that is more.
    pub(super) fn open(
        consumer: &Arc<BaseConsumer<Watch>>,
        range: &Range,
        finished: &BTreeSet<i32>,
        budget: usize,
        Numbering { ring, place, number }: Numbering<'_>,
    ) -> anyhow::Result<Lanes> {
        let mut list = TopicPartitionList::new();
        let mut lanes = Vec::new();
        for (lane, next) in range.from.iter().filter(|(lane, _)| !finished.contains(lane)) {
            let (name, partition) = place(lane);
            // Split before it is assigned: from then on its records would go to the common queue.
            let queue = consumer.split_partition_queue(name, partition);
            let mut queue = queue.with_context(|| format!("no queue for {name}/{partition}"))?;
            let ready = Arc::new(AtomicBool::new(true));
            let (full, ring) = (Arc::clone(&ready), ring.clone());
            queue.set_nonempty_callback(move || {
                full.store(true, Ordering::Release);
                // A full channel means that the bell rings already.
                ring.try_send(()).ok();
            });
            let end = range.to.as_ref().and_then(|to| to.next(lane));
            let place = (name.to_owned(), partition);
            lanes.push(Lane { lane, place, number: number(lane), queue, end, ready });
            list.add_partition_offset(name, partition, Offset::Offset(next))?;
        }
        let topics = || range.from.topics().join(", ");
        consumer.assign(&list).with_context(|| format!("cannot assign {}", topics()))?;
        let share = (budget / lanes.len().max(1)).max(PART);
        Ok(Lanes { lanes, turn: 0, share })
    }

    /// The records that may be read now, given those that wait in the merge and those that wait
    /// for their schema.
    pub(super) fn round<'l>(
        &'l mut self,
        merge: &Merge,
        wires: &'l Wires,
        held: &Held,
    ) -> Round<'l> {
        // Only whole parts: with many partitions, each would have room for no more than the last
        // batch took from it, and a part costs as much as decoding ten records.
        let room = |lane: &Lane| match self.share.saturating_sub(merge.buffered(lane.number)) {
            _ if held.holds(lane.lane) => 0,
            // Whatever it holds, it is not enough for the merge to go on.
            room if merge.starved(lane.number) => room.max(PART),
            room if room < PART => 0,
            room => room,
        };
        Round {
            rooms: self.lanes.iter().map(room).collect(),
            lanes: &self.lanes,
            turn: &mut self.turn,
            left: ROUND,
            left_bytes: ROUND_BYTES,
            wires,
            held: Vec::new(),
            stopped: None,
        }
    }

    /// Stops reading the lanes that are finished.
    pub(super) fn close(
        &mut self,
        consumer: &BaseConsumer<Watch>,
        finished: &BTreeSet<i32>,
    ) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for Lane { place: (topic, partition), .. } in
            self.lanes.extract_if(.., |lane| finished.contains(&lane.lane))
        {
            list.add_partition(&topic, partition);
        }
        if list.count() == 0 {
            return Ok(());
        }
        consumer.pause(&list).context("cannot stop reading a partition")
    }
}

/// What ends a round early.
#[derive(Debug)]
pub(super) enum Stop {
    /// A record past the end of the range came from this lane.
    RangeEnd(i32),
    /// This lane has nothing more at present.
    LogEnd(i32),
    /// This lane's queue has an error.
    Trouble(i32, KafkaError),
}

impl Stop {
    /// What came out of a lane's queue in place of a record.
    fn of(error: KafkaError, lane: i32) -> Stop {
        match error {
            KafkaError::PartitionEOF(_) => Stop::LogEnd(lane),
            error => Stop::Trouble(lane, error),
        }
    }
}

/// Records taken in one go, part by part, each partition in its turn.
pub(super) struct Round<'l> {
    lanes: &'l [Lane],
    turn: &'l mut usize,
    rooms: Vec<usize>,
    left: usize,
    left_bytes: usize,
    wires: &'l Wires,
    /// Records that ended their lane's turn, because their schema is not known.
    pub(super) held: Vec<(i32, OwnedMessage)>,
    pub(super) stopped: Option<Stop>,
}

impl<'l> Round<'l> {
    /// The next records of a lane. None: there are no more at present, there is no room, or the
    /// round was stopped.
    pub(super) fn part(&mut self) -> Option<(i32, Vec<BorrowedMessage<'l>>)> {
        for _ in 0..self.lanes.len() {
            if self.stopped.is_some() || self.left == 0 || self.left_bytes == 0 {
                return None;
            }
            let turn = *self.turn % self.lanes.len();
            *self.turn = turn + 1;
            let (lane, most) = (&self.lanes[turn], self.rooms[turn].min(self.left).min(PART));
            if most == 0 || !lane.ready.swap(false, Ordering::AcqRel) {
                continue;
            }
            let part = self.drain(lane, most);
            let stands = self.held.last().is_some_and(|(held, _)| *held == lane.lane);
            self.rooms[turn] = if stands { 0 } else { self.rooms[turn] - part.len() };
            self.left -= part.len();
            if !part.is_empty() {
                return Some((lane.lane, part));
            }
        }
        None
    }

    fn drain(&mut self, lane: &'l Lane, most: usize) -> Vec<BorrowedMessage<'l>> {
        let mut part = Vec::with_capacity(most);
        while part.len() < most && self.left_bytes > 0 && self.stopped.is_none() {
            match lane.queue.poll(Duration::ZERO) {
                None => return part,
                // Compaction may have removed the last records before the end: then the next one
                // lies past it.
                Some(Ok(message)) if lane.end.is_some_and(|end| message.offset() >= end) => {
                    self.stopped = Some(Stop::RangeEnd(lane.lane));
                }
                Some(Ok(message)) => {
                    self.left_bytes = self.left_bytes.saturating_sub(message.payload_len());
                    if self.wires.lacks(lane.lane, message.payload()) {
                        self.held.push((lane.lane, message.detach()));
                        break;
                    }
                    part.push(message);
                }
                Some(Err(error)) => self.stopped = Some(Stop::of(error, lane.lane)),
            }
        }
        // It was not seen empty, so it need not ring.
        lane.ready.store(true, Ordering::Release);
        part
    }
}
