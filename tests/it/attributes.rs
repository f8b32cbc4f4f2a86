//! Do attributes come from the log to stores and answers, tied to it as events are?

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use millrace_events::SplitMix;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::{Value, json as value};

use crate::support::{
    Bench, PATIENCE, Running, client, create_topic, eventually, get, inspect, json, newest_step,
    records, synthetic,
};

const EVENTS: usize = 20_000;
/// The time of the first synthetic event; each one is a millisecond after the one before.
const FIRST_MS: i64 = 1_700_000_000_000;
const SETS: [&str; 3] = ["batch.size=128", "checkpoint.every_steps=9", "publish.topic="];

/// The demo's config; events say when an item was clicked last, a catalogue its title and tags.
struct World {
    bench: Bench,
    plain: PathBuf,
    config: PathBuf,
    rows: String,
    items: Vec<String>,
}

impl World {
    fn new(events: usize, seed: u64) -> World {
        let bench = Bench::new("demo.toml", 2);
        let rows = format!("{}-items", bench.topic);
        create_topic(&rows, 2, None);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.toml");
        let demo = std::fs::read_to_string(path).expect("the demo's config");
        let of = |name: &str, in_events: &str, in_rows: &str| {
            let item = format!("[item]\nid = \"item\"\n{in_events}");
            let text = demo.replacen("[item]\nid = \"item\"\n", &item, 1);
            assert_ne!(text.len() == demo.len(), !in_events.is_empty(), "it was put in");
            let catalogue = format!(
                "[[catalogue]]\ntopic = \"{rows}\"\nid = \"sku\"\nbegin = \"point_in_time\"\n\
                 {in_rows}"
            );
            let path = bench.directory.path().join(name);
            std::fs::write(&path, format!("{text}\n{catalogue}\n")).expect("written");
            path
        };
        let plain = of("plain.toml", "", "");
        let in_rows = "attributes = [\"detail.title\", \"tags\"]";
        let config = of("attributes.toml", "attributes = [\"time_ms\", \"category\"]\n", in_rows);
        let mut items = BTreeSet::new();
        for line in synthetic(events, seed) {
            let event: Value = serde_json::from_str(&line).expect("JSON");
            items.insert(event["item"].as_str().expect("a text").to_owned());
        }
        bench.produce_synthetic(events, seed);
        World { bench, plain, config, rows, items: items.into_iter().collect() }
    }

    /// Writes rows of items (none: a tombstone), each with its time.
    fn write(&self, rows: impl IntoIterator<Item = (String, Option<Value>, i64)>) {
        let producer: ThreadedProducer<_> = client().create().expect("a producer");
        for (key, row, time_ms) in rows {
            let text = row.map(|row| row.to_string());
            let mut record = BaseRecord::<str, str>::to(&self.rows).key(&key).timestamp(time_ms);
            record.payload = text.as_deref();
            assert!(producer.send(record).is_ok(), "there is room for it");
        }
        producer.flush(PATIENCE).expect("the broker takes records");
    }

    fn row(item: &str, title: &str) -> Value {
        value!({"sku": item, "detail": {"title": title}, "tags": ["all", title.len()]})
    }

    /// Every item, a day before the first event.
    fn list_all(&self) {
        let row =
            |item: &String| (item.clone(), Some(World::row(item, item)), FIRST_MS - 86_400_000);
        self.write(self.items.iter().map(row));
    }

    /// Titles that change while the events come, in part; items that go and come back.
    fn move_on(&self, seed: u64) {
        let mut random = SplitMix::new(seed);
        let rows = (0..800_i64).map(|n| {
            let item = &self.items[(random.next_u64() % self.items.len() as u64) as usize];
            let row = match n % 5 {
                0 => None,
                1 => Some(value!({"sku": item, "tags": [n]})),
                2 => Some(value!({"sku": item, "detail": {"title": {"no": n}}, "tags": null})),
                _ => Some(World::row(item, &format!("{item}, edition {n}"))),
            };
            (item.clone(), row, FIRST_MS + n * (EVENTS as i64) / 800)
        });
        self.write(rows);
    }

    fn command(&self, command: &str, name: &str, sets: &[&str]) -> Command {
        self.bench.command_of(&self.config, command, name, sets)
    }
}

