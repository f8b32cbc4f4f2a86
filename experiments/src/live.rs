//! Does a live trainer learn what a replay learns? Events come to a real broker at the rate of a
//! small shop while `millrace train` reads them; then the same topic is replayed in full batches,
//! and both models are measured on the same fresh events.
//!
//! Owns the order of events and what is compared. Every wait has a bound; the child processes, the
//! topic and the checkpoints go when it ends, however it ends.

pub(crate) mod topic;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use millrace::checkpoint::{self, Checkpoint};
use millrace::config::{BatchConfig, Config};
use millrace::pipeline::{placement, restore};
use millrace::stream::calendar;
use millrace::stream::decode::Mapping;
use millrace::stream::events_of;
use millrace::synthetic::{World, WorldSettings};
use millrace_events::{Batch, Offsets};
use millrace_train::evaluation::KS;
use millrace_train::evaluation::held_out::HeldOut;
use millrace_train::evaluation::metrics::{Band, Interval, Quality};

use crate::process::{Process, ProgramArgs};
use topic::Topic;

/// Arguments of `live`.
#[derive(Args)]
pub(crate) struct LiveArgs {
    /// A real Kafka, such as `scripts/kafka start --port 19292` gives.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// How long events come.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Events a second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// Events before those: both models are trained on them in full batches, so that the live run
    /// goes on with a model that is not young. A multiple of `batch.size`.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Seed of the stream.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Overrides a key of both runs; may be given many times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    program: ProgramArgs,
}

/// The mapping and the model of both runs.
pub(crate) const CONFIG: &str = "config/demo.toml";
/// Fresh events that both models are measured on.
const CASES: usize = 5_000;
/// The trainer has this long to be done with what it was sent: its linger, `batch.min_events` and
/// a checkpoint are in.
const CATCH_UP: Duration = Duration::from_secs(90);
/// A process that was asked to end, or a replay, has this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a file is looked at that a process will write.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &LiveArgs) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("no scratch directory")?;
    let program = args.program.path()?;
    let topic = Topic::create(&args.brokers)?;
    let sets = |name: &str| sets(args, topic.name(), &scratch.path().join(name));
    let start = |command: &str, name: &str, more: &[&str]| {
        Process::start(
            &program,
            command,
            CONFIG,
            &sets(name),
            more,
            scratch.path().join(format!("{command}.log")),
        )
    };
    let mut world = world(args.seed);
    let live_events = args.seconds * args.rate;
    let events = args.after + live_events;
    let config = Config::load(Some(Path::new(CONFIG)), &sets("live"))
        .map_err(|faults| anyhow!("{CONFIG}: {faults}"))?;

    if args.after > 0 {
        for _ in 0..args.after {
            topic.send_next(&mut world)?;
        }
        topic.flush()?;
        start("replay", "live", &["--fresh"])?.finish(PATIENCE)?;
        println!("{} events in full batches, then", args.after);
    }
    let (name, brokers) = (topic.name(), &args.brokers);
    println!("{live_events} events at {} a second to {name} on {brokers}", args.rate);
    let mut train = start("train", "live", &[])?;
    produce(&topic, &mut world, (live_events, args.rate), &mut train)?;
    let live = wait_for(&scratch.path().join("live"), events, &mut train)?;
    train.terminate(PATIENCE)?;
    start("replay", "replay", &["--fresh"])?.finish(PATIENCE)?;
    let replayed = newest(&scratch.path().join("replay"))?.context("the replay left nothing")?;
    if replayed.manifest.events_trained != events {
        bail!("the replay trained {} of {events} events", replayed.manifest.events_trained);
    }

    let fresh = fresh(&config, &mut world)?;
    let (of_live, of_replay) =
        (measure(&config, &live, &fresh)?, measure(&config, &replayed, &fresh)?);
    report(&[("live", &live, &of_live), ("replay", &replayed, &of_replay)]);
    Ok(())
}

/// Small enough that a quarter of an hour's traffic of a small shop teaches more than popularity.
pub(crate) fn world(seed: u64) -> World {
    World::new(WorldSettings {
        queries: 100,
        items: 200,
        dim: 4,
        taste: 5.0,
        skew: 0.5,
        drift: 0.0,
        period: 1_000_000,
        seed,
    })
}

