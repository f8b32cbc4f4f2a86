//! What the log holds: read back from the brokers, the records of open or aborted transactions left
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::traffic::BAD;

/// The brokers give a topic back within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// The records of a topic, up to where it was read.
pub(super) struct Ledger {
    consumer: BaseConsumer,
    topic: String,
    /// The next offset to read of each partition.
    next: BTreeMap<i32, i64>,
    /// Records that are events.
    pub(super) good: u64,
    /// Records that must be rejected.
    pub(super) bad: BTreeSet<(i32, i64)>,
}

impl Ledger {
    pub(super) fn new(brokers: &str, topic: &str) -> anyhow::Result<Ledger> {
        let consumer = reader(brokers)?;
        let (topic, next, bad) = (topic.to_owned(), BTreeMap::new(), BTreeSet::new());
        Ok(Ledger { consumer, topic, next, good: 0, bad })
    }

    /// Reads on to what is the log's end now, or a little further: it may be written meanwhile.
    pub(super) fn read(&mut self) -> anyhow::Result<()> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), PATIENCE)?;
        let mut left = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            let id = partition.id();
            let next = *self.next.entry(id).or_insert(0);
            let (_, end) = self.consumer.fetch_watermarks(&self.topic, id, PATIENCE)?;
            if end > next {
                list.add_partition_offset(&self.topic, id, Offset::Offset(next))?;
                left.insert(id, end);
            }
        }
        self.consumer.assign(&list)?;
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            ensure!(Instant::now() < deadline, "`{}` is not given back: {left:?}", self.topic);
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let place = (message.partition(), message.offset());
                    self.next.insert(place.0, place.1 + 1);
                    if left.get(&place.0).is_some_and(|end| place.1 + 1 >= *end) {
                        left.remove(&place.0);
                    }
                    let marked = message
                        .headers()
                        .is_some_and(|headers| headers.iter().any(|header| header.key == BAD));
                    if marked {
                        self.bad.insert(place);
                    } else {
                        self.good += 1;
                    }
                }
                // What is left is a transaction's markers, or one that is still open.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    left.remove(&partition);
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Records, good and bad.
    pub(super) fn records(&self) -> u64 {
        self.good + self.bad.len() as u64
    }
}

/// The records that letters on a dead-letter topic are about.
pub(super) fn letters(brokers: &str, topic: &str) -> anyhow::Result<BTreeSet<(i32, i64)>> {
    let consumer = reader(brokers)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let mut found = BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        ensure!(Instant::now() < deadline, "`{topic}` is not given back");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let headers = message.headers().context("a letter has headers")?;
                let number = |key: &str| -> Option<i64> {
                    let header = headers.iter().find(|header| header.key == key)?;
                    std::str::from_utf8(header.value?).ok()?.parse().ok()
                };
                let place = number("partition").zip(number("offset"));
                let (partition, offset) = place.context("a letter says which record")?;
                found.insert((i32::try_from(partition)?, offset));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            Some(Err(_)) | None => {}
        }
    }
}

fn reader(brokers: &str) -> anyhow::Result<BaseConsumer> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("group.id", "millrace-faults");
    client.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    client.set("enable.auto.commit", "false").set("fetch.message.max.bytes", "12000000");
    client.create().context("no consumer")
}
