//! A durable checkpoint becomes embeddings on a topic.
//!
//! Key = item id as the source wrote it; value = JSON with the vector, the version (the
//! checkpoint's id), step and event time; a null value if an item went; other formats are for
//! stores' connectors. Compaction-friendly: the newest value of a key is all a reader needs. A
//! version is one transaction over two topics: its vectors, its tombstones, and on the versions
//! topic its marker, which says where they lie. Who reads with `read_committed` sees a version or
//! nothing. A version without vectors is never sent: it would empty the stores that follow the
//! markers.
//!
//! Must never know: the live trainer. It works from a checkpoint's sections.

mod attributes;
pub mod claim;
mod format;
mod record;
mod sent;
mod sweep;
mod topic;
mod versions;

use std::collections::HashSet;

use anyhow::Context;
use rayon::ThreadPool;

use crate::checkpoint::{Checkpoint, Manifest};
use crate::config::Config;
use crate::priority::{self, Priority};
use crate::stream::client::Transactional;
use crate::stream::outbox::Outbox;
use crate::stream::survey;
use claim::Claimant;
use millrace_train::placement::Placement;
pub use record::{ItemVector, VersionMarker};
use sent::Sent;
pub use topic::read_back;
pub use versions::newest_version;

/// Larger requests are worth a delay that nobody notices beside a sweep over the corpus.
const LINGER_MS: u32 = 20;
/// Vectors that wait to be sent, some 50,000 of 64 floats: the sweep waits for the brokers beyond
/// it.
const QUEUE_KBYTES: usize = 64 << 10;

/// A version that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The version: the checkpoint's id.
    pub version: String,
    /// Item vectors sent.
    pub vectors: u64,
    /// Tombstones sent.
    pub tombstones: u64,
    /// Step of the checkpoint.
    pub step: u64,
}

/// Sends versions to the output topic.
pub struct Publisher {
    config: Config,
    placement: Placement,
    pool: ThreadPool,
    takes_over: bool,
    session: Option<Session>,
}

/// While it lasts, nobody else writes versions to the topic.
struct Session {
    outbox: Outbox,
    /// The marker that came last.
    newest: Option<VersionMarker>,
    /// What this session has sent of each item; none: the next version sends all.
    sent: Option<Sent>,
    /// Keys of items without rows that have their tombstones.
    buried: HashSet<u64>,
}

impl Publisher {
    /// A publisher to `publish.topic` of `config`. It asks nobody yet.
    ///
    /// # Errors
    /// A system that makes no more threads.
    pub fn new(config: &Config, placement: &Placement) -> anyhow::Result<Self> {
        let pool = priority::pool(config.publish.threads, "vectors", Priority::Lowest)?;
        let (config, placement) = (config.clone(), placement.clone());
        Ok(Self { config, placement, pool, takes_over: false, session: None })
    }

    /// The same, which replaces a newer version, and that of a newer run.
    #[must_use]
    pub fn taking_over(mut self) -> Self {
        self.takes_over = true;
        self
    }

    /// Makes the output topic that of `run`. From here on an earlier publisher writes nothing more
    /// there, and what it had begun is void.
    ///
    /// # Errors
    /// [`Superseded`](claim::Superseded) if a newer run has published there, or brokers that do not
    /// let this client in.
    pub fn connect(&mut self, run: Claimant<'_>) -> anyhow::Result<()> {
        survey::prepare(&self.config)?;
        // A look before the door is shut to others: who is refused must not disturb the rightful.
        self.look(run)?;
        let publish = &self.config.publish;
        let transactional = Transactional {
            id: format!("millrace-{}", publish.topic),
            timeout: std::time::Duration::from_secs(publish.version_max_s),
        };
        // librdkafka's threads inherit the priority of the one that makes them.
        let outbox = self.pool.install(|| {
            Outbox::transactional(&self.config, LINGER_MS, QUEUE_KBYTES, transactional)
        })?;
        let newest = self.look(run)?;
        self.session = Some(Session { outbox, newest, sent: None, buried: HashSet::new() });
        Ok(())
    }

    /// The newest marker, if `run` may publish after it.
    fn look(&self, run: Claimant<'_>) -> anyhow::Result<Option<VersionMarker>> {
        let newest = newest_version(&self.config);
        let newest = newest.context("cannot see which version was published last")?;
        match &newest {
            Some(newest) if !self.takes_over => claim::check_run(newest, run)?,
            _ => {}
        }
        Ok(newest)
    }

    /// Whether the topic holds this version already, or a later one of its run, as far as is known.
    pub fn is_behind(&self, manifest: &Manifest) -> bool {
        let newest = self.session.as_ref().and_then(|session| session.newest.as_ref());
        newest.is_some_and(|newest| newest.run == manifest.run && newest.step >= manifest.step)
    }

    /// Publishes every item of `checkpoint` and its end marker, all at once; `None` if `stop` said
    /// so in between.
    ///
    /// # Errors
    /// A checkpoint that does not load or holds no item, one that is older than what the topic
    /// holds, or a record that the brokers did not take in time. No reader sees any of it then,
    /// unless the brokers committed and their answer was lost: the next call finds that out.
    pub fn publish(
        &mut self,
        checkpoint: &Checkpoint,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<Published>> {
        if self.session.is_none() {
            self.connect(Claimant::of(&checkpoint.manifest))?;
        }
        // Records that a failed version left behind must not follow those of a later one, and after
        // a fatal error a producer sends nothing more: whatever fails ends the session.
        let mut session = self.session.take().context("connected")?;
        if let Some(newest) = session.newest.as_ref().filter(|_| !self.takes_over) {
            let checked = claim::check(newest, &checkpoint.manifest);
            if let Err(superseded) = checked {
                self.session = Some(session);
                return Err(superseded.into());
            }
        }
        let swept = sweep::run(self, &mut session, checkpoint, stop);
        match swept {
            Ok(Some((published, marker))) => {
                session.newest = Some(marker);
                self.session = Some(session);
                Ok(Some(published))
            }
            Ok(None) => {
                session.outbox.abort();
                Ok(None)
            }
            Err(error) => {
                session.outbox.abort();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
