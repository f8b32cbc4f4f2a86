//! The program: threads, channels, cadences, stop order. No maths.
//!
//! ```text
//! source -> batches (bounded) -> trainer -> parts (8) -> checkpoint thread -> (1) -> publisher
//! ```
//!
//! Each stage ends because the channel before it closes: the source ends (end of a bounded range,
//! a signal, a fault), the trainer drains or drops what waits, takes a last snapshot and closes its
//! channel, and so on down the line. Nothing is lost on any way out: events that were not trained
//! are read again from the checkpoint's offsets. A shuffle window has offsets only at its end, so
//! snapshots are taken there, and a stop trains the window to its end first. A thread that fails or
//! panics sets the stop flag, so that no run continues without one of its stages.

mod absent;
mod captures;
mod clocks;
mod curves;
mod durable;
mod line;
mod metrics;
mod passes;
mod placement;
mod plan;
mod reader;
mod start;
mod stats;
mod unpublished;
mod unusable;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use crossbeam_channel::RecvTimeoutError;

use crate::checkpoint::{Chain, Checkpoint, Store};
use crate::config::Config;
use crate::publish::claim::Superseded;
use crate::publish::{Published, Publisher};
use crate::stream::calendar::now_ms;
use crate::telemetry::Health;
use millrace_events::{Batch, CataloguePlace};
use millrace_train::evaluation::{Recall, popularity};
use millrace_train::placement::Placement;
use millrace_train::state::State;
use millrace_train::trainer::{Phase, Trainer};

use captures::RunState;
use durable::Lineage;
use line::{Line, Outbound};
use metrics::{Beat, Queue, StepPhase};
use start::RunStart;
use stats::Step;
use unusable::Unusable;

pub use clocks::Clocks;
pub use metrics::Metrics;
pub use placement::placement;
pub use plan::{Publication, RunPlan};
pub use reader::Outlook;
pub use start::{Stopped, restore};
pub use stats::RunStats;

/// How long a stage waits before it looks at the stop flag again.
const TICK: Duration = Duration::from_millis(100);

/// How long the trainer waits for a batch while a copy of the state goes on: nothing else makes it
/// go on.
const COPYING_TICK: Duration = Duration::from_millis(1);

/// The surroundings of a run: its config, its device, and its ways to the outside.
pub struct Site {
    /// The whole config.
    pub config: Config,
    /// The device of the towers.
    pub placement: Placement,
    /// The metrics registry.
    pub metrics: Arc<Metrics>,
    /// The state behind `/healthz` and `/readyz`.
    pub health: Arc<Health>,
    /// Set from outside to end the run after the current step.
    pub stop: Arc<AtomicBool>,
    /// Event times and checkpoint times, for gauges that are ages.
    pub clocks: Arc<Clocks>,
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Events trained on in the life of the state, this run included.
    pub trained: u64,
    /// Records rejected in the life of the state.
    pub rejected: u64,
    /// Records (trained and rejected) of this run alone.
    pub records_this_run: u64,
    /// The pass over the log that it ended in; 1: the first.
    pub pass: u32,
    /// Rejected records of this run, by reason.
    pub rejected_by_reason: Vec<(String, u64)>,
    /// Records of this run that were passed over: no events, and no faults.
    pub skipped: u64,
    /// Step at which this run began: 0 for a fresh state.
    pub began_at_step: u64,
    /// Step at which it ended.
    pub step: u64,
    /// Seconds from the first batch to the last update; the checkpoint after it is not in.
    pub seconds: f64,
    /// Mean loss of the last 50 full batches' worth of events; NaN without any.
    pub loss: f64,
    /// Recall among the candidates of each batch, before training on it, over this run.
    pub recall: Recall,
    /// Steps whose loss was not finite.
    pub nonfinite_steps: u64,
    /// How far each catalogue was read.
    pub catalogues: Vec<CataloguePlace>,
    /// The last checkpoint; none if the state has seen no event.
    pub checkpoint: Option<Checkpoint>,
    /// The last version published by this run.
    pub published: Option<Published>,
}

