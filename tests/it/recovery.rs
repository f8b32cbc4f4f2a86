//! Does it lose or repeat anything?

use std::time::{Duration, Instant, SystemTime};

use millrace_events::SplitMix;
use serde_json::json as value;

use crate::support::{Bench, PATIENCE, Running, inspect, json, newest_step};

const EVENTS: usize = 60_000;

/// Small batches: many steps, so that a kill lands anywhere.
const SETS: [&str; 3] = ["batch.size=128", "checkpoint.every_steps=9", "publish.topic="];

/// MILLRACE_SEED repeats a run.
fn seed() -> u64 {
    let given = std::env::var("MILLRACE_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed = given.unwrap_or(u64::from(now.subsec_nanos()));
    println!("MILLRACE_SEED={seed}");
    seed
}

#[test]
fn sigkill_at_random_steps_ends_in_the_bits_of_an_uninterrupted_run() {
    survives_sigkill(&SETS, 1, &[]);
}

/// The same where checkpoints can only be taken every eighth step.
#[test]
fn sigkill_within_a_shuffle_window_repeats_the_window() {
    survives_sigkill(&[&SETS[..], &["batch.shuffle_events=1024"]].concat(), 1, &[]);
}

/// Batches of random sizes: the sizes after a kill are those of a run that never stopped.
#[test]
fn sigkill_between_random_cuts_goes_on_with_the_cuts_that_followed() {
    survives_sigkill(&SETS, 1, &["--cut", "random:3"]);
}

/// The last window of a pass is incomplete, and its end is where the next pass begins.
#[test]
fn sigkill_between_passes_goes_on_in_the_pass_where_it_was() {
    survives_sigkill(&[&SETS[..], &["batch.shuffle_events=1024"]].concat(), 3, &[]);
}

fn survives_sigkill(sets: &[&str], passes: u32, arguments: &[&str]) {
    let mut random = SplitMix::new(seed());
    // Two partitions: the merge by event time must come out the same, too.
    let bench = Bench::new("demo.toml", 2);
    let events = EVENTS / passes as usize;
    bench.produce_synthetic(events, 11);
    let replay = |name| {
        let mut command = bench.command("replay", name, sets);
        command.arg("--passes").arg(passes.to_string()).args(arguments);
        command
    };
    let whole = json(&mut replay("whole"));
    assert_eq!((&whole["events"], &whole["passes"]), (&value!(EVENTS), &value!(passes)));
    let steps = whole["step"].as_u64().expect("a step");

    let killed = bench.checkpoints("killed");
    let mut kills = Vec::new();
    let mut rounds = 0;
    while kills.len() < 4 {
        let before = newest_step(&killed);
        let target = before + 1 + random.next_u64() % (steps / 6);
        let mut run = Running::start(&mut replay("killed"));
        let deadline = Instant::now() + PATIENCE;
        while newest_step(&killed) < target && run.child.try_wait().expect("running").is_none() {
            assert!(Instant::now() < deadline, "no checkpoint at or past step {target}");
            std::thread::yield_now();
        }
        // Somewhere within the steps that follow, with a write going on or not.
        let pause = Instant::now() + Duration::from_micros(random.next_u64() % 20_000);
        while Instant::now() < pause {
            std::thread::yield_now();
        }
        if run.child.try_wait().expect("running").is_none() {
            run.signal("-KILL");
        }
        run.wait();
        kills.push(newest_step(&killed));
        if newest_step(&killed) < steps {
            continue;
        }
        if kills.iter().any(|&step| step < steps) {
            break;
        }
        // On a busy machine the run may be over before the first kill: once more from the start.
        rounds += 1;
        assert!(rounds < 10, "every run was over before it was killed: {kills:?} of {steps}");
        std::fs::remove_dir_all(&killed).expect("checkpoints of our own");
        kills.clear();
    }
    println!("killed with newest checkpoints at {kills:?} of {steps} steps");
    assert!(kills.iter().any(|&step| step < steps), "at least one kill came before the end");
    let resumed = json(&mut replay("killed"));
    assert!(resumed["began_at_step"].as_u64() > Some(0), "it went on from a checkpoint");
    for key in ["step", "events", "trained", "rejected", "passes", "digest"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    let of = |name: &str| inspect(&bench.checkpoints(name));
    assert_eq!(of("killed")["offsets"], of("whole")["offsets"]);
    assert_eq!(of("killed")["digest"], of("whole")["digest"]);
}

#[test]
fn a_second_run_repeats_the_digest_and_another_seed_does_not() {
    let bench = Bench::new("demo.toml", 2);
    bench.produce_synthetic(8_000, 12);
    let run = |name, seed| {
        let mut sets = SETS.to_vec();
        sets.push(seed);
        json(&mut bench.command("replay", name, &sets))["digest"].clone()
    };
    let first = run("first", "seed=1");
    assert_eq!(first, run("second", "seed=1"));
    assert_ne!(first, run("third", "seed=2"));
}

#[test]
fn sigterm_takes_a_last_checkpoint_and_exits_0() {
    sigterm(&["batch.linger_ms=100", "checkpoint.every_steps=5"]);
}

/// Four steps a window, of which the last is on disk before the trainer goes.
#[test]
fn sigterm_trains_a_shuffle_window_to_its_end() {
    sigterm(&[
        "batch.size=128",
        "batch.shuffle_events=512",
        "batch.linger_ms=100",
        "checkpoint.every_steps=5",
    ]);
}

fn sigterm(sets: &[&str]) {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(20_000, 13);
    let with_http = [&["http.listen=127.0.0.1:0"], sets].concat();
    let mut run = Running::start(&mut bench.command("train", "train", &with_http));
    run.wait_for("checkpoint step=");
    run.signal("-TERM");
    let (took, status) = run.wait();
    assert!(status.success(), "exit status {status}");
    assert!(took < Duration::from_secs(10), "took {took:?}");
    let stopped = inspect(&bench.checkpoints("train"));
    println!("SIGTERM: {took:?}, last checkpoint at step {}", stopped["step"]);

    // What was read and not trained is read again: nothing is missing, nothing is there twice.
    let rest = json(&mut bench.command("replay", "train", sets));
    assert_eq!((&rest["trained"], &rest["rejected"]), (&value!(20_000), &value!(0)));
}

/// A volume that is not mounted looks like an empty directory.
#[test]
fn an_emptied_checkpoint_directory_is_refused_until_it_is_told_otherwise() {
    let bench = Bench::new("demo.toml", 2);
    bench.produce_synthetic(20_000, 16);
    let sets = ["checkpoint.every_steps=5", "batch.linger_ms=100", "publish.every_checkpoints=1"];
    // By the offsets that the group has, and without a group by the published versions.
    for (name, set) in [("offsets", "publish.topic="), ("versions", "kafka.group=")] {
        let sets = [&sets[..], &[set]].concat();
        let mut run = Running::start(&mut bench.command("train", name, &sets));
        run.wait_for(if name == "offsets" { "checkpoint step=" } else { "published version=" });
        run.signal("-TERM");
        assert!(run.wait().1.success());
        // A replay beside it is not the group's business: it leaves the offsets as they are.
        json(&mut bench.command("replay", &format!("trial-{name}"), &sets));
        let directory = bench.checkpoints(name);
        std::fs::remove_dir_all(&directory).expect("checkpoints of our own");

        let output = bench.command("train", name, &sets).output().expect("millrace can be run");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        for part in ["holds no checkpoint", "not mounted", "millrace train --fresh", name] {
            assert!(log.contains(part), "no {part} in {log}");
        }
        assert_eq!(newest_step(&directory), 0, "nothing was begun");
        let mut fresh = bench.command("train", name, &sets);
        let mut run = Running::start(fresh.arg("--fresh"));
        run.wait_for("checkpoint step=");
        run.signal("-TERM");
        assert!(run.wait().1.success());
        let mut again = Running::start(&mut bench.command("train", name, &sets));
        again.wait_for("going on from a checkpoint");
        again.signal("-TERM");
        assert!(again.wait().1.success());
    }
}

#[test]
fn one_trainer_a_directory() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(2_000, 14);
    let mut run =
        Running::start(&mut bench.command("train", "shared", &["checkpoint.every_steps=1"]));
    run.wait_for("checkpoint step=");
    let output = bench.command("train", "shared", &[]).output().expect("millrace can be run");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains(&run.child.id().to_string()), "the message names the owner:\n{log}");
}

#[test]
fn another_config_is_refused_with_the_keys_that_differ() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(2_000, 15);
    json(&mut bench.command("replay", "kept", &[]));
    let mut other = bench.command("replay", "kept", &["model.hidden=[32]"]);
    let output = other.output().expect("millrace can be run");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        log.contains("- model.hidden = [64]") && log.contains("+ model.hidden = [32]"),
        "{log}"
    );
}
