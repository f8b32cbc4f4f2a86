//! Logs of known tools, made small, become configs that read them.

use std::path::Path;

use super::*;
use crate::config::TimeUnit;

fn lines(text: &str) -> Vec<Vec<u8>> {
    text.lines().filter(|line| !line.is_empty()).map(|line| line.as_bytes().to_vec()).collect()
}

fn case(file: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(file);
    lines(&std::fs::read_to_string(path).expect("a file of tests/cases"))
}

/// The proposal, as a config that passes its checks.
fn config(lines: &[Vec<u8>], overrides: &[String]) -> (Config, Proposal) {
    let proposal = propose(lines, &Given { overrides, ..Given::default() }).expect("a proposal");
    let config = Config::from_toml(&proposal.text);
    (config.unwrap_or_else(|faults| panic!("{faults}\n{}", proposal.text)), proposal)
}

/// Events that the config reads of the lines, records it passes over, and records it rejects.
fn counts(config: &Config, lines: &[Vec<u8>]) -> (usize, usize, usize) {
    let (mut mapping, mut events) = (Mapping::new(config), events_of(config));
    let (mut skipped, mut rejected) = (0, 0);
    for line in lines {
        match mapping.decode(Some(line), Some(0), &mut events) {
            Ok(count) => skipped += usize::from(count == 0),
            Err(_) => rejected += 1,
        }
    }
    (events.len(), skipped, rejected)
}

#[test]
fn track_calls_are_read_with_what_they_know_of_a_product() {
    let log = case("segment-track.jsonl");
    let (config, proposal) = config(&log, &[]);
    assert_eq!((&*config.query.id, &*config.item.id), ("userId", "properties.product_id"));
    assert_eq!(config.timestamp.field, "timestamp");
    assert_eq!(counts(&config, &log), (200, 0, 0), "{}", proposal.text);
    let said = proposal.understood.join("\n");
    assert!(said.contains("of 200 records 200 are read") && said.contains("is `p5` at 2025-10-26"));
}

#[test]
fn baskets_are_taken_apart_and_their_events_weighed() {
    let log = case("ga4-export.jsonl");
    let (config, proposal) = config(&log, &[]);
    assert_eq!((&*config.query.id, &*config.item.id), ("user_pseudo_id", "items[].item_id"));
    assert_eq!(
        (&*config.timestamp.field, config.timestamp.unit),
        ("event_timestamp", TimeUnit::Microseconds)
    );
    let weights: Vec<f32> = config.event.iter().map(|rule| rule.weight).collect();
    assert_eq!(weights, [1.0, 0.2], "{}", proposal.text);
    assert_eq!(counts(&config, &log), (208, 91, 0));
    assert!(proposal.text.contains("page_view (95 of the sample)"), "{}", proposal.text);
}

#[test]
fn a_change_stream_is_read_by_its_columns() {
    let log = case("debezium-cdc.jsonl");
    let (config, proposal) = config(&log, &[]);
    assert_eq!(config.kafka.format, RecordFormat::Debezium);
    assert_eq!((&*config.query.id, &*config.item.id), ("user_id", "item_id"));
    assert_eq!(config.timestamp.field, "created_at");
    assert_eq!(counts(&config, &log), (184, 16, 0), "{}", proposal.text);
}

/// Snowplow's enriched events: one is a page, what it shows lies in a context.
#[test]
fn a_collectors_log_gives_features_to_the_side_that_they_depend_on() {
    let log = case("snowplow-events.jsonl");
    let (config, proposal) = config(&log, &[]);
    let text = &proposal.text;
    assert_eq!(config.query.id, "domain_userid");
    assert_eq!(config.item.id, "contexts_com_acme_product_1[].sku");
    assert_eq!(config.timestamp.field, "derived_tstamp");
    assert_eq!(counts(&config, &log), (200, 100, 0), "page pings teach nothing\n{text}");
    let fields = |side: &crate::config::SideConfig| -> Vec<String> {
        side.features.iter().map(|feature| feature.field.clone()).collect()
    };
    let category = "contexts_com_acme_product_1[].category".to_owned();
    assert!(fields(&config.item).contains(&category), "{text}");
    assert!(fields(&config.query).contains(&"geo_country".to_owned()), "{text}");
    for unused in
        ["event_id: nearly every record has a value of its own", "platform: always the same"]
    {
        assert!(text.contains(unused), "{text}");
    }
}

