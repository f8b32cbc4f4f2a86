//! Records of one round of polling, decoded on as many threads as pay.
//!
//! The parts are put together in the order of the records, so the number of threads changes
//! nothing but the time it takes.

use std::sync::{Mutex, mpsc};

use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedMessage};

use crate::config::{Config, Tombstone};
use crate::stream::decode::{DecodeError, Envelope, Mapping, Outside, Unread};
use crate::stream::events_of;
use crate::stream::merge::{Record, Run};
use crate::stream::wire::{Reader, Wire, Wires};
use millrace_events::{Events, lane_place};

/// Polling, merging and batching stay on one thread, and take as long as decoding on three.
const THREADS_MAX: usize = 4;

/// A decoder for each thread.
pub(super) struct Decoders {
    decoders: Vec<Decoder>,
    empty: Events,
    /// Records without a value are passed over.
    skips: bool,
}

/// Consecutive records of one partition, decoded.
pub(super) struct Part<M> {
    pub(super) messages: Vec<M>,
    pub(super) run: Run,
    /// The reasons of the rejected ones, in their order.
    pub(super) errors: Vec<DecodeError>,
    /// The next offset to read.
    pub(super) next: i64,
    /// Records that were passed over; they are in neither of the lists.
    pub(super) skipped: u64,
    /// Values of optional features that could not be read.
    pub(super) unread: Unread,
}

impl Decoders {
    pub(super) fn new(config: &Config, wires: &Wires) -> Decoders {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let decoders = (0..cores.min(THREADS_MAX)).map(|_| Decoder::new(config, wires)).collect();
        let skips = config.kafka.tombstone == Tombstone::Skip;
        Decoders { decoders, empty: events_of(config), skips }
    }

    /// Decodes a single record of a lane.
    pub(super) fn decode_one(&mut self, lane: i32, message: OwnedMessage) -> Part<OwnedMessage> {
        let own = self.decoders.first_mut().expect("there is one");
        part(own, self.empty.clone(), (lane, vec![message]), self.skips)
    }

    /// Takes parts until `next` has no more, runs `meanwhile` while other threads decode, and
    /// decodes the parts that are left. A part has records, all of one lane.
    pub(super) fn decode<'m>(
        &mut self,
        mut next: impl FnMut() -> Option<(i32, Vec<BorrowedMessage<'m>>)>,
        meanwhile: impl FnOnce(),
    ) -> Vec<Part<BorrowedMessage<'m>>> {
        let (own, others) = self.decoders.split_first_mut().expect("there is one");
        let (sender, receiver) = mpsc::channel();
        let (receiver, empty, skips) = (Mutex::new(receiver), &self.empty, self.skips);
        let receive = || receiver.lock().expect("nobody panics with it").recv().ok();
        let work = |decoder: &mut Decoder| -> Vec<(usize, Part<BorrowedMessage<'m>>)> {
            let decode =
                |(number, messages)| (number, part(decoder, empty.clone(), messages, skips));
            std::iter::from_fn(receive).map(decode).collect()
        };
        let mut parts = std::thread::scope(|scope| {
            let mut others = others.iter_mut();
            let mut threads = Vec::new();
            for number in 0.. {
                let Some(messages) = next() else { break };
                // The first one is for this thread, unless another is done before.
                if number > 0 {
                    threads.extend(others.next().map(|other| scope.spawn(|| work(other))));
                }
                sender.send((number, messages)).expect("the receiver is ours");
            }
            drop(sender);
            meanwhile();
            let mut parts = work(own);
            for thread in threads {
                parts.extend(thread.join().expect("decoding does not panic"));
            }
            parts
        });
        parts.sort_unstable_by_key(|(number, _)| *number);
        parts.into_iter().map(|(_, part)| part).collect()
    }
}

fn part<M: Message>(
    decoder: &mut Decoder,
    mut events: Events,
    (lane, mut messages): (i32, Vec<M>),
    skips: bool,
) -> Part<M> {
    let next = messages.last().expect("a part has records").offset() + 1;
    let taken = messages.len();
    let (mut errors, mut records) = (Vec::new(), Vec::with_capacity(taken));
    messages.retain(|message| {
        if skips && message.payload().is_none() {
            return false;
        }
        let before = events.len();
        let record = match decoder.decode(lane, message, &mut events) {
            Ok(0) => return false,
            Ok(count) => Record {
                offset: message.offset(),
                time_ms: Some(events.times_ms[before]),
                events: u32::try_from(count).expect("a batch holds them"),
            },
            Err(error) => {
                errors.push(error);
                Record { offset: message.offset(), time_ms: None, events: 0 }
            }
        };
        records.push(record);
        true
    });
    let skipped = (taken - messages.len()) as u64;
    let run = Run { partition: lane, records, events, changes: Vec::new() };
    Part { messages, run, errors, next, skipped, unread: decoder.take_unread() }
}

/// Records become events on one thread: what their bytes are, and what of it an event is.
#[derive(Debug)]
pub(in crate::stream) struct Decoder {
    /// By topic of the log.
    topics: Vec<(Reader, Mapping)>,
}

impl Decoder {
    pub(in crate::stream) fn new(config: &Config, wires: &Wires) -> Decoder {
        let topics = config.by_topic().zip(wires.iter());
        let topic = |(config, wire): (Config, &Wire)| (Reader::new(wire), Mapping::new(&config));
        Decoder { topics: topics.map(topic).collect() }
    }

    /// Appends the events of a lane's record, whose key and headers may be fields.
    pub(in crate::stream) fn decode(
        &mut self,
        lane: i32,
        message: &impl Message,
        events: &mut Events,
    ) -> Result<usize, DecodeError> {
        let outside = |what: &Outside| outside(message, what);
        let envelope = Envelope { time_ms: message.timestamp().to_millis(), outside: &outside };
        let (reader, mapping) = &mut self.topics[lane_place(lane).0];
        mapping.decode_record(reader.content(message.payload())?, &envelope, events)
    }

    /// The values that could not be read since the last call.
    pub(in crate::stream) fn take_unread(&mut self) -> Unread {
        let mut unread = Unread::default();
        for (_, mapping) in &mut self.topics {
            let Unread { values, first } = mapping.take_unread();
            unread.values += values;
            unread.first = unread.first.or(first);
        }
        unread
    }
}

/// What lies beside a record's value.
pub(in crate::stream) fn outside<'m>(
    message: &'m impl Message,
    what: &Outside,
) -> Option<&'m [u8]> {
    match what {
        Outside::Key => message.key(),
        Outside::Header(name) => {
            let headers = message.headers()?;
            let last = headers.iter().filter(|header| header.key == &**name).last();
            last.and_then(|header| header.value)
        }
    }
}
