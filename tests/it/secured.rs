//! Does it speak to a Kafka that asks who it is, and does it say what is missing? Real listeners
//! with TLS and SASL, real certificates, a real authorizer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::rights::{Right, allow, forbid};
use crate::support::{Bench, PATIENCE, Running, client_of, inspect, json, secured_brokers};

/// A run that is refused at its start ends within this, on a busy machine too.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);
/// A run that is refused may say so a few times before it ends, not more.
const LOG_LINES_MAX: usize = 25;

/// Listeners, by the distance of their port.
const SASL: u16 = 1;
const TLS: u16 = 2;
const SASL_TLS: u16 = 3;
const EXPIRED: u16 = 4;
const ELSEWHERE: u16 = 5;

fn port(listener: u16) -> u16 {
    let (_, port) = secured_brokers().rsplit_once(':').expect("host:port");
    port.parse::<u16>().expect("a port") + listener
}

/// A file that the secured broker's start has made.
fn tls(file: &str) -> String {
    let root = std::env::var_os("MILLRACE_KAFKA_DIR").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("a home")).join(".cache/millrace/kafka"),
        PathBuf::from,
    );
    root.join(port(0).to_string()).join("tls").join(file).display().to_string()
}

/// `--set` values of a client of `listener`.
fn to(listener: u16, properties: &[(&str, &str)]) -> Vec<String> {
    let protocol = match listener {
        SASL => "SASL_PLAINTEXT",
        SASL_TLS => "SASL_SSL",
        _ => "SSL",
    };
    let mut sets = vec![
        format!("kafka.brokers=localhost:{}", port(listener)),
        format!("kafka.properties.security.protocol={protocol}"),
        // Where localhost has an IPv6 address, too, the broker does not listen on it.
        "kafka.properties.broker.address.family=v4".to_owned(),
    ];
    if listener != SASL {
        sets.push(format!("kafka.properties.ssl.ca.location={}", tls("ca.crt")));
    }
    let property = |(key, value): &(&str, &str)| format!("kafka.properties.{key}={value}");
    sets.extend(properties.iter().map(property));
    sets
}

/// As [`to`], for a user with a password, which comes by the environment.
fn as_user(listener: u16, mechanism: &str, user: &str) -> Vec<String> {
    let password = ("sasl.password", "env:MILLRACE_TEST_PASSWORD");
    to(listener, &[("sasl.mechanism", mechanism), ("sasl.username", user), password])
}

struct Room {
    bench: Bench,
}

impl Room {
    fn new() -> Room {
        Room { bench: Bench::on(secured_brokers(), "demo.toml", 1) }
    }

    fn command(&self, command: &str, name: &str, user: &str, sets: &[&[String]]) -> Command {
        let sets: Vec<&str> =
            sets.iter().flat_map(|sets| sets.iter().map(String::as_str)).collect();
        let mut command = self.bench.command(command, name, &sets);
        command.env("MILLRACE_TEST_PASSWORD", format!("{user}-secret"));
        command
    }

    fn group(&self) -> String {
        format!("{}-group", self.bench.topic)
    }

    fn output(&self) -> [String; 2] {
        ["out", "versions"].map(|name| format!("{}-{name}", self.bench.topic))
    }

    /// What docs/how-to/secure-kafka.md says that a trainer needs.
    fn allow_all(&self, user: &str) {
        let (dead, group, [out, versions]) = (self.bench.dead(), self.group(), self.output());
        let writes = [&dead, &out, &versions].map(|topic| Right::Write(topic));
        allow(secured_brokers(), user, &writes);
        let reads = [&self.bench.topic, &out, &versions].map(|topic| Right::Read(topic));
        allow(secured_brokers(), user, &reads);
        let id = self.transactions();
        allow(secured_brokers(), user, &[Right::Commit(&group), Right::Transact(&id)]);
    }

    /// The name of the publisher's transactions.
    fn transactions(&self) -> String {
        let [out, _] = self.output();
        format!("millrace-{out}")
    }
}

/// A command that runs in the background, its log in a file.
struct Refused {
    child: Child,
    log: PathBuf,
    began: Instant,
    parts: Vec<String>,
}

impl Refused {
    fn start(room: &Room, name: &str, command: &mut Command, parts: &[&str]) -> Refused {
        let log = room.bench.directory.path().join(format!("{name}.log"));
        let file = File::create(&log).expect("a file");
        let child = command.stdout(Stdio::null()).stderr(file).spawn().expect("it can be run");
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        Refused { child, log, began: Instant::now(), parts }
    }

