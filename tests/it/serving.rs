//! Does `serve` answer what the model says, from one version, whatever happens around it?

mod api;
mod arms;
mod chain;
mod histories;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace::checkpoint::Checkpoint;
use millrace::config::Config;
use millrace::pipeline;
use millrace::stream::decode::Mapping;
use millrace::stream::events_of;
use millrace_events::{Batch, Offsets};
use millrace_train::Placement;
use millrace_train::frequency::Meaning;
use serde_json::{Value, json};

use crate::support::{Bench, PATIENCE, Running, eventually, json as result, synthetic};

/// A connection that is used again.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream: BufReader::new(stream) }
    }

    /// Status, head and body of the answer to a request with these lines in its head.
    fn ask(&mut self, method: &str, path: &str, lines: &str, body: &str) -> (u16, String, String) {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}");
        let request = format!("{head}\r\n{lines}\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes()).expect("sent");
        self.answer()
    }

    fn answer(&mut self) -> (u16, String, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.stream.read_line(&mut head).expect("an answer") > 0, "closed: {head}");
        }
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").parse().expect("a number");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the body");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, head, String::from_utf8(body).expect("text"))
    }

    fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", path, "", &body.to_string());
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    fn get(&mut self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.ask("GET", path, "", "");
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }
}

/// A running `serve`, and where it listens. Its histories are the versions' own, unless `sets` says
/// otherwise.
fn serve(bench: &Bench, from: &Path, sets: &[&str]) -> (Running, String) {
    let own = ["http.listen=127.0.0.1:0", "serve.follow=false"];
    let sets: Vec<&str> = own.into_iter().chain(sets.iter().copied()).collect();
    let mut command = bench.command("serve", "none", &sets);
    let mut run = Running::start(command.arg("--from").arg(from));
    let line = run.wait_for("answering on http://");
    let address = line.split("http://").nth(1).expect("an address").trim_end_matches('/');
    let address = address.to_owned();
    (run, address)
}

fn ready(run: &mut Running) {
    run.wait_for("a version is ready to answer");
}

/// What a checkpoint says of some queries, computed by the trainer's own state: ids and scores of
/// all items, best first.
struct Truth {
    version: String,
    /// By query.
    ranked: Vec<Vec<(String, f32)>>,
}

impl Truth {
    fn of(config: &Config, path: &Path, records: &[String], popularity: f32) -> Self {
        let (checkpoint, _) = Checkpoint::resolve(path).expect("a checkpoint");
        let trainer = pipeline::restore(config, &Placement::Cpu, &checkpoint).expect("whole");
        let state = trainer.state();
        let items = state.corpus.sorted();
        let vectors = state.model.embed_items(&items);
        let ids: Vec<u64> = items.iter().map(|(id, _)| *id).collect();
        let mut log_q = vec![0.0; ids.len()];
        state.frequency.log_q(&ids, Meaning::ExpectedCount, &mut log_q);
        let mut mapping = Mapping::new(config);
        let ranked = records.iter().map(|record| {
            let mut events = events_of(config);
            mapping.decode(Some(record.as_bytes()), Some(0), &mut events).expect("a record");
            let query = state.embed_now(&Batch::new(events, Offsets::new("t")));
            let scored = items.iter().zip(vectors.chunks_exact(query.len())).zip(&log_q);
            let mut scored: Vec<(String, f32)> = scored
                .map(|(((_, item), vector), log_q)| {
                    let dot: f32 = query.iter().zip(vector).map(|(a, b)| a * b).sum();
                    (item.name.to_string(), dot / state.temperature() + popularity * log_q)
                })
                .collect();
            scored.sort_by(|a, b| b.1.total_cmp(&a.1));
            scored
        });
        Self { version: checkpoint.manifest.version.clone(), ranked: ranked.collect() }
    }

