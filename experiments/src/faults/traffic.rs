//! What a shop's clients send while things break: events without end, and now and then a record
//! that nobody should have sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use millrace::stream::calendar::now_ms;
use millrace::synthetic::{World, WorldSettings};
use millrace_events::SplitMix;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, Producer, PurgeConfig, ThreadedProducer,
};

/// Events a second: small enough that a trainer on a busy machine is never the bottleneck.
const RATE: u64 = 300;
/// A broker that is away comes back within this.
const PATIENCE: Duration = Duration::from_secs(180);
/// Marks a record that must be rejected.
pub(super) const BAD: &str = "bad";

type Sender = Arc<ThreadedProducer<DefaultProducerContext>>;

/// Sends events from a thread of its own until it is stopped.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
    sender: Sender,
    brokers: String,
    topic: String,
}

pub(super) fn world(seed: u64) -> World {
    World::new(WorldSettings {
        queries: 300,
        items: 300,
        dim: 4,
        taste: 5.0,
        skew: 0.8,
        drift: 0.0,
        period: 1_000_000,
        seed,
    })
}

/// A producer that loses and repeats nothing, however long the brokers are away.
pub(super) fn sender(brokers: &str) -> anyhow::Result<Sender> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("enable.idempotence", "true");
    client.set("message.timeout.ms", "0").set("message.max.bytes", "11000000");
    client.set("topic.metadata.refresh.interval.ms", "2000");
    Ok(Arc::new(client.create().context("no producer")?))
}

/// A good event as a JSON line.
pub(super) fn line(world: &mut World, time_ms: i64, price: &str) -> (String, String) {
    let drawn = world.draw();
    let key = format!("u{}", drawn.query);
    let value = format!(
        "{{\"user\":\"u{}\",\"item\":\"i{}\",\"price\":{price},\"time_ms\":{time_ms}}}",
        drawn.query, drawn.item
    );
    (key, value)
}

impl Traffic {
    pub(super) fn start(brokers: &str, topic: &str, seed: u64) -> anyhow::Result<Traffic> {
        let (stop, pause) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let sender = sender(brokers)?;
        let thread = {
            let (stop, pause, topic) = (Arc::clone(&stop), Arc::clone(&pause), topic.to_owned());
            let sender = Arc::clone(&sender);
            let mut world = world(seed);
            let mut random = SplitMix::new(seed);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(1_000_000 / RATE));
                    if pause.load(Ordering::Relaxed) {
                        continue;
                    }
                    let price = (random.next_u64() % 1000).to_string();
                    let (key, value) = line(&mut world, now_ms(), &price);
                    send(&sender, &topic, Some(&key), Some(value.as_bytes()), false)?;
                }
                Ok(())
            })
        };
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        Ok(Traffic { stop, pause, thread, sender, brokers, topic })
    }

    /// Nobody sends anything for a while.
    pub(super) fn pause(&self, paused: bool) {
        self.pause.store(paused, Ordering::Relaxed);
    }

    /// Sends one record beside the events; `bad`: it must be rejected.
    pub(super) fn send(&self, value: Option<&[u8]>, bad: bool) -> anyhow::Result<()> {
        send(&self.sender, &self.topic, None, value, bad)
    }

    /// Sends events in a transaction that is committed, and in one that is taken back.
    pub(super) fn transactions(&self, seed: u64, events: usize) -> anyhow::Result<()> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client.set("transactional.id", format!("{}-transactions", self.topic));
        let sender: Sender = Arc::new(client.create()?);
        sender.init_transactions(PATIENCE)?;
        let mut world = world(seed);
        for commits in [true, false, true] {
            sender.begin_transaction()?;
            for _ in 0..events {
                let (key, value) = line(&mut world, now_ms(), "1");
                send(&sender, &self.topic, Some(&key), Some(value.as_bytes()), false)?;
            }
            sender.flush(PATIENCE)?;
            if commits {
                sender.commit_transaction(PATIENCE)?;
            } else {
                sender.abort_transaction(PATIENCE)?;
            }
        }
        Ok(())
    }

    /// Pauses, and returns once everything is on the brokers.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        self.pause(true);
        // The thread may be about to send one more.
        std::thread::sleep(Duration::from_millis(50));
        ensure!(
            !self.thread.is_finished(),
            "an event could not be sent, and nobody sends any more"
        );
        self.sender.flush(PATIENCE).context("the brokers do not take the events")
    }

    /// Ends without what the brokers have not taken: its topic may be gone, and an idempotent
    /// producer would wait for it without end.
    pub(super) fn give_up(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.purge(PurgeConfig::default().queue().inflight());
        // Events that were not taken are what is given up.
        self.thread.join().map(drop).ok();
    }
}

/// Queues a record; waits while the queue is full.
pub(super) fn send(
    sender: &Sender,
    topic: &str,
    key: Option<&str>,
    value: Option<&[u8]>,
    bad: bool,
) -> anyhow::Result<()> {
    let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic);
    (record.key, record.payload) = (key, value);
    if bad {
        let header = Header { key: BAD, value: Some("yes") };
        record.headers = Some(OwnedHeaders::new().insert(header));
    }
    loop {
        match sender.send(record) {
            Ok(()) => return Ok(()),
            Err((error, back)) => {
                let full = rdkafka::types::RDKafkaErrorCode::QueueFull;
                if error.rdkafka_error_code() != Some(full) {
                    return Err(error).context("an event is not sent");
                }
                record = back;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
