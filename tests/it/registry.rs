//! Records in Avro, Protobuf and JSON Schema, as Confluent's own serializers write them, with the
//! schemas in an actual registry (Apicurio, by `scripts/registry`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::{Value, json as value};

use crate::proposals::{self, millrace};
use crate::support::{
    Bench, PATIENCE, Running, brokers, get, inspect, json, records, run_to_end, send, synthetic,
};

const EVENTS: usize = 6_000;
const SETS: [&str; 4] =
    ["batch.size=128", "checkpoint.every_steps=5", "publish.topic=", "registry.timeout_ms=3000"];

/// A registry, and a Python that writes by it. `None` with the reason printed.
struct Tools {
    url: String,
    python: PathBuf,
}

/// The address of a registry. `None` with the reason printed.
pub(crate) fn url() -> Option<&'static str> {
    static URL: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let url = std::env::var("MILLRACE_TEST_REGISTRY").ok();
        url.or_else(|| said("scripts/registry", &["start", "--port", "19081"]))
    };
    let url = URL.get_or_init(find).as_deref();
    if url.is_none() {
        println!("skipped: there is no registry; see above");
    }
    url
}

fn tools() -> Option<&'static Tools> {
    static TOOLS: OnceLock<Option<Tools>> = OnceLock::new();
    let find = || {
        let url = url()?.to_owned();
        let python = said("scripts/python", &["tests/registry/requirements.txt"])?;
        Some(Tools { url, python: python.into() })
    };
    let tools = TOOLS.get_or_init(find).as_ref();
    if tools.is_none() {
        println!("skipped: there is no registry, or no Python that writes by one; see above");
    }
    tools
}

/// The last line that a script of ours says.
fn said(script: &str, arguments: &[&str]) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join(script))
        .args(arguments)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().last().map(str::to_owned)
}

/// Sends synthetic events in `format`, the second half by a second schema.
fn produce(bench: &Bench, Tools { url, python }: &Tools, format: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry/produce.py");
    let mut writer = Command::new(python)
        .arg(script)
        .args([brokers(), &bench.topic, url, format])
        .stdin(Stdio::piped())
        .spawn()
        .expect("Python can be run");
    let mut lines = writer.stdin.take().expect("piped");
    for line in synthetic(EVENTS, 17) {
        writeln!(lines, "{line}").expect("it reads");
    }
    drop(lines);
    assert!(writer.wait().expect("it ends").success(), "produce.py failed; see above");
}

/// All that a checkpoint's digest is of but the name of its topic.
fn state(bench: &Bench, name: &str) -> Value {
    let manifest = inspect(&bench.checkpoints(name));
    let sections = manifest["sections"].as_array().expect("sections").iter();
    let sections: Vec<_> = sections
        .filter(|section| section["digested"] == true)
        .map(|section| [&section["name"], &section["length"], &section["checksum"]])
        .collect();
    assert!(sections.len() > 5, "{manifest}");
    let mut offsets = manifest["offsets"].clone();
    offsets.as_object_mut().expect("offsets").remove("topic").expect("the topic's name");
    value!([manifest["step"], offsets, sections])
}

/// The state that the same events in plain JSON lead to.
fn plain(tools: &Tools) -> Value {
    static STATE: OnceLock<Value> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let bench = Bench::new("demo.toml", 2);
        produce(&bench, tools, "json");
        let run = json(&mut bench.command("replay", "plain", &SETS));
        assert_eq!(run["trained"], EVENTS);
        state(&bench, "plain")
    });
    state.clone()
}

fn sets(own: &[String]) -> Vec<&str> {
    SETS.into_iter().chain(own.iter().map(String::as_str)).collect()
}

/// Trains on `format`; the same bits as from JSON, uninterrupted or killed.
fn is_json(format: &str) {
    let Some(tools) = tools() else { return };
    let bench = Bench::new("demo.toml", 2);
    produce(&bench, tools, format);
    let own = [format!("kafka.format={format}"), format!("registry.url={}", tools.url)];
    let sets = sets(&own);
    let whole = json(&mut bench.command("replay", "whole", &sets));
    assert_eq!((&whole["trained"], &whole["rejected"]), (&value!(EVENTS), &value!(0)));
    // The offsets are the same, too: one record an event.
    assert_eq!(state(&bench, "whole"), plain(tools), "{format}");

    let mut killed = Running::start(&mut bench.command("replay", "killed", &sets));
    let step = killed.wait_for_step(5);
    killed.signal("-KILL");
    killed.wait();
    let resumed = json(&mut bench.command("replay", "killed", &sets));
    println!("{format}: killed after step {step}, went on from {}", resumed["began_at_step"]);
    assert!(resumed["began_at_step"].as_u64() > Some(0));
    let of = |name: &str| inspect(&bench.checkpoints(name))["digest"].clone();
    assert_eq!(of("killed"), of("whole"));
}

