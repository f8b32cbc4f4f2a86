mod shapes;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use millrace_events::{Column, FeatureValue};

/// A config with these `[query]`, `[item]` and other lines; never validated, which is on purpose.
fn mapping(toml: &str) -> Mapping {
    Mapping::new(&toml::from_str(toml).expect("a test's config parses"))
}

/// One event, taken out of its columns.
#[derive(Debug, PartialEq)]
struct One {
    time_ms: i64,
    query_id: u64,
    item_id: u64,
    item_name: String,
    reward: f32,
    query: Vec<Column>,
    item: Vec<Column>,
}

/// Decodes into empty columns, which stay empty where that fails.
fn read(
    mapping: &mut Mapping,
    payload: Option<&[u8]>,
    record_time_ms: Option<i64>,
) -> Result<One, DecodeError> {
    let empty = Events::new(mapping.query.features.len(), mapping.item.features.len());
    let mut events = empty.clone();
    let decoded = mapping.decode(payload, record_time_ms, &mut events);
    if decoded.is_err() {
        assert_eq!(events, empty);
    }
    decoded.map(|_| One {
        time_ms: events.times_ms[0],
        query_id: events.query_ids[0],
        item_id: events.item_ids[0],
        item_name: events.item_names.get(0).to_owned(),
        reward: events.rewards[0],
        query: events.query,
        item: events.item,
    })
}

fn decode(mapping: &mut Mapping, record: &serde_json::Value) -> Result<One, DecodeError> {
    read(mapping, Some(record.to_string().as_bytes()), Some(7))
}

/// A column of one event.
fn column(value: &FeatureValue) -> Column {
    let mut column = Column::default();
    column.push(value);
    column
}

fn key(text: &str) -> u64 {
    id_key(text.as_bytes())
}

const IDS: &str = "query.id = \"u\"\nitem.id = \"i\"\n";

fn one_feature(feature: &str) -> Mapping {
    mapping(&format!("{IDS}query.features = [{{ name = \"f\", field = \"f\", {feature} }}]"))
}

/// The value of the one feature `f`.
fn feature(mapping: &mut Mapping, f: serde_json::Value) -> Result<Column, DecodeError> {
    decode(mapping, &json!({"u": 1, "i": 2, "f": f})).map(|event| event.query[0].clone())
}

fn reason(result: Result<impl std::fmt::Debug, DecodeError>) -> &'static str {
    result.expect_err("the record must be rejected").reason()
}

#[test]
fn ids_are_strings_integers_or_booleans() {
    let mut mapping = mapping(IDS);
    let event = decode(&mut mapping, &json!({"u": "858", "i": 858})).expect("good");
    assert_eq!((event.query_id, event.item_id), (key("858"), key("858")));
    assert_eq!((&*event.item_name, event.time_ms, event.reward), ("858", 7, 1.0));
    let large = decode(&mut mapping, &json!({"u": true, "i": u64::MAX})).expect("good");
    assert_eq!((large.query_id, &*large.item_name), (key("true"), "18446744073709551615"));
    let negative = decode(&mut mapping, &json!({"u": -3, "i": "é\n\"x"})).expect("good");
    assert_eq!((negative.query_id, &*negative.item_name), (key("-3"), "é\n\"x"));
    for (u, expected) in [
        (json!(null), "missing_field"),
        (json!(""), "missing_field"),
        (json!(858.0), "wrong_type"),
        (json!([1]), "wrong_type"),
        (json!({"a": 1}), "wrong_type"),
    ] {
        let result = decode(&mut mapping, &json!({"u": u, "i": 1}));
        assert!(result.as_ref().expect_err("bad").to_string().contains("`u`"));
        assert_eq!(reason(result), expected);
    }
    assert_eq!(reason(decode(&mut mapping, &json!({"u": 1}))), "missing_field");
}

