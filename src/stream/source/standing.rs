//! How the source stands, for gauges and for people.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::Source;
use super::intake::Intake;

/// An error of the brokers that is younger than this is worth a word in the next log line, which
/// comes once a minute; an older one explains nothing.
const TROUBLE_RECENT: Duration = Duration::from_secs(70);

/// How far a partition is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag<'s> {
    /// Its topic.
    pub topic: &'s str,
    /// Its number there.
    pub partition: i32,
    /// Records that are in no batch yet.
    pub records: i64,
    /// Those behind the beginning of a transaction that has not ended, as of a few seconds ago.
    /// They cannot be read, however long that lasts.
    pub uncommitted: i64,
}

impl Source {
    /// Of every lane whose end is known: its topic and partition, and the records between the last
    /// batch that was made and its end.
    pub fn lag(&self) -> Vec<Lag<'_>> {
        let offsets = self.intake.batcher.offsets();
        let lag = |(lane, next): (i32, i64)| {
            let Intake { merge, finished, patience, .. } = &self.intake;
            let unheard = finished.contains(&lane) || patience.passed().contains(&lane);
            let uncommitted = self.log.uncommitted(lane);
            // Nobody waits for markers and compacted records at the end, but for the end of a
            // transaction.
            let records = if merge.drained(lane) && !unheard {
                uncommitted
            } else {
                (self.log.cached_end(lane)? - next).max(0)
            };
            let (topic, partition) = self.log.place(lane);
            Some(Lag { topic: &topic.name, partition, records, uncommitted })
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

    /// Why the brokers give us nothing: none can be reached, or they refuse us.
    pub fn brokers_away(&self) -> Option<String> {
        self.log.first().brokers_away()
    }

    /// What outside gives us nothing, and why: the brokers, or the registry of schemas.
    pub fn away(&self) -> Option<String> {
        let brokers = self.brokers_away().map(|why| format!("the brokers: {why}"));
        brokers.or_else(|| self.wires.away().map(|why| format!("the schema registry: {why}")))
    }

    /// Says in words, for a person, why there is no next batch yet. If the brokers lately gave
    /// trouble, their last error is quoted.
    pub fn waits_for(&self) -> String {
        let Intake { merge, batcher, patience, .. } = &self.intake;
        let lanes = batcher.offsets().iter().map(|(lane, _)| lane);
        let starved: Vec<i32> = lanes.filter(|&lane| merge.starved(lane)).collect();
        let log = &self.log;
        let waiting: Vec<i32> = self.held.lanes().collect();
        let behind = self.feeds.iter().map(|feed| (feed, feed.starved(&self.intake)));
        let behind = behind.into_iter().find(|(_, partitions)| !partitions.is_empty());
        let what = if !waiting.is_empty() {
            let why = self.wires.away().map_or(String::new(), |why| format!(" ({why})"));
            format!("schemas of records of the {}{why}", log.spell(&waiting))
        } else if let Some((feed, partitions)) = behind {
            let catalogue = feed.topic();
            format!("the partitions {partitions:?} of the catalogue `{catalogue}`")
        } else if !starved.is_empty() {
            format!("records of the {}, or word that they have none", log.spell(&starved))
        } else if batcher.since().is_some() {
            "the rest of a batch, for batch.linger_ms at most".to_owned()
        } else if !patience.passed().is_empty() {
            // Those below 0 are of catalogues.
            let (own, listed): (Vec<i32>, Vec<i32>) =
                patience.passed().iter().partition(|&&lane| lane >= 0);
            let own = (!own.is_empty()).then(|| format!("the {}", log.spell(&own)));
            let listed = (!listed.is_empty()).then(|| "a catalogue".to_owned());
            let of: Vec<String> = own.into_iter().chain(listed).collect();
            format!("records of {}, which are not heard of", of.join(" and of "))
        } else {
            format!("new records: {} is read to its end", log.name())
        };
        match log.first().consumer.context().errors.recent(TROUBLE_RECENT) {
            None => what,
            Some((error, age)) => format!("{what}; kafka, {} s ago: {error}", age.as_secs()),
        }
    }
}
