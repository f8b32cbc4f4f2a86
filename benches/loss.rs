//! Loss and gradient of a batch in f32 and bf16, in examples/s and GFLOP/s.
//!
//! Three products of `2 * batch² * dim` operations each are counted; exponentials are not.
use std::hint::black_box;
use std::time::{Duration, Instant};

use millrace::train::loss::{BatchSoftmax, LossInput, Positive, Precision};
use millrace::train::rows::Rows;

const DIM: usize = 64;

/// Owned columns of a random batch.
struct Batch {
    query: Vec<f32>,
    item: Vec<f32>,
    log_q: Vec<f32>,
    ids: Vec<u64>,
    rewards: Vec<f32>,
}

impl Batch {
    fn random(batch: usize) -> Self {
        let mut state = 7_u64;
        let mut next = || {
            // SplitMix64: enough for inputs whose values do not matter to the timing.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40
        };
        let mut rows = || {
            let mut values: Vec<f32> =
                (0..batch * DIM).map(|_| next() as f32 / (1_u64 << 23) as f32 - 1.0).collect();
            for row in values.chunks_mut(DIM) {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= norm);
            }
            values
        };
        let (query, item) = (rows(), rows());
        // A tenth of the batch shares ids with another row, as popular items do.
        let ids = (0..batch as u64).map(|_| next() % (5 * batch as u64)).collect();
        let log_q = (0..batch).map(|_| -((next() % 8) as f32)).collect();
        Self { query, item, log_q, ids, rewards: vec![1.0; batch] }
    }

    fn input(&self) -> LossInput<'_> {
        LossInput {
            dim: DIM,
            query: Rows::Host(&self.query),
            item: Rows::Host(&self.item),
            trained: self.rewards.len(),
            past: &[],
            merged: None,
            log_q: &self.log_q,
            positive: Positive::Sampled,
            item_ids: &self.ids,
            query_ids: None,
            rewards: &self.rewards,
            temperature: 0.05,
        }
    }
}

/// Wall-clock time of one run.
fn time(softmax: &mut BatchSoftmax, batch: &Batch) -> Duration {
    let start = Instant::now();
    black_box(softmax.run(&batch.input()));
    start.elapsed()
}

fn main() {
    let mut f32 = BatchSoftmax::new(Precision::F32);
    let mut bf16 = BatchSoftmax::new(Precision::Bf16);
    println!("asked for bf16, got {:?}", bf16.precision());
    for size in [1024, 4096, 8192] {
        let batch = Batch::random(size);
        // In turns, and the best of many: on a shared machine the fastest is the least disturbed.
        let [mut f32_best, mut bf16_best] = [Duration::MAX; 2];
        for _ in 0..(160 * 1024 / size) {
            f32_best = f32_best.min(time(&mut f32, &batch));
            bf16_best = bf16_best.min(time(&mut bf16, &batch));
        }
        for (name, best) in [("f32", f32_best), ("bf16", bf16_best)] {
            let seconds = best.as_secs_f64();
            println!(
                "batch {size} {name:>4}: {:7.2} ms, {:7.0} examples/s, {:3.0} GFLOP/s",
                seconds * 1e3,
                size as f64 / seconds,
                6.0 * (size * size * DIM) as f64 / seconds / 1e9,
            );
        }
        println!("batch {size} ratio: {:.2}", f32_best.as_secs_f64() / bf16_best.as_secs_f64());
    }
}
