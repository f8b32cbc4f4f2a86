//! Are two arms kept apart: each query with its own, each answer and series labelled?

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Client, Truth, config, ready, records, user};
use crate::support::{Bench, Running, eventually, json as result};

const ARMS: [&str; 2] = ["narrow", "wide"];

/// Checkpoints of two configs, trained on the same records.
fn trained() -> Bench {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(12_000, 66);
    for (arm, dim) in ARMS.into_iter().zip(["model.dim=8", "model.dim=16"]) {
        result(&mut bench.command("replay", arm, &[dim]));
    }
    bench
}

/// A `serve` of both.
fn serve(bench: &Bench) -> (Running, String) {
    let arm = |name: &str| {
        let from = bench.checkpoints(name);
        format!("{{ name = \"{name}\", from = \"{}\", share = 0.5 }}", from.display())
    };
    let arms = format!("serve.arms=[{}, {}]", arm(ARMS[0]), arm(ARMS[1]));
    let sets = ["http.listen=127.0.0.1:0", "serve.follow=false", &arms];
    let mut run = Running::start(&mut bench.command("serve", "none", &sets));
    let line = run.wait_for("answering on http://");
    let address = line.split("http://").nth(1).expect("an address").trim_end_matches('/');
    let address = address.to_owned();
    (run, address)
}

#[test]
fn each_query_has_one_arm_and_answers_and_series_name_it() {
    let bench = trained();
    let records = records(66, 60);
    let truths = ARMS.map(|arm| {
        let dim = if arm == "narrow" { "model.dim=8" } else { "model.dim=16" };
        Truth::of(&config(&bench, &[dim]), &bench.checkpoints(arm), &records, 0.0)
    });
    let (mut run, address) = serve(&bench);
    ready(&mut run);
    ready(&mut run);
    let mut client = Client::new(&address);
    let (mut arms, mut answers) = (Vec::new(), Vec::new());
    for (query, record) in records.iter().enumerate() {
        let body = json!({ "query": user(record) });
        let (status, answer) = client.post("/v1/retrieve", &body);
        assert_eq!(status, 200, "{answer}");
        let arm = ARMS.iter().position(|arm| answer["arm"] == *arm).expect("an arm");
        assert_eq!(answer["version"], json!(truths[arm].version));
        truths[arm].holds(query, &answer["items"], 10);
        assert_eq!(client.post("/v1/retrieve", &body).1, answer, "it stays with its arm");
        // The other one, if it is named.
        let body = json!({ "query": user(record), "arm": ARMS[1 - arm] });
        let (_, other) = client.post("/v1/retrieve", &body);
        assert_eq!(other["arm"], ARMS[1 - arm]);
        truths[1 - arm].holds(query, &other["items"], 10);
        arms.push(arm);
        answers.push(answer);
    }
    let wide = arms.iter().filter(|arm| **arm == 1).count();
    assert!((12..=48).contains(&wide), "{wide} of 60 in one half");
    several_at_once(&mut client, &records, (&arms, &answers));
    versions_are_those_of_an_arm(&mut client, &truths);
    // Each twice, and once for the other arm; all together, as one request; a version by name.
    let (_, page) = client.get("/metrics");
    let counted = |arm: usize| -> f64 {
        let labels = format!("{{route=\"retrieve\",status=\"200\",arm=\"{}\"}} ", ARMS[arm]);
        let series = format!("millrace_requests_total{labels}");
        let page = page.as_str().expect("text");
        let value = page.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap_or_else(|| panic!("no {series} in {page}")).parse().expect("a number")
    };
    assert_eq!(counted(0) + counted(1), 182.0);
    let twice = arms.iter().filter(|arm| **arm == 0).count() as f64 * 2.0 + wide as f64;
    assert!((counted(0) - twice).abs() <= 1.0, "{} of {twice}", counted(0));
}

