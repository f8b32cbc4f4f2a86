//! `millrace demo`

mod answers;
mod comparison;
mod scratch;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use rdkafka::mocking::MockCluster;

use super::session::stop_on_signal;
use crate::commands::output::say;
use crate::config::Config;
use crate::pipeline::{self, Clocks, Metrics, Publication, RunPlan, Site, Summary};
use crate::progress::ProgressLine;
use crate::publish::read_back;
use crate::stream::decode::Mapping;
use crate::stream::events_of;
use crate::stream::outbox::{Outbox, Outgoing, Patience};
use crate::stream::position::Position;
use crate::synthetic::{Interaction, World, WorldSettings};
use crate::telemetry::Health;
use comparison::Comparison;
use millrace_events::{Batch, Offsets};
use millrace_train::evaluation::{Recall, ranks, static_ranks};
use millrace_train::objective::Correction;
use millrace_train::placement::Placement;
use scratch::Scratch;

/// The file that people read is the one that runs.
const CONFIG: &str = include_str!("../../config/demo.toml");

/// Partitions of the demo's topic.
const PARTITIONS: i32 = 4;

/// The generator stays at most this far ahead of the slower trainer: librdkafka's mock broker
/// drops all but the newest 5 MiB of a partition (`rdkafka_mock.c`) without a word, and 80,000
/// events of about 100 bytes in 4 partitions are 2 MiB each.
const AHEAD_MAX: u64 = 80_000;

/// A generated event waits this long for others: requests stay large at any rate.
const LINGER_MS: u32 = 5;
/// Generated events that wait to be sent: all that [`AHEAD_MAX`] allows.
const QUEUE_KBYTES: usize = 64 << 10;

/// Fresh events that the models are measured on.
const CASES: usize = 5_000;

/// Popularity is counted over the newest share of the stream: with drift that is stronger than
/// counting all of it.
const RECENT_SHARE: f64 = 0.1;

/// Times of the stream begin here (2023-11-14T22:13:20Z); an event comes every ms.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// Arguments of `demo`.
#[derive(Args)]
#[command(after_help = "\
    Runs a Kafka broker inside this process (librdkafka's mock), streams interactions with \
    planted tastes, skewed popularity and drift through it, trains two models on them, one \
    corrected for sampling bias and one not, publishes embeddings, reads them back, and \
    compares both models with popularity and with the best that the planted truth allows. In \
    the end it serves the corrected one for a moment and shows what it answers three users.")]
pub(super) struct DemoArgs {
    /// Events of the stream.
    #[arg(long, default_value_t = 4_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(10_000..))]
    events: u64,
    /// Seed of the stream.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep answering in the end, with a page to look at, until the demo is stopped.
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1)]
    #[arg(default_missing_value = "127.0.0.1:9465")]
    serve: Option<SocketAddr>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Users whose answers are shown.
const USERS: [&str; 3] = ["u1", "u20", "u300"];

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let cluster = MockCluster::new(1).context("the in-process mock broker did not start")?;
    let config = config()?;
    let topics = [
        (&config.kafka.topic, PARTITIONS),
        (&config.kafka.dead_letter_topic, 1),
        (&config.publish.topic, 1),
        (&config.publish.versions_topic, 1),
    ];
    for (topic, partitions) in topics {
        cluster.create_topic(topic, partitions, 1)?;
    }
    let directory = Scratch::new()?;
    let demo = Demo::new(args, &config, &cluster.bootstrap_servers(), &directory.0)?;
    let (stop, _edge) = stop_on_signal()?;
    let comparison = demo.run(&stop)?;
    if args.json {
        comparison.print_json()
    } else {
        comparison.print()
    }
    let Some(listen) = args.serve else { return Ok(()) };
    if !args.json {
        say!("\nLook at http://{listen}/ (Ctrl-C ends it).");
    }
    answers::keep(&demo.corrected, &listen.to_string(), &stop)
}

fn config() -> anyhow::Result<Config> {
    Config::from_toml(CONFIG).map_err(|faults| anyhow!("config/demo.toml: {faults}"))
}

