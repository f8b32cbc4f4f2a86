//! Against librdkafka's in-process mock broker. What it does not have (transactions' markers,
//! time lookups, real storage) is tested on a real broker in `tests/`.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::*;
use crate::config::{Order, Tombstone};
use crate::stream::position::Position;
use crate::stream::topic::Watermarks;

/// Longer than anything takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mock cluster with topic `clicks`, and a config that points there.
pub(crate) struct Broker {
    pub(crate) cluster: MockCluster<'static, DefaultProducerContext>,
    pub(crate) config: Config,
    producer: BaseProducer,
}

impl Broker {
    pub(crate) fn new(partitions: i32) -> Broker {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        for (topic, partitions) in [("clicks", partitions), ("dead", 1)] {
            cluster.create_topic(topic, partitions, 1).expect("a topic");
        }
        let mut config: Config = toml::from_str(
            "query.id = \"u\"\nitem.id = \"i\"\n\
             query.features = [{name = \"u\", field = \"u\", kind = \"id\", table = \"u\"}]\n\
             item.features = [{name = \"i\", field = \"i\", kind = \"id\", table = \"i\"}]\n\
             timestamp.field = \"t\"\n\
             [kafka]\ntopic = \"clicks\"\ndead_letter_topic = \"dead\"\n\
             rejected_share_max = 1.0",
        )
        .expect("a config");
        config.kafka.brokers = cluster.bootstrap_servers();
        config.batch.size = 10;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &config.kafka.brokers)
            .set("message.max.bytes", "10000000")
            .create()
            .expect("a producer");
        Broker { cluster, config, producer }
    }

    pub(crate) fn send(&self, partition: i32, payload: Option<&[u8]>) {
        self.send_to("clicks", partition, payload);
    }

    fn send_to(&self, topic: &str, partition: i32, payload: Option<&[u8]>) {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).key(b"k");
        record.payload = payload;
        self.producer.send(record).map_err(|(error, _)| error).expect("queued");
    }

    fn event(&self, partition: i32, time: i64, item: i64) {
        let text = format!("{{\"u\":{partition},\"i\":{item},\"t\":{time}}}");
        self.send(partition, Some(text.as_bytes()));
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(PATIENCE).expect("delivered");
    }

    fn offsets(&self, position: Position) -> Offsets {
        Log::of(&self.config).expect("a consumer").resolve(position).expect("resolved")
    }

    fn all(&self) -> Range {
        let to = Some(self.offsets(Position::Latest));
        Range { from: self.offsets(Position::Earliest), to }
    }

    fn open(&self, range: Range) -> Source {
        Source::open(&self.config, range, 1, Cut::Full, &Arc::default()).expect("opened")
    }

    /// Everything on `topic`.
    pub(crate) fn read(&self, topic: &str) -> Vec<OwnedMessage> {
        read(&self.config, topic)
    }
}

/// Partitions and how far they are behind.
fn lag(source: &Source) -> Vec<(i32, i64)> {
    source.lag().iter().map(|lag| (lag.partition, lag.records)).collect()
}

/// Everything on `topic`, partition by partition as it comes.
pub(crate) fn read(config: &Config, topic: &str) -> Vec<OwnedMessage> {
    let topic = Topic::named(topic, config).expect("a consumer");
    let there = topic.partitions().expect("the topic");
    let mut list = TopicPartitionList::new();
    for &partition in &there {
        list.add_partition_offset(&topic.name, partition, Offset::Beginning).expect("an offset");
    }
    topic.consumer.assign(&list).expect("assigned");
    let (mut messages, mut ended) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while ended < there.len() {
        assert!(Instant::now() < deadline, "{topic:?} does not end");
        match topic.consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => messages.push(message.detach()),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            _ => {}
        }
    }
    messages
}