/// Runs the whole line until its range ends, `stop` is set, or something fails. `observe` sees the
/// trainer after every batch, and ten times a second while none comes.
///
/// # Errors
/// One message that says what failed and what to do. State trained before the failure is in the
/// last checkpoint.
pub fn run(
    site: &Site,
    plan: &RunPlan,
    observe: &mut dyn FnMut(&Trainer, &RunStats),
) -> anyhow::Result<Summary> {
    let config = &site.config;
    site.health.set_phase("restoring the newest checkpoint");
    let store = Store::open(Path::new(&config.checkpoint.directory), config.checkpoint.keep)?;
    with_rollback(
        |fresh| run_once(site, &store, &RunPlan { fresh, ..plan.clone() }, observe),
        plan.fresh,
    )
    .inspect_err(|error| {
        if !error.is::<Stopped>() {
            site.health.fail(format!("{error:#}"));
        }
    })
}

/// Runs; if the state breaks, runs once more from the last good checkpoint. Training repeats to the
/// bit: a state that breaks at the same step again would break for ever.
fn with_rollback<T>(
    mut run: impl FnMut(bool) -> anyhow::Result<T>,
    fresh: bool,
) -> anyhow::Result<T> {
    let mut broken_at = None;
    loop {
        let result = run(fresh && broken_at.is_none());
        let Some(&Broken { step }) = result.as_ref().err().and_then(|error| error.downcast_ref())
        else {
            return result;
        };
        if broken_at.is_some_and(|before| step <= before) {
            return result.with_context(|| {
                "it broke again after a rollback; lower embedding.learning_rate and \
                 optimizer.learning_rate, or go on from an older checkpoint: the earlier ones are \
                 untouched"
            });
        }
        tracing::error!(
            "step {step}: the model is no longer finite; rolling back to the last checkpoint"
        );
        broken_at = Some(step);
    }
}

/// The state holds values that are not finite.
#[derive(Debug, thiserror::Error)]
#[error("step {step}: the model is no longer finite: a weight, a row or each of the last losses")]
struct Broken {
    step: u64,
}

/// One run, until its range ends or something fails.
fn run_once(
    site: &Site,
    store: &Store,
    plan: &RunPlan,
    observe: &mut dyn FnMut(&Trainer, &RunStats),
) -> anyhow::Result<Summary> {
    let RunStart { mut trainer, lineage, checkpoint, passes, total } =
        start::start(site, store, plan)?;
    let mut chain = checkpoint.as_ref().map(|checkpoint| Chain::of(&checkpoint.manifest));
    if plan.to.is_none() && trainer.progress().records() == 0 {
        // A kill before the first checkpoint must not lose the place where reading began: the next
        // start would ask for the newest record once more, and skip what came meanwhile.
        let facts = durable::facts(&site.config, &lineage, trainer.progress().clone());
        let first = store.write(facts, trainer.capture().into_sections(), now_ms())?;
        chain = Some(Chain::of(&first.manifest));
    }
    let outbound = outbound(site, plan.publication, &lineage, checkpoint)?;
    let mut stats = RunStats::new(&trainer, total);
    site.health.set_ready(true);
    std::thread::scope(|scope| {
        let outlook = Arc::clone(&stats.outlook);
        let state = RunState { lineage, progress: trainer.progress().clone(), chain };
        let mut line = Line::start(scope, site, store, state, passes, outbound, outlook)?;
        let trained = train(site, &mut trainer, &mut stats, &mut line, observe);
        // A broken state must not take the place of a good checkpoint.
        let broken = trained.as_ref().is_err_and(|error| error.is::<Broken>());
        let ended = line.finish(&mut trainer, stats.whole && !broken);
        site.health.set_ready(false);
        let ended = ended?;
        trained?;
        ensure!(
            trainer.progress().events == 0 || ended.checkpoint.is_some(),
            "no checkpoint was written"
        );
        let progress = trainer.progress();
        Ok(Summary {
            trained: progress.events,
            rejected: progress.rejected,
            records_this_run: progress.records() - stats.records_before,
            pass: progress.pass,
            rejected_by_reason: by_reason(ended.rejected_by_reason, &stats.unusable),
            skipped: ended.skipped,
            began_at_step: stats.step_before,
            step: progress.step,
            seconds: stats.seconds(),
            loss: stats.loss(),
            recall: stats.recall,
            nonfinite_steps: stats.nonfinite_steps,
            catalogues: progress.catalogues.clone(),
            checkpoint: ended.checkpoint,
            published: ended.published?,
        })
    })
}

/// The rejected records by reason, events that training could not use among them.
fn by_reason(
    mut rejected: Vec<(String, u64)>,
    unusable: &BTreeMap<&'static str, u64>,
) -> Vec<(String, u64)> {
    rejected.extend(unusable.iter().map(|(&reason, &events)| (reason.to_owned(), events)));
    rejected
}

