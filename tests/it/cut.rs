//! Training in batches as small as a trickle's: `--cut`.

use std::process::Command;

use crate::support::{Bench, json};

const EVENTS: usize = 20_000;

/// Runs the binary on a config of the repository; returns its exit status and what it says.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo.toml");
    let (command, rest) = arguments.split_first().expect("a command");
    let output = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args([command, "--config", config, "--set", "kafka.brokers=127.0.0.1:1"])
        .args(rest)
        .output()
        .expect("millrace can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// None of these gets as far as the broker, which is not there.
#[test]
fn a_wrong_cut_is_a_usage_error_that_teaches_the_forms() {
    for command in ["replay", "evaluate"] {
        for wrong in ["0", "x", "random:", "-3"] {
            let (code, said) = refused(&[command, &format!("--cut={wrong}")]);
            assert_eq!(code, Some(2), "{command} --cut={wrong}: {said}");
            assert!(said.contains("such as 16") && said.contains("random:7"), "{said}");
        }
        let (code, said) = refused(&[command, "--cut", "1025"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("must be in 1..=batch.size (1024)"), "{said}");
    }
    let (code, said) = refused(&["evaluate", "--cut", "2", "--checkpoint", "none"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nothing is trained that could be cut"), "{said}");
    let (code, said) = refused(&["replay", "--by-day", "--cut", "2"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn each_cut_is_a_step() {
    let bench = Bench::new("demo.toml", 2);
    bench.produce_synthetic(EVENTS, 5);
    let steps = |cut: &str| {
        let mut replay = bench.command("replay", cut, &["publish.topic="]);
        let run = json(replay.args(["--cut", cut]));
        assert_eq!(run["trained"], EVENTS);
        run["step"].as_u64().expect("a step")
    };
    assert_eq!(steps("16"), 1250);
    let random = steps("random:3");
    println!("random:3 makes {random} steps of {EVENTS} events");
    assert!((100..EVENTS as u64).contains(&random), "{random}");
}

/// `evaluate` trains what `replay` trains, and goes on from where a checkpoint stands.
#[test]
fn evaluate_goes_on_from_a_checkpoint_event_by_event() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(EVENTS, 6);
    let sets = ["publish.topic="];
    let replayed = json(bench.command("replay", "first", &sets).args(["--to", "offset:15000"]));
    let before = replayed["step"].as_u64().expect("a step");
    let checkpoint = replayed["checkpoint"].as_str().expect("a path").to_owned();
    let evaluate = |arguments: &[&str]| {
        let run = json(bench.command("evaluate", "none", &sets).args(arguments));
        let number = |key: &str| run[key].as_u64().unwrap_or_else(|| panic!("{key} in {run}"));
        (number("step"), number("trained"), number("cases"))
    };
    let from = ["--checkpoint", &checkpoint, "--progressive"];
    let progressive = |rest: &[&str]| evaluate(&[&from[..], rest].concat());
    assert_eq!(progressive(&["--to", "offset:16024"]), (before + 1, 16_024, 1024));
    let cut = progressive(&["--to", "offset:16024", "--cut", "64"]);
    assert_eq!(cut, (before + 16, 16_024, 1024));
    // The same without --progressive, where training comes first.
    let held_out = evaluate(&["--from", "offset:15000", "--cut", "50"]);
    assert_eq!(held_out, (300, 15_000, 5000));
    assert_eq!(evaluate(&["--checkpoint", &checkpoint]), (before, 15_000, 5000));
}
