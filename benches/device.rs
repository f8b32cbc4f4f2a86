//! Training on wgpu for a long time: does memory stay where it is? The demo's model, batches of
//! changing size, thus of changing numbers of distinct rows. A line every tenth of the way: memory
//! of the device's pools and of the process, events/s.
//!
//! `cargo bench --bench device -- [STEPS [FEWEST [MOST]]]`, by default 20,000 steps of 64 to 256
//! events.

use std::time::Instant;

use millrace::config::{Config, DeviceChoice};
use millrace::pipeline;
use millrace_events::{Batch, Event, Events, FeatureValue, Offsets, SplitMix};
use millrace_train::placement::Placement;
use millrace_train::trainer::Trainer;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUERIES: u64 = 20_000;
const ITEMS: u64 = 5_000;
const CATEGORIES: u64 = 40;

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let steps = numbers.next().unwrap_or(20_000);
    let fewest = numbers.next().unwrap_or(64);
    let most = numbers.next().unwrap_or(256.max(fewest));

    let config = Config::from_toml(include_str!("../config/demo.toml")).expect("a valid config");
    let placement = pipeline::placement(DeviceChoice::Gpu).expect("an adapter, or Mesa's Vulkan");
    let Placement::Gpu(device) = &placement else { panic!("a GPU was asked for") };
    let mut trainer = Trainer::new(&config.train(), &placement, Offsets::new("bench"));
    let mut random = SplitMix::new(1);
    let mut below = |end: u64| random.next_u64() % end;
    println!("  steps   events/s  pools: in use  reserved  allocations  process, MiB");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (mut began, mut events) = (Instant::now(), 0);
    for step in 1..=steps {
        let size = fewest + below(most - fewest + 1);
        let batch = batch(size, &mut below);
        trainer.step(&batch);
        events += size;
        if step.is_multiple_of((steps / 10).max(1)) {
            let rate = events as f64 / began.elapsed().as_secs_f64();
            let usage = device.memory_pool_usage().expect("wgpu has pools");
            println!(
                "{step:>7} {rate:>10.0} {:>14.2} {:>9.2} {:>12} {:>13.1}",
                mib(usage.bytes_in_use),
                mib(usage.bytes_reserved),
                usage.number_allocs,
                mib(resident())
            );
            (began, events) = (Instant::now(), 0);
        }
    }
}

/// Events of no meaning; a popular tenth of the items takes half of them.
fn batch(size: u64, below: &mut impl FnMut(u64) -> u64) -> Batch {
    let mut batch = Batch::new(Events::new(2, 2), Offsets::new("bench"));
    for _ in 0..size {
        let query = below(QUERIES);
        let item = if below(2) == 0 { below(ITEMS / 10) } else { below(ITEMS) };
        batch.events.push(&Event {
            time_ms: 1,
            query_id: query,
            item_id: item,
            item_name: item.to_string().into(),
            reward: 1.0,
            query: vec![FeatureValue::Id(query), FeatureValue::Absent],
            item: vec![FeatureValue::Id(item), FeatureValue::Id(item % CATEGORIES)],
        });
    }
    batch
}

/// Bytes of this process that are in memory; 0 where Linux is not there to ask.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