struct Demo {
    events: u64,
    seed: u64,
    corrected: Config,
    uncorrected: Config,
    placement: Placement,
}

impl Demo {
    fn new(
        args: &DemoArgs,
        config: &Config,
        brokers: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let mut corrected = config.clone();
        brokers.clone_into(&mut corrected.kafka.brokers);
        corrected.checkpoint.directory = directory.join("corrected").display().to_string();
        let mut uncorrected = corrected.clone();
        uncorrected.checkpoint.directory = directory.join("uncorrected").display().to_string();
        uncorrected.loss.correction = Correction::Plain;
        uncorrected.publish.topic = String::new();
        let placement = pipeline::placement(config.device)?;
        Ok(Self { events: args.events, seed: args.seed, corrected, uncorrected, placement })
    }

    fn world(&self) -> World {
        World::new(WorldSettings {
            queries: 4000,
            items: 2000,
            dim: 8,
            taste: 5.0,
            skew: 1.0,
            drift: 1.0,
            period: 4 * self.events,
            seed: self.seed,
        })
    }

    /// Streams, trains both models, measures them.
    fn run(&self, stop: &Arc<AtomicBool>) -> anyhow::Result<Comparison> {
        let mut world = self.world();
        let trained = [AtomicU64::new(0), AtomicU64::new(0)];
        let began = Instant::now();
        let (summaries, recent) = std::thread::scope(|scope| {
            let models = [(&self.corrected, &trained[0]), (&self.uncorrected, &trained[1])];
            let runs: Vec<_> = models
                .into_iter()
                .map(|(config, trained)| scope.spawn(|| self.train(config, trained, stop)))
                .collect();
            let recent = self.produce(&mut world, &trained, stop);
            if recent.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            let summaries: Vec<anyhow::Result<Summary>> = runs
                .into_iter()
                .map(|run| run.join().map_err(|_| anyhow!("a trainer panicked"))?)
                .collect();
            (summaries, recent)
        });
        let seconds = began.elapsed().as_secs_f64();
        let [corrected, uncorrected] =
            <[_; 2]>::try_from(summaries).map_err(|_| anyhow!("two models were trained"))?;
        let (corrected, uncorrected, recent) = (corrected?, uncorrected?, recent?);
        if stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        let published = corrected.published.as_ref().context("nothing was published")?;
        let vectors = read_back(&self.corrected, &published.version)?;
        let cases: Vec<Interaction> = (0..CASES).map(|_| world.draw()).collect();
        Ok(Comparison {
            corrected: self.recall(&self.corrected, &corrected, &world, &cases)?,
            uncorrected: self.recall(&self.uncorrected, &uncorrected, &world, &cases)?,
            popularity: popularity(&recent, &cases),
            ceiling: ceiling(&world, &cases),
            items: recent.len(),
            events: corrected.trained + corrected.rejected,
            seconds,
            published: published.vectors,
            read_back: vectors.len() as u64,
            seed: self.seed,
            answers: answers::ask(&self.corrected, &USERS)?,
        })
    }

    /// One model through the whole pipeline, until it has seen every event.
    fn train(
        &self,
        config: &Config,
        trained: &AtomicU64,
        interrupted: &Arc<AtomicBool>,
    ) -> anyhow::Result<Summary> {
        let stop = Arc::new(AtomicBool::new(false));
        let site = Site {
            config: config.clone(),
            placement: self.placement.clone(),
            metrics: Arc::new(Metrics::new(config)),
            health: Arc::new(Health::new()),
            stop: Arc::clone(&stop),
            clocks: Arc::new(Clocks::default()),
        };
        let plan =
            RunPlan { publication: Publication::Complete, ..RunPlan::live(Position::Earliest) };
        let run = pipeline::run(&site, &plan, &mut |trainer, _| {
            trained.store(trainer.progress().records(), Ordering::Relaxed);
            if trainer.progress().records() >= self.events || interrupted.load(Ordering::Relaxed) {
                stop.store(true, Ordering::Relaxed);
            }
        });
        // The generator must not wait for a trainer that has ended.
        trained.store(u64::MAX, Ordering::Relaxed);
        run
    }

