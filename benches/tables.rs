//! A step's work on one embedding table of a million rows: rows found and updated, ids/s, beside
//! the least that any table does for that, a lookup in std's map and an addition to a row of a
//! plain array. `cargo bench --bench tables`

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_events::SplitMix;
use millrace_train::table::{Table, TableSettings, TouchedRows};

const ROWS: u64 = 1_000_000;
const DIM: usize = 64;
/// A batch of 1,024 with ten items of history each.
const IDS: usize = 10_240;
/// Different batches, so that a row is not in the cache from the last time.
const BATCHES: usize = 64;

fn settings() -> TableSettings {
    TableSettings {
        dim: DIM,
        rows_max: ROWS as usize,
        init_scale: 0.05,
        seed: 1,
        learning_rate: 0.05,
        epsilon: 1e-6,
        decay: 1.0,
        batch: 1,
        admit_after: 1,
        expiry_events: None,
    }
}

fn tables(criterion: &mut Criterion) {
    let mut random = SplitMix::new(1);
    let batches: Vec<Vec<u64>> =
        (0..BATCHES).map(|_| (0..IDS).map(|_| random.next_u64() % ROWS).collect()).collect();
    let ids: Vec<u64> = (0..ROWS).collect();
    let mut group = criterion.benchmark_group("tables");
    group.sample_size(20).throughput(Throughput::Elements(IDS as u64));

    let (mut table, mut touched) = (Table::new(settings()), TouchedRows::default());
    ids.chunks(IDS).for_each(|ids| table.touch(ids, 1, &mut touched));
    let mut step = 1;
    group.bench_function("rows found and updated", |bencher| {
        bencher.iter(|| {
            step += 1;
            table.touch(&batches[step as usize % BATCHES], step, &mut touched);
            table.apply(&touched, |_, _, gradient| gradient.fill(1e-3));
        });
    });
    drop(table);

    let index: HashMap<u64, usize> = ids.iter().map(|&id| (id, id as usize)).collect();
    let mut values = vec![0.0f32; ROWS as usize * DIM];
    group.bench_function("std's map and a plain array, one thread", |bencher| {
        let mut step = 0;
        bencher.iter(|| {
            step += 1;
            for id in &batches[step % BATCHES] {
                let row = index[id] * DIM;
                values[row..row + DIM].iter_mut().for_each(|value| *value -= 1e-3);
            }
            black_box(&values);
        });
    });

    group.bench_function("new rows", |bencher| {
        bencher.iter_batched(
            || Table::new(settings()),
            |mut table| {
                table.touch(&ids[..IDS], 1, &mut touched);
                table
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, tables);
criterion_main!(benches);