#[test]
fn what_is_no_object_is_rejected_by_reason() {
    let mut mapping = mapping(IDS);
    assert_eq!(reason(read(&mut mapping, None, None)), "tombstone");
    let mut reason_of = |bytes: &[u8]| reason(read(&mut mapping, Some(bytes), None));
    assert_eq!(reason_of(b""), "empty");
    assert_eq!(reason_of(b" \n"), "empty");
    assert_eq!(reason_of(b"{\"u\":\"\xff\"}"), "invalid_utf8");
    assert_eq!(reason_of(b"{\"skipped\":\"\xff\"}"), "invalid_utf8");
    assert_eq!(reason_of(b"{\"u\":1,\"i\":2} x"), "not_json");
    assert_eq!(reason_of(b"{\"u\":1,\"i\":"), "not_json");
    assert_eq!(reason_of(b"{\"u\":NaN,\"i\":2}"), "bad_number");
    assert_eq!(reason_of(b"hello"), "not_json");
    for text in ["[1]", "3", "null", "true", "\"x\"", "-1", "1.5"] {
        assert_eq!(reason_of(text.as_bytes()), "not_object", "{text}");
    }
    assert_eq!(reason_of(&vec![b' '; RECORD_BYTES_MAX + 1]), "too_large");
    // Depth is bounded, not by our stack.
    let deep = format!("{{\"u\":{}", "[".repeat(500_000));
    assert_eq!(reason_of(deep.as_bytes()), "not_json");
    assert_eq!(reason(read(&mut mapping, Some(b"{\"u\":1,\"i\":2}"), None)), "missing_field");
}

#[test]
fn dots_reach_into_objects_but_a_literal_key_goes_first() {
    let mut mapping = mapping("query.id = \"user.id\"\nitem.id = \"ctx.item.id\"");
    let nested = json!({"ctx": {"item": {"id": "a"}}, "user": {"id": 5, "name": "n"}});
    assert_eq!(&*decode(&mut mapping, &nested).expect("good").item_name, "a");
    let both = json!({"ctx": {"item": {"id": "a"}}, "ctx.item.id": "b", "user.id": 5});
    assert_eq!(&*decode(&mut mapping, &both).expect("good").item_name, "b");
    let scalar = json!({"ctx": 3, "user": {"id": 5}});
    assert_eq!(reason(decode(&mut mapping, &scalar)), "missing_field");
}

