//! Training steps from memory, on the model of `config/bench.toml`: examples/s, time by phase, and
//! the products' GFLOP/s beside this machine's sgemm peak. `cargo bench --bench step`; with
//! `-- gpu` the same steps on the GPU alone.
//!
//! Counted are the products that are made: of the towers (forward, and backward with respect to
//! inputs and weights) over the batch's events and its distinct items, and of the loss (three of `2
//! events items dim` operations); everything else is their cost.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use gemm::{Parallelism, gemm};
use millrace::config::{Config, DeviceChoice};
use millrace::pipeline;
use millrace_events::{Batch, Event, Events, FeatureValue, Offsets, SplitMix};
use millrace_train::capture::Extent;
use millrace_train::table::{Table, TouchedRows};
use millrace_train::trainer::{Phase, Trainer};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: f64 = 1e6;
const CATEGORIES: u64 = 1000;
const HISTORY: usize = 10;
/// Enough to fill the tables with what a batch meets.
const BATCHES: usize = 64;
const SECONDS: f64 = 4.0;
const HEADING: &str = "   batch  of items  examples/s  GFLOP/s  of sgemm's  ms a step, by phase";

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    if std::env::args().any(|argument| argument == "gpu") {
        println!("on a GPU\n{HEADING}");
        // At 64 a step is what its launches cost.
        [64, 1024, 4096, 8192].into_iter().for_each(|size| run(size, DeviceChoice::Gpu));
        return;
    }
    // Before anything is freed that it could reuse.
    println!("memory at 10M rows of dim 64: {:.2} of rows and accumulators", memory());
    println!("{} threads", rayon::current_num_threads());
    println!("{HEADING}");
    [1024, 4096, 8192].into_iter().for_each(|size| run(size, DeviceChoice::Cpu));
    println!(
        "\n        rows  of items  ms a step: mean    p99    max    begin  \
         while a snapshot is taken: mean    p99    max"
    );
    for rows in [100_000, 1_000_000, 10_000_000] {
        vocabulary(rows);
    }
}

/// Batches of 1,024 at three tables of `rows` rows each (10M: one, of items): does the step's time
/// depend on them, and what does a snapshot cost the steps beside it?
fn vocabulary(rows: u64) {
    let large = rows > 1_000_000;
    let sets = [format!("embedding.rows_max={}", rows.max(100_000)), "batch.size=1024".to_owned()];
    let config = Config::load(Some("config/bench.toml".as_ref()), &sets).expect("a valid config");
    let placement = pipeline::placement(config.device).expect("the CPU");
    let settings = config.train();
    let mut state = Trainer::new(&settings, &placement, Offsets::new("bench")).into_state();
    let mut touched = TouchedRows::default();
    let ids: Vec<u64> = (0..rows).collect();
    for (name, table) in settings.model.tables.keys().zip(&mut state.model.tables) {
        if name == "item" || (name != "category" && !large) {
            ids.chunks(4096).for_each(|ids| table.touch(ids, 1, &mut touched));
        }
    }
    let mut trainer = Trainer::from_state(&settings, &placement, state);
    let mut random = SplitMix::new(1);
    let users = if large { 1_000_000.0 } else { rows as f64 };
    let batches: Vec<Batch> =
        (0..256).map(|_| batch(1024, users, spread(rows as f64), &mut random)).collect();
    let step = |trainer: &mut Trainer, number: usize| {
        let began = Instant::now();
        trainer.step(&batches[number % batches.len()]);
        let captured = trainer.advance_capture(usize::MAX);
        let time = began.elapsed().as_secs_f64() * 1e3;
        // In a run another thread gets it, and frees it.
        drop(captured);
        time
    };
    let quiet: Vec<f64> = (0..320).map(|number| step(&mut trainer, number)).skip(64).collect();
    let began = Instant::now();
    trainer.begin_capture(Extent::Whole);
    let mut busy = vec![began.elapsed().as_secs_f64() * 1e3];
    while trainer.is_capturing() {
        busy.push(step(&mut trainer, busy.len()));
    }
    // The beginning is a part of the step after it.
    let begin = busy.remove(0);
    busy[0] += begin;
    let [a, b] = [quiet, busy].map(|mut times| {
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        times.sort_by(f64::total_cmp);
        let last = times.len() - 1;
        format!("{mean:>6.2} {:>6.2} {:>6.2}", times[last * 99 / 100], times[last])
    });
    let items = distinct(&batches);
    println!("{rows:>12} {items:>9.0}             {a}   {begin:>6.1}                        {b}");
}

/// Bytes that the process takes for each byte of rows and accumulators, at 10M rows.
fn memory() -> f64 {
    const ROWS: usize = 10_000_000;
    let set = format!("embedding.rows_max={ROWS}");
    let config = Config::load(Some("config/bench.toml".as_ref()), &[set]).expect("a valid config");
    let before = resident();
    let mut table = Table::new(config.train().model.tables["item"].clone());
    let mut touched = TouchedRows::default();
    for start in (0..ROWS as u64).step_by(4096) {
        let ids: Vec<u64> = (start..(start + 4096).min(ROWS as u64)).collect();
        table.touch(&ids, 1, &mut touched);
    }
    (resident() - before) / (ROWS * (table.dim() + 1) * size_of::<f32>()) as f64
}

