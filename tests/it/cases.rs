//! Logs as people have them (tests/cases): what becomes of them on a real broker.

use std::path::Path;
use std::process::Command;

use rdkafka::Message;
use rdkafka::message::Headers;
use serde_json::Value;

use crate::support::{Bench, create_topic, json, records, run_to_end, send, synthetic};

/// A mapping of tests/cases, with more `features` of an item.
fn config(bench: &Bench, features: &str) -> std::path::PathBuf {
    let path = bench.directory.path().join("case.toml");
    let text = format!(
        "[timestamp]\nfield = \"ts\"\n\
         [query]\nid = \"user_id\"\n\
         features = [{{ name = \"user\", kind = \"id\", field = \"user_id\", table = \"user\" }}]\n\
         [item]\nid = \"item_id\"\n\
         features = [{{ name = \"item\", kind = \"id\", field = \"item_id\", table = \"item\" }}\
         {features}]\n\
         [model]\nhidden = [16]\ndim = 8\n[embedding]\ndim = 8\n[batch]\nsize = 64\n\
         [kafka]\nrejected_share_max = 1.0\n[publish]\ntopic = \"\"\n"
    );
    std::fs::write(&path, text).expect("written");
    path
}

/// A replay of what is on the bench's topic: its result and its log.
fn replay(bench: &Bench, features: &str) -> (Value, String) {
    let config = config(bench, features);
    let mut command = bench.command_of(&config, "replay", "run", &["publish.topic="]);
    let output = command.arg("--json").output().expect("millrace can be run");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    (serde_json::from_slice(&output.stdout).expect("JSON"), log)
}

/// A replay of a file of tests/cases, as `produce` sends it.
fn case(file: &str, features: &str) -> (Bench, Value, String) {
    let bench = Bench::new("demo.toml", 1);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(file);
    let mapping = config(&bench, features);
    json(bench.command_of(&mapping, "produce", "none", &[]).arg(path));
    let (result, log) = replay(&bench, features);
    (bench, result, log)
}

fn counts(result: &Value) -> (u64, u64) {
    let count = |key: &str| result[key].as_u64().expect("a count");
    (count("trained"), count("rejected"))
}

#[test]
fn numbers_in_quotes_are_numbers() {
    let price = ", { name = \"price\", kind = \"number\", field = \"price\" }";
    let (_, result, _) = case("numeric-strings.jsonl", price);
    assert_eq!(counts(&result), (300, 0));
}

#[test]
fn a_nan_that_nobody_maps_is_nothing_and_one_that_is_mapped_is_named() {
    let (_, result, _) = case("python-nan.jsonl", "");
    assert_eq!(counts(&result), (300, 0));
    let dwell = ", { name = \"dwell\", kind = \"number\", field = \"dwell\" }";
    let (bench, result, log) = case("python-nan.jsonl", dwell);
    let rejected = result["rejected"].as_u64().expect("a count");
    assert!(rejected > 0 && result["rejected_by_reason"]["bad_number"] == rejected, "{result}");
    assert!(log.contains("dwell") && log.contains("NaN"), "{log}");
    assert_eq!(records(&bench.dead()).len() as u64, rejected);
    let optional = ", { name = \"dwell\", kind = \"number\", field = \"dwell\", optional = true }";
    let (_, result, log) = case("python-nan.jsonl", optional);
    assert_eq!(counts(&result), (300, 0));
    assert!(log.contains("counts as absent"), "{log}");
}

#[test]
fn half_an_emoji_is_a_character_like_any_other() {
    let text = ", { name = \"q\", kind = \"id\", field = \"q\", table = \"q\", optional = true }";
    let (_, result, _) = case("lone-surrogate.jsonl", text);
    assert_eq!(counts(&result), (100, 0));
}

#[test]
fn times_in_two_units_are_said_once() {
    let (_, result, log) = case("mixed-units.jsonl", "");
    assert_eq!(counts(&result), (400, 0));
    assert_eq!(log.matches("more than ten years").count(), 1, "{log}");
    assert!(log.contains("timestamp.unit"), "{log}");
}