#[test]
fn avro_records_train_as_json_does_through_a_new_schema_and_a_kill() {
    is_json("avro");
}

#[test]
fn protobuf_records_train_as_json_does_through_a_new_schema_and_a_kill() {
    is_json("protobuf");
}

#[test]
fn json_schema_records_train_as_json_does_through_a_new_schema_and_a_kill() {
    is_json("json-schema");
}

/// The second schema is registered while the trainer runs.
#[test]
fn a_live_trainer_reads_on_with_a_schema_that_did_not_exist_when_it_started() {
    let Some(tools) = tools() else { return };
    let bench = Bench::new("demo.toml", 2);
    let own = ["kafka.format=avro".to_owned(), format!("registry.url={}", tools.url)];
    let sets = [&sets(&own)[..], &["batch.linger_ms=200", "checkpoint.every_s=1"]].concat();
    let mut run = Running::start(&mut bench.command("train", "live", &sets));
    produce(&bench, tools, "avro");
    let deadline = Instant::now() + PATIENCE;
    loop {
        run.wait_for_step(0);
        let manifest = inspect(&bench.checkpoints("live"));
        assert_eq!(manifest["events_rejected"], 0);
        if manifest["events_trained"] == EVENTS {
            break;
        }
        assert!(Instant::now() < deadline, "{manifest}");
    }
    run.signal("-TERM");
    let (_, status) = run.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn records_of_unknown_schemas_are_dead_letters_with_a_reason_of_their_own() {
    let Some(tools) = tools() else { return };
    let bench = Bench::new("demo.toml", 2);
    produce(&bench, tools, "avro");
    let unknown = [0, 0x7f, 0xff, 0xff, 0xff, 2];
    send(&bench.topic, &[Some(&unknown), Some(b"{\"user\": 1}"), Some(&[0])]);
    let own = ["kafka.format=avro".to_owned(), format!("registry.url={}", tools.url)];
    let run = json(&mut bench.command("replay", "run", &sets(&own)));
    assert_eq!(run["rejected_by_reason"], value!({"unknown_schema": 1, "unframed": 2}));
    assert_eq!(run["trained"], EVENTS);
    let letters = records(&bench.dead());
    let mut reasons: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for letter in &letters {
        use rdkafka::message::{Headers as _, Message as _};
        let headers = letter.headers().expect("headers");
        let reason = headers.iter().find(|header| header.key == "reason").expect("a reason");
        let reason = String::from_utf8(reason.value.expect("a value").to_vec()).expect("text");
        reasons.insert(reason, letter.payload().expect("as it was").to_vec());
    }
    assert_eq!((letters.len(), &reasons["unknown_schema"]), (3, &unknown.to_vec()));
}

/// Hands on what comes to the actual registry, from now on.
fn forward(listener: TcpListener, url: &str) {
    let to = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let to = to.expect("an address").to_owned();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&to).expect("the registry");
            let (mut near_in, mut far_out) =
                (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
            std::thread::spawn(move || std::io::copy(&mut near_in, &mut far_out).ok());
            let (mut near_out, mut far_in) = (near, far);
            std::thread::spawn(move || std::io::copy(&mut far_in, &mut near_out).ok());
        }
    });
}

#[test]
fn a_registry_that_is_away_is_waited_for_and_no_record_is_rejected() {
    let Some(tools) = tools() else { return };
    let bench = Bench::new("demo.toml", 2);
    produce(&bench, tools, "avro");
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").to_string()
    };
    let (address, http) = (free(), free());
    let url = tools.url.replacen(tools.url.split('/').nth(2).expect("a host"), &address, 1);
    let own = [
        "kafka.format=avro".to_owned(),
        format!("registry.url={url}"),
        "registry.user=me".to_owned(),
        "registry.password=5ecret".to_owned(),
        format!("http.listen={http}"),
    ];
    let mut run = Running::start(&mut bench.command("replay", "waits", &sets(&own)));
    let line = run.wait_for("gives no schema");
    assert!(line.contains("WARN") && line.contains(&address), "{line}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, body) = get(&http, "/readyz");
        if status.contains("503") && body.contains("waits for the schema registry") {
            break;
        }
        assert!(Instant::now() < deadline, "{status} {body}");
    }
    let (status, body) = get(&http, "/livez");
    assert!(status.contains("200"), "a restart would not help: {status} {body}");
    forward(TcpListener::bind(&address).expect("the port"), &tools.url);
    run.wait_for("answers again");
    let (_, status) = run.wait();
    assert!(status.success(), "{status}");
    assert_eq!(state(&bench, "waits"), plain(tools));
    let waited = inspect(&bench.checkpoints("waits"));
    let shown = format!("{waited} {}", run.rest().join("\n"));
    assert!(!shown.contains("5ecret"), "no password is shown: {shown}");
}