    /// Panics unless `items` of an answer are the best of `query`, up to rounding.
    fn holds(&self, query: usize, items: &Value, k: usize) {
        let items = items.as_array().expect("items");
        let ranked = &self.ranked[query];
        assert_eq!(items.len(), k.min(ranked.len()));
        for (place, item) in items.iter().enumerate() {
            let (id, score) = (item["id"].as_str().expect("an id"), score(&item["score"]));
            let own = ranked.iter().find(|(name, _)| name == id).expect("an item of the version").1;
            assert!((own - score).abs() < 1e-5 * own.abs().max(1.0), "{id}: {score}, not {own}");
            let best = ranked[place].1;
            let near = (best - score).abs() < 1e-5 * best.abs().max(1.0);
            assert!(near, "place {place}: {score}, not {best}");
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it was a f32")]
fn score(value: &Value) -> f32 {
    value.as_f64().expect("a number") as f32
}

fn config(bench: &Bench, sets: &[&str]) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.toml");
    let mut overrides = vec![format!("kafka.topic={}", bench.topic), "device=cpu".to_owned()];
    overrides.extend(sets.iter().map(|&set| set.to_owned()));
    Config::load(Some(&path), &overrides).expect("valid")
}

/// Records of some queries of the stream that [`synthetic`] gives.
fn records(seed: u64, count: usize) -> Vec<String> {
    let mut by_user = BTreeMap::new();
    for line in synthetic(3000, seed) {
        let record: Value = serde_json::from_str(&line).expect("JSON");
        by_user.entry(record["user"].as_str().expect("a user").to_owned()).or_insert(line);
    }
    by_user.into_values().take(count).collect()
}

fn user(record: &str) -> Value {
    let record: Value = serde_json::from_str(record).expect("JSON");
    json!({ "user": record["user"] })
}

#[test]
fn answers_are_those_of_an_exact_computation_from_the_checkpoint() {
    let bench = Bench::new("demo.toml", 2);
    bench.produce_synthetic(20_000, 61);
    result(&mut bench.command("replay", "kept", &[]));
    let from = bench.checkpoints("kept");
    let (mut run, address) = serve(&bench, &from, &[]);
    ready(&mut run);
    let mut client = Client::new(&address);
    let records = records(61, 50);
    for popularity in [0.0, 1.0] {
        let truth = Truth::of(&config(&bench, &[]), &from, &records, popularity);
        for (query, record) in records.iter().enumerate() {
            let body = json!({ "query": user(record), "k": 20, "popularity": popularity });
            let (status, answer) = client.post("/v1/retrieve", &body);
            assert_eq!((status, &answer["version"]), (200, &json!(truth.version)), "{answer}");
            truth.holds(query, &answer["items"], 20);
            assert!(answer.get("cold").is_none(), "{answer}");
        }
        // Several at once, and the same by score.
        let some: Vec<Value> = records.iter().take(9).map(|record| user(record)).collect();
        let body = json!({ "queries": some, "k": 5, "popularity": popularity });
        let (_, answer) = client.post("/v1/retrieve", &body);
        for (query, answer) in answer["answers"].as_array().expect("answers").iter().enumerate() {
            truth.holds(query, &answer["items"], 5);
        }
        let best = &truth.ranked[0][..30];
        let ids: Vec<&str> = best.iter().map(|(id, _)| &**id).chain(["nobody's"]).collect();
        let body = json!({ "query": some[0], "items": ids, "popularity": popularity });
        let (_, answer) = client.post("/v1/score", &body);
        let items = answer["items"].as_array().expect("items");
        for (item, (id, own)) in items.iter().zip(best) {
            assert_eq!(item["id"], json!(id));
            assert!((score(&item["score"]) - own).abs() < 1e-4);
        }
        assert_eq!(items[30], json!({ "id": "nobody's", "score": null }));
    }
    what_a_request_can_ask_for(&mut client, &user(&records[0]));
    // Measured beside the answers.
    let mut page = String::new();
    eventually("a recall of 1", &mut || {
        let (status, text) = client.get("/metrics");
        page = text.as_str().expect("text").to_owned();
        status == 200 && page.contains("millrace_index_recall 1\n")
    });
    assert!(page.contains("millrace_requests_total{route=\"retrieve\",status=\"200\"} "), "{page}");
    run.signal("-TERM");
    let (took, status) = run.wait();
    assert!(status.success() && took < Duration::from_secs(5), "{took:?}");
}

/// Exclusions, inclusions, explanations, vectors, cold queries.
fn what_a_request_can_ask_for(client: &mut Client, query: &Value) {
    let ids = |answer: &Value| -> Vec<String> {
        let items = answer["items"].as_array().expect("items").iter();
        items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    let (_, plain) = client.post("/v1/retrieve", &json!({ "query": query, "k": 30 }));
    let best = ids(&plain);
    let body = json!({ "query": query, "k": 28, "exclude": [best[0], best[2], "nobody's"] });
    let fewer = ids(&client.post("/v1/retrieve", &body).1);
    let rest: Vec<&String> = best.iter().filter(|id| **id != best[0] && **id != best[2]).collect();
    assert_eq!(fewer.iter().collect::<Vec<_>>(), rest);
    let body = json!({ "query": query, "include": [best[7], best[3], "nobody's"] });
    assert_eq!(ids(&client.post("/v1/retrieve", &body).1), [best[3].clone(), best[7].clone()]);
    let body = json!({ "query": query, "k": 300, "exclude_seen": true, "explain": true });
    let (_, unseen) = client.post("/v1/retrieve", &body);
    let history = unseen["explain"]["history"].as_array().expect("a history");
    assert_eq!(history.len(), 10);
    assert!(
        history.iter().all(|item| !ids(&unseen).contains(&item.as_str().expect("named").into()))
    );
    let first = &unseen["items"][0];
    assert!((score(&first["affinity"]) - score(&first["score"])).abs() < 1e-6, "popularity is 0");
    // What explains an answer is what /v1/embed gives, and scores follow from item vectors.
    let (_, embedded) = client.post("/v1/embed", &json!({ "query": query }));
    assert_eq!(embedded["vector"], unseen["explain"]["vector"]);
    let (_, item) = client.get(&format!("/v1/items/{}", best[0]));
    let floats = |value: &Value| -> Vec<f32> {
        value["vector"].as_array().expect("a vector").iter().map(score).collect()
    };
    let dot: f32 = floats(&embedded).iter().zip(floats(&item)).map(|(a, b)| a * b).sum();
    assert!((dot / 0.1 - score(&plain["items"][0]["score"])).abs() < 1e-4);
    let (_, similar) = client.get(&format!("/v1/items/{}/similar?k=4", best[0]));
    assert_eq!(ids(&similar).len(), 4);
    assert!(!ids(&similar).contains(&best[0]) && score(&similar["items"][0]["cosine"]) <= 1.0001);
    // Who is not known gets an answer that says so.
    let (status, cold) = client.post("/v1/retrieve", &json!({ "query": { "user": "stranger" } }));
    let why = json!({ "missing": [], "unknown": ["user"], "no_history": true });
    assert_eq!((status, &cold["cold"], ids(&cold).len()), (200, &why, 10));
    let (_, cold) = client.post("/v1/retrieve", &json!({ "query": {} }));
    let why = json!({ "missing": ["user"], "unknown": [], "no_history": true });
    assert_eq!(cold["cold"], why);
}

#[test]
fn twenty_swaps_under_load_and_no_answer_mixes_two_versions() {
    const SWAPS: usize = 20;
    const ANSWERS: u64 = 10_000;
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(45_000, 62);
    // Each replay goes on where the one before ended, and ends with a checkpoint.
    for end in 1..=SWAPS + 1 {
        let mut replay = bench.command("replay", "kept", &["checkpoint.keep=100"]);
        result(replay.arg("--to").arg(format!("offset:{}", 2048 * end)));
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(bench.checkpoints("kept"))
        .expect("checkpoints")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.join("manifest.json").exists())
        .collect();
    paths.sort();
    assert_eq!(paths.len(), SWAPS + 1);
    let records = records(62, 20);
    let config = config(&bench, &[]);
    let truths: BTreeMap<String, Truth> = (paths.iter())
        .map(|path| Truth::of(&config, path, &records, 0.0))
        .map(|truth| (truth.version.clone(), truth))
        .collect();
    assert_eq!(truths.len(), SWAPS + 1);

    let from = bench.checkpoints("followed");
    std::fs::create_dir(&from).expect("a directory");
    let hand_over = |path: &Path| {
        let name = path.file_name().expect("a step");
        std::fs::rename(path, from.join(name)).expect("moved");
    };
    hand_over(&paths[0]);
    let (mut run, address) = serve(&bench, &from, &["serve.poll_ms=20"]);
    ready(&mut run);
    let (answers, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let load = Load { address: &address, records: &records, truths: &truths, answers, done };
    let seen = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| load.run())).collect();
        for (swap, path) in (1..).zip(&paths[1..]) {
            hand_over(path);
            ready(&mut run);
            // So many answers of each version at least, whatever the machine does.
            let enough = ANSWERS * swap / SWAPS as u64;
            let deadline = Instant::now() + PATIENCE;
            while load.answers.load(Ordering::Relaxed) < enough {
                let ended = clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
                assert!(!ended && Instant::now() < deadline, "the load broke off");
                std::thread::yield_now();
            }
        }
        load.done.store(true, Ordering::Relaxed);
        let seen = clients.into_iter().flat_map(|client| client.join().expect("no wrong answer"));
        seen.collect::<BTreeSet<String>>()
    });
    let answers = load.answers.load(Ordering::Relaxed);
    println!("{answers} answers of {} versions", seen.len());
    assert!(answers >= ANSWERS);
    assert_eq!(seen.len(), SWAPS + 1, "each version answered");
    one_can_go_back(&mut Client::new(&address), &truths);
}

