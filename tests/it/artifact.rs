//! Does a bundle say enough? Programs that know nothing but its page compute its examples.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Bench, inspect, json, python};

/// Every kind of feature that a query may have.
const CONFIG: &str = r#"
[batch]
size = 256
[query]
id = "who.id"
[[query.features]]
name = "who"
kind = "id"
field = "who.id"
table = "who"
dropout = 0.1
[[query.features]]
name = "tags"
kind = "bag"
field = "tags"
table = "tag"
length = 3
optional = true
[[query.features]]
name = "last"
kind = "history"
table = "item"
length = 4
[[query.features]]
name = "age"
kind = "number"
field = "years | age"
transform = "zscore"
optional = true
[[query.features]]
name = "depth"
kind = "number"
field = "depth"
transform = "log"
optional = true
[[query.features]]
name = "raw"
kind = "number"
field = "depth"
optional = true
[[query.features]]
name = "given"
kind = "vector"
field = "given"
length = 3
optional = true
[[query.features]]
name = "tastes"
kind = "bag"
field = "tastes"
weights = "tastes_by"
table = "tag"
optional = true
[[query.features]]
name = "clicked"
kind = "history"
field = "clicked"
table = "item"
length = 2
optional = true
[[query.features]]
name = "greatest tags"
kind = "bag"
field = "tags"
table = "tag"
pool = "max"
optional = true
[[query.features]]
name = "mean tastes"
kind = "bag"
field = "tastes"
weights = "tastes_by"
table = "tag"
pool = "mean"
optional = true
[[query.features]]
name = "fading clicks"
kind = "history"
field = "clicked"
table = "item"
length = 3
half_life = 1.5
optional = true
[[query.features]]
name = "fading"
kind = "history"
table = "item-{length}"
lengths = [2, 6]
half_life = 2
[[query.features]]
name = "attended"
kind = "history"
table = "item"
length = 5
pool = "attention"
half_life = 3
[[query.features]]
name = "attended clicks"
kind = "history"
field = "clicked"
table = "item"
length = 3
pool = "attention"
optional = true
[[query.features]]
name = "known age"
kind = "number"
field = "age"
transform = "zscore"
clip = [20, 45]
missing = true
optional = true
[[query.features]]
name = "band"
kind = "number"
field = "age"
transform = "buckets"
boundaries = [20.0, 40.0]
table = "band"
optional = true
[item]
id = "item"
features = [{ name = "item", kind = "id", field = "item", table = "item" }]
[timestamp]
field = "at"
[model]
hidden = [32]
dim = 16
[embedding]
dim = 8
[history]
queries_max = 1000
"#;

fn lines() -> String {
    let mut lines = String::new();
    for n in 0..4_000_u64 {
        let who: Value = if n % 3 == 0 { json!(n % 97) } else { json!(format!("w{}", n % 53)) };
        let tags = [json!("new"), json!(n % 5), json!(n % 2 == 0), Value::Null, json!("old")];
        let mut record = json!({
            "who": {"id": who}, "item": format!("i{}", n * n % 61), "at": 1_700_000_000_000 + n,
            "tags": tags[..(n % 6).min(5) as usize],
            "tastes": ["a", n % 3], "tastes_by": [0.5, n % 4],
            "clicked": [format!("i{}", n % 61), "i3", "i4"], "age": 15 + n % 40,
            "depth": (n as f64 - 2_000.0) / 7.0, "given": [n as f64 / 4_000.0, -1.5, 2],
            "colour": "of no use",
        });
        if n % 11 == 0 {
            record["age"] = Value::Null;
            record["tags"] = json!("alone");
        }
        writeln!(lines, "{record}").expect("text");
    }
    lines
}

/// A bench whose topic holds [`lines`], trained, and its config.
fn trained() -> (Bench, PathBuf) {
    let bench = Bench::new("demo.toml", 1);
    let config = bench.directory.path().join("all-kinds.toml");
    std::fs::write(&config, CONFIG).expect("the directory is ours");
    let log = bench.directory.path().join("log.jsonl");
    std::fs::write(&log, lines()).expect("the directory is ours");
    let mut produce = bench.command_of(&config, "produce", "none", &[]);
    assert_eq!(json(produce.arg(&log))["lines"], 4_000);
    let replay = json(&mut bench.command_of(&config, "replay", "kept", &[]));
    assert_eq!(replay["trained"], 4_000, "{replay}");
    (bench, config)
}

