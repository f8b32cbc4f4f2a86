//! Against librdkafka's in-process mock broker.

use std::collections::BTreeMap;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::checkpoint::{Facts, Store};
use crate::stream::decode::Mapping;
use crate::stream::events_of;
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
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let text = include_str!("../../config/demo.toml");
        let mut config = Config::from_toml(text).expect("the demo's config is right");
        config.kafka.brokers = cluster.bootstrap_servers();
        for (topic, partitions) in
            [(&config.publish.topic, PARTITIONS), (&config.publish.versions_topic, 1)]
        {
            cluster.create_topic(topic, partitions, 1).expect("a topic");
        }
        let placement = Placement::Cpu;
        let mut trainer = Trainer::new(&config.train(), &placement, Offsets::new("demo"));
        let mut mapping = Mapping::new(&config);
        let mut events = events_of(&config);
        for item in 0..items {
            let line = format!(
                "{{\"user\":\"u\",\"item\":\"item {item}\",\"category\":\"c\",\"time_ms\":1}}"
            );
            mapping.decode(Some(line.as_bytes()), None, &mut events).expect("a good event");
        }
        trainer.step(&Batch::new(events, Offsets::new("demo")));
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path(), 1).expect("the directory is ours");
        let sections = trainer.capture().into_sections();
        let written = store.write(facts(&config, &trainer), sections, 1);
        let checkpoint = written.expect("the disk has room");
        Bench { cluster, config, checkpoint, placement, _directory: directory }
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
        witness: Witness::default(),
        step: trainer.progress().step,
        offsets: trainer.progress().offsets.clone(),
        pass: 1,
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
    let markers = read(&bench.config, &bench.config.publish.versions_topic);
    let [marker] = markers.as_slice() else { panic!("{} markers", markers.len()) };
    let marker: VersionMarker =
        serde_json::from_slice(marker.payload().expect("a value")).expect("JSON");
    assert_eq!((marker.version, marker.vectors), (published.version, ITEMS as u64));
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
