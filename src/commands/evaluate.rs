//! `millrace evaluate`

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::bounded::{read, read_pass};
use super::{ConfigArgs, position, report, stop_on_signal};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::pipeline;
use crate::stream::batch::Batch;
use crate::stream::position::{self, Position, Range};
use crate::stream::source;
use crate::train::evaluation::{Recall, ranks, static_ranks};
use crate::train::trainer::Trainer;

/// Cut-offs of the report.
const KS: [u32; 4] = [10, 50, 100, 300];

/// Arguments of `evaluate`.
#[derive(Args)]
#[command(after_help = "\
    Without --checkpoint a fresh model is trained in memory on everything before --from (no \
    checkpoint is read or written), then measured on the rest. With it, that model is \
    measured on the events after its own offsets.")]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the held-out events begin: 90% (by offset, of each partition), offset:N, time:T.
    #[arg(long, default_value = "90%", value_parser = position)]
    from: Position,
    /// Where they end.
    #[arg(long, default_value = "latest", value_parser = position)]
    to: Position,
    /// Passes over the training part, for topics without an order in time, such as a link graph.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// Measure this checkpoint (or the newest of a directory) instead of training one.
    #[arg(long, value_name = "CHECKPOINT", conflicts_with_all = ["from", "passes"])]
    checkpoint: Option<PathBuf>,
    /// Leave out of the ranking what the query has interacted with before (its target excepted).
    #[arg(long)]
    exclude_seen: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let (stop, _edge) = stop_on_signal()?;
    let placement = pipeline::placement(config.device)?;
    let consumer = source::consumer(&config)?;
    let (topic, brokers) = (&config.kafka.topic, &config.kafka.brokers);
    let resolve = |position| position::resolve(&consumer, topic, brokers, position);
    let to = resolve(args.to)?;
    let mut seen = Seen::new(args.exclude_seen);
    let (mut trainer, held_out) = match &args.checkpoint {
        Some(path) => {
            let (checkpoint, _) = Checkpoint::resolve(path)?;
            let trainer = pipeline::restore(&config, &placement, &checkpoint)?;
            if args.exclude_seen {
                let past =
                    Range { from: resolve(Position::Earliest)?, to: Some(trainer.offsets.clone()) };
                read(&config, past, "past events", &stop, |batch| seen.add(batch))?;
            }
            let held_out = Range { from: trainer.offsets.clone(), to: Some(to) };
            (trainer, held_out)
        }
        None => {
            let (begin, cut) = (resolve(Position::Earliest)?, resolve(args.from)?);
            let mut trainer = Trainer::new(&config, &placement, begin.clone());
            for pass in 1..=args.passes {
                let range = Range { from: begin.clone(), to: Some(cut.clone()) };
                read_pass(&config, range, pass, "training", &stop, |batch| {
                    trainer.step(batch, &mut |_| {});
                    if pass == 1 {
                        seen.add(batch);
                    }
                })?;
            }
            (trainer, Range { from: cut, to: Some(to) })
        }
    };
    if trainer.step == 0 {
        bail!("there is nothing to train on before the held-out events");
    }
    let began = Instant::now();
    let (offsets, held_out_to) = (held_out.from.clone(), held_out.to.clone());
    let outcome = measure(&config, &mut trainer, held_out, &mut seen, &stop)?;
    if outcome.model.cases() == 0 {
        bail!("there are no held-out events in the range {offsets:?}..{held_out_to:?}");
    }
    print(args, &config, &trainer, &outcome, began.elapsed());
    Ok(())
}

/// What was found out.
struct Outcome {
    model: Recall,
    popularity: Recall,
    unknown_items: u64,
    candidates: usize,
}

/// Which items a query has had, for `--exclude-seen`.
struct Seen {
    on: bool,
    by_query: HashMap<u64, Vec<u64>>,
}

impl Seen {
    fn new(on: bool) -> Self {
        Self { on, by_query: HashMap::new() }
    }