/// The programs of docs/reference/artifact.md.
fn programs() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/artifact.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let blocks = page.split("```python\n").skip(1);
    blocks.filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

/// Runs a program on a bundle; what it prints.
fn run(python: &Path, program: &str, bundle: &Path) -> String {
    let output = Command::new(python).arg("-c").arg(program).arg(bundle).output();
    let output = output.expect("python can be run");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The distance at the end of a line.
fn away(line: &str) -> f64 {
    let (_, rest) = line.split_once("at most ").expect(line);
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect(line)
}

#[test]
fn a_bundle_is_computed_by_numpy_and_onnxruntime_alike() {
    let (bench, config) = trained();
    let to = bench.directory.path().join("bundle");
    let mut export = bench.command_of(&config, "export", "kept", &[]);
    let exported = json(export.arg("--to").arg(&to));
    let spec = std::fs::read(to.join("spec.json")).expect("a spec");
    let spec: Value = serde_json::from_slice(&spec).expect("JSON");
    let checkpoint = inspect(&bench.checkpoints("kept"));
    assert_eq!(
        (&spec["version"], &spec["state_digest"]),
        (&exported["version"], &checkpoint["digest"])
    );
    let examples = spec["examples"].as_array().expect("examples");
    assert_eq!(examples.len(), 20);
    let real = examples.iter().filter(|example| example["query"]["given"][1] == -1.5).count();
    assert_eq!(real, 16, "of the log");
    assert!(
        examples.iter().all(|example| example["query"]["colour"].is_null()),
        "the query's alone"
    );
    // It is whole, and stays.
    let mut again = bench.command_of(&config, "export", "kept", &[]);
    let again = again.arg("--to").arg(&to).output().expect("millrace can be run");
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"));

    let Some(python) = python(&["numpy", "safetensors", "xxhash", "onnxruntime"]) else { return };
    let printed = run(&python, &programs().concat(), &to);
    println!("{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("20 ")), "{printed}");
    for line in lines {
        assert!(away(line) <= 1e-5, "{line}");
    }
    // A row that is another one is seen.
    let sabotaged = programs()[0].replace("z ^ z >> 31", "z ^ z >> 30");
    assert!(away(run(&python, &sabotaged, &to).lines().next().expect("a line")) > 1e-4);
}

#[test]
fn the_newest_bundles_stay_and_markers_name_them() {
    let (bench, config) = trained();
    let directory = bench.directory.path().join("bundles");
    let sets =
        [format!("artifact.directory={}", directory.display()), "artifact.keep=2".to_owned()];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let log = bench.directory.path().join("more.jsonl");
    for round in 0..3 {
        let mut replay = bench.command_of(&config, "replay", "again", &sets);
        json(replay.arg("--publish"));
        let more: Vec<String> =
            lines().lines().skip(round * 300).take(300).map(str::to_owned).collect();
        std::fs::write(&log, more.join("\n")).expect("the directory is ours");
        json(bench.command_of(&config, "produce", "none", &[]).arg(&log));
    }
    let markers = crate::support::records(&format!("{}-versions", bench.topic));
    let marker = |record: &rdkafka::message::OwnedMessage| -> Value {
        let value = rdkafka::Message::payload(record).expect("a value");
        serde_json::from_slice(value).expect("JSON")
    };
    let markers: Vec<Value> = markers.iter().map(marker).collect();
    assert_eq!(markers.len(), 3, "{markers:?}");
    let there = std::fs::read_dir(&directory).expect("readable").count();
    assert_eq!(there, 2);
    let newest = markers.last().expect("a marker");
    let path = Path::new(newest["artifact"].as_str().expect("a path"));
    assert!(path.ends_with(newest["version"].as_str().expect("a name")), "{newest}");
    let spec = std::fs::read(path.join("spec.json")).expect("it is there");
    let digest = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&spec));
    assert_eq!(newest["artifact_digest"], digest);
}