#[test]
fn of_a_key_that_stands_twice_the_last_counts() {
    let mut mapping = mapping("query.id = \"u\"\nitem.id = \"a.b\"");
    let mut decode = |text: &str| read(&mut mapping, Some(text.as_bytes()), Some(0));
    let event = decode(r#"{"u":1,"u":2,"a":{"b":"x"},"a":{"b":"y"}}"#).expect("good");
    assert_eq!((event.query_id, &*event.item_name), (key("2"), "y"));
    assert_eq!(reason(decode(r#"{"u":1,"a":{"b":"x"},"a":{"c":"y"}}"#)), "missing_field");
    assert_eq!(reason(decode(r#"{"u":1,"a":{"b":"x"},"a":null}"#)), "missing_field");
}

#[test]
fn one_field_may_feed_several_features() {
    let mut mapping = mapping(&format!(
        "{IDS}query.features = [{{name=\"a\",field=\"u\",kind=\"id\"}},\
         {{name=\"b\",field=\"x.y\",kind=\"number\"}}]\n\
         item.features = [{{name=\"c\",field=\"x.y\",kind=\"id\"}},\
         {{name=\"d\",field=\"x\",kind=\"id\",optional=true}}]"
    ));
    let event = decode(&mut mapping, &json!({"u": 9, "i": 1, "x": {"y": 4}}));
    assert_eq!(event.expect("good").item[1], column(&FeatureValue::Absent), "x is an object");
    assert_eq!(mapping.take_unread().values, 1);
    let event = decode(&mut mapping, &json!({"u": 9, "i": 1, "x.y": 4})).expect("good");
    assert_eq!(
        event.query,
        [FeatureValue::Id(key("9")), FeatureValue::Number(4.0)].map(|value| column(&value))
    );
    assert_eq!(
        event.item,
        [FeatureValue::Id(key("4")), FeatureValue::Absent].map(|value| column(&value))
    );
}

#[test]
fn bags_are_means_or_weighted_sums() {
    let mut bag = one_feature("kind = \"bag\", length = 3");
    let of = |entries: &[(&str, f32)]| {
        let entries = entries.iter().map(|(text, weight)| (key(text), *weight));
        column(&FeatureValue::Bag(entries.collect()))
    };
    let third = 1.0 / 3.0;
    let kept = of(&[("a", third), ("a", third), ("7", third)]);
    assert_eq!(feature(&mut bag, json!(["a", "a", 7, "cut"])), Ok(kept));
    assert_eq!(feature(&mut bag, json!([null, "", "b"])), Ok(of(&[("b", 1.0)])));
    assert_eq!(feature(&mut bag, json!("one")), Ok(of(&[("one", 1.0)])));
    assert_eq!(feature(&mut bag, json!([])), Ok(of(&[])));
    assert_eq!(reason(feature(&mut bag, json!(null))), "missing_field");
    assert_eq!(reason(feature(&mut bag, json!([1.5]))), "wrong_type");
    assert_eq!(reason(feature(&mut bag, json!([["a"]]))), "wrong_type");

    let mut weighted = one_feature("kind = \"bag\", length = 2, weights = \"w\"");
    let mut of_weights = |f, w| {
        let event = decode(&mut weighted, &json!({"u": 1, "i": 2, "f": f, "w": w}));
        event.map(|event| event.query[0].clone())
    };
    let expected = of(&[("a", 0.5), ("b", -2.0)]);
    assert_eq!(of_weights(json!(["a", "b", "c"]), json!([0.5, -2, 9])), Ok(expected));
    assert_eq!(of_weights(json!([null, "b"]), json!([1, 2])), Ok(of(&[("b", 2.0)])));
    assert_eq!(reason(of_weights(json!(["a", "b"]), json!([1]))), "wrong_length");
    assert_eq!(reason(of_weights(json!(["a"]), json!(["one"]))), "wrong_type");
    assert_eq!(reason(of_weights(json!(["a"]), json!(null))), "missing_field");
}

#[test]
fn a_history_keeps_its_newest_entries() {
    let mut history = one_feature("kind = \"history\", length = 2");
    let newest = column(&FeatureValue::Bag(vec![(key("b"), 0.5), (key("c"), 0.5)]));
    assert_eq!(feature(&mut history, json!(["a", "b", "c"])), Ok(newest));
    let mut kept_by_trainer =
        mapping(&format!("{IDS}query.features = [{{name=\"h\",kind=\"history\",length=5}}]"));
    let event = decode(&mut kept_by_trainer, &json!({"u": 1, "i": 2})).expect("good");
    assert_eq!(event.query, [column(&FeatureValue::Absent)]);
}

#[test]
fn numbers_and_vectors_are_finite() {
    let mut number = one_feature("kind = \"number\"");
    assert_eq!(feature(&mut number, json!(-2)), Ok(column(&FeatureValue::Number(-2.0))));
    assert_eq!(feature(&mut number, json!(true)), Ok(column(&FeatureValue::Number(1.0))));
    assert_eq!(feature(&mut number, json!(" 2.5 ")), Ok(column(&FeatureValue::Number(2.5))));
    for text in ["two", "", "1e999", "NaN"] {
        assert!(feature(&mut number, json!(text)).is_err(), "{text}");
    }
    assert_eq!(reason(feature(&mut number, json!(1e39))), "bad_number");
    let huge = read(&mut number, Some(br#"{"u":1,"f":1e999,"i":2}"#), Some(0));
    assert_eq!(huge, Err(DecodeError::BadNumber { field: "f".into() }));
    let mut vector = one_feature("kind = \"vector\", length = 2");
    assert_eq!(
        feature(&mut vector, json!([1, 0.5])),
        Ok(column(&FeatureValue::Vector(vec![1.0, 0.5])))
    );
    assert_eq!(reason(feature(&mut vector, json!([1]))), "wrong_length");
    assert_eq!(reason(feature(&mut vector, json!([1, 2, 3]))), "wrong_length");
    assert_eq!(reason(feature(&mut vector, json!([1, null]))), "wrong_type");
    assert_eq!(reason(feature(&mut vector, json!("x"))), "wrong_type");
}

#[test]
fn optional_features_may_be_absent() {
    for kind in ["id", "bag", "number", "vector", "history"] {
        let mut optional = one_feature(&format!("kind = \"{kind}\", optional = true, length = 2"));
        assert_eq!(
            feature(&mut optional, json!(null)),
            Ok(column(&FeatureValue::Absent)),
            "{kind}"
        );
        let mut required = one_feature(&format!("kind = \"{kind}\", length = 2"));
        assert_eq!(reason(feature(&mut required, json!(null))), "missing_field", "{kind}");
    }
}

#[test]
fn an_optional_value_that_cannot_be_read_is_absent_and_counted() {
    let long = "x".repeat(1025);
    for (kind, bad, reason) in [
        ("id", json!(long), "id_too_long"),
        ("id", json!({"a": 1}), "wrong_type"),
        ("number", json!("dear"), "wrong_type"),
        ("vector", json!([1, "x"]), "wrong_type"),
        ("vector", json!([1]), "wrong_length"),
        ("bag", json!(["a", [1]]), "wrong_type"),
        ("history", json!(["a", 1.5]), "wrong_type"),
    ] {
        let mut optional = one_feature(&format!("kind = \"{kind}\", optional = true, length = 2"));
        let absent = Ok(column(&FeatureValue::Absent));
        assert_eq!(feature(&mut optional, bad.clone()), absent, "{kind} {bad}");
        assert_eq!(feature(&mut optional, bad.clone()), absent, "{kind} {bad}");
        let unread = optional.take_unread();
        assert_eq!(unread.values, 2, "{kind} {bad}");
        assert_eq!(optional.take_unread().values, 0, "they are taken once");
        let mut required = one_feature(&format!("kind = \"{kind}\", length = 2"));
        let error = feature(&mut required, bad).expect_err("it is required");
        assert_eq!((error.reason(), unread.first), (reason, Some(error.to_string())));
    }
}

#[test]
fn rewards_are_scaled_and_clipped_or_cut_at_a_threshold() {
    let of = |rule: &str, r: serde_json::Value| {
        let mut mapping = mapping(&format!("{IDS}[reward]\nfield = \"r\"\n{rule}"));
        decode(&mut mapping, &json!({"u": 1, "i": 2, "r": r})).map(|event| event.reward)
    };
    let scaled = "scale = 0.2\nmin = 0.1\nmax = 0.9";
    assert_eq!(of(scaled, json!(3)), Ok(0.2_f32 * 3.0));
    assert_eq!(of(scaled, json!(50)), Ok(0.9));
    assert_eq!(of(scaled, json!(-50)), Ok(0.1));
    assert_eq!(of(scaled, json!(null)), Ok(0.9), "1, as far as the bounds allow");
    assert_eq!(reason(of(scaled, json!("x"))), "wrong_type");
    let threshold = "threshold = 0.1";
    assert_eq!(of(threshold, json!(0.1)), Ok(1.0));
    assert_eq!(of(threshold, json!(0.09)), Ok(0.0));
    assert_eq!(of(threshold, json!(null)), Ok(1.0));
}

#[test]
fn a_reward_may_be_a_ratio_and_a_missing_one_is_what_the_config_says() {
    let of = |rule: &str, watched: serde_json::Value, length: serde_json::Value| {
        let rule = format!("{IDS}[reward]\nfield = \"watched\"\nper = \"length\"\n{rule}");
        let record = json!({"u": 1, "i": 2, "watched": watched, "length": length});
        decode(&mut mapping(&rule), &record).map(|event| event.reward)
    };
    assert_eq!(of("", json!(30), json!(120)), Ok(0.25));
    assert_eq!(of("", json!(130), json!(120)), Ok(1.0), "clipped");
    assert_eq!(of("threshold = 0.5", json!(60), json!(120)), Ok(1.0));
    for (watched, length) in
        [(json!(30), json!(0)), (json!(30), json!(null)), (json!(null), json!(9))]
    {
        let of = |rule: &str| of(rule, watched.clone(), length.clone());
        assert_eq!(of(""), Ok(1.0));
        assert_eq!(of("missing = 0"), Ok(0.0));
        assert_eq!(of("missing = 0.5"), Ok(0.5));
        assert_eq!(reason(of("missing = \"reject\"")), "missing_field");
    }
    assert_eq!(reason(of("", json!(30), json!("long"))), "wrong_type");
}

#[test]
fn times_come_in_units() {
    let of = |unit: &str, t: serde_json::Value| {
        let text = format!("{IDS}[timestamp]\nfield = \"t\"\nunit = \"{unit}\"\nahead_max_s = 0");
        decode(&mut mapping(&text), &json!({"u": 1, "i": 2, "t": t})).map(|event| event.time_ms)
    };
    assert_eq!(of("s", json!(956_704_519)), Ok(956_704_519_000));
    assert_eq!(of("s", json!(956_704_519.25)), Ok(956_704_519_250));
    assert_eq!(of("s", json!("956704519")), Ok(956_704_519_000));
    assert_eq!(of("s", json!(" 956704519.5 ")), Ok(956_704_519_500));
    assert_eq!(of("ms", json!(1_506_826_800_026_i64)), Ok(1_506_826_800_026));
    assert_eq!(of("us", json!(1_506_826_800_026_999_i64)), Ok(1_506_826_800_026));
    assert_eq!(of("us", json!(-1)), Ok(-1), "floor, also before 1970");
    let confused = of("s", json!(1_506_826_800_026_i64)).expect_err("the year 49719");
    assert!(confused.to_string().contains("1506826800026 is no time in seconds"), "{confused}");
    assert_eq!(reason(of("s", json!("yesterday"))), "bad_timestamp");
    assert_eq!(reason(of("s", json!("inf"))), "bad_timestamp");
    assert_eq!(reason(of("ms", json!(u64::MAX))), "bad_timestamp");
    assert_eq!(reason(of("s", json!([1]))), "wrong_type");
    assert_eq!(reason(of("s", json!(null))), "missing_field");
}

#[test]
fn a_time_far_ahead_of_its_record_is_no_time_of_an_event() {
    let hour = format!("{IDS}[timestamp]\nfield = \"t\"\nunit = \"s\"\nahead_max_s = 3600");
    let mut hour = mapping(&hour);
    let mut of = |t: i64, sent_s: Option<i64>| {
        let record = json!({"u": 1, "i": 2, "t": t}).to_string();
        let sent_ms = sent_s.map(|sent| sent * 1000);
        read(&mut hour, Some(record.as_bytes()), sent_ms).map(|event| event.time_ms)
    };
    assert_eq!(of(1_000_003_600, Some(1_000_000_000)), Ok(1_000_003_600_000));
    let error = of(1_000_003_601, Some(1_000_000_000)).expect_err("ahead");
    assert_eq!((error.reason(), error.field()), ("future", Some("t")));
    let text = error.to_string();
    for part in ["`t`: 1000003601 is 3601 s later", "timestamp.ahead_max_s allows 3600"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(of(1, Some(1_000_000_000)), Ok(1000), "the past is no fault");
    for nothing_to_compare_with in [None, Some(0), Some(-1)] {
        assert_eq!(of(1_000_003_601, nothing_to_compare_with), Ok(1_000_003_601_000));
    }
    // By default a day; a record's own time is never ahead of itself.
    let mut day = mapping(&format!("{IDS}[timestamp]\nfield = \"t\""));
    assert!(decode(&mut day, &json!({"u": 1, "i": 2, "t": 86_400_007})).is_ok());
    assert_eq!(reason(decode(&mut day, &json!({"u": 1, "i": 2, "t": 86_400_008}))), "future");
    assert!(read(&mut mapping(IDS), Some(b"{\"u\":1,\"i\":2}"), Some(i64::MAX)).is_ok());
}

fn everything() -> Mapping {
    mapping(
        "query.id = \"u.id\"\nitem.id = \"i\"\n\
         query.features = [{name=\"a\",field=\"u.id\",kind=\"id\"},\
         {name=\"b\",field=\"b\",kind=\"bag\",weights=\"w\",optional=true},\
         {name=\"h\",field=\"h\",kind=\"history\",length=3,optional=true}]\n\
         item.features = [{name=\"n\",field=\"n\",kind=\"number\",optional=true},\
         {name=\"v\",field=\"v\",kind=\"vector\",length=2,optional=true}]\n\
         reward.field = \"r\"\ntimestamp = {field=\"t\",ahead_max_s=0}",
    )
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        ".{0,8}".prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|value| json!(value)),
            prop::collection::hash_map("[a-z.]{0,4}|id", inner, 0..5)
                .prop_map(|value| json!(value)),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut events = Events::new(3, 2);
        if let Err(error) = everything().decode(Some(&bytes), None, &mut events) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_json_never_panics_and_gives_finite_values(
        fields in prop::collection::hash_map("u|i|b|w|h|n|v|r|t|u\\.id", json_value(), 0..10),
    ) {
        if let Ok(event) = decode(&mut everything(), &json!(fields)) {
            prop_assert!((0.0..=1.0).contains(&event.reward));
            for column in event.query.iter().chain(&event.item) {
                prop_assert_eq!(column.ends.len(), 1);
                prop_assert!(column.ids.is_empty() || column.ids.len() == column.values.len());
                prop_assert!(column.values.iter().all(|value| value.is_finite()), "{column:?}");
            }
        }
    }

    /// Whatever stood in the columns before, and whatever came between.
    #[test]
    fn a_rejected_record_leaves_the_columns_as_they_were(
        records in prop::collection::vec(
            prop::collection::hash_map("u|i|b|w|h|n|v|r|t|u\\.id", json_value(), 0..10), 1..6,
        ),
    ) {
        let good =
            json!({"u": {"id": 1}, "i": 2, "t": 3, "b": ["x", "y"], "w": [1, 2], "v": [1, 2]});
        let mut mapping = everything();
        let (mut all, mut expected) = (Events::new(3, 2), Events::new(3, 2));
        for record in records.iter().map(|fields| json!(fields)).chain([good]) {
            let text = record.to_string();
            let mut one = Events::new(3, 2);
            let alone = everything().decode(Some(text.as_bytes()), None, &mut one);
            prop_assert_eq!(mapping.decode(Some(text.as_bytes()), None, &mut all), alone.clone());
            (0..alone.unwrap_or(0)).for_each(|event| expected.push_from(&one, event));
        }
        prop_assert_eq!(all, expected);
    }

    #[test]
    fn a_good_record_keeps_every_value(
        user in ".{1,12}", item in any::<i64>(), time in 0..4_000_000_000_000_i64,
        bag in prop::collection::vec((".{1,6}", -1e3..1e3_f32), 0..8),
        number in any::<f32>().prop_filter("finite", |value| value.is_finite()),
        vector in prop::array::uniform2(-1e6..1e6_f32), skipped in json_value(),
    ) {
        let (names, weights): (Vec<&str>, Vec<f32>) =
            bag.iter().map(|(name, weight)| (name.as_str(), *weight)).unzip();
        let record = json!({
            "skipped": skipped, "u": {"x": 1, "id": user}, "i": item, "t": time, "b": names,
            "w": weights, "h": names, "n": number, "v": vector,
        });
        let event = decode(&mut everything(), &record).expect("a good record");
        prop_assert_eq!(event.query_id, key(&user));
        prop_assert_eq!(&*event.item_name, &item.to_string());
        prop_assert_eq!(event.time_ms, time);
        let keys: Vec<(u64, f32)> = bag.iter().map(|(name, w)| (key(name), *w)).collect();
        let last: Vec<u64> = keys.iter().rev().take(3).rev().map(|(key, _)| *key).collect();
        prop_assert_eq!(&event.query[2].ids, &last);
        prop_assert_eq!(&event.query[1], &column(&FeatureValue::Bag(keys)));
        prop_assert_eq!(&event.item[0], &column(&FeatureValue::Number(number)));
        prop_assert_eq!(&event.item[1], &column(&FeatureValue::Vector(vector.to_vec())));
    }
}

/// `python-nan.jsonl`: what is not mapped is not judged; what is mapped is named.
#[test]
fn words_that_json_lacks_matter_only_where_they_are_mapped() {
    let mut number = one_feature("kind = \"number\"");
    let text = br#"{"u": 1, "i": 2, "f": 3, "dwell": NaN, "x": [-Infinity]}"#;
    let event = read(&mut number, Some(text), Some(7)).expect("f is a number");
    assert_eq!(event.query[0], column(&FeatureValue::Number(3.0)));
    let error = read(&mut number, Some(br#"{"u": 1, "i": 2, "f": NaN}"#), Some(7));
    assert_eq!(error.err(), Some(DecodeError::BadNumber { field: "f".into() }));
}

/// `lone-surrogate.jsonl`: half an emoji is no reason to lose the event.
#[test]
fn half_an_emoji_is_a_character_of_its_own() {
    let mut id = one_feature("kind = \"id\"");
    let text = br#"{"u": 1, "i": 2, "f": "caf\ud83d"}"#;
    let event = read(&mut id, Some(text), Some(7)).expect("readable");
    assert_eq!(event.query[0], column(&FeatureValue::Id(key("caf\u{fffd}"))));
}

#[test]
fn a_mark_of_utf_8_is_passed_over_and_other_things_are_named() {
    let mut ids = mapping(IDS);
    let marked = b"\xef\xbb\xbf{\"u\": 1, \"i\": 2}";
    assert!(read(&mut ids, Some(marked), Some(7)).is_ok());
    let values: [(&[u8], &str, &str); 5] = [
        (b"\0\0\0\0\x07\x02abc", "foreign", "Confluent"),
        (b"\x1f\x8b\x08\0", "foreign", "gzip"),
        (b"\xff\xfe{\0", "foreign", "UTF-16"),
        (b"{\0\"\0u\0", "foreign", "UTF-16"),
        (br#""{\"u\": 1}""#, "not_object", "within a JSON string"),
    ];
    for (value, reason, words) in values {
        let error = read(&mut ids, Some(value), Some(7)).expect_err("rejected");
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// `odd-ids.jsonl`: a message that says what is wrong, and a limit on length.
#[test]
fn odd_ids_are_named() {
    let mut ids = mapping(&format!("{IDS}kafka.id_bytes_max = 8\n"));
    assert!(decode(&mut ids, &json!({"u": 1, "i": "12345678"})).is_ok());
    let error = decode(&mut ids, &json!({"u": 1, "i": "123456789"})).expect_err("too long");
    assert_eq!(error.reason(), "id_too_long");
    let words = "field `i` is an id of 9 bytes; kafka.id_bytes_max is 8";
    assert_eq!(error.to_string(), words);
    let error = decode(&mut ids, &json!({"u": 17.0, "i": "x"})).expect_err("no id");
    assert!(error.to_string().contains("decimal point"), "{error}");
}

/// docs/how-to/your-log.md has the same table.
#[test]
fn an_id_is_its_text() {
    let mut ids = mapping(IDS);
    let mut name = |id: serde_json::Value| {
        decode(&mut ids, &json!({"u": "u", "i": id})).map(|event| (event.item_id, event.item_name))
    };
    let same = [
        (json!(17), json!("17")),
        (json!(-3), json!("-3")),
        (json!(u64::MAX), json!("18446744073709551615")),
        (json!(9_007_199_254_740_993_i64), json!("9007199254740993")),
        (json!(true), json!("true")),
    ];
    for (one, other) in same {
        let (one, other) = (name(one).expect("an id"), name(other).expect("an id"));
        assert_eq!(one, other);
    }
    let uuid = "7b0f9d1e-2a34-4c56-8d78-9e0f1a2b3c4d";
    let other = [
        (json!("17"), json!("017")),
        (json!("17"), json!("+17")),
        (json!("17"), json!(" 17")),
        (json!("17"), json!("17.0")),
        (json!(i64::MIN), json!(9_223_372_036_854_775_808_u64)),
        (json!(uuid), json!(uuid.to_uppercase())),
        (json!(uuid), json!(uuid.replace('-', ""))),
        (json!("\u{e9}"), json!("e\u{301}")),
    ];
    for (one, other) in other {
        let (one, other) = (name(one).expect("an id"), name(other).expect("an id"));
        assert!(one.0 != other.0 && one.1 != other.1, "{one:?} {other:?}");
    }
    for none in [json!(17.0), json!(1e3), json!(1e19), json!(f64::MAX)] {
        assert_eq!(name(none).map_err(|error| error.reason()), Err("wrong_type"));
    }
}

/// The dead-letter topic's reference and the counters name the same reasons.
#[test]
fn each_reason_is_listed() {
    let page = include_str!("../../../docs/reference/topics.md");
    for reason in REASONS {
        assert!(page.contains(&format!("`{reason}`")), "docs/reference/topics.md lacks {reason}");
    }
    let source = include_str!("error.rs");
    let given = source.matches("=> \"").count();
    assert_eq!(given, REASONS.len(), "a reason is given that REASONS lacks");
    assert!(REASONS.iter().all(|reason| source.contains(&format!("=> \"{reason}\""))));
}