    /// Waits for the end: exit status 1, in time, with one message that says what to do.
    fn check(mut self) -> String {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            if self.began.elapsed() > REFUSED_WITHIN {
                self.child.kill().expect("it runs");
                panic!("it hangs:\n{}", fs::read_to_string(&self.log).expect("a log"));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let log = fs::read_to_string(&self.log).expect("a log");
        let name = self.log.file_stem().expect("a name").display();
        println!("{name}: {status} after {:?}\n{log}", self.began.elapsed());
        assert_eq!(status.code(), Some(1), "{name}");
        let errors: Vec<&str> = log.lines().filter(|line| line.starts_with("error: ")).collect();
        let [message] = errors.as_slice() else { panic!("{name}: one message:\n{log}") };
        for part in &self.parts {
            assert!(message.contains(part), "{name}: no {part:?} in: {message}");
        }
        assert!(!log.contains("panicked") && !log.contains("backtrace"), "{name}:\n{log}");
        assert!(log.lines().count() <= LOG_LINES_MAX, "{name} floods its log:\n{log}");
        assert!(!log.contains("-secret"), "{name} shows a password:\n{log}");
        log
    }
}

#[test]
fn the_right_credentials_train_end_to_end() {
    let certificate = to(
        TLS,
        &[
            ("ssl.certificate.location", &tls("client.crt")),
            ("ssl.key.location", &tls("client.key")),
        ],
    );
    let ways = [
        ("User:trainer", as_user(SASL, "PLAIN", "trainer")),
        ("User:trainer", as_user(SASL, "SCRAM-SHA-256", "trainer")),
        ("User:trainer", as_user(SASL_TLS, "SCRAM-SHA-512", "trainer")),
        ("User:CN=client", certificate),
    ];
    let room = Room::new();
    let events = 3_000;
    room.bench.produce_synthetic(events, 31);
    for (number, (user, sets)) in ways.iter().enumerate() {
        room.allow_all(user);
        let group = [format!("kafka.group={}", room.group())];
        let name = number.to_string();
        let mut replay = room.command("replay", &name, "trainer", &[sets, &group]);
        let run = json(replay.arg("--publish").arg("--fresh"));
        assert_eq!(run["trained"], events, "{sets:?}");
        assert!(run["published"].as_u64() > Some(100), "{run}");
    }
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let room = Room::new();
    let none: &[String] = &[];
    let cases: [(&str, &str, Vec<String>, &[&str]); 9] = [
        (
            "wrong-password-plain",
            "nobody",
            as_user(SASL, "PLAIN", "trainer"),
            &["do not accept the credentials", "\"sasl.password\""],
        ),
        (
            "wrong-password-scram",
            "nobody",
            as_user(SASL_TLS, "SCRAM-SHA-256", "trainer"),
            &["do not accept the credentials", "\"sasl.password\""],
        ),
        ("unknown-mechanism", "trainer", as_user(SASL, "SCRAM-SHA-1", "trainer"), &["sasl.mech"]),
        ("expired", "trainer", to(EXPIRED, &[]), &["has expired", "renew it"]),
        ("another-host", "trainer", to(ELSEWHERE, &[]), &["for another host", "kafka.brokers"]),
        (
            "unknown-authority",
            "trainer",
            to(TLS, &[("ssl.ca.location", &tls("elsewhere.crt"))]),
            &["not signed by an authority known here", "ssl.ca.location"],
        ),
        (
            "no-tls-on-a-tls-port",
            "trainer",
            to(TLS, &[("security.protocol", "PLAINTEXT")]),
            &["closed by peer", "\"security.protocol\""],
        ),
        (
            "tls-on-a-port-without",
            "trainer",
            to(SASL, &[("security.protocol", "SSL"), ("ssl.ca.location", &tls("ca.crt"))]),
            &["\"security.protocol\""],
        ),
        (
            "no-right-to-the-topic",
            "stranger",
            as_user(SASL, "PLAIN", "stranger"),
            &["do not allow this client to read topic", "--operation Read --topic"],
        ),
    ];
    let started: Vec<Refused> = cases
        .iter()
        .map(|(name, user, sets, parts)| {
            let mut train = room.command("train", name, user, &[sets, none]);
            Refused::start(&room, name, &mut train, parts)
        })
        .collect();
    for refused in started {
        refused.check();
    }
}

/// Each right that is missing is named, with the command that gives it.
#[test]
fn a_missing_right_is_named() {
    let room = Room::new();
    let (brokers, topic, dead) = (secured_brokers(), &room.bench.topic, room.bench.dead());
    room.bench.produce_synthetic(2_000, 32);
    let producer: ThreadedProducer<_> = client_of(brokers).create().expect("a producer");
    producer.send(BaseRecord::<[u8], _>::to(topic).payload("no JSON")).expect("queued");
    producer.flush(PATIENCE).expect("delivered");
    // Whoever may write may also look, and no more.
    allow(brokers, "User:writer", &[Right::Write(topic), Right::Write(&dead)]);
    allow(brokers, "User:reader", &[Right::Read(topic)]);
    // No rights to the outputs: may write elsewhere, so that idempotence is no question.
    allow(brokers, "User:trainer", &[Right::Read(topic), Right::Write(&dead)]);
    let quiet = ["kafka.group=".to_owned()];
    let ([out, versions], id) = (room.output(), room.transactions());
    let markers = [Right::Read(&versions), Right::Write(&versions)];
    allow(brokers, "User:publisher", &[Right::Read(topic), Right::Write(&dead)]);
    allow(brokers, "User:publisher", &markers);
    allow(brokers, "User:sender", &[Right::Read(topic), Right::Write(&dead), Right::Read(&out)]);
    allow(brokers, "User:sender", &markers);
    allow(brokers, "User:sender", &[Right::Transact(&id)]);
    let plain = |user: &str| as_user(SASL, "PLAIN", user);
    let cases = [
        ("read", "writer", "train", format!("--operation Read --topic {topic}")),
        ("letters", "reader", "replay", format!("--operation Write --topic {dead}")),
        ("markers", "trainer", "publishing replay", format!("--operation Read --topic {versions}")),
        (
            "transactions",
            "publisher",
            "publishing replay",
            format!("--operation Write --transactional-id {id}"),
        ),
        ("vectors", "sender", "publishing replay", format!("--operation Write --topic {out}")),
    ];
    let started: Vec<Refused> = cases
        .iter()
        .map(|(name, user, command, part)| {
            let publishes = command.strip_prefix("publishing ");
            let command = publishes.unwrap_or(command);
            let mut process = room.command(command, name, user, &[&plain(user), &quiet]);
            if publishes.is_some() {
                process.arg("--publish");
            }
            Refused::start(&room, name, &mut process, &[part])
        })
        .collect();
    for refused in started {
        refused.check();
    }
}

/// Offsets in Kafka only feed dashboards.
#[test]
fn a_group_that_is_not_allowed_is_a_warning() {
    let room = Room::new();
    let topic = &room.bench.topic;
    room.bench.produce_synthetic(3_000, 33);
    allow(secured_brokers(), "User:reader", &[Right::Read(topic)]);
    let sets = [
        format!("kafka.group={}", room.group()),
        "publish.topic=".to_owned(),
        "checkpoint.every_steps=1".to_owned(),
    ];
    let user = as_user(SASL, "SCRAM-SHA-256", "reader");
    let mut run = Running::start(&mut room.command("train", "run", "reader", &[&user, &sets]));
    let warning = run.wait_for("offsets are not committed");
    let grant = format!("--operation Read --group {}", room.group());
    for part in ["WARN", &grant, "kafka.group = \"\""] {
        assert!(warning.contains(part), "no {part} in {warning}");
    }
    run.wait_for_step(2);
    run.signal("-TERM");
    let (took, status) = run.wait();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(15), "a stop takes {took:?}");
    let said = run.rest().iter().filter(|line| line.contains("not committed")).count();
    assert_eq!(said, 0, "it is said once");
}

