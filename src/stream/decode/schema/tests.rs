//! The same events in JSON, in Avro and in Protobuf are the same columns. The bytes of the latter
//! two are written here by hand, as their specifications have them, but for what a varint is.

use super::*;
use crate::stream::decode::{Content, DecodeError, Envelope, Mapping};
use millrace_events::Events;
use protox::prost_reflect::prost::encoding::encode_varint;

const CONFIG: &str = r#"
    [timestamp]
    field = "at"
    [[event]]
    where = { field = "kind", in = ["BUY", "VIEW"] }
    [reward]
    field = "stars"
    scale = 0.2
    missing = 0.5
    [query]
    id = "user.id"
    features = [
        { name = "user", kind = "id", field = "user.id", table = "user" },
        { name = "country", kind = "id", field = "user.country", table = "c", optional = true },
        { name = "extra", kind = "number", field = "extra.age", optional = true },
    ]
    [item]
    id = "lines[].sku"
    features = [
        { name = "sku", kind = "id", field = "lines[].sku", table = "item" },
        { name = "tags", kind = "bag", field = "lines[].tags", table = "tag", optional = true },
        { name = "price", kind = "number", field = "lines[].price", optional = true },
    ]
"#;

fn mapping(config: &str) -> Mapping {
    Mapping::new(&toml::from_str(config).expect("a test's config parses"))
}

/// The events of a record.
fn read(config: &str, content: Content<'_>) -> Result<Events, DecodeError> {
    let config: crate::config::Config = toml::from_str(config).expect("a test's config parses");
    let mut events = crate::stream::events_of(&config);
    let envelope = Envelope { time_ms: Some(1_700_000_000_123), outside: &|_| None };
    Mapping::new(&config).decode_record(content, &envelope, &mut events)?;
    Ok(events)
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned(), references: Vec::new() }
}

/// An Avro integer.
fn long(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), &mut bytes);
    bytes
}

/// An Avro string, or bytes.
fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    [long(i64::try_from(bytes.len()).expect("short")), bytes.to_vec()].concat()
}

const AVRO: &str = r#"{"type": "record", "name": "Event", "namespace": "shop", "fields": [
    {"name": "unused", "type": {"type": "map", "values": ["null", "double"]}},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["VIEW", "BUY"]}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "stars", "type": ["null", "float"], "default": null},
    {"name": "user", "type": {"type": "record", "name": "User", "fields": [
        {"name": "id", "type": "long"}, {"name": "country", "type": ["null", "string"]}]}},
    {"name": "extra", "type": {"type": "map", "values": "double"}},
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line",
        "fields": [
            {"name": "sku", "type": "string"},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "price", "type": "double"}]}}}]}"#;

/// What [`AVRO`] describes, of `user` and a price.
fn avro(user: i64, price: f64) -> Vec<u8> {
    let line = |sku: &str, tag: &str, price: f64| {
        let tags = [long(1), string(tag), long(0)].concat();
        [string(sku), tags, price.to_le_bytes().to_vec()].concat()
    };
    let unused = [long(1), string("x"), long(1), 1.5_f64.to_le_bytes().to_vec(), long(0)].concat();
    let stars = [long(1), 5_f32.to_le_bytes().to_vec()].concat();
    let country = [long(1), string("br")].concat();
    let extra = [long(1), string("age"), 31_f64.to_le_bytes().to_vec(), long(0)].concat();
    let lines = [long(2), line("i1", "a", price), line("i2", "b", 2.5), long(0)].concat();
    let at = long(1_700_000_000_123);
    [unused, long(1), at, stars, long(user), country, extra, lines].concat()
}

const PROTO: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message Other { string text = 1; }
    message Event {
        enum Kind { VIEW = 0; BUY = 1; }
        message User { sint64 id = 1; optional string country = 2; }
        message Line { string sku = 1; repeated string tags = 2; optional double price = 3; }
        Kind kind = 1;
        google.protobuf.Timestamp at = 2;
        google.protobuf.FloatValue stars = 3;
        User user = 4;
        map<string, double> extra = 5;
        repeated Line lines = 6;
        bytes raw = 7;
    }
