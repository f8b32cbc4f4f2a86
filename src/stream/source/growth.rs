//! A topic that gets partitions while it is read, or loses them.

use std::sync::PoisonError;
use std::time::Instant;

use anyhow::bail;
use millrace_events::Offsets;

use super::Source;
use super::catalogues::Feed;
use super::census::Finding;
use crate::stream::log::Log;
use crate::stream::topic::LOOK_MAX;
use crate::stream::{identity, verdict};

impl Source {
    /// Where to read on, as a source of its own, if a topic of the log or of a catalogue has got
    /// partitions since: from the last batch with exact offsets on, and the new ones from their
    /// beginning ([`Source::catalogues`] has those of catalogues). What this source has read ahead
    /// is then read again.
    pub fn grown(&self) -> Option<Offsets> {
        let has_grown = self.new.iter().len() > 0 || self.feeds.iter().any(Feed::has_grown);
        // A window in progress has no offsets to go on from.
        if !self.whole || !has_grown {
            return None;
        }
        let mut offsets = self.done.clone();
        self.new.iter().for_each(|(lane, next)| offsets.advance(lane, next));
        Some(offsets)
    }

    /// Looks at the topics' partitions, if it is time to.
    ///
    /// # Errors
    /// A topic that has lost partitions for good; new ones that have lost records already, if
    /// `kafka.on_data_loss` does not allow it.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        let on_data_loss = self.config.kafka.on_data_loss;
        for (feed, done) in self.feeds.iter_mut().zip(&self.done_catalogues) {
            feed.look(done, on_data_loss)?;
        }
        let now = Instant::now();
        if !self.census.is_due(now) {
            return Ok(());
        }
        let log = &self.log;
        let there = log.look(LOOK_MAX);
        match self.census.compare(&self.done, there.as_deref(), now) {
            Finding::Same if there.is_some() => self.verify()?,
            Finding::Same => {}
            Finding::Missing(lanes) => tracing::warn!(
                "the brokers do not know the {}; waiting for them",
                log.spell(&lanes)
            ),
            Finding::Gone(lanes) => {
                bail!("the {} are there no more; was the topic created anew?", log.spell(&lanes))
            }
            Finding::New(lanes) => {
                let Ok(bounds) = log.bounds(&lanes) else {
                    self.census.retry(now); // They have no leaders yet.
                    return Ok(());
                };
                let begun = verdict::judge(&log.unread(), &bounds, &[], on_data_loss)?;
                begun.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!("the log has grown: the {} are read, too", log.spell(&lanes));
                self.new = begun.offsets;
            }
        }
        Ok(())
    }

    /// Looks whether the log is still the one that was read, by a record of one partition, each
    /// time of another one: a topic that is made anew while it is read may grow past our offsets
    /// before anybody asks for them.
    fn verify(&mut self) -> anyhow::Result<()> {
        let Some(witness) = &self.intake.witness else { return Ok(()) };
        self.turn += 1;
        let one = witness.lock().unwrap_or_else(PoisonError::into_inner).of_turn(self.turn);
        // What is read there must not come out of the queues here.
        let log = Log::of(&self.config)?;
        let lanes: Vec<i32> = one.lanes().collect();
        let Ok(bounds) = log.bounds(&lanes) else { return Ok(()) };
        identity::verify(&log, one.cluster.as_ref(), one.oldest(&bounds)).map(drop)
    }
}
