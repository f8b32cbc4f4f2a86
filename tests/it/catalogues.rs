//! Do catalogues bring what events lack, and is it tied to the log as events are?

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millrace_events::SplitMix;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::{Value, json as value};

use crate::log::{TRAINED, grow_topic, wait_for};
use crate::support::{
    Bench, PATIENCE, Running, client, create_topic, eventually, get, inspect, json, newest_step,
    records, synthetic,
};

const EVENTS: usize = 20_000;
/// The time of the first synthetic event; each one is a millisecond after the one before.
const FIRST_MS: i64 = 1_700_000_000_000;

/// The demo's config, whose items have their categories from a catalogue.
struct World {
    bench: Bench,
    config: PathBuf,
    items: String,
    users: String,
    /// By item.
    categories: BTreeMap<String, Value>,
}

impl World {
    /// Events without categories on two partitions; nothing on the catalogue's topic yet.
    fn new(events: usize, seed: u64, entry: &str) -> World {
        let bench = Bench::new("demo.toml", 2);
        let items = format!("{}-items", bench.topic);
        let users = format!("{}-users", bench.topic);
        create_topic(&items, 2, None);
        create_topic(&users, 1, None);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.toml");
        let text = std::fs::read_to_string(path).expect("the demo's config");
        let entry = format!(
            r#"{text}
            [[query.features]]
            name = "plan"
            kind = "id"
            table = "plan"

            [[catalogue]]
            topic = "{users}"
            side = "query"
            id = "@key"
            features = {{ plan = "plan" }}
            begin = "point_in_time"

            [[catalogue]]
            topic = "{items}"
            id = "sku"
            features = {{ category = "detail.category" }}
            hidden = {{ field = "stock", equals = 0 }}
            {entry}
            "#
        );
        let config = bench.directory.path().join("catalogue.toml");
        std::fs::write(&config, entry).expect("written");
        let (mut categories, mut lines) = (BTreeMap::new(), String::new());
        for line in synthetic(events, seed) {
            let mut event: Value = serde_json::from_str(&line).expect("JSON");
            let fields = event.as_object_mut().expect("an object");
            let category = fields.remove("category").expect("it has one");
            categories.insert(fields["item"].as_str().expect("a text").to_owned(), category);
            lines += &format!("{event}\n");
        }
        let path = bench.directory.path().join("plain.jsonl");
        std::fs::write(&path, lines).expect("written");
        bench.produce(&path);
        World { bench, config, items, users, categories }
    }

    fn row(&self, item: &str) -> Value {
        value!({"sku": item, "detail": {"category": self.categories[item]}})
    }

    /// Every item as the log has it, a day before the first event.
    fn list_all(&self) {
        let rows = self.categories.keys().map(|item| (item.clone(), Some(self.row(item))));
        self.write(rows.map(|(item, row)| (item, row, FIRST_MS - 86_400_000)));
    }

    /// Writes rows of items (none: a tombstone), each with its time.
    fn write(&self, rows: impl IntoIterator<Item = (String, Option<Value>, i64)>) {
        write(&self.items, rows);
    }

    /// Rows that change while the events come, items that nobody asks for, and tombstones.
    fn move_on(&self, seed: u64) {
        let mut random = SplitMix::new(seed);
        let items: Vec<&String> = self.categories.keys().collect();
        let rows = (0..600_i64).map(|n| {
            let time_ms = FIRST_MS + n * (EVENTS as i64) / 600;
            let at = (random.next_u64() % items.len() as u64) as usize;
            match n % 4 {
                0 => (items[at].clone(), None, time_ms),
                1 => {
                    let name = format!("unasked-{}", n % 40);
                    let row = value!({"sku": name, "detail": {"category": n % 7}});
                    (name, Some(row), time_ms)
                }
                2 => {
                    let row = value!({"sku": items[at], "stock": n % 3, "detail": {"category": n}});
                    (items[at].clone(), Some(row), time_ms)
                }
                _ => (items[at].clone(), Some(self.row(items[at])), time_ms),
            }
        });
        self.write(rows);
        let users = (0..300_i64).map(|n| {
            let row = (n % 7 > 0).then(|| value!({"plan": n % 3}));
            (format!("u{}", n % 200), row, FIRST_MS + n * (EVENTS as i64) / 300)
        });
        write(&self.users, users);
    }

    fn replay(&self, name: &str, sets: &[&str]) -> std::process::Command {
        self.bench.command_of(&self.config, "replay", name, sets)
    }
}

