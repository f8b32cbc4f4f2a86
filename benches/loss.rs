//! Loss and gradient of a batch, in examples/s and GFLOP/s beside this machine's sgemm peak.
//!
//! Three products of `2 * batch² * dim` operations each are counted; exponentials are not.
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use gemm::{Parallelism, gemm};
use millrace::train::loss::{BatchSoftmax, LossInput};

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
            query: &self.query,
            item: &self.item,
            log_q: &self.log_q,
            item_ids: &self.ids,
            query_ids: None,
            rewards: &self.rewards,
            temperature: 0.05,
        }
    }
}

/// Best time of several rounds: on a shared machine the fastest is the least disturbed.
fn best(rounds: usize, mut work: impl FnMut()) -> Duration {
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .expect("at least one round")
}

/// Seconds of one 1024 x 1024 x 1024 sgemm on all rayon threads.
fn peak() -> f64 {
    const N: usize = 1024;
    let (a, b) = (vec![0.5_f32; N * N], vec![0.25_f32; N * N]);
    let mut c = vec![0.0_f32; N * N];
    let n = N as isize;
    let time = best(30, || {
        // SAFETY: three N x N matrices, column-major, none overlaps another.
        unsafe {
            gemm(
                N,
                N,
                N,
                c.as_mut_ptr(),
                n,
                1,
                false,
                a.as_ptr(),
                n,
                1,
                b.as_ptr(),
                n,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::Rayon(0),
            );
        }
        black_box(&c);
    });
    2.0 * (N * N * N) as f64 / time.as_secs_f64() / 1e9
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut softmax = BatchSoftmax::new();
    let mut group = criterion.benchmark_group("loss");
    for size in [1024, 4096, 8192] {
        let batch = Batch::random(size);
        let before = peak();
        let time = best(10, || {
            black_box(softmax.run(&batch.input()));
        });
        let peak = peak().max(before);
        let rate = 6.0 * (size * size * DIM) as f64 / time.as_secs_f64() / 1e9;
        println!(
            "batch {size}: {:.2} ms, {:.0} examples/s, {rate:.0} GFLOP/s, {:.0}% of sgemm's {peak:.0}",
            time.as_secs_f64() * 1e3,
            size as f64 / time.as_secs_f64(),
            100.0 * rate / peak,
        );
        group.sample_size(10).throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(softmax.run(&batch.input()).loss));
        });
    }
    group.finish();
    criterion.final_summary();
}
