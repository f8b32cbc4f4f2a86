//! Does it stay as it is? A trainer at full speed, then in a trickle with bursts; its memory and
//! its descriptors are watched all the time, and what the trickle taught is held against a replay
//! of the same events from the same checkpoint.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use millrace::config::Config;
use millrace::synthetic::World;
use millrace_train::evaluation::metrics::Band;

use crate::live::topic::Topic;
use crate::live::{CONFIG, PATIENCE, fresh, measure, newest, report, wait_for, world};
use crate::process::{Page, Process, beside};

/// Arguments of `soak`.
#[derive(Args)]
pub(crate) struct SoakArgs {
    /// A real Kafka, such as `scripts/kafka start --port 19292` gives.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// How long it takes, half of it at full speed and half in a trickle.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    minutes: u64,
    /// Seed of the stream.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Memory may grow by so much over the second half of a phase; in a short one caches still fill.
const GROWTH_MAX: f64 = 1.02;
const SHORT_MINUTES: u64 = 10;
const SHORT_GROWTH_MAX: f64 = 1.15;
/// Time between two looks: what is held for a part of a second is seen often enough in a tenth.
const EVERY: Duration = Duration::from_millis(250);
/// Of the trickle, events a second; and of its bursts, events at once and time between two.
const TRICKLE: u64 = 5;
const BURST: u64 = 2_000;
const BURST_EVERY: Duration = Duration::from_secs(30);
/// At full speed the clients stay so far ahead of the trainer, and no further: the log must fit.
const AHEAD: f64 = 200_000.0;

/// Memory and descriptors of a process, look by look.
struct Watch {
    looked: Instant,
    bytes: Vec<f64>,
    descriptors: Vec<f64>,
}

impl Watch {
    fn new() -> Watch {
        Watch { looked: Instant::now(), bytes: Vec::new(), descriptors: Vec::new() }
    }

    /// Looks if it is time to; whether it was.
    fn turn(&mut self, page: &Page, train: &mut Process) -> anyhow::Result<bool> {
        let due = self.looked.elapsed() >= EVERY;
        if due {
            self.looked = Instant::now();
            train.must_run()?;
            self.look(page);
        }
        Ok(due)
    }

    fn look(&mut self, page: &Page) {
        let bytes = page.value("process_resident_memory_bytes ");
        let descriptors = page.value("process_open_fds ");
        if bytes.is_finite() && descriptors.is_finite() {
            self.bytes.push(bytes);
            self.descriptors.push(descriptors);
        }
    }

    /// MB by tenths of the phase: median and most of each.
    fn course(&self) -> String {
        let tenths = self.bytes.chunks(self.bytes.len().div_ceil(10).max(1));
        let text = |tenth: &[f64]| format!("{:.0} ({:.0})", median(tenth) / 1e6, most(tenth) / 1e6);
        tenths.map(text).collect::<Vec<_>>().join(" ")
    }

