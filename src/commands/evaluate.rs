//! `millrace evaluate`

mod print;
mod progressive;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::bail;
use clap::Args;

use super::bounded::{read_again, read_cut};
use super::cut::CutArgs;
use super::session::{ConfigArgs, stop_on_signal, usage};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::pipeline;
use crate::stream::catalogue;
use crate::stream::cut::Cut;
use crate::stream::log::Log;
use crate::stream::position::{Position, Range};
use millrace_train::evaluation::held_out::{HeldOut, Seen};
use millrace_train::trainer::Trainer;

/// Arguments of `evaluate`.
#[derive(Args)]
#[command(after_help = "\
    Without --checkpoint a fresh model is trained in memory on everything before --from (no \
    checkpoint is read or written), then measured on the rest. With it, that model is \
    measured on the events after its own offsets.\n\n\
    With --progressive every event up to --to is ranked among the items of the last 24 hours \
    before it is trained on, with several weights of log q (retrieval.popularity), beside the \
    ranking by the last hour's events. That is what a service fed by a live trainer would show, \
    and the way to choose the weight. With --checkpoint it goes on from there: the events before \
    its offsets only say which items are recent, popular, new and seen.\n\n\
    Intervals are 95%, from a bootstrap over queries, or over hours of event time where that is \
    wider. Bands hold a third of the traffic each, by popularity of the event's item; cold items \
    came in fewer than 10 training events, or, with \
    --progressive, were first seen fewer than --cold-events events ago; listed items came in \
    none, and are known from a catalogue alone.")]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The first held-out event: 90% (by offset, of each partition), offset:N, time:T.
    #[arg(long, default_value = "90%", value_parser = str::parse::<Position>)]
    from: Position,
    /// The end of the held-out events, in the same forms.
    #[arg(long, default_value = "latest", value_parser = str::parse::<Position>)]
    to: Position,
    /// Passes over the training part, for topics without an order in time, such as a link graph.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// Measure this checkpoint (or the newest of a directory) instead of training one.
    #[arg(long, value_name = "CHECKPOINT", conflicts_with_all = ["from", "passes"])]
    checkpoint: Option<PathBuf>,
    /// Leave out of the ranking what the query had before the held-out events (its target
    /// excepted); what it has among them stays in, as in most published figures. With
    /// --progressive: what it had before. The config's retrieval.exclude_seen does the same.
    #[arg(long)]
    exclude_seen: bool,
    /// Rank every event before it is trained on.
    #[arg(long, conflicts_with_all = ["from", "passes"])]
    progressive: bool,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    stream: progressive::StreamArgs,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

impl EvaluateArgs {
    fn excludes_seen(&self, config: &Config) -> bool {
        self.exclude_seen || config.retrieval.exclude_seen
    }
}

pub(super) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let cut = args.cut.of(&config)?;
    if args.cut.cut.is_some() && args.checkpoint.is_some() && !args.progressive {
        return Err(usage("--cut: with --checkpoint nothing is trained that could be cut"));
    }
    let (stop, _edge) = stop_on_signal()?;
    let placement = pipeline::placement(config.device)?;
    let log = Log::of(&config)?;
    let begin = log.resolve(Position::Earliest)?;
    let to = log.resolve(args.to)?;
    let mut trainer = match &args.checkpoint {
        Some(path) => pipeline::restore(&config, &placement, &Checkpoint::resolve(path)?.0)?,
        None => Trainer::new(&config.train(), &placement, begin.clone()),
    };
    let places = catalogue::places(&config, &trainer.progress().catalogues, false)?;
    trainer.follow(&config.train(), places);
    if args.progressive {
        let exclude_seen = args.excludes_seen(&config);
        let stream = progressive::Stream { begin, to, cut, exclude_seen, stop: &stop };
        return progressive::run(&args.stream, &config, trainer, stream, args.json);
    }
    let from = match args.checkpoint {
        Some(_) => trainer.progress().offsets.clone(),
        None => log.resolve(args.from)?,
    };
    let mut seen = args.excludes_seen(&config).then(Seen::default);
    if args.checkpoint.is_none() {
        let range = Range { from: begin, to: Some(from.clone()) };
        train(&config, &mut trainer, range, (args.passes, cut), &mut seen, &stop)?;
    } else if let Some(seen) = &mut seen {
        let past = Range { from: begin, to: Some(from.clone()) };
        read_again(&config, past, "past events", &stop, |batch| seen.add(batch))?;
    }
    if trainer.progress().step == 0 {
        bail!("there is nothing to train on before the held-out events");
    }
    let began = Instant::now();
    let held_out = Range { from: from.clone(), to: Some(to.clone()) };
    let outcome = measure(&config, &mut trainer, held_out, seen.as_ref(), &stop)?;
    if outcome.model.all.cases() == 0 {
        bail!("there are no held-out events in the range {from:?}..{to:?}");
    }
    print::print(args, &config, &trainer, &outcome, began.elapsed());
    Ok(())
}

/// Trains on `range`, some passes long; `seen` notes the items that each query has had.
fn train(
    config: &Config,
    trainer: &mut Trainer,
    range: Range,
    (passes, cut): (u32, Cut),
    seen: &mut Option<Seen>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    for pass in 1..=passes {
        let catalogues = catalogue::ranges(config, &trainer.progress().catalogues, true)?;
        read_cut(config, (range.clone(), &catalogues), (pass, cut), "training", stop, |batch| {
            trainer.step(batch);
            if pass == 1
                && let Some(seen) = seen
            {
                seen.add(batch);
            }
        })?;
    }
    Ok(())
}

/// Ranks every held-out event's item against all items of the corpus, exactly; without those that
/// its query has `seen`, if given. Held-out events do not enter that: a model that was trained
/// before them is asked for each of them alike, whatever their order.
fn measure(
    config: &Config,
    trainer: &mut Trainer,
    range: Range,
    seen: Option<&Seen>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<HeldOut> {
    let mut held_out = HeldOut::new(trainer.state(), config.retrieval.popularity);
    let catalogues = catalogue::ranges(config, &trainer.progress().catalogues, true)?;
    let range = (range, &*catalogues);
    read_cut(config, range, (1, Cut::Full), "evaluating", stop, |batch| {
        let queries = trainer.embed_and_remember(batch); // [events, dim]
        held_out.add(batch, &queries, seen);
    })?;
    Ok(held_out)
}