"#;

/// A Protobuf field of bytes.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    assert!(bytes.len() < 0x80);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// A Protobuf field of a varint; its bits are those of an Avro one, unfolded.
fn varint(number: u8, bits: u64) -> Vec<u8> {
    let mut bytes = vec![number << 3];
    encode_varint(bits, &mut bytes);
    bytes
}

fn double(number: u8, value: f64) -> Vec<u8> {
    [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
}

/// What [`PROTO`]'s second message describes, its place in front.
fn proto(user: i64, price: f64) -> Vec<u8> {
    let line = |sku: &str, tag: &str, price: f64| {
        field(6, [field(1, sku), field(2, tag), double(3, price)].concat())
    };
    let folded = ((user << 1) ^ (user >> 63)).cast_unsigned();
    let float = [&[1 << 3 | 5][..], &5_f32.to_le_bytes()].concat();
    [
        vec![2, 2], // one place: 1
        varint(1, 1),
        field(2, [varint(1, 1_700_000_000), varint(2, 123_000_000)].concat()),
        field(3, float),
        field(4, [varint(1, folded), field(2, "br")].concat()),
        field(5, [field(1, "age"), double(2, 31.0)].concat()),
        line("i1", "a", price),
        line("i2", "b", 2.5),
    ]
    .concat()
}

fn json(user: i64, price: &str) -> String {
    format!(
        r#"{{"kind": "BUY", "at": 1700000000123, "stars": 5,
            "user": {{"id": {user}, "country": "br"}},
            "extra": {{"age": 31}}, "lines": [{{"sku": "i1", "tags": ["a"], "price": {price}}},
            {{"sku": "i2", "tags": ["b"], "price": 2.5}}]}}"#
    )
}

#[test]
fn the_same_events_are_the_same_columns() {
    let avro_schema = Schema::avro(&text(AVRO)).expect("a schema");
    let proto_schema = Schema::protobuf(&text(PROTO)).expect("a schema");
    // Exact where a float would round.
    for user in [7, -7, i64::MAX, i64::MIN, 9_007_199_254_740_993] {
        let told = json(user, "12.25");
        let json = read(CONFIG, Content::Text(Some(told.as_bytes()))).expect("JSON");
        assert_eq!((json.len(), json.times_ms[0], json.rewards[0]), (2, 1_700_000_000_123, 1.0));
        let avro = read(CONFIG, Content::Datum(&avro_schema, &avro(user, 12.25)));
        assert_eq!(avro.as_ref(), Ok(&json), "Avro, user {user}");
        let proto = read(CONFIG, Content::Datum(&proto_schema, &proto(user, 12.25)));
        assert_eq!(proto.as_ref(), Ok(&json), "Protobuf, user {user}");
    }
}

#[test]
fn a_whole_datum_as_json_holds_what_the_mapping_reads_of_it() {
    let avro_schema = Schema::avro(&text(AVRO)).expect("a schema");
    let proto_schema = Schema::protobuf(&text(PROTO)).expect("a schema");
    for (schema, datum) in
        [(&avro_schema, avro(i64::MAX, 12.25)), (&proto_schema, proto(i64::MIN, 12.25))]
    {
        let json = schema.json(&datum).expect("a datum").to_string();
        let of_json = read(CONFIG, Content::Text(Some(json.as_bytes())));
        assert_eq!(of_json, read(CONFIG, Content::Datum(schema, &datum)), "{json}");
        assert!(of_json.is_ok_and(|events| events.len() == 2));
        assert!(schema.json(&datum[..datum.len() - 1]).is_err(), "it is cut");
    }
    let odd = avro_schema.json(&avro(7, f64::NAN)).expect("a datum");
    assert_eq!(odd["lines"][0]["price"], serde_json::Value::Null);
    let bytes = [vec![2, 2], field(7, [0x0a, 0xff])].concat();
    assert_eq!(proto_schema.json(&bytes).expect("a datum")["raw"], "0aff");
}

