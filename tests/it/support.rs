//! A broker, topics of one's own, the binary, and synthetic events.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millrace::synthetic::{World, WorldSettings};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

/// Nothing that a test waits for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Bootstrap servers of a real Kafka, started if need be.
pub(crate) fn brokers() -> &'static str {
    static BROKERS: OnceLock<String> = OnceLock::new();
    BROKERS.get_or_init(|| started("MILLRACE_TEST_BROKERS", &["start", "--port", "19092"]))
}

/// Bootstrap servers of a Kafka that asks who a client is, as `scripts/kafka` explains; started if
/// need be. The listeners with TLS and SASL are on the ports that follow.
pub(crate) fn secured_brokers() -> &'static str {
    static BROKERS: OnceLock<String> = OnceLock::new();
    let start = ["start", "--secured", "--port", "19192"];
    BROKERS.get_or_init(|| started("MILLRACE_TEST_SECURED_BROKERS", &start))
}

/// The brokers that `variable` names, else those that scripts/kafka starts.
fn started(variable: &str, start: &[&str]) -> String {
    if let Ok(brokers) = std::env::var(variable) {
        return brokers;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
    let output = Command::new(script)
        .args(start)
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/kafka can be run");
    assert!(output.status.success(), "scripts/kafka start failed; see its message above");
    let text = String::from_utf8(output.stdout).expect("an address");
    text.lines().last().expect("an address").to_owned()
}

/// Topics with a name of their own, and a directory, for one test.
pub(crate) struct Bench {
    brokers: &'static str,
    pub(crate) topic: String,
    pub(crate) directory: tempfile::TempDir,
    config: PathBuf,
}

impl Bench {
    /// A bench for `config` (a file in config/), its topics created with `partitions`.
    pub(crate) fn new(config: &str, partitions: i32) -> Self {
        Self::on(brokers(), config, partitions)
    }

    /// As [`Bench::new`], on other brokers.
    pub(crate) fn on(brokers: &'static str, config: &str, partitions: i32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let topic = format!("it-{}-{number}", std::process::id());
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(config);
        let directory = tempfile::tempdir().expect("a directory");
        let bench = Self { brokers, topic, directory, config };
        for (name, partitions) in [
            (bench.topic.clone(), partitions),
            (bench.dead(), 1),
            (format!("{}-out", bench.topic), 1),
            (format!("{}-versions", bench.topic), 1),
        ] {
            create_topic_on(brokers, &name, partitions, None);
        }
        bench
    }

    pub(crate) fn dead(&self) -> String {
        format!("{}-dead", self.topic)
    }

    pub(crate) fn checkpoints(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `millrace COMMAND --config .. --set ..`, its checkpoints under `name`.
    pub(crate) fn command(&self, command: &str, name: &str, sets: &[&str]) -> Command {
        self.command_of(&self.config, command, name, sets)
    }

    /// The same with another config.
    pub(crate) fn command_of(
        &self,
        config: &Path,
        command: &str,
        name: &str,
        sets: &[&str],
    ) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_millrace"));
        process.arg(command).arg("--config").arg(config);
        let own = [
            format!("kafka.brokers={}", self.brokers),
            format!("kafka.topic={}", self.topic),
            format!("kafka.dead_letter_topic={}", self.dead()),
            format!("publish.topic={}-out", self.topic),
            format!("publish.versions_topic={}-versions", self.topic),
            format!("checkpoint.directory={}", self.checkpoints(name).display()),
            "http.listen=".to_owned(),
            "device=cpu".to_owned(),
        ];
        for set in own.iter().map(String::as_str).chain(sets.iter().copied()) {
            process.arg("--set").arg(set);
        }
        process
    }

    /// Sends a file with `produce`.
    pub(crate) fn produce(&self, file: &Path) -> Value {
        let mut command = self.command("produce", "none", &[]);
        command.arg(file);
        json(&mut command)
    }

    /// Sends synthetic events of config/demo.toml's shape.
    pub(crate) fn produce_synthetic(&self, events: usize, seed: u64) {
        println!("synthetic stream of {events} events, seed {seed}");
        let path = self.directory.path().join("events.jsonl");
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
        for line in synthetic(events, seed) {
            writeln!(file, "{line}").expect("written");
        }
        file.flush().expect("written");
        drop(file);
        assert_eq!(self.produce(&path)["lines"], events);
    }
}

/// Creates a topic, with one setting of its own if given.
pub(crate) fn create_topic(name: &str, partitions: i32, setting: Option<(&str, &str)>) {
    create_topic_on(brokers(), name, partitions, setting);
}

fn create_topic_on(brokers: &str, name: &str, partitions: i32, setting: Option<(&str, &str)>) {
    let admin: AdminClient<DefaultClientContext> =
        client_of(brokers).create().expect("an admin client");
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    if let Some((key, value)) = setting {
        topic = topic.set(key, value);
    }
    let created = admin.create_topics([&topic], &AdminOptions::new());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let results = runtime.block_on(created).expect("the broker answers");
    results.into_iter().for_each(|result| {
        result.expect("the topic is created");
    });
}

/// JSON lines of config/demo.toml's shape.
pub(crate) fn synthetic(events: usize, seed: u64) -> impl Iterator<Item = String> {
    let mut world = World::new(WorldSettings {
        queries: 400,
        items: 300,
        dim: 6,
        taste: 4.0,
        skew: 1.0,
        drift: 0.5,
        period: 1_000_000,
        seed,
    });
    (0..events).map(move |event| {
        let drawn = world.draw();
        world.line(drawn, 1_700_000_000_000 + event as u64)
    })
}

/// The client settings every test client shares.
pub(crate) fn client() -> ClientConfig {
    client_of(brokers())
}

/// As [`client`], of other brokers.
pub(crate) fn client_of(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "millrace-it")
        .set("message.max.bytes", "10485760");
    config
}

