//! Records consumed a second, without training: the source (decoded, merged, batched) beside a bare
//! poll loop of the same client, which is what `rdkafka_performance -C` does, and beside kcat where
//! it is installed, which prints the records and decodes nothing. In turns. The broker shares the
//! cores.
//!
//! `MILLRACE_TOPIC=bench MILLRACE_BROKERS=127.0.0.1:19092 MILLRACE_CONFIG=config/bench.toml cargo
//! bench --bench consume`, on a topic that was filled by `millrace produce`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::config::Config;
use millrace::stream::client;
use millrace::stream::cut::Cut;
use millrace::stream::log::Log;
use millrace::stream::position::{Position, Range};
use millrace::stream::source::{Next, Source};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let (Ok(brokers), Ok(topic)) =
        (std::env::var("MILLRACE_BROKERS"), std::env::var("MILLRACE_TOPIC"))
    else {
        println!("skipped: MILLRACE_BROKERS and MILLRACE_TOPIC name no topic to read");
        return Ok(());
    };
    let file = std::env::var("MILLRACE_CONFIG").unwrap_or_else(|_| "config/bench.toml".into());
    let sets = [format!("kafka.brokers={brokers}"), format!("kafka.topic={topic}")];
    let config =
        Config::load(Some(file.as_ref()), &sets).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let range = Log::of(&config)?.range(Position::Earliest, Position::Latest)?;
    let records = range.records();
    let partitions = range.from.iter().len();
    println!("{records} records of {topic}, {partitions} partitions; records/s");
    let mut rates: Vec<(&str, Vec<f64>)> = Vec::new();
    for round in 0..ROUNDS {
        let mut add = |name, seconds: f64| {
            println!("round {}: {name:<28} {:>10.0}", round + 1, records as f64 / seconds);
            match rates.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => all.push(records as f64 / seconds),
                None => rates.push((name, vec![records as f64 / seconds])),
            }
        };
        add("millrace, decoded in batches", millrace(&config, &range)?);
        add("the same client, not decoded", bare(&config, &range, records)?);
        if let Some(seconds) = kcat(&brokers, &topic) {
            add("kcat", seconds);
        }
    }
    let median = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let ours = median(&mut rates[0].1);
    for (name, all) in &mut rates {
        let rate = median(all);
        println!("{name:<28} median {rate:>10.0}, millrace is {:.2} of it", ours / rate);
    }
    Ok(())
}

/// Seconds from opening the source to the last batch; the connection is in, as with the others.
fn millrace(config: &Config, range: &Range) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut source = Source::open(config, range.clone(), 1, Cut::Full, &Arc::default())?;
    loop {
        if let Next::End = source.next(PATIENCE)? {
            return Ok(began.elapsed().as_secs_f64());
        }
    }
}

fn bare(config: &Config, range: &Range, records: u64) -> anyhow::Result<f64> {
    let began = Instant::now();
    let consumer = client::consumer(config)?;
    let mut list = TopicPartitionList::new();
    for (partition, next) in range.from.iter() {
        list.add_partition_offset(range.from.topic(), partition, Offset::Offset(next))?;
    }
    consumer.assign(&list)?;
    let mut seen = 0;
    while seen < records {
        match consumer.poll(PATIENCE) {
            Some(Ok(_)) => seen += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => anyhow::bail!("no record in {PATIENCE:?}"),
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Reads the topic to its end and throws the payloads away.
fn kcat(brokers: &str, topic: &str) -> Option<f64> {
    let began = Instant::now();
    let done = Command::new("kcat")
        .args(["-C", "-q", "-e", "-o", "beginning", "-b", brokers, "-t", topic])
        .stdout(Stdio::null())
        .status()
        .ok()?;
    done.success().then(|| began.elapsed().as_secs_f64())
}