/// Rights may be taken and given while it runs: it waits, says so, and goes on.
#[test]
fn a_refusal_that_passes_does_not_end_the_run() {
    let room = Room::new();
    let (brokers, topic) = (secured_brokers(), &room.bench.topic);
    room.bench.produce_synthetic(2_000, 34);
    let right = [Right::Read(topic)];
    allow(brokers, "User:reader", &right);
    let sets = ["kafka.group=", "publish.topic=", "checkpoint.every_steps=1"].map(str::to_owned);
    let user = as_user(SASL, "PLAIN", "reader");
    let mut run = Running::start(&mut room.command("train", "run", "reader", &[&user, &sets]));
    let step = run.wait_for_step(2);
    forbid(brokers, "User:reader", &right);
    run.wait_for("Topic authorization failed");
    room.bench.produce_synthetic(2_000, 35);
    allow(brokers, "User:reader", &right);
    run.wait_for_step(step + 1);
    run.signal("-TERM");
    assert!(run.wait().1.success());
}

/// A password is in no file, no log and no answer.
#[test]
fn a_password_is_nowhere() {
    const SECRET: &str = "trainer-secret";
    let room = Room::new();
    room.allow_all("User:trainer");
    room.bench.produce_synthetic(3_000, 36);
    let group = [
        format!("kafka.group={}", room.group()),
        "checkpoint.every_steps=1".to_owned(),
        "publish.every_checkpoints=1".to_owned(),
    ];
    let user = as_user(SASL, "SCRAM-SHA-512", "trainer");
    let run = |command: &str, extra: &[&str]| {
        let mut command = room.command(command, "run", "trainer", &[&user, &group]);
        let output = command.args(extra).env("RUST_LOG", "debug").output().expect("it can be run");
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
        String::from_utf8_lossy(&text).into_owned()
    };
    let checkpoints = room.bench.checkpoints("run");
    let mut said = run("replay", &["--publish"]);
    said += &run("check", &["--connect"]);
    said += &run("check", &["--connect", "--json"]);
    said += &inspect(&checkpoints).to_string();
    let mut shown = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let shown = shown.arg("inspect").arg(&checkpoints).arg("--config").output().expect("it runs");
    said += &String::from_utf8_lossy(&shown.stdout);
    let looked = ["checkpoint step=", "[kafka]", "\"findings\"", "config_digest"];
    looked
        .iter()
        .for_each(|part| assert!(said.contains(part), "{part}: nothing was looked through"));
    assert!(!said.contains(SECRET), "{said}");
    let mut folders = vec![checkpoints];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).expect("a file");
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{}", path.display());
            files += 1;
        }
    }
    assert!(files > 5, "there are checkpoints");
}

