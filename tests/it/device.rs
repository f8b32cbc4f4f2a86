//! The GPU path against the CPU's, on software Vulkan where there is no GPU.

use millrace::config::{Config, DeviceChoice};
use millrace::stream::batch::Batch;
use millrace::stream::decode::Mapping;
use millrace::stream::offsets::Offsets;
use millrace::train::trainer::Trainer;

use crate::support::synthetic;

const STEPS: usize = 10;
const BATCH: usize = 200; // no multiple of what the GPU pads to

fn config() -> Config {
    let text = include_str!("../../config/demo.toml");
    Config::from_toml(text).expect("the demo's config is right")
}

fn losses(device: DeviceChoice) -> Vec<f32> {
    let config = config();
    let placement = millrace::pipeline::placement(device).expect("install mesa-vulkan-drivers");
    let offsets = Offsets::new("none");
    let mut trainer = Trainer::new(&config, &placement, offsets.clone());
    let mapping = Mapping::new(&config);
    let mut lines = synthetic(STEPS * BATCH, 31);
    (0..STEPS)
        .map(|_| {
            let mut batch = Batch::new(2, 2, offsets.clone());
            for line in lines.by_ref().take(BATCH) {
                batch.push(mapping.decode(Some(line.as_bytes()), None).expect("a good event"));
            }
            trainer.step(&batch, &mut |_| {}).expect("a batch with events").loss
        })
        .collect()
}

#[test]
fn gpu_losses_are_those_of_the_cpu() {
    let (cpu, gpu) = (losses(DeviceChoice::Cpu), losses(DeviceChoice::Gpu));
    let furthest = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    println!("cpu {cpu:?}\ngpu {gpu:?}\nfurthest {furthest:e}");
    assert!(cpu[STEPS - 1] < cpu[0], "ten steps lower the loss");
    assert!(furthest < 1e-3, "{furthest}");
}
