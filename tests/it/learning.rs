//! Does it learn? Planted truth, and real data.

use std::process::Command;

use crate::support::{Bench, data, json};

/// The whole demo, shorter: the mock broker, both models, publication.
#[test]
fn the_demo_beats_popularity_and_stays_below_the_ceiling() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let run = json(demo.args(["demo", "--events", "400000", "--seed", "3"]));
    println!("{run}");
    let recall = |name: &str| run["recall_at_10"][name].as_f64().expect("a number");
    assert!(recall("corrected") > 1.1 * recall("popularity"));
    assert!(recall("corrected") > 1.5 * recall("uncorrected"));
    assert!(recall("corrected") < recall("ceiling") + 0.02);
    assert_eq!(run["events"], 400_000);
    assert_eq!(run["published"], run["read_back"]);
}

/// Held-out last 10% by offset, against all items: recall@k is more than `factor` times that of
/// popularity, for each `(k, factor)`.
fn beats_popularity(bench: &Bench, factors: [(&str, f64); 4]) {
    let run = json(&mut bench.command("evaluate", "none", &[]));
    println!("{run}");
    let at = |what: &str, k: &str| run[what][k].as_f64().expect("a number");
    for (k, factor) in factors {
        let (model, popularity) = (at("recall", k), at("popularity", k));
        assert!(model > factor * popularity, "recall@{k}: {model} against {popularity}");
    }
}

#[test]
fn ml_1m_every_event_is_trained_once_and_the_model_beats_popularity() {
    let Some(file) = data("ml-1m/ratings.jsonl.gz") else { return };
    let bench = Bench::new("ml-1m.toml", 1);
    assert_eq!(bench.produce(&file)["lines"], 999_611);
    let run = json(bench.command("replay", "ml-1m", &[]).arg("--publish"));
    println!("{run}");
    assert_eq!(run["events"], 999_611);
    assert_eq!(run["trained"], 999_611);
    assert_eq!(run["published"], 3_416);
    assert!(run["recall"]["10"].as_f64() > Some(0.10));

    beats_popularity(&bench, [("10", 3.0), ("50", 2.5), ("100", 2.0), ("300", 1.5)]);
}

#[test]
fn wikispeedia_the_model_beats_popularity() {
    let Some(file) = data("wikispeedia/links.jsonl.gz") else { return };
    let bench = Bench::new("wikispeedia.toml", 1);
    assert_eq!(bench.produce(&file)["lines"], 119_879);
    beats_popularity(&bench, [("10", 1.6), ("50", 1.6), ("100", 1.5), ("300", 1.3)]);
}

/// Every click once, though users come back and articles age within hours.
#[test]
fn globo_replays_whole() {
    let Some(file) = data("globo/clicks.jsonl.gz") else { return };
    let bench = Bench::new("globo.toml", 1);
    assert_eq!(bench.produce(&file)["lines"], 1_792_908);
    let run = json(&mut bench.command("replay", "globo", &["publish.topic="]));
    println!("{run}");
    assert_eq!(run["events"], 1_792_908);
    assert_eq!(run["nonfinite_steps"], 0);
}
