//! The end of the line: snapshots become checkpoints, checkpoints are published.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::metrics::Beat;
use super::{Publication, Site};
use crate::checkpoint::{Checkpoint, Section, Snapshot, Store};
use crate::config::Config;
use crate::publish::Published;
use crate::stream::calendar::now_ms;
use millrace_events::{Offsets, Witness};
use millrace_train::captured::Captured;

/// Tries to write a checkpoint before the run stops: a full disk is often cleaned within a minute.
const WRITE_TRIES: u32 = 4;

/// The way of written checkpoints to the publisher.
pub(super) struct Outlet {
    pub(super) sender: Sender<Checkpoint>,
    pub(super) publication: Publication,
}

/// What a checkpoint says beside the state: the name of its run, and its log.
pub(super) struct Lineage {
    /// Names the run that began from nothing and led here.
    pub(super) run: String,
    /// Some records of the log that has been read, whether they are in the state yet or not.
    pub(super) witness: Arc<Mutex<Witness>>,
}

impl Lineage {
    pub(super) fn new(run: impl Into<String>, witness: Witness) -> Lineage {
        Lineage { run: run.into(), witness: Arc::new(Mutex::new(witness)) }
    }
}

/// The checkpoint thread. Returns the last checkpoint written.
pub(super) fn write_checkpoints(
    site: &Site,
    store: &Store,
    lineage: &Lineage,
    snapshots: Receiver<Captured>,
    outlet: Option<Outlet>,
    durable: &Mutex<Option<Offsets>>,
) -> anyhow::Result<Option<Checkpoint>> {
    let mut last = None;
    let mut written = 0u64;
    for captured in snapshots {
        let began = Instant::now();
        let snapshot = snapshot(&site.config, lineage, captured);
        let checkpoint = write_with_retries(site, store, &snapshot).inspect_err(|error| {
            tracing::error!("stopping: {error:#}");
            site.stop.store(true, Ordering::Relaxed);
        })?;
        site.metrics.checkpoint_seconds.observe(began.elapsed().as_secs_f64());
        site.clocks.checkpoint.store(now_ms(), Ordering::Relaxed);
        site.clocks.beat(Beat::Durable);
        let path = checkpoint.path.display().to_string();
        tracing::info!(step = snapshot.step, path, "checkpoint");
        *durable.lock().expect("no holder of this lock can panic") = Some(snapshot.offsets);
        written += 1;
        if let Some(outlet) = &outlet
            && written.is_multiple_of(site.config.publish.every_checkpoints)
        {
            match outlet.sender.try_send(checkpoint.clone()) {
                // A publisher that is still busy with the version before skips this one. One that
                // has ended has set the stop flag, and its error is the run's.
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
        last = Some(checkpoint);
    }
    if let (Some(Outlet { sender, publication: Publication::Complete }), Some(last)) =
        (&outlet, &last)
        && sender.send(last.clone()).is_err()
    {
        tracing::warn!("the last checkpoint is written and not published: the publisher has ended");
    }
    Ok(last)
}

/// The state as of one step, with a checkpoint's facts about it.
pub(super) fn snapshot(config: &Config, lineage: &Lineage, captured: Captured) -> Snapshot {
    let progress = captured.progress.clone();
    let witness = lineage.witness.lock().unwrap_or_else(PoisonError::into_inner);
    let section = |(name, bytes)| Section { name, bytes, digested: true };
    Snapshot {
        run: lineage.run.clone(),
        witness: witness.before(&progress.offsets),
        step: progress.step,
        offsets: progress.offsets,
        pass: progress.pass,
        event_time_ms: progress.event_time_ms,
        events_trained: progress.events,
        events_rejected: progress.rejected,
        config_digest: config.digest(),
        config_toml: config.without_credentials().to_toml(),
        sections: captured.into_sections().into_iter().map(section).collect(),
    }
}

fn write_with_retries(
    site: &Site,
    store: &Store,
    snapshot: &Snapshot,
) -> anyhow::Result<Checkpoint> {
    let mut tries = 1;
    loop {
        let error = match store.write(snapshot) {
            Ok(checkpoint) => return Ok(checkpoint),
            Err(error) => error,
        };
        site.metrics.checkpoint_failures_total.inc();
        if tries == WRITE_TRIES {
            return Err(anyhow::Error::new(error).context("no checkpoint can be written"));
        }
        tracing::warn!(tries, "a checkpoint was not written, trying again: {error}");
        std::thread::sleep(Duration::from_secs(1 << tries));
        tries += 1;
    }
}

/// The publisher thread: `send` publishes a checkpoint, or returns `None` if the function that it
/// is given says stop. Returns the last version published.
pub(super) fn publish(
    site: &Site,
    publication: Publication,
    checkpoints: Receiver<Checkpoint>,
    mut send: impl FnMut(&Checkpoint, &dyn Fn() -> bool) -> anyhow::Result<Option<Published>>,
) -> anyhow::Result<Option<Published>> {
    let complete = publication == Publication::Complete;
    let mut last: Option<Published> = None;
    for checkpoint in checkpoints {
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
                let event_time = checkpoint.manifest.event_time_ms.min(now_ms());
                site.clocks.published.store(event_time, Ordering::Relaxed);
                site.clocks.beat(Beat::Version);
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
