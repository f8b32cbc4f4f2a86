//! How the source stands, for gauges and for people.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::Source;
use super::intake::Intake;

/// An error of the brokers that is younger than this is worth a word in the next log line, which
/// comes once a minute; an older one explains nothing.
const TROUBLE_RECENT: Duration = Duration::from_secs(70);
impl Source {
    /// Records between the last batch that was made and the log's end, for partitions whose end is
    /// known.
    pub fn lag(&self) -> Vec<(i32, i64)> {
        let offsets = self.intake.batcher.offsets();
        let lag = |(partition, next): (i32, i64)| {
            let Intake { merge, finished, patience, .. } = &self.intake;
            let unheard = finished.contains(&partition) || patience.passed().contains(&partition);
            // Nobody waits for markers and compacted records at the end, but for the end of a
            // transaction.
            if merge.drained(partition) && !unheard {
                return Some((partition, self.uncommitted(partition)));
            }
            let high = self.topic.cached_end(partition)?;
            Some((partition, (high - next).max(0)))
        };
        offsets.iter().filter_map(lag).collect()
    }

    /// The same of catalogues, each partition with its topic.
    pub fn catalogue_lag(&self) -> Vec<(&str, i32, i64)> {
        let feeds = self.feeds.iter().zip(self.intake.batcher.catalogues());
        let of_topic = feeds.map(|(feed, next)| (feed.topic(), feed.lag(next)));
        let all = of_topic.flat_map(|(topic, lag)| {
            lag.into_iter().map(move |(partition, lag)| (topic, partition, lag))
        });
        all.collect()
    }

    /// Records of `partition` behind the beginning of a transaction that has not ended, as of a few
    /// seconds ago. They cannot be read, however long that lasts.
    pub fn uncommitted(&self, partition: i32) -> i64 {
        self.topic.consumer.context().uncommitted(&self.topic.name, partition)
    }

    /// Why the brokers give us nothing: none can be reached, or they refuse us.
    pub fn brokers_away(&self) -> Option<String> {
        self.topic.brokers_away()
    }

    /// What outside gives us nothing, and why: the brokers, or the registry of schemas.
    pub fn away(&self) -> Option<String> {
        let brokers = self.brokers_away().map(|why| format!("the brokers: {why}"));
        brokers.or_else(|| self.wire.away().map(|why| format!("the schema registry: {why}")))
    }

    /// Says in words, for a person, why there is no next batch yet. If the brokers lately gave
    /// trouble, their last error is quoted.
    pub fn waits_for(&self) -> String {
        let Intake { merge, batcher, patience, .. } = &self.intake;
        let partitions = batcher.offsets().iter().map(|(partition, _)| partition);
        let starved: Vec<i32> = partitions.filter(|&partition| merge.starved(partition)).collect();
        let topic = &self.topic.name;
        let waiting: Vec<i32> = self.held.partitions().collect();
        let behind = self.feeds.iter().map(|feed| (feed, feed.starved(&self.intake)));
        let behind = behind.into_iter().find(|(_, partitions)| !partitions.is_empty());
        let what = if !waiting.is_empty() {
            let why = self.wire.away().map_or(String::new(), |why| format!(" ({why})"));
            format!("schemas of records of the partitions {waiting:?} of `{topic}`{why}")
        } else if let Some((feed, partitions)) = behind {
            let catalogue = feed.topic();
            format!("the partitions {partitions:?} of the catalogue `{catalogue}`")
        } else if !starved.is_empty() {
            format!(
                "records of the partitions {starved:?} of `{topic}`, or word that they have none"
            )
        } else if batcher.since().is_some() {
            "the rest of a batch, for batch.linger_ms at most".to_owned()
        } else if !patience.passed().is_empty() {
            let passed = patience.passed();
            // Those below 0 are of catalogues.
            format!("records of the partitions {passed:?} of `{topic}`, which are not heard of")
        } else {
            format!("new records: `{topic}` is read to its end")
        };
        match self.topic.consumer.context().errors.recent(TROUBLE_RECENT) {
            None => what,
            Some((error, age)) => format!("{what}; kafka, {} s ago: {error}", age.as_secs()),
        }
    }
}
