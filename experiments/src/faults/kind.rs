//! What breaks, and what must come of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use millrace::checkpoint::Checkpoint;
use millrace::stream::calendar::now_ms;
use millrace_events::SplitMix;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset};

use super::cluster::Cluster;
use super::disk::{fill_for_a_while, remount};
use super::ledger::Ledger;
use super::traffic::Traffic;
use super::trainer::{Trainer, checkpoints, refuses};

/// A fault.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub(super) enum Kind {
    TrainerKilled,
    TrainerEnded,
    TrainerFrozen,
    BrokerKilled,
    BrokerFrozen,
    LeadersMoved,
    PartitionsAdded,
    Retention,
    DiskFull,
    DiskReadOnly,
    BitFlipped,
    BadClocks,
    OddSizes,
    OddNumbers,
    Transactions,
    OutputRefused,
    SecondTrainer,
    Idle,
    /// The last one of a run: nothing may go on after it.
    TopicAnew,
}

impl Kind {
    pub(super) const ALL: [Kind; 19] = [
        Kind::TrainerKilled,
        Kind::TrainerEnded,
        Kind::TrainerFrozen,
        Kind::BrokerKilled,
        Kind::BrokerFrozen,
        Kind::LeadersMoved,
        Kind::PartitionsAdded,
        Kind::Retention,
        Kind::DiskFull,
        Kind::DiskReadOnly,
        Kind::BitFlipped,
        Kind::BadClocks,
        Kind::OddSizes,
        Kind::OddNumbers,
        Kind::Transactions,
        Kind::OutputRefused,
        Kind::SecondTrainer,
        Kind::Idle,
        Kind::TopicAnew,
    ];

    /// In the words of the report.
    pub(super) fn words(self) -> &'static str {
        match self {
            Kind::TrainerKilled => "SIGKILL of the trainer",
            Kind::TrainerEnded => "SIGTERM of the trainer",
            Kind::TrainerFrozen => "SIGSTOP of the trainer, 3 s",
            Kind::BrokerKilled => "SIGKILL of a broker, back after 2 s",
            Kind::BrokerFrozen => "SIGSTOP of a broker, 12 s",
            Kind::LeadersMoved => "a broker restarted in order: its leaders move",
            Kind::PartitionsAdded => "two partitions added",
            Kind::Retention => "retention takes what the oldest checkpoint has read",
            Kind::DiskFull => "the checkpoints' disk full for 6 s",
            Kind::DiskReadOnly => "the checkpoints' disk read-only at a start",
            Kind::BitFlipped => "a bit of the newest checkpoint flipped, SIGKILL",
            Kind::BadClocks => "records of 1970, of tomorrow and of 2100",
            Kind::OddSizes => "records of 0 B, of 10 MB, and without a value",
            Kind::OddNumbers => "NaN, 1e39 and text for a number",
            Kind::Transactions => "transactions, one of them taken back",
            Kind::OutputRefused => "the output topic refuses vectors for 6 s",
            Kind::SecondTrainer => "a second trainer on the same checkpoints",
            Kind::Idle => "nobody sends anything for 12 s",
            Kind::TopicAnew => "the topic deleted and made anew",
        }
    }
}

/// Everything around a trainer that can break.
pub(super) struct Scene<'s> {
    pub(super) cluster: &'s mut Cluster,
    pub(super) admin: AdminClient<DefaultClientContext>,
    pub(super) traffic: Traffic,
    pub(super) trainer: Trainer,
    pub(super) ledger: Ledger,
    pub(super) random: SplitMix,
    pub(super) topic: String,
    pub(super) output: String,
    pub(super) partitions: usize,
    pub(super) disk: PathBuf,
}

/// What comes after a fault that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The trainer goes on.
    Training,
    /// And writes a checkpoint.
    Checkpoint,
    /// And publishes.
    Publication,
    /// It has refused to go on, as it should.
    Refused,
}

/// A start, or a refusal to, takes no longer.
const REFUSAL: Duration = Duration::from_secs(90);
/// The README's promise of an end is 10 s; a busy machine may take a little longer.
pub(super) const END: Duration = Duration::from_secs(15);
const BURST: usize = 10;

pub(super) fn admin(brokers: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().context("no admin client")
}

/// Waits for the brokers' answer.
pub(super) fn block_on<T>(
    future: impl Future<Output = rdkafka::error::KafkaResult<T>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future)?)
}

pub(super) fn options() -> AdminOptions {
    let patience = Some(Duration::from_secs(60));
    AdminOptions::new().request_timeout(patience).operation_timeout(patience)
}

