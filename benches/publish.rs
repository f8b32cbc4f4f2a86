//! A million items on their way to a real broker, and the steps beside it: seconds, and a
//! step's median and p99 with and without. `cargo bench --bench publish -- 127.0.0.1:9092`
//!
//! The broker runs on the same processors, which a deployment's does not. Topics `bench-PID-*`
//! stay: their bytes are the version's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace::checkpoint::{Checkpoint, Facts, Store};
use millrace::config::Config;
use millrace::priority::{Priority, yield_to_others};
use millrace::publish::Publisher;
use millrace_events::{Batch, Events, Offsets, SplitMix};
use millrace_events::{Event, FeatureValue, id_key};
use millrace_train::{Placement, Trainer};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ITEMS: u64 = 1_000_000;
/// Steps are measured for so long without a sweep, before and after.
const ALONE: Duration = Duration::from_secs(15);

fn main() {
    let brokers = std::env::args().skip(1).find(|argument| argument.contains(':'));
    let Some(brokers) = brokers else {
        println!("name a broker: cargo bench --bench publish -- 127.0.0.1:9092");
        return;
    };
    let topic = format!("bench-{}", std::process::id());
    println!("{ITEMS} items, broker {brokers}, topics {topic}-*");
    for sets in [
        &["publish.format=flat"][..],
        &["publish.vector=base64-f32"],
        &["publish.vector=base64-bf16"],
        &["publish.full_every=10", "publish.vector=base64-bf16"],
    ] {
        run(&brokers, &topic, sets);
    }
}

fn run(brokers: &str, topic: &str, sets: &[&str]) {
    let own = [
        format!("kafka.brokers={brokers}"),
        format!("publish.topic={topic}-{}", sets[0].replace(['=', '.'], "-")),
        format!("publish.versions_topic={topic}-{}-v", sets[0].replace(['=', '.'], "-")),
        "embedding.rows_max=1200000".to_owned(),
        "batch.size=1024".to_owned(),
    ];
    let sets_all: Vec<String> =
        own.iter().cloned().chain(sets.iter().map(|set| (*set).to_owned())).collect();
    let config = Config::load(Some("config/synthetic.toml".as_ref()), &sets_all);
    let config = config.expect("a valid config");
    let mut trainer = Trainer::new(&config.train(), &Placement::Cpu, Offsets::new("bench"));
    let mut random = SplitMix::new(1);
    for first in (0..ITEMS).step_by(1024) {
        trainer.step(&batch((first..ITEMS.min(first + 1024)).map(|item| (item, item % 20_000))));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path(), 2).expect("a directory of its own");
    let first = write(&config, &store, &mut trainer);
    let mut publisher = Publisher::new(&config, &Placement::Cpu).expect("threads");
    let mut alone = steps(&mut trainer, &mut random, |began| began.elapsed() < ALONE);
    let (mut beside, seconds) = sweep(&mut publisher, &first, &mut trainer, &mut random);
    alone.extend(steps(&mut trainer, &mut random, |began| began.elapsed() < ALONE));
    let (median, slow) = quantiles(&mut alone);
    let (beside_median, beside_slow) = quantiles(&mut beside);
    println!(
        "{sets:?}: {seconds:.1} s; a step alone {median:.2} ms, p99 {slow:.2}; beside it \
         {beside_median:.2}, p99 {beside_slow:.2} = {:.2} times ({} steps)",
        beside_slow / slow,
        beside.len()
    );
    if config.publish.full_every > 1 {
        let second = write(&config, &store, &mut trainer);
        let began = Instant::now();
        let published = publisher.publish(&second, &|| false).expect("it takes it");
        let sent = published.expect("nobody says stop").vectors;
        let seconds = began.elapsed().as_secs_f64();
        println!("{sets:?}, {} steps later: {sent} vectors sent in {seconds:.1} s", beside.len());
    }
}

/// Publishes while steps go on; their times, and how long the version took.
fn sweep(
    publisher: &mut Publisher,
    checkpoint: &Checkpoint,
    trainer: &mut Trainer,
    random: &mut SplitMix,
) -> (Vec<f64>, f64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publication = scope.spawn(|| {
            yield_to_others(Priority::Lowest);
            let began = Instant::now();
            let published = publisher.publish(checkpoint, &|| false).expect("the broker takes it");
            done.store(true, Ordering::Relaxed);
            assert_eq!(published.map(|published| published.vectors), Some(ITEMS));
            began.elapsed().as_secs_f64()
        });
        let times = steps(trainer, random, |_| !done.load(Ordering::Relaxed));
        (times, publication.join().expect("no panic"))
    })
}

/// Times of steps in ms, as long as `goes_on`.
fn steps(
    trainer: &mut Trainer,
    random: &mut SplitMix,
    goes_on: impl Fn(Instant) -> bool,
) -> Vec<f64> {
    let (mut times, began) = (Vec::new(), Instant::now());
    while goes_on(began) {
        let mut draw = || (random.next_u64() % ITEMS, random.next_u64() % 20_000);
        let pairs: Vec<(u64, u64)> = (0..1024).map(|_| draw()).collect();
        let batch = batch(pairs.into_iter());
        let step = Instant::now();
        trainer.step(&batch);
        times.push(step.elapsed().as_secs_f64() * 1e3);
    }
    times
}

fn batch(pairs: impl Iterator<Item = (u64, u64)>) -> Batch {
    let mut events = Events::new(2, 2);
    for (item, user) in pairs {
        let (item_name, user) = (format!("i{item}"), format!("u{user}"));
        let item_id = id_key(item_name.as_bytes());
        events.push(&Event {
            time_ms: 1,
            query_id: id_key(user.as_bytes()),
            item_id,
            item_name: item_name.into(),
            reward: 1.0,
            query: vec![FeatureValue::Id(id_key(user.as_bytes())), FeatureValue::Absent],
            item: vec![FeatureValue::Id(item_id), FeatureValue::Id(item % 300)],
        });
    }
    Batch::new(events, Offsets::new("bench"))
}

fn write(config: &Config, store: &Store, trainer: &mut Trainer) -> Checkpoint {
    let progress = trainer.progress().clone();
    let facts = Facts {
        run: "5eed0001".into(),
        began_ms: Some(1),
        witness: millrace_events::Witness::default(),
        step: progress.step,
        offsets: progress.offsets,
        pass: 1,
        catalogues: Vec::new(),
        event_time_ms: 1,
        events_trained: progress.events,
        events_rejected: 0,
        config_digest: config.digest(),
        config_toml: config.to_toml(),
        program: String::new(),
    };
    store.write(facts, trainer.capture().into_sections(), 1).expect("room")
}

/// Median and 99th percentile.
fn quantiles(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
