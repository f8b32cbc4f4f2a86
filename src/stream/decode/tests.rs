use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A config with these `[query]`, `[item]` and other lines; never validated, which is on purpose.
fn mapping(toml: &str) -> Mapping {
    Mapping::new(&toml::from_str(toml).expect("a test's config parses"))
}

fn decode(mapping: &Mapping, record: &serde_json::Value) -> Result<Event, DecodeError> {
    mapping.decode(Some(record.to_string().as_bytes()), Some(7))
}

fn key(text: &str) -> u64 {
    id_key(text.as_bytes())
}

const IDS: &str = "query.id = \"u\"\nitem.id = \"i\"\n";

fn one_feature(feature: &str) -> Mapping {
    mapping(&format!("{IDS}query.features = [{{ name = \"f\", field = \"f\", {feature} }}]"))
}

/// The value of the one feature `f`.
fn feature(mapping: &Mapping, f: serde_json::Value) -> Result<FeatureValue, DecodeError> {
    decode(mapping, &json!({"u": 1, "i": 2, "f": f})).map(|event| event.query[0].clone())
}

fn reason(result: Result<impl std::fmt::Debug, DecodeError>) -> &'static str {
    result.expect_err("the record must be rejected").reason()
}

#[test]
fn ids_are_strings_integers_or_booleans() {
    let mapping = mapping(IDS);
    let event = decode(&mapping, &json!({"u": "858", "i": 858})).expect("good");
    assert_eq!((event.query_id, event.item_id), (key("858"), key("858")));
    assert_eq!((&*event.item_name, event.time_ms, event.reward), ("858", 7, 1.0));
    let large = decode(&mapping, &json!({"u": true, "i": u64::MAX})).expect("good");
    assert_eq!((large.query_id, &*large.item_name), (key("true"), "18446744073709551615"));
    let negative = decode(&mapping, &json!({"u": -3, "i": "é\n\"x"})).expect("good");
    assert_eq!((negative.query_id, &*negative.item_name), (key("-3"), "é\n\"x"));
    for (u, expected) in [
        (json!(null), "missing_field"),
        (json!(""), "missing_field"),
        (json!(858.0), "wrong_type"),
        (json!([1]), "wrong_type"),
        (json!({"a": 1}), "wrong_type"),
    ] {
        let result = decode(&mapping, &json!({"u": u, "i": 1}));
        assert!(result.as_ref().expect_err("bad").to_string().contains("`u`"));
        assert_eq!(reason(result), expected);
    }
    assert_eq!(reason(decode(&mapping, &json!({"u": 1}))), "missing_field");
}

#[test]
fn what_is_no_object_is_rejected_by_reason() {
    let mapping = mapping(IDS);
    let reason_of = |bytes: &[u8]| reason(mapping.decode(Some(bytes), None));
    assert_eq!(reason(mapping.decode(None, None)), "tombstone");
    assert_eq!(reason_of(b""), "empty");
    assert_eq!(reason_of(b" \n"), "empty");
    assert_eq!(reason_of(b"{\"u\":\"\xff\"}"), "invalid_utf8");
    assert_eq!(reason_of(b"{\"skipped\":\"\xff\"}"), "invalid_utf8");
    assert_eq!(reason_of(b"{\"u\":1,\"i\":2} x"), "not_json");
    assert_eq!(reason_of(b"{\"u\":1,\"i\":"), "not_json");
    assert_eq!(reason_of(b"{\"u\":NaN,\"i\":2}"), "not_json");
    assert_eq!(reason_of(b"hello"), "not_json");
    for text in ["[]", "3", "null", "true", "\"x\"", "-1", "1.5"] {
        assert_eq!(reason_of(text.as_bytes()), "not_object", "{text}");
    }
    assert_eq!(reason_of(&vec![b' '; RECORD_BYTES_MAX + 1]), "too_large");
    // Depth is bounded, not by our stack.
    let deep = format!("{{\"u\":{}", "[".repeat(500_000));
    assert_eq!(reason_of(deep.as_bytes()), "not_json");
    assert_eq!(reason(mapping.decode(Some(b"{\"u\":1,\"i\":2}"), None)), "missing_field");
}

#[test]
fn dots_reach_into_objects_but_a_literal_key_goes_first() {
    let mapping = mapping("query.id = \"user.id\"\nitem.id = \"ctx.item.id\"");
    let nested = json!({"ctx": {"item": {"id": "a"}}, "user": {"id": 5, "name": "n"}});
    assert_eq!(&*decode(&mapping, &nested).expect("good").item_name, "a");
    let both = json!({"ctx": {"item": {"id": "a"}}, "ctx.item.id": "b", "user.id": 5});
    assert_eq!(&*decode(&mapping, &both).expect("good").item_name, "b");
    let scalar = json!({"ctx": 3, "user": {"id": 5}});
    assert_eq!(reason(decode(&mapping, &scalar)), "missing_field");
}