pub(crate) fn header(message: &OwnedMessage, key: &str) -> Option<String> {
    let headers: &OwnedHeaders = message.headers()?;
    let found: Option<Header<'_, &[u8]>> = headers.iter().find(|header| header.key == key);
    found.map(|header| String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
}

fn until_end(source: &mut Source) -> Vec<Batch> {
    let mut batches = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the range does not end");
        match source.next(Duration::from_millis(100)).expect("no trouble") {
            Next::Batch(batch) => batches.push(batch),
            Next::Idle => {}
            Next::End => return batches,
        }
    }
}

fn next_batch(source: &mut Source) -> Batch {
    match source.next(PATIENCE).expect("no trouble") {
        Next::Batch(batch) => batch,
        other => panic!("{other:?}"),
    }
}

fn items(batches: &[Batch]) -> Vec<&str> {
    batches.iter().flat_map(|batch| batch.events.item_names.iter()).collect()
}

fn error_of(source: &mut Source) -> String {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match source.next(Duration::from_millis(100)) {
            Err(error) => return format!("{error:#}"),
            Ok(Next::End) => panic!("ended without an error"),
            Ok(_) => {}
        }
    }
    panic!("no error")
}

/// 3 x 1000 events whose times interleave; item ids are the order of time.
fn interleaved(broker: &Broker) {
    for item in 0..3000 {
        broker.event((item % 3) as i32, 1000 + item, item);
    }
    broker.flush();
}

#[test]
fn a_bounded_range_is_merged_by_time_whatever_the_buffers() {
    let mut broker = Broker::new(3);
    interleaved(&broker);
    // Past the range: must not be seen.
    let range = broker.all();
    broker.event(0, 0, 9999);
    broker.flush();
    let expected: Vec<String> = (0..3000).map(|item| item.to_string()).collect();
    let mut whole = None;
    for buffer in [65_536, 1] {
        broker.config.kafka.buffer_events = buffer;
        let mut source = broker.open(range.clone());
        let batches = until_end(&mut source);
        assert_eq!(items(&batches), expected, "buffer of {buffer}");
        assert_eq!(batches.len(), 300);
        assert_eq!(batches.last().map(|batch| &batch.offsets), range.to.as_ref());
        let digest = format!("{batches:?}");
        assert_eq!(whole.get_or_insert_with(|| digest.clone()), &digest);
        assert!(matches!(source.next(Duration::ZERO), Ok(Next::End)), "the end is for good");
    }
}

#[test]
fn a_partition_far_ahead_waits_and_loses_nothing() {
    let mut broker = Broker::new(2);
    broker.config.kafka.buffer_events = 1;
    for item in 0..20_000 {
        broker.event(i32::from(item < 10_000), item, item);
    }
    broker.flush();
    let mut source = broker.open(broker.all());
    let (mut batches, mut most) = (Vec::new(), 0);
    loop {
        match source.next(PATIENCE).expect("no trouble") {
            Next::Batch(batch) => batches.push(batch),
            Next::Idle => panic!("idle in a bounded range"),
            Next::End => break,
        }
        most = most.max(source.intake.merge.buffered_total());
    }
    let expected: Vec<String> = (0..20_000).map(|item| item.to_string()).collect();
    assert_eq!(items(&batches), expected);
    assert!(most > lanes::PART / 2 && most < 3 * lanes::PART, "{most} buffered");
}

#[test]
fn a_record_a_day_ahead_does_not_hold_its_partition_back() {
    let broker = Broker::new(2);
    for item in 0..4000 {
        let ahead = if item == 4 { 86_400_000 } else { 0 };
        broker.event((item % 2) as i32, 1000 + item + ahead, item);
    }
    broker.flush();
    let from = broker.offsets(Position::Earliest);
    let mut source = broker.open(Range { from, to: None });
    let batches = [next_batch(&mut source), next_batch(&mut source)];
    // The record goes with the third one behind it, in its partition's order.
    let expected = ["0", "1", "2", "3", "5", "7", "9", "4", "6", "8", "10", "11", "12", "13"];
    assert_eq!(items(&batches)[..14], expected);
    assert_eq!(batches[1].offsets.next(0), Some(10), "its offset moves on");
}