#[test]
fn one_event_of_2100_is_rejected_and_dates_nothing() {
    let (bench, result, log) = case("one-future-event.jsonl", "");
    assert_eq!(counts(&result), (399, 1), "{log}");
    assert_eq!(result["rejected_by_reason"]["future"], 1);
    let letters = records(&bench.dead());
    let reason = letters[0].headers().expect("headers").iter().find(|h| h.key == "reason");
    assert_eq!(reason.and_then(|header| header.value), Some(&b"future"[..]));
    let manifest = crate::support::inspect(&bench.checkpoints("run"));
    assert!(manifest["event_time_ms"].as_i64() < Some(1_800_000_000_000), "{manifest}");
}

#[test]
fn odd_ids_are_kept_exactly_or_named() {
    let (_, result, log) = case("odd-ids.jsonl", "");
    let (trained, rejected) = counts(&result);
    assert_eq!(trained + rejected, 280);
    // Of each 14: 17.0, an integer past 64 bits, and one of 3,000 characters.
    assert_eq!(rejected, 60, "{result}");
    assert_eq!(result["rejected_by_reason"]["id_too_long"], 20, "{result}");
    assert!(log.contains("without a decimal point"), "{log}");
}

#[test]
fn framings_that_are_not_bare_json_are_named() {
    let bench = Bench::new("demo.toml", 1);
    let event = br#"{"user_id":"u1","item_id":"i1","ts":1700000000000}"#;
    let framed = |before: &[u8]| [before, &event[..]].concat();
    let utf16: Vec<u8> =
        "\u{feff}{\"user_id\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let quoted = serde_json::to_vec(&String::from_utf8_lossy(event)).expect("JSON");
    let values = [
        framed(b"\xef\xbb\xbf"),
        framed(&[0, 0, 0, 0, 7]),
        framed(&[0x1f, 0x8b, 8, 0]),
        utf16,
        quoted,
        framed(b"["),
        [&event[..], b"\n", event].concat(),
    ];
    let payloads: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_slice())).collect();
    send(&bench.topic, &payloads);
    let (result, _) = replay(&bench, "");
    assert_eq!(counts(&result), (1, 6), "a byte-order mark is passed over: {result}");
    let errors: String = records(&bench.dead())
        .iter()
        .filter_map(|letter| {
            let header = letter.headers()?.iter().find(|header| header.key == "error")?;
            Some(String::from_utf8_lossy(header.value?).into_owned() + "\n")
        })
        .collect();
    for name in ["Confluent", "gzip", "UTF-16", "string", "array"] {
        assert!(errors.contains(name), "nothing names {name} in:\n{errors}");
    }
}

