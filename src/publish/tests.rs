//! Against librdkafka's in-process mock broker.

use std::collections::BTreeMap;

use rdkafka::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::claim::Superseded;
use super::*;
use crate::checkpoint::{Facts, Store};
use crate::config::TableConfig;
use crate::stream::decode::Mapping;
use crate::stream::events_of;
use crate::stream::outbox::{Outgoing, Patience};
use crate::stream::source::tests::read;
use millrace_events::{Batch, Offsets, Witness};
use millrace_train::trainer::Trainer;

const PARTITIONS: i32 = 7;
const ITEMS: usize = 100;

/// A mock cluster with the output topics, and a checkpoint to publish.
struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    config: Config,
    checkpoint: Checkpoint,
    placement: Placement,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// The state after one batch of one event for each of `items` items.
    fn new(items: usize) -> Bench {
        Bench::of(std::slice::from_ref(&(0..items)), |_| {})
    }

    /// The state after a batch of one event for each item of each range.
    fn of(batches: &[std::ops::Range<usize>], change: impl FnOnce(&mut Config)) -> Bench {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let text = include_str!("../../config/demo.toml");
        let mut config = Config::from_toml(text).expect("the demo's config is right");
        config.kafka.brokers = cluster.bootstrap_servers();
        change(&mut config);
        for (topic, partitions) in
            [(&config.publish.topic, PARTITIONS), (&config.publish.versions_topic, 1)]
        {
            cluster.create_topic(topic, partitions, 1).expect("a topic");
        }
        let placement = Placement::Cpu;
        let mut trainer = Trainer::new(&config.train(), &placement, Offsets::new("demo"));
        let mut mapping = Mapping::new(&config);
        for items in batches {
            let mut events = events_of(&config);
            for item in items.clone() {
                let line = format!(
                    "{{\"user\":\"u\",\"item\":\"item {item}\",\"category\":\"c\",\"time_ms\":1}}"
                );
                mapping.decode(Some(line.as_bytes()), None, &mut events).expect("a good event");
            }
            trainer.step(&Batch::new(events, Offsets::new("demo")));
        }
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path(), 1).expect("the directory is ours");
        let sections = trainer.capture().into_sections();
        let written = store.write(facts(&config, &trainer), sections, 1);
        let checkpoint = written.expect("the disk has room");
        Bench { cluster, config, checkpoint, placement, _directory: directory }
    }

    fn markers(&self) -> Vec<VersionMarker> {
        let records = read(&self.config, &self.config.publish.versions_topic);
        let marker = |value: &[u8]| VersionMarker::read(value).expect("a marker");
        records.iter().map(|record| marker(record.payload().expect("a value"))).collect()
    }

    fn publish(&self) -> anyhow::Result<Option<Published>> {
        self.publisher().publish(&self.checkpoint, &|| false)
    }

    fn publisher(&self) -> Publisher {
        Publisher::new(&self.config, &self.placement).expect("a producer")
    }
}