impl Scene<'_> {
    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound as u64) as usize
    }

    /// Breaks something, waits until it is over, and says what must follow.
    pub(super) fn inject(&mut self, kind: Kind) -> anyhow::Result<After> {
        match kind {
            Kind::TrainerKilled => {
                self.trainer.kill();
                self.trainer.launch()?;
            }
            Kind::TrainerEnded => {
                self.trainer.terminate(END)?;
                self.trainer.launch()?;
            }
            Kind::TrainerFrozen => {
                self.trainer.process()?.signal(libc::SIGSTOP)?;
                std::thread::sleep(Duration::from_secs(3));
                self.trainer.process()?.signal(libc::SIGCONT)?;
            }
            Kind::BrokerKilled => self.broker_ends(false, Duration::from_secs(2))?,
            Kind::LeadersMoved => self.broker_ends(true, Duration::ZERO)?,
            Kind::BrokerFrozen => {
                let broker = self.below(self.cluster.len());
                self.cluster.signal(broker, libc::SIGSTOP)?;
                std::thread::sleep(Duration::from_secs(12)); // longer than a broker's session
                self.cluster.signal(broker, libc::SIGCONT)?;
            }
            Kind::PartitionsAdded => self.add_partitions()?,
            Kind::Retention => self.delete_what_was_read()?,
            Kind::DiskFull => {
                fill_for_a_while(&self.disk, Duration::from_secs(6))?;
                return Ok(After::Checkpoint);
            }
            Kind::DiskReadOnly => self.start_read_only()?,
            Kind::BitFlipped => self.flip_a_bit()?,
            Kind::BadClocks | Kind::OddSizes | Kind::OddNumbers => self.send_odd(kind)?,
            Kind::Transactions => {
                let seed = self.random.next_u64();
                self.traffic.transactions(seed, 50)?;
            }
            Kind::OutputRefused => {
                self.limit_output("10")?;
                std::thread::sleep(Duration::from_secs(6));
                self.limit_output("1048588")?;
                return Ok(After::Publication);
            }
            Kind::SecondTrainer => {
                let second = self.trainer.spawn()?;
                refuses(second, &["is in use by process"], REFUSAL)?;
            }
            Kind::Idle => {
                self.traffic.pause(true);
                std::thread::sleep(Duration::from_secs(12));
                self.trainer.must_run()?;
                self.traffic.pause(false);
            }
            Kind::TopicAnew => {
                self.make_topic_anew()?;
                return Ok(After::Refused);
            }
        }
        Ok(After::Training)
    }

    fn broker_ends(&mut self, in_order: bool, away: Duration) -> anyhow::Result<()> {
        let broker = self.below(self.cluster.len());
        self.cluster.end(broker, in_order)?;
        std::thread::sleep(away);
        self.cluster.restart(broker)
    }

    fn add_partitions(&mut self) -> anyhow::Result<()> {
        self.partitions += 2;
        let grown = NewPartitions::new(&self.topic, self.partitions);
        let results = block_on(self.admin.create_partitions([&grown], &options()))?;
        ensure!(results.iter().all(Result::is_ok), "{results:?}");
        Ok(())
    }

    fn delete_what_was_read(&mut self) -> anyhow::Result<()> {
        let directory = self.disk.join("checkpoints");
        let all = checkpoints(&directory);
        let Some(oldest) = all.first() else { return Ok(()) };
        // Retention may take it meanwhile; a newer one has read as much.
        let oldest = match Checkpoint::open(oldest) {
            Err(_) if !oldest.exists() => return Ok(()),
            opened => opened?,
        };
        self.ledger.read()?; // Soon nobody can count them.
        let mut list = TopicPartitionList::new();
        for (partition, next) in oldest.manifest.offsets.iter() {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(next))?;
        }
        block_on(self.admin.delete_records(&list, &options()))?;
        Ok(())
    }

    fn start_read_only(&mut self) -> anyhow::Result<()> {
        self.trainer.kill();
        remount(&self.disk, "ro")?;
        let refused = self
            .trainer
            .spawn()
            .and_then(|process| refuses(process, &["Read-only", "cannot"], REFUSAL));
        remount(&self.disk, "rw")?;
        refused?;
        self.trainer.launch()
    }

    fn flip_a_bit(&mut self) -> anyhow::Result<()> {
        self.trainer.kill();
        if let [_, .., newest] = &checkpoints(&self.disk.join("checkpoints"))[..] {
            let mut files: Vec<PathBuf> = std::fs::read_dir(newest)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.metadata().is_ok_and(|file| file.len() > 0))
                .collect();
            files.sort();
            let file = files[self.below(files.len())].clone();
            let mut bytes = std::fs::read(&file)?;
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
            std::fs::write(&file, bytes)?;
        }
        self.trainer.launch()
    }

    fn send_odd(&mut self, kind: Kind) -> anyhow::Result<()> {
        let event = |price: &str, time_ms: i64| {
            format!("{{\"user\":\"u1\",\"item\":\"i1\",\"price\":{price},\"time_ms\":{time_ms}}}")
        };
        let now = now_ms();
        for _ in 0..BURST {
            match kind {
                Kind::BadClocks => {
                    self.traffic.send(Some(event("1", 5_000).as_bytes()), false)?;
                    self.traffic.send(Some(event("1", now + 36_000_000).as_bytes()), false)?;
                    self.traffic.send(Some(event("1", 4_102_444_800_000).as_bytes()), true)?;
                }
                Kind::OddNumbers => {
                    self.traffic.send(Some(event("NaN", now).as_bytes()), true)?;
                    self.traffic.send(Some(event("1e39", now).as_bytes()), true)?;
                    self.traffic.send(Some(event("\"dear\"", now).as_bytes()), true)?;
                }
                _ => {
                    self.traffic.send(Some(b""), true)?;
                    self.traffic.send(None, true)?;
                }
            }
        }
        if kind == Kind::OddSizes {
            self.traffic.send(Some(&vec![b'x'; 10 << 20]), true)?;
        }
        Ok(())
    }

    fn limit_output(&mut self, bytes: &str) -> anyhow::Result<()> {
        let topic = ResourceSpecifier::Topic(&self.output);
        let change = AlterConfig::new(topic).set("max.message.bytes", bytes);
        let change = change.set("cleanup.policy", "compact");
        let results = block_on(self.admin.alter_configs([&change], &options()))?;
        ensure!(results.iter().all(Result::is_ok), "{results:?}");
        Ok(())
    }

    fn make_topic_anew(&mut self) -> anyhow::Result<()> {
        let results = block_on(self.admin.delete_topics(&[&self.topic], &options()))?;
        ensure!(results.iter().all(Result::is_ok), "{results:?}");
        super::create(&self.admin, &self.topic, self.partitions, &[])?;
        let words = ["anew", "lost its partitions"];
        self.trainer.must_refuse(&words, REFUSAL)
    }
}
