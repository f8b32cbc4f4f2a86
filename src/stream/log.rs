//! The log of interactions: one topic, or several that are read as one.
//!
//! Owns which lane is which partition of which topic. The topics share one connection: they lie on
//! the same brokers.
//!
//! Must never know: what a record means.

use std::time::Duration;

use anyhow::bail;
use millrace_events::{Offsets, lane, lane_place};
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Message;

use super::position::{Position, Range};
use super::topic::{Topic, Watermarks, lag};
use crate::config::Config;

/// The topics of interactions, in the config's order, and a connection to their brokers.
#[derive(Debug)]
pub struct Log {
    /// One at least.
    topics: Vec<Topic>,
}

impl Log {
    /// The log of `config`.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub fn of(config: &Config) -> anyhow::Result<Log> {
        Log::to_read(config, 1)
    }

    /// The same, to read so many of its lanes.
    ///
    /// # Errors
    /// As [`Log::of`].
    pub(super) fn to_read(config: &Config, lanes: usize) -> anyhow::Result<Log> {
        let first = Topic::to_read(config, &config.kafka.topic, lanes)?;
        let others = config.interactions.iter().map(|other| first.beside(&other.topic));
        let others: Vec<Topic> = others.collect();
        Ok(Log { topics: std::iter::once(first).chain(others).collect() })
    }

    /// The first topic, whose connection is that of all.
    pub fn first(&self) -> &Topic {
        &self.topics[0]
    }

    /// All topics.
    pub(super) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Nothing read yet.
    pub fn unread(&self) -> Offsets {
        let first = Offsets::new(self.first().name.as_str());
        self.topics[1..].iter().fold(first, |offsets, topic| offsets.and(topic.name.as_str()))
    }

    /// Topic and partition of a lane.
    pub(super) fn place(&self, lane: i32) -> (&Topic, i32) {
        let (topic, partition) = lane_place(lane);
        (&self.topics[topic], partition)
    }

    /// The same, as they are said elsewhere.
    pub(super) fn named(&self, lane: i32) -> (String, i32) {
        let (topic, partition) = self.place(lane);
        (topic.name.clone(), partition)
    }

    /// The lane that a record came on; none: it is of another topic.
    pub(super) fn lane_of(&self, message: &impl Message) -> Option<i32> {
        let topic = self.topics.iter().position(|topic| topic.name == message.topic())?;
        Some(lane(topic, message.partition()))
    }

    /// Its topics in a message: `` `a` `` or ``  `a` and `b` ``.
    pub(super) fn name(&self) -> String {
        let names: Vec<String> =
            self.topics.iter().map(|topic| format!("`{}`", topic.name)).collect();
        names.join(" and ")
    }

    /// Lanes in a message: ``partitions [0, 2] of `a` and [1] of `b` ``.
    pub(super) fn spell(&self, lanes: &[i32]) -> String {
        let of_topic = |(number, topic): (usize, &Topic)| {
            let own = lanes.iter().map(|&lane| lane_place(lane));
            let own: Vec<i32> =
                own.filter(|(topic, _)| *topic == number).map(|(_, partition)| partition).collect();
            (!own.is_empty()).then(|| format!("{own:?} of `{}`", topic.name))
        };
        let spelt: Vec<String> = self.topics.iter().enumerate().filter_map(of_topic).collect();
        format!("partitions {}", spelt.join(" and "))
    }

    /// What `of_topic` finds of every topic by its partitions, by lane.
    fn all<T>(
        &self,
        mut of_topic: impl FnMut(&Topic) -> anyhow::Result<Vec<(i32, T)>>,
    ) -> anyhow::Result<Vec<(i32, T)>> {
        let mut all = Vec::new();
        for (number, topic) in self.topics.iter().enumerate() {
            let found = of_topic(topic)?.into_iter();
            all.extend(found.map(|(partition, found)| (lane(number, partition), found)));
        }
        Ok(all)
    }

    /// Its lanes. Topics that are not there yet are waited for, but not for long.
    ///
    /// # Errors
    /// As of [`Topic::partitions`].
    pub fn lanes(&self) -> anyhow::Result<Vec<i32>> {
        let lanes =
            self.all(|topic| Ok(topic.partitions()?.into_iter().map(|id| (id, ())).collect()));
        Ok(lanes?.into_iter().map(|(lane, ())| lane).collect())
    }

    /// Its lanes as of now, in a request for each topic; one that is not there has none. None: no
    /// answer within `wait`, or one that tells nothing.
    pub(super) fn look(&self, wait: Duration) -> Option<Vec<i32>> {
        let mut there = Vec::new();
        for (number, topic) in self.topics.iter().enumerate() {
            there.extend(topic.look(wait)?.into_iter().map(|partition| lane(number, partition)));
        }
        Some(there)
    }

    /// First and next offsets of every lane.
    ///
    /// # Errors
    /// As of [`Topic::watermarks`].
    pub fn watermarks(&self) -> anyhow::Result<Watermarks> {
        Ok(self.all(|topic| Ok(topic.watermarks()?.into_iter().collect()))?.into_iter().collect())
    }

    /// First and next offsets of the lanes that have a leader, and those that have none.
    ///
    /// # Errors
    /// As of [`Topic::bounds_known`].
    pub fn bounds_known(&self) -> anyhow::Result<(Watermarks, Vec<i32>)> {
        let all = self.all(|topic| {
            let (bounds, silent) = topic.bounds_known()?;
            let led = bounds.into_iter().map(|(partition, bounds)| (partition, Some(bounds)));
            Ok(led.chain(silent.into_iter().map(|partition| (partition, None))).collect())
        })?;
        let silent = all.iter().filter(|(_, bounds)| bounds.is_none()).map(|(lane, _)| *lane);
        let silent = silent.collect();
        Ok((all.into_iter().filter_map(|(lane, bounds)| Some((lane, bounds?))).collect(), silent))
    }

    /// First and next offsets of these lanes.
    ///
    /// # Errors
    /// As of [`Topic::bounds`].
    pub(super) fn bounds(&self, lanes: &[i32]) -> anyhow::Result<Watermarks> {
        let mut bounds = Watermarks::new();
        for &lane in lanes {
            let (topic, partition) = self.place(lane);
            bounds.extend(topic.bounds(&[partition])?.into_values().map(|bounds| (lane, bounds)));
        }
        Ok(bounds)
    }

    /// The offsets of `position` in every lane, within what the log holds now.
    ///
    /// # Errors
    /// As of [`Topic::resolve`].
    pub fn resolve(&self, position: Position) -> anyhow::Result<Offsets> {
        let mut offsets = self.unread();
        let all = self.all(|topic| Ok(topic.resolve(position)?.iter().collect()))?;
        all.into_iter().for_each(|(lane, next)| offsets.advance(lane, next));
        Ok(offsets)
    }

    /// The range between two positions.
    ///
    /// # Errors
    /// As of [`Topic::resolve`].
    pub fn range(&self, from: Position, to: Position) -> anyhow::Result<Range> {
        Ok(Range { from: self.resolve(from)?, to: Some(self.resolve(to)?) })
    }

    /// Whether it has all lanes of a range, and each has an end if one has.
    ///
    /// # Errors
    /// A message that says what there is not.
    pub(super) fn check(&self, range: &Range) -> anyhow::Result<()> {
        let of = range.from.topics();
        if of != self.unread().topics() {
            bail!(
                "the range is one of `{}`, but the config names {}",
                of.join("`, `"),
                self.name()
            );
        }
        let there = self.lanes()?;
        for (lane, _) in range.from.iter() {
            let (topic, partition) = range.from.place(lane);
            if !there.contains(&lane) {
                let all = self.spell(&there);
                bail!("topic `{topic}` has no partition {partition}; there are the {all}");
            }
            if range.to.as_ref().is_some_and(|to| to.next(lane).is_none()) {
                bail!("partition {partition} of `{topic}` has a start but no end to read to");
            }
        }
        Ok(())
    }

    /// Assigns the newest `share` records of each lane that holds any. Returns how many do.
    ///
    /// # Errors
    /// If librdkafka refuses the assignment.
    pub(super) fn assign_newest(&self, bounds: &Watermarks, share: i64) -> anyhow::Result<usize> {
        let mut newest = self.unread();
        for (&lane, &(low, high)) in bounds.iter().filter(|(_, (low, high))| low < high) {
            newest.advance(lane, (high - share).max(low));
        }
        self.first().assign(&newest)?;
        Ok(newest.iter().len())
    }

    /// Records of each lane between `next` and its end, where that is known.
    pub(super) fn lag(&self, next: &Offsets) -> Vec<(i32, i64)> {
        lag(next, |lane| self.cached_end(lane))
    }

    /// As [`Topic::cached_end`].
    pub(super) fn cached_end(&self, lane: i32) -> Option<i64> {
        let (topic, partition) = self.place(lane);
        topic.cached_end(partition)
    }

    /// As [`Topic::position`].
    pub(super) fn position(&self, lane: i32) -> Option<i64> {
        let (topic, partition) = self.place(lane);
        topic.position(partition)
    }

    /// Records of a lane behind the beginning of a transaction that has not ended, as of a few
    /// seconds ago.
    pub(super) fn uncommitted(&self, lane: i32) -> i64 {
        let (topic, partition) = self.place(lane);
        topic.consumer.context().uncommitted(&topic.name, partition)
    }
}
