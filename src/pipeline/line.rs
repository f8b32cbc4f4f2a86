//! The threads around the trainer, how they are tied together, and the order in which they end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Scope, ScopedJoinHandle};

use anyhow::anyhow;
use crossbeam_channel::Receiver;

use super::captures::{Captures, RunState};
use super::durable::{self, Outlet};
use super::passes::Passes;
use super::reader::{self, Outlook, ReadOut};
use super::{Publication, Site};
use crate::checkpoint::{Checkpoint, Store};
use crate::priority::{Priority, yield_to_others};
use crate::publish::{Published, Publisher};
use millrace_events::Batch;
use millrace_train::trainer::Trainer;

type Thread<'scope, T> = ScopedJoinHandle<'scope, T>;

/// The running threads, and the trainer's ends of their channels.
pub(super) struct Line<'scope> {
    pub(super) batches: Receiver<anyhow::Result<Batch>>,
    pub(super) captures: Captures<'scope>,
    source: Thread<'scope, ReadOut>,
    writer: Thread<'scope, anyhow::Result<Option<Checkpoint>>>,
    publisher: Option<Thread<'scope, anyhow::Result<Option<Published>>>>,
}

/// What goes out, and what is to go first.
pub(super) struct Outbound {
    pub(super) publisher: Publisher,
    pub(super) publication: Publication,
    /// The state that the run goes on from, if the topic does not hold it.
    pub(super) unpublished: Option<Checkpoint>,
}

/// The results of the threads.
pub(super) struct Ended {
    pub(super) rejected_by_reason: Vec<(String, u64)>,
    pub(super) skipped: u64,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) published: anyhow::Result<Option<Published>>,
}

impl<'scope> Line<'scope> {
    /// Starts a thread for each stage. Each thread owns its ends of the channels, so that whatever
    /// ends it, a panic too, disconnects its neighbours.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        site: &'env Site,
        store: &'env Store,
        state: RunState,
        passes: Passes,
        outbound: Option<Outbound>,
        outlook: Arc<Outlook>,
    ) -> anyhow::Result<Self> {
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let (batch_sender, batches) = crossbeam_channel::bounded(site.config.batch.queue);
        let (snapshot_sender, snapshots) = crossbeam_channel::bounded(1);
        let (outcome_sender, outcomes) = crossbeam_channel::bounded(1);
        let durable = Arc::new(Mutex::new(None));
        let written = Arc::clone(&durable);
        let source = named("source").spawn_scoped(scope, move || {
            let _stop = StopOnPanic(&site.stop);
            reader::read(site, passes, batch_sender, &durable, &outlook)
        })?;
        let (outlet, publisher) = match outbound {
            None => (None, None),
            Some(Outbound { mut publisher, publication, unpublished }) => {
                let (outlet, checkpoints) = Outlet::new(publication);
                if let Some(checkpoint) = unpublished {
                    outlet.offer(store, &checkpoint);
                }
                let live = publication == Publication::Live;
                let thread = named("publisher").spawn_scoped(scope, move || {
                    let _stop = StopOnPanic(&site.stop);
                    yield_to_others(Priority::Lowest);
                    durable::publish(site, publication, checkpoints, |checkpoint, stop| {
                        // A run that went back to an older checkpoint catches up with itself.
                        match live && publisher.is_behind(&checkpoint.manifest) {
                            true => Ok(None),
                            false => publisher.publish(checkpoint, stop),
                        }
                    })
                })?;
                (Some(outlet), Some(thread))
            }
        };
        let writer = named("checkpoint").spawn_scoped(scope, move || {
            let _stop = StopOnPanic(&site.stop);
            let ends = (snapshots, outcome_sender);
            durable::write_checkpoints(site, store, ends, outlet, &written)
        })?;
        let captures = Captures::new(site, (snapshot_sender, outcomes), state);
        Ok(Self { batches, captures, source, writer, publisher })
    }

    /// Ends the threads one after the other, after a last snapshot of the `trainer`. `whole`: its
    /// offsets are exact.
    pub(super) fn finish(self, trainer: &mut Trainer, whole: bool) -> anyhow::Result<Ended> {
        // The order matters: dropping the receiver unblocks the source, the last snapshot closes
        // the rest of the line. The source is waited for last, since it may wait for brokers that
        // are away, and the last checkpoint must not.
        drop(self.batches);
        // Within a window (a fault, or a checkpoint thread that ended) the state has no offsets. A
        // state that saw no event is worth nothing, and its config would bind the directory.
        let sent = match whole && trainer.progress().events > 0 {
            true => self.captures.last(trainer),
            false => {
                drop(self.captures);
                Ok(())
            }
        };
        let written = self.writer.join().map_err(|_| panicked("checkpoint"));
        let source = self.source.join().map_err(|_| panicked("source"))?;
        let checkpoint = written??;
        let (rejected_by_reason, skipped) = source.close(checkpoint.as_ref());
        sent?;
        let published = match self.publisher.map(Thread::join) {
            None => Ok(None),
            Some(ended) => ended.map_err(|_| panicked("publisher"))?,
        };
        Ok(Ended { rejected_by_reason, skipped, checkpoint, published })
    }
}

fn panicked(thread: &str) -> anyhow::Error {
    anyhow!(
        "the {thread} thread panicked; its message is above. Restart: it goes on from the last \
             checkpoint"
    )
}

/// Stops the run when its thread panics: a run must not go on without one of its stages.
pub(super) struct StopOnPanic<'a>(pub(super) &'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
