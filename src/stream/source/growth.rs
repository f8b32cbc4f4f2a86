//! A topic that gets partitions while it is read, or loses them.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::bail;
use millrace_events::Offsets;

use super::Source;
use super::census::Finding;
use crate::config::Config;
use crate::stream::log::Log;
use crate::stream::{identity, verdict};

/// How long an answer about the topic is waited for while it is read.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// The time between two looks for new partitions; none: nobody looks.
pub(super) fn discover(config: &Config) -> Option<Duration> {
    let every = config.kafka.discover_s;
    (every > 0).then(|| Duration::from_secs(every))
}

impl Source {
    /// Where to read on, as a source of its own, if the topic has got partitions since: from the
    /// last batch with exact offsets on, and the new ones from their beginning. What this source
    /// has read ahead is then read again.
    pub fn grown(&self) -> Option<Offsets> {
        // A window in progress has no offsets to go on from.
        if !self.whole || self.new.iter().len() == 0 {
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
                let on_data_loss = self.config.kafka.on_data_loss;
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
