//! Does what `init` proposes for the logs of known tools train, and does it learn from them?

use std::path::Path;
use std::process::Command;

use millrace_events::SplitMix;
use serde_json::{Value, json as value};

use crate::support::{Bench, Running, create_topic, inspect, json};

/// What a user does at one time: items, or none of ours.
struct Visit {
    at_ms: i64,
    user: u64,
    items: Vec<u64>,
    bought: bool,
}

const USERS: u64 = 80;
const ITEMS: u64 = 96;
/// A user likes the items whose number leaves what the user's leaves: 12 of them.
const TASTES: u64 = 8;

/// A shop whose users keep to their taste 19 times of 20. One visit in eight has no item.
fn visits(count: i64) -> Vec<Visit> {
    let mut random = SplitMix::new(17);
    let mut below = move |bound: u64| random.next_u64() % bound;
    let visit = |n: i64| {
        let user = below(USERS);
        let looked_at = if below(8) == 0 { 0 } else { 1 + below(3) };
        let item = |_| {
            let taste = if below(20) == 0 { below(TASTES) } else { user % TASTES };
            // The smaller of two: items of low numbers are more popular.
            taste + TASTES * below(ITEMS / TASTES).min(below(ITEMS / TASTES))
        };
        let items = (0..looked_at).map(item).collect();
        let at_ms = 1_700_000_000_000 + n * 1_000;
        Visit { at_ms, user, items, bought: below(4) == 0 }
    };
    (0..count).map(visit).collect()
}

impl Visit {
    /// A record for each item, or `empty` where there is none.
    fn each(&self, of_item: impl Fn(u64) -> Value, empty: Value) -> Vec<Value> {
        if self.items.is_empty() {
            vec![empty]
        } else {
            self.items.iter().copied().map(of_item).collect()
        }
    }

    fn time(&self, form: &str) -> String {
        let time = jiff::Timestamp::from_millisecond(self.at_ms).expect("a time");
        time.strftime(form).to_string()
    }
}

/// GA4's export: one record a visit, its items in an array; a page without items is one, too.
fn ga4(visit: &Visit) -> Vec<Value> {
    let name = match (&visit.items[..], visit.bought) {
        ([], _) => "page_view",
        (_, false) => "view_item",
        (_, true) => "purchase",
    };
    let items: Vec<Value> = visit
        .items
        .iter()
        .map(
            |item| value!({"item_id": format!("SKU{item}"), "price": 3 + item % 11, "quantity": 1}),
        )
        .collect();
    vec![value!({
        "event_date": visit.time("%Y%m%d"), "event_timestamp": visit.at_ms * 1_000,
        "event_name": name, "user_pseudo_id": format!("10{}.17", visit.user), "items": items,
        "event_params": [{"key": "ga_session_id", "value": {"int_value": visit.at_ms / 9_999}}],
    })]
}

/// Segment's calls: `track` for each item, `identify` where there is none.
fn segment(visit: &Visit) -> Vec<Value> {
    let (user, time) = (format!("u{}", visit.user), visit.time("%Y-%m-%dT%H:%M:%S.%3fZ"));
    let event = if visit.bought { "Product Added" } else { "Product Clicked" };
    let track = |item| {
        value!({
            "type": "track", "event": event, "messageId": format!("m{}-{item}", visit.at_ms),
            "userId": user, "timestamp": time,
            "properties": {"product_id": format!("p{item}"), "price": format!("{}.50", item % 11)},
        })
    };
    let identify = value!({
        "type": "identify", "messageId": format!("m{}", visit.at_ms), "userId": user,
        "timestamp": time, "traits": {"plan": "free"},
    });
    visit.each(track, identify)
}

