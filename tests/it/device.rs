//! The GPU path against the CPU's, on software Vulkan where there is no GPU.

use std::sync::{Mutex, PoisonError};

use millrace::config::{Config, DeviceChoice};
use millrace::pipeline::placement;
use millrace::stream::decode::Mapping;
use millrace_events::{Batch, Offsets};
use millrace_train::objective::Correction;
use millrace_train::placement::Placement;
use millrace_train::trainer::Trainer;

use crate::support::synthetic;
use millrace::stream::events_of;

const STEPS: usize = 10;
const BATCH: usize = 200; // no multiple of what the GPU pads to
/// Held by each test: the device's memory is that of the process.
static DEVICE: Mutex<()> = Mutex::new(());

fn config() -> Config {
    let text = include_str!("../../config/demo.toml");
    Config::from_toml(text).expect("the demo's config is right")
}

/// Batches of these sizes.
fn batches(config: &Config, sizes: impl Iterator<Item = usize>) -> Vec<Batch> {
    let sizes: Vec<usize> = sizes.collect();
    let mut mapping = Mapping::new(config);
    let mut lines = synthetic(sizes.iter().sum(), 31);
    let fill = |size: usize| {
        let mut batch = Batch::new(events_of(config), Offsets::new("none"));
        for line in lines.by_ref().take(size) {
            let decoded = mapping.decode(Some(line.as_bytes()), None, &mut batch.events);
            decoded.expect("a good event");
        }
        batch
    };
    sizes.into_iter().map(fill).collect()
}

fn losses(config: &Config, device: DeviceChoice) -> Vec<f32> {
    let placement = placement(device).expect("install mesa-vulkan-drivers");
    let mut trainer = Trainer::new(&config.train(), &placement, Offsets::new("none"));
    let batches = batches(config, std::iter::repeat_n(BATCH, STEPS));
    let step = |batch| trainer.step(batch).expect("a batch with events").loss;
    batches.iter().map(step).collect()
}

#[track_caller]
fn assert_same(config: &Config) {
    let _held = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let (cpu, gpu) = (losses(config, DeviceChoice::Cpu), losses(config, DeviceChoice::Gpu));
    let furthest = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    println!("cpu {cpu:?}\ngpu {gpu:?}\nfurthest {furthest:e}");
    assert!(cpu[STEPS - 1] != cpu[0], "it learns");
    assert!(furthest < 1e-3, "{furthest}");
}

#[test]
fn gpu_losses_are_those_of_the_cpu() {
    assert_same(&config());
}

/// Items drawn from the corpus, vectors of past batches, positives outside the sum, a temperature
/// that learns: all that the loss can be asked for.
#[test]
fn gpu_losses_of_every_mode_are_those_of_the_cpu() {
    let mut config = config();
    config.negatives.mixed = 90;
    config.negatives.cross_batch = 300;
    config.negatives.cross_batch_after_events = 2 * config.batch.size as u64;
    config.loss.correction = Correction::CorrectedPositiveExcluded;
    config.loss.mask_same_query = true;
    config.loss.temperature_learning_rate = 0.02;
    assert_same(&config);
}

/// `cargo bench --bench device` goes on for longer.
#[test]
fn device_memory_stays_where_it_is() {
    const SETTLED: usize = 40; // every shape has been there by then
    let _held = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut config = config();
    config.negatives.cross_batch = 300;
    let placement = placement(DeviceChoice::Gpu).expect("install mesa-vulkan-drivers");
    let Placement::Gpu(device) = &placement else { panic!("a GPU was asked for") };
    let mut trainer = Trainer::new(&config.train(), &placement, Offsets::new("none"));
    let mut settled = 0;
    let sizes = (0..100).map(|step| 1 + step * 137 % 500);
    for (step, batch) in batches(&config, sizes).iter().enumerate() {
        trainer.step(batch).expect("a batch with events");
        let usage = device.memory_pool_usage().expect("wgpu has pools");
        if step < SETTLED {
            settled = settled.max(usage.bytes_reserved);
        }
        assert!(usage.bytes_reserved <= settled, "{usage:?} in step {step}, {settled} before");
    }
}
