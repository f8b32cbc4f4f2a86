//! Records of one round of polling, decoded on as many threads as pay.
//!
//! The parts are put together in the order of the records, so that how many threads there are
//! changes nothing but the time it takes.

use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::message::{BorrowedMessage, Message};

use super::super::decode::{DecodeError, Mapping};
use super::super::events::Events;
use super::super::merge::{Record, Run};
use crate::config::Config;

/// Records that a thread takes at a time: it takes longer to decode them (150 us) than to start a
/// thread (30 to 60), and one that starts late, since librdkafka is busy too, leaves little undone.
const PART: usize = 256;
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

    /// One run for each stretch of records of one partition; a stretch may be cut in several.
    pub(super) fn decode(&mut self, messages: &[BorrowedMessage<'_>]) -> Vec<Decoded> {
        let parts: Vec<_> = messages.chunks(PART).collect();
        let (next, empty) = (AtomicUsize::new(0), &self.empty);
        let decode = |mapping: &mut Mapping| {
            let mut decoded = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(part) = parts.get(number) else { return decoded };
                decoded.push((number, runs(mapping, empty, part)));
            }
        };
        let (own, others) = self.mappings.split_first_mut().expect("there is one");
        let helpers = parts.len().saturating_sub(1).min(others.len());
        let mut decoded = std::thread::scope(|scope| {
            let spawn = |mapping| scope.spawn(|| decode(mapping));
            let spawned: Vec<_> = others[..helpers].iter_mut().map(spawn).collect();
            let mut decoded = decode(own);
            for thread in spawned {
                decoded.extend(thread.join().expect("decoding does not panic"));
            }
            decoded
        });
        decoded.sort_unstable_by_key(|(number, _)| *number);
        decoded.into_iter().flat_map(|(_, runs)| runs).collect()
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
