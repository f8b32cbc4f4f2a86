use proptest::prelude::*;

use std::fs::OpenOptions;
use std::io::Write;

use xxhash_rust::xxh3::xxh3_128;

use super::manifest::{FORMAT, seal};
use super::store::stage;
use super::*;

fn snapshot(step: u64) -> Snapshot {
    let mut offsets = Offsets::new("watch");
    offsets.advance(0, 10 * step as i64);
    offsets.advance(3, 7);
    let section = |name: &str, bytes: &[u8], digested| {
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        Section { name, bytes, digested }
    };
    Snapshot {
        run: "5eed0001".into(),
        witness: Witness::default(),
        step,
        offsets,
        pass: 2,
        event_time_ms: 1_700_000_000_000,
        events_trained: 1024 * step,
        events_rejected: 3,
        config_digest: "c0ffee".into(),
        config_toml: "[model]\ndim = 64\n".into(),
        sections: vec![
            section("table.item", &[1, 2, 3, step.to_le_bytes()[0]], true),
            section("optimizer", b"adagrad", true),
            section("metrics", b"recall", false),
        ],
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("tests need a temporary directory")
}

fn store(directory: &tempfile::TempDir, keep: usize) -> Store {
    Store::open(directory.path(), keep).expect("the directory is ours")
}

fn write(store: &Store, step: u64) -> Checkpoint {
    store.write(&snapshot(step)).expect("the disk has room")
}

fn newest(directory: &Path) -> (Option<u64>, Vec<String>) {
    let (found, rejected) = latest(directory).expect("the directory can be read");
    let reasons = rejected.into_iter().map(|rejected| rejected.reason).collect();
    (found.map(|checkpoint| checkpoint.manifest.step), reasons)
}

fn steps(directory: &Path) -> Vec<u64> {
    let found = list(directory).expect("the directory can be read");
    found.into_iter().map(|(step, _)| step).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.expect("the entry can be read").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

fn message<T>(result: Result<T>) -> String {
    format!("{}", result.err().expect("this must fail"))
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(message.contains(part), "no {part:?} in: {message}"));
}

fn digest_of(snapshot: &Snapshot) -> String {
    let directory = directory();
    let written = store(&directory, 1).write(snapshot).expect("the disk has room");
    written.manifest.digest
}

#[test]
fn what_was_written_is_read() {
    let directory = directory();
    let written = write(&store(&directory, 2), 976);
    assert!(written.path.ends_with("000000000976"));
    assert_eq!(
        names(&written.path),
        ["config.toml", "manifest.json", "metrics", "optimizer", "table.item"]
    );
    let (found, rejected) = latest(directory.path()).expect("the directory can be read");
    let found = found.expect("one was written");
    assert!(rejected.is_empty());
    assert_eq!((&found.path, &found.manifest), (&written.path, &written.manifest));
    let (given, manifest) = (snapshot(976), &found.manifest);
    let version = "5eed0001-000000000976";
    assert_eq!((manifest.version.as_str(), manifest.format), (version, FORMAT));
    assert_eq!(manifest.run, given.run);
    assert_eq!((manifest.step, &manifest.offsets), (976, &given.offsets));
    assert_eq!(manifest.event_time_ms, given.event_time_ms);
    assert_eq!(manifest.events_trained, given.events_trained);
    assert_eq!(manifest.events_rejected, given.events_rejected);
    assert_eq!(manifest.config_digest, given.config_digest);
    assert_eq!(found.config().expect("it was stored"), given.config_toml);
    for section in given.sections {
        assert_eq!(found.section(&section.name).expect("it was stored"), section.bytes);
    }
    assert_says(&message(found.section("towers")), &["no section towers", "table.item"]);
}

#[test]
fn there_may_be_none() {
    let directory = directory();
    assert_eq!(newest(directory.path()), (None, vec![]));
    assert_eq!(newest(&directory.path().join("absent")), (None, vec![]));
    store(&directory, 1);
    fs::create_dir(directory.path().join("77")).expect("the directory is ours");
    assert_eq!(newest(directory.path()), (None, vec![]), "77 is not a name of ours");
}

/// Without emptying the file first, which makes ext4 write it to the disk each time.
fn overwrite(file: &Path, bytes: &[u8]) {
    let mut open = OpenOptions::new().write(true).open(file).expect("the file is ours");
    open.write_all(bytes).expect("the disk has room");
    open.set_len(bytes.len() as u64).expect("the file is ours");
}

/// Every byte of every file, flipped; every file cut at every length, and deleted.
#[test]
fn any_damage_makes_the_older_one_win() {
    let directory = directory();
    let store = store(&directory, 2);
    write(&store, 1);
    let damaged = write(&store, 2).path;
    for name in names(&damaged) {
        let file = damaged.join(&name);
        let good = fs::read(&file).expect("it was just written");
        let flipped = (0..good.len()).flat_map(|at| [1, 0x20, 0x80].map(|bit| (at, bit)));
        let flipped = flipped.map(|(at, bit)| {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            bytes
        });
        let cut = (0..good.len()).map(|length| good[..length].to_vec());
        let longer = [[&good[..], b" "].concat()];
        for bad in flipped.chain(cut).chain(longer) {
            overwrite(&file, &bad);
            let (step, reasons) = newest(directory.path());
            assert_eq!(step, Some(1), "{name}: {}", String::from_utf8_lossy(&bad));
            assert_eq!(reasons.len(), 1);
            assert_says(&reasons[0], &["damaged"]);
        }
        fs::remove_file(&file).expect("the file is ours");
        let (step, reasons) = newest(directory.path());
        assert_eq!(step, Some(1));
        assert_says(&reasons[0], &[&name, "retention", "No such file"]);
        fs::write(&file, &good).expect("the file is ours");
    }
    assert_eq!(newest(directory.path()), (Some(2), vec![]));
}

#[test]
fn a_section_read_is_a_section_checked() {
    let directory = directory();
    let checkpoint = write(&store(&directory, 1), 1);
    fs::write(checkpoint.path.join("optimizer"), b"adagraD").expect("the file is ours");
    assert_says(&message(checkpoint.section("optimizer")), &["optimizer differs"]);
    assert_says(&message(checkpoint.verify()), &["optimizer differs"]);
    assert!(checkpoint.section("table.item").is_ok());
    fs::remove_dir_all(&checkpoint.path).expect("the directory is ours");
    let lost = message(checkpoint.section("table.item"));
    assert_says(&lost, &["table.item", "deleted by retention", "newest"]);
}

#[test]
fn a_renamed_checkpoint_is_not_the_newest() {
    let directory = directory();
    let old = write(&store(&directory, 1), 1).path;
    let path = directory.path().join(directory_name(9));
    fs::rename(old, &path).expect("the directory is ours");
    let (step, reasons) = newest(directory.path());
    assert_eq!(step, None);
    assert_says(&reasons[0], &["step 1", "renamed"]);
    assert!(Checkpoint::open(&path).is_ok(), "by its path it is as good as ever");
}

#[test]
fn a_crash_while_writing_leaves_the_older_one() {
    let directory = directory();
    write(&store(&directory, 2), 1);
    let staged = directory.path().join(".tmp-000000000002");
    stage(&staged, &snapshot(2)).expect("the disk has room");
    fs::remove_file(staged.join(MANIFEST)).expect("the file is ours");
    assert_eq!(newest(directory.path()), (Some(1), vec![]));
    let store = store(&directory, 2);
    assert_eq!(names(directory.path()), [".lock", "000000000001"]);
    write(&store, 2);
    assert_eq!(newest(directory.path()), (Some(2), vec![]));
}

#[test]
fn a_crash_while_replacing_leaves_one_of_the_two() {
    let directory = directory();
    let path = write(&store(&directory, 1), 1).path;
    let replaced = directory.path().join(".old-000000000001");
    fs::rename(&path, &replaced).expect("the directory is ours");
    let again = store(&directory, 1);
    assert_eq!(newest(directory.path()), (Some(1), vec![]), "it has its name back");
    fs::create_dir(&replaced).expect("the directory is ours");
    drop(again);
    store(&directory, 1);
    assert_eq!(names(directory.path()), [".lock", "000000000001"]);
}

#[test]
fn the_newest_are_kept() {
    let directory = directory();
    let store = store(&directory, 3);
    (1..=5).for_each(|step| drop(write(&store, 10 * step)));
    assert_eq!(steps(directory.path()), [30, 40, 50]);
    assert_eq!(names(directory.path()).len(), 4, "and nothing else but the lock");
}

#[test]
fn damage_does_not_push_out_good_ones() {
    let directory = directory();
    let store = store(&directory, 2);
    (1..=3).for_each(|step| drop(write(&store, step)));
    let cut = directory.path().join(directory_name(3)).join("optimizer");
    fs::write(cut, b"ada").expect("the file is ours");
    write(&store, 4);
    assert_eq!(steps(directory.path()), [2, 3, 4]);
    write(&store, 5);
    assert_eq!(steps(directory.path()), [4, 5]);
}

#[test]
fn the_one_just_written_stays_even_below_others() {
    let directory = directory();
    let store = store(&directory, 1);
    write(&store, 9);
    write(&store, 4);
    write(&store, 5);
    assert_eq!(steps(directory.path()), [5, 9]);
}

#[test]
fn a_step_may_be_written_twice() {
    let directory = directory();
    let store = store(&directory, 2);
    let first = write(&store, 1);
    let file = first.path.join("optimizer");
    let written = || fs::metadata(&file).and_then(|file| file.modified()).expect("it is there");
    let before = written();
    assert_eq!(write(&store, 1).manifest, first.manifest);
    assert_eq!(written(), before, "an identical one stays");

    fs::write(&file, b"damage!").expect("the file is ours");
    assert!(write(&store, 1).verify().is_ok(), "a damaged one is replaced");

    let mut other = snapshot(1);
    other.sections[0].bytes = vec![9; 9];
    other.sections.remove(1);
    let replaced = store.write(&other).expect("the disk has room");
    assert_ne!(replaced.manifest.digest, first.manifest.digest);
    assert!(replaced.verify().is_ok() && !file.exists(), "another one is replaced whole");
    assert_eq!(names(directory.path()), [".lock", "000000000001"]);
}

#[test]
fn one_trainer_per_directory() {
    let directory = directory();
    let first = store(&directory, 1);
    let second = message(Store::open(directory.path(), 1));
    let us = format!("process {} on ", std::process::id());
    let place = directory.path().display().to_string();
    assert_says(&second, &[&us, &place, "one trainer per directory", "stop that one"]);
    drop(first);
    write(&store(&directory, 1), 1);
    assert_says(&message(Store::open(directory.path(), 0)), &["at least 1"]);
}

#[test]
fn a_file_in_the_way_is_named() {
    let directory = directory();
    let file = directory.path().join("checkpoints");
    fs::write(&file, b"").expect("the directory is ours");
    let place = file.display().to_string();
    assert_says(&message(Store::open(&file, 1)), &["cannot create checkpoint", &place]);
    assert_says(&message(latest(&file)), &["cannot list checkpoint directory", &place]);

    let store = store(&directory, 1);
    fs::write(directory.path().join(".tmp-000000000001"), b"").expect("the directory is ours");
    let place = directory.path().display().to_string();
    assert_says(&message(store.write(&snapshot(1))), &["was not written", &place, "space"]);
}

#[test]
fn an_unknown_format_is_refused_not_passed_over() {
    let directory = directory();
    let store = store(&directory, 2);
    write(&store, 1);
    let Checkpoint { path, mut manifest } = write(&store, 2);
    manifest.format = FORMAT + 1;
    fs::write(path.join(MANIFEST), seal(&mut manifest)).expect("the file is ours");
    let place = path.display().to_string();
    assert_says(&message(Checkpoint::open(&path)), &["format version 3", "reads 2", &place]);
    assert_says(&message(latest(directory.path())), &["format version 3", "use the version"]);
}

#[test]
fn a_path_means_a_checkpoint_or_the_newest_inside() {
    let directory = directory();
    let store = store(&directory, 2);
    let absent = directory.path().join("absent");
    assert_says(&message(Checkpoint::resolve(&absent)), &["does not exist", "absent"]);
    assert_says(&message(Checkpoint::resolve(directory.path())), &["holds no good one"]);
    let (first, second) = (write(&store, 1).path, write(&store, 2).path);
    let step = |path: &Path| {
        let (found, rejected) = Checkpoint::resolve(path).expect("there is one");
        (found.manifest.step, rejected.len())
    };
    assert_eq!((step(&first), step(directory.path())), ((1, 0), (2, 0)));
    fs::remove_file(second.join("optimizer")).expect("the file is ours");
    assert_eq!(step(directory.path()), (1, 1));
    fs::remove_file(first.join(MANIFEST)).expect("the file is ours");
    let none = message(Checkpoint::resolve(directory.path()));
    assert_says(&none, &["(2 rejected)", "000000000001: ", "000000000002: ", "optimizer"]);
}

#[test]
fn only_file_names_name_sections() {
    let directory = directory();
    let store = store(&directory, 1);
    let bad = ["", "../x", "a/b", ".tmp", "manifest.json", "config.toml", "optimizer", "a b"];
    for name in bad {
        let mut named = snapshot(1);
        named.sections[0].name = name.into();
        assert_says(&message(store.write(&named)), &["cannot name a section"]);
    }
    assert_eq!(names(directory.path()), [".lock"], "nothing stays behind");
}

#[test]
fn the_digest_is_that_of_the_state() {
    let base = digest_of(&snapshot(1));
    let changed = |change: &dyn Fn(&mut Snapshot)| {
        let mut other = snapshot(1);
        change(&mut other);
        digest_of(&other) != base
    };
    assert!(!changed(&|_| ()));
    for (section, byte) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 6)] {
        assert!(changed(&|other| other.sections[section].bytes[byte] ^= 1));
    }
    assert!(changed(&|other| other.step = 2));
    assert!(changed(&|other| other.offsets.advance(3, 8)));
    assert!(changed(&|other| other.offsets.advance(4, 0)));
    assert!(changed(&|other| other.offsets = Offsets::new("watch")));
    assert!(changed(&|other| other.sections.swap(0, 1)));
    assert!(changed(&|other| other.sections[0].name = "table".into()));
    assert!(changed(&|other| drop(other.sections.remove(1))));
    assert!(changed(&|other| other.sections[2].digested = true));
    // Facts that may differ between two correct runs do not count.
    assert!(!changed(&|other| other.sections[2].bytes = b"other".to_vec()));
    assert!(!changed(&|other| drop(other.sections.remove(2))));
    assert!(!changed(&|other| other.config_toml = String::new()));
    assert!(!changed(&|other| other.config_digest = String::new()));
    assert!(!changed(&|other| (other.event_time_ms, other.events_rejected) = (0, 0)));
    assert!(!changed(&|other| other.run = "5eed0002".into()));
}