/// Segment's calls of a shop: an order has its products in an array, a viewed product lies beside.
fn segment_orders(visit: &Visit) -> Vec<Value> {
    let (user, time) = (format!("u{}", visit.user), visit.time("%Y-%m-%dT%H:%M:%S.%3fZ"));
    let product = |item: u64| value!({"product_id": format!("p{item}"), "price": 3 + item % 11});
    let call = |event: &str, properties: Value| {
        value!({
            "type": "track", "event": event, "userId": user, "timestamp": time,
            "messageId": format!("m{}-{properties}", visit.at_ms), "properties": properties,
        })
    };
    if visit.bought {
        let products: Vec<Value> = visit.items.iter().copied().map(product).collect();
        let order = value!({"order_id": format!("o{}", visit.at_ms), "products": products});
        return vec![call("Order Completed", order)];
    }
    visit.each(|item| call("Product Viewed", product(item)), call("Page Loaded", value!({})))
}

/// Debezium's changes of a table of orders: a row that went where the visit has no item.
fn debezium(visit: &Visit) -> Vec<Value> {
    let at = visit.at_ms;
    let row = |item| value!({"id": at, "user_id": visit.user, "item_id": item, "created_at": at});
    let change = |before: Value, after: Value, op| {
        value!({
            "before": before, "after": after, "source": {"table": "orders", "ts_ms": visit.at_ms},
            "op": op, "ts_ms": visit.at_ms + 40,
        })
    };
    visit.each(|item| change(Value::Null, row(item), "c"), change(row(1), Value::Null, "d"))
}

/// Snowplow's enriched events: what a page shows lies in a context; a ping shows nothing.
fn snowplow(visit: &Visit) -> Vec<Value> {
    let country = ["DE", "FR", "IT"][(visit.user % 3) as usize];
    let event = |name: &str, products: Value| {
        value!({
            "app_id": "shop", "platform": "web", "event_id": format!("e{}-{products}", visit.at_ms),
            "event_name": name, "derived_tstamp": visit.time("%Y-%m-%d %H:%M:%S.%3f"),
            "domain_userid": format!("d{}", visit.user),
            "geo_country": country,
            "contexts_com_acme_product_1": products,
        })
    };
    let name = if visit.bought { "add_to_cart" } else { "view_item" };
    let shown = |item| event(name, value!([{"sku": format!("s{item}"), "price": 3 + item % 11}]));
    visit.each(shown, event("page_ping", value!([])))
}

/// A bench with the four topics that `init` names after that of the log.
pub(crate) fn bench() -> Bench {
    let bench = Bench::new("demo.toml", 2);
    create_topic(&format!("{}-vectors", bench.topic), 1, None);
    bench
}

/// `millrace COMMAND` as somebody calls it who stands in the bench's directory.
pub(crate) fn millrace(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.current_dir(bench.directory.path()).args(arguments);
    command
}