/// What clients ask without a pause, and what they may be answered.
struct Load<'a> {
    address: &'a str,
    records: &'a [String],
    truths: &'a BTreeMap<String, Truth>,
    answers: AtomicU64,
    done: AtomicBool,
}

impl Load<'_> {
    /// Panics at the first answer that is not one of its version; the versions that answered.
    fn run(&self) -> BTreeSet<String> {
        let mut client = Client::new(self.address);
        let mut seen = BTreeSet::new();
        let mut query = 0;
        while !self.done.load(Ordering::Relaxed) {
            query = (query + 1) % self.records.len();
            let body = json!({ "query": user(&self.records[query]), "k": 10 });
            let (status, answer) = client.post("/v1/retrieve", &body);
            assert_eq!(status, 200, "{answer}");
            let version = answer["version"].as_str().expect("a version");
            self.truths[version].holds(query, &answer["items"], 10);
            seen.insert(version.to_owned());
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        seen
    }
}

/// Two versions are in memory: the newest, and the one before.
fn one_can_go_back(client: &mut Client, truths: &BTreeMap<String, Truth>) {
    let mut ids: Vec<&String> = truths.keys().rev().collect();
    let (_, listed) = client.get("/v1/versions");
    let listed = listed["versions"].as_array().expect("versions");
    let there: Vec<&str> = listed.iter().map(|v| v["version"].as_str().expect("an id")).collect();
    ids.truncate(2);
    assert_eq!(there, ids.iter().map(|id| &***id).collect::<Vec<_>>());
    let body = |id: &str| json!({ "query": { "user": "u1" }, "version": id });
    let (status, answer) = client.post("/v1/retrieve", &body(there[1]));
    assert_eq!((status, &answer["version"]), (200, &json!(there[1])), "pinned by the request");
    let oldest = truths.keys().next().expect("a version");
    let (status, problem) = client.post("/v1/retrieve", &body(oldest));
    assert_eq!((status, &problem["versions"]), (410, &json!(there)), "{problem}");
    let activate = |client: &mut Client, id: &str| {
        client.post(&format!("/v1/versions/{id}/activate"), &json!({}))
    };
    assert_eq!(activate(client, there[1]), (200, json!({ "version": there[1], "held": true })));
    let plain = json!({ "query": { "user": "u1" } });
    assert_eq!(client.post("/v1/retrieve", &plain).1["version"], there[1]);
    assert_eq!(activate(client, oldest).0, 410);
    assert_eq!(activate(client, "latest"), (200, json!({ "version": there[0], "held": false })));
    assert_eq!(client.post("/v1/retrieve", &plain).1["version"], there[0]);
}

