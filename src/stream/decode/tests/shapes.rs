//! Logs in the shapes that people's logs have: several events a record, envelopes, rules, times.

use super::*;

/// Item names, times and rewards of a record's events.
type Read = Result<Vec<(String, i64, f32)>, DecodeError>;

fn all(mapping: &mut Mapping, payload: &str, envelope: &Envelope<'_, '_>) -> Read {
    let mut events = Events::new(mapping.query.features.len(), mapping.item.features.len());
    let count =
        mapping.decode_record(Content::Text(Some(payload.as_bytes())), envelope, &mut events)?;
    assert_eq!(count, events.len());
    let name = |event| events.item_names.get(event).to_owned();
    Ok((0..count).map(|i| (name(i), events.times_ms[i], events.rewards[i])).collect())
}

fn plain(mapping: &mut Mapping, record: &serde_json::Value) -> Read {
    plain_text(mapping, &record.to_string())
}

fn plain_text(mapping: &mut Mapping, record: &str) -> Read {
    all(mapping, record, &Envelope { time_ms: Some(7), outside: &|_| None })
}

fn names(read: Read) -> Result<Vec<String>, DecodeError> {
    read.map(|events| events.into_iter().map(|(name, ..)| name).collect())
}

#[test]
fn each_element_of_an_array_is_an_event() {
    let mut basket = mapping(
        "query.id = \"u\"\nitem.id = \"items[].id\"\n\
         item.features = [{name=\"tags\",field=\"items[].tags\",kind=\"bag\",optional=true},\
         {name=\"first\",field=\"ids[0].x\",kind=\"id\",optional=true}]",
    );
    // The field that all share stands behind the array.
    let record = json!({"items": [{"id": "a", "tags": [1, 2], "x": [[3]]}, {"id": "b"}], "u": 5,
                        "ids": [{"x": "y"}, {"x": "z"}]});
    let mut events = Events::new(0, 2);
    let read = basket.decode(Some(record.to_string().as_bytes()), Some(7), &mut events);
    assert_eq!((read, events.query_ids[1]), (Ok(2), key("5")));
    let tags: Vec<_> = (0..2).map(|event| events.item[0].value(event)).collect();
    let bag = [(key("1"), 0.5), (key("2"), 0.5)].to_vec();
    assert_eq!(tags, [FeatureValue::Bag(bag), FeatureValue::Absent]);
    assert_eq!(events.item[1].value(1), FeatureValue::Id(key("y")), "an element by its place");

    assert_eq!(names(plain(&mut basket, &json!({"u": 5, "items": []}))), Ok(vec![]));
    assert_eq!(names(plain(&mut basket, &json!({"u": 5}))), Ok(vec![]), "passed over");
    let error = plain(&mut basket, &json!({"u": 5, "items": [{"id": "a"}, {}]}));
    assert_eq!(error.expect_err("no id").field(), Some("items[].id"));
    let twice = r#"{"u":5,"items":[{"id":"a"},{"id":"b"}],"items":[{"id":"c"}]}"#;
    let envelope = Envelope { time_ms: Some(7), outside: &|_| None };
    assert_eq!(names(all(&mut basket, twice, &envelope)), Ok(vec!["c".into()]), "the last counts");

    let mut ids = mapping("query.id = \"u\"\nitem.id = \"ids[]\"");
    let read = names(plain(&mut ids, &json!({"u": 1, "ids": ["x", 7]})));
    assert_eq!(read, Ok(vec!["x".into(), "7".into()]));
}

/// As Segment's calls have it: an order's products in an array, a viewed product without one.
const MIXED: &str = "query.id = \"u | a\"\nitem.id = \"p.products[].id | p.id\"\n\
    item.features = [{name=\"price\",field=\"p.products[].price | p.price\",kind=\"number\",\
    optional=true}]\n[[event]]\nwhere = {field=\"what\", in=[\"bought\", \"viewed\"]}";

