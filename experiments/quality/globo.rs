//! Globo's clicks in time order, each ranked before it is trained on.

use millrace::config::Config;
use millrace::stream::offsets::Offsets;
use millrace::train::evaluation::progressive::{Progressive, ProgressiveSettings, Ranking};
use millrace::train::model::Placement;
use millrace::train::trainer::Trainer;

use super::events::Events;

/// The frozen model trains for so many days.
const FROZEN_AFTER_DAYS: i64 = 3;
const DAY_MS: i64 = 86_400_000;

/// A ranking with its name and what it is.
pub(super) type Named = (&'static str, &'static str, Ranking);

/// Every ranking that is compared, the baseline last.
pub(super) fn measure(
    load: &dyn Fn(&[&str]) -> anyhow::Result<Config>,
    placement: &Placement,
    events: &Events,
    mut done: impl FnMut(),
) -> anyhow::Result<Vec<Named>> {
    let mut run = |set: &[&str], weights: &[f32], days: Option<i64>| -> anyhow::Result<_> {
        let outcome = pass(&load(set)?, placement, events, weights, days);
        done();
        Ok(outcome)
    };
    let only = |mut outcome: Progressive| outcome.weights.swap_remove(0);
    let frozen = run(&["loss.correction=plain"], &[0.0], Some(FROZEN_AFTER_DAYS))?;
    let mut plain = run(&["loss.correction=plain"], &[0.0, 1.0], None)?;
    let plain_log_q = plain.weights.swap_remove(1);
    let corrected = run(&["loss.correction=corrected"], &[0.0], None)?;
    let excluded = run(&["loss.correction=corrected_positive_excluded"], &[0.0], None)?;
    let ours = run(&OURS, &[0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0], None)?;
    Ok(vec![
        ("frozen", "plain, not trained after day 3", only(frozen)),
        ("plain", "in-batch softmax (eq. 3)", only(plain)),
        ("corrected", "log q subtracted from every logit (eq. 4)", only(corrected)),
        (
            "corrected_positive_excluded",
            "positive uncorrected and outside the sum (Khrylchenko et al. 2025)",
            only(excluded),
        ),
        ("plain_log_q", "plain, ranked by s / tau + log q", plain_log_q),
        (
            "ours",
            "plain with decaying accumulators, ranked by s / tau + lambda log q, lambda being the \
             best of the stream so far",
            ours.chosen,
        ),
        ("popularity", "clicks of the last hour", ours.popularity),
    ])
}

/// What [`measure`] calls ours.
const OURS: [&str; 3] = [
    "loss.correction=plain",
    "embedding.accumulator_decay=0.95",
    "optimizer.accumulator_decay=0.99",
];

/// One pass over the clicks; only `days` of it trained, if given.
fn pass(
    config: &Config,
    placement: &Placement,
    events: &Events,
    weights: &[f32],
    days: Option<i64>,
) -> Progressive {
    let mut trainer = Trainer::new(config, placement, Offsets::new("file"));
    let mut progressive = Progressive::new(ProgressiveSettings {
        weights: weights.to_vec(),
        new_only: true,
        ..ProgressiveSettings::default()
    });
    let mut began = None;
    for batch in events.batches() {
        let now = batch.times_ms[0];
        let day = (now - *began.get_or_insert(now)) / DAY_MS;
        progressive.add(&trainer, &batch);
        if days.is_some_and(|days| day >= days) {
            trainer.pass_over(&batch);
        } else {
            trainer.step(&batch, &mut |_| {});
        }
    }
    progressive
}