#[test]
fn a_number_that_is_none_is_rejected_where_it_is_needed() {
    let needed = CONFIG.replace("\"lines[].price\", optional = true", "\"lines[].price\"");
    let avro_schema = Schema::avro(&text(AVRO)).expect("a schema");
    let proto_schema = Schema::protobuf(&text(PROTO)).expect("a schema");
    for price in [f64::NAN, f64::INFINITY] {
        for (schema, datum) in [(&avro_schema, avro(7, price)), (&proto_schema, proto(7, price))] {
            let error = read(&needed, Content::Datum(schema, &datum)).expect_err("no number");
            assert_eq!((error.reason(), error.field()), ("bad_number", Some("lines[].price")));
            let events = read(CONFIG, Content::Datum(schema, &datum)).expect("it is optional");
            assert_eq!(events.len(), 2);
        }
    }
}

#[test]
fn what_a_message_lacks_is_missing_or_has_its_default() {
    let schema = Schema::protobuf(&text(PROTO)).expect("a schema");
    let config = |reward: &str| {
        format!(
            "[query]\nid = \"user.id\"\n[[query.features]]\nname = \"c\"\nkind = \"id\"\n\
             table = \"c\"\nfield = \"user.country\"\n[item]\nid = \"kind\"\n[reward]\n{reward}"
        )
    };
    let plain = config("field = \"stars\"\nmissing = 0.25");
    // A user whose id nobody set is user 0; a country that nobody set is none.
    let datum = [vec![2, 2], field(4, field(2, "br"))].concat();
    let events = read(&plain, Content::Datum(&schema, &datum)).expect("an event");
    assert_eq!((events.query_ids[0], events.rewards[0]), (millrace_events::id_key(b"0"), 0.25));
    assert_eq!(events.item_names.get(0), "VIEW");
    let datum = [vec![2, 2], field(4, varint(1, 2))].concat();
    let error = read(&plain, Content::Datum(&schema, &datum)).expect_err("no country");
    assert_eq!((error.reason(), error.field()), ("missing_field", Some("user.country")));
    let datum = [vec![2, 2]].concat();
    let error = read(&plain, Content::Datum(&schema, &datum)).expect_err("no user");
    assert_eq!((error.reason(), error.field()), ("missing_field", Some("user.id")));
}

#[test]
fn a_message_is_found_by_its_place() {
    let nested = r#"syntax = "proto2"; message A { required string x = 1;
        message B { message C { required string id = 1; } } }"#;
    let schema = Schema::protobuf(&text(nested)).expect("a schema");
    let config = "[query]\nid = \"id\"\n[item]\nid = \"id\"";
    let first = "[query]\nid = \"x\"\n[item]\nid = \"x\"";
    // Three places: 0, 0, 0. Then the short form of a single 0.
    let datum = [vec![6, 0, 0, 0], field(1, "i1")].concat();
    let events = read(config, Content::Datum(&schema, &datum)).expect("message C");
    assert_eq!(events.item_names.get(0), "i1");
    let datum = [vec![0], field(1, "i2")].concat();
    let events = read(first, Content::Datum(&schema, &datum)).expect("message A");
    assert_eq!(events.item_names.get(0), "i2");
    for (datum, part) in [
        (&[][..], "ends in its head"),
        (&[2, 2], "no message at place 1"),
        (&[1], "below 0"),
        (&[0, 0x0a], "varint"),
        (&[0xff; 12], "64 bits"),
    ] {
        let error = read(config, Content::Datum(&schema, datum)).expect_err("no datum");
        assert_eq!(error.reason(), "bad_datum");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_datum_of_another_schema_is_rejected() {
    let schema = Schema::avro(&text(AVRO)).expect("a schema");
    let whole = avro(7, 1.0);
    for datum in [&whole[..whole.len() - 1], &[&whole[..], &[0]].concat(), b""] {
        let error = read(CONFIG, Content::Datum(&schema, datum)).expect_err("no datum");
        assert_eq!(error.reason(), "bad_datum", "{error}");
    }
    // A million empty elements in four bytes.
    let nulls = r#"{"type": "record", "name": "E", "fields": [
        {"name": "id", "type": {"type": "array", "items": "null"}}]}"#;
    let schema = Schema::avro(&text(nulls)).expect("a schema");
    let config = "[query]\nid = \"id\"\n[item]\nid = \"id\"";
    let error = read(config, Content::Datum(&schema, &[long(1 << 40), long(0)].concat()));
    assert_eq!(error.expect_err("too many").reason(), "bad_datum");
    let number = Schema::avro(&text("\"long\"")).expect("a schema");
    let error = read(config, Content::Datum(&number, &long(7))).expect_err("no record");
    assert!(error.to_string().contains("an object"), "{error}");
}

