//! How long an incomplete batch waits.

use std::time::{Duration, Instant};

use crate::config::BatchConfig;
use crate::stream::merge::Batcher;

/// How long an incomplete batch waits for more, since its first record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    /// With enough events, or with none: rejected records alone are no step.
    enough: Duration,
    /// With fewer than `min_events`.
    few: Duration,
    min_events: usize,
}

impl Linger {
    /// None: the batch waits until it is full.
    pub(super) fn new(batch: &BatchConfig) -> Option<Linger> {
        let enough = Duration::from_millis(batch.linger_ms);
        let few = enough.max(Duration::from_millis(batch.min_events_wait_ms));
        let linger = Linger { enough, few, min_events: batch.min_events };
        (!enough.is_zero()).then_some(linger)
    }

    /// When `batcher` hands out its incomplete batch; none: nothing went in yet.
    pub(super) fn due(self, batcher: &Batcher) -> Option<Instant> {
        let few = !batcher.is_empty() && batcher.len() < self.min_events;
        Some(batcher.since()? + if few { self.few } else { self.enough })
    }
}
