//! Do histories follow the topic, bit for bit, and what if they cannot?

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use millrace::checkpoint::Checkpoint;
use millrace::config::Config;
use millrace::pipeline;
use millrace::stream::cut::Cut;
use millrace::stream::decode::Mapping;
use millrace::stream::events_of;
use millrace::stream::log::Log;
use millrace::stream::position::{Position, Range};
use millrace::stream::source::{Next, Source};
use millrace_events::{Batch, Offsets};
use millrace_train::{Placement, Trainer};
use serde_json::{Value, json};

use super::{Client, ready, score, serve};
use crate::support::{Bench, PATIENCE, brokers, data, eventually, json as result, send};

const FOLLOW: &str = "serve.follow=true";

/// The config that the bench's runs have.
fn config(bench: &Bench, file: &str) -> Config {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
    let sets = [
        format!("kafka.brokers={}", brokers()),
        format!("kafka.topic={}", bench.topic),
        "kafka.dead_letter_topic=".to_owned(),
        "device=cpu".to_owned(),
    ];
    Config::load(Some(&path), &sets).expect("valid")
}

/// The trainer of the newest checkpoint.
fn trainer(config: &Config, bench: &Bench, name: &str) -> Trainer {
    let (checkpoint, _) = Checkpoint::resolve(&bench.checkpoints(name)).expect("a checkpoint");
    pipeline::restore(config, &Placement::Cpu, &checkpoint).expect("whole")
}

fn latest(config: &Config) -> Offsets {
    Log::of(config).expect("a client").resolve(Position::Latest).expect("the broker answers")
}

/// Reads to `to` as a trainer does, merged by time; histories move and the model stays.
fn pass_over(config: &Config, trainer: &mut Trainer, from: Offsets, to: &Offsets) {
    let range = Range { from, to: Some(to.clone()) };
    let mut source = Source::open(config, range, 1, Cut::Full, &Arc::default()).expect("opened");
    loop {
        match source.next(PATIENCE).expect("no trouble") {
            Next::Batch(batch) => trainer.pass_over(&batch),
            Next::End => return,
            Next::Idle => panic!("the broker has no more to say"),
        }
    }
}

/// Waits until an answer for `query` has read its history up to `to`.
fn read_to(client: &mut Client, query: &Value, to: &Offsets) {
    let next: BTreeMap<String, i64> =
        to.iter().map(|(partition, next)| (partition.to_string(), next)).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, answer) = client.post("/v1/embed", &json!({ "query": query }));
        assert_eq!(status, 200, "{answer}");
        if answer["offsets"]["next"] == json!(next) {
            return;
        }
        assert!(Instant::now() < deadline, "{} is not {next:?}", answer["offsets"]);
        std::thread::yield_now();
    }
}

