use proptest::prelude::*;

use std::fs::OpenOptions;
use std::io::{self, Write};

use millrace_events::lane;
use xxhash_rust::xxh3::xxh3_128;

use super::manifest::{FORMAT, seal};
use super::*;

/// A whole state.
#[derive(Clone)]
struct Snapshot {
    facts: Facts,
    sections: Vec<(String, Vec<u8>)>,
}

fn snapshot(step: u64) -> Snapshot {
    let mut offsets = Offsets::new("watch");
    offsets.advance(0, 10 * step as i64);
    offsets.advance(3, 7);
    let facts = Facts {
        run: "5eed0001".into(),
        began_ms: Some(1_700_000_000_000),
        witness: Witness::default(),
        step,
        offsets,
        pass: 2,
        catalogues: Vec::new(),
        event_time_ms: 1_700_000_000_000,
        events_trained: 1024 * step,
        events_rejected: 3,
        config_digest: "c0ffee".into(),
        config_toml: "[model]\ndim = 64\n".into(),
        program: "1.2.3".into(),
    };
    let sections = vec![
        ("table.item".into(), vec![1, 2, 3, step.to_le_bytes()[0]]),
        ("optimizer".into(), b"adagrad".to_vec()),
    ];
    Snapshot { facts, sections }
}

fn put(store: &Store, snapshot: &Snapshot) -> Result<Checkpoint> {
    store.write(snapshot.facts.clone(), snapshot.sections.clone(), 1_800_000_000_000)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("tests need a temporary directory")
}

fn store(directory: &tempfile::TempDir, keep: usize) -> Store {
    Store::open(directory.path(), keep).expect("the directory is ours")
}

fn write(store: &Store, step: u64) -> Checkpoint {
    put(store, &snapshot(step)).expect("the disk has room")
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
    let written = put(&store(&directory, 1), snapshot).expect("the disk has room");
    written.manifest.digest
}

