//! Two topics of Avro, each with a schema of its own: the log of the same events in JSON?

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use protox::prost_reflect::prost::encoding::encode_varint;
use serde_json::{Value, json as value};

use super::{EVENTS, SETS, address, half, put, sections, wait_until};
use crate::proposals::{millrace, said};
use crate::registry::url;
use crate::support::{Bench, Running, brokers, create_topic, inspect, json, run_to_end};

const SEED: u64 = 38;

const VIEWS: &str = r#"{"type": "record", "name": "View", "namespace": "shop.web", "fields": [
    {"name": "user", "type": "string"},
    {"name": "item", "type": ["null", "string"]},
    {"name": "category", "type": "string"},
    {"name": "time_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;

/// Another team's: other names, another order, rows within changes.
const ORDERS: &str = r#"{"type": "record", "name": "Change", "namespace": "shop.db", "fields": [
    {"name": "op", "type": {"type": "enum", "name": "Op", "symbols": ["d", "c"]}},
    {"name": "note", "type": {"type": "map", "values": "double"}},
    {"name": "after", "type": ["null", {"type": "record", "name": "Row", "fields": [
        {"name": "at", "type": "long"},
        {"name": "kind", "type": "string"},
        {"name": "sku", "type": "string"},
        {"name": "buyer", "type": "string"}]}]}]}"#;

/// How a topic's readers know its schema.
#[derive(Clone, Copy, PartialEq)]
enum By {
    File,
    Registry,
}

fn long(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), &mut bytes);
    bytes
}

/// A field of a synthetic event, as a datum.
fn field(event: &Value, name: &str) -> Vec<u8> {
    match &event[name] {
        Value::String(text) => [&long(text.len() as i64)[..], text.as_bytes()].concat(),
        number => long(number.as_i64().expect("an integer")),
    }
}

/// A synthetic event as [`VIEWS`] describes it.
fn view(line: &str) -> Vec<u8> {
    let event: Value = serde_json::from_str(line).expect("JSON");
    let of = |name| field(&event, name);
    [of("user"), long(1), of("item"), of("category"), of("time_ms")].concat()
}

/// A synthetic event as [`ORDERS`] describes it.
fn order(line: &str) -> Vec<u8> {
    let event: Value = serde_json::from_str(line).expect("JSON");
    let of = |name| field(&event, name);
    let note = [long(1), long(1), b"x".to_vec(), 0.5_f64.to_le_bytes().to_vec(), long(0)].concat();
    let row = [of("time_ms"), of("category"), of("item"), of("user")].concat();
    [long(1), note, long(1), row].concat()
}