#[test]
fn check_tries_records_of_a_registry() {
    let Some(tools) = tools() else { return };
    let bench = Bench::new("demo.toml", 2);
    produce(&bench, tools, "protobuf");
    let own = ["kafka.format=protobuf".to_owned(), format!("registry.url={}", tools.url)];
    let mut command = bench.command("check", "none", &sets(&own));
    let told = json(command.args(["--connect", "--sample", "500"]));
    assert_eq!((&told["ok"], &told["sample"]["accepted"]), (&value!(true), &value!(500)));
    let ids = &told["sample"]["ids"]["kinds"];
    assert_eq!(ids[0]["of"], "query.id");
    assert!(ids[0]["distinct"].as_u64() > Some(50), "{ids}");
    let nobody = [own[0].clone(), "registry.url=http://127.0.0.1:1".to_owned()];
    let mut command = bench.command("check", "none", &sets(&nobody));
    let output = command.args(["--connect", "--json"]).output().expect("it can be run");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = told["findings"].to_string();
    assert!(output.status.code() == Some(1) && findings.contains("schema registry"), "{findings}");
}

/// `init` on a bench's topic, with these settings.
fn init(bench: &Bench, sets: &[String]) -> Command {
    let mut command = millrace(bench, &["init", "--brokers", brokers(), "--topic", &bench.topic]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

/// What `init` proposes for a topic of `format`, told no more than these settings, trains.
fn is_proposed(format: &str, sets: &[String]) {
    let Some(tools) = tools() else { return };
    let bench = proposals::bench();
    produce(&bench, tools, format);
    let text = proposals::said(init(&bench, sets));
    assert!(text.contains(&format!("format = \"{format}\"")), "{text}");
    std::fs::write(bench.directory.path().join("my.toml"), &text).expect("written");
    let told = ["check", "--config", "my.toml", "--connect", "--sample", "500"];
    let told = json(&mut millrace(&bench, &told));
    assert_eq!((&told["ok"], &told["sample"]["accepted"]), (&value!(true), &value!(500)));
    let small = ["replay", "--config", "my.toml", "--set", "batch.size=128"];
    let run = json(&mut millrace(&bench, &small));
    assert_eq!((&run["trained"], &run["rejected"]), (&value!(EVENTS), &value!(0)), "{text}");
}

#[test]
fn avro_is_proposed_from_a_registry() {
    let Some(tools) = tools() else { return };
    is_proposed("avro", &[format!("registry.url={}", tools.url)]);
}

#[test]
fn protobuf_is_proposed_from_a_registry() {
    let Some(tools) = tools() else { return };
    is_proposed("protobuf", &[format!("registry.url={}", tools.url)]);
}

#[test]
fn json_schema_is_proposed_without_a_registry() {
    is_proposed("json-schema", &[]);
}

#[test]
fn init_says_what_it_needs_to_read_records_by_a_schema() {
    let Some(tools) = tools() else { return };
    let bench = Bench::new("demo.toml", 2);
    produce(&bench, tools, "avro");
    for (sets, parts) in [
        (vec![], ["6000 of 6000 records are in the Confluent wire format", "--set registry.url="]),
        (vec!["registry.url=http://127.0.0.1:1"], ["schema registry", "no connection"]),
        (
            vec!["kafka.format=protobuf", "registry.url=URL"],
            ["none of 6000 records can be read", "it is of AVRO, and kafka.format of PROTOBUF"],
        ),
    ] {
        let sets: Vec<String> = sets.iter().map(|set| set.replace("URL", &tools.url)).collect();
        let (status, log) = run_to_end(&mut init(&bench, &sets));
        assert!(
            status == Some(1) && parts.iter().all(|part| log.contains(part)),
            "{sets:?}\n{log}"
        );
    }
}
