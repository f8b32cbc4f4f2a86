//! Is what is read a known log? Topics that grow, transactions, a topic that was made anew.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset};
use serde_json::json as value;

use crate::support::{
    Bench, PATIENCE, Running, client, create_topic, get, inspect, json, run_to_end, synthetic,
};

const SETS: [&str; 4] =
    ["http.listen=127.0.0.1:0", "batch.linger_ms=100", "publish.topic=", "kafka.discover_s=1"];

/// Waits until a series of the metrics page is at least `least`. Returns how long that took.
pub(crate) fn wait_for(address: &str, series: &str, least: f64) -> Duration {
    let began = Instant::now();
    loop {
        let (_, page) = get(address, "/metrics");
        let text = page.lines().find_map(|line| line.strip_prefix(series));
        let now = text.and_then(|value| value.trim().parse().ok()).unwrap_or(f64::NAN);
        if now >= least {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "{series} is {now}, not {least}, in\n{page}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) const TRAINED: &str = "millrace_events_total{result=\"trained\"} ";

fn admin() -> AdminClient<DefaultClientContext> {
    client().create().expect("an admin client")
}

fn block_on<T>(future: impl Future<Output = rdkafka::error::KafkaResult<T>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future).expect("the broker answers")
}

pub(crate) fn delete_topic(name: &str) {
    let results = block_on(admin().delete_topics(&[name], &AdminOptions::new()));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Gives a topic more partitions, and waits until the broker knows of their leaders: a producer
/// that is told of fewer drops what is for the others.
pub(crate) fn grow_topic(name: &str, partitions: usize) {
    let (admin, began) = (admin(), Instant::now());
    let grown = NewPartitions::new(name, partitions);
    let results = block_on(admin.create_partitions([&grown], &AdminOptions::new()));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    loop {
        let found = admin.inner().fetch_metadata(Some(name), PATIENCE).expect("an answer");
        let led = found.topics()[0].partitions().iter().filter(|one| one.leader() >= 0).count();
        if led == partitions {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{led} partitions of {partitions} have a leader");
    }
}

/// A trainer on the bench, and its address.
fn train(bench: &Bench, sets: &[&str]) -> (Running, String) {
    let sets = [&SETS[..], sets].concat();
    let mut run = Running::start(&mut bench.command("train", "train", &sets));
    let line = run.wait_for("metrics and health on http://");
    let address = line.split("http://").nth(1).expect("an address").trim_end_matches('/');
    let address = address.to_owned();
    (run, address)
}

fn stop(mut run: Running) {
    run.signal("-TERM");
    let (_, status) = run.wait();
    assert!(status.success(), "exit status {status}");
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(3_000, 71);
    let (run, address) = train(&bench, &[]);
    wait_for(&address, TRAINED, 3_000.0);
    grow_topic(&bench.topic, 3);
    bench.produce_synthetic(3_000, 72);
    let took = wait_for(&address, TRAINED, 6_000.0);
    println!("two new partitions, looked for every second, were read within {took:?}");
    stop(run);

    let offsets = inspect(&bench.checkpoints("train"))["offsets"]["partitions"].clone();
    let next: Vec<i64> = ["0", "1", "2"].iter().filter_map(|id| offsets[id].as_i64()).collect();
    assert_eq!(next.len(), 3, "{offsets}");
    assert_eq!(next.iter().sum::<i64>(), 6_000);
    assert!(next[0] < 6_000, "the producer spreads its keys over the new partitions: {next:?}");
    // Nothing is missing, nothing is there twice.
    let rest = json(&mut bench.command("replay", "train", &SETS));
    assert_eq!((&rest["trained"], &rest["rejected"]), (&value!(6_000), &value!(0)));
}

/// A producer of transactions, with the bench's topic for its name.
fn transactional(bench: &Bench) -> ThreadedProducer<rdkafka::producer::DefaultProducerContext> {
    let mut settings: ClientConfig = client();
    settings.set("transactional.id", &bench.topic);
    let producer: ThreadedProducer<_> = settings.create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("the broker has transactions");
    producer
}

#[test]
fn an_open_transaction_is_seen_and_its_marker_is_no_loss() {
    let bench = Bench::new("demo.toml", 1);
    let (run, address) = train(&bench, &["checkpoint.every_s=1"]);
    let producer = transactional(&bench);
    producer.begin_transaction().expect("begun");
    for line in synthetic(500, 73) {
        let record = BaseRecord::<[u8], [u8]>::to(&bench.topic).payload(line.as_bytes());
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(PATIENCE).expect("delivered");
    let series = format!("{{partition=\"0\",topic=\"{}\"}} ", bench.topic);
    let took = wait_for(&address, &format!("millrace_consumer_uncommitted{series}"), 500.0);
    println!("the open transaction was seen within {took:?}");
    wait_for(&address, &format!("millrace_consumer_lag{series}"), 500.0);

    producer.commit_transaction(PATIENCE).expect("committed");
    wait_for(&address, TRAINED, 500.0);
    // One that is taken back leaves records and a marker that nobody gets.
    producer.begin_transaction().expect("begun");
    let payload = "never happened".as_bytes();
    let record = BaseRecord::<[u8], [u8]>::to(&bench.topic).payload(payload);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(PATIENCE).expect("delivered");
    producer.abort_transaction(PATIENCE).expect("aborted");
    // 500 records, a marker, a record, a marker. The offsets alone make a checkpoint, too.
    let next = 503;
    let began = Instant::now();
    while inspect(&bench.checkpoints("train"))["offsets"]["partitions"]["0"] != next {
        assert!(began.elapsed() < PATIENCE, "the markers are in no checkpoint");
        std::thread::sleep(Duration::from_millis(200));
    }
    stop(run);

    // Retention takes all there is, markers too: nothing is lost.
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset(&bench.topic, 0, Offset::Offset(next)).expect("an offset");
    block_on(admin().delete_records(&gone, &AdminOptions::new()));
    let rest = json(&mut bench.command("replay", "train", &SETS));
    assert_eq!(rest["trained"], 500);
}

#[test]
fn a_topic_that_was_made_anew_and_grew_past_the_offset_is_refused() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(2_000, 74);
    json(&mut bench.command("replay", "train", &SETS));
    delete_topic(&bench.topic);
    create_topic(&bench.topic, 1, None);
    bench.produce_synthetic(5_000, 75);
    let (status, log) = run_to_end(&mut bench.command("train", "train", &SETS));
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("is not the one that the checkpoint was trained on"), "{log}");
    assert!(log.contains("--fresh"), "{log}");
}

#[test]
fn a_topic_that_is_made_anew_while_it_is_read_is_noticed() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(2_000, 77);
    let (mut run, address) = train(&bench, &[]);
    wait_for(&address, TRAINED, 2_000.0);
    delete_topic(&bench.topic);
    let began = Instant::now();
    create_topic(&bench.topic, 1, None);
    bench.produce_synthetic(5_000, 78);
    let status = loop {
        assert!(began.elapsed() < PATIENCE, "another log is read without a word");
        match run.child.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    println!("noticed within {:?}", began.elapsed());
    assert_eq!(status.code(), Some(1));
    let line = run.wait_for("anew");
    println!("{line}");
}

/// Nobody listens there.
const NOWHERE: &str = "kafka.brokers=127.0.0.1:1";

#[test]
fn a_trainer_that_has_been_here_before_waits_for_its_brokers() {
    let bench = Bench::new("demo.toml", 1);
    let (status, log) = run_to_end(&mut bench.command("train", "train", &[NOWHERE]));
    assert_eq!(status, Some(1), "the config of a first start may be wrong: {log}");
    bench.produce_synthetic(2_000, 79);
    json(&mut bench.command("replay", "train", &SETS));
    let (mut run, address) = train(&bench, &[NOWHERE]);
    run.wait_for("waiting: ");
    let (head, body) = get(&address, "/readyz");
    assert!(head.contains("503") && body.contains("brokers"), "{head} {body}");
    assert!(get(&address, "/healthz").0.contains("200"));
    stop(run);
    // Nothing has changed.
    let rest = json(&mut bench.command("replay", "train", &SETS));
    assert_eq!(rest["trained"], 2_000);
}

#[test]
fn topics_that_are_not_there_are_named_at_the_start() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(2_000, 76);
    let sets = [
        "kafka.dead_letter_topic=no-letters",
        "publish.topic=no-vectors",
        "publish.create_topics=false",
    ];
    let (mut run, _) = train(&bench, &sets);
    let line = run.wait_for("no-letters");
    assert!(line.contains("kafka-topics.sh") && line.contains("kafka.dead_letter_topic"), "{line}");
    let line = run.wait_for("no-vectors");
    assert!(line.contains("cleanup.policy=compact"), "{line}");
    stop(run);
}