#[test]
fn a_letter_that_the_topic_finds_too_large_is_cut_and_nothing_loops() {
    let bench = Bench::new("demo.toml", 1);
    let small = format!("{}-small", bench.topic);
    create_topic(&small, 1, Some(("max.message.bytes", "20000")));
    // What compression cannot make fit.
    let mut random = millrace_events::SplitMix::new(1);
    let large: Vec<u8> = (0..300_000).map(|_| (random.next_u64() >> 56) as u8).collect();
    send(&bench.topic, &[Some(&large), Some(br#"{"user_id":1,"item_id":2,"ts":1700000000000}"#)]);
    let mapping = config(&bench, "");
    let set = format!("kafka.dead_letter_topic={small}");
    for _ in 0..2 {
        let mut command: Command =
            bench.command_of(&mapping, "replay", "run", &[&set, "publish.topic="]);
        let (status, log) = run_to_end(&mut command);
        assert_eq!(status, Some(0), "{log}");
    }
    let letters = records(&small);
    assert_eq!(letters.len(), 1);
    assert!(letters[0].payload().map_or(0, <[u8]>::len) < 20_000);
}

/// Who loads an old log into a topic of a week sees it vanish.
#[test]
fn events_older_than_the_topic_keeps_are_warned_of() {
    let bench = Bench::new("demo.toml", 1);
    let file = bench.directory.path().join("old.jsonl");
    let lines: Vec<String> = synthetic(100, 9).collect();
    std::fs::write(&file, lines.join("\n")).expect("written");
    for (retention, warned) in [("86400000", true), ("-1", false)] {
        let topic = format!("{}-{warned}", bench.topic);
        create_topic(&topic, 1, Some(("retention.ms", retention)));
        let mut produce = bench.command("produce", "none", &[&format!("kafka.topic={topic}")]);
        let output = produce.arg(&file).output().expect("millrace can be run");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        let said = log.lines().filter(|line| line.contains("is kept a day")).count();
        assert_eq!(said, usize::from(warned), "{log}");
    }
}

/// A replay of a file of tests/cases under a mapping of its own, with a name for the result.
fn shape(file: &str, mapping: &str) -> (Value, String) {
    let bench = Bench::new("demo.toml", 2);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(file);
    let config = bench.directory.path().join("shape.toml");
    let model = "[model]\nhidden = [16]\ndim = 8\n[embedding]\ndim = 8\n[batch]\nsize = 64\n";
    std::fs::write(&config, format!("{mapping}\n{model}")).expect("written");
    json(bench.command_of(&config, "produce", "none", &[]).arg(path));
    let replay = |name: &str| bench.command_of(&config, "replay", name, &["publish.topic="]);
    let output = replay("run").arg("--json").output().expect("millrace can be run");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // In two parts, at a place where a batch ends early: the same bits.
    let part = json(replay("parts").args(["--to", "50%"]));
    assert!(part["trained"].as_u64() < result["trained"].as_u64(), "{part}");
    let parts = json(&mut replay("parts"));
    assert_eq!(parts["trained"], result["trained"]);
    (result, log)
}

fn side(side: &str, field: &str) -> String {
    format!(
        "[{side}]\nid = \"{field}\"\nfeatures = [{{ name = \"{side}\", kind = \"id\", \
         field = \"{field}\", table = \"{side}\" }}]\n"
    )
}

#[test]
fn a_log_of_track_calls_is_read_with_its_times_in_iso_8601() {
    let mapping = [
        side("query", "userId"),
        side("item", "properties.product_id"),
        "[timestamp]\nfield = \"timestamp\"".to_owned(),
    ];
    let (result, log) = shape("segment-track.jsonl", &mapping.concat());
    assert_eq!(counts(&result), (200, 0), "{log}");
}

#[test]
fn an_export_of_baskets_gives_an_event_an_element() {
    let mapping = [
        "[[event]]\nwhere = { field = \"event_name\", equals = \"purchase\" }\n\
         [[event]]\nwhere = { field = \"event_name\", equals = \"view_item\" }\nweight = 0.2\n"
            .to_owned(),
        side("query", "user_pseudo_id"),
        side("item", "items[].item_id"),
        "[timestamp]\nfield = \"event_timestamp\"\nunit = \"us\"".to_owned(),
    ];
    let (result, log) = shape("ga4-export.jsonl", &mapping.concat());
    assert_eq!(counts(&result), (208, 0), "{log}");
    assert_eq!((&result["skipped"], &result["events"]), (&91.into(), &208.into()));
}

#[test]
fn a_change_stream_gives_its_rows_and_passes_over_deletes() {
    let mapping = [
        "[kafka]\nformat = \"debezium\"\n".to_owned(),
        side("query", "after.user_id"),
        side("item", "after.item_id"),
        "[timestamp]\nfield = \"after.created_at\"".to_owned(),
    ];
    let (result, log) = shape("debezium-cdc.jsonl", &mapping.concat());
    assert_eq!(counts(&result), (184, 0), "{log}");
    assert_eq!(result["skipped"], 16);
}
