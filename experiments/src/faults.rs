//! Does it survive what happens to a trainer in a year? Three real brokers, a trainer, clients
//! that never stop, and one fault after the other; then the log itself is read back, and what the
//! trainer has learned and rejected must be what is there, each record once.
//!
//! Owns the order of faults and what is held against the trainer. Every wait has a bound, and a
//! wait that reaches it is a hang, which counts as a failure. A run that was judged is in a file:
//! the same command goes on after it.

mod cluster;
mod disk;
mod kind;
mod ledger;
mod recovery;
mod report;
mod traffic;
mod trainer;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use millrace::checkpoint::Checkpoint;
use millrace_events::SplitMix;
use rdkafka::admin::{AdminClient, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::process::{Process, ProgramArgs};
use cluster::Cluster;
use disk::Disk;
use kind::{After, Kind, Scene, admin, block_on, options};
use ledger::{Ledger, letters};
use recovery::{break_it, recovers};
use report::{Outcome, Record, Report};
use traffic::Traffic;
use trainer::{Setup, Trainer, checkpoints};

/// Arguments of `faults`.
#[derive(Args)]
pub(crate) struct FaultsArgs {
    /// Faults, several of them in each run.
    #[arg(long, default_value_t = 200)]
    faults: usize,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where results and logs go; results that are there are not repeated.
    #[arg(long, value_name = "DIR", default_value = "target/faults")]
    out: PathBuf,
    /// First port of the brokers.
    #[arg(long, default_value_t = 29092)]
    port: u16,
    #[command(flatten)]
    program: ProgramArgs,
}

const CONFIG: &str = include_str!("faults/faults.toml");
/// Faults of a run: few enough that a failed oracle points to its cause.
const FAULTS_A_RUN: usize = 9;
/// Every so many runs, a replay is broken instead, and must end in the same bits.
const REPLAY_EVERY: usize = 6;
/// Past this it is a hang.
const HANG: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
/// Events of a replay.
const REPLAY_EVENTS: u64 = 150_000;

pub(crate) fn run(args: &FaultsArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out)?;
    let out = args.out.canonicalize()?;
    let mut report = Report::open(&out, args.seed)?;
    let scratch = tempfile::tempdir().context("no scratch directory")?;
    let program = args.program.path()?;
    println!("seed {}; logs in {}; brokers from port {}", args.seed, out.display(), args.port);
    let mut cluster = Cluster::start(scratch.path(), args.port)?;
    let mut number = 0;
    while report.faults() < args.faults {
        if !report.has(number) {
            let mut random = SplitMix::new(millrace_events::mix(args.seed ^ (number as u64) << 20));
            let left = args.faults - report.faults();
            let one = One { out: &out, program: &program, number, faults: left.min(FAULTS_A_RUN) };
            let records = if number % REPLAY_EVERY == REPLAY_EVERY - 1 {
                one.replay(&mut cluster, &mut random)
            } else {
                one.live(&mut cluster, &mut random)
            };
            report.add(number, records?)?;
        }
        number += 1;
    }
    report.finish()
}

/// One run.
struct One<'r> {
    out: &'r Path,
    program: &'r Path,
    number: usize,
    faults: usize,
}