#[test]
fn schemas_that_refer_to_others_are_whole() {
    let user = r#"{"type": "record", "name": "User", "namespace": "shop", "fields": [
        {"name": "id", "type": "shop.Id"}]}"#;
    let id = r#"{"type": "fixed", "name": "Id", "namespace": "shop", "size": 2}"#;
    let event = r#"{"type": "record", "name": "Event", "fields": [
        {"name": "user", "type": "shop.User"}, {"name": "item", "type": ["null", "shop.Id"]}]}"#;
    let references = [("shop.User", user), ("shop.Id", id)];
    let references = references.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
    let schema = Schema::avro(&Text { text: event.to_owned(), references }).expect("a schema");
    let config = "[query]\nid = \"user.id\"\n[item]\nid = \"item\"";
    let datum = [&[0xab, 0x01][..], &long(1), &[0xff, 0x00]].concat();
    let events = read(config, Content::Datum(&schema, &datum)).expect("an event");
    // Bytes are their digits.
    assert_eq!(events.query_ids[0], millrace_events::id_key(b"ab01"));
    assert_eq!(events.item_names.get(0), "ff00");

    let event = "syntax = \"proto3\"; import \"shop/id.proto\"; message E { shop.Id id = 1; }";
    let id = "syntax = \"proto3\"; package shop; message Id { uint64 id = 1; }";
    let references = vec![("shop/id.proto".to_owned(), id.to_owned())];
    let schema = Schema::protobuf(&Text { text: event.to_owned(), references }).expect("a schema");
    let datum = [vec![0], field(1, varint(1, u64::MAX))].concat();
    let config = "[query]\nid = \"id.id\"\n[item]\nid = \"id.id\"";
    let events = read(config, Content::Datum(&schema, &datum)).expect("an event");
    assert_eq!(events.item_names.get(0), u64::MAX.to_string());
    let alone = Schema::protobuf(&text(event)).expect_err("an import is not there");
    assert!(alone.contains("shop/id.proto"), "{alone}");
    assert!(Schema::avro(&text("{\"type\": \"recrod\"}")).is_err());
}

