//! What `check --connect --sample` says of a topic before anything is trained.

use std::process::Command;

use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use serde_json::{Value, json as value};

use crate::support::{Bench, PATIENCE, client, json};

/// Users 0 to 9 lie on both partitions, 10 to 19 on one; each partition has a record of rubbish.
fn bench() -> Bench {
    let bench = Bench::new("demo.toml", 2);
    let producer: ThreadedProducer<_> = client().create().expect("a producer");
    let send = |partition: i32, payload: &str| {
        let record = BaseRecord::<str, str>::to(&bench.topic).partition(partition).payload(payload);
        producer.send(record).map_err(|(error, _)| error).expect("queued");
    };
    for event in 0..200_u32 {
        let (user, partition) = (event % 20, if event % 20 < 10 { event / 20 % 2 } else { 0 });
        let line = format!(
            r#"{{"user": "u{user}", "item": "i{}", "category": "c{}", "time_ms": {}}}"#,
            event % 50,
            event % 3,
            1_700_000_000_000_u64 + u64::from(event) * 1000
        );
        send(partition.try_into().expect("0 or 1"), &line);
    }
    send(0, "rubbish");
    send(1, r#"{"user": "u1", "category": "c", "time_ms": 1700000000000}"#);
    producer.flush(PATIENCE).expect("the broker takes records");
    bench
}

fn check(bench: &Bench, sets: &[&str]) -> Command {
    let mut command = bench.command("check", "none", sets);
    command.args(["--connect", "--sample", "1000"]);
    command
}

#[test]
fn a_sample_tells_reasons_ids_times_and_keys() {
    let bench = bench();
    let told = json(&mut check(&bench, &[]));
    let sample = &told["sample"];
    assert_eq!((&told["ok"], &sample["accepted"]), (&value!(true), &value!(200)));
    for reason in ["not_json", "missing_field"] {
        let rejected = &sample["rejected"][reason];
        assert_eq!(rejected["count"], 1, "{sample}");
        assert!(rejected["example"].as_str().is_some_and(|text| text.contains("offset")));
    }
    let times = [1_700_000_000_000_u64, 1_700_000_199_000];
    assert_eq!(sample["event_times_ms"], value!(times));
    let ids = &sample["ids"];
    let kinds = value!([
        {"of": "query.id", "distinct": 20},
        {"of": "item.id", "distinct": 50},
        {"of": "query `user`", "distinct": 20},
        {"of": "item `item`", "distinct": 50},
        {"of": "item `category`", "distinct": 3},
    ]);
    assert_eq!((&ids["kinds"], &ids["events"]), (&kinds, &value!(200)));
    assert_eq!((&ids["partitions"], &ids["split_queries"]), (&value!(2), &value!(10)));
    let keys = finding(&told, "keys");
    assert_eq!(keys["weight"], "ok");
    assert!(keys["text"].as_str().is_some_and(|text| text.starts_with("10 of 20 queries")));

    // With another order the same keys are a warning, which people see as well.
    let output = check(&bench, &["kafka.order=arrival"]).output().expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("WARNING  keys: 10 of 20 queries"), "{text}");
    assert!(text.contains("from 2023-11-14T22:13:20Z to 2023-11-14T22:16:39Z"), "{text}");
    assert!(text.contains("1 rejected as not_json, for example partition 0"), "{text}");
}

fn finding<'t>(told: &'t Value, subject: &str) -> &'t Value {
    let findings = told["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["subject"] == subject).expect("it is there")
}
