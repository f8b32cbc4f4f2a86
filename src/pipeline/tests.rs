//! The line as a whole, against librdkafka's mock broker.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::checkpoint;
use crate::stream::position::Position;
use crate::stream::source::tests::Broker;

/// Longer than anything takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn site(broker: &Broker, directory: &tempfile::TempDir) -> Site {
    let mut config = broker.config.clone();
    config.checkpoint.directory = directory.path().display().to_string();
    config.publish.topic = String::new();
    config.batch.linger_ms = 50;
    site_of(config)
}

/// A run of `config` on the CPU, with nobody outside.
pub(super) fn site_of(config: Config) -> Site {
    Site {
        metrics: Arc::new(Metrics::new(&config)),
        config,
        placement: Placement::Cpu,
        health: Arc::new(Health::new()),
        stop: Arc::new(AtomicBool::new(false)),
        clocks: Arc::new(Clocks::default()),
    }
}

/// A rejected record waits for a dead-letter topic without a leader, and the source waits with it.
/// A stop then leaves a checkpoint of all that was trained, and does not wait for the brokers.
#[test]
fn a_stop_while_the_source_waits_for_brokers_leaves_a_checkpoint_at_once() {
    let broker = Broker::new(1);
    broker.cluster.partition_leader("dead", 0, None).expect("a mock partition");
    let directory = tempfile::tempdir().expect("a directory");
    let site = site(&broker, &directory);
    for item in 0..20 {
        let text = format!("{{\"u\":1,\"i\":{item},\"t\":{item}}}");
        broker.send(0, Some(text.as_bytes()));
    }
    broker.flush();
    let (trained, waits) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            run(&site, &RunPlan::live(Position::Earliest), &mut |trainer, stats| {
                trained.store(trainer.progress().events, Ordering::Relaxed);
                let silent = stats.outlook.waits_for().contains("have not answered");
                waits.store(silent, Ordering::Relaxed);
            })
        });
        let until = |what: &str, reached: &dyn Fn() -> bool| {
            let deadline = Instant::now() + PATIENCE;
            while !reached() {
                assert!(Instant::now() < deadline && !run.is_finished(), "no {what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        until("step", &|| trained.load(Ordering::Relaxed) == 20);
        broker.send(0, Some(b"bad"));
        broker.flush();
        until("wait for the dead-letter topic", &|| waits.load(Ordering::Relaxed));
        let stopped = Instant::now();
        site.stop.store(true, Ordering::Relaxed);
        let summary = run.join().expect("no panic").expect("a stop is no failure");
        let took = stopped.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?} from the stop to the end");
        assert_eq!(summary.trained, 20);
    });
    let (newest, _) = checkpoint::latest(directory.path()).expect("a readable directory");
    assert_eq!(newest.expect("a checkpoint").manifest.events_trained, 20);
}

/// `kafka.start = "latest"`: a run that ends before its first step has still begun somewhere.
#[test]
fn what_comes_after_the_first_start_is_not_skipped_by_the_second() {
    let broker = Broker::new(1);
    let directory = tempfile::tempdir().expect("a directory");
    broker.send(0, Some(br#"{"u":1,"i":1,"t":1}"#));
    broker.flush();
    let first = site(&broker, &directory);
    let summary = run(&first, &RunPlan::live(Position::Latest), &mut |_, _| {
        first.stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(summary.expect("nothing failed").trained, 0);
    for item in 0..20 {
        let text = format!("{{\"u\":1,\"i\":{item},\"t\":{item}}}");
        broker.send(0, Some(text.as_bytes()));
    }
    broker.flush();
    let second = site(&broker, &directory);
    let deadline = Instant::now() + PATIENCE;
    let summary = run(&second, &RunPlan::live(Position::Latest), &mut |trainer, _| {
        let done = trainer.progress().events == 20 || Instant::now() > deadline;
        second.stop.store(done, Ordering::Relaxed);
    });
    assert_eq!(summary.expect("nothing failed").trained, 20);
}

fn broken(step: u64) -> anyhow::Error {
    Broken { step }.into()
}

/// A run that breaks resumes from the last checkpoint, even if it was to begin afresh.
#[test]
fn what_breaks_is_rolled_back_once() {
    let mut asked = Vec::new();
    let mut run = |fresh: bool| {
        asked.push(fresh);
        if asked.len() == 1 { Err(broken(70)) } else { Ok(7) }
    };
    assert_eq!(with_rollback(&mut run, true).expect("it goes on"), 7);
    assert_eq!(asked, [true, false]);
}

#[test]
fn what_breaks_at_the_same_step_again_has_failed() {
    let mut runs = 0;
    let mut run = |_| -> anyhow::Result<()> {
        runs += 1;
        Err(broken(70))
    };
    let error = with_rollback(&mut run, false).expect_err("for ever");
    let text = format!("{error:#}");
    assert!(text.contains("learning_rate") && text.contains("step 70"), "{text}");
    assert_eq!(runs, 2);
}

#[test]
fn other_failures_are_not_repeated() {
    let mut runs = 0;
    let mut run = |_| -> anyhow::Result<()> {
        runs += 1;
        anyhow::bail!("no broker")
    };
    assert!(with_rollback(&mut run, false).is_err());
    assert_eq!(runs, 1);
}
