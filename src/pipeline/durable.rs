//! The end of the line: snapshots become checkpoints, checkpoints are published.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::live::now_ms;
use super::{Bounds, Setting};
use crate::checkpoint::{Checkpoint, Section, Snapshot, Store};
use crate::config::Config;
use crate::publish::{Published, Publisher};
use crate::stream::offsets::Offsets;
use crate::train::capture::Captured;

/// Tries to write a checkpoint before the run stops: a full disk is often cleaned within a minute.
const WRITE_TRIES: u32 = 4;

/// The checkpoint thread. Returns the last checkpoint written.
pub(super) fn write_checkpoints(
    setting: &Setting,
    bounds: &Bounds,
    store: &Store,
    snapshots: Receiver<Captured>,
    checkpoints: Sender<Checkpoint>,
    durable: &Mutex<Option<Offsets>>,
) -> anyhow::Result<Option<Checkpoint>> {
    let mut last = None;
    let mut written = 0u64;
    for captured in snapshots {
        let began = Instant::now();
        let snapshot = snapshot(&setting.config, captured);
        let checkpoint = write_with_retries(store, &snapshot).inspect_err(|error| {
            tracing::error!("stopping: {error:#}");
            setting.stop.store(true, Ordering::Relaxed);
        })?;
        setting.metrics.checkpoint_seconds.observe(began.elapsed().as_secs_f64());
        setting.clocks.checkpoint.store(now_ms(), Ordering::Relaxed);
        let path = checkpoint.path.display().to_string();
        tracing::info!(step = snapshot.step, path, "checkpoint");
        *durable.lock().expect("no holder of this lock can panic") = Some(snapshot.offsets);
        written += 1;
        // A publisher that is still busy with the version before skips this one.
        if written.is_multiple_of(setting.config.publish.every_checkpoints) {
            match checkpoints.try_send(checkpoint.clone()) {
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
        last = Some(checkpoint);
    }
    if let (true, Some(last)) = (bounds.publish_last, &last)
        && checkpoints.send(last.clone()).is_err()
    {
        tracing::warn!("the publisher ended before the last checkpoint");
    }
    Ok(last)
}

/// The state as of one step, with what a checkpoint says of it.
pub(super) fn snapshot(config: &Config, captured: Captured) -> Snapshot {
    let counters = captured.counters.clone();
    let section = |(name, bytes)| Section { name, bytes, digested: true };
    Snapshot {
        step: counters.step,
        offsets: counters.offsets,
        pass: counters.pass,
        event_time_ms: counters.event_time_ms,
        events_trained: counters.events,
        events_rejected: counters.rejected,
        config_digest: config.digest(),
        config_toml: config.to_toml(),
        sections: captured.into_sections().into_iter().map(section).collect(),
    }
}

fn write_with_retries(store: &Store, snapshot: &Snapshot) -> anyhow::Result<Checkpoint> {
    let mut tries = 1;
    loop {
        match store.write(snapshot) {
            Ok(checkpoint) => return Ok(checkpoint),
            Err(error) if tries < WRITE_TRIES => {
                tracing::warn!(tries, "a checkpoint was not written, trying again: {error:#}");
                std::thread::sleep(Duration::from_secs(1 << tries));
                tries += 1;
            }
            Err(error) => return Err(error.context("no checkpoint can be written")),
        }
    }
}

/// The publisher thread. Returns the last version it published.
pub(super) fn publish(
    setting: &Setting,
    bounds: &Bounds,
    publisher: Option<&Publisher>,
    checkpoints: &Receiver<Checkpoint>,
) -> anyhow::Result<Option<Published>> {
    let mut last: Option<Published> = None;
    for checkpoint in checkpoints {
        let Some(publisher) = publisher else { continue };
        let known = last.as_ref().is_some_and(|last| last.version == checkpoint.manifest.version);
        if known {
            continue;
        }
        // A stop waits for a checkpoint, not for a sweep over the corpus: the next run publishes.
        let stop = || !bounds.publish_last && setting.stop.load(Ordering::Relaxed);
        match publisher.publish(&checkpoint, &stop) {
            Ok(Some(published)) => {
                let Published { version, vectors, tombstones, .. } = &published;
                tracing::info!(version, vectors, tombstones, "published");
                setting.metrics.published_total.inc_by(*vectors);
                let step = i64::try_from(published.step).unwrap_or(i64::MAX);
                setting.metrics.published_version_step.set(step);
                let event_time = checkpoint.manifest.event_time_ms;
                setting.clocks.published.store(event_time, Ordering::Relaxed);
                last = Some(published);
            }
            Ok(None) => {}
            // A live run goes on: the next version replaces this one. Work that ends with its
            // publication has failed.
            Err(error) if bounds.publish_last => return Err(error),
            Err(error) => tracing::error!("version not published: {error:#}"),
        }
    }
    Ok(last)
}
