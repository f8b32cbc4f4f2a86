//! The end of the line: snapshots become checkpoints as their parts come, and are published.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::metrics::Beat;
use super::{Publication, Site};
use crate::checkpoint::{Chain, Checkpoint, CheckpointError, Facts, Manifest, Pin, Store};
use crate::config::Config;
use crate::publish::Published;
use crate::publish::claim::Claimant;
use crate::stream::calendar::now_ms;
use millrace_events::Witness;
use millrace_train::Progress;
use millrace_train::capture::Piece;
use millrace_train::captured::CapturedPart;

/// Tries to write a checkpoint, a few seconds apart, before the run stops. Each is of the state as
/// it is by then: nothing is held for the next one.
const WRITE_TRIES: u32 = 4;

/// A checkpoint that is to be published, and the claim that keeps it until it has been.
pub(super) struct Due {
    checkpoint: Checkpoint,
    _pin: Pin,
}

/// The way of written checkpoints to the publisher. One may wait there while the publisher is busy
/// with the version before.
pub(super) struct Outlet {
    sender: Sender<Due>,
    waiting: Receiver<Due>,
    publication: Publication,
}

impl Outlet {
    /// The two ends of the way.
    pub(super) fn new(publication: Publication) -> (Outlet, Receiver<Due>) {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        (Outlet { sender, waiting: receiver.clone(), publication }, receiver)
    }

    /// A checkpoint takes the place of an older one that waits: nobody wants that version any more.
    /// Never blocks, and a publisher that has ended is not noticed: its error is the run's.
    pub(super) fn offer(&self, store: &Store, checkpoint: &Checkpoint) {
        let pin = store.pin(checkpoint.manifest.step);
        let mut due = Due { checkpoint: checkpoint.clone(), _pin: pin };
        while let Err(TrySendError::Full(back)) = self.sender.try_send(due) {
            drop(self.waiting.try_recv());
            due = back;
        }
    }
}

/// What a checkpoint says beside the state: the name of its run, and its log.
pub(super) struct Lineage {
    /// Names the run that began from nothing and led here.
    pub(super) run: String,
    /// When that run began, ms since 1970; none: its first checkpoints do not say.
    pub(super) began_ms: Option<i64>,
    /// Some records of the log that has been read, whether they are in the state yet or not.
    pub(super) witness: Arc<Mutex<Witness>>,
}

impl Lineage {
    /// The run, as who publishes.
    pub(super) fn claimant(&self) -> Claimant<'_> {
        Claimant { run: &self.run, began_ms: self.began_ms }
    }

    pub(super) fn new(run: impl Into<String>, began_ms: Option<i64>, witness: Witness) -> Lineage {
        Lineage { run: run.into(), began_ms, witness: Arc::new(Mutex::new(witness)) }
    }
}

/// A state on its way to the disk.
pub(super) struct Snapshot {
    /// Tells it from others in its [`Outcome`].
    pub(super) number: u64,
    pub(super) facts: Facts,
    /// The checkpoints that this one builds upon; none: all of it is written.
    pub(super) chain: Option<Chain>,
    /// Ends with [`Message::Complete`], or early if the snapshot is given up.
    pub(super) parts: Receiver<Message>,
}

/// What a [`Snapshot`] consists of.
pub(super) enum Message {
    /// The next of the state.
    Part(CapturedPart),
    /// That was all.
    Complete,
}

/// The end of a snapshot that was not given up.
pub(super) struct Outcome {
    /// That of the snapshot.
    pub(super) number: u64,
    /// It is durable, and the next one may build upon these; none: it could not be written.
    pub(super) chain: Option<Chain>,
}

/// The checkpoint thread. Returns the last checkpoint written.
pub(super) fn write_checkpoints(
    site: &Site,
    store: &Store,
    (snapshots, outcomes): (Receiver<Snapshot>, Sender<Outcome>),
    outlet: Option<Outlet>,
    durable: &Mutex<Option<Checkpoint>>,
) -> anyhow::Result<Option<Checkpoint>> {
    let mut last = None;
    let (mut written, mut failures) = (0u64, 0);
    for snapshot in snapshots {
        let (began, number) = (Instant::now(), snapshot.number);
        let _busy = site.clocks.busy(Beat::Durable);
        // The trainer may have ended; then nobody asks.
        let tell = |chain| drop(outcomes.send(Outcome { number, chain }));
        let checkpoint = match write(store, snapshot) {
            Ok(Some(checkpoint)) => checkpoint,
            Ok(None) => continue,
            Err(error) => {
                failures += 1;
                not_written(site, error, failures)?;
                tell(None);
                continue;
            }
        };
        failures = 0;
        site.metrics.checkpoint_seconds.observe(began.elapsed().as_secs_f64());
        site.clocks.checkpoint.store(now_ms(), Ordering::Relaxed);
        site.clocks.beat(Beat::Durable);
        let Manifest { step, parents, .. } = &checkpoint.manifest;
        let (path, builds_upon) = (checkpoint.path.display().to_string(), parents.len());
        tracing::info!(step, path, builds_upon, "checkpoint");
        *durable.lock().expect("no holder of this lock can panic") = Some(checkpoint.clone());
        tell(Some(Chain::of(&checkpoint.manifest)));
        written += 1;
        if let Some(outlet) = &outlet
            && written.is_multiple_of(site.config.publish.every_checkpoints)
        {
            outlet.offer(store, &checkpoint);
        }
        last = Some(checkpoint);
    }
    if let (Some(outlet), Some(last)) = (&outlet, &last)
        && outlet.publication == Publication::Complete
    {
        outlet.offer(store, last);
    }
    Ok(last)
}

