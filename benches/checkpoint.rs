//! A checkpoint of ten million rows beside training steps: bytes written, time, and memory, whole
//! and with one row in a hundred touched since. `cargo bench --bench checkpoint`
//!
//! Memory is quoted over rows and accumulators. It is the peak of the process while a whole
//! checkpoint is taken, while an increment is, and while a checkpoint is read back, the model of
//! before gone; and, where a tenth of the rows are those of items, while a version is made for the
//! output topic beside the trainer and beside a whole checkpoint.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use millrace::checkpoint::{Chain, Checkpoint, Facts, Store};
use millrace::config::Config;
use millrace::pipeline;
use millrace::sections;
use millrace_events::{Batch, Event, Events, FeatureValue, Offsets, SplitMix, id_key};
use millrace_train::capture::{Extent, Piece};
use millrace_train::captured::CapturedPart;
use millrace_train::model::Model;
use millrace_train::table::TouchedRows;
use millrace_train::{ItemSide, Placement, Progress, State, Trainer};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: u64 = 10_000_000;
/// One in so many rows is touched between two checkpoints.
const TOUCHED: u64 = 100;
/// As in the program.
const PARTS_IN_FLIGHT: usize = 8;
/// Ids of a step.
const STEP: usize = 1024;
/// Of the rows, those of items that are published; the others are those of queries.
const ITEMS: u64 = ROWS / 10;
/// Width of the rows, for a process of its own.
const DIM: &str = "MILLRACE_BENCH_DIM";
/// Set: that process publishes.
const PUBLISHES: &str = "MILLRACE_BENCH_PUBLISHES";

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    // A process each: what an allocator keeps of the first would pass for memory of the second.
    match std::env::var(DIM).ok().and_then(|dim| dim.parse().ok()) {
        Some(dim) if std::env::var_os(PUBLISHES).is_some() => publish(dim),
        Some(dim) => run(dim),
        None => {
            println!("{ROWS} rows, 1 in {TOUCHED} touched between checkpoints, at random");
            println!("  dim  checkpoint       MB  of whole  seconds  trainer s  memory over rows");
            for dim in [32, 64] {
                in_a_process(dim, None);
                in_a_process(dim, Some(PUBLISHES));
            }
        }
    }
}

fn in_a_process(dim: usize, more: Option<&str>) {
    let program = std::env::current_exe().expect("it runs");
    let mut command = std::process::Command::new(program);
    command.env(DIM, dim.to_string()).envs(more.map(|name| (name, "1")));
    assert!(command.status().expect("it runs").success());
}

/// The bench's model with rows of `dim` floats, and a directory for its checkpoints.
fn setup(dim: usize) -> (Config, tempfile::TempDir) {
    let directory = tempfile::tempdir_in(std::env::current_dir().expect("a directory"));
    let sets = [format!("embedding.rows_max={ROWS}"), format!("embedding.dim={dim}")];
    let config = Config::load(Some("config/bench.toml".as_ref()), &sets).expect("a valid config");
    (config, directory.expect("a directory"))
}

/// Bytes of all rows and their accumulators.
fn bytes_of_rows(dim: usize) -> f64 {
    (ROWS as usize * (dim + 1) * size_of::<f32>()) as f64
}