    /// The growth of memory over the second half: the most of its last fifth over that of its first
    /// one; and of descriptors, as a difference of medians. The most, because a checkpoint and a
    /// burst take memory for a moment, which the allocator gives back when it likes: in a trickle
    /// the median says how it felt, the most what the trainer needs.
    fn growth(&self) -> anyhow::Result<(f64, f64)> {
        let second = |values: &[f64]| values[values.len() / 2..].to_vec();
        let (bytes, descriptors) = (second(&self.bytes), second(&self.descriptors));
        ensure!(bytes.len() >= 10, "only {} looks", self.bytes.len());
        let fifth = bytes.len() / 5;
        let ends = |values: &[f64], of: fn(&[f64]) -> f64| {
            (of(&values[..fifth]), of(&values[values.len() - fifth..]))
        };
        let (first, last) = ends(&bytes, most);
        let (before, after) = ends(&descriptors, median);
        Ok((last / first, after - before))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("no scratch directory")?;
    let program = beside()?;
    let topic = Topic::create(&args.brokers)?;
    let sets = |directory: &str| sets(args, topic.name(), &scratch.path().join(directory));
    let start = |command: &str, directory: &str| {
        let log = scratch.path().join(format!("{command}-{directory}.log"));
        Process::start(&program, command, CONFIG, &sets(directory), &[], log)
    };
    let mut world = world(args.seed);
    let half = Duration::from_secs(args.minutes * 30);
    let mut train = start("train", "live")?;
    let page = train.page(PATIENCE)?;

    let mut fast = Watch::new();
    let first = full_speed(&topic, &mut world, half, &mut train, (&page, &mut fast))?;
    wait_for(&scratch.path().join("live"), first, &mut train)?;
    println!("{first} events at full speed: {:.0} a second", first as f64 / half.as_secs_f64());
    copy(&scratch.path().join("live"), &scratch.path().join("replay"))?;

    let mut slow = Watch::new();
    let more = trickle(&topic, &mut world, half, &mut train, (&page, &mut slow))?;
    let live = wait_for(&scratch.path().join("live"), first + more, &mut train)?;
    train.terminate(PATIENCE)?;
    println!("{more} events in a trickle with bursts");
    start("replay", "replay")?.finish(PATIENCE)?;
    let replayed = newest(&scratch.path().join("replay"))?.context("the replay left nothing")?;
    ensure!(replayed.manifest.events_trained == first + more, "the replay has other events");

    let config = Config::load(Some(Path::new(CONFIG)), &sets("live"))
        .map_err(|faults| anyhow!("{CONFIG}: {faults}"))?;
    let fresh = fresh(&config, &mut world)?;
    let (of_live, of_replay) =
        (measure(&config, &live, &fresh)?, measure(&config, &replayed, &fresh)?);
    report(&[("live", &live, &of_live), ("replay", &replayed, &of_replay)]);
    let [at_10, ..] = of_live.model.recall_above(&of_replay.model, &Band::ALL);
    let mut failed = at_10.high < 0.0;
    let growth_max = if args.minutes < SHORT_MINUTES { SHORT_GROWTH_MAX } else { GROWTH_MAX };
    for (phase, watch) in [("full speed", &fast), ("trickle", &slow)] {
        let (growth, descriptors) = watch.growth()?;
        println!(
            "{phase}: memory times {growth:.4} over its second half (at most {growth_max}), MB by \
             tenths {}; descriptors {descriptors:+}",
            watch.course()
        );
        failed |= growth > growth_max || descriptors > 0.0;
    }
    ensure!(!failed, "it does not stay as it is: see above");
    Ok(())
}

fn sets(args: &SoakArgs, topic: &str, directory: &Path) -> Vec<String> {
    vec![
        format!("kafka.brokers={}", args.brokers),
        format!("kafka.topic={topic}"),
        "kafka.dead_letter_topic=".to_owned(),
        "publish.topic=".to_owned(),
        "http.listen=127.0.0.1:0".to_owned(),
        format!("checkpoint.directory={}", directory.display()),
        "checkpoint.every_s=5".to_owned(),
        "checkpoint.every_steps=2000".to_owned(),
    ]
}

/// Sends events as fast as the trainer takes them. Returns their number.
fn full_speed(
    topic: &Topic,
    world: &mut World,
    time: Duration,
    train: &mut Process,
    (page, watch): (&Page, &mut Watch),
) -> anyhow::Result<u64> {
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < time {
        for _ in 0..1_000 {
            topic.send_next(world)?;
            sent += 1;
        }
        if watch.turn(page, train)? {
            while page.sum("millrace_consumer_lag") > AHEAD {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    topic.flush()?;
    Ok(sent)
}

/// Sends few events, and now and then many. Returns their number.
fn trickle(
    topic: &Topic,
    world: &mut World,
    time: Duration,
    train: &mut Process,
    (page, watch): (&Page, &mut Watch),
) -> anyhow::Result<u64> {
    let (began, mut burst, mut sent) = (Instant::now(), Instant::now(), 0);
    while began.elapsed() < time {
        let events = if burst.elapsed() >= BURST_EVERY {
            burst = Instant::now();
            BURST
        } else {
            1
        };
        for _ in 0..events {
            topic.send_next(world)?;
        }
        sent += events;
        std::thread::sleep(Duration::from_millis(1_000 / TRICKLE));
        watch.turn(page, train)?;
    }
    topic.flush()?;
    Ok(sent)
}

/// Copies checkpoints into a directory of their own, to go on from them.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