/// The next `count` lines as a file; the last line of each user.
fn portion(
    bench: &Bench,
    lines: &mut dyn Iterator<Item = String>,
    count: usize,
) -> (std::path::PathBuf, BTreeMap<String, String>) {
    let path = bench.directory.path().join("portion.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    let mut last = BTreeMap::new();
    for line in lines.take(count) {
        writeln!(file, "{line}").expect("written");
        let record: Value = serde_json::from_str(&line).expect("JSON");
        last.insert(record["user_id"].to_string(), line);
    }
    file.flush().expect("written");
    (path, last)
}

/// 100,000 ratings behind a version, on four partitions: at nine places of the log the query
/// vector of every user that was active has the bits of the version's own trainer there.
#[test]
fn a_history_behind_a_version_is_the_trainers_to_the_bit() {
    let Some(path) = data("ml-1m/ratings.jsonl.gz") else { return };
    let lines = BufReader::new(GzDecoder::new(std::fs::File::open(path).expect("readable")));
    let mut lines = lines.lines().map(|line| line.expect("text"));
    let bench = Bench::new("ml-1m.toml", 4);
    let config = config(&bench, "ml-1m.toml");
    bench.produce(&portion(&bench, &mut lines, 20_000).0);
    result(&mut bench.command("replay", "kept", &[]));
    let mut trainer = trainer(&config, &bench, "kept");
    let (mut run, address) = serve(&bench, &bench.checkpoints("kept"), &[FOLLOW]);
    ready(&mut run);
    let mut client = Client::new(&address);
    let (mut compared, mut from) = (0, trainer.progress().offsets.clone());
    for _ in 0..8 {
        let (file, users) = portion(&bench, &mut lines, 12_500);
        bench.produce(&file);
        let to = latest(&config);
        pass_over(&config, &mut trainer, std::mem::replace(&mut from, to.clone()), &to);
        let mut mapping = Mapping::new(&config);
        let records: Vec<&String> = users.values().collect();
        let query = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        read_to(&mut client, &query(records[0]), &to);
        for record in records {
            let mut events = events_of(&config);
            mapping.decode(Some(record.as_bytes()), Some(0), &mut events).expect("a record");
            let own = trainer.state().embed_now(&Batch::new(events, Offsets::new("t")));
            let (_, answer) = client.post("/v1/embed", &json!({ "query": query(record) }));
            let served: Vec<f32> =
                answer["vector"].as_array().expect("a vector").iter().map(score).collect();
            assert_eq!(served, own, "{record}");
            compared += 1;
        }
    }
    println!("{compared} vectors compared behind 100,000 events");
    assert!(compared > 500);
}

fn click(user: &str, item: &str, time_ms: u64) -> String {
    json!({ "user": user, "item": item, "category": "c1", "time_ms": time_ms }).to_string()
}

/// Sends one record and waits for the broker's word; the history of `user` that has it, and the
/// answer's offsets. Panics if it takes too long.
fn seen(bench: &Bench, client: &mut Client, user: &str, item: &str) -> (Duration, Value) {
    send(&bench.topic, &[Some(click(user, item, 1_700_000_100_000).as_bytes())]);
    let acknowledged = Instant::now();
    loop {
        let body = json!({ "query": { "user": user }, "k": 1, "explain": true });
        let (_, answer) = client.post("/v1/retrieve", &body);
        let last = answer["explain"]["history"].as_array().expect("a history").last();
        if last == Some(&json!(item)) {
            return (acknowledged.elapsed(), answer);
        }
        assert!(acknowledged.elapsed() < PATIENCE, "{answer}");
    }
}

/// What became of the records that were read behind the versions.
fn counted(client: &mut Client) -> Vec<String> {
    let page = client.get("/metrics").1;
    let series = ["millrace_rejected_total", "millrace_history_records_total"];
    let lines = page.as_str().expect("text").lines();
    let lines = lines.filter(|line| series.iter().any(|name| line.starts_with(name)));
    lines.map(str::to_owned).collect()
}

/// Every query of the dashboard has series to look at.
fn the_dashboard_is_answered(page: &str) {
    let dashboard = include_str!("../../../dashboards/serve.json");
    let words = dashboard.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    let mut asked: Vec<&str> = words.filter(|word| word.starts_with("millrace_")).collect();
    asked.sort_unstable();
    asked.dedup();
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        assert!(
            page.contains(&format!("{name}{{")) || page.contains(&format!("{name} ")),
            "{name}"
        );
    }
}

#[test]
fn the_last_click_counts_in_the_next_answer_and_a_new_version_goes_on() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(10_000, 65);
    result(&mut bench.command("replay", "kept", &[]));
    let from = bench.checkpoints("kept");
    let (mut run, address) = serve(&bench, &from, &[FOLLOW, "serve.poll_ms=20"]);
    ready(&mut run);
    let mut client = Client::new(&address);
    // What cannot be used is passed over, and counted once.
    send(&bench.topic, &[Some(b"no JSON"), None]);
    let items = ["i1", "i2", "i3", "i4", "i5"];
    let mut took: Vec<Duration> =
        (0..50).map(|turn| seen(&bench, &mut client, "u7", items[turn % 5]).0).collect();
    took.sort_unstable();
    println!("acknowledged to answered: p50 {:?}, most {:?}", took[25], took[49]);
    assert!(took[25] < Duration::from_millis(500), "{took:?}");
    let (_, answer) = seen(&bench, &mut client, "u7", "i9");
    assert_eq!(answer["offsets"]["next"]["0"], json!(10_000 + 2 + 51));
    let before = counted(&mut client);
    for line in [
        "millrace_rejected_total{reason=\"not_json\"} 1",
        "millrace_rejected_total{reason=\"tombstone\"} 1",
        "millrace_history_records_total{result=\"taken\"} 51",
        "millrace_history_records_total{result=\"rejected\"} 2",
    ] {
        assert!(before.iter().any(|there| there == line), "{line} in {before:?}");
    }
    // The items of its history are left out where the request says so.
    let body = json!({ "query": { "user": "u7" }, "k": 1000, "exclude_seen": true });
    let unseen = client.post("/v1/retrieve", &body).1["items"].to_string();
    assert!(!unseen.contains("\"i9\"") && unseen.contains("\"i7\""), "{unseen}");
    // A version that has learned from all of it has the same history, and so has a version that is
    // opened with nothing behind it.
    result(&mut bench.command("replay", "kept", &[]));
    ready(&mut run);
    let body = json!({ "query": { "user": "u7" }, "k": 1, "explain": true });
    let newer = client.post("/v1/retrieve", &body).1;
    assert_ne!(newer["version"], answer["version"]);
    assert_eq!(newer["explain"]["history"], answer["explain"]["history"]);
    assert_eq!(newer["offsets"], answer["offsets"]);
    let pinned =
        json!({ "query": { "user": "u7" }, "explain": true, "version": answer["version"] });
    let older = client.post("/v1/retrieve", &pinned).1;
    assert_eq!(older["explain"]["history"], answer["explain"]["history"]);
    assert_eq!(older["explain"]["vector"], answer["explain"]["vector"]);
    let (_, answer) = seen(&bench, &mut client, "u7", "i11");
    assert_eq!(answer["version"], newer["version"]);
    assert_eq!(answer["offsets"]["next"]["0"], json!(10_000 + 2 + 52));
    let after = counted(&mut client);
    assert!(after.iter().any(|line| line.ends_with("{result=\"taken\"} 52")), "{after:?}");
    let (_, versions) = client.get("/v1/versions");
    assert_eq!(versions["histories"]["state"], "following");
    assert_eq!(versions["histories"]["lag"], 0);
    let page = client.get("/metrics").1.to_string();
    assert!(page.contains("millrace_freshness_seconds_count{stage=\\\"served\\\"} "), "{page}");
    assert!(page.contains("millrace_histories_following 1\\n"), "{page}");
    the_dashboard_is_answered(&page);
}