/// A version is made from a checkpoint, as for the output topic, while the next is taken.
fn publish(dim: usize) {
    let (config, directory) = setup(dim);
    let (placement, settings) = (Placement::Cpu, config.train());
    let store = Store::open(directory.path(), 2).expect("a directory of its own");
    let before = memory("VmRSS");
    let share = |peak: f64| (peak - before) / bytes_of_rows(dim);
    let mut trainer = Trainer::new(&settings, &placement, Offsets::new("bench"));
    let mut batch = Batch::new(Events::new(2, 2), Offsets::new("bench"));
    for item in 0..ITEMS {
        batch.events.push(&event(item));
        if batch.len() == STEP || item + 1 == ITEMS {
            trainer.pass_over(&batch);
            batch.events.truncate(0);
        }
    }
    let mut state = trainer.into_state();
    touch(&mut state, "user", ITEMS..ROWS);
    touch(&mut state, "item", (0..ITEMS).map(key_of));
    touch(&mut state, "category", 0..CATEGORIES);
    let mut trainer = Trainer::from_state(&settings, &placement, state);
    let (first, _) = take((&store, &config), &mut trainer, None);
    println!("{dim:>5}  (at rest, {ITEMS} rows of items) {:>30.2}", share(memory("VmRSS")));
    reset_peak();
    take((&store, &config), &mut trainer, None);
    println!("{dim:>5}  (a whole checkpoint) {:>43.2}", share(memory("VmHWM")));
    reset_peak();
    let began = Instant::now();
    let items = std::thread::scope(|scope| {
        let items = scope.spawn(|| {
            let read = sections::of(&first);
            let model = Model::restore_items(&settings.model, &placement, &read);
            let items = ItemSide::restore(&settings, &model.expect("just written"), &read);
            items.expect("just written")
        });
        let next = Store::open(&directory.path().join("next"), 1).expect("a directory of its own");
        take((&next, &config), &mut trainer, None);
        items.join().expect("no panic")
    });
    assert_eq!(items.len() as u64, ITEMS);
    let (seconds, peak) = (began.elapsed().as_secs_f64(), share(memory("VmHWM")));
    println!("{dim:>5}  (beside a publication) {seconds:>23.2}  {peak:>16.2}");
}

/// Categories of items.
const CATEGORIES: u64 = 100;

fn key_of(item: u64) -> u64 {
    id_key(item.to_string().as_bytes())
}

/// An event of `item`, of the bench's features.
fn event(item: u64) -> Event {
    let id = key_of(item);
    Event {
        time_ms: 0,
        query_id: item,
        item_id: id,
        item_name: item.to_string().into(),
        reward: 1.0,
        query: vec![FeatureValue::Id(item), FeatureValue::Absent],
        item: vec![FeatureValue::Id(id), FeatureValue::Id(item % CATEGORIES)],
    }
}

/// A checkpoint, of what has changed since `chain` or whole, and the trainer's seconds for it.
fn take(
    (store, config): (&Store, &Config),
    trainer: &mut Trainer,
    chain: Option<&Chain>,
) -> (Checkpoint, f64) {
    let facts = facts(config, trainer.progress());
    let (sender, parts) = bounded(PARTS_IN_FLIGHT);
    let taken = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(store, facts, chain, parts));
        let busy = hand_out(trainer, chain.is_some(), sender);
        (writer.join().expect("no panic"), busy)
    });
    trainer.settle_capture(true);
    taken
}

fn run(dim: usize) {
    let (config, directory) = setup(dim);
    let placement = pipeline::placement(config.device).expect("the CPU");
    let settings = config.train();
    let store = Store::open(directory.path(), 1).expect("a directory of its own");
    let before = memory("VmRSS");
    let progress = Progress { events: 1, ..Progress::begin(Offsets::new("bench")) };
    let mut state = Trainer::with_progress(&settings, &placement, progress).into_state();
    touch(&mut state, "item", 0..ROWS);
    let mut trainer = Trainer::from_state(&settings, &placement, state);
    let share = |peak: f64| (peak - before) / bytes_of_rows(dim);
    println!("{dim:>5}  (at rest) {:>54.2}", share(memory("VmRSS")));
    let mut random = SplitMix::new(1);
    let (mut chain, mut whole): (Option<Chain>, f64) = (None, 0.0);
    let mut last = None;
    for (step, name) in (1u64..).zip(["whole", "increment", "increment"]) {
        let progress = Progress { step, events: step + 1, ..trainer.progress().clone() };
        let mut state = trainer.into_state();
        state.progress = progress;
        let random_rows = |random: &mut SplitMix| random.next_u64() % ROWS;
        let touched: Vec<u64> = (0..ROWS / TOUCHED).map(|_| random_rows(&mut random)).collect();
        if chain.is_some() {
            touch(&mut state, "item", touched);
        }
        trainer = Trainer::from_state(&settings, &placement, state);
        reset_peak();
        let began = Instant::now();
        let (checkpoint, busy) = take((&store, &config), &mut trainer, chain.as_ref());
        let seconds = began.elapsed().as_secs_f64();
        let bytes = size_of_files(&checkpoint) as f64;
        whole = if step == 1 { bytes } else { whole };
        println!(
            "{dim:>5}  {name:<9} {:>9.1}  {:>6.2} %  {seconds:>7.2}  {busy:>9.2}  {:.2}",
            bytes / 1e6,
            100.0 * bytes / whole,
            share(memory("VmHWM"))
        );
        chain = Some(Chain::of(&checkpoint.manifest));
        last = Some(checkpoint);
    }
    let last = last.expect("three were written");
    let progress = trainer.progress().clone();
    drop(trainer);
    reset_peak();
    let began = Instant::now();
    last.verify().expect("just written");
    let verified = began.elapsed().as_secs_f64();
    let restored = Trainer::restore(&settings, &placement, progress, &sections::of(&last));
    drop(restored.expect("just written"));
    println!(
        "{dim:>5}  (restored, {verified:.2} s of it to verify) {:>25.2}  {:>20.2}",
        began.elapsed().as_secs_f64(),
        share(memory("VmHWM"))
    );
}