#[test]
fn of_a_key_that_stands_twice_the_last_counts() {
    let mapping = mapping("query.id = \"u\"\nitem.id = \"a.b\"");
    let decode = |text: &str| mapping.decode(Some(text.as_bytes()), Some(0));
    let event = decode(r#"{"u":1,"u":2,"a":{"b":"x"},"a":{"b":"y"}}"#).expect("good");
    assert_eq!((event.query_id, &*event.item_name), (key("2"), "y"));
    assert_eq!(reason(decode(r#"{"u":1,"a":{"b":"x"},"a":{"c":"y"}}"#)), "missing_field");
    assert_eq!(reason(decode(r#"{"u":1,"a":{"b":"x"},"a":null}"#)), "missing_field");
}

#[test]
fn one_field_may_feed_several_features() {
    let mapping = mapping(&format!(
        "{IDS}query.features = [{{name=\"a\",field=\"u\",kind=\"id\"}},\
         {{name=\"b\",field=\"x.y\",kind=\"number\"}}]\n\
         item.features = [{{name=\"c\",field=\"x.y\",kind=\"id\"}},\
         {{name=\"d\",field=\"x\",kind=\"id\",optional=true}}]"
    ));
    let event = decode(&mapping, &json!({"u": 9, "i": 1, "x": {"y": 4}}));
    assert_eq!(reason(event), "wrong_type", "x itself is an object");
    let event = decode(&mapping, &json!({"u": 9, "i": 1, "x.y": 4})).expect("good");
    assert_eq!(event.query, [FeatureValue::Id(key("9")), FeatureValue::Number(4.0)]);
    assert_eq!(event.item, [FeatureValue::Id(key("4")), FeatureValue::Absent]);
}

#[test]
fn bags_are_means_or_weighted_sums() {
    let bag = one_feature("kind = \"bag\", length = 3");
    let of = |entries: &[(&str, f32)]| {
        FeatureValue::Bag(entries.iter().map(|(text, weight)| (key(text), *weight)).collect())
    };
    let third = 1.0 / 3.0;
    let kept = of(&[("a", third), ("a", third), ("7", third)]);
    assert_eq!(feature(&bag, json!(["a", "a", 7, "cut"])), Ok(kept));
    assert_eq!(feature(&bag, json!([null, "", "b"])), Ok(of(&[("b", 1.0)])));
    assert_eq!(feature(&bag, json!("one")), Ok(of(&[("one", 1.0)])));
    assert_eq!(feature(&bag, json!([])), Ok(of(&[])));
    assert_eq!(reason(feature(&bag, json!(null))), "missing_field");
    assert_eq!(reason(feature(&bag, json!([1.5]))), "wrong_type");
    assert_eq!(reason(feature(&bag, json!([["a"]]))), "wrong_type");

    let weighted = one_feature("kind = \"bag\", length = 2, weights = \"w\"");
    let of_weights = |f, w| {
        let event = decode(&weighted, &json!({"u": 1, "i": 2, "f": f, "w": w}));
        event.map(|event| event.query[0].clone())
    };
    let expected = of(&[("a", 0.5), ("b", -2.0)]);
    assert_eq!(of_weights(json!(["a", "b", "c"]), json!([0.5, -2, 9])), Ok(expected));
    assert_eq!(of_weights(json!([null, "b"]), json!([1, 2])), Ok(of(&[("b", 2.0)])));
    assert_eq!(reason(of_weights(json!(["a", "b"]), json!([1]))), "wrong_length");
    assert_eq!(reason(of_weights(json!(["a"]), json!(["1"]))), "wrong_type");
    assert_eq!(reason(of_weights(json!(["a"]), json!(null))), "missing_field");
}

#[test]
fn a_history_keeps_its_newest_entries() {
    let history = one_feature("kind = \"history\", length = 2");
    let newest = FeatureValue::Bag(vec![(key("b"), 0.5), (key("c"), 0.5)]);
    assert_eq!(feature(&history, json!(["a", "b", "c"])), Ok(newest));
    let kept_by_trainer =
        mapping(&format!("{IDS}query.features = [{{name=\"h\",kind=\"history\",length=5}}]"));
    let event = decode(&kept_by_trainer, &json!({"u": 1, "i": 2})).expect("good");
    assert_eq!(event.query, [FeatureValue::Absent]);
}

#[test]
fn numbers_and_vectors_are_finite() {
    let number = one_feature("kind = \"number\"");
    assert_eq!(feature(&number, json!(-2)), Ok(FeatureValue::Number(-2.0)));
    assert_eq!(feature(&number, json!(true)), Ok(FeatureValue::Number(1.0)));
    assert_eq!(reason(feature(&number, json!("2"))), "wrong_type");
    assert_eq!(reason(feature(&number, json!(1e39))), "bad_number");
    let huge = number.decode(Some(br#"{"u":1,"f":1e999,"i":2}"#), Some(0));
    assert_eq!(huge, Err(DecodeError::BadNumber { field: "f".into() }));
    let vector = one_feature("kind = \"vector\", length = 2");
    assert_eq!(feature(&vector, json!([1, 0.5])), Ok(FeatureValue::Vector(vec![1.0, 0.5])));
    assert_eq!(reason(feature(&vector, json!([1]))), "wrong_length");
    assert_eq!(reason(feature(&vector, json!([1, 2, 3]))), "wrong_length");
    assert_eq!(reason(feature(&vector, json!([1, null]))), "wrong_type");
    assert_eq!(reason(feature(&vector, json!("x"))), "wrong_type");
}

#[test]
fn optional_features_may_be_absent() {
    for kind in ["id", "bag", "number", "vector", "history"] {
        let optional = one_feature(&format!("kind = \"{kind}\", optional = true, length = 2"));
        assert_eq!(feature(&optional, json!(null)), Ok(FeatureValue::Absent), "{kind}");
        let required = one_feature(&format!("kind = \"{kind}\", length = 2"));
        assert_eq!(reason(feature(&required, json!(null))), "missing_field", "{kind}");
    }
}

#[test]
fn rewards_are_scaled_and_clipped_or_cut_at_a_threshold() {
    let of = |rule: &str, r: serde_json::Value| {
        let mapping = mapping(&format!("{IDS}[reward]\nfield = \"r\"\n{rule}"));
        decode(&mapping, &json!({"u": 1, "i": 2, "r": r})).map(|event| event.reward)
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
fn times_come_in_units() {
    let of = |unit: &str, t: serde_json::Value| {
        let text = format!("{IDS}[timestamp]\nfield = \"t\"\nunit = \"{unit}\"");
        decode(&mapping(&text), &json!({"u": 1, "i": 2, "t": t})).map(|event| event.time_ms)
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

fn everything() -> Mapping {
    mapping(
        "query.id = \"u.id\"\nitem.id = \"i\"\n\
         query.features = [{name=\"a\",field=\"u.id\",kind=\"id\"},\
         {name=\"b\",field=\"b\",kind=\"bag\",weights=\"w\",optional=true},\
         {name=\"h\",field=\"h\",kind=\"history\",length=3,optional=true}]\n\
         item.features = [{name=\"n\",field=\"n\",kind=\"number\",optional=true},\
         {name=\"v\",field=\"v\",kind=\"vector\",length=2,optional=true}]\n\
         reward.field = \"r\"\ntimestamp.field = \"t\"",
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
        if let Err(error) = everything().decode(Some(&bytes), None) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_json_never_panics_and_gives_finite_values(
        fields in prop::collection::hash_map("u|i|b|w|h|n|v|r|t|u\\.id", json_value(), 0..10),
    ) {
        if let Ok(event) = decode(&everything(), &json!(fields)) {
            prop_assert!((0.0..=1.0).contains(&event.reward));
            for value in event.query.iter().chain(&event.item) {
                let finite = match value {
                    FeatureValue::Bag(keys) => keys.iter().all(|(_, weight)| weight.is_finite()),
                    FeatureValue::Number(number) => number.is_finite(),
                    FeatureValue::Vector(vector) => vector.iter().all(|value| value.is_finite()),
                    FeatureValue::Absent | FeatureValue::Id(_) => true,
                };
                prop_assert!(finite, "{value:?}");
            }
        }
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
        let event = decode(&everything(), &record).expect("a good record");
        prop_assert_eq!(event.query_id, key(&user));
        prop_assert_eq!(&*event.item_name, &item.to_string());
        prop_assert_eq!(event.time_ms, time);
        let keys: Vec<(u64, f32)> = bag.iter().map(|(name, w)| (key(name), *w)).collect();
        let FeatureValue::Bag(history) = &event.query[2] else { panic!("a history is a bag") };
        let last: Vec<u64> = keys.iter().rev().take(3).rev().map(|(key, _)| *key).collect();
        prop_assert_eq!(history.iter().map(|(key, _)| *key).collect::<Vec<_>>(), last);
        prop_assert_eq!(&event.query[1], &FeatureValue::Bag(keys));
        prop_assert_eq!(&event.item[0], &FeatureValue::Number(number));
        prop_assert_eq!(&event.item[1], &FeatureValue::Vector(vector.to_vec()));
    }
}