/// What `check --connect` tells, by subject.
fn check(room: &Room, user: &str, sets: &[&[String]], status: i32) -> serde_json::Value {
    let mut command = room.command("check", "none", user, sets);
    let output = command.args(["--connect", "--json"]).output().expect("it can be run");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{log}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(told["ok"], status == 0, "{told}");
    println!("{told:#}");
    told
}

/// The texts of findings that are no `ok`, with their weights and subjects.
fn findings(told: &serde_json::Value) -> Vec<[&str; 3]> {
    let all = told["findings"].as_array().expect("findings").iter();
    let all = all.map(|finding| {
        ["weight", "subject", "text"].map(|key| finding[key].as_str().expect("a text"))
    });
    all.filter(|[weight, ..]| *weight != "ok").collect()
}

#[test]
fn check_connect_finds_what_a_run_would_meet() {
    let room = Room::new();
    let (brokers, topic, dead) = (secured_brokers(), &room.bench.topic, room.bench.dead());
    let [out, versions] = room.output();
    let group = [format!("kafka.group={}", room.group())];
    let plain = |user: &str| as_user(SASL, "PLAIN", user);
    room.bench.produce_synthetic(200, 37);
    let producer: ThreadedProducer<_> = client_of(brokers).create().expect("a producer");
    for number in 0..3 {
        let payload = format!("no JSON {number}");
        producer.send(BaseRecord::<[u8], _>::to(topic).payload(&payload)).expect("queued");
    }
    producer.flush(PATIENCE).expect("delivered");

    // Everything is allowed; the output topic is not compacted.
    room.allow_all("User:trainer");
    let told = check(&room, "trainer", &[&plain("trainer"), &group], 0);
    let subjects: Vec<[&str; 2]> =
        findings(&told).iter().map(|[weight, subject, _]| [*weight, *subject]).collect();
    let vectors = format!("topic `{out}`");
    assert_eq!(subjects, [["warning", &vectors], ["warning", "sample"]]);
    let sample = &told["sample"];
    assert_eq!(
        (sample["accepted"].as_u64(), sample["rejected"]["not_json"]["count"].as_u64()),
        (Some(97), Some(3))
    );
    let example = sample["rejected"]["not_json"]["example"].as_str().expect("an example");
    assert!(example.contains("offset 200") && example.contains("no JSON 0"), "{example}");

    // A sample of the bad ones alone would stop a run.
    let mut command = room.command("check", "none", "trainer", &[&plain("trainer"), &group]);
    let output = command.args(["--connect", "--sample", "4"]).output().expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAULT    sample: 1 of the newest 4 records"), "{text}");

    // Only to read: neither letters nor outputs nor the group.
    allow(brokers, "User:reader", &[Right::Read(topic)]);
    let told = check(&room, "reader", &[&plain("reader"), &group], 1);
    let found = findings(&told);
    for name in [&dead, &out, &versions] {
        let subject = format!("topic `{name}`");
        let grant = format!("--operation Write --topic {name}");
        let hit = |finding: &&[&str; 3]| finding[1] == subject && finding[2].contains(&grant);
        assert_eq!(found.iter().find(hit).expect("it is found")[0], "fault", "{name}");
    }
    let subject = format!("group `{}`", room.group());
    let hit = found.iter().find(|finding| finding[1] == subject).expect("it is found");
    assert_eq!(hit[0], "warning", "{hit:?}");

    // Topics that are not there, for one who may see everything.
    let missing = [
        format!("kafka.brokers={brokers}"),
        format!("kafka.topic={topic}-none"),
        format!("kafka.dead_letter_topic={topic}-none-dead"),
        "publish.topic=".to_owned(),
    ];
    let told = check(&room, "trainer", &[&missing], 1);
    let found = findings(&told);
    let creations: Vec<bool> =
        found.iter().map(|finding| finding[2].contains("--create")).collect();
    assert_eq!(creations, [true, true], "{found:?}");

    // A password that is wrong: the run's own message.
    let mut command = room.command("check", "none", "nobody", &[&plain("trainer"), &group]);
    let output = command.arg("--connect").output().expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("do not accept the credentials"), "{text}");
}

