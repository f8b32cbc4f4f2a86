//! Wikispeedia and MovieLens-1M: trained on the first 90%, measured on the rest.

use millrace::config::Config;
use millrace::train::evaluation::held_out::{HeldOut, Seen};
use millrace::train::evaluation::metrics::Quality;
use millrace::train::placement::Placement;
use millrace::train::trainer::Trainer;
use millrace_events::Offsets;

use crate::events::Log;

/// How a data set is trained and measured.
pub(super) struct Protocol {
    /// Passes over the training part; more than one are shuffled anew each.
    pub(super) passes: u32,
    /// A query's own items of training are no candidates.
    pub(super) exclude_seen: bool,
}

/// What one mode achieved.
pub(super) struct Outcome {
    pub(super) model: Quality,
    pub(super) popularity: Quality,
    pub(super) candidates: usize,
    pub(super) coverage: f64,
    pub(super) popularity_bias: f64,
}

/// Trains a model of `config` on `train` and ranks the items of `test` among all that it saw.
pub(super) fn measure(
    config: &Config,
    placement: &Placement,
    protocol: &Protocol,
    (train, test): (&Log, &Log),
) -> Outcome {
    let mut trainer = Trainer::new(config, placement, Offsets::new("file"));
    let mut seen = protocol.exclude_seen.then(Seen::default);
    for pass in 1..=protocol.passes {
        let mut step = |batch| {
            trainer.step(&batch, &mut |_| {});
            if let (1, Some(seen)) = (pass, &mut seen) {
                seen.add(&batch);
            }
        };
        match protocol.passes {
            1 => train.batches().for_each(&mut step),
            _ => train.shuffled(pass).for_each(&mut step),
        }
    }
    let mut held_out = HeldOut::new(&trainer, config.retrieval.popularity);
    for batch in test.batches() {
        let queries = trainer.embed_queries(&batch); // [events, dim]
        held_out.add(&batch, &queries, seen.as_ref());
        if let Some(seen) = &mut seen {
            seen.add(&batch);
        }
    }
    Outcome {
        candidates: held_out.candidates(),
        coverage: held_out.shown.coverage(held_out.candidates()),
        popularity_bias: held_out.shown.popularity_bias(),
        model: held_out.model,
        popularity: held_out.popularity,
    }
}
