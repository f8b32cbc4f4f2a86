//! Three brokers of Apache Kafka that are each controllers too, as processes of ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::process::signal;

/// A broker on two busy cores begins within this, or never.
const PATIENCE: Duration = Duration::from_secs(120);
const BROKERS: usize = 3;
/// Any 16 bytes will do: the cluster is thrown away.
const CLUSTER: &str = "bWlsbHJhY2UtZmF1bHRzMQ";

/// The cluster. Its brokers are killed when this is dropped.
pub(super) struct Cluster {
    directory: PathBuf,
    jars: PathBuf,
    port: u16,
    brokers: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts three brokers, whose ports begin at `port` and whose data lie in `directory`.
    pub(super) fn start(directory: &Path, port: u16) -> anyhow::Result<Cluster> {
        let jars = jars()?;
        let brokers = (0..BROKERS).map(|_| None).collect();
        let mut cluster = Cluster { directory: directory.to_owned(), jars, port, brokers };
        for broker in 0..BROKERS {
            cluster.format(broker)?;
        }
        for broker in 0..BROKERS {
            cluster.launch(broker)?;
        }
        cluster.wait_for(BROKERS)?;
        Ok(cluster)
    }

    /// Bootstrap servers.
    pub(super) fn brokers(&self) -> String {
        let address = |broker| format!("127.0.0.1:{}", self.port + broker as u16);
        (0..BROKERS).map(address).collect::<Vec<_>>().join(",")
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.brokers.len()
    }

    /// Sends a broker a signal.
    pub(super) fn signal(&self, broker: usize, number: i32) -> anyhow::Result<()> {
        signal(self.brokers[broker].as_ref().context("it does not run")?, number)
    }

    /// Ends a broker at once, or in order (its leaders move first).
    pub(super) fn end(&mut self, broker: usize, in_order: bool) -> anyhow::Result<()> {
        let Some(mut child) = self.brokers[broker].take() else { return Ok(()) };
        signal(&child, if in_order { libc::SIGTERM } else { libc::SIGKILL })?;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts a broker again, and waits until the cluster is whole.
    pub(super) fn restart(&mut self, broker: usize) -> anyhow::Result<()> {
        self.launch(broker)?;
        self.wait_for(BROKERS)
    }

    fn file(&self, broker: usize, name: &str) -> PathBuf {
        self.directory.join(format!("broker-{broker}.{name}"))
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xms96m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        java.arg(self.jars.join("*")).stdin(Stdio::null());
        java
    }

    fn format(&self, broker: usize) -> anyhow::Result<()> {
        let settings = self.file(broker, "properties");
        std::fs::write(&settings, self.settings(broker))?;
        let mut format = self.java();
        format.args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config"]);
        let output = format.arg(&settings).output().context("java cannot be run")?;
        ensure!(
            output.status.success(),
            "a broker's storage cannot be formatted:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn settings(&self, broker: usize) -> String {
        let port = self.port + broker as u16;
        let controller = |broker: usize| self.port + 100 + broker as u16;
        let voters: Vec<String> = (0..BROKERS)
            .map(|broker| format!("{}@127.0.0.1:{}", broker + 1, controller(broker)))
            .collect();
        format!(
            "process.roles=broker,controller\n\
             node.id={}\n\
             controller.quorum.voters={}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             default.replication.factor=3\n\
             min.insync.replicas=2\n\
             offsets.topic.replication.factor=3\n\
             offsets.topic.num.partitions=3\n\
             transaction.state.log.replication.factor=3\n\
             transaction.state.log.min.isr=2\n\
             transaction.state.log.num.partitions=3\n\
             message.max.bytes=12582912\n\
             replica.fetch.max.bytes=12582912\n\
             log.retention.ms=-1\n\
             num.network.threads=2\n\
             num.io.threads=2\n\
             background.threads=2\n\
             log.cleaner.dedupe.buffer.size=16777216\n",
            broker + 1,
            voters.join(","),
            controller(broker),
            self.file(broker, "data").display(),
        )
    }

    fn launch(&mut self, broker: usize) -> anyhow::Result<()> {
        let log = File::create(self.file(broker, "log"))?;
        let mut java = self.java();
        java.arg("kafka.Kafka").arg(self.file(broker, "properties"));
        java.stdout(log.try_clone()?).stderr(log);
        self.brokers[broker] = Some(java.spawn().context("java cannot be run")?);
        Ok(())
    }

    /// Waits until so many brokers are part of the cluster.
    fn wait_for(&mut self, count: usize) -> anyhow::Result<()> {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.brokers()).create()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = client.fetch_metadata(None, Duration::from_secs(2));
            let known = answer.map_or(0, |metadata| metadata.brokers().len());
            if known >= count {
                return Ok(());
            }
            for (number, broker) in self.brokers.iter_mut().enumerate() {
                if let Some(child) = broker
                    && let Some(status) = child.try_wait()?
                {
                    bail!("broker {number} has ended ({status}); see {:?}", self.directory);
                }
            }
            ensure!(Instant::now() < deadline, "{known} of {count} brokers after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for broker in self.brokers.iter_mut().flatten() {
            // A stopped process takes this signal too. One that has ended already is as good.
            broker.kill().and_then(|()| broker.wait()).ok();
        }
    }
}

/// The directory with Kafka's jars, which scripts/kafka fetches.
fn jars() -> anyhow::Result<PathBuf> {
    let root = match std::env::var_os("MILLRACE_KAFKA_DIR") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(std::env::var_os("HOME").context("no HOME")?)
            .join(".cache/millrace/kafka"),
    };
    let newest = || -> Option<PathBuf> {
        let entries = std::fs::read_dir(&root).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        entries.filter(|path| path.join(".complete").exists()).max()
    };
    if let Some(jars) = newest() {
        return Ok(jars);
    }
    for arguments in [["start", "--port", "19990"], ["stop", "--port", "19990"]] {
        let status =
            Command::new("scripts/kafka").args(arguments).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "scripts/kafka cannot fetch Kafka; its message is above");
    }
    newest().context("scripts/kafka left no jars")
}