/// A digest that changed its meaning would make every recorded one lie.
#[test]
fn the_digest_stays_what_it_is() {
    assert_eq!(digest_of(&snapshot(1)), "cc60b0fc737ed9d501a0dee253a956d8");
}

#[test]
fn nobody_else_reads_what_a_checkpoint_holds() {
    use std::os::unix::fs::PermissionsExt;
    let parent = directory();
    let root = parent.path().join("one").join("checkpoints");
    let store = Store::open(&root, 1).expect("the directory is ours");
    let path = store.write(&snapshot(1)).expect("the disk has room").path;
    let mode =
        |path: &Path| fs::metadata(path).expect("it was just written").permissions().mode() & 0o777;
    assert_eq!((mode(&root), mode(&path)), (0o700, 0o700));
    assert_eq!(mode(&root.join(".lock")), 0o600);
    for name in names(&path) {
        assert_eq!(mode(&path.join(&name)), 0o600, "{name}");
    }
    let aside = store.set_aside().expect("the directory is ours");
    assert_eq!(mode(aside[0].parent().expect("set-aside-1")), 0o700);
}

#[test]
fn two_runs_share_no_version() {
    let directory = directory();
    let store = store(&directory, 1);
    let first = write(&store, 7).manifest;
    let other = Snapshot { run: "5eed0002".into(), ..snapshot(7) };
    let second = store.write(&other).expect("the disk has room").manifest;
    assert_eq!(second.version, "5eed0002-000000000007");
    assert_ne!(first.version, second.version);
    assert_eq!(first.digest, second.digest, "the state is the same");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_sections_come_back(
        sections in prop::collection::btree_map(
            "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
            (prop::collection::vec(any::<u8>(), 0..300), any::<bool>()),
            0..6,
        ),
        step in any::<u64>(),
        config in any::<String>(),
        event_time_ms in any::<i64>(),
        partitions in prop::collection::btree_map(any::<i32>(), 0..i64::MAX, 0..5),
    ) {
        let mut given = Snapshot { step, config_toml: config, event_time_ms, ..snapshot(1) };
        given.offsets = Offsets::new("any \"topic\"");
        for (partition, next) in partitions {
            given.offsets.advance(partition, next);
        }
        given.sections = sections
            .into_iter()
            .map(|(name, (bytes, digested))| Section { name, bytes, digested })
            .collect();
        let directory = directory();
        store(&directory, 1).write(&given).expect("the disk has room");
        let (found, rejected) = latest(directory.path()).expect("the directory can be read");
        let found = found.expect("one was written");
        prop_assert!(rejected.is_empty());
        prop_assert_eq!((found.manifest.step, &found.manifest.offsets), (step, &given.offsets));
        prop_assert_eq!(found.manifest.event_time_ms, event_time_ms);
        prop_assert_eq!(found.config().expect("it was stored"), given.config_toml);
        prop_assert_eq!(found.manifest.sections.len(), given.sections.len() + 1);
        for (entry, section) in found.manifest.sections.iter().zip(given.sections) {
            prop_assert_eq!((&entry.name, entry.digested), (&section.name, section.digested));
            prop_assert_eq!(found.section(&section.name).expect("stored"), section.bytes);
        }
    }
}

/// Content longer than the chunk it is written in, to the byte and one off.
#[test]
fn long_sections_come_back() {
    let directory = directory();
    let mut long = snapshot(1);
    let bytes = |length| {
        (0..length).map(|at: usize| (at * 31 + at / 251).to_le_bytes()[0]).collect::<Vec<_>>()
    };
    for (section, length) in long.sections.iter_mut().zip([CHUNK - 1, CHUNK, 2 * CHUNK + 1]) {
        section.bytes = bytes(length);
    }
    let written = store(&directory, 1).write(&long).expect("the disk has room");
    written.verify().expect("nothing damaged it");
    for section in &long.sections {
        assert!(written.section(&section.name).expect("it was stored") == section.bytes);
    }
    let checksum = hex(xxh3_128(&long.sections[2].bytes));
    assert_eq!(written.manifest.sections[2].checksum, checksum);
}
