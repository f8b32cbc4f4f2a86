//! Does `serve` read checkpoints that hold only what has changed, and does it outlive retention?

use std::path::{Path, PathBuf};

use millrace::checkpoint::Checkpoint;
use serde_json::json;

use super::{Client, Truth, config, ready, records, serve, user};
use crate::support::{Bench, Running, eventually, json as result};

/// Small batches: few rows change in a step.
const SMALL: &str = "batch.size=64";

fn manifests(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("checkpoints");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.join("manifest.json").exists())
        .collect();
    paths.sort();
    paths
}

/// Panics unless the answers are those of `truth`.
fn answers_as(client: &mut Client, truth: &Truth, records: &[String]) {
    for (query, record) in records.iter().enumerate() {
        let (status, answer) = client.post("/v1/retrieve", &json!({ "query": user(record) }));
        assert_eq!((status, &answer["version"]), (200, &json!(truth.version)), "{answer}");
        truth.holds(query, &answer["items"], 10);
    }
}

#[test]
fn a_checkpoint_is_read_with_those_that_it_builds_upon() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(9_000, 64);
    // Each replay goes on where the one before ended, and ends with a checkpoint.
    for end in [8_000, 8_004, 8_008] {
        let mut replay = bench.command("replay", "kept", &[SMALL, "checkpoint.keep=10"]);
        result(replay.arg("--to").arg(format!("offset:{end}")));
    }
    let from = bench.checkpoints("kept");
    let [_, second, last] = &manifests(&from)[..] else { panic!("three checkpoints") };
    let checkpoint = Checkpoint::open(last).expect("whole");
    assert_eq!(checkpoint.manifest.parents.len(), 2, "a base and an increment");
    let (config, records) = (config(&bench, &[SMALL]), records(64, 20));
    let [before, after] = [second, last].map(|path| Truth::of(&config, path, &records, 0.0));

    let aside = bench.checkpoints("aside");
    std::fs::rename(last, &aside).expect("moved");
    let (mut run, address) = serve(&bench, &from, &["serve.poll_ms=5", SMALL]);
    ready(&mut run);
    let mut client = Client::new(&address);
    answers_as(&mut client, &before, &records);
    // Half deleted: a name and a manifest.
    let half = bench.checkpoints("half");
    std::fs::create_dir(&half).expect("a directory");
    std::fs::copy(aside.join("manifest.json"), half.join("manifest.json")).expect("copied");
    std::fs::rename(&half, last).expect("moved");
    run.wait_for("skipped: ");
    answers_as(&mut client, &before, &records);
    std::fs::rename(last, &half).expect("moved");
    std::fs::rename(&aside, last).expect("moved");
    ready(&mut run);
    answers_as(&mut client, &after, &records);
}

#[test]
fn what_retention_deletes_while_it_is_read_is_followed_by_the_next() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(20_000, 65);
    let from = bench.checkpoints("kept");
    std::fs::create_dir(&from).expect("a directory");
    let (mut run, address) = serve(&bench, &from, &["serve.poll_ms=1"]);
    let sets = [SMALL, "checkpoint.every_steps=1", "checkpoint.keep=1", "checkpoint.base_every=3"];
    let (_, status) = Running::start(&mut bench.command("replay", "kept", &sets)).wait();
    assert!(status.success());
    ready(&mut run);
    let last = Checkpoint::resolve(&from).expect("a checkpoint").0.manifest.version;
    let mut client = Client::new(&address);
    let newest =
        |client: &mut Client| client.get("/v1/versions").1["versions"][0]["version"].clone();
    eventually(&format!("an answer of {last}"), &mut || newest(&mut client) == last);
    eventually("ready", &mut || client.get("/readyz").0 == 200);
}