/// A token without a signature, as the test broker takes them.
#[cfg(feature = "oidc")]
fn token(user: &str) -> String {
    let base64 = |text: &str| {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: String = text.bytes().map(|byte| format!("{byte:08b}")).collect();
        let sixes = bits.as_bytes().chunks(6).map(|six| {
            let six = format!("{:0<6}", str::from_utf8(six).expect("digits"));
            LETTERS[usize::from_str_radix(&six, 2).expect("binary")] as char
        });
        sixes.collect::<String>()
    };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = since.expect("after 1970").as_secs();
    let claims = format!(r#"{{"sub":"{user}","iat":{now},"exp":{}}}"#, now + 3600);
    format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(&claims))
}

/// Answers every request for a token of `user`; its address.
#[cfg(feature = "oidc")]
fn identity_provider(user: &'static str) -> String {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).expect("a header") <= 2 {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("a body");
            let answer = format!(
                r#"{{"access_token":"{}","token_type":"Bearer","expires_in":3600}}"#,
                token(user)
            );
            write!(
                stream.get_mut(),
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{answer}",
                answer.len()
            )
            .expect("sent");
        }
    });
    format!("http://{address}/token")
}

#[cfg(feature = "oidc")]
#[test]
fn a_token_of_an_identity_provider_is_a_credential() {
    let room = Room::new();
    room.bench.produce_synthetic(2_000, 38);
    room.allow_all("User:trainer");
    let endpoint = identity_provider("trainer");
    let oidc = |endpoint: &str| {
        to(
            SASL,
            &[
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                ("sasl.oauthbearer.client.id", "millrace"),
                ("sasl.oauthbearer.client.secret", "env:MILLRACE_TEST_PASSWORD"),
                ("sasl.oauthbearer.token.endpoint.url", endpoint),
            ],
        )
    };
    let group = [format!("kafka.group={}", room.group())];
    let mut replay = room.command("replay", "run", "trainer", &[&oidc(&endpoint), &group]);
    assert_eq!(json(replay.arg("--publish"))["trained"], 2_000);
    // Without a provider there is no token, and without a token nothing.
    let nobody = oidc("http://127.0.0.1:1/token");
    let mut train = room.command("train", "refused", "trainer", &[&nobody, &group]);
    Refused::start(&room, "no-provider", &mut train, &["token"]).check();
}
