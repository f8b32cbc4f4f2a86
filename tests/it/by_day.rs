//! `millrace replay --by-day`: days are what the calendar says, and held-out events stay so.

use std::io::Write;

use serde_json::Value;

use crate::support::{Bench, json, synthetic};

/// 2017-10-01T00:00:00Z, ms.
const MIDNIGHT: u64 = 1_506_816_000_000;
const DAY_MS: u64 = 86_400_000;

/// Events of each day; nothing happens on the fourth.
const DAYS: [(&str, u64, u64); 4] = [
    ("2017-10-01", 0, 5000),
    ("2017-10-02", 1, 7000),
    ("2017-10-03", 2, 6000),
    ("2017-10-05", 4, 3000),
];

/// The days' events, the first at midnight and the last a millisecond before the next.
fn produce(bench: &Bench) {
    let path = bench.directory.path().join("days.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    let total: u64 = DAYS.iter().map(|(_, _, events)| events).sum();
    let mut lines = synthetic(total as usize, 21);
    for (_, day, events) in DAYS {
        for event in 0..events {
            let line = lines.next().expect("as many as the days need");
            let mut record: Value = serde_json::from_str(&line).expect("JSON");
            let into = event * (DAY_MS - 1) / (events - 1);
            record["time_ms"] = (MIDNIGHT + day * DAY_MS + into).into();
            writeln!(file, "{record}").expect("written");
        }
    }
    file.flush().expect("written");
    drop(file);
    assert_eq!(bench.produce(&path)["lines"], total);
}

#[test]
fn each_day_is_trained_but_for_what_measures_the_day_before() {
    // Two partitions: days are cut after the merge.
    let bench = Bench::new("demo.toml", 2);
    produce(&bench);
    let plot = bench.directory.path().join("plot.svg");
    let run = |sets: &[&str]| {
        let mut command = bench.command("replay", "none", sets);
        command.arg("--by-day").arg("--plot").arg(&plot);
        json(&mut command)
    };
    let first = run(&["batch.size=256"]);
    println!("{first}");
    assert!(!bench.checkpoints("none").exists(), "nothing is written");
    assert!(std::fs::read_to_string(&plot).expect("a plot").starts_with("<svg"));

    let days = first["days"].as_array().expect("days");
    let dates: Vec<&Value> = days.iter().map(|day| &day["date"]).collect();
    assert_eq!(dates, DAYS.map(|(date, _, _)| date));
    let count = |day: &Value, key: &str| day[key].as_u64().expect("a count");
    let trained: Vec<u64> = days.iter().map(|day| count(day, "trained")).collect();
    let cases: Vec<u64> = days.iter().map(|day| count(day, "cases")).collect();
    // An event is trained on, or a case of the day before: one of the two, and once.
    for (day, (_, _, events)) in DAYS.iter().enumerate().skip(1) {
        assert_eq!(trained[day] + cases[day - 1], *events, "day {day}");
    }
    assert_eq!(cases[3], 0, "no day follows the last");
    assert!(days[3]["recall"]["10"].is_null());
    for (trained, (_, _, events)) in trained.iter().zip(DAYS) {
        let held_out = (events - trained) as f64 / events as f64;
        assert!((0.08..0.12).contains(&held_out), "{held_out}");
    }
    assert_eq!(
        (&first["trained"], &first["late"]),
        (&trained.iter().sum::<u64>().into(), &0.into())
    );
    assert_eq!(first["mean"]["days"], 3);
    let recalls = days[..3].iter().map(|day| day["recall"]["100"].as_f64().expect("a recall"));
    let expected = recalls.sum::<f64>() / 3.0;
    let found = first["mean"]["recall"]["100"].as_f64().expect("a mean");
    assert!((found - expected).abs() < 1e-12);
    assert!(days[2]["recall"]["100"].as_f64() > Some(0.5), "100 of 300 items: chance is a third");

    assert_eq!(run(&["batch.size=256"])["days"], first["days"], "to the bit");
    let of = |run: &Value, key: &str| -> Vec<Value> {
        let days = run["days"].as_array().expect("days");
        days.iter().map(|day| day[key].clone()).collect()
    };
    let shuffled = run(&["batch.size=256", "batch.shuffle_events=2048"]);
    assert_eq!(of(&shuffled, "trained"), of(&first, "trained"), "the split is the same");
    assert_ne!(of(&shuffled, "recall"), of(&first, "recall"));
    let other = run(&["batch.size=256", "seed=77"]);
    assert_ne!(of(&other, "trained"), of(&first, "trained"), "the split is another");
}