/// Writes records, each with its key and time; none: without a value.
fn write(topic: &str, rows: impl IntoIterator<Item = (String, Option<Value>, i64)>) {
    let producer: ThreadedProducer<_> = client().create().expect("a producer");
    for (key, row, time_ms) in rows {
        let text = row.map(|row| row.to_string());
        let mut record = BaseRecord::<str, str>::to(topic).key(&key).timestamp(time_ms);
        record.payload = text.as_deref();
        assert!(producer.send(record).is_ok(), "there is room for it");
    }
    producer.flush(PATIENCE).expect("the broker takes records");
}

/// Writes a record without a value to a partition, as soon as producers know it.
fn tombstone(topic: &str, partition: i32, key: &str) {
    let producer: ThreadedProducer<_> = client().create().expect("a producer");
    let record = || BaseRecord::<str, str>::to(topic).key(key).partition(partition);
    eventually("a partition", &mut || producer.send(record()).is_ok());
    producer.flush(PATIENCE).expect("the broker takes records");
    let there = producer.client().fetch_watermarks(topic, partition, PATIENCE);
    assert_eq!(there.expect("the broker has the partition"), (0, 1));
}

const SETS: [&str; 4] =
    ["batch.size=128", "checkpoint.every_steps=9", "publish.topic=", "negatives.mixed=64"];

#[test]
fn sigkill_with_a_catalogue_ends_in_the_bits_of_an_uninterrupted_run() {
    survives_sigkill(&SETS, "begin = \"point_in_time\"");
}

#[test]
fn sigkill_within_the_bootstrap_or_behind_it_ends_in_the_same_bits() {
    survives_sigkill(&[&SETS[..], &["batch.shuffle_events=1024"]].concat(), "begin = \"end\"");
}