fn facts(config: &Config, trainer: &Trainer) -> Facts {
    Facts {
        run: "5eed0001".into(),
        began_ms: Some(1_700_000_000_000),
        witness: Witness::default(),
        step: trainer.progress().step,
        offsets: trainer.progress().offsets.clone(),
        pass: 1,
        catalogues: Vec::new(),
        event_time_ms: trainer.progress().event_time_ms,
        events_trained: trainer.progress().events,
        events_rejected: 0,
        config_digest: config.digest(),
        config_toml: config.without_credentials().to_toml(),
        program: String::new(),
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(key.len()).expect("a short key");
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    for (at, &byte) in rest.iter().enumerate() {
        hash ^= u32::from(byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[test]
fn the_tests_own_murmur2_is_that_of_kafka() {
    // Values of Apache Kafka's UtilsTest.
    for (key, hash) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
    }
}

#[test]
fn a_vector_lies_where_java_puts_its_key_and_the_marker_counts_all() {
    let bench = Bench::new(ITEMS);
    let published = bench.publish().expect("no trouble").expect("nobody said stop");
    assert_eq!(published.version, "5eed0001-000000000001");
    assert_eq!((published.vectors, published.tombstones), (ITEMS as u64, 0));
    let mut of_partition = BTreeMap::new();
    let mut right = 0;
    let vectors = read(&bench.config, &bench.config.publish.topic);
    for message in &vectors {
        let hash = murmur2(message.key().expect("an item's id")) & 0x7fff_ffff;
        let java = hash % PARTITIONS.cast_unsigned();
        right += usize::from(message.partition().cast_unsigned() == java);
        *of_partition.entry(message.partition()).or_insert(0) += 1;
    }
    println!("{right} of {} keys where Java puts them: {of_partition:?}", vectors.len());
    assert_eq!((right, vectors.len()), (ITEMS, ITEMS));
    assert_eq!(of_partition.len(), PARTITIONS as usize, "keys are spread over all partitions");
    let markers = bench.markers();
    let [marker] = markers.as_slice() else { panic!("{} markers", markers.len()) };
    assert_eq!((&marker.version, marker.vectors), (&published.version, ITEMS as u64));
    assert_eq!((marker.run.as_str(), &marker.previous), ("5eed0001", &None));
    assert_eq!(marker.state_digest, bench.checkpoint.manifest.digest);
    let mut digest = record::Digest::default();
    for message in &vectors {
        let (from, to) = marker.offsets[&message.partition()];
        assert!((from..to).contains(&message.offset()), "{message:?} of {marker:?}");
        digest.add(message.key().expect("a key"), message.payload());
    }
    let span = marker.offsets.values().map(|(from, to)| to - from).sum::<i64>();
    assert_eq!((span, marker.digest.as_str()), (ITEMS as i64, digest.hex().as_str()));
}

#[test]
fn an_item_whose_rows_went_is_not_sent_as_a_random_vector() {
    let bench = Bench::of(&[0..50, 50..100, 100..150, 150..200], |config| {
        // The window's items are touched with those of the step.
        (config.batch.size, config.negatives.mixed) = (50, 0);
        let table = TableConfig { rows_max: Some(120), ..TableConfig::default() };
        config.tables.insert("item".into(), table);
    });
    // Its row went, and a reader has a vector of it from before: the only one to take back.
    let mut outbox = Outbox::new(&bench.config, 0, 1024, Patience::Bounded).expect("a producer");
    let (topic, key, payload) =
        (&bench.config.publish.topic, Some(&b"item 0"[..]), Some(&b"{}"[..]));
    outbox.send(Outgoing { topic, key, payload, ..Outgoing::default() }).expect("queued");
    outbox.flush().expect("delivered");

    let published = bench.publish().expect("no trouble").expect("nobody said stop");
    assert!((50..=120).contains(&published.vectors), "{published:?}");
    assert_eq!(published.tombstones, 1, "{published:?}");
    let messages = read(&bench.config, &bench.config.publish.topic);
    let values = messages.iter().filter(|message| message.payload().is_some()).count();
    assert_eq!(values as u64, published.vectors + 1, "what was there, and the version");
    let gone: Vec<_> = messages.iter().filter(|message| message.payload().is_none()).collect();
    assert!(gone.len() == 1 && gone[0].key() == key, "{gone:?}");
}

/// A marker as another publisher would have left it.
fn leave(bench: &Bench, change: impl FnOnce(&mut VersionMarker)) {
    let Manifest { version, run, began_ms, step, digest, .. } = bench.checkpoint.manifest.clone();
    let topic = bench.config.publish.topic.clone();
    let artifact_digest = digest;
    let marker =
        VersionMarker { version, run, began_ms, step, topic, artifact_digest, ..<_>::default() };
    let mut marker = marker;
    change(&mut marker);
    let value = serde_json::to_vec(&marker).expect("JSON");
    let mut outbox = Outbox::new(&bench.config, 0, 1024, Patience::Bounded).expect("a producer");
    let topic = &bench.config.publish.versions_topic;
    let key = Some(marker.version.as_bytes());
    let record = Outgoing { topic, key, payload: Some(&value), ..Outgoing::default() };
    outbox.send(record).expect("queued");
    outbox.flush().expect("delivered");
}

#[test]
fn what_is_newer_is_not_replaced_unless_one_says_so() {
    type Change = fn(&mut VersionMarker);
    let newer: [(&str, Change); 3] = [
        ("began on 2023-11-14 at 22:13:21 UTC, after this one", |marker| {
            marker.run = "0ther000".into();
            marker.began_ms = marker.began_ms.map(|ms| ms + 1000);
        }),
        ("a later step of this run", |marker| marker.step += 1),
        ("the same step with another content", |marker| marker.state_digest = "x".into()),
    ];
    for (why, change) in newer {
        let bench = Bench::new(3);
        leave(&bench, change);
        let error = bench.publish().expect_err(why);
        assert!(error.is::<Superseded>(), "{error:#}");
        let text = error.to_string();
        assert!(text.contains(why) && text.contains("--take-over"), "{text}");
        assert!(read(&bench.config, &bench.config.publish.topic).is_empty(), "nothing was sent");
        let taken = bench.publisher().taking_over().publish(&bench.checkpoint, &|| false);
        assert_eq!(taken.expect("it was told to").map(|published| published.vectors), Some(3));
        assert_eq!(bench.markers().len(), 2);
    }
    let older: [Change; 4] = [
        |_| {},
        |marker| marker.step -= 1,
        |marker| (marker.run, marker.began_ms) = ("0ther000".into(), None),
        |marker| (marker.topic, marker.step) = ("another one's".into(), 99),
    ];
    for change in older {
        let bench = Bench::new(3);
        leave(&bench, change);
        bench.publish().expect("it may").expect("nobody said stop");
        let markers = bench.markers();
        let ours = markers.iter().find(|marker| !marker.offsets.is_empty()).expect("ours");
        let before = markers.iter().find(|marker| marker.offsets.is_empty()).expect("the other");
        let previous = (before.topic == ours.topic).then(|| before.version.clone());
        assert_eq!(ours.previous, previous);
    }
}

#[test]
fn a_version_without_vectors_is_not_published() {
    let bench = Bench::new(0);
    let error = bench.publish().expect_err("nothing to publish").to_string();
    assert!(error.contains("holds no item"), "{error}");
    assert!(read(&bench.config, &bench.config.publish.versions_topic).is_empty(), "no marker");
}

#[test]
fn a_refused_record_ends_its_version_and_not_the_next() {
    let bench = Bench::new(ITEMS);
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[refused]);
    let mut publisher = bench.publisher();
    let error = publisher.publish(&bench.checkpoint, &|| false).expect_err("refused").to_string();
    let topic = &bench.config.publish.topic;
    assert!(error.contains(&format!("records of `{topic}` were not delivered")), "{error}");
    assert!(error.contains("the first with key \"item "), "{error}");
    assert!(error.contains("allow this client to write"), "{error}");
    assert!(read(&bench.config, &bench.config.publish.versions_topic).is_empty(), "no marker");

    let again = publisher.publish(&bench.checkpoint, &|| false).expect("no trouble any more");
    assert_eq!(again.map(|again| again.vectors), Some(ITEMS as u64));
}
