//! What reaches the output topics, and what must not.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::Instant;

use rdkafka::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::support::{
    Bench, PATIENCE, Running, client, create_topic, inspect, json, records, run_to_end,
};

fn versions(bench: &Bench) -> Vec<Value> {
    let markers = records(&format!("{}-versions", bench.topic));
    let value = |payload: &[u8]| serde_json::from_slice(payload).expect("JSON");
    markers.iter().map(|marker| value(marker.payload().expect("a value"))).collect()
}

fn run(bench: &Bench, command: &str, name: &str, sets: &[&str], args: &[&str]) -> Output {
    let mut command = bench.command(command, name, sets);
    command.args(args).output().expect("millrace can be run")
}

fn log(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_replay_publishes_when_it_is_asked_and_no_two_runs_share_a_version() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(5_000, 51);
    let silent = json(&mut bench.command("replay", "kept", &[]));
    assert_eq!(silent["published"], 0);
    assert!(versions(&bench).is_empty());
    assert!(records(&format!("{}-out", bench.topic)).is_empty());

    let publish = |fresh: bool| {
        let mut command = bench.command("replay", "kept", &[]);
        command.arg("--publish").args(fresh.then_some("--fresh"));
        json(&mut command)
    };
    let runs = [publish(false), publish(true), publish(true)];
    let versions = versions(&bench);
    println!("{versions:?}");
    assert_eq!(versions.len(), 3);
    for (run, version) in runs.iter().zip(&versions) {
        assert!(run["published"].as_u64() > Some(100));
        assert_eq!(
            (&run["published"], &run["version"]),
            (&version["vectors"], &version["version"])
        );
        assert_eq!(run["digest"], silent["digest"], "no digest depends on the run's name");
        assert_eq!(version["step"], 5);
    }
    let ids: Vec<&str> = versions.iter().filter_map(|v| v["version"].as_str()).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    let newest = inspect(&bench.checkpoints("kept"));
    let run = newest["run"].as_str().expect("a run");
    assert_eq!(ids[2], format!("{run}-000000000005"));
    assert!(bench.checkpoints("kept").join("000000000005").exists(), "a step's name, as before");
    // The state went on, so it kept its name.
    let aside = inspect(&bench.checkpoints("kept").join("set-aside-1/000000000005"));
    assert_eq!(aside["version"], ids[0]);
}

/// The one that hung for ever: its first publication failed and many checkpoints followed.
#[test]
fn a_replay_that_cannot_publish_ends_with_the_reason_and_a_last_checkpoint() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(20_000, 52);
    // The broker makes topics on demand; this one takes no vector.
    let small = format!("{}-small", bench.topic);
    create_topic(&small, 1, Some(("max.message.bytes", "64")));
    let topic = format!("publish.topic={small}");
    let sets = [
        "batch.size=128",
        "checkpoint.every_steps=5",
        "publish.every_checkpoints=1",
        topic.as_str(),
    ];
    let mut command = bench.command("replay", "kept", &sets);
    command.arg("--publish");
    let began = Instant::now();
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("millrace can be run");
    let stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(stderr).expect("text"));
    let (ended, end) = std::sync::mpsc::channel();
    let id = child.id();
    let waiter = std::thread::spawn(move || ended.send(child.wait()));
    let Ok(status) = end.recv_timeout(PATIENCE) else {
        let killed = std::process::Command::new("kill").arg("-KILL").arg(id.to_string()).status();
        assert!(killed.expect("kill can be run").success());
        panic!("still there after {PATIENCE:?}:\n{}", reader.join().expect("no panic"));
    };
    waiter.join().expect("no panic").expect("received");
    let log = reader.join().expect("no panic");
    println!("ended after {:?}", began.elapsed());
    assert_eq!(status.expect("it ends").code(), Some(1), "{log}");
    assert!(log.contains(&format!("records of `{small}` were not delivered")), "{log}");
    let undelivered = log.lines().filter(|line| line.contains("not delivered")).count();
    assert!(undelivered <= 2, "a line where it happens and one at the end:\n{log}");
    assert!(inspect(&bench.checkpoints("kept"))["step"].as_u64() > Some(0));
    assert!(versions(&bench).is_empty());
}

