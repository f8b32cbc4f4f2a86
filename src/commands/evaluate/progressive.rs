//! `millrace evaluate --progressive`

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::print::{bands, quality};
use crate::commands::bounded::{read_again, read_cut};
use crate::commands::output::say;
use crate::commands::report::by_k;
use crate::config::Config;
use crate::stream::catalogue;
use crate::stream::cut::Cut;
use crate::stream::position::Range;
use millrace_events::Offsets;
use millrace_train::evaluation::progressive::{Progressive, ProgressiveSettings, Ranking};
use millrace_train::trainer::Trainer;

/// Arguments of `evaluate --progressive`.
#[derive(Args)]
pub(super) struct StreamArgs {
    /// With --progressive: candidates are the items of this many hours.
    #[arg(long, value_name = "HOURS", default_value_t = 24.0, requires = "progressive")]
    candidates_h: f64,
    /// With --progressive: weights of log q to compare.
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',', requires = "progressive")]
    #[arg(default_values_t = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0])]
    weights: Vec<f32>,
    /// With --progressive: leave out events whose query has had the item before.
    #[arg(long, requires = "progressive")]
    new_only: bool,
    /// With --progressive: an item first seen fewer events ago is cold.
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "progressive")]
    cold_events: u64,
}

/// The log that events are scored on.
pub(super) struct Stream<'a> {
    /// Its first records.
    pub(super) begin: Offsets,
    /// The end of scoring.
    pub(super) to: Offsets,
    /// How scored events are batched.
    pub(super) cut: Cut,
    /// What a query has had is no candidate.
    pub(super) exclude_seen: bool,
    /// Ends the run.
    pub(super) stop: &'a Arc<AtomicBool>,
}

/// Trains `trainer` in memory from its own offsets on, scoring each event first.
pub(super) fn run(
    args: &StreamArgs,
    config: &Config,
    mut trainer: Trainer,
    stream: Stream<'_>,
    as_json: bool,
) -> anyhow::Result<()> {
    if args.weights.iter().any(|weight| !(0.0..=100.0).contains(weight)) {
        bail!("weights must be in 0..=100");
    }
    let began = Instant::now();
    #[expect(clippy::cast_possible_truncation, reason = "hours in ms")]
    let mut progressive = Progressive::new(ProgressiveSettings {
        candidates_ms: (args.candidates_h * 3.6e6) as i64,
        weights: args.weights.clone(),
        new_only: args.new_only,
        exclude_seen: stream.exclude_seen,
        cold_events: args.cold_events,
        ..ProgressiveSettings::default()
    });
    let Stream { begin, to, cut, stop, .. } = stream;
    let from = trainer.progress().offsets.clone();
    let past = Range { from: begin, to: Some(from.clone()) };
    if past.records() > 0 {
        read_again(config, past, "past events", stop, |batch| progressive.pass_over(batch))?;
    }
    let range = Range { from, to: Some(to) };
    let catalogues = catalogue::ranges(config, &trainer.progress().catalogues, true)?;
    read_cut(config, (range, &catalogues), (1, cut), "scoring and training", stop, |batch| {
        trainer.step_looking(batch, |state, batch| progressive.add(state, batch), &mut |_| {});
    })?;
    if progressive.popularity.total.all.cases() == 0 {
        bail!("there are no events to score");
    }
    if as_json {
        say!("{}", json(config, &progressive, &trainer, began.elapsed()));
    } else {
        print(config, &progressive, &trainer, began.elapsed());
    }
    Ok(())
}

fn print(config: &Config, progressive: &Progressive, trainer: &Trainer, elapsed: Duration) {
    say!(
        "{} events of {} ranked before they were trained on, among {:.0} items on average",
        progressive.popularity.total.all.cases(),
        config.topic_names(),
        progressive.mean_candidates()
    );
    say!("\n                     recall@10  @50     @100    @300    MRR");
    let line = |name: &str, ranking: &Ranking| {
        let [at_10, at_50, at_100, at_300] = ranking.total.all.recall();
        let mrr = ranking.total.all.mrr();
        say!("{name:<20} {at_10:.4}     {at_50:.4}  {at_100:.4}  {at_300:.4}  {mrr:.4}");
    };
    for (weight, ranking) in progressive.settings().weights.iter().zip(&progressive.weights) {
        line(&format!("{weight} log q"), ranking);
    }
    line("best weight so far", &progressive.chosen);
    line("last hour's events", &progressive.popularity);
    say!("\nday   events  best so far @10  @100    last hour @10  @100");
    for ((day, chosen), popularity) in
        progressive.chosen.days.iter().zip(progressive.popularity.days.values())
    {
        let ([at_10, _, at_100, _], [by_10, _, by_100, _]) = (chosen.recall(), popularity.recall());
        let cases = chosen.cases();
        say!(
            "{day:>3} {cases:>8}  {at_10:.4}           {at_100:.4}  {by_10:.4}         {by_100:.4}"
        );
    }
    bands(&progressive.chosen.total, &progressive.popularity.total);
    say!(
        "\nweight at the end: {} (retrieval.popularity); {} events trained in {:.1} s",
        progressive.best_weight(),
        trainer.progress().events,
        elapsed.as_secs_f64()
    );
}

fn json(config: &Config, progressive: &Progressive, trainer: &Trainer, elapsed: Duration) -> Value {
    let of = |ranking: &Ranking| {
        let mut result = quality(&ranking.total);
        let days = ranking.days.iter().map(|(day, sums)| {
            json!({ "day": day, "cases": sums.cases(), "recall": by_k(sums.recall()) })
        });
        result["days"] = days.collect();
        result
    };
    let weights = progressive.settings().weights.iter().zip(&progressive.weights);
    let weights = weights.map(|(weight, ranking)| {
        let mut result = of(ranking);
        result["weight"] = json!(weight);
        result
    });
    json!({
        "topic": config.topic_names(),
        "cases": progressive.popularity.total.all.cases(),
        "candidates": progressive.mean_candidates(),
        "weights": weights.collect::<Vec<_>>(),
        "chosen": of(&progressive.chosen),
        "popularity": of(&progressive.popularity),
        "exclude_seen": progressive.settings().exclude_seen,
        "best_weight": progressive.best_weight(),
        "trained": trainer.progress().events,
        "step": trainer.progress().step,
        "seed": config.seed,
        "seconds": elapsed.as_secs_f64(),
    })
}