/// `--set` of a run whose checkpoints go to `directory`. Batches linger as the program's default
/// says, not as the demo does.
fn sets(args: &LiveArgs, topic: &str, directory: &Path) -> Vec<String> {
    let own = [
        format!("kafka.brokers={}", args.brokers),
        format!("kafka.topic={topic}"),
        "kafka.dead_letter_topic=".to_owned(),
        "publish.topic=".to_owned(),
        "http.listen=".to_owned(),
        format!("batch.linger_ms={}", BatchConfig::default().linger_ms),
        format!("checkpoint.directory={}", directory.display()),
        // How the end is noticed.
        "checkpoint.every_s=2".to_owned(),
    ];
    own.into_iter().chain(args.overrides.iter().cloned()).collect()
}

/// Sends `events` events, each at its time, for as long as `train` runs.
fn produce(
    topic: &Topic,
    world: &mut World,
    (events, rate): (u64, u64),
    train: &mut Process,
) -> anyhow::Result<()> {
    let began = Instant::now();
    for event in 0..events {
        let due = began + Duration::from_secs_f64(event as f64 / rate as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        train.must_run()?;
        topic.send_next(world)?;
    }
    topic.flush()
}

pub(crate) fn now_ms() -> u64 {
    calendar::now_ms().unsigned_abs()
}

/// The checkpoint of a live run that has trained `events`.
pub(crate) fn wait_for(
    directory: &Path,
    events: u64,
    train: &mut Process,
) -> anyhow::Result<Checkpoint> {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        train.must_run()?;
        let trained = newest(directory)?;
        let count = trained.as_ref().map_or(0, |checkpoint| checkpoint.manifest.events_trained);
        match trained {
            Some(checkpoint) if count == events => return Ok(checkpoint),
            _ if Instant::now() >= deadline => {
                bail!("{count} of {events} events are in a checkpoint after {CATCH_UP:?}")
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

pub(crate) fn newest(directory: &Path) -> anyhow::Result<Option<Checkpoint>> {
    match directory.exists() {
        true => Ok(checkpoint::latest(directory)?.0),
        false => Ok(None),
    }
}

/// What comes next in the same world.
pub(crate) fn fresh(config: &Config, world: &mut World) -> anyhow::Result<Batch> {
    let (mut mapping, mut events) = (Mapping::new(config), events_of(config));
    for _ in 0..CASES {
        let drawn = world.draw();
        mapping.decode(Some(world.line(drawn, now_ms()).as_bytes()), None, &mut events)?;
    }
    Ok(Batch::new(events, Offsets::new("fresh")))
}

pub(crate) fn measure(
    config: &Config,
    checkpoint: &Checkpoint,
    fresh: &Batch,
) -> anyhow::Result<HeldOut> {
    let mut trainer = restore(config, &placement(config.device)?, checkpoint)?;
    let mut held_out = HeldOut::new(trainer.state(), config.retrieval.popularity);
    let queries = trainer.embed_and_remember(fresh); // [events, dim]
    held_out.add(fresh, &queries, None);
    Ok(held_out)
}

pub(crate) fn report(runs: &[(&str, &Checkpoint, &HeldOut); 2]) {
    println!("\n         steps  events a step   recall@10 (95%)            @100");
    let line = |name: &str, [at_10, _, at_100, _]: [Interval; KS.len()]| {
        let text = |of: Interval| format!("{:>7.4} ({:.4} to {:.4})", of.value, of.low, of.high);
        println!("{name:<31} {}  {}", text(at_10), text(at_100));
    };
    let recall = |quality: &Quality| quality.recall(&Band::ALL);
    for (name, checkpoint, measured) in runs {
        let (steps, events) = (checkpoint.manifest.step, checkpoint.manifest.events_trained);
        let name = format!("{name:<7} {steps:>6}  {:>13.1}", events as f64 / steps as f64);
        line(&name, recall(&measured.model));
    }
    let [(.., live), (.., replayed)] = runs;
    line("popularity", recall(&replayed.popularity));
    line("live less replay", live.model.recall_above(&replayed.model, &Band::ALL));
    println!("{CASES} fresh events, {} candidates", replayed.candidates());
}
