use super::*;
use crate::config::InteractionsConfig;

fn wire(format: RecordFormat) -> Wire {
    let mut config = Config::default();
    config.kafka.format = format;
    Wire::open(&config).expect("nothing is needed")
}

/// The text that a reader of `wire` finds.
fn text(wire: &Wire, payload: &[u8]) -> Vec<u8> {
    assert!(!wire.lacks(Some(payload)), "no schema is needed");
    match Reader::new(wire).content(Some(payload)) {
        Ok(Content::Text(Some(text))) => text.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn json_behind_an_id_is_json_and_so_is_json_without() {
    let framed = wire(RecordFormat::JsonSchema);
    assert_eq!(text(&framed, b"\0\0\0\0\x07{\"a\": 1}"), b"{\"a\": 1}");
    assert_eq!(text(&framed, b"{\"a\": 1}"), b"{\"a\": 1}");
    assert_eq!(text(&framed, b"\0\0\0"), b"\0\0\0", "no id: the mapping says what it is not");
    assert!(matches!(Reader::new(&framed).content(None), Ok(Content::Text(None))));
    assert_eq!(text(&wire(RecordFormat::Json), b"\0\0\0\0\x07{}"), b"\0\0\0\0\x07{}");
}

#[cfg(feature = "registry")]
#[test]
fn bare_data_have_the_schema_of_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("event.avsc");
    let mut config = Config::default();
    config.kafka.format = RecordFormat::Avro;
    config.kafka.schema_file = file.display().to_string();
    let missing = Wire::open(&config).expect_err("no file").to_string();
    assert!(missing.contains("kafka.schema_file") && missing.contains("event.avsc"), "{missing}");
    std::fs::write(&file, "{\"type\": \"recrod\"}").expect("written");
    assert!(Wire::open(&config).is_err());
    std::fs::write(&file, "\"int\"").expect("written");
    let wire = Wire::open(&config).expect("a schema");
    assert!(!wire.lacks(Some(&[6])));
    let mut reader = Reader::new(&wire);
    let mut datum = |payload: &[u8]| match reader.content(Some(payload)) {
        Ok(Content::Datum(_, datum)) => Ok(datum.to_vec()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.reason()),
    };
    assert_eq!(datum(&[6]), Ok(vec![6]));
    let single = [0xc3, 0x01, 143, 92, 57, 63, 26, 213, 117, 114, 6];
    assert_eq!(datum(&single), Ok(vec![6]), "the single-object encoding");
    assert_eq!(datum(&[]), Err("empty"));
    assert_eq!(datum(&vec![0; RECORD_BYTES_MAX + 1]), Err("too_large"));
}

#[cfg(feature = "registry")]
#[test]
fn each_topic_is_read_by_the_schema_of_its_own_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, schema: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, schema).expect("written");
        file.display().to_string()
    };
    let other = |schema_file: Option<String>| InteractionsConfig {
        schema_file,
        ..InteractionsConfig::default()
    };
    let mut config = Config::default();
    config.kafka.format = RecordFormat::Avro;
    config.kafka.schema_file = file("number.avsc", "\"int\"");
    config.interactions = vec![other(None), other(Some(file("text.avsc", "\"string\"")))];
    let wires = Wires::open(&config).expect("schemas");
    let schemas: Vec<_> = wires
        .iter()
        .map(|wire| match wire {
            Wire::Bare(schema) => schema,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(Arc::ptr_eq(schemas[0], schemas[1]) && !Arc::ptr_eq(schemas[0], schemas[2]));
}

#[cfg(feature = "registry")]
#[test]
fn a_registry_needs_an_address() {
    let mut config = Config::default();
    config.kafka.format = RecordFormat::Protobuf;
    let error = Wire::open(&config).expect_err("as a version read by another config").to_string();
    assert!(error.contains("registry.url"), "{error}");
}

#[cfg(feature = "registry")]
#[test]
fn what_has_no_id_is_rejected_and_what_has_one_waits() {
    let mut config = Config::default();
    config.kafka.format = RecordFormat::Avro;
    config.registry.url = "http://127.0.0.1:1".to_owned();
    let wire = Wire::open(&config).expect("nobody is asked yet");
    let mut reader = Reader::new(&wire);
    for payload in [&b"{\"a\": 1}"[..], &[0, 0, 0, 0]] {
        assert!(!wire.lacks(Some(payload)));
        assert_eq!(
            reader.content(Some(payload)).map(drop).map_err(|e| e.reason()),
            Err("unframed")
        );
    }
    assert!(!wire.lacks(None) && wire.lacks(Some(&[0, 0, 0, 0, 7, 2])));
}
