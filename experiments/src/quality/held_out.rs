//! Wikispeedia and MovieLens-1M: trained on the first 90%, measured on the rest.
//!
//! One protocol for both: each held-out event is ranked twice, among all items and among those that
//! its query did not have in training. Held-out events exclude nothing from each other, so their
//! order does not matter; the PyTorch reference does the same.

use millrace::config::Config;
use millrace_events::Offsets;
use millrace_train::evaluation::held_out::{HeldOut, Seen};
use millrace_train::placement::Placement;
use millrace_train::trainer::Trainer;

use crate::events::Log;

/// What one mode achieved.
pub(crate) struct Outcome {
    /// Every item is a candidate.
    pub(crate) all: HeldOut,
    /// What a query had in training is no candidate, its target excepted.
    pub(crate) excluding_seen: HeldOut,
    /// Nor what it had among the held-out events before.
    pub(crate) excluding_past: HeldOut,
}

/// Trains a model of `config` on `train`, `passes` long (more than one are shuffled anew each), and
/// ranks the items of `test` among those that it saw.
pub(crate) fn measure(
    config: &Config,
    placement: &Placement,
    passes: u32,
    (train, test): (&Log, &Log),
) -> Outcome {
    let mut trainer = trained(config, placement, passes, train);
    ranked(&mut trainer, config.retrieval.popularity, (train, test))
}

/// Ranks the items of `test` among those of a model that was trained on `train`; `popularity` is
/// the weight of log q.
pub(crate) fn ranked(
    trainer: &mut Trainer,
    popularity: f32,
    (train, test): (&Log, &Log),
) -> Outcome {
    let mut seen = Seen::default();
    train.batches().for_each(|batch| seen.add(&batch));
    let [mut all, mut excluding_seen, mut excluding_past] =
        [(); 3].map(|()| HeldOut::new(trainer.state(), popularity));
    let mut past = seen.clone();
    for batch in test.batches() {
        let queries = trainer.embed_and_remember(&batch); // [events, dim]
        all.add(&batch, &queries, None);
        excluding_seen.add(&batch, &queries, Some(&seen));
        excluding_past.add_in_order(&batch, &queries, &mut past);
    }
    Outcome { all, excluding_seen, excluding_past }
}

/// A model of `config` after `passes` over `log`: one in its order, more shuffled anew each.
pub(crate) fn trained(config: &Config, placement: &Placement, passes: u32, log: &Log) -> Trainer {
    let mut trainer = Trainer::new(&config.train(), placement, Offsets::new("file"));
    for pass in 1..=passes {
        log.pass(pass, passes, |batch| drop(trainer.step(&batch)));
    }
    trainer
}