/// What is answered to a POST.
fn post(host: &str, path: &str, body: &Value) -> String {
    let body = body.to_string();
    let mut socket = TcpStream::connect(host).expect("the port is open");
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Registers a schema; what stands before each value of it.
fn head(url: &str, subject: &str, schema: &str) -> Vec<u8> {
    let rest = url.strip_prefix("http://").expect("an address");
    let (host, path) = rest.split_once('/').expect("a path");
    let path = format!("/{path}/subjects/{subject}/versions");
    let answer = post(host, &path, &value!({ "schema": schema }));
    let id = answer.split("\"id\":").nth(1).unwrap_or_else(|| panic!("no id in {answer}"));
    let digits: String = id.trim_start().chars().take_while(char::is_ascii_digit).collect();
    [&[0][..], &digits.parse::<u32>().expect("an id").to_be_bytes()].concat()
}

/// A topic, what stands before its values, and how an event becomes one.
type Writer = (String, Vec<u8>, fn(&str) -> Vec<u8>);

struct Shop {
    bench: Bench,
    config: PathBuf,
    registry: Option<&'static str>,
    /// Of views and of orders.
    writers: Vec<Writer>,
}

impl Shop {
    /// Views and orders, whose schemas their readers know so. None: there is no registry.
    fn new(views: By, orders: By) -> Option<Shop> {
        let asks = [views, orders].contains(&By::Registry);
        let registry = if asks { Some(url()?) } else { None };
        let bench = Bench::new("demo.toml", 1);
        let other = format!("{}-orders", bench.topic);
        create_topic(&other, 1, None);
        let topics = [
            (&bench.topic, "views.avsc", VIEWS, views, 0, view as fn(&str) -> Vec<u8>),
            (&other, "orders.avsc", ORDERS, orders, 1, order),
        ];
        let (mut files, mut writers) = (Vec::new(), Vec::new());
        for (topic, file, schema, by, first, datum) in topics {
            let path = bench.directory.path().join(file);
            std::fs::write(&path, schema).expect("written");
            let head = match (by, registry) {
                (By::Registry, Some(url)) => head(url, &format!("{topic}-value"), schema),
                _ => Vec::new(),
            };
            writers.push((topic.clone(), head, datum));
            let (_, head, _) = &writers[first];
            put(topic, 0, half(first, SEED).map(|line| [&head[..], &datum(&line)].concat()));
            files.push(match by {
                By::File => format!("schema_file = \"{}\"", path.display()),
                By::Registry => String::new(),
            });
        }
        let demo = include_str!("../../../config/demo.toml");
        let text = demo.replace("[kafka]", &format!("[kafka]\nformat = \"avro\"\n{}", files[0]));
        assert_ne!(text, demo);
        let entry = format!(
            "\n[[interactions]]\ntopic = \"{other}\"\nformat = \"avro\"\n{}\n\
             timestamp = {{ field = \"after.at\" }}\n\
             event = [{{ where = {{ field = \"op\", equals = \"c\" }} }}]\n\
             query = {{ id = \"after.buyer\", features = {{ user = \"after.buyer\" }} }}\n\
             item = {{ id = \"after.sku\", features = {{ item = \"after.sku\", \
             category = \"after.kind\" }} }}\n",
            files[1]
        );
        let config = bench.directory.path().join("avro.toml");
        std::fs::write(&config, text + &entry).expect("written");
        Some(Shop { bench, config, registry, writers })
    }

    fn command(&self, command: &str, name: &str, sets: &[&str]) -> Command {
        let registry = self.registry.map(|url| format!("registry.url={url}"));
        let sets = SETS.into_iter().chain(registry.as_deref()).chain(sets.iter().copied());
        self.bench.command_of(&self.config, command, name, &sets.collect::<Vec<_>>())
    }

    fn replay(&self, name: &str, passes: &str) -> Command {
        let mut command = self.command("replay", name, &[]);
        command.args(["--passes", passes]);
        command
    }
}

/// What the same events in one topic of JSON lead to.
fn plain() -> &'static Value {
    static MANIFEST: OnceLock<Value> = OnceLock::new();
    MANIFEST.get_or_init(|| {
        let one = Bench::new("demo.toml", 2);
        (0..2).for_each(|partition| put(&one.topic, partition, half(partition as usize, SEED)));
        json(&mut one.command("replay", "one", &SETS));
        inspect(&one.checkpoints("one"))
    })
}

fn trains_as_json(views: By, orders: By) {
    let Some(shop) = Shop::new(views, orders) else { return };
    let whole = json(&mut shop.replay("once", "1"));
    assert_eq!((&whole["trained"], &whole["rejected"]), (&value!(EVENTS), &value!(0)));
    let manifest = inspect(&shop.bench.checkpoints("once"));
    assert_eq!(sections(&manifest), sections(plain()), "the same events in the same order");

    // Ten passes: one is over before anybody could kill it.
    let whole = json(&mut shop.replay("whole", "10"));
    let steps = whole["step"].as_u64().expect("a step");
    let directory = shop.bench.checkpoints("killed");
    let kill = |part: u64| {
        Running::start(&mut shop.replay("killed", "10")).kill_past(&directory, part * steps / 4)
    };
    let kills = [1, 2].map(kill);
    println!("killed with newest checkpoints at {kills:?} of {steps} steps");
    assert!(kills[1] < steps, "it was over before it was killed");
    let resumed = json(&mut shop.replay("killed", "10"));
    assert!(resumed["began_at_step"].as_u64() >= Some(kills[1]), "{resumed}");
    assert_eq!(resumed["digest"], whole["digest"]);
}

#[test]
fn two_schema_files_train_as_one_log_of_json_and_survive_kills() {
    trains_as_json(By::File, By::File);
}