#[test]
fn one_mapping_reads_records_with_an_array_and_without() {
    let mut mixed = mapping(MIXED);
    let prices = |mapping: &mut Mapping, record: &serde_json::Value| {
        let mut events = Events::new(0, 1);
        let read = mapping.decode(Some(record.to_string().as_bytes()), Some(7), &mut events);
        let ids: Vec<_> = (0..events.len()).map(|i| events.item_names.get(i).to_owned()).collect();
        read.map(|_| (events.query_ids.clone(), ids, events.item[0].values.clone()))
    };
    let order = json!({"what": "bought", "u": 5, "p": {"id": "basket", "price": 9,
        "products": [{"id": "a", "price": 1.5}, {"id": "b"}, {"price": 3}]}});
    let ids = ["a", "b", "basket"].map(String::from).to_vec();
    // What an element lacks is the record's own.
    assert_eq!(prices(&mut mixed, &order), Ok((vec![key("5"); 3], ids, vec![1.5, 9.0, 3.0])));
    let one = |id: &str, user: &str, price| Ok((vec![key(user)], vec![id.to_owned()], vec![price]));
    let viewed = json!({"what": "viewed", "u": null, "a": "x", "p": {"id": "c", "price": 2}});
    assert_eq!(prices(&mut mixed, &viewed), one("c", "x", 2.0));
    // Protobuf and Avro have an empty array where there is none.
    let empty = json!({"what": "viewed", "u": "", "a": "x", "p": {"products": [], "id": "c",
        "price": 2}});
    assert_eq!(prices(&mut mixed, &empty), one("c", "x", 2.0));
    // The array of the record before is forgotten, and so is that of an earlier key.
    let twice = r#"{"what":"viewed","u":1,"p":{"products":[{"id":"a"}]},"p":{"id":"c"}}"#;
    assert_eq!(names(plain_text(&mut mixed, twice)), Ok(vec!["c".into()]));

    // Neither an element nor an item: passed over, as a record without its array is.
    for nothing in [json!({"what": "viewed", "u": 1}), json!({"what": "viewed", "p": {"id": ""}})] {
        assert_eq!(names(plain(&mut mixed, &nothing)), Ok(vec![]), "{nothing}");
    }
    let nobody = plain(&mut mixed, &json!({"what": "viewed", "p": {"id": "c"}}));
    assert_eq!(nobody.expect_err("no user").field(), Some("u | a"));
    // In an array of records each is what it is alone.
    let many = json!([viewed, order, empty]);
    let ids = ["c", "a", "b", "basket", "c"].map(String::from).to_vec();
    assert_eq!(names(plain(&mut mixed, &many)), Ok(ids));
}