#[test]
fn rejected_records_behind_a_head_do_not_fill_its_buffer_for_good() {
    let mut broker = Broker::new(2);
    broker.config.kafka.dead_letter_topic = String::new();
    broker.config.kafka.buffer_events = 1;
    broker.event(0, 1, 1);
    (0..1000).for_each(|_| broker.send(0, Some(b"x")));
    (0..1000).for_each(|item| broker.event(1, 2, item));
    broker.flush();
    let batches = until_end(&mut broker.open(broker.all()));
    assert_eq!(batches.iter().map(|batch| batch.rejected).sum::<u64>(), 1000);
    assert_eq!(items(&batches).len(), 1001);
}

#[test]
fn a_caught_up_partition_needs_no_word_from_the_broker() {
    let mut broker = Broker::new(2);
    broker.config.batch.linger_ms = 1;
    // A fetch that finds nothing is answered late, and with it the partition's end.
    let wait = "fetch.wait.max.ms".to_owned();
    broker.config.kafka.properties.insert(wait, "4000".to_owned());
    (0..2).for_each(|partition| broker.event(partition, 1, 1));
    broker.flush();
    let from = broker.offsets(Position::Earliest);
    let sent = Instant::now();
    let mut source = broker.open(Range { from, to: None });
    let first = next_batch(&mut source).len();
    assert!(first == 2 || next_batch(&mut source).len() == 1);
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
}

#[test]
fn reading_on_from_a_batch_gives_the_batches_that_followed() {
    let broker = Broker::new(3);
    interleaved(&broker);
    let batches = until_end(&mut broker.open(broker.all()));
    for stop in [0, 150, 298, 299] {
        let from = batches[stop].offsets.clone();
        let rest = until_end(&mut broker.open(Range { from, ..broker.all() }));
        assert_eq!(format!("{rest:?}"), format!("{:?}", &batches[stop + 1..]));
    }
}

#[test]
fn reading_on_from_a_window_gives_the_windows_that_followed() {
    let mut broker = Broker::new(3);
    broker.config.batch.shuffle_events = 40;
    interleaved(&broker);
    let batches = until_end(&mut broker.open(broker.all()));
    assert!(batches.iter().zip(1..).all(|(batch, n)| batch.whole == (n % 4 == 0)));
    for stop in [3, 151, 299] {
        let from = batches[stop].offsets.clone();
        let rest = until_end(&mut broker.open(Range { from, ..broker.all() }));
        assert_eq!(format!("{rest:?}"), format!("{:?}", &batches[stop + 1..]));
    }
    let mut seen: Vec<i64> =
        items(&batches).iter().map(|name| name.parse().expect("an item's number")).collect();
    assert!(!seen[..40].is_sorted());
    for window in seen.chunks_mut(40) {
        window.sort_unstable();
    }
    assert_eq!(seen, (0..3000).collect::<Vec<_>>(), "nothing leaves its window");
}

#[test]
fn reading_on_from_a_cut_gives_the_cuts_that_followed() {
    let broker = Broker::new(3);
    interleaved(&broker);
    let cut =
        |range, cut| Source::open(&broker.config, range, 1, cut, &Arc::default()).expect("opened");
    for (way, batches) in [(Cut::Every(4), 750), (Cut::Random(5), 0)] {
        let all = until_end(&mut cut(broker.all(), way));
        assert!(batches == 0 || all.len() == batches, "{way}: {} batches", all.len());
        assert!(all.len() > 300, "{way}: smaller batches than full ones");
        for stop in [0, 150, all.len() - 2] {
            let from = all[stop].offsets.clone();
            let rest = until_end(&mut cut(Range { from, ..broker.all() }, way));
            assert_eq!(format!("{rest:?}"), format!("{:?}", &all[stop + 1..]));
        }
    }
}

#[test]
fn a_window_larger_than_a_round_is_dealt_out_to_its_end() {
    let mut broker = Broker::new(3);
    broker.config.batch.shuffle_events = 3000;
    interleaved(&broker);
    let batches = until_end(&mut broker.open(broker.all()));
    assert_eq!(batches.len(), 300);
    assert!(batches.iter().zip(1..).all(|(batch, n)| batch.whole == (n == 300)));
}