#[test]
fn two_schemas_of_a_registry_train_as_one_log_of_json_and_survive_kills() {
    trains_as_json(By::Registry, By::Registry);
}

#[test]
fn a_registry_and_a_schema_file_train_as_one_log_of_json_and_survive_kills() {
    trains_as_json(By::Registry, By::File);
}

/// Histories go by each topic's own schema, too.
#[test]
fn a_live_trainer_and_a_server_follow_a_registry_and_a_schema_file() {
    let Some(shop) = Shop::new(By::Registry, By::File) else { return };
    let live = ["http.listen=127.0.0.1:0", "batch.linger_ms=100", "checkpoint.every_s=1"];
    let mut train = Running::start(&mut shop.command("train", "live", &live));
    let trainer = address(&mut train, "metrics and health on http://");
    let trained = |count: usize| format!("millrace_events_total{{result=\"trained\"}} {count}\n");
    wait_until(&trainer, "/metrics", |page| page.contains(&trained(EVENTS)));
    let mut serve = Running::start(&mut shop.command("serve", "live", &live[..1]));
    let server = address(&mut serve, "answering on http://");
    let both_at = |count: usize| {
        move |page: &str| {
            let versions: Value = serde_json::from_str(page).unwrap_or_default();
            let histories = &versions["histories"];
            histories["next"]["0"] == count && histories["others"][0]["next"]["0"] == count
        }
    };
    wait_until(&server, "/v1/versions", both_at(EVENTS / 2));
    let known = half(0, SEED).next().expect("an event");
    let known: Value = known.parse().expect("JSON");
    for (topic, head, datum) in &shop.writers {
        let mut click = known.clone();
        click["user"] = format!("new to {topic}").into();
        put(topic, 0, [[&head[..], &datum(&click.to_string())].concat()]);
    }
    wait_until(&server, "/v1/versions", both_at(EVENTS / 2 + 1));
    for (topic, ..) in &shop.writers {
        let query = value!({"query": {"user": format!("new to {topic}")}, "explain": true});
        let answer = post(&server, "/v1/retrieve", &query);
        let item = format!("\"history\":[{}]", known["item"]);
        assert!(answer.contains(&item), "no {item} in {answer}");
    }
    wait_until(&trainer, "/metrics", |page| page.contains(&trained(EVENTS + 2)));
    train.signal("-TERM");
    assert!(train.wait().1.success());
}

#[test]
fn bare_avro_is_proposed_by_its_schemas_file() {
    let Some(shop) = Shop::new(By::File, By::File) else { return };
    let bench = &shop.bench;
    let views = &shop.writers[0].0;
    let init = ["init", "--brokers", brokers(), "--topic", views];
    let (status, log) = run_to_end(&mut millrace(bench, &init));
    assert!(status == Some(1) && log.contains("--set kafka.schema_file=FILE"), "{log}");
    let orders = &shop.writers[1].0;
    let others = ["vectors", "versions", "dead"].map(|role| format!("{orders}-{role}"));
    for topic in others.iter().chain([&format!("{views}-vectors")]) {
        create_topic(topic, 1, None);
    }
    // The second one's records are Debezium's changes.
    let sets: [&[&str]; 2] = [
        &["--set", "kafka.schema_file=views.avsc"],
        &["--set", "kafka.schema_file=orders.avsc", "--set", "query.id=after.buyer"],
    ];
    for ((topic, ..), sets) in shop.writers.iter().zip(sets) {
        let init = ["init", "--brokers", brokers(), "--topic", topic];
        let text = said(millrace(bench, &[&init[..], sets].concat()));
        std::fs::write(bench.directory.path().join("my.toml"), &text).expect("written");
        said(millrace(bench, &["check", "--config", "my.toml", "--connect", "--sample", "100"]));
        let directory = format!("checkpoint.directory={topic}");
        let replay = ["replay", "--config", "my.toml", "--set", &directory];
        let run = json(&mut millrace(bench, &replay));
        let counts = ["trained", "skipped", "rejected"].map(|key| &run[key]);
        assert_eq!(counts, [&value!(EVENTS / 2), &value!(0), &value!(0)], "{text}");
    }
}
