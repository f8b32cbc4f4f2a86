//! The series, and the pages that name them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn metrics() -> Metrics {
    let config = Config::from_toml(include_str!("../../../config/demo.toml"));
    Metrics::new(&config.expect("the demo's config is right"))
}

/// Every `millrace_` word of a text, with the suffixes of a histogram's series removed.
fn families(text: &str) -> BTreeSet<String> {
    text.match_indices("millrace_")
        .map(|(at, _)| {
            let word = text[at..]
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .expect("split yields at least one part");
            let mut word = word.to_owned();
            for suffix in ["_bucket", "_sum", "_count"] {
                if let Some(stem) = word.strip_suffix(suffix) {
                    word = stem.to_owned();
                }
            }
            word
        })
        .collect()
}

#[test]
fn known_series_exist_before_anything_happened() {
    let text = metrics().registry().render();
    for line in [
        "millrace_events_total{result=\"trained\"} 0",
        "millrace_events_total{result=\"rejected\"} 0",
        "millrace_queue_batches{queue=\"batches\"} 0",
        "millrace_queue_batches{queue=\"snapshots\"} 0",
        "millrace_step_seconds_count{phase=\"wait\"} 0",
        "millrace_step_seconds_count{phase=\"update\"} 0",
        "millrace_recall{candidates=\"batch\",k=\"10\"} NaN",
        "millrace_event_age_seconds{stage=\"published\"} NaN",
        "millrace_freshness_seconds_count{stage=\"published\"} 0",
        "millrace_checkpoint_age_seconds NaN",
        "millrace_nonfinite_steps_total 0",
        "millrace_published_total 0",
        "millrace_publish_failures_total 0",
        "millrace_checkpoint_failures_total 0",
        "millrace_embedding_rows{table=\"item\"} 0",
        "millrace_embedding_evictions_total{table=\"item\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "missing {line:?} in\n{text}");
    }
}

#[test]
fn every_cut_off_of_recall_has_its_series() {
    let text = metrics().registry().render();
    for k in RECALL_KS {
        let line = format!("millrace_recall{{candidates=\"batch\",k=\"{k}\"}} NaN");
        assert!(text.contains(&line), "missing {line}");
    }
}

#[test]
fn buckets_reach_from_a_gather_to_a_slow_step() {
    let metrics = metrics();
    metrics.step(StepPhase::Loss).observe(9.0);
    metrics.checkpoint_seconds.observe(150.0);
    metrics.batch_events.observe(1024.0);
    let text = metrics.registry().render();
    assert!(text.contains("millrace_step_seconds_bucket{phase=\"loss\",le=\"0.0001\"} 0"));
    assert!(text.contains("millrace_step_seconds_bucket{phase=\"loss\",le=\"13.1072\"} 1"));
    assert!(text.contains("millrace_checkpoint_seconds_bucket{le=\"163.84\"} 1"));
    assert!(text.contains("millrace_batch_events_bucket{le=\"512\"} 0"));
    assert!(text.contains("millrace_batch_events_bucket{le=\"1024\"} 1"));
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let metrics = metrics();
    metrics.lag("interactions", 3).set(7);
    metrics.uncommitted("interactions", 3).set(0);
    metrics.merge_waits("interactions", 3).inc();
    let text = metrics.registry().render();
    assert!(text.contains("millrace_consumer_lag{partition=\"3\",topic=\"interactions\"} 7"));
    let shown = families(include_str!("../../../dashboards/trainer.json"));
    assert_eq!(families(&text), shown, "left: on /metrics, right: on the dashboard");
}

/// Type, and labels with their values, of each series in Prometheus' text format.
fn series(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE millrace_")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
    }
    for line in page.lines().filter_map(|line| line.strip_prefix("millrace_")) {
        let Some((name, labels)) = line.split_once('{') else { continue };
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        let labels = labels.split('}').next().unwrap_or_default();
        let Some((_, known)) = found.get_mut(name) else { continue };
        for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
            // Tables, topics, partitions and versions are the user's, and bounds are figures.
            if label != "le" {
                known.insert(label.to_owned());
            }
            if !["le", "table", "topic", "partition", "version", "reason"].contains(&label) {
                known.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    found
}

#[test]
fn the_reference_of_metrics_is_the_registry() {
    let metrics = metrics();
    metrics.lag("clicks", 0).set(0);
    metrics.uncommitted("clicks", 0).set(0);
    metrics.merge_waits("clicks", 0).inc();
    let page = include_str!("../../../docs/reference/metrics.md");
    let mut listed = BTreeMap::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, kind, labels, ..] = cells[..] else { continue };
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        listed.insert(name.trim_matches('`').to_owned(), (kind.to_owned(), labels));
    }
    listed.retain(|name, _| !name.starts_with('/'));
    assert_eq!(listed, series(&metrics.registry().render()), "left: the page, right: the registry");
}
