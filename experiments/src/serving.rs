//! From an event to an answer, with all of it on one machine: a broker, a trainer, a `serve` beside
//! it and those who ask. How long until a version that has learned of an event answers; how long
//! answers take, alone and beside training; what `serve` holds in memory meanwhile.
//!
//! Owns the order of the parts and what is printed. The parts share the machine's processors, as
//! they would where a shop has one machine for it; whoever sends and asks takes some of them, too.

mod served;
mod stream;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use millrace::synthetic::{World, WorldSettings};

use crate::live::topic::Topic;
use crate::live::{CONFIG, wait_for};
use crate::load::{LoadArgs, Took, load};
use crate::process::{Page, Process, ProgramArgs};
use crate::quantile::quantile;
use served::Served;
use stream::Stream;

/// Arguments of `serving`.
#[derive(Args)]
pub(crate) struct ServingArgs {
    /// A real Kafka, such as `scripts/kafka start --port 19292` gives.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// Items of the world, each in one event at least before anything is measured.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    items: u32,
    /// Events an item before that.
    #[arg(long, default_value_t = 5)]
    events_an_item: u32,
    /// Events a second while freshness is measured.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=50_000))]
    rate: u64,
    /// How long that, and each measurement of answers.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Seed of the world.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Overrides a key of all runs, such as checkpoint.every_s=5; may be given many times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    program: ProgramArgs,
}

const QUERIES: usize = 10_000;
/// Requests a second beside training.
const BESIDE: f64 = 100.0;
/// Requests a second of a `serve` that has the machine to itself.
const ALONE: f64 = 500.0;
/// A start, a stop, a replay of a million items' events.
const PATIENCE: Duration = Duration::from_secs(300);
/// Rounds of training at full speed with and without requests, in alternation.
const ROUNDS: usize = 3;
/// How long each of a round's two parts is; and events that last for all of them.
const ROUND: Duration = Duration::from_secs(5);
const FULL_EVENTS: u64 = 6_000_000;

pub(crate) fn run(args: &ServingArgs) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("no scratch directory")?;
    let directory = scratch.path().join("checkpoints");
    let program = args.program.path()?;
    let topic = Topic::create(&args.brokers)?;
    let mut sets = vec![
        format!("kafka.brokers={}", args.brokers),
        format!("kafka.topic={}", topic.name()),
        format!("checkpoint.directory={}", directory.display()),
    ];
    sets.extend(SETS.map(str::to_owned));
    sets.extend(args.overrides.iter().cloned());
    let start = |command: &str, more: &[&str]| {
        let log = scratch.path().join(format!("{command}.log"));
        Process::start(&program, command, CONFIG, &sets, more, log)
    };
    let mut stream = Stream::new(topic, world(args));

    let began = Instant::now();
    stream.everything(args.items, args.events_an_item)?;
    start("replay", &["--fresh"])?.finish(PATIENCE)?;
    let events = stream.sent();
    println!("{} items, {events} events learned in {:.0?}", args.items, began.elapsed());

    let began = Instant::now();
    let mut serve = start("serve", &[])?;
    let served = Served::of(serve.page(PATIENCE)?, PATIENCE)?;
    println!("serve answers after {:.1?}; {}", began.elapsed(), memory(&serve)?);

    let mut train = start("train", &[])?;
    fresh(args, &mut stream, &served, &mut train)?;
    println!("{}", memory(&serve)?);
    wait_for(&directory, stream.sent(), &mut train)?;

    let address = served.address()?;
    print_took("500 a second, no events", &asked(address, ALONE, args.seconds)?);
    print_took("as many as are answered, no events", &asked(address, 0.0, args.seconds / 3)?);
    train.terminate(PATIENCE)?;
    stream.more(FULL_EVENTS)?;
    let mut train = start("train", &[])?;
    full_speed(&train.page(PATIENCE)?, address)?;
    println!("{}", memory(&serve)?);
    train.terminate(PATIENCE)?;
    serve.must_run()?;
    serve.terminate(PATIENCE)
}

