//! Are several topics one log: merged by time, exact through kills, open for one more?

#[cfg(feature = "registry")]
mod avro;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use serde_json::{Value, json as value};

use crate::log::{delete_topic, grow_topic};
use crate::support::{
    Bench, PATIENCE, Running, client, create_topic, get, inspect, json, records, run_to_end,
    synthetic,
};

const EVENTS: usize = 12_000;
const SETS: [&str; 3] = ["batch.size=128", "checkpoint.every_steps=9", "publish.topic="];

/// Puts records into a partition, and sees that they are there.
fn put<V: AsRef<[u8]>>(topic: &str, partition: i32, values: impl IntoIterator<Item = V>) {
    let producer: ThreadedProducer<_> = client().create().expect("a producer");
    let end = || {
        let bounds = producer.client().fetch_watermarks(topic, partition, PATIENCE);
        bounds.expect("the broker has the partition").1
    };
    let (before, mut sent) = (end(), 0);
    for value in values {
        let record = BaseRecord::<[u8], [u8]>::to(topic);
        let record = record.partition(partition).payload(value.as_ref());
        assert!(producer.send(record).is_ok(), "there is room for it");
        sent += 1;
    }
    producer.flush(PATIENCE).expect("the broker takes records");
    assert_eq!(end() - before, sent, "{topic}/{partition} has not taken all records");
}

/// Every second synthetic event, from the `first` on.
fn half(first: usize, seed: u64) -> impl Iterator<Item = String> {
    synthetic(EVENTS, seed).skip(first).step_by(2)
}

/// An event as another team writes it.
fn as_order(line: &str) -> String {
    let event: Value = serde_json::from_str(line).expect("JSON");
    let [user, item, category, time] =
        ["user", "item", "category", "time_ms"].map(|key| &event[key]);
    let order = value!({"after": {"buyer": user, "sku": item, "kind": category, "at": time}});
    order.to_string()
}

/// The demo's log in two topics: the second half of the events are orders, in Debezium's envelope.
struct TwoTopics {
    bench: Bench,
    orders: String,
    config: PathBuf,
}

const ENTRY: &str = r#"
[[interactions]]
topic = "ORDERS"
format = "debezium"
timestamp = { field = "at" }
query = { id = "buyer", features = { user = "buyer" } }
item = { id = "sku", features = { item = "sku", category = "kind" } }
"#;

impl TwoTopics {
    fn new(seed: u64) -> TwoTopics {
        let bench = Bench::new("demo.toml", 1);
        let orders = format!("{}-orders", bench.topic);
        create_topic(&orders, 1, None);
        put(&bench.topic, 0, half(0, seed));
        put(&orders, 0, half(1, seed).map(|line| as_order(&line)));
        let config = bench.directory.path().join("two.toml");
        let text = include_str!("../../config/demo.toml");
        let entry = ENTRY.replace("ORDERS", &orders);
        std::fs::write(&config, format!("{text}{entry}")).expect("written");
        TwoTopics { bench, orders, config }
    }

    fn command(&self, command: &str, name: &str, sets: &[&str]) -> Command {
        self.bench.command_of(&self.config, command, name, &[&SETS[..], sets].concat())
    }
}

/// Name and checksum of all that the state is made of.
fn sections(manifest: &Value) -> Vec<(&Value, &Value)> {
    let sections = manifest["sections"].as_array().expect("sections").iter();
    let state = sections.filter(|section| section["digested"] == true);
    state.map(|section| (&section["name"], &section["checksum"])).collect()
}

#[test]
fn two_topics_train_as_one_topic_of_two_partitions_and_survive_kills() {
    let one = Bench::new("demo.toml", 2);
    (0..2).for_each(|partition| put(&one.topic, partition, half(partition as usize, 31)));
    let two = TwoTopics::new(31);
    let of_one = json(&mut one.command("replay", "one", &SETS));
    let of_two = json(&mut two.command("replay", "two", &[]));
    assert_eq!((&of_one["trained"], &of_two["trained"]), (&value!(EVENTS), &value!(EVENTS)));
    let one = inspect(&one.checkpoints("one"));
    let whole = inspect(&two.bench.checkpoints("two"));
    assert_eq!(sections(&one), sections(&whole), "the same events in the same order");
    assert_eq!((&one["format"], &one["offsets"]["others"]), (&value!(3), &Value::Null));
    let orders = value!([{"topic": two.orders, "partitions": {"0": EVENTS / 2}}]);
    assert_eq!((&whole["format"], &whole["offsets"]["others"]), (&value!(4), &orders));
    assert_eq!(whole["offsets"]["partitions"], value!({"0": EVENTS / 2}));

    // Ten passes: one is over before anybody could kill it.
    let passes = |name| {
        let mut command = two.command("replay", name, &[]);
        command.args(["--passes", "10"]);
        command
    };
    let whole = json(&mut passes("whole"));
    let (directory, steps) = (two.bench.checkpoints("killed"), whole["step"].as_u64());
    let steps = steps.expect("a step");
    let kill =
        |part: u64| Running::start(&mut passes("killed")).kill_past(&directory, part * steps / 5);
    let kills = [1, 2, 3].map(kill);
    println!("killed with newest checkpoints at {kills:?} of {steps} steps");
    assert!(kills[0] < steps, "it was over before it was killed");
    let resumed = json(&mut passes("killed"));
    assert!(resumed["began_at_step"].as_u64() > Some(0), "it went on from a checkpoint");
    assert_eq!(resumed["digest"], whole["digest"]);
}

