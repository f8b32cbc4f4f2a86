//! `millrace estimate`: the topic and the file it came from tell the same, and the truth.

use std::io::Write;

use serde_json::Value;

use crate::support::{Bench, json, synthetic};

#[test]
fn estimate_says_of_a_topic_what_it_says_of_its_file() {
    let bench = Bench::new("demo.toml", 1);
    let path = bench.directory.path().join("events.jsonl");
    let mut file = std::fs::File::create(&path).expect("a file");
    for line in synthetic(100_000, 7) {
        writeln!(file, "{line}").expect("written");
    }
    writeln!(file, "no JSON").expect("written");
    assert_eq!(bench.produce(&path)["lines"], 100_001);

    let plot = bench.directory.path().join("plot.svg");
    let run = |file: bool| {
        let mut command = bench.command("estimate", "none", &[]);
        command.args(["--alpha", "auto,0.01", "--buckets", "100,100000", "--window", "50"]);
        command.args(["--top", "5"]).arg("--plot").arg(&plot);
        if file {
            command.arg(&path);
        }
        json(&mut command)
    };
    let (topic, mut file) = (run(false), run(true));
    println!("{topic}");
    assert!(std::fs::read_to_string(&plot).expect("a plot").starts_with("<svg"));
    assert_eq!((&topic["events"], &topic["rejected"]), (&100_000.into(), &1.into()));
    for key in ["source", "seconds"] {
        file[key] = topic[key].clone();
    }
    let timeless = |run: &Value| {
        let mut run = run.clone();
        for estimator in run["estimators"].as_array_mut().expect("estimators") {
            estimator["updates_per_second"] = Value::Null;
        }
        run
    };
    assert_eq!(timeless(&topic), timeless(&file));

    let estimator = |alpha: f64, buckets: u64| {
        let all = topic["estimators"].as_array().expect("estimators");
        let found = all.iter().find(|estimator| {
            let fixed = estimator["alpha"].as_f64().unwrap_or(0.0);
            (fixed - alpha).abs() < 1e-6 && estimator["buckets"] == buckets
        });
        found.expect("each combination ran")["log_q_error_mean"].as_f64().expect("a number")
    };
    // The world stands still, so a window of 50 batches is all noise; 100 buckets are far too few.
    assert!(estimator(0.0, 100_000) < 0.2, "{}", estimator(0.0, 100_000));
    assert!(estimator(0.01, 100) > 2.0 * estimator(0.01, 100_000));
    let top = &topic["top"][0];
    let (exact, estimates) = (top["exact_per_batch"].as_f64(), &top["estimated_per_batch"]);
    let ratio = estimates[1].as_f64().expect("a number") / exact.expect("a number");
    assert!((0.8..1.25).contains(&ratio), "{top}");
}