    /// Draws and sends the stream, never far ahead of the trainers. Returns how often each item
    /// occurred lately.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn produce(
        &self,
        world: &mut World,
        trained: &[AtomicU64; 2],
        stop: &AtomicBool,
    ) -> anyhow::Result<Vec<f64>> {
        let mut outbox = Outbox::new(&self.corrected, LINGER_MS, QUEUE_KBYTES, Patience::Bounded)?;
        let mut recent = vec![0.0; world.settings().items];
        let recent_from = (self.events as f64 * (1.0 - RECENT_SHARE)) as u64;
        let mut progress = ProgressLine::new("demo", self.events, "events");
        let slowest = || trained.iter().map(|t| t.load(Ordering::Relaxed)).min().unwrap_or(0);
        for event in 0..self.events {
            while event >= slowest().saturating_add(AHEAD_MAX) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(recent);
                }
                progress.set(slowest(), String::new);
                std::thread::sleep(Duration::from_millis(2));
            }
            let drawn = world.draw();
            if event >= recent_from {
                recent[drawn.item] += 1.0;
            }
            let line = world.line(drawn, EPOCH_MS + event);
            let partition = i32::try_from(drawn.query % PARTITIONS as usize)?;
            outbox.send(Outgoing {
                topic: &self.corrected.kafka.topic,
                // Not by key: a partition that grew faster than the others would lose its oldest.
                partition: Some(partition),
                payload: Some(line.as_bytes()),
                ..Outgoing::default()
            })?;
        }
        outbox.flush()?;
        while slowest() < self.events && !stop.load(Ordering::Relaxed) {
            progress.set(slowest(), String::new);
            std::thread::sleep(Duration::from_millis(20));
        }
        progress.finish();
        Ok(recent)
    }

    /// recall@10 of a trained model on `cases`, all items being candidates.
    fn recall(
        &self,
        config: &Config,
        summary: &Summary,
        world: &World,
        cases: &[Interaction],
    ) -> anyhow::Result<f64> {
        let checkpoint = summary.checkpoint.as_ref().context("the stream brought no event")?;
        let mut trainer = pipeline::restore(config, &self.placement, checkpoint)?;
        let items = trainer.state().corpus.sorted();
        let vectors = trainer.state().model.embed_items(&items); // [items, dim]
        let mut mapping = Mapping::new(config);
        let mut events = events_of(config);
        for (time, &case) in (EPOCH_MS + self.events..).zip(cases) {
            mapping.decode(Some(world.line(case, time).as_bytes()), None, &mut events)?;
        }
        let batch = Batch::new(events, Offsets::new(config.kafka.topic.as_str()));
        let queries = trainer.embed_and_remember(&batch); // [cases, dim]
        let targets: Vec<Option<usize>> = batch
            .events
            .item_ids
            .iter()
            .map(|id| items.binary_search_by_key(id, |(id, _)| *id).ok())
            .collect();
        let mut recall = Recall::new(&[10]);
        for rank in ranks(&queries, &vectors, config.model.dim, &targets) {
            recall.add(rank, 1.0);
        }
        Ok(recall.at(10))
    }
}

fn popularity(recent: &[f64], cases: &[Interaction]) -> f64 {
    let ranks = static_ranks(recent);
    let mut recall = Recall::new(&[10]);
    for case in cases {
        recall.add(Some(ranks[case.item]), 1.0);
    }
    recall.at(10)
}

/// Ranking by the planted probability itself.
fn ceiling(world: &World, cases: &[Interaction]) -> f64 {
    let mut recall = Recall::new(&[10]);
    for case in cases {
        let scores = world.scores(case.query);
        let own = scores[case.item];
        let ahead = scores.iter().filter(|&&score| score > own).count();
        recall.add(u32::try_from(ahead + 1).ok(), 1.0);
    }
    recall.at(10)
}
