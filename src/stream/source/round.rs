//! Records of one round of polling, decoded on as many threads as pay.
//!
//! The parts are put together in the order of the records, so that how many threads there are
//! changes nothing but the time it takes.

use rdkafka::message::{BorrowedMessage, Message};

use super::super::decode::{DecodeError, Mapping};
use super::super::events::Events;
use super::super::merge::{Record, Run};
use crate::config::Config;

/// Fewer records than this take less time than a thread to start (30 us to 250).
const RECORDS_PER_THREAD: usize = 256;
/// Polling, merging and batching stay on one thread, and take as long as decoding on three.
const THREADS_MAX: usize = 4;

/// The mapping, once for each thread.
pub(super) struct Decoders {
    mappings: Vec<Mapping>,
    empty: Events,
}

/// A run, and why its rejected records are, in their order.
pub(super) struct Decoded {
    pub(super) run: Run,
    pub(super) errors: Vec<DecodeError>,
}

impl Decoders {
    pub(super) fn new(config: &Config) -> Decoders {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mappings = (0..cores.min(THREADS_MAX)).map(|_| Mapping::new(config)).collect();
        Decoders { mappings, empty: Events::of(config) }
    }

    /// One run for each stretch of records of one partition; a stretch may be cut in two.
    pub(super) fn decode(&mut self, messages: &[BorrowedMessage<'_>]) -> Vec<Decoded> {
        let threads = (messages.len() / RECORDS_PER_THREAD).clamp(1, self.mappings.len());
        let parts = messages.chunks(messages.len().div_ceil(threads).max(1));
        let empty = &self.empty;
        let mut parts = parts.zip(&mut self.mappings);
        let Some((first, mapping)) = parts.next() else { return Vec::new() };
        std::thread::scope(|scope| {
            let spawn = |(part, mapping)| scope.spawn(move || runs(mapping, empty, part));
            let others: Vec<_> = parts.map(spawn).collect();
            let mut decoded = runs(mapping, empty, first);
            for other in others {
                decoded.extend(other.join().expect("decoding does not panic"));
            }
            decoded
        })
    }
}

fn runs(mapping: &mut Mapping, empty: &Events, messages: &[BorrowedMessage<'_>]) -> Vec<Decoded> {
    let stretches = messages.chunk_by(|a, b| a.partition() == b.partition());
    stretches.map(|stretch| run(mapping, empty.clone(), stretch)).collect()
}

fn run(mapping: &mut Mapping, mut events: Events, messages: &[BorrowedMessage<'_>]) -> Decoded {
    let mut errors = Vec::new();
    let mut record = |message: &BorrowedMessage<'_>| {
        let time_ms = message.timestamp().to_millis();
        let decoded = mapping.decode(message.payload(), time_ms, &mut events);
        let time_ms = match decoded {
            Ok(()) => events.times_ms.last().copied(),
            Err(error) => {
                errors.push(error);
                None
            }
        };
        Record { offset: message.offset(), time_ms }
    };
    let records = messages.iter().map(&mut record).collect();
    Decoded { run: Run { partition: messages[0].partition(), records, events }, errors }
}