#[test]
fn a_topic_that_comes_later_is_read_from_its_start_and_none_may_go() {
    let two = TwoTopics::new(32);
    let first = json(&mut two.bench.command("replay", "run", &SETS));
    assert_eq!(first["trained"], EVENTS / 2);
    let output = two.command("replay", "run", &[]).arg("--json").output().expect("it can be run");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("is new to the checkpoint, and is read from its start"), "{log}");
    let both: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&both["trained"], &both["events_this_run"]),
        (&value!(EVENTS), &value!(EVENTS / 2))
    );
    assert_eq!(both["began_at_step"], first["step"]);
    let (status, log) = run_to_end(&mut two.bench.command("replay", "run", &SETS));
    let said = format!("trained on topic `{}`, `{}`", two.bench.topic, two.orders);
    assert!(status == Some(1) && log.contains(&said), "{log}");
}

/// `check` tries the records of both topics, each by its own mapping, and letters name theirs.
#[test]
fn records_of_each_topic_are_tried_and_rejected_as_its_own() {
    let two = TwoTopics::new(33);
    put(&two.orders, 0, ["no order".to_owned()]);
    let mut check = two.command("check", "none", &[]);
    let found = json(check.args(["--connect", "--sample", "200"]));
    let sample = &found["sample"];
    assert_eq!(
        (&sample["accepted"], &sample["rejected"]["not_json"]["count"]),
        (&value!(199), &value!(1))
    );
    let of_orders = format!("topic `{}`", two.orders);
    let findings = found["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|finding| finding["subject"] == of_orders.as_str()), "{found}");
    let result = json(&mut two.command("replay", "run", &[]));
    assert_eq!((&result["trained"], &result["rejected"]), (&value!(EVENTS), &value!(1)));
    let letters = records(&two.bench.dead());
    let headers = letters[0].headers().expect("headers");
    let topic = headers.iter().find(|header| header.key == "topic").and_then(|h| h.value);
    assert_eq!(topic, Some(two.orders.as_bytes()));
    let quality = json(&mut two.command("evaluate", "none", &[]));
    assert_eq!(quality["topic"], format!("{}, {}", two.bench.topic, two.orders));
    assert_eq!(quality["cases"], EVENTS / 10, "a tenth of each topic");
}

/// Offsets of a topic that was made anew fit by chance.
#[test]
fn each_topic_is_known_by_its_own_records() {
    let two = TwoTopics::new(36);
    json(&mut two.command("replay", "run", &[]));
    delete_topic(&two.orders);
    create_topic(&two.orders, 1, None);
    put(&two.orders, 0, half(0, 37).map(|line| as_order(&line)));
    let (status, log) = run_to_end(&mut two.command("replay", "run", &[]));
    let said = format!("of partition 0 of `{}` is not the one that the checkpoint", two.orders);
    assert!(status == Some(1) && log.contains(&said), "{log}");
}

/// The address that a process says it listens on.
fn address(run: &mut Running, said: &str) -> String {
    let line = run.wait_for(said);
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    address.expect("an address").trim().to_owned()
}

/// Waits until `found` holds for a page.
fn wait_until(address: &str, path: &str, found: impl Fn(&str) -> bool) {
    let began = Instant::now();
    loop {
        let (_, page) = get(address, path);
        if found(&page) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{page}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_live_trainer_and_a_server_follow_every_topic_and_produce_feeds_it() {
    let two = TwoTopics::new(34);
    let live = [
        "http.listen=127.0.0.1:0",
        "batch.linger_ms=100",
        "checkpoint.every_s=1",
        "kafka.discover_s=1",
    ];
    let mut train = Running::start(&mut two.command("train", "live", &live));
    let trainer = address(&mut train, "metrics and health on http://");
    let trained = |count: usize| format!("millrace_events_total{{result=\"trained\"}} {count}\n");
    wait_until(&trainer, "/metrics", |page| page.contains(&trained(EVENTS)));
    let lag = format!("millrace_consumer_lag{{partition=\"0\",topic=\"{}\"}} 0", two.orders);
    wait_until(&trainer, "/metrics", |page| page.contains(&lag));

    let mut serve = Running::start(&mut two.command("serve", "live", &["http.listen=127.0.0.1:0"]));
    let server = address(&mut serve, "answering on http://");
    let orders_at = |count: usize| {
        let (topic, count) = (two.orders.clone(), count as u64);
        move |page: &str| {
            let versions: Value = serde_json::from_str(page).unwrap_or_default();
            let other = &versions["histories"]["others"][0];
            other["topic"] == topic.as_str() && other["next"]["0"] == count
        }
    };
    wait_until(&server, "/v1/versions", orders_at(EVENTS / 2));
    let file = two.bench.directory.path().join("orders.jsonl");
    let orders: Vec<String> = half(1, 35).take(10).map(|line| as_order(&line)).collect();
    std::fs::write(&file, orders.join("\n")).expect("written");
    let mut produce = two.command("produce", "none", &[]);
    assert_eq!(json(produce.arg(&file).args(["--topic", &two.orders]))["lines"], 10);
    wait_until(&server, "/v1/versions", orders_at(EVENTS / 2 + 10));
    wait_until(&trainer, "/metrics", |page| page.contains(&trained(EVENTS + 10)));
    let keys = records(&two.orders);
    let key = keys.last().and_then(|record| record.key()).expect("the buyer's id");
    assert!(orders[9].contains(std::str::from_utf8(key).expect("text")), "{}", orders[9]);
    // A partition that the second topic gets meanwhile is found.
    grow_topic(&two.orders, 2);
    put(&two.orders, 1, orders[..5].iter().cloned());
    wait_until(&trainer, "/metrics", |page| page.contains(&trained(EVENTS + 15)));
    train.signal("-TERM");
    assert!(train.wait().1.success());
    let others = &inspect(&two.bench.checkpoints("live"))["offsets"]["others"];
    assert_eq!(others[0]["partitions"], value!({"0": EVENTS / 2 + 10, "1": 5}));
}
