//! Which partitions are fetched.

use std::collections::BTreeSet;

use anyhow::Context as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::super::merge::Merge;
use super::client::Watch;
use super::intake::Intake;

/// A typical record.
const RECORD_BYTES: usize = 128;
/// Below this a fetch costs more in requests than it saves in memory.
const FETCH_BYTES_MIN: usize = 64 << 10;
/// Records of a partition that are buffered at least before it pauses: where the others are at the
/// log's end, it takes up to `fetch.wait.max.ms` to fetch again, so that fewer records a pause
/// would make the stream crawl.
pub(super) const SHARE_MIN: usize = 1024;

/// Most records of a round: amortises the look at the partitions and the start of a thread that
/// decodes, delays nothing noticeable.
const ROUND_MAX: usize = 2048;

/// Keeps the partitions' buffers bounded. Pausing throws away what librdkafka has fetched ahead,
/// so it starts late and ends at half.
pub(super) struct Flow {
    pub(super) topic: String,
    budget: usize,
    share: usize,
    pub(super) paused: BTreeSet<i32>,
    held: bool,
}

impl Flow {
    /// Keeps at most `budget` records of `partitions` partitions, or what [`SHARE_MIN`] makes of it.
    pub(super) fn new(topic: &str, budget: usize, partitions: usize) -> Flow {
        let share = (budget / partitions.max(1)).max(SHARE_MIN);
        let budget = share * partitions.max(1);
        Flow { topic: topic.to_owned(), budget, share, paused: BTreeSet::new(), held: false }
    }

    /// A fetch should bring at most half of a partition's share.
    pub(super) fn fetch_bytes(&self) -> usize {
        (self.share / 2 * RECORD_BYTES).max(FETCH_BYTES_MIN)
    }

    /// Records that may come before the partitions are looked at again.
    pub(super) fn room(&self, merge: &Merge) -> usize {
        let room = self.budget.saturating_sub(merge.buffered_total());
        // Some record must come, even so, or nothing would ever leave.
        room.clamp(1, (self.share / 2).min(ROUND_MAX))
    }

    /// Pauses `partition` if it is far ahead of those that the merge waits for, or finished (then
    /// for good).
    pub(super) fn restrain(
        &mut self,
        consumer: &BaseConsumer<Watch>,
        intake: &Intake,
        partition: i32,
    ) -> anyhow::Result<()> {
        let (own, total) = (intake.merge.buffered(partition), intake.merge.buffered_total());
        let ahead = total >= self.budget || (own >= self.share && total >= self.budget / 2);
        let finished = intake.finished.contains(&partition);
        if finished || (ahead && own > 0 && self.paused.insert(partition)) {
            consumer.pause(&self.list([partition])).context("cannot pause a partition")?;
        }
        if finished {
            self.paused.remove(&partition);
        }
        Ok(())
    }

    /// Resumes the partitions that have room again.
    pub(super) fn relieve(
        &mut self,
        consumer: &BaseConsumer<Watch>,
        merge: &Merge,
    ) -> anyhow::Result<()> {
        let total = merge.buffered_total();
        let room = |partition: &i32| {
            let own = merge.buffered(*partition);
            own == 0 || (own <= self.share / 2 && total < self.budget)
        };
        let ready: Vec<i32> = self.paused.iter().copied().filter(room).collect();
        for &partition in &ready {
            self.paused.remove(&partition);
        }
        if !ready.is_empty() && !self.held {
            consumer.resume(&self.list(ready)).context("cannot resume a partition")?;
        }
        Ok(())
    }

    /// Pauses everything that flows, or lets it flow again.
    pub(super) fn hold(
        &mut self,
        consumer: &BaseConsumer<Watch>,
        intake: &Intake,
        held: bool,
    ) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.held, held) == held {
            return Ok(());
        }
        let all = intake.batcher.offsets().iter().map(|(partition, _)| partition);
        let flowing: Vec<i32> =
            all.filter(|id| !self.paused.contains(id) && !intake.finished.contains(id)).collect();
        let list = self.list(flowing);
        let done = if held { consumer.pause(&list) } else { consumer.resume(&list) };
        done.context("cannot pause or resume the partitions")
    }

    fn list(&self, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }
}