#[test]
fn what_is_given_has_the_last_word() {
    let log: Vec<_> = (0..50)
        .map(|n| format!("{{\"who\":{},\"what\":{},\"n\":{n}}}", n % 7, n % 11).into_bytes())
        .collect();
    let error = propose(&log, &Given::default()).expect_err("no name is known").to_string();
    for part in ["--set query.id=FIELD", "who (7 values)", "what (11 values)"] {
        assert!(error.contains(part), "{error}");
    }
    let sets = ["query.id=who", "item.id=what", "batch.size=64", "kafka.topic=visits"];
    let (config, proposal) = config(&log, &sets.map(str::to_owned));
    assert_eq!((config.batch.size, &*config.kafka.topic), (64, "visits"));
    let (kafka, publish) = (&config.kafka, &config.publish);
    let others = [&kafka.dead_letter_topic, &publish.topic, &publish.versions_topic];
    assert_eq!(others, ["visits-dead", "visits-vectors", "visits-versions"], "named after it");
    assert_eq!(counts(&config, &log), (50, 0, 0), "{}", proposal.text);
    assert!(proposal.text.contains("field = \"\""), "Kafka's own time\n{}", proposal.text);
    let error = propose(&lines("not json\n3"), &Given::default()).expect_err("no JSON");
    assert!(error.to_string().contains("none of the 2 records"), "{error}");
}

/// What was a datum is JSON here; its schema's format and the registry stay in the config.
#[test]
fn a_log_by_schemas_keeps_its_format_and_its_registry() {
    let log = case("debezium-cdc.jsonl");
    let overrides = ["registry.url=http://registry:8081".to_owned()];
    let given = Given { overrides: &overrides, format: Some(RecordFormat::Avro), from: None };
    let proposal = propose(&log, &given).expect("a proposal");
    let config = Config::from_toml(&proposal.text).expect("a config");
    assert_eq!(config.kafka.format, RecordFormat::Avro);
    assert_eq!(config.registry.url, "http://registry:8081");
    assert_eq!(proposal.text.matches("[registry]").count(), 1, "{}", proposal.text);
    // The format knows no envelope: it is the rules that pass deletions over.
    assert_eq!((&*config.query.id, &*config.item.id), ("after.user_id", "after.item_id"));
    assert_eq!(counts(&config, &log), (184, 16, 0), "{}", proposal.text);
    assert_eq!(config.kafka.tombstone, crate::config::Tombstone::Skip);
    for other in ["before", "source", "field = \"op\"\nkind"] {
        assert!(!proposal.text.contains(other), "{other}:\n{}", proposal.text);
    }
}

#[test]
fn what_is_no_json_is_shown() {
    let of = |value: &[u8]| {
        let error = propose(&[value.to_vec()], &Given::default()).expect_err("no JSON");
        error.to_string()
    };
    let bare = of(&[14, 0x75, 0x31, 2]);
    assert!(bare.contains("kafka.schema_file=FILE") && bare.contains("0e 75 31 02"), "{bare}");
    assert!(of(b"u1,i7,5").contains("`u1,i7,5`"));
}

/// Segment's calls of a shop: a viewed product lies beside, those of an order in an array.
#[test]
fn items_in_arrays_and_beside_them_are_read_by_one_config() {
    let product =
        |n: usize| format!("\"product_id\": \"p{}\", \"category\": \"c{}\"", n % 17, n % 17 % 4);
    let log: Vec<_> = (0..300)
        .map(|n| {
            let (event, properties) = match n % 6 {
                0 => (
                    "Order Completed",
                    format!(
                        "\"order_id\": \"o{n}\", \"products\": [{{{}}}, {{{}}}]",
                        product(n),
                        product(n + 5)
                    ),
                ),
                5 => ("Cart Viewed", "\"products\": []".to_owned()),
                _ => ("Product Viewed", product(n)),
            };
            format!(
                "{{\"type\": \"track\", \"event\": \"{event}\", \"userId\": \"u{}\", \
                 \"properties\": {{{properties}}}, \"timestamp\": \"2025-10-26T01:21:{:02}Z\"}}",
                n % 13,
                n % 60
            )
            .into_bytes()
        })
        .collect();
    let (config, proposal) = config(&log, &[]);
    assert_eq!(config.item.id, "properties.products[].product_id | properties.product_id");
    assert_eq!(counts(&config, &log), (50 * 2 + 200, 50, 0), "{}", proposal.text);
    let category = config.item.features.iter().find(|feature| feature.name.ends_with("category"));
    let category = category.expect("an item says its category");
    assert_eq!(category.field, "properties.products[].category | properties.category");
    assert_eq!((&*category.name, &*category.table), ("properties.category", "properties_category"));
    let said = proposal.understood.join("\n");
    assert!(said.contains("`properties.products`, or one with `properties.product_id`"), "{said}");
    // Who names one of the places is believed.
    let given = ["item.id=properties.product_id".to_owned()];
    let config = super::Config::from_toml(
        &propose(&log, &Given { overrides: &given, ..Given::default() }).expect("a proposal").text,
    );
    assert_eq!(config.expect("a config").item.id, "properties.product_id");
    let given = ["item.id=properties.products[].product_id | properties.product_id".to_owned()];
    let named =
        propose(&log, &Given { overrides: &given, ..Given::default() }).expect("a proposal");
    assert_eq!(named.text, proposal.text);
}
