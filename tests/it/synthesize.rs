//! A synthetic stream through a pipe, as docker-compose.yml sends it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Bench, json};

fn synthesize(arguments: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_millrace"))
        .arg("synthesize")
        .args(arguments.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("millrace can be run")
}

/// Expects a quiet end with status 0.
fn ends_quietly(mut stream: Child) {
    let mut said = String::new();
    stream.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(stream.wait().expect("the stream ends").success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn a_synthetic_stream_goes_through_produce_into_a_model() {
    let bench = Bench::new("synthetic.toml", 2);
    let mut stream = synthesize("--rate 3000 --events 5000 --seed 3");
    let mut produce = bench.command("produce", "none", &[]);
    produce.arg("-").stdin(stream.stdout.take().expect("piped"));
    assert_eq!(json(&mut produce)["lines"], 5000);
    ends_quietly(stream);
    let summary = json(&mut bench.command("replay", "synthetic", &[]));
    assert_eq!((&summary["trained"], &summary["rejected"]), (&5000.into(), &0.into()));
}

#[test]
fn a_stream_without_an_end_ends_with_its_reader() {
    let mut stream = synthesize("--rate 2000");
    let mut lines = BufReader::new(stream.stdout.take().expect("piped")).lines();
    assert_eq!(lines.by_ref().take(500).map_while(Result::ok).count(), 500);
    drop(lines);
    ends_quietly(stream);
}

#[test]
fn a_signal_ends_a_stream_between_two_lines() {
    for signal in ["-TERM", "-INT"] {
        let mut stream = synthesize("--rate 2000");
        let mut lines = BufReader::new(stream.stdout.take().expect("piped")).lines();
        lines.next().expect("a first line").expect("text");
        let sent = Command::new("kill").arg(signal).arg(stream.id().to_string()).status();
        assert!(sent.expect("kill can be run").success());
        for line in lines {
            let line = line.expect("text");
            serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
        ends_quietly(stream);
    }
}

/// `millrace .. | head` reads what it wants and goes: that is no panic.
#[test]
fn a_result_that_nobody_reads_ends_quietly() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["check", "--config", config])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{}: {error}", output.status);
}