#[test]
fn a_window_that_lingers_is_dealt_out_as_it_is() {
    let mut broker = Broker::new(1);
    broker.config.batch.shuffle_events = 1000;
    broker.config.batch.linger_ms = 50;
    let from = broker.offsets(Position::Earliest);
    let mut source = broker.open(Range { from, to: None });
    (0..25).for_each(|item| broker.event(0, item, item));
    broker.flush();
    let mut dealt = 0;
    while dealt < 25 {
        let batch = next_batch(&mut source);
        dealt += batch.len();
        let next = batch.offsets.next(0);
        assert!(batch.whole || next < Some(25), "{batch:?}");
    }
}

#[test]
fn rejected_records_are_on_the_dead_letter_topic_before_their_offsets_are_handed_out() {
    let broker = Broker::new(2);
    let large = vec![b'x'; 2_000_000];
    let bad: [(Option<&[u8]>, &str); 7] = [
        (None, "tombstone"),
        (Some(b""), "empty"),
        (Some(b"{\"u\":\"\xff\"}"), "invalid_utf8"),
        (Some(b"not json"), "not_json"),
        (Some(b"{\"u\":1}"), "missing_field"),
        (Some(&large), "too_large"),
        (Some(b"{\"u\":1,\"i\":1,\"t\":9000000000000}"), "future"),
    ];
    for (index, (payload, _)) in bad.iter().enumerate() {
        broker.event(1, index as i64, index as i64);
        broker.send(1, *payload);
    }
    broker.flush();
    let mut source = broker.open(broker.all());
    let batch = next_batch(&mut source);
    assert_eq!((batch.len(), batch.rejected, batch.offsets.next(1)), (7, 7, Some(14)));
    let letters = broker.read("dead");
    assert_eq!(letters.len(), 7);
    for (index, (letter, (payload, reason))) in letters.iter().zip(bad).enumerate() {
        assert_eq!(letter.payload(), payload, "{reason}");
        assert_eq!(letter.key(), Some(&b"k"[..]));
        assert_eq!(header(letter, "reason").as_deref(), Some(reason));
        assert_eq!(header(letter, "topic").as_deref(), Some("clicks"));
        assert_eq!(header(letter, "partition").as_deref(), Some("1"));
        assert_eq!(header(letter, "offset"), Some((2 * index + 1).to_string()));
        assert!(header(letter, "error").is_some_and(|text| !text.is_empty()));
        assert_eq!(source.rejected_by_reason()[reason], 1);
    }
    assert!(matches!(source.next(PATIENCE), Ok(Next::End)));
}

#[test]
fn a_range_of_rejected_records_ends_with_an_empty_batch_that_moves_the_offsets() {
    let mut broker = Broker::new(1);
    broker.config.kafka.dead_letter_topic = String::new();
    broker.send(0, Some(b"x"));
    broker.flush();
    let batches = until_end(&mut broker.open(broker.all()));
    let [batch] = batches.as_slice() else { panic!("{batches:?}") };
    assert_eq!((batch.len(), batch.rejected, batch.offsets.next(0)), (0, 1, Some(1)));
}

/// The topic itself grows on a real broker only; here the source is told of the rest of it.
#[test]
fn partitions_that_are_there_and_not_read_are_found_and_begin_at_their_beginning() {
    let mut broker = Broker::new(3);
    broker.config.kafka.discover_s = 1;
    for item in 0..30 {
        broker.event((item % 3) as i32, item, item);
    }
    broker.flush();
    let mut from = Offsets::new("clicks");
    from.advance(0, 0);
    let mut source = broker.open(Range { from, to: None });
    let batch = next_batch(&mut source);
    assert_eq!((batch.len(), batch.offsets.next(0)), (10, Some(10)));
    let deadline = Instant::now() + PATIENCE;
    let grown = loop {
        assert!(Instant::now() < deadline, "nobody looked");
        match source.grown() {
            Some(grown) => break grown,
            None => drop(source.next(Duration::from_millis(50)).expect("no trouble")),
        }
    };
    let next: Vec<_> = grown.iter().collect();
    assert_eq!(next, [(0, 10), (1, 0), (2, 0)]);
    let mut source = broker.open(Range { from: grown, to: None });
    assert_eq!(next_batch(&mut source).len() + next_batch(&mut source).len(), 20);
}