#[test]
fn a_run_that_trained_nothing_leaves_nothing_behind() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(3_000, 53);
    let good = json(&mut bench.command("replay", "kept", &["model.dim=16"]));
    assert_eq!(good["trained"], 3_000);
    // The mapping names a field that is not there: every record is rejected.
    let wrong = ["query.id=nobody", "kafka.rejected_share_max=1.0"];
    let output = run(&bench, "replay", "wrong", &wrong, &["--publish", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(log(&output).contains("the range holds no usable event"), "{}", log(&output));
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON all the same");
    assert_eq!((&result["rejected"], &result["trained"]), (&3_000.into(), &0.into()));
    assert_eq!((&result["checkpoint"], &result["digest"]), (&Value::Null, &Value::Null));
    assert_eq!(result["published"], 0);
    assert!(versions(&bench).is_empty(), "no marker");

    let publish = run(&bench, "publish", "wrong", &[], &[]);
    assert_eq!(publish.status.code(), Some(1), "there is no checkpoint");
    let corrected = json(&mut bench.command("replay", "wrong", &["model.dim=16"]));
    assert_eq!(corrected["digest"], good["digest"], "as if the wrong run had not been");
}

#[test]
fn a_password_stands_in_no_file_and_in_no_line() {
    const SECRET: &str = "open-sesame-31415926";
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(3_000, 54);
    let password = format!("kafka.properties.sasl.password={SECRET}");
    let output = run(&bench, "replay", "kept", &[&password], &["--publish"]);
    assert!(output.status.success(), "{}", log(&output));
    let mut shown = vec![output];
    let directory = bench.checkpoints("kept");
    shown.push(
        std::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
            .arg("inspect")
            .arg("--config")
            .arg(&directory)
            .output()
            .expect("millrace can be run"),
    );
    // Librdkafka quotes a value that it refuses, and so did we a malformed argument.
    let misspelt = format!("kafka.properties.sasl.passwrd={SECRET}");
    let malformed = format!("kafka.properties.sasl.password:{SECRET}");
    let hostile = format!("kafka.properties.ssl.key.pem={SECRET}");
    for set in [misspelt, malformed, hostile] {
        let tls = "kafka.properties.security.protocol=SSL"; // else nobody looks at the key
        let output = run(&bench, "replay", "other", &[tls, &set], &[]);
        assert!(!output.status.success(), "{set} is refused");
        assert!(log(&output).contains("kafka.properties"), "{}", log(&output));
        shown.push(output);
    }
    for output in shown {
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), log(&output));
        assert!(!text.contains(SECRET), "{text}");
    }
    assert!(files(&directory, SECRET.as_bytes()) > 10);
}

/// The name under which publishers of the bench's output topic write.
fn transactional_id(bench: &Bench) -> String {
    format!("millrace-{}-out", bench.topic)
}

/// Whoever begins later writes, and what the earlier one had begun never was.
#[test]
fn a_second_publisher_shuts_the_first_one_out() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(3_000, 55);
    json(&mut bench.command("replay", "kept", &[]));
    let first: BaseProducer = client()
        .set("transactional.id", transactional_id(&bench))
        .create()
        .expect("a transactional producer");
    first.init_transactions(PATIENCE).expect("the broker answers");
    first.begin_transaction().expect("it is the only one");
    let out = format!("{}-out", bench.topic);
    first.send(BaseRecord::to(&out).key("half").payload("a version")).expect("queued");
    first.flush(PATIENCE).expect("delivered");

    let published = json(&mut bench.command("publish", "kept", &[]));
    assert!(published["published"].as_u64() > Some(100), "{published}");
    let error = first.commit_transaction(PATIENCE).expect_err("it is shut out").to_string();
    println!("the first one: {error}");
    let vectors = records(&out);
    assert_eq!(vectors.len() as u64, published["published"].as_u64().expect("a number"));
    assert!(vectors.iter().all(|record| record.key() != Some(b"half")), "half a version");

    // The other way round: a trainer that is shut out says so, and comes back as long as nobody
    // else has published.
    let sets = ["checkpoint.every_steps=1", "publish.every_checkpoints=1"];
    let mut run = Running::start(&mut bench.command("train", "kept", &sets));
    bench.produce_synthetic(1_000, 56);
    run.wait_for("published version");
    let second: BaseProducer = client()
        .set("transactional.id", transactional_id(&bench))
        .create()
        .expect("a transactional producer");
    second.init_transactions(PATIENCE).expect("the broker answers");
    bench.produce_synthetic(1_000, 57);
    run.wait_for("another publisher has begun to write under the same name");
    bench.produce_synthetic(1_000, 58);
    run.wait_for("published version");
    run.signal("-TERM");
    assert!(run.wait().1.success());
    in_order(&bench);
}

/// Asserts that versions are in order, each says which was before it, and the vectors that a reader
/// finds are those of the last one, all of them.
fn in_order(bench: &Bench) {
    let versions = versions(bench);
    let ids: Vec<&str> = versions.iter().filter_map(|v| v["version"].as_str()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    for pair in versions.windows(2) {
        assert_eq!(pair[1]["previous"], pair[0]["version"]);
    }
    let last = versions.last().expect("a version");
    let mut held = BTreeMap::new();
    for record in records(&format!("{}-out", bench.topic)) {
        match record.payload() {
            Some(value) => held.insert(record.key().map(<[u8]>::to_vec), value.to_vec()),
            None => held.remove(&record.key().map(<[u8]>::to_vec)),
        };
    }
    assert_eq!(held.len() as u64, last["vectors"].as_u64().expect("a number"));
    for value in held.values() {
        let value: Value = serde_json::from_slice(value).expect("JSON");
        assert_eq!(value["version"], last["version"]);
    }
}

/// A stop waits for no sweep and a kill for nothing. On a topic without new events the next start
/// is the only chance to publish what was learned last.
#[test]
fn what_is_durable_is_published_at_the_next_start_once() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(3_000, 59);
    let replayed = json(&mut bench.command("replay", "kept", &[]));
    assert!(versions(&bench).is_empty());
    for _ in 0..2 {
        let mut run = Running::start(&mut bench.command("train", "kept", &[]));
        let mut sign = run.wait_for("going on from a checkpoint");
        if versions(&bench).is_empty() {
            sign = run.wait_for("published version");
        }
        println!("{sign}");
        run.signal("-TERM");
        assert!(run.wait().1.success());
    }
    let versions = versions(&bench);
    assert_eq!(versions.len(), 1, "{versions:?}");
    assert_eq!(versions[0]["state_digest"], replayed["digest"]);
}

