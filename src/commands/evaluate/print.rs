//! The output of `millrace evaluate`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::EvaluateArgs;
use crate::commands::output::say;
use crate::commands::report::{by_k, number};
use crate::config::Config;
use millrace_train::evaluation::KS;
use millrace_train::evaluation::held_out::HeldOut;
use millrace_train::evaluation::metrics::{Band, Interval, Quality, Sums};
use millrace_train::trainer::Trainer;

pub(super) fn print(
    args: &EvaluateArgs,
    config: &Config,
    trainer: &Trainer,
    outcome: &HeldOut,
    elapsed: Duration,
) {
    if args.json {
        say!("{}", as_json(args, config, trainer, outcome, elapsed));
        return;
    }
    let (model, popularity) = (&outcome.model, &outcome.popularity);
    say!(
        "{} held-out events of {}, {} candidates, model after {} events in {} steps",
        model.all.cases(),
        config.topic_names(),
        outcome.candidates(),
        trainer.progress().events,
        trainer.progress().step
    );
    if outcome.unknown_items > 0 {
        say!(
            "{} of them have an item that training never saw: a miss for both",
            outcome.unknown_items
        );
    }
    if let Some(hint) =
        few_steps(trainer.progress().step, trainer.progress().events, config.batch.size)
    {
        say!("{hint}");
    }
    say!("\n  k    recall              95%    NDCG  popularity   ratio");
    let rows = KS.iter().zip(model.recall(&Band::ALL)).zip(model.all.ndcg());
    for (((k, recall), ndcg), popularity) in rows.zip(popularity.all.recall()) {
        let Interval { value, low, high } = recall;
        say!(
            "{k:>3}  {value:>8.4}  {low:>7.4}-{high:<7.4}  {ndcg:>6.4}  {popularity:>10.4}  \
             {:>6.2}",
            value / popularity
        );
    }
    say!("MRR {:.4} (popularity {:.4})", model.all.mrr(), popularity.all.mrr());
    bands(model, popularity);
    say!(
        "\nbest tens: {:.1}% of all items shown, {:.2} times as popular as what was chosen",
        100.0 * outcome.shown.coverage(outcome.candidates()),
        outcome.shown.popularity_bias()
    );
    say!("exact search, {:.1} s", elapsed.as_secs_f64());
}

/// Below this many steps a model has hardly begun: on 5,000 visits of a shop recall@10 was .73
/// after 5 steps of 1,024 events and .84 after 71 of 64, where popularity has .81.
const STEPS_FEW: u64 = 64;

/// What to do about a log that is too short for its batches.
fn few_steps(steps: u64, events: u64, batch: usize) -> Option<String> {
    let enough = (events / STEPS_FEW).max(16).ilog2();
    let smaller = 1_usize << enough;
    (steps < STEPS_FEW && smaller < batch).then(|| {
        format!(
            "{steps} steps are few, and the model has hardly begun; for a log of this length try \
             --set batch.size={smaller}"
        )
    })
}

/// Recall at 10 and 100 by popularity of the target.
pub(super) fn bands(model: &Quality, popularity: &Quality) {
    say!("\nitems        cases   recall@10  recall@100  popularity's");
    let sums = |quality: &Quality| quality.bands.clone();
    let mut rows: Vec<(&str, Sums, Sums)> = Band::ALL
        .iter()
        .zip(sums(model).into_iter().zip(sums(popularity)))
        .map(|(band, (model, popularity))| (band.name(), model, popularity))
        .collect();
    rows.push(("cold", model.cold.clone(), popularity.cold.clone()));
    rows.push(("listed", model.listed.clone(), popularity.listed.clone()));
    for (name, model, popularity) in rows {
        let ([at_10, _, at_100, _], [by_10, _, by_100, _]) = (model.recall(), popularity.recall());
        let cases = model.cases();
        if cases > 0 {
            say!("{name:<6} {cases:>11}   {at_10:>9.4}  {at_100:>10.4}  {by_10:.4} {by_100:.4}");
        }
    }
}

fn as_json(
    args: &EvaluateArgs,
    config: &Config,
    trainer: &Trainer,
    outcome: &HeldOut,
    elapsed: Duration,
) -> Value {
    let (model, popularity) = (&outcome.model, &outcome.popularity);
    let mut result = quality(model);
    result["topic"] = json!(config.topic_names());
    result["cases"] = json!(model.all.cases());
    result["candidates"] = json!(outcome.candidates());
    result["unknown_items"] = json!(outcome.unknown_items);
    result["popularity"] = by_k(popularity.all.recall());
    result["coverage@10"] = number(outcome.shown.coverage(outcome.candidates()));
    result["popularity_bias@10"] = number(outcome.shown.popularity_bias());
    result["popularity_weight"] = json!(config.retrieval.popularity);
    result["trained"] = json!(trainer.progress().events);
    result["step"] = json!(trainer.progress().step);
    result["passes"] = json!(args.passes);
    result["exclude_seen"] = json!(args.excludes_seen(config));
    result["seed"] = json!(config.seed);
    result["seconds"] = json!(elapsed.as_secs_f64());
    result
}

/// Recall with intervals, NDCG, MRR, bands.
pub(super) fn quality(quality: &Quality) -> Value {
    let intervals = KS.iter().zip(quality.recall(&Band::ALL));
    let intervals: Map<String, Value> = intervals
        .map(|(k, recall)| (k.to_string(), json!([number(recall.low), number(recall.high)])))
        .collect();
    let of = |sums: &Sums| json!({ "cases": sums.cases(), "recall": by_k(sums.recall()) });
    let bands = Band::ALL.iter().zip(&quality.bands);
    let bands: Map<String, Value> =
        bands.map(|(band, sums)| (band.name().to_owned(), of(sums))).collect();
    json!({
        "recall": by_k(quality.all.recall()),
        "recall_95": intervals,
        "ndcg": by_k(quality.all.ndcg()),
        "mrr": number(quality.all.mrr()),
        "bands": bands,
        "cold": of(&quality.cold),
        "listed": of(&quality.listed),
    })
}

#[cfg(test)]
mod tests {
    use super::few_steps;

    #[test]
    fn a_short_log_is_told_which_batch_it_wants() {
        let hint = few_steps(5, 4495, 1024).expect("5 steps are few");
        assert!(hint.ends_with("try --set batch.size=64"), "{hint}");
        assert_eq!(few_steps(71, 4495, 64), None);
        assert_eq!(few_steps(264, 269_999, 1024), None);
        let tiny = few_steps(1, 20, 1024).expect("one step is few");
        assert!(tiny.ends_with("batch.size=16"), "{tiny}");
        assert_eq!(few_steps(2, 20, 16), None, "nothing smaller helps");
    }
}