fn survives_sigkill(sets: &[&str], entry: &str) {
    let world = World::new(EVENTS, 21, entry);
    world.list_all();
    world.move_on(5);
    let whole = json(&mut world.replay("whole", sets));
    assert_eq!((&whole["trained"], &whole["rejected"]), (&value!(EVENTS), &value!(0)));
    let steps = whole["step"].as_u64().expect("a step");
    let killed = world.bench.checkpoints("killed");
    let mut random = SplitMix::new(17);
    let mut kills = Vec::new();
    while kills.len() < 4 && newest_step(&killed) < steps {
        let target = newest_step(&killed) + 1 + random.next_u64() % (steps / 6);
        let at = Running::start(&mut world.replay("killed", sets)).kill_past(&killed, target);
        if at < steps {
            kills.push(at);
        }
    }
    println!("killed with newest checkpoints at {kills:?} of {steps} steps");
    assert!(!kills.is_empty(), "at least one kill came before the end");
    let resumed = json(&mut world.replay("killed", sets));
    assert!(resumed["began_at_step"].as_u64() > Some(0), "it went on from a checkpoint");
    for key in ["step", "trained", "catalogues", "digest"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    let again = json(&mut world.replay("again", sets));
    assert_eq!(again["digest"], whole["digest"], "a second run is the first");
    // In two parts it is the same: the catalogue stops with the events.
    let mut first = world.replay("parts", sets);
    first.args(["--to", "40%"]);
    if !sets.contains(&"batch.shuffle_events=1024") {
        json(&mut first);
        let half = inspect(&world.bench.checkpoints("parts"));
        let total = |manifest: &Value| -> i64 {
            let next = &manifest["catalogues"][1]["next"]["partitions"];
            next.as_object().expect("offsets").values().filter_map(Value::as_i64).sum()
        };
        let end = inspect(&world.bench.checkpoints("whole"));
        assert!(total(&half) < total(&end), "{half}");
    }
}

/// Keys of new items lie on new partitions, too: who does not look for them loses a share of them.
#[test]
fn partitions_that_a_catalogue_gets_are_read_from_their_beginning() {
    let world = World::new(3_000, 24, "");
    world.list_all();
    let sets = [&SETS[..], &["kafka.discover_s=1", "http.listen=127.0.0.1:0"]].concat();
    let mut live =
        Running::start(&mut world.bench.command_of(&world.config, "train", "live", &sets));
    let address = live.wait_for("metrics and health on http://");
    let address = address.split("http://").nth(1).expect("an address").trim_end_matches('/');
    wait_for(address, TRAINED, 3_000.0);
    grow_topic(&world.items, 5);
    let began = Instant::now();
    let news = (0..100).map(|n| {
        let name = format!("new-{n}");
        let row = value!({"sku": name, "detail": {"category": n % 7}});
        (name, Some(row), FIRST_MS + 10_000)
    });
    world.write(news);
    live.wait_for("the catalogue has grown");
    println!("new partitions, looked for every second, were found after {:?}", began.elapsed());
    // Events behind which the new rows lie in the checkpoint.
    world.bench.produce_synthetic(1_000, 25);
    wait_for(address, TRAINED, 4_000.0);
    live.signal("-TERM");
    let (_, status) = live.wait();
    assert!(status.success(), "exit status {status}");
    let listed = world.categories.len() as i64 + 100;
    let next = |name: &str| {
        inspect(&world.bench.checkpoints(name))["catalogues"][1]["next"]["partitions"].clone()
    };
    let total = |next: &Value| -> i64 {
        next.as_object().expect("offsets").values().filter_map(Value::as_i64).sum()
    };
    let stopped = next("live");
    assert_eq!(stopped.as_object().map(|of| of.len()), Some(5), "{stopped}");
    assert_eq!(total(&stopped), listed, "{stopped}");
    // A start from there reads nothing twice, and ends where it began.
    let rest = json(&mut world.replay("live", &sets));
    assert_eq!(rest["trained"], value!(4_000));
    assert_eq!(next("live"), stopped);
}

/// A tombstone on a partition that came while `serve` ran takes its item out, though no trainer is
/// there to make a version that knows of it.
#[test]
fn partitions_that_a_catalogue_gets_are_read_by_a_server_too() {
    let world = World::new(3_000, 26, "");
    world.list_all();
    json(&mut world.replay("live", &SETS));
    let items: Vec<String> = world.categories.keys().take(3).cloned().collect();
    let (serving, address) = serve(&world, &["kafka.discover_s=1"]);
    let there = |address: &str| {
        let found = found(address);
        items.iter().map(|item| found.contains(item)).collect::<Vec<_>>()
    };
    assert_eq!(there(&address), [true; 3]);
    for (item, partitions) in items.iter().zip([3, 5]) {
        grow_topic(&world.items, partitions);
        let began = Instant::now();
        tombstone(&world.items, partitions as i32 - 1, item);
        eventually("out of answers", &mut || !found(&address).contains(item));
        println!("a tombstone on a new partition took {item} out after {:?}", began.elapsed());
    }
    assert_eq!(there(&address), [false, false, true]);
    drop(serving);
    // The version knows nothing of these partitions, and a server that starts reads them whole.
    let (_serving, address) = serve(&world, &[]);
    eventually("out of answers", &mut || there(&address) == [false, false, true]);
}

/// An end that a run took can be given to another, though the catalogue has gone on.
#[test]
fn a_bootstrap_can_be_given_again() {
    let world = World::new(4_000, 22, "begin = \"end\"");
    world.list_all();
    let first = json(&mut world.replay("first", &SETS));
    let end = &first["catalogues"][1]["end"];
    world.move_on(6);
    let other = json(&mut world.replay("other", &SETS));
    assert_ne!(other["digest"], first["digest"]);
    let text = std::fs::read_to_string(&world.config).expect("written before");
    std::fs::write(&world.config, format!("{text}end = {end}\n")).expect("written");
    let given = json(&mut world.replay("given", &SETS));
    assert_eq!(&given["catalogues"][1]["end"], end);
    // What came later is merged by its time, from the first event on.
    assert_ne!(given["digest"], other["digest"]);
    assert_eq!(json(&mut world.replay("once more", &SETS))["digest"], given["digest"]);
}

const SERVE: [&str; 2] = ["http.listen=127.0.0.1:0", "serve.poll_ms=50"];

/// A server of the live trainer's versions, once it answers, and its address.
fn serve(world: &World, sets: &[&str]) -> (Running, String) {
    let sets = [&SERVE[..], sets].concat();
    let mut server = world.bench.command_of(&world.config, "serve", "live", &sets);
    let mut serving = Running::start(&mut server);
    let line = serving.wait_for("answering on http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.expect("an address").to_owned();
    serving.wait_for("is ready to answer");
    (serving, address)
}

/// Ids of all items that are found for somebody, over HTTP.
fn found(address: &str) -> BTreeSet<String> {
    let body = value!({"query": {"user": "u1"}, "k": 1000}).to_string();
    let mut stream = TcpStream::connect(address).expect("the port is open");
    write!(
        stream,
        "POST /v1/retrieve HTTP/1.1\r\nHost: millrace\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("an answer");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{response}");
    let answer: Value = serde_json::from_str(body).expect("JSON");
    let items = answer["items"].as_array().expect("items").iter();
    items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

/// Newest value of each key; none: a tombstone.
type Newest = BTreeMap<String, Option<Value>>;

fn newest(topic: &str) -> Newest {
    let of = |record: &OwnedMessage| {
        let key = String::from_utf8_lossy(record.key().expect("a key")).into_owned();
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).expect("JSON");
        (key, record.payload().map(json))
    };
    records(topic).iter().map(of).collect()
}

#[test]
fn an_item_that_nobody_asked_for_is_published_and_its_tombstone_takes_it_off() {
    let world = World::new(3_000, 23, "");
    let out = format!("{}-out", world.bench.topic);
    world.list_all();
    let sets = [
        "batch.size=128",
        "batch.linger_ms=50",
        "checkpoint.every_steps=1",
        "publish.every_checkpoints=1",
    ];
    let mut live = world.bench.command_of(&world.config, "train", "live", &sets);
    let mut run = Running::start(&mut live);
    run.wait_for("published version=");
    let wait = |what: &dyn Fn(&Newest) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = newest(&out);
            if what(&there) {
                return there;
            }
            assert!(Instant::now() < deadline, "it does not come");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let all: BTreeSet<&String> = world.categories.keys().collect();
    wait(&|there| all.iter().all(|name| there.get(*name).is_some_and(Option::is_some)));

    let (_serving, address) = serve(&world, &[]);
    let names = |name: &str| found(&address).contains(name);

    let now_ms = FIRST_MS + 86_400_000;
    let (first, category) = world.categories.iter().next().expect("there are items");
    let row = value!({"sku": "unasked", "detail": {"category": category}});
    world.write([("unasked".to_owned(), Some(row), now_ms)]);
    let there = wait(&|there| there.get("unasked").is_some_and(Option::is_some));
    let vector = there["unasked"].as_ref().expect("a vector")["vector"].as_array().expect("it");
    let length: f64 = vector.iter().filter_map(Value::as_f64).map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-3, "{length}");

    eventually("in answers", &mut || names("unasked") && names(first));
    // No version comes from here on: serving does not wait for one.
    run.signal("-STOP");
    let hidden = value!({"sku": first, "stock": 0});
    world.write([
        ("unasked".to_owned(), None, now_ms + 1),
        (first.clone(), Some(hidden), now_ms + 2),
    ]);
    let began = Instant::now();
    eventually("out of answers", &mut || !names("unasked") && !names(first));
    let took = began.elapsed();
    println!("out of answers after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(get(&address, "/v1/items/unasked").0.contains("404"));
    run.signal("-CONT");
    let gone = |there: &Newest, name: &str| there[name].is_none();
    wait(&|there| gone(there, "unasked") && gone(there, first));
    run.signal("-TERM");
    assert!(run.wait().1.success());
    // A restart goes on, and brings nothing back.
    let mut run = Running::start(&mut live);
    run.wait_for("going on from a checkpoint");
    world.write([("next".to_owned(), Some(value!({"sku": "next"})), now_ms + 3)]);
    let there = wait(&|there| there.get("next").is_some_and(Option::is_some));
    assert!(gone(&there, "unasked") && gone(&there, first));
    eventually("in answers", &mut || names("next"));
    assert!(!names("unasked") && !names(first));
    run.signal("-TERM");
    assert!(run.wait().1.success());
}

/// Clicks on items that training never saw, which a catalogue lists: a band of their own.
#[test]
fn items_that_only_a_catalogue_knew_are_a_band_of_an_evaluation() {
    let world = World::new(2_000, 24, "");
    world.list_all();
    let category = world.categories.values().next().expect("there are items");
    let row = |name: &str| value!({"sku": name, "detail": {"category": category}});
    let unasked: Vec<String> = (0..5).map(|n| format!("unasked-{n}")).collect();
    let rows = unasked.iter().map(|name| (name.clone(), Some(row(name)), FIRST_MS));
    // One that is listed only after the events: nothing is newer than the event.
    let late = ("late".to_owned(), Some(row("late")), FIRST_MS + 86_400_000);
    world.write(rows.chain([late]));
    let mut lines = String::new();
    for n in 0..100 {
        let name = if n % 10 == 0 { "late" } else { &*unasked[n % 5] };
        let time_ms = FIRST_MS + 2_000 + n as i64;
        let event = value!({"user": format!("u{n}"), "item": name, "time_ms": time_ms});
        lines += &format!("{event}\n");
    }
    let path = world.bench.directory.path().join("more.jsonl");
    std::fs::write(&path, lines).expect("written");
    world.bench.produce(&path);
    let mut command = world.bench.command_of(&world.config, "evaluate", "none", &SETS[..1]);
    let result = json(command.args(["--from", "90%"]));
    // A few of the world's own items come there for the first time, too.
    let cases = result["listed"]["cases"].as_u64().expect("a number");
    assert!((90..110).contains(&cases), "{result}");
    assert_eq!(result["unknown_items"], 10, "what was listed later was not known");
}
