//! What a state is worth: recall on the events that follow.

use anyhow::bail;
use millrace_train::evaluation::KS;
use millrace_train::evaluation::held_out::HeldOut;
use millrace_train::evaluation::progressive::{Progressive, ProgressiveSettings};
use millrace_train::trainer::Trainer;

use super::state::State;
use crate::events::Log;

/// Recall at each of [`KS`].
pub(super) type Recalls = [f64; KS.len()];

/// Events of a data set that is measured while it is trained.
const PROGRESSIVE_EVENTS: usize = 100_000;

/// How a data set is measured.
pub(super) enum Measure {
    /// Everything that follows, against all items, without training on it.
    HeldOut,
    /// The next 100,000 events, each before it is trained on in full batches, against the items of
    /// the last 24 hours; events on items that the query has had are left out.
    Progressive,
}

impl Measure {
    /// Recall of `trainer` on what follows the first `from` events of `log`.
    pub(super) fn run(
        &self,
        state: &State,
        trainer: Trainer,
        log: &Log,
        from: usize,
    ) -> anyhow::Result<Recalls> {
        match self {
            Measure::HeldOut => held_out(state, trainer, &log.part(from..usize::MAX)),
            Measure::Progressive => progressive(state, trainer, log, from),
        }
    }
}

fn held_out(state: &State, mut trainer: Trainer, rest: &Log) -> anyhow::Result<Recalls> {
    let mut held_out = HeldOut::new(trainer.state(), state.config.retrieval.popularity);
    for batch in rest.batches() {
        let queries = trainer.embed_and_remember(&batch); // [events, dim]
        held_out.add(&batch, &queries, None);
    }
    Ok(held_out.model.all.recall())
}

fn progressive(
    state: &State,
    mut trainer: Trainer,
    log: &Log,
    from: usize,
) -> anyhow::Result<Recalls> {
    let rest = log.part(from..from + PROGRESSIVE_EVENTS);
    if rest.len() < PROGRESSIVE_EVENTS {
        bail!("only {} events follow, {PROGRESSIVE_EVENTS} are to be measured", rest.len());
    }
    let mut progressive = Progressive::new(ProgressiveSettings {
        weights: vec![state.config.retrieval.popularity],
        new_only: true,
        ..ProgressiveSettings::default()
    });
    for batch in log.part(0..from).batches() {
        progressive.pass_over(&batch);
    }
    for batch in rest.batches() {
        progressive.add(trainer.state(), &batch);
        trainer.step(&batch);
    }
    Ok(progressive.weights[0].total.all.recall())
}