impl One<'_> {
    fn name(&self, of: &str) -> String {
        format!("faults-{}-{}-{of}", std::process::id(), self.number)
    }

    /// The settings of a trainer.
    fn setup(&self, brokers: &str, checkpoints: &Path, more: &[&str]) -> anyhow::Result<Setup> {
        let logs = self.out.join(format!("run-{}", self.number));
        std::fs::create_dir_all(&logs)?;
        let config = logs.join("faults.toml");
        std::fs::write(&config, CONFIG)?;
        let own = [
            format!("kafka.brokers={brokers}"),
            format!("kafka.topic={}", self.name("in")),
            format!("kafka.dead_letter_topic={}", self.name("dead")),
            format!("publish.topic={}", self.name("out")),
            format!("publish.versions_topic={}", self.name("versions")),
            format!("checkpoint.directory={}", checkpoints.display()),
            "http.listen=127.0.0.1:0".to_owned(),
            "device=cpu".to_owned(),
        ];
        let sets = own.into_iter().chain(more.iter().map(|&set| set.to_owned())).collect();
        Ok(Setup { program: self.program.to_owned(), config, sets, logs })
    }

    fn topics(&self, admin: &AdminClient<DefaultClientContext>) -> anyhow::Result<()> {
        create(admin, &self.name("in"), 3, &[])?;
        create(admin, &self.name("dead"), 1, &[("max.message.bytes", "1048588")])?;
        for output in ["out", "versions"] {
            create(admin, &self.name(output), 1, &[("cleanup.policy", "compact")])?;
        }
        Ok(())
    }

    /// Breaks one thing after the other under a live trainer.
    fn live(&self, cluster: &mut Cluster, random: &mut SplitMix) -> anyhow::Result<Vec<Record>> {
        let brokers = cluster.brokers();
        let admin = admin(&brokers)?;
        self.topics(&admin)?;
        let disk = Disk::mount(tempfile::tempdir()?)?;
        let topic = self.name("in");
        let setup = self.setup(&brokers, &disk.path().join("checkpoints"), &[])?;
        let traffic = Traffic::start(&brokers, &topic, random.next_u64())?;
        let mut scene = Scene {
            admin,
            traffic,
            trainer: Trainer::start(setup)?,
            ledger: Ledger::new(&brokers, &topic)?,
            random: SplitMix::new(random.next_u64()),
            output: self.name("out"),
            topic,
            partitions: 3,
            disk: disk.path().to_owned(),
            cluster,
        };
        recovers(&mut scene, &After::Training)?;
        let mut records = Vec::new();
        let mut refused = false;
        for (index, kind) in self.kinds(random).into_iter().enumerate() {
            if kind == Kind::TopicAnew && !records.is_empty() {
                // Afterwards nobody can count what was there.
                scene.traffic.settle()?;
                self.judge(&brokers, &mut scene, &mut records);
                scene.traffic.pause(false);
            }
            println!("run {} fault {index}: {}", self.number, kind.words());
            let outcome = break_it(&mut scene, kind);
            println!("    {}", outcome.words());
            let failed = matches!(outcome, Outcome::Failed(_));
            records.push(Record { run: self.number, kind, outcome });
            refused = kind == Kind::TopicAnew;
            if failed && !refused {
                // What comes after it would be its fault.
                scene.trainer.kill();
                scene.trainer.launch()?;
            }
        }
        if !refused {
            scene.traffic.settle()?;
            self.judge(&brokers, &mut scene, &mut records);
            if let Err(error) = scene.trainer.terminate(kind::END) {
                fail(&mut records, &error);
            }
        }
        scene.traffic.give_up();
        Ok(records)
    }

    /// The faults of this run: each kind as often as any other, over all runs.
    fn kinds(&self, random: &mut SplitMix) -> Vec<Kind> {
        let first = self.number * FAULTS_A_RUN;
        let mut kinds: Vec<Kind> =
            (first..first + self.faults).map(|n| Kind::ALL[n % Kind::ALL.len()]).collect();
        for at in (1..kinds.len()).rev() {
            kinds.swap(at, (random.next_u64() % (at as u64 + 1)) as usize);
        }
        // Nothing can go on after this one.
        kinds.sort_by_key(|&kind| kind == Kind::TopicAnew);
        kinds
    }

    /// Holds a trainer whose clients are silent to what the log holds. A difference is the last
    /// fault's failure.
    fn judge(&self, brokers: &str, scene: &mut Scene<'_>, records: &mut [Record]) {
        if let Err(error) = self.compare(brokers, scene) {
            println!("    the log and the state differ: {error:#}");
            fail(records, &error);
        }
    }

    fn compare(&self, brokers: &str, scene: &mut Scene<'_>) -> anyhow::Result<()> {
        let Scene { ledger, trainer, disk, .. } = scene;
        ledger.read()?;
        let directory = disk.join("checkpoints");
        let deadline = Instant::now() + HANG;
        let counts_of = |checkpoint: &PathBuf| -> Option<(u64, u64)> {
            let manifest = Checkpoint::open(checkpoint).ok()?.manifest;
            Some((manifest.events_trained, manifest.events_rejected))
        };
        // Not the one of the most steps: a damaged one may lie there, passed over, and the run has
        // cut its batches otherwise since.
        let counts = || {
            let all = checkpoints(&directory);
            all.iter().filter_map(counts_of).max_by_key(|(trained, rejected)| trained + rejected)
        };
        loop {
            trainer.must_run()?;
            let (trained, rejected) = counts().unwrap_or_default();
            ensure!(trained + rejected <= ledger.records(), "records count more than once");
            if trained + rejected == ledger.records() {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{} of {} records are in a checkpoint",
                trained + rejected,
                ledger.records()
            );
            std::thread::sleep(LOOK);
        }
        let (trained, rejected) = counts().context("a checkpoint")?;
        ensure!(
            (trained, rejected) == (ledger.good, ledger.bad.len() as u64),
            "{trained} trained and {rejected} rejected, {} and {} in the log",
            ledger.good,
            ledger.bad.len()
        );
        let letters = letters(brokers, &self.name("dead"))?;
        let missing: Vec<_> = ledger.bad.difference(&letters).take(5).collect();
        ensure!(missing.is_empty(), "rejected records without a letter, the first: {missing:?}");
        println!("    {trained} events and {rejected} rejected records, each once; all letters");
        Ok(())
    }

    /// Breaks a replay again and again; it must end in the bits of one that nothing disturbed.
    fn replay(&self, cluster: &mut Cluster, random: &mut SplitMix) -> anyhow::Result<Vec<Record>> {
        let brokers = cluster.brokers();
        self.topics(&admin(&brokers)?)?;
        fill(&brokers, &self.name("in"), random.next_u64())?;
        let scratch = tempfile::tempdir()?;
        let more =
            ["publish.topic=", "http.listen=", "checkpoint.every_steps=40", "checkpoint.every_s=0"];
        let start = |name: &str, number: usize| -> anyhow::Result<Process> {
            let setup = self.setup(&brokers, &scratch.path().join(name), &more)?;
            let log = setup.logs.join(format!("replay-{name}-{number}.log"));
            let config = setup.config.to_str().context("text")?.to_owned();
            Process::start(&setup.program, "replay", &config, &setup.sets, &[], log)
        };
        let whole = Instant::now();
        start("whole", 0)?.finish(HANG)?;
        let whole = whole.elapsed();
        let mut records = Vec::new();
        let mut process = start("broken", 0)?;
        for number in 1..=self.faults {
            let kind = [Kind::TrainerKilled, Kind::BrokerKilled, Kind::TrainerFrozen]
                [(random.next_u64() % 3) as usize];
            std::thread::sleep(whole.mul_f64(f64::from(random.unit()) / 2.0));
            println!("run {} fault {number}, in a replay: {}", self.number, kind.words());
            match kind {
                Kind::BrokerKilled => {
                    let broker = (random.next_u64() % cluster.len() as u64) as usize;
                    cluster.end(broker, false)?;
                    cluster.restart(broker)?;
                }
                Kind::TrainerFrozen => {
                    process.signal(libc::SIGSTOP).ok(); // It may have ended.
                    std::thread::sleep(Duration::from_secs(1));
                    process.signal(libc::SIGCONT).ok();
                }
                _ => {
                    drop(process);
                    process = start("broken", number)?;
                }
            }
            records.push(Record { run: self.number, kind, outcome: Outcome::Recovered(0.0) });
        }
        let began = Instant::now();
        let ended = process.finish(HANG).and_then(|()| {
            let digest = |name: &str| digest(&scratch.path().join(name));
            let (whole, broken) = (digest("whole")?, digest("broken")?);
            ensure!(whole == broken, "digest {broken}, not {whole}");
            println!("    the same bits: {whole}");
            Ok(())
        });
        for record in &mut records {
            record.outcome = match &ended {
                Ok(()) => Outcome::Recovered(began.elapsed().as_secs_f64()),
                Err(error) => Outcome::Failed(format!("a replay: {error:#}")),
            };
        }
        Ok(records)
    }
}

