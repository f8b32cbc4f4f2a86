//! A catalogue's topic as it comes: for who wants its newest word at once. Records that cannot be
//! read are passed over, since the trainer sends their letters.

use std::time::{Duration, Instant};

use millrace_events::{CatalogueChange, Offsets};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;

use crate::config::{CatalogueConfig, Config};
use crate::stream::decode::Envelope;
use crate::stream::decode::catalogue::CatalogueMapping;
use crate::stream::source::decoders::outside;
use crate::stream::tail::{census, is_due};
use crate::stream::topic::{LOOK_MAX, Topic};

/// Most records that are handed out together: who looks something up waits for no more.
const RECORDS: usize = 1024;

/// See the module's head.
pub struct CatalogueTail {
    topic: Topic,
    mapping: CatalogueMapping,
    /// The next offset of each partition.
    offsets: Offsets,
    /// When the topic's partitions are counted next, and how often that is; none: never.
    census: Option<(Instant, Duration)>,
}

/// A change, with its partition and offset.
pub type Said = (i32, i64, CatalogueChange);

impl CatalogueTail {
    /// Begins to read the topic of `catalogue` at `from`, partitions that it does not name from
    /// their beginning.
    ///
    /// # Errors
    /// A topic that is not there, or brokers that do not answer or refuse us.
    pub fn open(
        config: &Config,
        catalogue: &CatalogueConfig,
        from: &Offsets,
    ) -> anyhow::Result<CatalogueTail> {
        let name = &catalogue.topic;
        let bounds = Topic::named(name, config)?.watermarks()?;
        let mut offsets = Offsets::new(name.as_str());
        for (&partition, &(low, high)) in &bounds {
            offsets.advance(partition, from.next(partition).unwrap_or(low).clamp(low, high));
        }
        let topic = Topic::to_read(config, name, bounds.len())?;
        topic.assign(&offsets)?;
        let mapping = CatalogueMapping::new(config, catalogue);
        Ok(CatalogueTail { topic, mapping, offsets, census: census(config) })
    }

    /// Waits for records, at most `wait`. Must be called often: librdkafka reports errors only
    /// then.
    ///
    /// # Errors
    /// What no retry cures.
    pub fn next(&mut self, mut wait: Duration) -> anyhow::Result<Vec<Said>> {
        let CatalogueTail { topic, mapping, offsets, census } = self;
        if is_due(census) {
            let there = topic.look(LOOK_MAX).unwrap_or_default();
            topic.assign_new(&there, |partitions| topic.bounds(partitions), offsets)?;
        }
        let mut said = Vec::new();
        for _ in 0..RECORDS {
            match topic.consumer.poll(std::mem::take(&mut wait)) {
                None => break,
                Some(Ok(message)) => {
                    topic.consumer.context().errors.answered();
                    let (partition, offset) = (message.partition(), message.offset());
                    // What was on its way when the partitions were assigned anew.
                    if offsets.next(partition).is_none_or(|next| offset < next) {
                        continue;
                    }
                    offsets.advance(partition, offset + 1);
                    let outside = |what: &_| outside(&message, what);
                    let time_ms = message.timestamp().to_millis();
                    let envelope = Envelope { time_ms, outside: &outside };
                    if let Ok(change) = mapping.decode(message.payload(), &envelope) {
                        said.push((partition, offset, change));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    topic.consumer.context().errors.answered();
                }
                Some(Err(error)) => topic.lasting(&error)?,
            }
        }
        mapping.take_unread();
        Ok(said)
    }

    /// The next offset of each partition.
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }
}