#[test]
fn an_alternative_that_is_no_number_is_as_any_other_value_that_is_none() {
    let mut mixed = mapping(MIXED);
    for number in ["NaN", "\"x\""] {
        let record = format!(r#"{{"what":"viewed","u":1,"p":{{"id":"c","price":{number}}}}}"#);
        let mut events = Events::new(0, 1);
        assert_eq!(mixed.decode(Some(record.as_bytes()), Some(7), &mut events), Ok(1), "{number}");
        assert_eq!(events.item[0].value(0), FeatureValue::Absent, "{number}");
        assert_eq!(mixed.take_unread().values, 1, "{number}");
    }
    // Of a number out of range the field is named, as that of any other field is.
    let error = plain_text(&mut mixed, r#"{"what":"viewed","u":1,"p":{"price":1e999}}"#);
    assert_eq!(error.expect_err("no number").field(), Some("p.products[].price | p.price"));
    let mut keyed = mapping("query.id = \"@headers.user | @key\"\nitem.id = \"i\"");
    let outside = |what: &Outside| (*what == Outside::Key).then_some(&b"k"[..]);
    let envelope = Envelope { time_ms: Some(7), outside: &outside };
    assert_eq!(names(all(&mut keyed, r#"{"i": 1}"#, &envelope)), Ok(vec!["1".into()]));
}

#[test]
fn a_record_may_be_an_array_of_events() {
    let mut ids = mapping(IDS);
    let read = names(plain(&mut ids, &json!([{"u": 1, "i": "a"}, {"i": "b", "u": 2}])));
    assert_eq!(read, Ok(vec!["a".into(), "b".into()]));
    assert_eq!(names(plain(&mut ids, &json!([]))), Ok(vec![]));
    assert_eq!(reason(plain(&mut ids, &json!([{"u": 1, "i": 2}, {"u": 1}]))), "missing_field");
    assert_eq!(reason(plain(&mut ids, &json!([{"u": 1, "i": 2}, 3]))), "not_object");
    let mut basket = mapping("query.id = \"u\"\nitem.id = \"items[].id\"");
    let sessions =
        json!([{"u": 1, "items": [{"id": "a"}, {"id": "b"}]}, {"items": [{"id": "c"}], "u": 2}]);
    assert_eq!(names(plain(&mut basket, &sessions)), Ok(["a", "b", "c"].map(String::from).into()));
    let many: Vec<_> = (0..1001).map(|i| json!({"u": 1, "i": i})).collect();
    assert_eq!(reason(plain(&mut ids, &json!(many))), "too_many_events");
    let mut small = mapping(&format!("{IDS}batch.size = 2"));
    assert_eq!(reason(plain(&mut small, &json!(many[..3]))), "too_many_events");
    assert!(plain(&mut small, &json!(many[..2])).is_ok());
}

#[test]
fn rules_say_which_records_are_events_and_what_they_are_worth() {
    let mut rules = mapping(&format!(
        "{IDS}reward.field = \"r\"\n\
         [[event]]\nwhere = {{field=\"what\", equals=\"buy\"}}\n\
         [[event]]\nwhere = {{field=\"what\", in=[\"view\", 3, true]}}\nweight = 0.25\n\
         [[event]]\nwhere = {{field=\"gift\", exists=true}}\nweight = 0.5"
    ));
    let mut of = |more: serde_json::Value| {
        let mut record = json!({"u": 1, "i": 2});
        record.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        plain(&mut rules, &record).map(|events| events.first().map(|event| event.2))
    };
    assert_eq!(of(json!({"what": "buy"})), Ok(Some(1.0)));
    assert_eq!(of(json!({"what": "buy", "r": 0.5})), Ok(Some(0.5)));
    for value in [json!("view"), json!(3), json!("3"), json!(3.0), json!(true)] {
        assert_eq!(of(json!({"what": value, "gift": 1})), Ok(Some(0.25)), "the first that holds");
    }
    assert_eq!(of(json!({"what": "scroll", "gift": 0})), Ok(Some(0.5)));
    assert_eq!(of(json!({"what": "scroll", "gift": null})), Ok(None));
    assert_eq!(of(json!({})), Ok(None));
    // What is passed over is not judged.
    assert_eq!(plain(&mut rules, &json!({"what": "scroll"})), Ok(vec![]));
}

#[test]
fn rows_of_a_change_stream_are_events_unless_they_go() {
    let text = "query.id = \"user\"\nitem.id = \"after.item\"\nkafka.format = \"debezium\"\n\
                timestamp.field = \"ts_ms\"";
    let mut rows = mapping(text);
    let row = json!({"user": 1, "item": "a"});
    let event = |name: &str, time| Ok(vec![(name.to_owned(), time, 1.0)]);
    let change = json!({"before": null, "after": row, "op": "c", "ts_ms": 9});
    assert_eq!(plain(&mut rows, &change), event("a", 9));
    let with_schema = json!({"schema": {"type": "struct"}, "payload": change});
    assert_eq!(plain(&mut rows, &with_schema), event("a", 9));
    assert_eq!(plain(&mut rows, &json!({"before": row, "after": null, "op": "d"})), Ok(vec![]));
    assert_eq!(plain(&mut rows, &json!({"op": "t"})), Ok(vec![]), "a table that was emptied");
    // As its transformation to plain rows leaves them.
    let mut plain_rows = mapping(&text.replace("after.item", "item"));
    let flat = |deleted: &str| json!({"user": 1, "item": "b", "ts_ms": 5, "__deleted": deleted});
    assert_eq!(plain(&mut plain_rows, &flat("false")), event("b", 5));
    assert_eq!(plain(&mut plain_rows, &flat("true")), Ok(vec![]));
    let mut events = Events::new(0, 0);
    assert_eq!(rows.decode(None, Some(1), &mut events), Ok(0), "a tombstone");
    // A column is nearer than a word of the envelope.
    let own = json!({"after": {"user": 1, "item": "c", "ts_ms": 3}, "op": "u", "ts_ms": 9});
    assert_eq!(plain(&mut rows, &own), event("c", 3));
}

#[test]
fn keys_and_headers_are_fields() {
    let mut beside = mapping(
        "query.id = \"@key\"\nitem.id = \"i\"\nkafka.format = \"cloudevents\"\n\
         [[event]]\nwhere = {field=\"@headers.ce_type\", equals=\"click\"}",
    );
    let with = |key: Option<&'static [u8]>, kind: &'static [u8]| {
        move |what: &Outside| match what {
            Outside::Key => key,
            Outside::Header(name) => (&**name == "ce_type").then_some(kind),
        }
    };
    let mut of = |payload: &str, outside: &dyn Fn(&Outside) -> Option<&'static [u8]>| {
        names(all(&mut beside, payload, &Envelope { time_ms: Some(7), outside }))
    };
    assert_eq!(of(r#"{"i": 4}"#, &with(Some(b"u"), b"click")), Ok(vec!["4".into()]));
    assert_eq!(of(r#"{"data": {"i": 4}}"#, &with(Some(b"u"), b"click")), Ok(vec!["4".into()]));
    let two = of(r#"[{"i": 4}, {"i": 5}]"#, &with(Some(b"u"), b"click"));
    assert_eq!(two, Ok(vec!["4".into(), "5".into()]), "both have the record's key");
    assert_eq!(of(r#"{"i": 4}"#, &with(Some(b"u"), b"view")), Ok(vec![]));
    assert_eq!(reason(of(r#"{"i": 4}"#, &with(None, b"click"))), "missing_field");
    assert_eq!(reason(of(r#"{"i": 4}"#, &with(Some(b"\xff"), b"click"))), "missing_field");
}

#[test]
fn times_may_be_texts() {
    let of = |more: &str, t: serde_json::Value| {
        let text = format!("{IDS}[timestamp]\nfield = \"t\"\nahead_max_s = 0\n{more}");
        plain(&mut mapping(&text), &json!({"u": 1, "i": 2, "t": t})).map(|events| events[0].1)
    };
    let instant = 1_761_449_130_123;
    for text in [
        "2025-10-26T03:25:30.123Z",
        "2025-10-26t03:25:30.123z",
        "2025-10-26 03:25:30.123+00",
        "2025-10-26T05:25:30.123+02:00",
        "20251026T052530.123+0200",
        "2025-10-26T03:25:30.123456789Z",
        "2025-10-26T04:25:30.123+01:00[Europe/Berlin]",
        " 2025-10-26T03:25:30.123 ",
    ] {
        assert_eq!(of("", json!(text)), Ok(instant), "{text}");
    }
    assert_eq!(of("", json!("2025-10-26")), Ok(1_761_436_800_000), "midnight");
    // The hour that the clocks of Berlin show twice, and the one that they never show.
    let berlin = "zone = \"Europe/Berlin\"";
    assert_eq!(of(berlin, json!("2025-10-26T02:30:00")), Ok(1_761_438_600_000), "the first");
    assert_eq!(of(berlin, json!("2025-10-26T02:30:00+01:00")), Ok(1_761_442_200_000));
    assert_eq!(of(berlin, json!("2025-03-30T02:30:00")), Ok(1_743_298_200_000), "half past three");
    let log = "format = \"%d/%b/%Y:%H:%M:%S %z\"";
    assert_eq!(of(log, json!("26/Oct/2025:05:25:30 +0200")), Ok(1_761_449_130_000));
    let compact = "format = \"%Y%m%d\"\nunit = \"s\"";
    assert_eq!(of(compact, json!("20251026")), Ok(1_761_436_800_000));
    assert_eq!(of(compact, json!(1_761_436_800)), Ok(1_761_436_800_000), "a number is one");
    assert_eq!(of("unit = \"ns\"", json!(1_761_449_130_123_456_789_i64)), Ok(instant));
    assert_eq!(of("unit = \"ns\"", json!("1761449130123456789")), Ok(instant));
    for (more, text, words) in [
        ("", "yesterday", "none in ISO 8601; is timestamp.format needed?"),
        ("", "2025-02-30", "none in ISO 8601"),
        (log, "2025-10-26", "no time like `%d/%b/%Y:%H:%M:%S %z`"),
    ] {
        let error = of(more, json!(text)).expect_err("no time");
        assert_eq!(error.reason(), "bad_timestamp");
        assert!(error.to_string().contains(words), "{error}");
    }
}
