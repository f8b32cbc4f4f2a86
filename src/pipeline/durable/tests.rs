use std::time::Duration;

use anyhow::bail;
use crossbeam_channel::unbounded;

use super::super::line::StopOnPanic;
use super::super::tests::site_of;
use super::*;
use millrace_events::Offsets;
use millrace_train::Trainer;
use millrace_train::capture::Extent;

/// Longer than anything takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
const CHECKPOINTS: u64 = 30;

fn site(directory: &tempfile::TempDir) -> Site {
    let text = include_str!("../../../config/demo.toml");
    let mut config = Config::from_toml(text).expect("the demo's config is right");
    config.publish.every_checkpoints = 1;
    config.checkpoint.directory = directory.path().display().to_string();
    config.kafka.properties.insert("sasl.password".into(), "open sesame".into());
    site_of(config)
}

/// The state of `trainer`, all of its parts ready.
fn snapshot(site: &Site, number: u64, trainer: &mut Trainer) -> Snapshot {
    let (sender, parts) = unbounded();
    let progress = trainer.progress().clone();
    trainer.begin_capture(Extent::Whole);
    while trainer.is_capturing() {
        for part in trainer.advance_capture(usize::MAX) {
            sender.send(Message::Part(part)).expect("the receiver is there");
        }
    }
    trainer.settle_capture(false);
    sender.send(Message::Complete).expect("the receiver is there");
    Snapshot { number, facts: facts(&site.config, &lineage(), progress), chain: None, parts }
}

struct Ended {
    last_step: u64,
    /// `None`: the publisher panicked.
    published: Option<anyhow::Result<Option<Published>>>,
    stopped: bool,
    failures: u64,
}

/// Thirty checkpoints through both threads, each offered to `send`. On threads of their own, so
/// that a hang fails the test.
fn line(
    publication: Publication,
    send: impl FnMut(&Checkpoint, &dyn Fn() -> bool) -> anyhow::Result<Option<Published>>
    + Send
    + 'static,
) -> Ended {
    let (done, outcome) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let directory = tempfile::tempdir().expect("a directory");
        let site = site(&directory);
        let store = Store::open(directory.path(), 1).expect("the directory is ours");
        let settings = site.config.train();
        let (snapshot_sender, snapshots) = crossbeam_channel::bounded(1);
        let (outcome_sender, outcomes) = crossbeam_channel::bounded(1);
        let (outlet, checkpoints) = Outlet::new(publication);
        let durable = Mutex::new(None);
        let outcome = std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let _stop = StopOnPanic(&site.stop);
                publish(&site, publication, checkpoints, send)
            });
            let writer = scope.spawn(|| {
                let ends = (snapshots, outcome_sender);
                write_checkpoints(&site, &store, ends, Some(outlet), &durable)
            });
            for step in 1..=CHECKPOINTS {
                let progress = Progress { step, ..Progress::begin(Offsets::new("demo")) };
                let mut trainer = Trainer::with_progress(&settings, &site.placement, progress);
                let snapshot = snapshot(&site, step, &mut trainer);
                snapshot_sender.send(snapshot).expect("the writer lives");
                let outcome = outcomes.recv().expect("the writer lives");
                assert!(outcome.number == step && outcome.chain.is_some());
            }
            drop(snapshot_sender);
            let last = writer.join().expect("no panic").expect("the disk has room");
            Ended {
                last_step: last.map_or(0, |last| last.manifest.step),
                published: publisher.join().ok(),
                stopped: site.stop.load(Ordering::Relaxed),
                failures: site.metrics.publish_failures_total.get(),
            }
        });
        done.send(outcome).expect("the test waits");
    });
    outcome.recv_timeout(PATIENCE).expect("the line ends")
}

fn lineage() -> Lineage {
    Lineage::new("5eed0001", None, Witness::default())
}

#[test]
fn a_failed_publication_ends_the_run_after_its_last_checkpoint() {
    let outcome = line(Publication::Complete, |_, _| bail!("no such topic"));
    assert_eq!(outcome.last_step, CHECKPOINTS, "every checkpoint is written");
    assert!(outcome.stopped, "the trainer is told");
    assert_eq!(outcome.failures, 1);
    let error = outcome.published.expect("no panic").expect_err("the run has failed");
    let text = format!("{error:#}");
    assert!(text.contains("5eed0001-0000000000") && text.contains("no such topic"), "{text}");
}

#[test]
fn a_publisher_that_panics_ends_the_run() {
    for publication in [Publication::Live, Publication::Complete] {
        let outcome = line(publication, |_, _| panic!("a fault in the publisher"));
        assert_eq!(outcome.last_step, CHECKPOINTS);
        assert!(outcome.stopped && outcome.published.is_none());
    }
}

#[test]
fn a_live_run_goes_on_after_a_failed_publication() {
    let mut calls = 0;
    let outcome = line(Publication::Live, move |checkpoint, _| {
        calls += 1;
        if calls == 1 {
            bail!("the broker is away");
        }
        let (version, step) = (checkpoint.manifest.version.clone(), checkpoint.manifest.step);
        Ok(Some(Published { version, step, vectors: 1, tombstones: 0 }))
    });
    assert!(!outcome.stopped);
    assert_eq!(outcome.failures, 1);
    outcome.published.expect("no panic").expect("a failure is no end");
}