/// Sends raw payloads (`None`: a tombstone) to partition 0 of `topic`.
pub(crate) fn send(topic: &str, payloads: &[Option<&[u8]>]) {
    let producer: ThreadedProducer<_> = client().create().expect("a producer");
    for payload in payloads {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0);
        record.payload = *payload;
        let mut pending = Some(record);
        while let Some(record) = pending.take() {
            if let Err((_, returned)) = producer.send(record) {
                producer.flush(PATIENCE).expect("the broker takes records");
                pending = Some(returned);
            }
        }
    }
    producer.flush(PATIENCE).expect("the broker takes records");
}

/// Every record of partition 0 of `topic`.
pub(crate) fn records(topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = client()
        .set("enable.partition.eof", "true")
        .set("fetch.message.max.bytes", "10485760")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("a partition");
    consumer.assign(&assignment).expect("assigned");
    let mut records = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("the broker answers") {
            Err(KafkaError::PartitionEOF(_)) => return records,
            Err(error) => panic!("{error}"),
            Ok(record) => records.push(record.detach()),
        }
    }
}

/// Runs to the end, expects success, and parses the JSON on stdout.
pub(crate) fn json(command: &mut Command) -> Value {
    let output = command.arg("--json").output().expect("millrace can be run");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{log}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{log}"))
}

/// Runs to the end; exit status and log.
pub(crate) fn run_to_end(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("millrace can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Status line and body of a GET.
pub(crate) fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: millrace\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("an answer");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// `inspect --json` of a checkpoint.
pub(crate) fn inspect(path: &Path) -> Value {
    json(Command::new(env!("CARGO_BIN_EXE_millrace")).arg("inspect").arg(path))
}

/// The newest checkpoint's step, by the directory's names alone.
pub(crate) fn newest_step(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).max().unwrap_or(0)
}

/// A file of `../shared/data`, or `None` with the reason printed.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MILLRACE_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there (real data is not in the repository)", path.display());
    None
}

/// A Python that has these packages: that of `MILLRACE_TEST_PYTHON`, or the one on the path. `None`
/// with the reason printed.
pub(crate) fn python(packages: &[&str]) -> Option<PathBuf> {
    let python = std::env::var_os("MILLRACE_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let imports = format!("import {}", packages.join(", "));
    let output = Command::new(&python).args(["-c", &imports]).output();
    if output.is_ok_and(|output| output.status.success()) {
        return Some(python.into());
    }
    println!("skipped: {} has not all of {packages:?}", python.display());
    None
}

/// Waits until it is so.
pub(crate) fn eventually(what: &str, holds: &mut dyn FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process in the background whose log can be waited on. Killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("millrace can be run");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The first log line (from now on) that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {text:?} in:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Kills it once `directory` has a checkpoint of `step` or of a later one; the newest one then.
    pub(crate) fn kill_past(mut self, directory: &Path, step: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        while newest_step(directory) < step && self.child.try_wait().expect("ours").is_none() {
            assert!(Instant::now() < deadline, "no checkpoint at or past step {step}");
            std::thread::yield_now();
        }
        drop(self); // SIGKILL
        newest_step(directory)
    }

    /// Waits for a checkpoint of this step, or of a later one, and returns its step.
    pub(crate) fn wait_for_step(&mut self, step: u64) -> u64 {
        loop {
            let line = self.wait_for("checkpoint step=");
            let (_, at) = line.split_once("step=").expect("it is there");
            let digits: String = at.chars().take_while(char::is_ascii_digit).collect();
            let reached = digits.parse().expect("a number");
            if reached >= step {
                return reached;
            }
        }
    }

    /// The lines that nobody waited for, once the process has ended.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill can be run").success());
    }

    /// Waits for the end and returns how long it took with the exit status.
    pub(crate) fn wait(&mut self) -> (Duration, std::process::ExitStatus) {
        let began = Instant::now();
        let status = self.child.wait().expect("the process ends");
        (began.elapsed(), status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().expect("a running process can be killed");
            self.child.wait().expect("a killed process ends");
        }
    }
}