/// Queries of both arms in one request: each answer is the one that it gets alone.
fn several_at_once(client: &mut Client, records: &[String], (arms, answers): (&[usize], &[Value])) {
    let queries: Vec<Value> = records.iter().map(|record| user(record)).collect();
    let (status, several) = client.post("/v1/retrieve", &json!({ "queries": queries }));
    assert_eq!((status, &several["answers"]), (200, &json!(answers)));
    // KServe's answer has room for one version.
    let infer = |places: &[usize]| {
        let data: Vec<String> = places.iter().map(|&at| queries[at].to_string()).collect();
        let shape = [data.len()];
        let input = json!({ "name": "query", "datatype": "BYTES", "shape": shape, "data": data });
        json!({ "inputs": [input] })
    };
    let of = |arm: usize| (0..arms.len()).filter(move |at| arms[*at] == arm);
    let path = "/v2/models/millrace/infer";
    let alike: Vec<usize> = of(1).take(3).collect();
    let (status, inferred) = client.post(path, &infer(&alike));
    let version = &answers[alike[0]]["version"];
    assert_eq!((status, &inferred["model_version"]), (200, version), "{inferred}");
    let mixed: Vec<usize> = of(0).take(1).chain(of(1).take(1)).collect();
    let (status, refused) = client.post(path, &infer(&mixed));
    assert_eq!((status, &refused["field"]), (400, &json!("inputs[0].data")), "{refused}");
}

fn versions_are_those_of_an_arm(client: &mut Client, truths: &[Truth; 2]) {
    let (_, listed) = client.get("/v1/versions");
    let all = json!([{ "arm": "narrow", "share": 0.5 }, { "arm": "wide", "share": 0.5 }]);
    assert_eq!((&listed["arm"], &listed["arms"]), (&json!("narrow"), &all));
    let (_, listed) = client.get("/v1/versions?arm=wide");
    assert_eq!(listed["versions"][0]["version"], json!(truths[1].version));
    // A version is found wherever it is.
    let path = format!("/v1/versions/{}/activate", truths[1].version);
    let (_, activated) = client.post(&path, &json!({}));
    assert_eq!((&activated["arm"], &activated["held"]), (&json!("wide"), &json!(true)));
    let latest = "/v1/versions/latest/activate";
    let (status, refused) = client.post(latest, &json!({}));
    assert_eq!((status, &refused["field"]), (400, &json!("arm")));
    assert_eq!(client.post(&format!("{latest}?arm=wide"), &json!({})).0, 200);
    let body = json!({ "query": {}, "version": truths[1].version });
    assert_eq!(client.post("/v1/retrieve", &body).1["arm"], "wide");
    let (status, refused) = client.post("/v1/embed", &json!({ "query": {}, "arm": "broad" }));
    assert_eq!((status, &refused["field"]), (400, &json!("arm")), "{refused}");
}

#[test]
fn an_arm_without_a_version_is_waited_for_and_nobody_gets_the_others_answer() {
    let bench = trained();
    let (from, aside) = (bench.checkpoints(ARMS[1]), bench.checkpoints("aside"));
    std::fs::rename(&from, &aside).expect("moved");
    let (mut run, address) = serve(&bench);
    ready(&mut run);
    let mut client = Client::new(&address);
    assert_eq!(client.get("/readyz").0, 503);
    let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
    for record in records(66, 40) {
        let (status, answer) = client.post("/v1/retrieve", &json!({ "query": user(&record) }));
        *statuses.entry(status).or_default() += 1;
        assert!(status == 503 || answer["arm"] == ARMS[0], "{answer}");
    }
    assert!(statuses[&200] >= 5 && statuses[&503] >= 5, "{statuses:?}");
    std::fs::rename(&aside, &from).expect("moved");
    ready(&mut run);
    // The log says so before /readyz does.
    eventually("ready", &mut || client.get("/readyz").0 == 200);
    let (_, answer) = client.post("/v1/retrieve", &json!({ "query": {}, "arm": ARMS[1] }));
    assert_eq!(answer["arm"], ARMS[1]);
}
