//! The thread that looks for newer checkpoints and makes versions of them.
//!
//! Whatever goes wrong here is said once, and what is on the shelf goes on answering.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};

use super::Version;
use super::shelf::Shelf;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use millrace_retrieval::{Centroids, IndexSettings};

/// Two changes of a directory within this long may leave the same time on it.
const GRAIN: Duration = Duration::from_secs(2);
/// What cannot be loaded is tried again after this long, or once the directory changes. Sooner, a
/// large checkpoint that this program cannot use would be read all the time.
const RETRY: Duration = Duration::from_secs(10);

/// See the module's head.
pub(super) struct Follower {
    from: PathBuf,
    /// The arm's name; none: there are no arms.
    arm: Option<String>,
    shelf: Arc<Shelf>,
    settings: IndexSettings,
    stale_max: Option<Duration>,
    /// When the directory had changed at the last look: nothing comes without a change of it.
    changed: Option<SystemTime>,
    /// What was wrong the last time, and when that was.
    trouble: Option<(String, Instant)>,
    /// Damaged checkpoints that were named in the log.
    skipped: Vec<PathBuf>,
    /// For the next version's index.
    centroids: Option<Arc<Centroids>>,
}

impl Follower {
    pub(super) fn new(
        config: &Config,
        from: PathBuf,
        (arm, shelf): (Option<&str>, &Arc<Shelf>),
    ) -> Self {
        let serve = &config.serve;
        let settings = IndexSettings {
            exact_max: serve.exact_items_max,
            lists_probed: serve.lists_probed,
            seed: config.seed,
        };
        Self {
            from,
            arm: arm.map(str::to_owned),
            shelf: Arc::clone(shelf),
            settings,
            stale_max: (serve.stale_max_s > 0).then(|| Duration::from_secs(serve.stale_max_s)),
            changed: None,
            trouble: None,
            skipped: Vec::new(),
            centroids: None,
        }
    }

    /// Looks for a newer version; whether one was made.
    pub(super) fn look(&mut self) -> bool {
        self.shelf.clear();
        let mut made = false;
        let found = self.is_due().and_then(|due| {
            if due && !self.has_newest() {
                made = self.take_newest()?;
            }
            Ok(due)
        });
        match found {
            Ok(false) => {}
            Ok(true) => self.trouble = None,
            Err(error) => self.complain(format!("{error:#}")),
        }
        made
    }

    /// Whether a version answers.
    pub(super) fn answers(&self) -> bool {
        self.shelf.row().active.is_some()
    }

    /// Whether there may be what the last look did not find.
    fn is_due(&mut self) -> anyhow::Result<bool> {
        let changed = self.from.metadata().and_then(|data| data.modified());
        let changed = changed.with_context(|| format!("cannot look at {}", self.from.display()))?;
        let is_same = self.changed == Some(changed);
        let rests = self.trouble.as_ref().is_none_or(|(_, since)| since.elapsed() < RETRY);
        self.changed = changed.elapsed().is_ok_and(|age| age > GRAIN).then_some(changed);
        Ok(!(is_same && rests))
    }

    fn complain(&mut self, trouble: String) {
        if self.trouble.as_ref().is_none_or(|(known, _)| *known != trouble) {
            let serving = self.shelf.row().active.as_ref().map(|version| version.id.clone());
            let serving = serving.unwrap_or_else(|| "nothing".to_owned());
            let arm = self.arm.as_deref();
            tracing::warn!(arm, "no newer version: {trouble}; {serving} goes on answering");
        }
        self.trouble = Some((trouble, Instant::now()));
    }

    /// Whether the newest checkpoint is on the shelf. One manifest says so; sections take seconds.
    fn has_newest(&self) -> bool {
        let newest = Checkpoint::newest(&self.from).ok().flatten();
        newest.is_some_and(|newest| self.shelf.row().get(&newest.manifest.version).is_some())
    }

    /// Puts the newest good checkpoint on the shelf, unless it is there.
    fn take_newest(&mut self) -> anyhow::Result<bool> {
        let (checkpoint, skipped) = Checkpoint::resolve(&self.from)?;
        // Retention does not wait for readers. What was found instead is older, and a newer one is
        // there.
        if let Some(deleted) = skipped.iter().find(|skipped| !skipped.path.exists()) {
            bail!(
                "{} was deleted while it was read; if that happens often, raise checkpoint.keep of \
                 the trainer",
                deleted.path.display()
            );
        }
        for damaged in skipped.iter().filter(|damaged| !self.skipped.contains(&damaged.path)) {
            tracing::warn!(path = %damaged.path.display(), "skipped: {}", damaged.reason);
        }
        self.skipped = skipped.into_iter().map(|damaged| damaged.path).collect();
        if self.shelf.row().get(&checkpoint.manifest.version).is_some() {
            return Ok(false);
        }
        let began = Instant::now();
        let version = Version::load(&checkpoint, &self.settings, self.centroids.as_deref())?;
        self.centroids = version.index.centroids();
        let (id, step, items) = (version.id.clone(), version.step, version.items());
        let bytes = version.index.bytes();
        self.shelf.add(version);
        let seconds = began.elapsed().as_secs_f64();
        // Only now is it true.
        let arm = self.arm.as_deref();
        tracing::info!(
            arm,
            version = id,
            step,
            items,
            bytes,
            seconds,
            "a version is ready to answer"
        );
        Ok(true)
    }

    /// What is waited for, if the version that answers is older than it may be.
    pub(super) fn waits_for(&self) -> Option<String> {
        let most = self.stale_max?;
        let row = self.shelf.row();
        let active = row.active.as_ref()?;
        let age = active.made.elapsed().unwrap_or_default();
        (age > most).then(|| {
            format!(
                "a newer version: {} was made {} s ago, serve.stale_max_s is {}",
                active.id,
                age.as_secs(),
                most.as_secs()
            )
        })
    }
}