#[test]
fn sigkill_with_attributes_ends_in_the_bits_of_an_uninterrupted_run() {
    let world = World::new(EVENTS, 31);
    world.list_all();
    world.move_on(7);
    let whole = json(&mut world.command("replay", "whole", &SETS));
    assert_eq!((&whole["trained"], &whole["rejected"]), (&value!(EVENTS), &value!(0)));
    let steps = whole["step"].as_u64().expect("a step");
    let killed = world.bench.checkpoints("killed");
    let mut random = SplitMix::new(19);
    let mut kills = Vec::new();
    while kills.len() < 4 && newest_step(&killed) < steps {
        let target = newest_step(&killed) + 1 + random.next_u64() % (steps / 6);
        let mut replay = world.command("replay", "killed", &SETS);
        let at = Running::start(&mut replay).kill_past(&killed, target);
        if at < steps {
            kills.push(at);
        }
    }
    println!("killed with newest checkpoints at {kills:?} of {steps} steps");
    assert!(!kills.is_empty(), "at least one kill came before the end");
    let resumed = json(&mut world.command("replay", "killed", &SETS));
    assert!(resumed["began_at_step"].as_u64() > Some(0), "it went on from a checkpoint");
    for key in ["step", "trained", "catalogues", "digest"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    // What no tower sees moves no weight, and stands in one section.
    json(&mut world.bench.command_of(&world.plain, "replay", "plain", &SETS));
    let sections = |name: &str| -> BTreeMap<String, Value> {
        let manifest = inspect(&world.bench.checkpoints(name));
        let sections = manifest["sections"].as_array().expect("sections").iter();
        let named = |section: &Value| section["name"].as_str().expect("a name").to_owned();
        let of = |section: &Value| (named(section), section["checksum"].clone());
        sections.filter(|section| section["digested"] != false).map(of).collect()
    };
    let (with, without) = (sections("whole"), sections("plain"));
    let differs = |name: &&str| with.get(*name) != without.get(*name);
    let differ: Vec<&str> = with.keys().map(String::as_str).filter(differs).collect();
    assert_eq!((with.len(), differ), (without.len(), vec!["corpus"]));
}

#[test]
fn attributes_begin_and_end_with_a_restart() {
    let world = World::new(4_000, 32);
    world.list_all();
    let go_on = |name: &str, config: &Path, to: &str| {
        let mut command = world.bench.command_of(config, "replay", name, &SETS);
        json(command.args(["--to", to]))["began_at_step"].as_u64()
    };
    let of = |name: &str, between: &Path| {
        let parts = [(&*world.plain, "40%"), (between, "80%"), (&*world.plain, "100%")];
        let began = parts.map(|(config, to)| go_on(name, config, to));
        assert!(began.is_sorted_by(|a, b| a < b), "each goes on from the one before: {began:?}");
    };
    of("kept", &world.config);
    of("never", &world.plain);
    let corpus = |name: &str| {
        let manifest = inspect(&world.bench.checkpoints(name));
        let sections = manifest["sections"].as_array().expect("sections").clone();
        sections.into_iter().find(|section| section["name"] == "corpus").expect("it has one")
    };
    assert_eq!(corpus("kept")["checksum"], corpus("never")["checksum"], "nothing is left of them");
}

/// The newest value of each key on the output topic.
fn newest(world: &World) -> BTreeMap<String, Value> {
    let records = records(&format!("{}-out", world.bench.topic));
    let of = |record: &rdkafka::message::OwnedMessage| {
        let key = String::from_utf8_lossy(record.key().expect("a key")).into_owned();
        let value = record.payload().map(|bytes| serde_json::from_slice(bytes).expect("JSON"));
        (key, value.unwrap_or_default())
    };
    records.iter().map(of).collect()
}

#[test]
fn a_title_comes_to_the_topic_the_answers_and_the_bundle() {
    let world = World::new(3_000, 33);
    world.list_all();
    let sets = [
        "batch.size=128",
        "batch.linger_ms=50",
        "checkpoint.every_steps=1",
        "publish.every_checkpoints=1",
        "publish.attributes=[\"title\", \"tags\"]",
        // Vectors may move as they like: only what is said brings a record.
        "publish.full_every=1000",
        "publish.moved_min=0.99",
    ];
    let mut run = Running::start(&mut world.command("train", "live", &sets));
    let first = &world.items[0];
    let said = |there: &BTreeMap<String, Value>| there.get(first).map(|v| v["attributes"].clone());
    let old = value!({"title": first, "tags": ["all", first.len()]});
    eventually("on the topic", &mut || said(&newest(&world)) == Some(old.clone()));
    let now_ms = FIRST_MS + 86_400_000;
    world.write([(first.clone(), Some(World::row(first, "Alien \"3\"")), now_ms)]);
    let new = value!({"title": "Alien \"3\"", "tags": ["all", 9]});
    eventually("sent again", &mut || said(&newest(&world)) == Some(new.clone()));
    run.signal("-TERM");
    assert!(run.wait().1.success());

    let serve = ["http.listen=127.0.0.1:0", "serve.poll_ms=50"];
    let mut serving = Running::start(&mut world.command("serve", "live", &serve));
    let line = serving.wait_for("answering on http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.expect("an address").to_owned();
    serving.wait_for("is ready to answer");
    let (head, body) = get(&address, &format!("/v1/items/{first}"));
    assert!(head.contains("200"), "{head}");
    let item: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (&item["attributes"]["title"], &item["attributes"]["tags"][1]),
        (&new["title"], &value!(9))
    );
    assert!(item["attributes"]["time_ms"].is_i64(), "the events said it: {item}");
    let (_, document) = get(&address, "/openapi.json");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let filters = &document["components"]["schemas"]["Filter"]["properties"];
    assert!(filters["title"].is_object() && filters["category"].is_object(), "{filters}");

    let bundle = world.bench.directory.path().join("bundle");
    let mut export = world.command("export", "live", &[]);
    export.arg("--to").arg(&bundle);
    assert!(export.output().expect("millrace can be run").status.success());
    let spec = std::fs::read_to_string(bundle.join("spec.json")).expect("there");
    let spec: Value = serde_json::from_str(&spec).expect("JSON");
    assert_eq!(spec["attributes"], value!(["time_ms", "category", "title", "tags"]));
    let ends = &spec["tensors"]["items.attributes.title.ends"];
    assert_eq!(ends, &value!([spec["items"].as_u64()]));
}