/// The publisher of a run that publishes at all. `checkpoint` is the one that it goes on from.
///
/// # Errors
/// The topic belongs to a newer run; or, if the run is to publish all of its versions, whatever
/// keeps it from the first.
fn outbound(
    site: &Site,
    publication: Publication,
    lineage: &Lineage,
    checkpoint: Option<Checkpoint>,
) -> anyhow::Result<Option<Outbound>> {
    if publication == Publication::Never || site.config.publish.topic.is_empty() {
        return Ok(None);
    }
    site.health.set_phase("asking for the topic of versions");
    let mut publisher = Publisher::new(&site.config, &site.placement)?;
    let connected = publisher.connect(lineage.claimant());
    match connected {
        Err(error) if publication == Publication::Live && !error.is::<Superseded>() => {
            site.metrics.publish_failures_total.inc();
            tracing::error!("{error:#}; the next version tries again");
        }
        connected => connected?,
    }
    // A stop does not wait for a sweep, and a kill for nothing: what is durable is published now. A
    // complete run publishes its last state in any case.
    let unpublished = checkpoint
        .filter(|_| publication == Publication::Live)
        .filter(|checkpoint| !publisher.is_behind(&checkpoint.manifest));
    Ok(Some(Outbound { publisher, publication, unpublished }))
}

/// The trainer: steps until the source is done, the run stops (at the end of a window), or the
/// source fails.
fn train(
    site: &Site,
    trainer: &mut Trainer,
    stats: &mut RunStats,
    Line { batches, captures, .. }: &mut Line<'_>,
    observe: &mut dyn FnMut(&Trainer, &RunStats),
) -> anyhow::Result<()> {
    let waiting_batches = site.metrics.queue(Queue::Batches);
    let mut unusable = Unusable::default();
    while !stats.whole || !site.stop.load(Ordering::Relaxed) {
        let waiting = Instant::now();
        captures.catch_up(trainer)?;
        match batches.recv_timeout(if captures.is_copying() { COPYING_TICK } else { TICK }) {
            Ok(batch) => {
                let came = Instant::now();
                let _busy = site.clocks.busy(Beat::Batch);
                waiting_batches.set(i64::try_from(batches.len()).unwrap_or(i64::MAX));
                let batch = unusable.sift(site, trainer, stats, batch?)?;
                let step = timed_step(site, trainer, &batch, came - waiting);
                stats.clock(came);
                stats.count(site, &batch, &step);
                if let Some(report) = &step.report {
                    unusable.send_not_finite(site, stats, &batch, &report.unusable)?;
                }
                if stats.is_broken() {
                    return Err(Broken { step: trainer.progress().step }.into());
                }
            }
            // A log that went quiet must not keep its last steps from being published.
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        observe(trainer, stats);
        captures.turn(trainer, stats)?;
    }
    stats.count_state(site, trainer);
    Ok(())
}

/// One step of so many ranks by popularity, too: a mean over fifty batches needs no more.
const POPULARITY_EVERY_STEPS: u64 = 8;

/// One step, its phases timed.
fn timed_step(site: &Site, trainer: &mut Trainer, batch: &Batch, waited: Duration) -> Step {
    let observed = |phase: StepPhase, time: Duration| {
        site.metrics.step(phase).observe(time.as_secs_f64());
    };
    observed(StepPhase::Wait, waited);
    let mut entered: Option<(Phase, Instant)> = None;
    let mut popular = Vec::new();
    let looks = trainer.progress().step.is_multiple_of(POPULARITY_EVERY_STEPS);
    let look = |state: &State, batch: &Batch| {
        if looks {
            popular = popularity::ranks(state, batch);
        }
    };
    let report = trainer.step_looking(batch, look, &mut |phase| {
        if let Some((before, since)) = entered.replace((phase, Instant::now())) {
            observed(before.into(), since.elapsed());
        }
    });
    if let Some((last, since)) = entered {
        observed(last.into(), since.elapsed());
    }
    Step { number: trainer.progress().step, report, popular }
}

impl From<Phase> for StepPhase {
    fn from(phase: Phase) -> StepPhase {
        match phase {
            Phase::Estimate => StepPhase::Estimate,
            Phase::Gather => StepPhase::Gather,
            Phase::Forward => StepPhase::Forward,
            Phase::Loss => StepPhase::Loss,
            Phase::Backward => StepPhase::Backward,
            Phase::Update => StepPhase::Update,
        }
    }
}

#[cfg(test)]
mod tests;
