//! A topic of one's own on a real broker.

use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, ensure};
use millrace::synthetic::World;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::now_ms;

pub(crate) const PARTITIONS: usize = 2;
/// The broker answers and takes records within this, or it is not there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the events of a query go.
pub(crate) fn partition(query: usize) -> usize {
    query % PARTITIONS
}

/// Deleted when this is dropped.
pub(crate) struct Topic {
    name: String,
    admin: AdminClient<DefaultClientContext>,
    producer: ThreadedProducer<DefaultProducerContext>,
    runtime: tokio::runtime::Runtime,
}

impl Topic {
    /// A new topic with a name that no other run has.
    pub(crate) fn create(brokers: &str) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let name = format!("millrace-live-{}-{now}", std::process::id());
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", brokers).set("message.timeout.ms", "20000");
        let admin: AdminClient<DefaultClientContext> = client.create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let topic = NewTopic::new(&name, PARTITIONS as i32, TopicReplication::Fixed(1));
        let created = runtime.block_on(admin.create_topics([&topic], &options()));
        for result in created.with_context(|| format!("no answer from {brokers}"))? {
            result.map_err(|(name, code)| anyhow!("topic {name} is not created: {code}"))?;
        }
        Ok(Self { name, admin, producer: client.create()?, runtime })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sends the next event of `world`, of the present time.
    pub(crate) fn send_next(&self, world: &mut World) -> anyhow::Result<()> {
        let drawn = world.draw();
        self.send(drawn.query, &world.line(drawn, now_ms()))
    }

    /// Sends an event of `query`, all of which go to one partition.
    pub(crate) fn send(&self, query: usize, line: &str) -> anyhow::Result<()> {
        let partition = i32::try_from(partition(query))?;
        let record = BaseRecord::<str, str>::to(&self.name).partition(partition).payload(line);
        let mut record = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    ensure!(full, "an event is not sent: {error}");
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    /// Waits until all that was sent is on the broker.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        self.producer.flush(PATIENCE).context("the broker does not take the events")
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let deleted = self.runtime.block_on(self.admin.delete_topics(&[&self.name], &options()));
        if let Err(error) = deleted {
            eprintln!("topic {} stays behind: {error}", self.name);
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}