#[test]
fn partitions_without_a_leader_are_told_from_those_with_one() {
    let broker = Broker::new(3);
    broker.event(0, 1, 1);
    broker.flush();
    broker.cluster.partition_leader("clicks", 1, None).expect("a mock partition");
    let log = Log::of(&broker.config).expect("a consumer");
    let (bounds, silent) = log.bounds_known().expect("an answer");
    assert_eq!((bounds, silent), (Watermarks::from([(0, (0, 1)), (2, (0, 0))]), vec![1]));
}

#[test]
fn tombstones_are_passed_over_where_they_only_remove_a_key() {
    let mut broker = Broker::new(1);
    broker.config.kafka.tombstone = Tombstone::Skip;
    broker.config.kafka.rejected_share_max = 0.0;
    for item in 0..5 {
        broker.event(0, item, item);
        broker.send(0, None);
    }
    broker.flush();
    let mut source = broker.open(broker.all());
    let batches = until_end(&mut source);
    let [batch] = batches.as_slice() else { panic!("{batches:?}") };
    assert_eq!((batch.len(), batch.rejected, source.skipped()), (5, 0, 5));
    assert!(broker.read("dead").is_empty());
}

#[test]
fn an_empty_range_ends_at_once() {
    let broker = Broker::new(2);
    broker.event(0, 1, 1);
    broker.flush();
    let end = broker.offsets(Position::Latest);
    let range = Range { from: end.clone(), to: Some(end) };
    assert!(matches!(broker.open(range).next(Duration::ZERO), Ok(Next::End)));
}

#[test]
fn a_live_stream_lingers_idles_and_goes_on() {
    let mut broker = Broker::new(2);
    broker.config.batch.linger_ms = 200;
    for item in 0..12 {
        broker.event(0, item, item);
    }
    broker.flush();
    let from = broker.offsets(Position::Earliest);
    let mut source = broker.open(Range { from, to: None });
    // Partition 1 is empty: it must say so before anything moves.
    assert_eq!(next_batch(&mut source).len(), 10);
    let waited = Instant::now();
    assert_eq!(next_batch(&mut source).len(), 2, "after the linger");
    assert!(waited.elapsed() >= Duration::from_millis(100), "{:?}", waited.elapsed());
    assert!(matches!(source.next(Duration::from_millis(300)), Ok(Next::Idle)));
    assert_eq!(lag(&source), [(0, 0), (1, 0)]);
    for item in 12..22 {
        broker.event(1, item, item);
    }
    broker.flush();
    let batch = next_batch(&mut source);
    assert_eq!(batch.events.item_names.iter().next(), Some("12"));
    assert_eq!((batch.offsets.next(0), batch.offsets.next(1)), (Some(12), Some(10)));
    source.commit(&batch.offsets, "5eed0001-000000000001");
}

#[test]
fn a_lingering_batch_waits_for_enough_events() {
    let mut broker = Broker::new(1);
    broker.config.batch.linger_ms = 20;
    broker.config.batch.min_events = 5;
    broker.config.batch.min_events_wait_ms = 3_600_000;
    let from = broker.offsets(Position::Earliest);
    let mut source = broker.open(Range { from, to: None });
    (0..2).for_each(|item| broker.event(0, item, item));
    broker.flush();
    let deadline = Instant::now() + PATIENCE;
    while source.intake.batcher.len() < 2 {
        assert!(Instant::now() < deadline, "the events do not come");
        assert!(matches!(source.next(Duration::from_millis(50)), Ok(Next::Idle)));
    }
    assert!(matches!(source.next(Duration::from_millis(300)), Ok(Next::Idle)), "2 are not enough");
    (2..5).for_each(|item| broker.event(0, item, item));
    broker.flush();
    assert_eq!(next_batch(&mut source).len(), 5);
}

