//! Bad records among good ones: each in the dead-letter topic with its reason, none lost, none
//! stops the run below the limit.

use std::collections::BTreeMap;

use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};

use crate::support::{Bench, json, records, send, synthetic};

const GOOD: usize = 9_000;
const BAD: usize = 1_000;

/// Kinds of bad records, with the reason expected of each.
fn bad(kind: usize) -> (Option<Vec<u8>>, &'static str) {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    match kind {
        0 => (text("not JSON at all"), "not_json"),
        1 => (text(r#"{"user":{"id":1},"item":"i1","category":"c","time_ms":1}"#), "wrong_type"),
        2 => (text(r#"{"user":"u1","category":"c","time_ms":1}"#), "missing_field"),
        3 => (text(""), "empty"),
        4 => (
            Some(
                b"{\"user\":\"\xff\xfe\",\"item\":\"i\",\"category\":\"c\",\"time_ms\":1}".to_vec(),
            ),
            "invalid_utf8",
        ),
        5 => (None, "tombstone"),
        6 => (text(r#"{"user":"u1","item":null,"category":"c","time_ms":1}"#), "missing_field"),
        7 => (text("[1, 2, 3]"), "not_object"),
        8 => {
            (text(r#"{"user":"u1","item":"i1","category":"c","time_ms":"soon"}"#), "bad_timestamp")
        }
        _ => {
            let filler = "x".repeat(2_000_000);
            (Some(format!(r#"{{"user":"u1","item":"{filler}"}}"#).into_bytes()), "too_large")
        }
    }
}

/// Reason of each letter, and the offset it came from.
fn dead_letters(topic: &str) -> Vec<(String, i64)> {
    let letter = |message: OwnedMessage| {
        let headers = message.headers().expect("a dead letter has headers");
        let header = |key: &str| {
            let header = headers.iter().find(|header| header.key == key);
            let value = header.unwrap_or_else(|| panic!("no {key}")).value;
            String::from_utf8(value.expect("a value").to_vec()).expect("text")
        };
        assert_eq!(header("partition"), "0");
        assert!(!header("error").is_empty());
        (header("reason"), header("offset").parse().expect("an offset"))
    };
    records(topic).into_iter().map(letter).collect()
}

#[test]
fn a_thousand_bad_records_are_dead_lettered_and_none_stops_the_run() {
    let bench = Bench::new("demo.toml", 1);
    // All broker-side limits of the input topic allow 2 MB; see scripts/kafka.
    let mut records: Vec<Option<Vec<u8>>> = Vec::new();
    let mut expected = BTreeMap::new();
    let mut good = synthetic(GOOD, 21);
    for number in 0..BAD {
        records.extend(good.by_ref().take(GOOD / BAD).map(|line| Some(line.into_bytes())));
        // One in a hundred is 2 MB: enough to see it, little enough to send.
        let kind = if number % 100 == 99 { 9 } else { number % 9 };
        let (payload, reason) = bad(kind);
        let offset = i64::try_from(records.len()).expect("small");
        assert!(expected.insert(offset, reason.to_owned()).is_none());
        records.push(payload);
    }
    let payloads: Vec<_> = records.iter().map(Option::as_deref).collect();
    send(&bench.topic, &payloads);

    let sets = ["kafka.rejected_share_max=0.15", "publish.topic="];
    let run = json(&mut bench.command("replay", "run", &sets));
    assert_eq!(run["events"], GOOD + BAD);
    assert_eq!((run["trained"].as_u64(), run["rejected"].as_u64()), (Some(9_000), Some(1_000)));
    let mut by_reason = BTreeMap::new();
    for reason in expected.values() {
        *by_reason.entry(reason.clone()).or_insert(0) += 1;
    }
    assert_eq!(run["rejected_by_reason"], serde_json::json!(by_reason));

    let letters = dead_letters(&bench.dead());
    assert_eq!(letters.len(), BAD, "each once");
    let found: BTreeMap<i64, String> =
        letters.into_iter().map(|(reason, offset)| (offset, reason)).collect();
    assert_eq!(found, expected);
    println!("{BAD} dead letters: {by_reason:?}");
}

#[test]
fn too_many_bad_records_stop_the_run_with_the_reasons() {
    let bench = Bench::new("demo.toml", 1);
    let lines: Vec<String> = synthetic(3_000, 22).collect();
    let records: Vec<Option<&[u8]>> = lines
        .iter()
        .enumerate()
        .map(|(number, line)| {
            let payload = if number % 3 == 0 { "broken" } else { line.as_str() };
            Some(payload.as_bytes())
        })
        .collect();
    send(&bench.topic, &records);
    let sets = ["kafka.rejected_window=1000", "publish.topic="];
    let output = bench.command("replay", "run", &sets).output().expect("millrace can be run");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("not_json"), "the message names the reason:\n{log}");
    let shown: Vec<&str> =
        log.lines().filter(|line| line.contains("a record was rejected")).collect();
    let [line] = shown.as_slice() else { panic!("one line a reason:\n{log}") };
    for part in ["WARN", "reason=\"not_json\"", "partition=0", "offset=0", "value=\"broken\""] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

#[test]
fn wrong_configs_and_usage_exit_with_2() {
    let bench = Bench::new("demo.toml", 1);
    let check = |sets: &[&str]| {
        let output = bench.command("check", "none", sets).output().expect("millrace can be run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&[]).0, Some(0));
    let (code, log) = check(&["batch.size=1", "loss.temperatur=1", "model.dim=0"]);
    assert_eq!(code, Some(2));
    for key in ["batch.size", "loss.temperatur", "model.dim"] {
        assert!(log.contains(key), "{key} is missing in:\n{log}");
    }
    let mut replay = bench.command("replay", "none", &[]);
    replay.args(["--to", "next tuesday"]);
    assert_eq!(replay.output().expect("millrace can be run").status.code(), Some(2));
}
