//! Decoding and field mapping on one core, beside parsing the same lines into a
//! `serde_json::Value`: `cargo bench --bench decode`. Real lines (MILLRACE_DATA or
//! `../shared/data`) where there are any, else the demo's.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace::config::Config;
use millrace::stream::decode::Mapping;
use millrace::stream::events_of;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LINES: usize = 50_000;

fn real(file: &str) -> Option<Vec<String>> {
    let root =
        std::env::var_os("MILLRACE_DATA").map_or_else(|| "../shared/data".into(), PathBuf::from);
    let file = std::fs::File::open(root.join(file)).ok()?;
    let lines = BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines();
    lines.take(LINES).collect::<Result<_, _>>().ok()
}

fn made_up() -> Vec<String> {
    let line = |n| {
        let (user, item) = (n * 7919 % 4000, n * 104_729 % 2000);
        format!(
            r#"{{"user":"u{user}","item":"i{item}","category":"c{}","time_ms":{n}}}"#,
            item % 16
        )
    };
    (0..LINES).map(line).collect()
}

fn decode(criterion: &mut Criterion) {
    let sets = [
        ("demo", Some(made_up())),
        ("globo", real("globo/clicks.jsonl.gz")),
        ("ml-1m", real("ml-1m/ratings.jsonl.gz")),
    ];
    for (name, lines) in sets {
        let Some(lines) = lines else { continue };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/{name}.toml"));
        let config = Config::load(Some(&path), &[]).expect("a config of the repository");
        let mut mapping = Mapping::new(&config);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20).throughput(Throughput::Elements(LINES as u64));
        group.bench_function("mapping", |bencher| {
            bencher.iter(|| {
                // What a batch holds, so that the columns stay in the cache as they do there.
                for lines in lines.chunks(1024) {
                    let mut events = events_of(&config);
                    for line in lines {
                        mapping.decode(Some(line.as_bytes()), Some(0), &mut events).expect("good");
                    }
                    black_box(events);
                }
            });
        });
        group.bench_function("serde_json::Value", |bencher| {
            bencher.iter(|| {
                for line in &lines {
                    let value: serde_json::Value = serde_json::from_str(line).expect("good");
                    black_box(value);
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