#[test]
fn the_wait_for_enough_events_has_an_end() {
    let mut broker = Broker::new(1);
    broker.config.batch.linger_ms = 20;
    broker.config.batch.min_events = 5;
    broker.config.batch.min_events_wait_ms = 500;
    let from = broker.offsets(Position::Earliest);
    let mut source = broker.open(Range { from, to: None });
    let sent = Instant::now();
    (0..2).for_each(|item| broker.event(0, item, item));
    broker.flush();
    assert_eq!(next_batch(&mut source).len(), 2);
    assert!(sent.elapsed() >= Duration::from_millis(500), "{:?}", sent.elapsed());
}

#[test]
fn rejected_records_alone_do_not_wait_for_events() {
    let mut broker = Broker::new(1);
    broker.config.kafka.dead_letter_topic = String::new();
    broker.config.batch.linger_ms = 20;
    broker.config.batch.min_events = 5;
    broker.config.batch.min_events_wait_ms = 3_600_000;
    let from = broker.offsets(Position::Earliest);
    let mut source = broker.open(Range { from, to: None });
    broker.send(0, Some(b"x"));
    broker.flush();
    let batch = next_batch(&mut source);
    assert_eq!((batch.len(), batch.rejected), (0, 1));
}

#[test]
fn arrival_order_reads_everything_once() {
    let mut broker = Broker::new(3);
    broker.config.kafka.order = Order::Arrival;
    interleaved(&broker);
    let batches = until_end(&mut broker.open(broker.all()));
    let mut seen: Vec<i64> =
        items(&batches).iter().map(|name| name.parse().expect("an item's number")).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..3000).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_goes_away_is_waited_for() {
    let broker = Broker::new(1);
    broker.cluster.broker_down(1).expect("down");
    let config = broker.config.clone();
    let from = {
        let mut offsets = Offsets::new("clicks");
        offsets.advance(0, 0);
        offsets
    };
    let opened = std::thread::spawn(move || {
        Source::open(&config, Range { from, to: None }, 1, Cut::Full, &Arc::default())
    });
    std::thread::sleep(Duration::from_millis(1500));
    broker.cluster.broker_up(1).expect("up");
    let mut source = opened.join().expect("no panic").expect("opened once the broker was back");
    (0..10).for_each(|item| broker.event(0, item, item));
    broker.flush();
    assert_eq!(next_batch(&mut source).len(), 10);
    broker.cluster.broker_down(1).expect("down");
    assert!(matches!(source.next(Duration::from_millis(1500)), Ok(Next::Idle)));
    broker.cluster.broker_up(1).expect("up");
    (10..20).for_each(|item| broker.event(0, item, item));
    broker.flush();
    assert_eq!(items(&[next_batch(&mut source)])[0], "10");
}

