//! When a trainer is well again after a fault.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::kind::{After, Kind, Scene};
use super::report::Outcome;
use super::{HANG, LOOK};

/// Events that a trainer must have learned from since a fault before it has recovered.
const RECOVERED_EVENTS: f64 = 200.0;
/// And no more than this is still waiting: four seconds of traffic.
const RECOVERED_LAG: f64 = 1200.0;

/// Breaks something, and waits until the trainer has recovered.
pub(super) fn break_it(scene: &mut Scene<'_>, kind: Kind) -> Outcome {
    let outcome = scene.inject(kind).and_then(|after| {
        let took = if after == After::Refused { Duration::ZERO } else { recovers(scene, &after)? };
        Ok((after, took))
    });
    match outcome {
        Ok((After::Refused, _)) => Outcome::Refused,
        Ok((_, took)) => Outcome::Recovered(took.as_secs_f64()),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Waits until the trainer is as it should be; how long that took.
pub(super) fn recovers(scene: &mut Scene<'_>, after: &After) -> anyhow::Result<Duration> {
    const TRAINED: &str = "millrace_events_total{result=\"trained\"} ";
    let goal = match after {
        After::Checkpoint => Some("millrace_checkpoint_seconds_count "),
        After::Publication => Some("millrace_published_total "),
        After::Training | After::Refused => None,
    };
    let began = Instant::now();
    let zero = |value: f64| if value.is_nan() { 0.0 } else { value };
    let trained = zero(scene.trainer.metric(TRAINED));
    let reached = goal.map(|goal| scene.trainer.metric(goal));
    loop {
        scene.trainer.must_run()?;
        let since = scene.trainer.metric(TRAINED) - trained;
        let lag = scene.trainer.sum("millrace_consumer_lag");
        let more = goal
            .zip(reached)
            .is_none_or(|(goal, reached)| scene.trainer.metric(goal) > zero(reached));
        if since >= RECOVERED_EVENTS && lag <= RECOVERED_LAG && more {
            return Ok(began.elapsed());
        }
        if began.elapsed() >= HANG {
            let tail = scene.trainer.process()?.tail();
            bail!("a hang: {since} events since, lag {lag}, {goal:?} moved: {more}\n{tail}");
        }
        std::thread::sleep(LOOK);
    }
}
