//! The events, and when each was sent.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace::synthetic::{Interaction, World};

use crate::live::now_ms;
use crate::live::topic::{PARTITIONS, Topic, partition};
use crate::process::Process;

/// When events were sent: those of each partition in the order of their offsets, which begin at
/// `first`.
#[derive(Default)]
pub(super) struct Times {
    pub(super) first: [i64; PARTITIONS],
    pub(super) sent: [Vec<Instant>; PARTITIONS],
}

/// What goes to the topic. No other producer writes there, so offsets are counted here.
pub(super) struct Stream {
    topic: Topic,
    world: World,
    next: [i64; PARTITIONS],
    times: Arc<Mutex<Times>>,
}

impl Stream {
    pub(super) fn new(topic: Topic, world: World) -> Self {
        Self { topic, world, next: [0; PARTITIONS], times: Arc::default() }
    }

    /// Events sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.next.iter().sum::<i64>().unsigned_abs()
    }

    /// When those of [`Stream::at_rate`] were sent.
    pub(super) fn times(&self) -> Arc<Mutex<Times>> {
        Arc::clone(&self.times)
    }

    /// An event of each item, then what queries like, `events_an_item` an item.
    pub(super) fn everything(&mut self, items: u32, events_an_item: u32) -> anyhow::Result<()> {
        let queries = self.world.settings().queries;
        for item in 0..items as usize {
            self.send(Interaction { query: item % queries, item })?;
        }
        self.more(u64::from(items) * u64::from(events_an_item))
    }

    /// Sends `events` as fast as the broker takes them.
    pub(super) fn more(&mut self, events: u64) -> anyhow::Result<()> {
        for _ in 0..events {
            let drawn = self.world.draw();
            self.send(drawn)?;
        }
        self.topic.flush()
    }

    /// Sends `rate` events a second while `train` runs, and notes when.
    pub(super) fn at_rate(
        &mut self,
        rate: u64,
        time: Duration,
        train: &mut Process,
    ) -> anyhow::Result<()> {
        self.times.lock().expect("nobody panicked").first = self.next;
        let began = Instant::now();
        for event in 0..rate * time.as_secs() {
            let due = began + Duration::from_secs_f64(event as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if event % rate == 0 {
                train.must_run()?;
            }
            let drawn = self.world.draw();
            let mut times = self.times.lock().expect("nobody panicked");
            times.sent[partition(drawn.query)].push(Instant::now());
            drop(times);
            self.send(drawn)?;
        }
        self.topic.flush()
    }

    fn send(&mut self, drawn: Interaction) -> anyhow::Result<()> {
        self.next[partition(drawn.query)] += 1;
        self.topic.send(drawn.query, &self.world.line(drawn, now_ms()))
    }
}