#[test]
fn a_partition_without_a_leader_holds_the_others_back_for_a_while() {
    let mut broker = Broker::new(2);
    broker.config.kafka.merge_wait_ms = 2000;
    (0..40).for_each(|item| broker.event((item % 2) as i32, 1000 + item, item));
    broker.flush();
    let from = broker.offsets(Position::Earliest);
    let range = broker.all();
    broker.cluster.partition_leader("clicks", 0, None).expect("no leader");
    let mut source = broker.open(Range { from, to: None });
    let opened = Instant::now();
    let batch = next_batch(&mut source);
    assert!(opened.elapsed() >= Duration::from_millis(2000), "{:?}", opened.elapsed());
    assert_eq!((batch.offsets.next(0), batch.offsets.next(1)), (Some(0), Some(10)));
    assert_eq!(items(&[batch])[0], "1");
    let passed = vec![("clicks".to_owned(), 0)];
    assert_eq!((source.take_passed(), source.take_passed()), (passed, vec![]));
    let (again, at_once) = (next_batch(&mut source), Instant::now());
    assert_eq!(again.offsets.next(1), Some(20));
    assert!(at_once.elapsed() < Duration::from_millis(1000));
    assert!(lag(&source).iter().all(|lag| *lag != (0, 0)), "nobody knows that it is at its end");
    let waits = source.waits_for();
    assert!(waits.contains("[0] of `clicks`, which are not heard of"), "{waits}");

    // A replay waits.
    let mut strict = broker.open(range);
    assert!(matches!(strict.next(Duration::from_millis(3000)), Ok(Next::Idle)));

    broker.cluster.partition_leader("clicks", 0, Some(1)).expect("a leader");
    assert_eq!(items(&[next_batch(&mut source)])[0], "0", "its records are read when they come");
    assert!(source.intake.patience.passed().is_empty() && source.take_passed().is_empty());
    assert_eq!(items(&until_end(&mut strict)).len(), 40);
}

#[test]
fn offsets_that_left_the_log_stop_the_run() {
    let broker = Broker::new(1);
    let mut from = Offsets::new("clicks");
    from.advance(0, 1000);
    let error = error_of(&mut broker.open(Range { from, to: None }));
    assert!(error.contains("no longer holds") && error.contains("kafka.on_data_loss"), "{error}");
}

#[test]
fn too_many_rejected_records_stop_the_run() {
    let mut broker = Broker::new(1);
    broker.config.kafka.rejected_share_max = 0.1;
    broker.config.kafka.rejected_window = 100;
    (0..12).for_each(|_| broker.send(0, Some(b"3")));
    broker.flush();
    let error = error_of(&mut broker.open(broker.all()));
    assert!(error.contains("11 of the last 11 records were rejected (11 not_object)"), "{error}");
    assert!(error.contains("clicks/0 offset 10: the record is no JSON object"), "{error}");
}

#[test]
fn a_range_must_fit_the_topic() {
    let broker = Broker::new(1);
    let mut from = Offsets::new("clicks");
    from.advance(1, 0);
    let error =
        Source::open(&broker.config, Range { from, to: None }, 1, Cut::Full, &Arc::default())
            .expect_err("no partition 1");
    assert!(error.to_string().contains("no partition 1"), "{error}");
    let range = Range { from: Offsets::new("other"), to: None };
    assert!(Source::open(&broker.config, range, 1, Cut::Full, &Arc::default()).is_err());
}

#[test]
fn a_missing_topic_is_named_with_what_to_do() {
    let broker = Broker::new(1);
    let missing = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    broker.cluster.topic_error("clicks", missing).expect("set");
    let range = Range { from: Offsets::new("clicks"), to: None };
    let error = Source::open(&broker.config, range, 1, Cut::Full, &Arc::default())
        .expect_err("no topic")
        .to_string();
    assert!(error.contains("topic `clicks` does not exist on 127.0.0.1:"), "{error}");
    assert!(error.contains("--create --topic clicks"), "{error}");
}

#[test]
fn positions_resolve_against_the_log() {
    let broker = Broker::new(2);
    (0..8).for_each(|item| broker.event(0, item, item));
    broker.flush();
    let of = |position| {
        let offsets = broker.offsets(position);
        (offsets.next(0).expect("partition 0"), offsets.next(1).expect("partition 1"))
    };
    assert_eq!(of(Position::Earliest), (0, 0));
    assert_eq!(of(Position::Latest), (8, 0));
    assert_eq!(of(Position::Offset(3)), (3, 0));
    assert_eq!(of(Position::Percent(90.0)), (7, 0));
    let bounds = Log::of(&broker.config).and_then(|log| log.watermarks()).expect("bounds");
    assert_eq!(bounds, Watermarks::from([(0, (0, 8)), (1, (0, 0))]));
}