/// Writes a snapshot as its parts come; none if it was given up.
fn write(store: &Store, snapshot: Snapshot) -> Result<Option<Checkpoint>, CheckpointError> {
    let Snapshot { facts, chain, parts, .. } = snapshot;
    let mut draft = store.begin(facts, chain.as_ref())?;
    for message in parts {
        match message {
            Message::Complete => return draft.finish(now_ms()).map(Some),
            Message::Part(part) => part.pieces(&mut |piece| {
                let Piece { section, content, increment } = piece;
                draft.append(&section, &content, increment.as_deref())
            })?,
        }
    }
    Ok(None)
}

/// A checkpoint was not written, for the so manieth time in a row.
///
/// # Errors
/// Once too often: the run ends.
fn not_written(site: &Site, error: CheckpointError, failures: u32) -> anyhow::Result<()> {
    site.metrics.checkpoint_failures_total.inc();
    if failures < WRITE_TRIES {
        tracing::warn!(failures, "a checkpoint was not written, trying again: {error}");
        return Ok(());
    }
    let error = anyhow::Error::new(error).context("no checkpoint can be written");
    tracing::error!("stopping: {error:#}");
    site.stop.store(true, Ordering::Relaxed);
    Err(error)
}

/// A checkpoint's facts about a state.
pub(super) fn facts(config: &Config, lineage: &Lineage, progress: Progress) -> Facts {
    let witness = lineage.witness.lock().unwrap_or_else(PoisonError::into_inner);
    Facts {
        run: lineage.run.clone(),
        began_ms: lineage.began_ms,
        witness: witness.before(&progress.offsets),
        step: progress.step,
        offsets: progress.offsets,
        catalogues: progress.catalogues,
        pass: progress.pass,
        event_time_ms: progress.event_time_ms,
        events_trained: progress.events,
        events_rejected: progress.rejected,
        config_digest: config.digest(),
        config_toml: config.without_credentials().to_toml(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The publisher thread: `send` publishes a checkpoint, or returns `None` if the function that it
/// is given says stop. Returns the last version published.
pub(super) fn publish(
    site: &Site,
    publication: Publication,
    checkpoints: Receiver<Due>,
    mut send: impl FnMut(&Checkpoint, &dyn Fn() -> bool) -> anyhow::Result<Option<Published>>,
) -> anyhow::Result<Option<Published>> {
    let complete = publication == Publication::Complete;
    let mut last: Option<Published> = None;
    for Due { checkpoint, _pin } in checkpoints {
        let _busy = site.clocks.busy(Beat::Version);
        let known = last.as_ref().is_some_and(|last| last.version == checkpoint.manifest.version);
        if known {
            continue;
        }
        // A stop waits for a checkpoint, not for a sweep over the corpus: the next run publishes.
        let stop = || !complete && site.stop.load(Ordering::Relaxed);
        match send(&checkpoint, &stop) {
            Ok(Some(published)) => {
                let Published { version, vectors, tombstones, .. } = &published;
                site.metrics.published_total.inc_by(*vectors);
                let step = i64::try_from(published.step).unwrap_or(i64::MAX);
                site.metrics.published_version_step.set(step);
                let event_time_ms = checkpoint.manifest.event_time_ms;
                site.clocks.acknowledged(published.step, event_time_ms, &site.metrics);
                tracing::info!(version, vectors, tombstones, "published");
                last = Some(published);
            }
            Ok(None) => {}
            Err(error) => {
                site.metrics.publish_failures_total.inc();
                let version = &checkpoint.manifest.version;
                let error = error.context(format!("version {version} was not published"));
                if complete {
                    tracing::error!("stopping: {error:#}");
                    site.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                tracing::error!("{error:#}; the next version replaces it");
            }
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