/// What a command printed.
pub(crate) fn said(mut command: Command) -> String {
    let output = command.output().expect("millrace can be run");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{log}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// `init`, `check`, `produce` and `check --connect` of the file, with these edits of the proposal
/// beside those of where the log is. The config is `my.toml` then.
fn proposed(bench: &Bench, tool: &str, file: &Path, edits: &[&str]) {
    let file = file.to_str().expect("a path in UTF-8");
    let own = [
        format!("kafka.brokers={}", crate::support::brokers()),
        format!("kafka.topic={}", bench.topic),
    ];
    let edits: Vec<&str> = own.iter().map(String::as_str).chain(edits.iter().copied()).collect();
    println!("{tool}: {} edits: {}", edits.len(), edits.join(", "));
    assert!(edits.len() <= 3, "{edits:?}");
    let mut init = millrace(bench, &["init", file]);
    edits.iter().for_each(|edit| {
        init.args(["--set", edit]);
    });
    let text = said(init);
    std::fs::write(bench.directory.path().join("my.toml"), &text).expect("written");
    said(millrace(bench, &["check", "--config", "my.toml"]));
    said(millrace(bench, &["produce", "--config", "my.toml", file]));
    said(millrace(bench, &["check", "--config", "my.toml", "--connect", "--sample", "100"]));
}

fn replay(bench: &Bench, more: &[&str]) -> Command {
    millrace(bench, &[&["replay", "--config", "my.toml"], more].concat())
}

/// Records trained, skipped and rejected.
fn counts(result: &Value) -> [u64; 3] {
    ["trained", "skipped", "rejected"].map(|key| result[key].as_u64().expect("a count"))
}

/// A replay that is killed after a third of its steps ends in the digest of one that was not.
/// Twenty passes: one is over before anybody could kill it.
fn survives_a_kill(bench: &Bench) {
    let run = |directory: &str| {
        let directory = format!("checkpoint.directory={directory}");
        let sets = ["--set", &directory, "--set", "checkpoint.every_steps=20"];
        replay(bench, &[&["--passes", "20"], &sets[..]].concat())
    };
    let whole = json(&mut run("whole"));
    let steps = whole["step"].as_u64().expect("a step");
    let directory = bench.checkpoints("killed");
    let at = Running::start(&mut run("killed")).kill_past(&directory, steps / 3);
    assert!(at < steps, "it was over before it was killed");
    println!("  killed after the checkpoint of step {at} of {steps}");
    let resumed = json(&mut run("killed"));
    assert!(resumed["began_at_step"].as_u64() >= Some(at), "{resumed}");
    assert_eq!(resumed["digest"], whole["digest"]);
}

/// A planted log in the shape that a tool gives it: counted right, learned from, and repeated to
/// the bit by a run that was killed.
fn learns(tool: &str, records: fn(&Visit) -> Vec<Value>) {
    let bench = bench();
    let visits = visits(2_500);
    let events: usize = visits.iter().map(|visit| visit.items.len()).sum();
    let passed_over = visits.iter().filter(|visit| visit.items.is_empty()).count();
    let file = bench.directory.path().join(format!("{tool}.jsonl"));
    let lines: Vec<String> =
        visits.iter().flat_map(records).map(|record| record.to_string()).collect();
    std::fs::write(&file, lines.join("\n")).expect("written");
    // What `evaluate` advises for a log of this length.
    proposed(&bench, tool, &file, &["batch.size=64"]);

    let whole = json(&mut replay(&bench, &[]));
    assert_eq!(counts(&whole), [events as u64, passed_over as u64, 0], "{whole}");
    let manifest = inspect(&bench.checkpoints("checkpoints"));
    assert_eq!(
        (&manifest["events_trained"], &manifest["digest"]),
        (&value!(events), &whole["digest"])
    );
    survives_a_kill(&bench);

    let quality = json(&mut millrace(&bench, &["evaluate", "--config", "my.toml"]));
    let recall = |of: &Value| of["10"]["value"].as_f64().or(of["10"].as_f64()).expect("a recall");
    let (model, popularity) = (recall(&quality["recall"]), recall(&quality["popularity"]));
    println!("  recall@10 {model:.3}, popularity {popularity:.3}, {} events", events);
    assert!(model > 2.0 * popularity, "the planted tastes were not learned: {quality}");
}

#[test]
fn a_planted_export_of_baskets_is_learned_from_its_proposal() {
    learns("ga4", ga4);
}

#[test]
fn a_planted_log_of_track_calls_is_learned_from_its_proposal() {
    learns("segment", segment);
}

#[test]
fn a_planted_log_of_views_and_orders_is_learned_from_its_proposal() {
    learns("segment-orders", segment_orders);
}

#[test]
fn a_planted_change_stream_is_learned_from_its_proposal() {
    learns("debezium", debezium);
}

#[test]
fn a_planted_log_of_a_collector_is_learned_from_its_proposal() {
    learns("snowplow", snowplow);
}

/// The files of tests/cases hold no structure; all that is theirs to show is that they train.
#[test]
fn files_of_200_records_train_from_their_proposals() {
    for (file, expected) in [
        ("ga4-export.jsonl", [208, 91, 0]),
        ("segment-track.jsonl", [200, 0, 0]),
        ("debezium-cdc.jsonl", [184, 16, 0]),
        ("snowplow-events.jsonl", [200, 100, 0]),
    ] {
        let bench = bench();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(file);
        proposed(&bench, file, &path, &[]);
        let result = json(&mut replay(&bench, &[]));
        assert_eq!(counts(&result), expected, "{result}");
        let manifest = inspect(&bench.checkpoints("checkpoints"));
        assert_eq!(manifest["events_trained"], expected[0]);
    }
}
