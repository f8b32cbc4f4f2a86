//! What Prometheus, Grafana and compose see.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::support::{Bench, Running, get};

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every `millrace_...` name in a text.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("millrace_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_of_the_dashboard_is_on_a_live_metrics_page() {
    let bench = Bench::new("demo.toml", 2);
    bench.produce_synthetic(20_000, 41);
    let sets =
        ["http.listen=127.0.0.1:0", "checkpoint.every_steps=5", "publish.every_checkpoints=1"];
    let mut run = Running::start(&mut bench.command("train", "live", &sets));
    let line = run.wait_for("metrics and health on http://");
    let address = line.split("http://").nth(1).expect("an address").trim_end_matches('/');
    run.wait_for("published");
    assert!(get(address, "/healthz").0.contains("200"));
    assert!(get(address, "/readyz").0.contains("200"));
    let (_, page) = get(address, "/metrics");

    let dashboard: Value =
        serde_json::from_str(&repository("dashboards/trainer.json")).expect("valid JSON");
    let asked = names(&dashboard.to_string());
    assert!(asked.len() >= 17, "the dashboard asks for {asked:?}");
    let live = names(&page);
    let missing: Vec<_> = asked.difference(&live).collect();
    assert!(missing.is_empty(), "{missing:?} are not on the page:\n{page}");
    // Not only declared: a live run moves them.
    for moved in [
        "millrace_events_total{result=\"trained\"} ",
        "millrace_published_total ",
        "millrace_published_version_step ",
        "millrace_checkpoint_seconds_count ",
        "millrace_freshness_seconds_count{stage=\"published\"} ",
        "millrace_train_loss ",
        "millrace_embedding_rows{table=\"item\"} ",
    ] {
        let value = page.lines().find_map(|line| line.strip_prefix(moved));
        let value: f64 = value.unwrap_or_else(|| panic!("no {moved}")).parse().expect("a number");
        assert!(value > 0.0, "{moved}is {value}");
    }
}

#[test]
fn the_compose_file_is_whole() {
    let mut compose: serde_yaml_ng::Value =
        serde_yaml_ng::from_str(&repository("docker-compose.yml")).expect("valid YAML");
    compose.apply_merge().expect("merge keys name mappings");
    let compose = serde_json::to_value(compose).expect("keys are text");
    let services = compose["services"].as_object().expect("services");
    for service in ["kafka", "trainer", "serve", "prometheus", "grafana"] {
        assert!(services.contains_key(service), "{service} is missing");
    }
    for (name, service) in services {
        assert!(service["image"].is_string() || !service["build"].is_null(), "{name} runs nothing");
        let needs = match &service["depends_on"] {
            Value::Object(needs) => needs.keys().cloned().collect(),
            Value::Array(needs) => {
                needs.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        for need in needs {
            assert!(services.contains_key(&need), "{name} depends on {need}, which is not there");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = match volume {
                Value::String(text) => text.split(':').next().unwrap_or_default().to_owned(),
                volume => volume["source"].as_str().unwrap_or_default().to_owned(),
            };
            if source.starts_with("./") {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&source);
                assert!(path.exists(), "{name} mounts {source}, which is not there");
            }
        }
    }
    // Prometheus scrapes who listens.
    let prometheus: Value =
        serde_yaml_ng::from_str(&repository("dashboards/prometheus.yml")).expect("valid YAML");
    for (service, port) in [("trainer", "9464"), ("serve", "9465")] {
        assert!(prometheus.to_string().contains(&format!("{service}:{port}")));
        assert!(services[service].to_string().contains(port));
    }
}

/// The image is built from what .dockerignore lets through, and a manifest names more and more.
#[test]
fn the_image_is_given_all_that_the_manifest_names() {
    let manifest: toml::Table = repository("Cargo.toml").parse().expect("valid TOML");
    let mut paths = Vec::new();
    paths.extend(manifest["workspace"]["members"].as_array().into_iter().flatten());
    for kind in ["bench", "bin", "example", "test"] {
        let targets = manifest.get(kind).and_then(toml::Value::as_array);
        paths.extend(targets.into_iter().flatten().filter_map(|target| target.get("path")));
    }
    let given = repository(".dockerignore");
    for path in paths.into_iter().filter_map(toml::Value::as_str) {
        let top = path.split('/').next().unwrap_or(path);
        let listed = given.lines().any(|line| line.strip_prefix('!') == Some(top));
        assert!(listed, ".dockerignore leaves {path} out, which Cargo.toml names");
    }
}