/// docs/how-to/your-log.md has the same table.
#[test]
fn ids_of_avro_are_their_text_or_their_digits() {
    let item = |kind: &str, datum: &[u8]| {
        let schema = format!(
            r#"{{"type": "record", "name": "E", "fields": [{{"name": "id", "type": {kind}}}]}}"#
        );
        let schema = Schema::avro(&text(&schema)).expect("a schema");
        let config = "[query]\nid = \"id\"\n[item]\nid = \"id\"";
        let events = read(config, Content::Datum(&schema, datum));
        events.map(|events| events.item_names.get(0).to_owned()).map_err(|error| error.reason())
    };
    let told = |text: &str| Ok(text.to_owned());
    assert_eq!(item("\"long\"", &long(-3)), told("-3"));
    assert_eq!(item("\"int\"", &long(17)), told("17"));
    assert_eq!(item("[\"null\", \"string\"]", &[long(1), string("17")].concat()), told("17"));
    assert_eq!(item("[\"null\", \"string\"]", &long(0)), Err("missing_field"));
    assert_eq!(item("\"boolean\"", &[1]), told("true"));
    assert_eq!(item("\"double\"", &17_f64.to_le_bytes()), Err("wrong_type"));
    assert_eq!(item("\"bytes\"", &string([0x0a, 0xff])), told("0aff"));
    let uuid = "7b0f9d1e-2a34-4c56-8d78-9e0f1a2b3c4d";
    let logical = |of: &str| format!("{{{of}, \"logicalType\": \"uuid\"}}");
    assert_eq!(item(&logical("\"type\": \"string\""), &string(uuid)), told(uuid));
    let fixed = logical("\"type\": \"fixed\", \"name\": \"U\", \"size\": 2");
    assert_eq!(item(&fixed, &[0x7b, 0x0f]), told("7b0f"));
    let decimal = r#"{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}"#;
    assert_eq!(item(decimal, &string([0x06, 0xa4])), told("17.00"));
}

/// The descriptor of `message E { string user = 1; }`, as Confluent's client for Python sends it.
#[test]
fn a_compiled_schema_is_read_as_well() {
    let compiled = "CgdlLnByb3RvEgF4Gh9nb29nbGUvcHJvdG9idWYvdGltZXN0YW1wLnByb3RvIjkKAUUSDAoEdXNlch\
                    gBIAEoCRImCgJhdBgCIAEoCzIaLmdvb2dsZS5wcm90b2J1Zi5UaW1lc3RhbXBiBnByb3RvMw==";
    let schema = Schema::protobuf(&text(compiled)).expect("a schema");
    let config = "[query]\nid = \"user\"\n[item]\nid = \"user\"";
    let datum = [vec![0], field(1, "u1")].concat();
    let events = read(config, Content::Datum(&schema, &datum)).expect("an event");
    assert_eq!(events.item_names.get(0), "u1");
}

#[test]
fn the_single_object_encoding_is_told_by_its_fingerprint() {
    let Schema::Avro(schema) = Schema::avro(&text("\"int\"")).expect("a schema") else {
        panic!("Avro's");
    };
    // Of the specification's example of the type.
    let head = [0xc3, 0x01, 143, 92, 57, 63, 26, 213, 117, 114];
    assert_eq!(schema.bare(&[&head[..], &[6]].concat()), [6]);
    assert_eq!(schema.bare(&[0xc3, 0x01, 6]), [0xc3, 0x01, 6], "a datum may begin alike");
}

/// Both are decoded as fast as JSON, more or less; `--nocapture` shows it.
#[test]
#[ignore = "a measurement"]
fn events_a_second() {
    let avro_schema = Schema::avro(&text(AVRO)).expect("a schema");
    let proto_schema = Schema::protobuf(&text(PROTO)).expect("a schema");
    let (told, avro, proto) = (json(7, "12.25"), avro(7, 12.25), proto(7, 12.25));
    let all = [
        ("json", Content::Text(Some(told.as_bytes()))),
        ("avro", Content::Datum(&avro_schema, &avro)),
        ("protobuf", Content::Datum(&proto_schema, &proto)),
    ];
    for (name, content) in all.into_iter().cycle().take(9) {
        let mut mapping = mapping(CONFIG);
        let mut events = Events::new(3, 3);
        let envelope = Envelope { time_ms: Some(1_700_000_000_123), outside: &|_| None };
        let began = std::time::Instant::now();
        for _ in 0..100_000 {
            events.truncate(0);
            mapping.decode_record(content, &envelope, &mut events).expect("an event");
        }
        println!("{name}: {:.0} records/s", 1e5 / began.elapsed().as_secs_f64());
    }
}