/// The demo's mapping; the model that the targets name, and a cadence that freshness needs.
const SETS: [&str; 11] = [
    "kafka.dead_letter_topic=",
    "publish.topic=",
    "http.listen=127.0.0.1:0",
    "model.hidden=[]",
    "model.dim=64",
    "embedding.dim=64",
    "batch.linger_ms=200",
    "checkpoint.every_s=1",
    "checkpoint.every_steps=1000000",
    "serve.poll_ms=100",
    "serve.requests_max=1024",
];

/// Few items take much, and a query's taste is plain in what it takes.
fn world(args: &ServingArgs) -> World {
    World::new(WorldSettings {
        queries: QUERIES,
        items: args.items as usize,
        dim: 8,
        taste: 5.0,
        skew: 0.5,
        drift: 0.0,
        period: 1_000_000_000,
        seed: args.seed,
    })
}

/// Events at a rate, requests beside them, and how long events take until they are served.
fn fresh(
    args: &ServingArgs,
    stream: &mut Stream,
    served: &Served,
    train: &mut Process,
) -> anyhow::Result<()> {
    let (rate, seconds) = (args.rate, args.seconds);
    let address = served.address()?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let times = stream.times();
    let (mut times, versions, took) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let watch = scope.spawn(|| served.watch(&times, &stop));
        let requests = scope.spawn(|| asked(address, BESIDE, seconds));
        let sent = stream.at_rate(rate, Duration::from_secs(seconds), train);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (times, versions) = watch.join().expect("no panic")?;
        sent?;
        Ok((times, versions, requests.join().expect("no panic")?))
    })?;
    times.sort_by(f64::total_cmp);
    ensure!(!times.is_empty(), "no event was served within {seconds} s");
    let at = |share| quantile(&times, share);
    println!(
        "{rate} events/s for {seconds} s: event until served p50 {:.2} s, p99 {:.2} s, most {:.2} \
         s ({} events in {versions} versions)",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
    print_took("100 a second beside it", &took);
    Ok(())
}

/// What training loses by requests.
fn full_speed(page: &Page, address: SocketAddr) -> anyhow::Result<()> {
    let trained = || page.value("millrace_events_total{result=\"trained\"}");
    let rate = |while_: &mut dyn FnMut() -> anyhow::Result<()>| {
        let (began, before) = (Instant::now(), trained());
        while_()?;
        anyhow::Ok((trained() - before) / began.elapsed().as_secs_f64())
    };
    // The first seconds are those of a start.
    let wait = |time| {
        std::thread::sleep(time);
        anyhow::Ok(())
    };
    rate(&mut || wait(ROUND / 2))?;
    let (mut ratios, mut all) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let without = rate(&mut || wait(ROUND))?;
        let with = rate(&mut || {
            all.push(asked(address, BESIDE, ROUND.as_secs())?);
            Ok(())
        })?;
        ensure!(page.sum("millrace_consumer_lag") > 0.0, "training had nothing more to read");
        println!("training at full speed: {without:.0} events/s, with requests {with:.0}");
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    println!("of its rate, median of {ROUNDS}: {:.3}", ratios[ROUNDS / 2]);
    for took in all {
        print_took("100 a second beside training at full speed", &took);
    }
    Ok(())
}

fn asked(address: SocketAddr, rate: f64, seconds: u64) -> anyhow::Result<Took> {
    load(&LoadArgs {
        address,
        rate,
        seconds: seconds.max(1),
        connections: 32,
        k: 100,
        field: "user".to_owned(),
        prefix: "u".to_owned(),
        queries: QUERIES as u64,
        key: None,
    })
}

fn print_took(what: &str, took: &Took) {
    println!("{what}: {took}");
}

/// What a process holds now, and held at most.
fn memory(process: &Process) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let of = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no memory")?;
        let kilobytes = line.split_whitespace().next().context("no number")?;
        Ok(kilobytes.parse::<f64>()? / 1e3)
    };
    Ok(format!("serve holds {:.0} MB, most {:.0} MB", of("VmRSS:")?, of("VmHWM:")?))
}
