//! Loss and gradient of a batch, examples/s: `cargo bench --bench loss`.
//!
//! Its products are three of `2 * batch² * dim` operations each: 0.4 GFLOP at 1,024, 26 at 8,192.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_train::kernel::matrix::Matrix;
use millrace_train::objective::softmax::{BatchSoftmax, LossInput, Merged, Positive, Precision};

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
            query: Matrix::Host(&self.query),
            item: Matrix::Host(&self.item),
            candidates: self.rewards.len(),
            trained: self.rewards.len(),
            past: &[],
            merged: None,
            log_q: &self.log_q,
            positive: Positive::Sampled,
            item_ids: &self.ids,
            query_ids: None,
            had: None,
            rewards: &self.rewards,
            temperature: 0.05,
            full_batch: self.rewards.len(),
        }
    }
}

/// The same batch with a quarter of the items, each of four events.
fn merged(batch: &Batch) -> (Batch, Vec<u32>, Vec<u32>) {
    let (events, items) = (batch.rewards.len(), batch.rewards.len() / 4);
    let of_items = Batch {
        query: batch.query.clone(),
        item: batch.item[..items * DIM].to_vec(),
        log_q: batch.log_q[..items].to_vec(),
        ids: (0..items as u64).collect(),
        rewards: batch.rewards.clone(),
    };
    (of_items, (0..events).map(|event| (event % items) as u32).collect(), vec![4; items])
}

fn losses(criterion: &mut Criterion) {
    for size in [1024, 4096, 8192] {
        let batch = Batch::random(size);
        let mut group = criterion.benchmark_group(format!("loss/{size}"));
        group.sample_size(20).throughput(Throughput::Elements(size as u64));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut softmax = BatchSoftmax::new(precision);
            if softmax.precision() != precision {
                println!("skipped {precision:?}: this processor has no instructions for it");
                continue;
            }
            group.bench_function(format!("{precision:?}"), |bencher| {
                bencher.iter(|| black_box(softmax.run(&batch.input()).loss));
            });
        }
        let (batch, places, copies) = merged(&batch);
        let mut softmax = BatchSoftmax::default();
        group.bench_function("F32, a quarter of the items distinct", |bencher| {
            let merged = Some(Merged { places: &places, copies: &copies });
            let (candidates, trained) = (copies.len(), copies.len());
            let input = LossInput { merged, candidates, trained, ..batch.input() };
            bencher.iter(|| black_box(softmax.run(&input).loss));
        });
        group.finish();
    }
}

criterion_group!(benches, losses);
criterion_main!(benches);