/// Thirty checkpoints are written while the publisher is busy with the first, one is kept.
#[test]
fn a_checkpoint_is_there_until_it_is_published_and_the_newest_is_next() {
    let mut busy = true;
    let outcome = line(Publication::Live, move |checkpoint, _| {
        if std::mem::take(&mut busy) {
            let newest = checkpoint.path.with_file_name(format!("{CHECKPOINTS:012}"));
            let patience = Instant::now() + PATIENCE / 2;
            while !newest.exists() && Instant::now() < patience {
                std::thread::yield_now();
            }
        }
        checkpoint.verify().expect("retention has left it");
        let (version, step) = (checkpoint.manifest.version.clone(), checkpoint.manifest.step);
        Ok(Some(Published { version, step, vectors: 1, tombstones: 0 }))
    });
    let published = outcome.published.expect("no panic").expect("no failure");
    assert_eq!(published.expect("two versions or three").step, CHECKPOINTS);
}

#[test]
fn the_last_checkpoint_of_a_complete_run_is_published() {
    let outcome = line(Publication::Complete, |checkpoint, _| {
        let (version, step) = (checkpoint.manifest.version.clone(), checkpoint.manifest.step);
        Ok(Some(Published { version, step, vectors: 1, tombstones: 0 }))
    });
    let published = outcome.published.expect("no panic").expect("no failure");
    let published = published.expect("something was published");
    assert_eq!(published.version, format!("5eed0001-{CHECKPOINTS:012}"));
    assert!(!outcome.stopped);
}

#[test]
fn no_file_of_a_checkpoint_holds_a_password() {
    let directory = tempfile::tempdir().expect("a directory");
    let site = site(&directory);
    let trainer = Trainer::new(&site.config.train(), &site.placement, Offsets::new("demo"));
    let store = Store::open(directory.path(), 1).expect("the directory is ours");
    let facts = facts(&site.config, &lineage(), trainer.progress().clone());
    let written = store.write(facts, trainer.capture().into_sections(), 1);
    let checkpoint = written.expect("the disk has room");
    let mut files = 0;
    for entry in std::fs::read_dir(&checkpoint.path).expect("it was just written") {
        let path = entry.expect("readable").path();
        let bytes = std::fs::read(&path).expect("readable");
        let found = bytes.windows(b"sesame".len()).any(|window| window == b"sesame");
        assert!(!found, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, checkpoint.manifest.sections.len() + 1, "the manifest is one more");
    let saved = Config::from_toml(&checkpoint.config().expect("stored")).expect("it still parses");
    assert_eq!(saved, site.config.without_credentials());
}

/// A snapshot of the demo's model at step `number`.
fn at_step(site: &Site, number: u64) -> Snapshot {
    let progress = Progress { step: number, ..Progress::begin(Offsets::new("demo")) };
    let settings = site.config.train();
    let mut trainer = Trainer::with_progress(&settings, &site.placement, progress);
    snapshot(site, number, &mut trainer)
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_counted_and_the_next_try_may_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let site = site(&directory);
    let store = Store::open(directory.path(), 1).expect("the directory is ours");
    let in_the_way = |step: u64| directory.path().join(format!(".tmp-{step:012}"));
    let (snapshot_sender, snapshots) = unbounded();
    let (outcome_sender, outcomes) = unbounded();
    // Three failures, a success, and then one failure too many.
    for step in 1..=8 {
        if step != 4 {
            std::fs::write(in_the_way(step), b"").expect("the directory is ours");
        }
        snapshot_sender.send(at_step(&site, step)).expect("the receiver is there");
    }
    drop(snapshot_sender);
    let durable = Mutex::new(None);
    let ended = write_checkpoints(&site, &store, (snapshots, outcome_sender), None, &durable);
    let error = format!("{:#}", ended.expect_err("refused"));
    assert!(error.contains("no checkpoint can be written") && error.contains("space"), "{error}");
    let told: Vec<bool> = outcomes.iter().map(|outcome| outcome.chain.is_some()).collect();
    assert_eq!(told, [false, false, false, true, false, false, false]);
    assert_eq!(site.metrics.checkpoint_failures_total.get(), 7);
    assert!(site.stop.load(Ordering::Relaxed));
    let (newest, rejected) = crate::checkpoint::latest(directory.path()).expect("readable");
    let newest = newest.expect("the fourth is untouched");
    assert_eq!((newest.manifest.step, rejected.len()), (4, 0));
}

#[test]
fn a_snapshot_that_is_given_up_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let site = site(&directory);
    let store = Store::open(directory.path(), 1).expect("the directory is ours");
    let whole = at_step(&site, 3);
    let (sender, parts) = unbounded();
    for message in whole.parts.iter().take(4) {
        sender.send(message).expect("the receiver is there");
    }
    drop(sender);
    let given_up = Snapshot { parts, ..whole };
    assert!(write(&store, given_up).expect("the disk has room").is_none());
    let names: Vec<_> = std::fs::read_dir(directory.path()).expect("readable").collect();
    assert_eq!(names.len(), 1, "the lock alone: {names:?}");
}