    fn add(&mut self, batch: &Batch) {
        if self.on {
            for (&query, &item) in batch.query_ids.iter().zip(&batch.item_ids) {
                self.by_query.entry(query).or_default().push(item);
            }
        }
    }

    fn of(&self, query: u64) -> &[u64] {
        self.by_query.get(&query).map_or(&[], Vec::as_slice)
    }
}

/// Ranks every held-out event's item against all items of the corpus, exactly.
fn measure(
    config: &Config,
    trainer: &mut Trainer,
    held_out: Range,
    seen: &mut Seen,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let items = trainer.corpus.sorted();
    let vectors = trainer.model.embed_items(&items); // [items, dim]
    let index: HashMap<u64, usize> =
        items.iter().enumerate().map(|(index, (id, _))| (*id, index)).collect();
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    let counts: Vec<f64> = items.iter().map(|(_, item)| item.count as f64).collect();
    let by_popularity = static_ranks(&counts);
    let dim = config.model.dim;
    let mut outcome = Outcome {
        model: Recall::new(&KS),
        popularity: Recall::new(&KS),
        unknown_items: 0,
        candidates: items.len(),
    };
    read(config, held_out, "evaluating", stop, |batch| {
        let queries = trainer.embed_queries(batch); // [events, dim]
        let targets: Vec<Option<usize>> =
            batch.item_ids.iter().map(|id| index.get(id).copied()).collect();
        // Seen items better than the target, as `ranks` and `by_popularity` count them.
        let excluded: Vec<Vec<usize>> = batch
            .query_ids
            .iter()
            .zip(&targets)
            .map(|(&query, target)| {
                let mut items: Vec<usize> =
                    seen.of(query).iter().filter_map(|id| index.get(id).copied()).collect();
                items.sort_unstable();
                items.dedup();
                items.retain(|item| Some(*item) != *target);
                items
            })
            .collect();
        let found = ranks(&queries, &vectors, dim, &targets, &excluded);
        for ((rank, target), excluded) in found.into_iter().zip(&targets).zip(&excluded) {
            outcome.model.add(rank);
            outcome.unknown_items += u64::from(target.is_none());
            outcome.popularity.add(target.map(|target| {
                let own = by_popularity[target];
                let better = excluded.iter().filter(|&&item| by_popularity[item] < own).count();
                own - u32::try_from(better).expect("fewer items than ranks")
            }));
        }
        seen.add(batch);
    })?;
    Ok(outcome)
}

fn print(
    args: &EvaluateArgs,
    config: &Config,
    trainer: &Trainer,
    outcome: &Outcome,
    elapsed: Duration,
) {
    let seconds = elapsed.as_secs_f64();
    if args.json {
        println!(
            "{}",
            json!({
                "topic": config.kafka.topic,
                "cases": outcome.model.cases(),
                "candidates": outcome.candidates,
                "unknown_items": outcome.unknown_items,
                "recall": report::recall_json(&outcome.model),
                "popularity": report::recall_json(&outcome.popularity),
                "trained": trainer.events,
                "step": trainer.step,
                "passes": args.passes,
                "exclude_seen": args.exclude_seen,
                "seed": config.seed,
                "seconds": seconds,
            })
        );
        return;
    }
    println!(
        "{} held-out events of {}, {} candidates, model after {} events in {} steps",
        outcome.model.cases(),
        config.kafka.topic,
        outcome.candidates,
        trainer.events,
        trainer.step
    );
    if outcome.unknown_items > 0 {
        println!(
            "{} of them have an item that training never saw: a miss for both",
            outcome.unknown_items
        );
    }
    println!("\n  k     model  popularity   ratio");
    for ((k, model), (_, popularity)) in
        outcome.model.values().into_iter().zip(outcome.popularity.values())
    {
        println!("{k:>3}  {model:>8.4}  {popularity:>10.4}  {:>6.2}", model / popularity);
    }
    println!("\nexact search, {seconds:.1} s");
}
