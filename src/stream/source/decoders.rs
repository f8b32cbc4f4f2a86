//! Records of one round of polling, decoded on as many threads as pay.
//!
//! The parts are put together in the order of the records, so the number of threads changes
//! nothing but the time it takes.

use std::sync::{Mutex, mpsc};

use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::config::{Config, Tombstone};
use crate::stream::decode::{DecodeError, Envelope, Mapping, Outside, Unread};
use crate::stream::events_of;
use crate::stream::merge::{Record, Run};
use millrace_events::Events;

/// Polling, merging and batching stay on one thread, and take as long as decoding on three.
const THREADS_MAX: usize = 4;

/// The mapping, once for each thread.
pub(super) struct Decoders {
    mappings: Vec<Mapping>,
    empty: Events,
    /// Records without a value are passed over.
    skips: bool,
}

/// Consecutive records of one partition, decoded.
pub(super) struct Part<'m> {
    pub(super) messages: Vec<BorrowedMessage<'m>>,
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
    pub(super) fn new(config: &Config) -> Decoders {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mappings = (0..cores.min(THREADS_MAX)).map(|_| Mapping::new(config)).collect();
        let skips = config.kafka.tombstone == Tombstone::Skip;
        Decoders { mappings, empty: events_of(config), skips }
    }

    /// Takes parts until `next` has no more, runs `meanwhile` while other threads decode, and
    /// decodes the parts that are left. A part has records, all of one partition.
    pub(super) fn decode<'m>(
        &mut self,
        mut next: impl FnMut() -> Option<Vec<BorrowedMessage<'m>>>,
        meanwhile: impl FnOnce(),
    ) -> Vec<Part<'m>> {
        let (own, others) = self.mappings.split_first_mut().expect("there is one");
        let (sender, receiver) = mpsc::channel();
        let (receiver, empty, skips) = (Mutex::new(receiver), &self.empty, self.skips);
        let receive = || receiver.lock().expect("nobody panics with it").recv().ok();
        let work = |mapping: &mut Mapping| -> Vec<(usize, Part<'m>)> {
            let decode =
                |(number, messages)| (number, part(mapping, empty.clone(), messages, skips));
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

fn part<'m>(
    mapping: &mut Mapping,
    mut events: Events,
    mut messages: Vec<BorrowedMessage<'m>>,
    skips: bool,
) -> Part<'m> {
    let last = messages.last().expect("a part has records");
    let (partition, next) = (last.partition(), last.offset() + 1);
    let taken = messages.len();
    let (mut errors, mut records) = (Vec::new(), Vec::with_capacity(taken));
    messages.retain(|message| {
        if skips && message.payload().is_none() {
            return false;
        }
        let before = events.len();
        let record = match decode(mapping, message, &mut events) {
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
    let run = Run { partition, records, events, changes: Vec::new() };
    Part { messages, run, errors, next, skipped, unread: mapping.take_unread() }
}

/// Appends the events of a record, whose key and headers may be fields.
pub(in crate::stream) fn decode(
    mapping: &mut Mapping,
    message: &BorrowedMessage<'_>,
    events: &mut Events,
) -> Result<usize, DecodeError> {
    let outside = |what: &Outside| outside(message, what);
    let envelope = Envelope { time_ms: message.timestamp().to_millis(), outside: &outside };
    mapping.decode_record(message.payload(), &envelope, events)
}

/// What lies beside a record's value.
pub(in crate::stream) fn outside<'m>(
    message: &'m BorrowedMessage<'_>,
    what: &Outside,
) -> Option<&'m [u8]> {
    match what {
        Outside::Key => message.key(),
        Outside::Header(name) => {
            let last = |headers| Headers::iter(headers).filter(|h| h.key == &**name).last();
            message.headers().and_then(last).and_then(|header| header.value)
        }
    }
}
