use anyhow::bail;

use super::super::line::StopOnPanic;
use super::super::tests::site_of;
use super::*;
use millrace_train::{Progress, Trainer};

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

struct Outcome {
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
) -> Outcome {
    let (done, outcome) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let directory = tempfile::tempdir().expect("a directory");
        let site = site(&directory);
        let store = Store::open(directory.path(), 1).expect("the directory is ours");
        let settings = site.config.train();
        let (snapshot_sender, snapshots) = crossbeam_channel::bounded(1);
        let (sender, checkpoints) = crossbeam_channel::bounded(1);
        let durable = Mutex::new(None);
        let outcome = std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let _stop = StopOnPanic(&site.stop);
                publish(&site, publication, checkpoints, send)
            });
            let writer = scope.spawn(|| {
                let outlet = Some(Outlet { sender, publication });
                write_checkpoints(&site, &store, &lineage(), snapshots, outlet, &durable)
            });
            for step in 1..=CHECKPOINTS {
                let progress = Progress { step, ..Progress::begin(Offsets::new("demo")) };
                let trainer = Trainer::with_progress(&settings, &site.placement, progress);
                snapshot_sender.send(trainer.capture()).expect("the writer lives");
            }
            drop(snapshot_sender);
            let last = writer.join().expect("no panic").expect("the disk has room");
            Outcome {
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
    Lineage::new("5eed0001", Witness::default())
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
    let snapshot = snapshot(&site.config, &lineage(), trainer.capture());
    let checkpoint = store.write(&snapshot).expect("the disk has room");
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

#[test]
fn a_checkpoint_that_cannot_be_written_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let site = site(&directory);
    let store = Store::open(directory.path(), 1).expect("the directory is ours");
    let trainer = Trainer::new(&site.config.train(), &site.placement, Offsets::new("demo"));
    let mut snapshot = snapshot(&site.config, &lineage(), trainer.capture());
    // A name that the store refuses, so that every try fails at once.
    snapshot.sections[0].name = "../x".into();
    let error = write_with_retries(&site, &store, &snapshot).expect_err("refused");
    assert!(error.to_string().contains("no checkpoint can be written"), "{error:#}");
    assert_eq!(site.metrics.checkpoint_failures_total.get(), u64::from(WRITE_TRIES));
}
