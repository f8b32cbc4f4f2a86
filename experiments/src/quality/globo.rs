//! Globo's clicks in time order, each ranked before it is trained on.

use std::collections::BTreeMap;

use millrace::config::Config;
use millrace::stream::cut::Cut;
use millrace_events::Offsets;
use millrace_train::evaluation::progressive::{Progressive, ProgressiveSettings, Ranking};
use millrace_train::placement::Placement;
use millrace_train::trainer::Trainer;

use crate::events::Log;

/// The clicks, below the directory of the data sets.
pub(crate) const FILE: &str = "globo/clicks.jsonl.gz";

/// The frozen model trains for so many days.
const FROZEN_AFTER_DAYS: i64 = 3;
const DAY_MS: i64 = 86_400_000;

/// A ranking with its name and what it is.
pub(super) type Named = (&'static str, &'static str, Ranking);

/// Every ranking that is compared, the baseline last.
pub(super) fn measure(
    load: &dyn Fn(&[&str]) -> anyhow::Result<Config>,
    placement: &Placement,
    events: &Log,
    mut done: impl FnMut(),
) -> anyhow::Result<Vec<Named>> {
    let mut run = |set: &[&str], weights: &[f32], days: Option<i64>| -> anyhow::Result<_> {
        let outcome = pass(&load(set)?, placement, (events, Cut::Full), weights, days);
        done();
        Ok(outcome)
    };
    let at = |outcome: &Progressive, wanted: f32| {
        let place = outcome.settings().weights.iter().position(|&weight| weight == wanted);
        outcome.weights[place.expect("this weight was compared")].clone()
    };
    let frozen = run(&["loss.correction=plain"], &[0.0, 1.0], Some(FROZEN_AFTER_DAYS))?;
    let plain = run(&["loss.correction=plain"], &WEIGHTS, None)?;
    let corrected = run(&["loss.correction=corrected"], &[0.0], None)?;
    let adagrad = run(
        &[
            "loss.correction=corrected",
            "embedding.accumulator_decay=1",
            "optimizer.accumulator_decay=1",
        ],
        &[0.0],
        None,
    )?;
    // Its days are those of ours but for the first hours: one curve is enough, and colours are few.
    let fixed = Ranking { days: BTreeMap::new(), ..at(&plain, 1.0) };
    let (ours, popularity) = (plain.chosen.clone(), plain.popularity.clone());
    Ok(vec![
        ("frozen", "plain, not trained after day 3", at(&frozen, 0.0)),
        (
            "frozen_live_log_q",
            "the same towers, the estimator goes on; ranked by s / tau + log q",
            at(&frozen, 1.0),
        ),
        ("plain", "in-batch softmax (eq. 3)", at(&plain, 0.0)),
        ("corrected_adagrad", "eq. 4, sums of squares that only grow", at(&adagrad, 0.0)),
        ("corrected", "log q subtracted from every logit (eq. 4)", at(&corrected, 0.0)),
        ("plain_live_log_q", "plain, ranked by s / tau + log q", fixed),
        (
            "ours",
            "plain, ranked by s / tau + lambda log q, lambda being the best of the stream so far",
            ours,
        ),
        ("popularity", "clicks of the last hour", popularity),
    ])
}

/// Weights of log q that ours chooses from; the first is none.
pub(crate) const WEIGHTS: [f32; 9] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0];

/// One pass over the clicks, in batches as they are cut; the towers are trained on the first `days`
/// only, if given. What a user has read is no candidate where the config says so.
pub(crate) fn pass(
    config: &Config,
    placement: &Placement,
    (events, cut): (&Log, Cut),
    weights: &[f32],
    days: Option<i64>,
) -> Progressive {
    let mut trainer = Trainer::new(&config.train(), placement, Offsets::new("file"));
    let mut progressive = Progressive::new(ProgressiveSettings {
        weights: weights.to_vec(),
        new_only: true,
        exclude_seen: config.retrieval.exclude_seen,
        ..ProgressiveSettings::default()
    });
    let mut began = None;
    for batch in events.cut(cut, 0) {
        let now = batch.events.times_ms[0];
        let day = (now - *began.get_or_insert(now)) / DAY_MS;
        progressive.add(trainer.state(), &batch);
        if days.is_some_and(|days| day >= days) {
            trainer.pass_over(&batch);
        } else {
            trainer.step(&batch);
        }
    }
    progressive
}