const READ: &str = "Authorization: Bearer a-key-that-may-read\r\n";
const OTHER: &str = "Authorization: Bearer another-key-than-those\r\n";
const ASKED: &str = r#"{"query": {"user": "u1"}}"#;

/// Method, route, lines of the head, body; status, path of the field.
type Refused = (&'static str, &'static str, &'static str, &'static str, u16, &'static str);

const REFUSED: [Refused; 13] = [
    ("POST", "/v1/retrieve", "", ASKED, 401, ""),
    ("POST", "/v1/retrieve", OTHER, ASKED, 401, ""),
    ("POST", "/v1/versions/latest/activate", READ, "", 403, ""),
    ("GET", "/v1/retrieve", READ, "", 405, ""),
    ("GET", "/v1/nowhere", READ, "", 404, ""),
    ("POST", "/v1/retrieve", READ, "{", 400, ""),
    ("POST", "/v1/retrieve", READ, r#"{"query": {"user": [1]}}"#, 400, "query.user"),
    ("POST", "/v1/retrieve", READ, r#"{"queries": [{}, {"user": {}}]}"#, 400, "queries[1].user"),
    ("POST", "/v1/retrieve", READ, r#"{"query": {}, "k": 1001}"#, 400, "k"),
    ("POST", "/v1/score", READ, r#"{"query": {}}"#, 400, ""),
    ("POST", "/v1/embed", READ, r#"{"query": {"user": 1.5}}"#, 400, "query.user"),
    ("GET", "/v1/items/nobodys", READ, "", 404, ""),
    ("GET", "/v1/items/i1/similar?k=0", READ, "", 400, "k"),
];

/// Status, head and body of an answer; of a refusal the path of its field in the body's place.
fn refused(
    client: &mut Client,
    method: &str,
    path: &str,
    lines: &str,
    body: &str,
) -> (u16, String, String) {
    let (status, head, body) = client.ask(method, path, lines, body);
    if status < 400 || !path.starts_with("/v1/") {
        return (status, head, body);
    }
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    let problem: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(problem["status"], status, "{body}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{body}");
    (status, head, problem["field"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason() {
    let bench = Bench::new("demo.toml", 1);
    let from = bench.checkpoints("kept");
    std::fs::create_dir(&from).expect("a directory");
    let sets = [
        "serve.keys.read=[\"a-key-that-may-read\"]",
        "serve.keys.admin=[\"a-key-that-may-all\"]",
        "serve.body_bytes_max=2000",
        "serve.timeout_ms=300",
        "serve.poll_ms=20",
    ];
    let (mut run, address) = serve(&bench, &from, &sets);
    let mut client = Client::new(&address);
    let mut status = |method: &str, path: &str, lines: &str, body: &str| {
        refused(&mut client, method, path, lines, body)
    };
    // Before there is a version.
    let (code, head, _) = status("POST", "/v1/retrieve", READ, ASKED);
    assert!(code == 503 && head.contains("retry-after: 1"), "{code} {head}");
    assert_eq!(status("GET", "/readyz", "", "").0, 503);
    assert_eq!(status("GET", "/livez", "", "").0, 200, "waiting is no fault");
    bench.produce_synthetic(3_000, 63);
    let directory = format!("checkpoint.directory={}", from.display());
    result(&mut bench.command("replay", "kept", &[&directory]));
    ready(&mut run);
    // The log says so before /readyz does.
    eventually("ready", &mut || status("GET", "/readyz", "", "").0 == 200);
    assert_eq!(status("POST", "/v1/retrieve", READ, ASKED).0, 200);
    for (method, path, lines, body, code, field) in REFUSED {
        let (found, _, of) = status(method, path, lines, body);
        assert_eq!((found, &*of), (code, field), "{method} {path} {body}");
    }
    let large = format!(r#"{{"query": {{"user": "{}"}}}}"#, "x".repeat(2000));
    assert_eq!(status("POST", "/v1/retrieve", READ, &large).0, 413);
    // In a piece, with no length announced.
    let mut pieces = Client::new(&address);
    let head = "POST /v1/retrieve HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked";
    let piece = format!("{head}\r\n{READ}\r\nbb8\r\n{}\r\n0\r\n\r\n", "x".repeat(3000));
    pieces.stream.get_mut().write_all(piece.as_bytes()).expect("sent");
    let (status, head, _) = pieces.answer();
    assert!(status == 413 && head.contains("application/problem+json"), "{head}");
    // A body that does not come: half of it, then nothing.
    let mut slow = Client::new(&address);
    let head =
        format!("POST /v1/retrieve HTTP/1.1\r\nHost: t\r\n{READ}Content-Length: 100\r\n\r\n{{");
    slow.stream.get_mut().write_all(head.as_bytes()).expect("sent");
    let began = Instant::now();
    assert_eq!(slow.answer().0, 408);
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}

#[test]
fn a_request_beyond_the_limit_is_refused_at_once() {
    let bench = Bench::new("demo.toml", 1);
    let sets = ["serve.requests_max=3", "serve.timeout_ms=60000"];
    let (_run, address) = serve(&bench, &bench.checkpoints("nothing"), &sets);
    // Three whose bodies do not come take all places.
    let held: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = Client::new(&address);
            let head = "POST /v1/embed HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{";
            client.stream.get_mut().write_all(head.as_bytes()).expect("sent");
            client
        })
        .collect();
    let mut fourth = Client::new(&address);
    let deadline = Instant::now() + PATIENCE;
    // The places are taken once the three heads have been read.
    loop {
        let (status, head, body) = fourth.ask("POST", "/v1/embed", "", "{\"query\": {}}");
        assert_eq!(status, 503);
        if body.contains("requests_max") {
            assert!(head.contains("retry-after: 1"), "{head}");
            break;
        }
        assert!(Instant::now() < deadline, "never full: {body}");
    }
    drop(held);
    loop {
        let (_, _, body) = fourth.ask("POST", "/v1/embed", "", "{\"query\": {}}");
        if body.contains("no version") {
            break;
        }
        assert!(Instant::now() < deadline, "the places never came free: {body}");
    }
}

#[test]
fn without_keys_only_this_machine_is_answered() {
    let bench = Bench::new("demo.toml", 1);
    let mut command = bench.command("serve", "none", &["http.listen=0.0.0.0:0"]);
    let output = command.output().expect("millrace can be run");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("serve.keys.read") && log.contains("127.0.0.1"), "{log}");
}