#[test]
fn without_kafka_answers_go_on_and_say_so() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(5_000, 66);
    result(&mut bench.command("replay", "kept", &[]));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let brokers = format!("kafka.brokers={}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let from = bench.checkpoints("kept");
    let (mut run, address) = serve(&bench, &from, &[FOLLOW, &brokers]);
    ready(&mut run);
    run.wait_for("histories stay as they are");
    let mut client = Client::new(&address);
    let (_, versions) = client.get("/v1/versions");
    let histories = &versions["histories"];
    assert_eq!(histories["state"], "away", "{versions}");
    assert!(histories["detail"].as_str().expect("why").contains("no answer from the brokers"));
    let body = json!({ "query": { "user": "u1" }, "explain": true });
    let (status, answer) = client.post("/v1/retrieve", &body);
    assert_eq!((status, &answer["offsets"]["next"]["0"]), (200, &json!(5_000)));
    assert!(!answer["explain"]["history"].as_array().expect("a history").is_empty());
    assert_eq!(client.get("/readyz").0, 200);
    run.signal("-TERM");
    let (took, status) = run.wait();
    assert!(status.success() && took < Duration::from_secs(5), "{took:?}");
}

/// A version that left is not kept by who waits for brokers, which takes ten seconds.
#[test]
fn brokers_that_are_away_keep_no_version_in_memory() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(5_000, 69);
    let replay = |end: &str| {
        result(bench.command("replay", "kept", &["checkpoint.keep=10"]).args(["--to", end]));
        let newest = Checkpoint::newest(&bench.checkpoints("kept")).expect("readable");
        newest.expect("a checkpoint").path
    };
    replay("offset:4000");
    let (last, aside) = (replay("offset:5000"), bench.checkpoints("aside"));
    std::fs::rename(&last, &aside).expect("moved");
    // It takes a connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let brokers = format!("kafka.brokers={}", silent.local_addr().expect("bound"));
    let sets = [FOLLOW, &brokers, "serve.keep_versions=1", "serve.poll_ms=5"];
    let (mut run, address) = serve(&bench, &bench.checkpoints("kept"), &sets);
    ready(&mut run);
    let _waited_for = silent.accept().expect("a client");
    std::fs::rename(&aside, &last).expect("moved");
    ready(&mut run);
    let mut client = Client::new(&address);
    eventually("one version in memory", &mut || {
        client.get("/metrics").1.to_string().contains("millrace_served_versions 1\\n")
    });
    let (_, versions) = client.get("/v1/versions");
    assert_ne!(versions["histories"]["state"], "away", "it waits no more: {versions}");
}

/// What is read is bounded: past it histories stand still, and answers say where.
#[test]
fn a_full_memory_takes_nothing_more_and_says_so() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(5_000, 67);
    result(&mut bench.command("replay", "kept", &[]));
    let from = bench.checkpoints("kept");
    let sets = [FOLLOW, "serve.follow_bytes_max=20000", "serve.poll_ms=20"];
    let (mut run, address) = serve(&bench, &from, &sets);
    ready(&mut run);
    bench.produce_synthetic(5_000, 68);
    run.wait_for("serve.follow_bytes_max is reached");
    let mut client = Client::new(&address);
    let (_, answer) = client.post("/v1/embed", &json!({ "query": { "user": "u1" } }));
    let stands = answer["offsets"]["next"]["0"].as_i64().expect("an offset");
    assert!((5_001..9_000).contains(&stands), "{answer}");
    let (_, versions) = client.get("/v1/versions");
    assert_eq!(versions["histories"]["state"], "full");
    assert!(versions["histories"]["bytes"].as_i64().expect("bytes") < 60_000);
    // Two newer versions, and nothing in memory is older.
    for end in [7_500, 10_000] {
        let mut replay = bench.command("replay", "kept", &[]);
        result(replay.arg("--to").arg(format!("offset:{end}")));
        ready(&mut run);
    }
    run.wait_for("histories follow the topic again");
    let mut query = json!({ "user": "u1" });
    query["category"] = json!("c1");
    read_to(&mut client, &query, &latest(&config(&bench, "demo.toml")));
}