#[test]
fn what_was_written_is_read() {
    let directory = directory();
    let written = write(&store(&directory, 2), 976);
    assert!(written.path.ends_with("000000000976"));
    assert_eq!(names(&written.path), ["config.toml", "manifest.json", "optimizer", "table.item"]);
    let (found, rejected) = latest(directory.path()).expect("the directory can be read");
    let found = found.expect("one was written");
    assert!(rejected.is_empty());
    assert_eq!((&found.path, &found.manifest), (&written.path, &written.manifest));
    let (Snapshot { facts: given, sections }, manifest) = (snapshot(976), &found.manifest);
    let version = "5eed0001-000000000976";
    assert_eq!((manifest.version.as_str(), manifest.format), (version, 3), "one topic");
    assert_eq!(manifest.run, given.run);
    assert_eq!((manifest.step, &manifest.offsets), (976, &given.offsets));
    assert_eq!(manifest.event_time_ms, given.event_time_ms);
    assert_eq!(manifest.events_trained, given.events_trained);
    assert_eq!(manifest.events_rejected, given.events_rejected);
    assert_eq!(manifest.config_digest, given.config_digest);
    assert_eq!(manifest.written_ms, Some(1_800_000_000_000));
    assert_eq!((&manifest.program, &manifest.parents), (&given.program, &vec![]));
    assert_eq!(found.config().expect("it was stored"), given.config_toml);
    for (name, bytes) in sections {
        assert_eq!(found.section(&name).expect("it was stored"), bytes);
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
fn the_newest_by_name_is_looked_at_alone() {
    let directory = directory();
    let step = || {
        let newest = Checkpoint::newest(directory.path());
        newest.map(|newest| newest.map(|checkpoint| checkpoint.manifest.step))
    };
    assert_eq!(step().expect("nothing is wrong"), None);
    let store = store(&directory, 3);
    write(&store, 1);
    let second = write(&store, 2);
    overwrite(&second.path.join("optimizer"), b"");
    assert_eq!(step().expect("its manifest is whole"), Some(2));
    overwrite(&second.path.join(MANIFEST), b"");
    assert_says(&message(step()), &["manifest"]);
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
    fs::create_dir(&staged).expect("the directory is ours");
    fs::write(staged.join("optimizer"), b"adag").expect("the disk has room");
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
fn what_is_pinned_stays_with_all_that_it_builds_upon() {
    let directory = directory();
    let store = store(&directory, 1);
    chain_of(&store, 1);
    let (pin, again) = (store.pin(2), store.pin(2));
    write(&store, 5);
    write(&store, 6);
    assert_eq!(steps(directory.path()), [1, 2, 6]);
    drop(pin);
    write(&store, 7);
    assert_eq!(steps(directory.path()), [1, 2, 7], "somebody else has it still");
    drop(again);
    write(&store, 8);
    assert_eq!(steps(directory.path()), [8]);
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
fn what_the_run_did_not_start_from_is_never_one_of_those_kept() {
    let directory = directory();
    let before = store(&directory, 2);
    (1..=3).for_each(|step| drop(write(&before, 100 * step)));
    drop(before);
    for step in [200, 300] {
        let flipped = directory.path().join(directory_name(step)).join("optimizer");
        fs::write(flipped, b"adagraD").expect("the file is ours");
    }
    let store = store(&directory, 2);
    store.start_from(100).expect("the directory can be read");
    write(&store, 150);
    write(&store, 250);
    assert_eq!(steps(directory.path()), [150, 200, 250, 300], "two that are good");
    write(&store, 300);
    assert_eq!(steps(directory.path()), [250, 300], "written again, and 200 is an old one");
    assert_eq!(newest(directory.path()), (Some(300), vec![]));
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
    other.sections[0].1 = vec![9; 9];
    other.sections.remove(1);
    let replaced = put(&store, &other).expect("the disk has room");
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
    assert_says(&message(put(&store, &snapshot(1))), &["was not written", &place, "space"]);
}

/// An older program would take offsets of two topics for those of one.
#[test]
fn what_was_trained_on_two_topics_has_a_layout_and_a_digest_of_its_own() {
    let (one, two) = (directory(), directory());
    let mut given = snapshot(1);
    let before = put(&store(&one, 2), &given).expect("written").manifest;
    given.facts.offsets = given.facts.offsets.and("buy");
    given.facts.offsets.advance(lane(1, 3), 9);
    let written = put(&store(&two, 2), &given).expect("written");
    assert_eq!((before.format, written.manifest.format), (3, 4));
    assert_ne!(before.digest, written.manifest.digest);
    let read = Checkpoint::open(&written.path).expect("its own").manifest;
    assert_eq!(read.offsets, given.facts.offsets);
    let text = fs::read_to_string(written.path.join(MANIFEST)).expect("there");
    let text: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(text["offsets"]["others"][0]["partitions"]["3"], 9);
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
    assert_says(&message(Checkpoint::open(&path)), &["format version 5", "up to 4", &place]);
    assert_says(&message(latest(directory.path())), &["format version 5", "use the version"]);
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
    let bad = ["", "../x", "a/b", ".tmp", "manifest.json", "config.toml", "a b"];
    for name in bad {
        let mut named = snapshot(1);
        named.sections[0].0 = name.into();
        assert_says(&message(put(&store, &named)), &["cannot name a section"]);
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
        assert!(changed(&|other| other.sections[section].1[byte] ^= 1));
    }
    assert!(changed(&|other| other.facts.step = 2));
    assert!(changed(&|other| other.facts.offsets.advance(3, 8)));
    assert!(changed(&|other| other.facts.offsets.advance(4, 0)));
    assert!(changed(&|other| other.facts.offsets = Offsets::new("watch")));
    assert!(changed(&|other| other.sections.swap(0, 1)));
    assert!(changed(&|other| other.sections[0].0 = "table".into()));
    assert!(changed(&|other| drop(other.sections.remove(1))));
    // Facts that may differ between two correct runs do not count.
    assert!(!changed(&|other| other.facts.config_toml = String::new()));
    assert!(!changed(&|other| other.facts.config_digest = String::new()));
    assert!(!changed(&|other| other.facts.event_time_ms = 0));
    assert!(!changed(&|other| other.facts.events_rejected = 0));
    assert!(!changed(&|other| other.facts.run = "5eed0002".into()));
    assert!(!changed(&|other| other.facts.program = "9".into()));
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
    let path = write(&store, 1).path;
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
    let mut other = snapshot(7);
    other.facts.run = "5eed0002".into();
    let second = put(&store, &other).expect("the disk has room").manifest;
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
            prop::collection::vec(any::<u8>(), 0..300),
            0..6,
        ),
        step in any::<u64>(),
        config in any::<String>(),
        event_time_ms in any::<i64>(),
        partitions in prop::collection::btree_map(0..1 << 20, 0..i64::MAX, 0..5),
    ) {
        let mut given = snapshot(1);
        (given.facts.step, given.facts.config_toml) = (step, config);
        given.facts.event_time_ms = event_time_ms;
        given.facts.offsets = Offsets::new("any \"topic\"");
        for (partition, next) in partitions {
            given.facts.offsets.advance(partition, next);
        }
        given.sections = sections.into_iter().collect();
        let directory = directory();
        put(&store(&directory, 1), &given).expect("the disk has room");
        let (found, rejected) = latest(directory.path()).expect("the directory can be read");
        let found = found.expect("one was written");
        prop_assert!(rejected.is_empty());
        let facts = given.facts;
        prop_assert_eq!((found.manifest.step, &found.manifest.offsets), (step, &facts.offsets));
        prop_assert_eq!(found.manifest.event_time_ms, event_time_ms);
        prop_assert_eq!(found.config().expect("it was stored"), facts.config_toml);
        prop_assert_eq!(found.manifest.sections.len(), given.sections.len() + 1);
        for (entry, (name, bytes)) in found.manifest.sections.iter().zip(given.sections) {
            prop_assert_eq!((&entry.name, entry.digested), (&name, true));
            prop_assert_eq!(found.section(&name).expect("stored"), bytes);
        }
    }
}

/// Content longer than the chunk it is read in, to the byte and one off, written in pieces.
#[test]
fn long_sections_come_back() {
    let directory = directory();
    let store = store(&directory, 1);
    let bytes = |length| {
        (0..length).map(|at: usize| (at * 31 + at / 251).to_le_bytes()[0]).collect::<Vec<_>>()
    };
    let sections = [CHUNK - 1, CHUNK, 2 * CHUNK + 1].map(bytes);
    let mut draft = store.begin(snapshot(1).facts, None).expect("the disk has room");
    for (name, section) in ["a", "b", "c"].into_iter().zip(&sections) {
        for piece in section.chunks(100_000) {
            draft.append(name, piece, None).expect("the disk has room");
        }
    }
    let written = draft.finish(1).expect("the disk has room");
    written.verify().expect("nothing damaged it");
    for (name, section) in ["a", "b", "c"].into_iter().zip(&sections) {
        assert!(written.section(name).expect("it was stored") == *section);
    }
    let checksum = manifest::hex(xxh3_128(&sections[2]));
    assert_eq!(written.manifest.sections[2].checksum, checksum);
}

/// Step `step` as an increment on `chain`: of its table, while the optimizer is written whole.
fn grow(store: &Store, step: u64, chain: &Chain) -> Checkpoint {
    let Snapshot { facts, sections } = snapshot(step);
    let mut draft = store.begin(facts, Some(chain)).expect("the disk has room");
    for (name, content) in &sections {
        let (first, rest) = content.split_at(2);
        let increment = |bytes: &'static [u8]| (name == "table.item").then_some(bytes);
        draft.append(name, first, increment(b"+")).expect("the disk has room");
        draft.append(name, rest, increment(b"!?")).expect("the disk has room");
    }
    draft.finish(2).expect("the disk has room")
}

/// A base at step 1, and so many increments.
fn chain_of(store: &Store, increments: u64) -> Vec<Checkpoint> {
    let mut written = vec![write(store, 1)];
    for step in 2..2 + increments {
        let chain = Chain::of(&written.last().expect("the base").manifest);
        written.push(grow(store, step, &chain));
    }
    written
}

#[test]
fn an_increment_is_read_with_what_it_builds_upon() {
    let directory = directory();
    let store = store(&directory, 3);
    let written = chain_of(&store, 2);
    let last = &written[2];
    last.verify().expect("nothing damaged it");
    let files = last.files("table.item").expect("all are there");
    let contents: Vec<(bool, Vec<u8>)> =
        files.iter().map(|file| (file.is_increment, file.content().expect("whole"))).collect();
    let increment = (true, b"+!?".to_vec());
    assert_eq!(contents, [(false, vec![1, 2, 3, 1]), increment.clone(), increment]);
    assert_eq!(last.section("optimizer").expect("whole"), b"adagrad");
    assert_says(&message(last.section("table.item")), &["increments of table.item"]);
    // The digest is that of the state, however it was written.
    assert_eq!(last.manifest.digest, digest_of(&snapshot(3)));
    let parents: Vec<u64> = last.manifest.parents.iter().map(|link| link.step).collect();
    assert_eq!(parents, [1, 2]);
    let bytes = 4 + 7 + snapshot(1).facts.config_toml.len() as u64;
    assert_eq!(last.manifest.parents[0].bytes, bytes);
}

#[test]
fn a_whole_checkpoint_on_a_chain_builds_upon_nothing() {
    let directory = directory();
    let store = store(&directory, 3);
    let chain = Chain::of(&write(&store, 1).manifest);
    let Snapshot { facts, sections } = snapshot(2);
    let mut draft = store.begin(facts, Some(&chain)).expect("the disk has room");
    for (name, content) in &sections {
        draft.append(name, content, None).expect("the disk has room");
    }
    assert_eq!(draft.finish(2).expect("the disk has room").manifest.parents, []);
}

/// Every byte of every file that an increment builds upon, and those of its own.
#[test]
fn damage_anywhere_in_a_chain_makes_an_older_one_win() {
    let directory = directory();
    let store = store(&directory, 5);
    let written = chain_of(&store, 2);
    for (at, damaged) in written.iter().enumerate() {
        for name in ["table.item", MANIFEST] {
            let file = damaged.path.join(name);
            let good = fs::read(&file).expect("it was just written");
            for byte in 0..good.len() {
                let mut bad = good.clone();
                bad[byte] ^= 0x10;
                overwrite(&file, &bad);
                let (step, reasons) = newest(directory.path());
                assert_eq!(step, (at > 0).then_some(at as u64), "{name} {byte}");
                assert_eq!(reasons.len(), 3 - at);
            }
            fs::remove_file(&file).expect("the file is ours");
            assert_eq!(newest(directory.path()).0, (at > 0).then_some(at as u64));
            fs::write(&file, &good).expect("the file is ours");
        }
        // What only the checkpoint itself needs damages nothing that builds upon it.
        let file = damaged.path.join("optimizer");
        fs::write(&file, b"adagraD").expect("the file is ours");
        assert_eq!(newest(directory.path()).0, Some(if at == 2 { 2 } else { 3 }));
        fs::write(&file, b"adagrad").expect("the file is ours");
        // Another checkpoint of that step is not the one.
        if at < 2 {
            let mut other = damaged.manifest.clone();
            other.written_ms = Some(9);
            fs::write(damaged.path.join(MANIFEST), seal(&mut other)).expect("the file is ours");
            let (step, reasons) = newest(directory.path());
            assert_eq!(step, Some(at as u64 + 1));
            assert_says(&reasons[0], &["builds upon"]);
            let text = seal(&mut damaged.manifest.clone());
            fs::write(damaged.path.join(MANIFEST), text).expect("the file is ours");
        }
        assert_eq!(newest(directory.path()), (Some(3), vec![]));
    }
}

#[test]
fn what_others_build_upon_stays() {
    let directory = directory();
    let store = store(&directory, 2);
    let last = chain_of(&store, 3).pop().expect("written");
    assert_eq!(steps(directory.path()), [1, 2, 3, 4], "4 and 3 need all of them");
    write(&store, 5);
    assert_eq!(steps(directory.path()), [1, 2, 3, 4, 5], "4 still does");
    write(&store, 6);
    assert_eq!(steps(directory.path()), [5, 6]);
    assert!(!last.path.exists());
    drop(store);
    let store = Store::open(directory.path(), 1).expect("the directory is ours");
    let chain = Chain::of(&write(&store, 7).manifest);
    grow(&store, 8, &chain);
    assert_eq!(steps(directory.path()), [7, 8]);
    // A chain that is broken does not count as kept.
    fs::remove_file(directory.path().join(directory_name(7)).join("table.item"))
        .expect("the file is ours");
    write(&store, 9);
    assert_eq!(steps(directory.path()), [9]);
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    let directory = directory();
    let store = store(&directory, 2);
    let chain = Chain::of(&write(&store, 1).manifest);
    let mut draft = store.begin(snapshot(2).facts, Some(&chain)).expect("the disk has room");
    draft.append("table.item", b"1234", Some(b"12")).expect("the disk has room");
    assert_eq!(names(directory.path()), [".lock", ".tmp-000000000002", "000000000001"]);
    drop(draft);
    assert_eq!(names(directory.path()), [".lock", "000000000001"]);
    // Pieces with and without increments, and an increment of nothing.
    let mut draft = store.begin(snapshot(2).facts, Some(&chain)).expect("the disk has room");
    draft.append("table.item", b"1234", Some(b"12")).expect("the disk has room");
    assert_says(&message(draft.append("table.item", b"56", None)), &["only in part"]);
    drop(draft);
    let mut draft = store.begin(snapshot(2).facts, None).expect("the disk has room");
    assert_says(&message(draft.append("a", b"56", Some(b"6"))), &["increment of nothing"]);
    drop(draft);
    assert_eq!(names(directory.path()), [".lock", "000000000001"]);
}

/// Byte for byte what version 0.1 wrote before there were increments.
#[test]
fn a_checkpoint_of_format_2_is_read() {
    let directory = directory();
    let path = write(&store(&directory, 1), 1).path;
    let text = fs::read_to_string(path.join(MANIFEST)).expect("it was just written");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let fields = json.as_object_mut().expect("an object");
    for field in ["written_ms", "program", "parents"] {
        fields.remove(field).expect("format 3 has it");
    }
    fields.insert("format".into(), 2.into());
    let zeros = "0".repeat(32);
    let text = serde_json::to_string_pretty(&json).expect("JSON");
    let old = json["checksum"].as_str().expect("text").to_owned();
    let text = text.replace(&old, &zeros);
    let sum = manifest::hex(xxh3_128(text.as_bytes()));
    fs::write(path.join(MANIFEST), text.replace(&zeros, &sum)).expect("the file is ours");
    let (found, rejected) = latest(directory.path()).expect("the directory can be read");
    assert!(rejected.is_empty(), "{rejected:?}");
    let manifest = found.expect("one is there").manifest;
    assert_eq!((manifest.format, manifest.written_ms, manifest.program), (2, None, String::new()));
}

/// What a sealed manifest could ask for, and no program of ours writes.
#[test]
fn a_crafted_manifest_is_refused() {
    let directory = directory();
    let store = store(&directory, 3);
    let written = chain_of(&store, 1);
    let path = &written[1].path;
    let refuse = |craft: &dyn Fn(&mut Manifest)| {
        let mut crafted = written[1].manifest.clone();
        craft(&mut crafted);
        fs::write(path.join(MANIFEST), seal(&mut crafted)).expect("the file is ours");
        let verified = Checkpoint::open(path).and_then(|checkpoint| {
            checkpoint.verify()?;
            for section in &checkpoint.manifest.sections {
                for file in checkpoint.files(&section.name)? {
                    file.content()?;
                }
            }
            Ok(())
        });
        let error = verified.expect_err("refused");
        assert!(error.is_damage(), "{error}");
    };
    for name in ["../x", "/etc/passwd", "a/b", "", ".lock", "manifest.json", "config.toml"] {
        refuse(&|manifest| manifest.sections[0].name = name.into());
    }
    for length in [0, 5, u64::MAX, 1 << 62] {
        refuse(&|manifest| manifest.sections[1].length = length);
        refuse(&|manifest| {
            manifest.sections[0].increment.as_mut().expect("one").length = length;
        });
    }
    refuse(&|manifest| manifest.parents.clear());
    refuse(&|manifest| manifest.parents[0].step = 2);
    refuse(&|manifest| manifest.parents[0].step = u64::MAX);
    refuse(&|manifest| manifest.parents.push(manifest.parents[0].clone()));
    refuse(&|manifest| manifest.parents[0].checksum = String::new());
    refuse(&|manifest| manifest.step = 3);
    refuse(&|manifest| manifest.run = "../../x".into());
    refuse(&|manifest| manifest.sections[0].increment = None);
    refuse(&|manifest| manifest.digest = String::new());
    refuse(&|manifest| drop(manifest.sections.remove(0)));
    let text = seal(&mut written[1].manifest.clone());
    fs::write(path.join(MANIFEST), text).expect("the file is ours");
    assert!(Checkpoint::open(path).and_then(|checkpoint| checkpoint.verify()).is_ok());
    // A file that is none.
    let file = path.join("optimizer");
    fs::remove_file(&file).expect("the file is ours");
    fs::create_dir(&file).expect("the directory is ours");
    let error = Checkpoint::open(path).and_then(|checkpoint| checkpoint.verify());
    assert_says(&message(error), &["not a file"]);
}