/// The last fault has failed.
fn fail(records: &mut [Record], error: &anyhow::Error) {
    if let Some(last) = records.last_mut() {
        last.outcome = Outcome::Failed(format!("the run's end: {error:#}"));
    }
}

/// A topic with three copies of everything.
fn create(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    partitions: usize,
    settings: &[(&str, &str)],
) -> anyhow::Result<()> {
    let partitions = i32::try_from(partitions)?;
    let deadline = Instant::now() + HANG;
    loop {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(3));
        topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let results = block_on(admin.create_topics([&topic], &options()))?;
        match results.into_iter().next().context("an answer")? {
            Ok(_) => return Ok(()),
            // One of that name is still being deleted, or a broker is not back yet.
            Err(error) if Instant::now() >= deadline => bail!("topic {name}: {error:?}"),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Sends the events of a replay.
fn fill(brokers: &str, topic: &str, seed: u64) -> anyhow::Result<()> {
    let sender = traffic::sender(brokers)?;
    let mut world = traffic::world(seed);
    for event in 0..REPLAY_EVENTS {
        let time_ms = 1_700_000_000_000 + i64::try_from(event)?;
        let (key, value) = traffic::line(&mut world, time_ms, "1");
        traffic::send(&sender, topic, Some(&key), Some(value.as_bytes()), false)?;
    }
    rdkafka::producer::Producer::flush(&*sender, HANG).context("the brokers take the events")
}

fn digest(directory: &Path) -> anyhow::Result<String> {
    let newest = checkpoints(directory).pop().context("a checkpoint")?;
    Ok(Checkpoint::open(&newest)?.manifest.digest)
}