/// Items of an earlier run, and of a corpus that forgot them, do not stay on the topic for ever.
#[test]
fn a_new_run_takes_away_what_it_does_not_have() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(5_000, 60);
    let replay = |sets: &[&str], fresh: bool| {
        let mut command = bench.command("replay", "kept", sets);
        json(command.arg("--publish").args(fresh.then_some("--fresh")))
    };
    let first = replay(&[], false);
    let second = replay(&["corpus.items_max=50", "corpus.tombstone_events=0"], true);
    let items = |run: &Value| run["published"].as_u64().expect("a number");
    assert!(items(&first) > 100 && items(&second) <= 50, "{first} {second}");
    let mut held = std::collections::BTreeSet::new();
    for record in records(&format!("{}-out", bench.topic)) {
        let key = record.key().map(<[u8]>::to_vec);
        if record.payload().is_some() {
            held.insert(key)
        } else {
            held.remove(&key)
        };
    }
    assert_eq!(held.len() as u64, items(&second));

    // The earlier run may not come back by accident.
    let aside = bench.checkpoints("kept").join("set-aside-1/000000000005");
    let mut publish = bench.command("publish", "kept", &[]);
    publish.arg("--checkpoint").arg(&aside);
    let (status, log) = run_to_end(&mut publish);
    assert!(status == Some(1) && log.contains("--take-over"), "{log}");
    let taken = json(publish.arg("--take-over"));
    assert_eq!(items(&taken), items(&first));
}

/// A sink that makes its table from the first value has nothing to delete from before.
#[test]
fn a_topic_without_a_version_gets_no_tombstones() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(5_000, 60);
    let mut command = bench.command("replay", "kept", &["corpus.items_max=50"]);
    let run = json(command.arg("--publish"));
    assert!(run["published"].as_u64().is_some_and(|items| items <= 50), "{run}");
    let records = records(&format!("{}-out", bench.topic));
    assert!(!records.is_empty() && records.iter().all(|record| record.payload().is_some()));
}

/// The topics of a config that nobody has made are what the docs say.
#[test]
fn output_topics_that_are_not_there_are_made_compacted() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(3_000, 61);
    let names = ["new-out", "new-versions"].map(|name| format!("{}-{name}", bench.topic));
    let topics =
        [format!("publish.topic={}", names[0]), format!("publish.versions_topic={}", names[1])];
    let own = |rest: &[&'static str]| -> Vec<String> {
        topics.iter().cloned().chain(rest.iter().map(|set| (*set).to_owned())).collect()
    };
    let replay = |sets: &[String]| {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        run(&bench, "replay", "kept", &sets, &["--publish"])
    };
    let made = replay(&own(&[]));
    assert!(made.status.success(), "{}", log(&made));
    for (name, partitions) in names.iter().zip([4, 1]) {
        assert!(log(&made).contains(&format!("topic=\"{name}\"")), "{}", log(&made));
        let mut check = bench.command("check", "kept", &[&topics[0], &topics[1]]);
        let check = check.arg("--connect").output().expect("millrace can be run");
        let text = format!("{}{}", String::from_utf8_lossy(&check.stdout), log(&check));
        let found = text.lines().any(|line| {
            line.contains(name.as_str())
                && line.contains(&format!("{partitions} partitions, compact"))
        });
        assert!(found, "{name}: {text}");
    }
    assert!(!log(&replay(&own(&[]))).contains("is not compacted"));
    // What there is, is left as it is, and warned of once.
    let other = run(&bench, "replay", "kept", &[], &["--publish"]);
    let warned = log(&other).lines().filter(|line| line.contains("is not compacted")).count();
    assert_eq!(warned, 1, "{}", log(&other));
}

/// Asserts that no file below `directory` holds `secret`; the number of files.
fn files(directory: &Path, secret: &[u8]) -> usize {
    let entries = std::fs::read_dir(directory).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .map(|path| {
            if path.is_dir() {
                return files(&path, secret);
            }
            let bytes = std::fs::read(&path).expect("readable");
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{}", path.display());
            1
        })
        .sum()
}
