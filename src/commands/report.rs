//! The output of bounded runs: a line of progress, the summary as a table or as JSON.

use serde_json::{Map, Value, json};

use crate::commands::output::say;
use crate::pipeline::{RunStats, Summary};
use millrace_events::{CataloguePlace, Offsets};
use millrace_train::evaluation::{KS, Recall};

/// One line on how training goes.
pub(super) fn message(stats: &RunStats) -> String {
    format!("loss {:.3}, recall@10 {:.3}", stats.loss(), stats.recall.at(10))
}

/// `{"10": .., "50": ..}`
pub(super) fn recall_json(recall: &Recall) -> Value {
    let values = recall.values().into_iter();
    Value::Object(values.map(|(k, value)| (k.to_string(), number(value))).collect::<Map<_, _>>())
}

/// The same for the cut-offs of evaluations.
pub(super) fn by_k(values: [f64; KS.len()]) -> Value {
    let values = KS.iter().zip(values);
    Value::Object(values.map(|(k, value)| (k.to_string(), number(value))).collect())
}

/// NaN has no JSON: null.
pub(super) fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// A bounded run as one object.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub(super) fn summary_json(summary: &Summary) -> Value {
    let reasons: Map<String, Value> = summary
        .rejected_by_reason
        .iter()
        .map(|(reason, count)| (reason.clone(), json!(count)))
        .collect();
    let checkpoint = summary.checkpoint.as_ref();
    let offsets = |offsets: &Offsets| offsets.iter().map(|(_, next)| next).collect::<Vec<_>>();
    let catalogue = |place: &CataloguePlace| {
        let CataloguePlace { side, next, bootstrap, .. } = place;
        json!({
            "topic": next.topic(),
            "side": side,
            "end": offsets(bootstrap),
            "offsets": offsets(next),
        })
    };
    json!({
        "events": summary.trained + summary.rejected,
        "trained": summary.trained,
        "rejected": summary.rejected,
        "rejected_by_reason": reasons,
        "skipped": summary.skipped,
        "events_this_run": summary.records_this_run,
        "began_at_step": summary.began_at_step,
        "step": summary.step,
        "passes": summary.pass,
        "seconds": summary.seconds,
        "events_per_s": number(summary.records_this_run as f64 / summary.seconds),
        "loss": number(summary.loss),
        "recall": recall_json(&summary.recall),
        "recall_candidates": "batch",
        "nonfinite_steps": summary.nonfinite_steps,
        "catalogues": summary.catalogues.iter().map(catalogue).collect::<Vec<_>>(),
        "checkpoint": checkpoint.map(|checkpoint| &checkpoint.path),
        "digest": checkpoint.map(|checkpoint| &checkpoint.manifest.digest),
        "version": summary.published.as_ref().map(|published| &published.version),
        "published": summary.published.as_ref().map_or(0, |published| published.vectors),
    })
}

/// The same for people.
pub(super) fn print_summary(summary: &Summary) {
    say!(
        "events      {} ({} trained, {} rejected)",
        summary.trained + summary.rejected,
        summary.trained,
        summary.rejected
    );
    if summary.pass > 1 {
        say!("passes      {}", summary.pass);
    }
    for (reason, count) in &summary.rejected_by_reason {
        say!("            {count} {reason}");
    }
    if summary.skipped > 0 {
        say!("skipped     {} records, which are no events", summary.skipped);
    }
    if summary.began_at_step > 0 {
        say!(
            "this run    {} events, from step {}",
            summary.records_this_run,
            summary.began_at_step
        );
    }
    if summary.records_this_run == 0 && summary.began_at_step > 0 {
        say!("            nothing: the checkpoint had read the range to its end");
    } else {
        print_training(summary);
    }
    for CataloguePlace { next, bootstrap, .. } in &summary.catalogues {
        let ends: Vec<String> = bootstrap.iter().map(|(_, end)| end.to_string()).collect();
        let (topic, ends) = (next.topic(), ends.join(", "));
        say!(
            "catalogue   {topic}, up to [{ends}] before the first event, {} records",
            next.total()
        );
        say!("            another run repeats this one as long as that topic is not compacted");
    }
    match &summary.checkpoint {
        None => say!("checkpoint  none: there was no event to train on"),
        Some(checkpoint) => {
            say!("checkpoint  {}", checkpoint.path.display());
            say!("digest      {}", checkpoint.manifest.digest);
        }
    }
    match &summary.published {
        None => say!("published   nothing"),
        Some(published) => say!(
            "published   {} vectors, {} tombstones, version {}",
            published.vectors,
            published.tombstones,
            published.version
        ),
    }
}

/// What a run that trained has to say of it.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn print_training(summary: &Summary) {
    let rate = summary.records_this_run as f64 / summary.seconds;
    say!("time        {:.1} s, {rate:.0} events/s", summary.seconds);
    say!("loss        {:.4} (last steps)", summary.loss);
    let recall: Vec<String> =
        summary.recall.values().iter().map(|(k, value)| format!("@{k} {value:.4}")).collect();
    say!(
        "recall      {} (among the items of the last batch.size events, before training on it)",
        recall.join("  ")
    );
}
