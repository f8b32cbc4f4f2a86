//! What reaches the output topics, and what must not.

use std::path::Path;
use std::process::Output;
use std::time::Instant;

use rdkafka::Message;
use serde_json::Value;

use crate::support::{Bench, PATIENCE, create_topic, inspect, json, records};

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