/// A broker with a second topic of one partition, whose records have other fields.
fn two_topics() -> Broker {
    let mut broker = Broker::new(2);
    broker.cluster.create_topic("orders", 1, 1).expect("a topic");
    let orders = "topic = \"orders\"\nquery = { id = \"who\", features = { u = \"who\" } }\n\
                  item.id = \"sku\"\ntimestamp = { field = \"at\", unit = \"s\" }\n\
                  item.features = { i = \"sku\" }";
    broker.config.interactions = vec![toml::from_str(orders).expect("an entry")];
    broker
}

/// Items and origins of all batches of a range, and where they lead to.
fn read_all(broker: &Broker, range: Range) -> (Vec<String>, Vec<(i32, i64)>, Offsets) {
    let mut source = broker.open(range);
    let (mut items, mut origins, mut offsets) = (Vec::new(), Vec::new(), None);
    loop {
        match source.next(PATIENCE).expect("no trouble") {
            Next::End => return (items, origins, offsets.expect("a batch")),
            Next::Idle => {}
            Next::Batch(batch) => {
                items.extend(batch.events.item_names.iter().map(str::to_owned));
                origins.extend(batch.origins);
                offsets = Some(batch.offsets);
            }
        }
    }
}

#[test]
fn two_topics_are_one_log_each_read_in_its_own_way() {
    let broker = two_topics();
    for (partition, time, item) in [(0, 1_000, 1), (1, 2_000, 2), (0, 4_000, 4), (1, 5_000, 5)] {
        broker.event(partition, time, item);
    }
    for text in [r#"{"who":1,"sku":3,"at":3}"#, "not json", r#"{"who":1,"sku":6,"at":6}"#] {
        broker.send_to("orders", 0, Some(text.as_bytes()));
    }
    broker.flush();
    let (items, origins, offsets) = read_all(&broker, broker.all());
    assert_eq!(items, ["1", "2", "3", "4", "5", "6"], "merged by time");
    let orders = millrace_events::lane(1, 0);
    assert_eq!(origins, [(0, 0), (1, 0), (orders, 0), (0, 1), (1, 1), (orders, 2)]);
    let by_topic: Vec<_> = offsets.by_topic().collect();
    assert_eq!(by_topic, [("clicks", vec![(0, 2), (1, 2)]), ("orders", vec![(0, 3)])]);
    let letters = broker.read("dead");
    let of = |key| header(&letters[0], key);
    assert_eq!((letters.len(), of("topic").as_deref()), (1, Some("orders")));
    assert_eq!((of("partition").as_deref(), of("offset").as_deref()), (Some("0"), Some("1")));
    // From the middle on, as if it had never stopped.
    let mut middle = offsets.unread();
    [(0, 1), (1, 1), (orders, 1)].into_iter().for_each(|(lane, at)| middle.advance(lane, at));
    let rest = Range { from: middle, to: Some(offsets.clone()) };
    let (items, _, reached) = read_all(&broker, rest);
    assert_eq!((&items[..], reached), (&["4", "5", "6"].map(str::to_owned)[..], offsets));
    assert_eq!(broker.read("dead").len(), 1, "the letter is there already");
}

#[test]
fn a_tail_reads_all_topics_of_a_log() {
    let broker = two_topics();
    broker.event(1, 1_000, 1);
    broker.send_to("orders", 0, Some(br#"{"who":1,"sku":3,"at":3}"#));
    broker.flush();
    let from = broker.offsets(Position::Earliest);
    let mut tail = crate::stream::tail::Tail::open(&broker.config, &from, &Witness::default())
        .expect("opened");
    let (mut items, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while items.len() < 2 {
        assert!(Instant::now() < deadline, "only {items:?} came");
        let arrived = tail.next(Duration::from_millis(100)).expect("no trouble");
        let names = arrived.events.item_names.iter().map(str::to_owned);
        items.extend(arrived.origins.iter().map(|(lane, _)| *lane).zip(names));
    }
    items.sort();
    assert_eq!(items, [(1, "1".to_owned()), (millrace_events::lane(1, 0), "3".to_owned())]);
    assert_eq!(*tail.offsets(), broker.offsets(Position::Latest));
}