/// Touches rows of a table, a step's worth at a time.
fn touch(state: &mut State, table: &str, ids: impl IntoIterator<Item = u64>) {
    let now = state.progress.events;
    let mut names = state.model.encoder.tables.iter();
    let at = names.position(|name| name == table).expect("the bench's config has it");
    let mut touched = TouchedRows::default();
    let mut ids = ids.into_iter().peekable();
    while ids.peek().is_some() {
        let step: Vec<u64> = ids.by_ref().take(STEP).collect();
        state.model.tables[at].touch(&step, now, &mut touched);
    }
}

/// Hands a capture over, as the trainer does while no batch comes. Seconds without the waits.
fn hand_out(trainer: &mut Trainer, changed: bool, parts: Sender<CapturedPart>) -> f64 {
    let mut busy = 0.0;
    let began = Instant::now();
    trainer.begin_capture(if changed { Extent::Changed } else { Extent::Whole });
    busy += began.elapsed().as_secs_f64();
    while trainer.is_capturing() {
        let began = Instant::now();
        let copied = trainer.advance_capture(1);
        busy += began.elapsed().as_secs_f64();
        copied.into_iter().for_each(|part| parts.send(part).expect("the writer is there"));
    }
    busy
}

fn write(
    store: &Store,
    facts: Facts,
    chain: Option<&Chain>,
    parts: Receiver<CapturedPart>,
) -> Checkpoint {
    let mut draft = store.begin(facts, chain).expect("room");
    for part in parts {
        let appended = part.pieces(&mut |piece| {
            let Piece { section, content, increment } = piece;
            draft.append(&section, &content, increment.as_deref())
        });
        appended.expect("room");
    }
    draft.finish(1).expect("room")
}

fn facts(config: &Config, progress: &Progress) -> Facts {
    Facts {
        witness: millrace_events::Witness::default(),
        run: "5eed0001".into(),
        began_ms: None,
        step: progress.step,
        offsets: progress.offsets.clone(),
        pass: progress.pass,
        catalogues: Vec::new(),
        event_time_ms: 0,
        events_trained: progress.events,
        events_rejected: 0,
        config_digest: config.digest(),
        config_toml: config.to_toml(),
        program: String::new(),
    }
}

fn size_of_files(checkpoint: &Checkpoint) -> u64 {
    let entries = std::fs::read_dir(&checkpoint.path).expect("just written");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).sum()
}

/// A figure of this process in bytes; NaN where there is no procfs.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kbytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kbytes.map_or(f64::NAN, |kbytes| kbytes * 1024.0)
}

/// The peak begins anew.
fn reset_peak() {
    // Linux alone has it; elsewhere the figures are NaN anyway.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}