/// Bytes of this process in memory; NaN where there is no procfs.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.map_or(f64::NAN, |pages| pages * 4096.0)
}

fn run(size: usize, device: DeviceChoice) {
    let set = format!("batch.size={size}");
    let config = Config::load(Some("config/bench.toml".as_ref()), &[set]).expect("a valid config");
    let placement = pipeline::placement(device).expect("it is there");
    let mut trainer = Trainer::new(&config.train(), &placement, Offsets::new("bench"));
    let mut random = SplitMix::new(1);
    let batches: Vec<Batch> =
        (0..BATCHES).map(|_| batch(size, ROWS, zipf(ROWS), &mut random)).collect();
    for batch in &batches[..BATCHES / 4] {
        trainer.step(batch);
    }
    // A machine that is shared has another pace by the minute: the better of before and after.
    let before = sgemm_peak();
    let mut phases: Vec<(Phase, Duration)> = Vec::new();
    let (began, mut steps) = (Instant::now(), 0);
    while began.elapsed().as_secs_f64() < SECONDS {
        let mut entered: Option<(Phase, Instant)> = None;
        let mut enter = |entry: Option<Phase>| {
            if let Some((phase, since)) = entered.take() {
                match phases.iter_mut().find(|(known, _)| *known == phase) {
                    Some((_, time)) => *time += since.elapsed(),
                    None => phases.push((phase, since.elapsed())),
                }
            }
            entered = entry.map(|phase| (phase, Instant::now()));
        };
        trainer.step_timed(&batches[steps % BATCHES], &mut |phase| enter(Some(phase)));
        enter(None);
        steps += 1;
    }
    let seconds = began.elapsed().as_secs_f64() / steps as f64;
    let peak = before.max(sgemm_peak());
    let (towers, loss) = (6.0 * 2.0 * (128.0 * 256.0 + 256.0 * 128.0 + 128.0 * 64.0), 6.0 * 64.0);
    let items = distinct(&batches);
    let operations = 0.5 * towers * (size as f64 + items) + loss * size as f64 * items;
    let achieved = operations / seconds / 1e9;
    let by_phase: Vec<String> = phases
        .iter()
        .map(|(phase, time)| {
            format!("{} {:.2}", phase.label(), time.as_secs_f64() * 1e3 / steps as f64)
        })
        .collect();
    println!(
        "{size:>8} {items:>9.0}  {:>10.0}  {achieved:>7.0}  {peak:>4.0} {:>4.0}%  {:.2}: {}",
        size as f64 / seconds,
        100.0 * achieved / peak,
        seconds * 1e3,
        by_phase.join(", ")
    );
}

/// Distinct items of a batch, on average.
fn distinct(batches: &[Batch]) -> f64 {
    let of_batch = |batch: &Batch| batch.events.item_ids.iter().collect::<HashSet<_>>().len();
    batches.iter().map(of_batch).sum::<usize>() as f64 / batches.len() as f64
}

/// Items as logs have them: by Zipf's law.
fn zipf(items: f64) -> impl Fn(&mut SplitMix) -> u64 {
    move |random| items.powf(unit(random)) as u64
}

/// As many distinct items to a batch whatever `items` is, and rows all over the table: the heads of
/// a Zipf's law of 100,000, and any items for the rest of it.
fn spread(items: f64) -> impl Fn(&mut SplitMix) -> u64 {
    const HEADS: u64 = 1000;
    let law = zipf(1e5);
    move |random| match law(random) {
        head if head < HEADS => head,
        _ => (unit(random) * items) as u64,
    }
}

fn unit(random: &mut SplitMix) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Users evenly, items by `item`.
fn batch(
    size: usize,
    users: f64,
    item: impl Fn(&mut SplitMix) -> u64,
    random: &mut SplitMix,
) -> Batch {
    let mut batch = Batch::new(Events::new(2, 2), Offsets::new("bench"));
    for _ in 0..size {
        let user = (unit(random) * users) as u64;
        let item_id = item(random);
        let history = (0..HISTORY).map(|_| (item(random), 1.0 / HISTORY as f32)).collect();
        batch.events.push(&Event {
            time_ms: 1,
            query_id: user,
            item_id,
            item_name: item_id.to_string().into(),
            reward: 1.0,
            query: vec![FeatureValue::Id(user), FeatureValue::Bag(history)],
            item: vec![FeatureValue::Id(item_id), FeatureValue::Id(item_id % CATEGORIES)],
        });
    }
    batch
}

/// What gemm reaches on a product of cache-friendly size, on all threads.
fn sgemm_peak() -> f64 {
    const N: usize = 1024;
    let (a, b, mut c) = (vec![0.5f32; N * N], vec![0.5f32; N * N], vec![0.0f32; N * N]);
    let mut best = 0.0f64;
    for _ in 0..20 {
        let began = Instant::now();
        // SAFETY: all three are N x N.
        unsafe {
            gemm(
                N,
                N,
                N,
                c.as_mut_ptr(),
                1,
                N as isize,
                false,
                a.as_ptr(),
                1,
                N as isize,
                b.as_ptr(),
                1,
                N as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::Rayon(0),
            );
        }
        best = best.max(2.0 * (N * N * N) as f64 / began.elapsed().as_secs_f64() / 1e9);
    }
    best
}
