//! How an item's record looks: for any reader, for Qdrant's connector, for Kafka Connect.
//!
//! Must never know: a topic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use sha1_smol::Sha1;

use crate::config::{PublishConfig, PublishFormat, VectorFormat};

/// What all records of a version say alike.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    /// The checkpoint's id.
    pub(super) version: String,
    /// Its step.
    pub(super) step: u64,
    /// Time of the newest event it was trained on, ms since 1970.
    pub(super) event_time_ms: i64,
}

/// Writes records in the config's format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    record: PublishFormat,
    vector: VectorFormat,
}

impl Format {
    pub(super) fn of(config: &PublishConfig) -> Format {
        Format { record: config.format, vector: config.vector }
    }

    /// Its names, as the config and markers write them: of a record, of its vector.
    pub(super) fn names(self) -> [String; 2] {
        let name = |value: Value| value.as_str().unwrap_or_default().to_owned();
        [name(json!(self.record)), name(json!(self.vector))]
    }

    /// The key of an item's records.
    pub(super) fn key(self, id: &str) -> Vec<u8> {
        match self.record {
            PublishFormat::Flat => id.as_bytes().to_vec(),
            PublishFormat::Qdrant => bytes(&Point { id: point_id(id) }),
            PublishFormat::Connect => with_schema(KEY_SCHEMA, &Key { id }),
        }
    }

    /// The value of the record of item `id`; `vector` is `[dim]`, and `said` the text of an object
    /// of attributes.
    pub(super) fn value(
        self,
        heading: &Heading,
        (id, said): (&str, Option<String>),
        log_q: f32,
        vector: &[f32],
    ) -> Vec<u8> {
        let Heading { version, step, event_time_ms } = heading;
        let (step, event_time_ms) = (*step, *event_time_ms);
        let has_attributes = said.is_some();
        let attributes = said.map(|text| match self.record {
            PublishFormat::Connect => Value::String(text),
            _ => serde_json::from_str(&text).expect("it was written as JSON"),
        });
        match self.record {
            PublishFormat::Flat => {
                let vector = self.flat_vector(vector);
                bytes(&Flat { id, version, step, event_time_ms, log_q, vector, attributes })
            }
            PublishFormat::Qdrant => {
                let payload = Payload { item: id, version, step, event_time_ms, log_q, attributes };
                bytes(&ValuedPoint { id: point_id(id), vector, payload })
            }
            PublishFormat::Connect => {
                let vector = Vector::Numbers(vector);
                let row = Flat { id, version, step, event_time_ms, log_q, vector, attributes };
                let said = if has_attributes { ATTRIBUTES_SCHEMA } else { "" };
                with_schema(&[VALUE_SCHEMA, said, "]}"].concat(), &row)
            }
        }
    }

    fn flat_vector(self, vector: &[f32]) -> Vector<'_> {
        let encoded = |bytes: Vec<u8>| Vector::Text(STANDARD.encode(bytes));
        match self.vector {
            VectorFormat::Json => Vector::Numbers(vector),
            VectorFormat::Base64F32 => {
                encoded(vector.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            VectorFormat::Base64Bf16 => {
                encoded(vector.iter().flat_map(|&value| bf16(value).to_le_bytes()).collect())
            }
        }
    }
}

/// The upper half of an f32, rounded to the nearest, ties to even. `value` is finite.
pub(super) fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounding = 0x7fff + (bits >> 16 & 1);
    (bits.wrapping_add(rounding) >> 16) as u16
}

/// The number that [`bf16`] stands for.
pub(super) fn of_bf16(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// `NAMESPACE_OID` of RFC 9562.
const NAMESPACE: u128 = 0x6ba7_b812_9dad_11d1_80b4_00c0_4fd4_30c8;

/// Qdrant's points are numbered, or have a UUID: Python's `uuid.uuid5(uuid.NAMESPACE_OID, id)`. The
/// crate for it would change the features under which burn is built.
fn point_id(id: &str) -> String {
    let mut hash = Sha1::from(NAMESPACE.to_be_bytes());
    hash.update(id.as_bytes());
    let [a, b, c, d, e, f, version, g, variant, h, rest @ ..] = hash.digest().bytes();
    let word =
        |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!(
        "{}-{}-{}-{}-{}",
        word(&[a, b, c, d]),
        word(&[e, f]),
        word(&[version & 0x0f | 0x50, g]),
        word(&[variant & 0x3f | 0x80, h]),
        word(&rest[..6])
    )
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers are JSON")
}

/// What Connect's `JsonConverter` reads with `schemas.enable`.
fn with_schema(schema: &str, payload: &impl Serialize) -> Vec<u8> {
    let payload = bytes(payload);
    let mut value = Vec::with_capacity(schema.len() + payload.len() + 24);
    value.extend_from_slice(b"{\"schema\":");
    value.extend_from_slice(schema.as_bytes());
    value.extend_from_slice(b",\"payload\":");
    value.extend_from_slice(&payload);
    value.push(b'}');
    value
}

const KEY_SCHEMA: &str = concat!(
    r#"{"type":"struct","name":"millrace.item.Key","optional":false,"fields":["#,
    r#"{"field":"id","type":"string","optional":false}]}"#
);

/// Without its end. The name of the array's type is what Debezium's sink makes a `vector` of
/// pgvector from.
const VALUE_SCHEMA: &str = concat!(
    r#"{"type":"struct","name":"millrace.item.Value","optional":false,"fields":["#,
    r#"{"field":"id","type":"string","optional":false},"#,
    r#"{"field":"version","type":"string","optional":false},"#,
    r#"{"field":"step","type":"int64","optional":false},"#,
    r#"{"field":"event_time_ms","type":"int64","optional":false},"#,
    r#"{"field":"log_q","type":"float","optional":false},"#,
    r#"{"field":"vector","type":"array","name":"io.debezium.data.DoubleVector","optional":false,"#,
    r#""items":{"type":"double","optional":false}}"#
);

/// Debezium's sink makes a column of JSON from it. Optional: a table that is there gets it as
/// one more column.
const ATTRIBUTES_SCHEMA: &str =
    r#",{"field":"attributes","type":"string","name":"io.debezium.data.Json","optional":true}"#;

#[derive(Serialize)]
struct Key<'r> {
    id: &'r str,
}

#[derive(Serialize)]
struct Flat<'r> {
    id: &'r str,
    version: &'r str,
    step: u64,
    event_time_ms: i64,
    log_q: f32,
    vector: Vector<'r>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'r> {
    Numbers(&'r [f32]),
    Text(String),
}

#[derive(Serialize)]
struct Point {
    id: String,
}

#[derive(Serialize)]
struct ValuedPoint<'r> {
    id: String,
    vector: &'r [f32],
    payload: Payload<'r>,
}

#[derive(Serialize)]
struct Payload<'r> {
    item: &'r str,
    version: &'r str,
    step: u64,
    event_time_ms: i64,
    log_q: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(record: PublishFormat, vector: VectorFormat) -> (Vec<u8>, Value) {
        record_saying(record, vector, None)
    }

    fn record_saying(
        record: PublishFormat,
        vector: VectorFormat,
        said: Option<&str>,
    ) -> (Vec<u8>, Value) {
        let heading =
            Heading { version: "5eed0001-000000000007".into(), step: 7, event_time_ms: 1_700 };
        let format = Format { record, vector };
        let said = said.map(str::to_owned);
        let value = format.value(&heading, ("i\"3", said), -4.5, &[0.25, -1.0]);
        (format.key("i\"3"), serde_json::from_slice(&value).expect("JSON"))
    }

    #[test]
    fn each_format_is_what_its_reader_takes() {
        let (key, flat) = record(PublishFormat::Flat, VectorFormat::Json);
        assert_eq!(key, b"i\"3");
        let version = "5eed0001-000000000007";
        let row = json!({"id": "i\"3", "version": version, "step": 7, "event_time_ms": 1_700,
            "log_q": -4.5, "vector": [0.25, -1.0]});
        assert_eq!(flat, row);

        // python3 -c 'import uuid; print(uuid.uuid5(uuid.NAMESPACE_OID, "i\"3"))'
        let id = "6a5c0dab-252c-57e8-ab92-bed75382c04c";
        let (key, point) = record(PublishFormat::Qdrant, VectorFormat::Json);
        assert_eq!(serde_json::from_slice::<Value>(&key).expect("JSON"), json!({"id": id}));
        let payload = json!({"item": "i\"3", "version": version, "step": 7,
            "event_time_ms": 1_700, "log_q": -4.5});
        assert_eq!(point, json!({"id": id, "vector": [0.25, -1.0], "payload": payload}));

        let (key, value) = record(PublishFormat::Connect, VectorFormat::Json);
        let key: Value = serde_json::from_slice(&key).expect("JSON");
        assert_eq!(key["payload"], json!({"id": "i\"3"}));
        assert_eq!(value["payload"], row);
        for (schema, payload) in [(&key["schema"], &key["payload"]), (&value["schema"], &row)] {
            let fields = schema["fields"].as_array().expect("fields");
            let names: Vec<&str> = fields.iter().filter_map(|f| f["field"].as_str()).collect();
            let payload = payload.as_object().expect("an object");
            let mut own: Vec<&str> = payload.keys().map(String::as_str).collect();
            own.sort_unstable_by_key(|name| names.iter().position(|field| field == name));
            assert_eq!(names, own, "the schema names what is there");
        }
    }

    #[test]
    fn attributes_stand_where_a_store_can_filter_by_them() {
        let text = r#"{"title":"Alien \"3\"","genres":["war"],"price":2.5}"#;
        let object: Value = serde_json::from_str(text).expect("JSON");
        let said = |format| record_saying(format, VectorFormat::Json, Some(text)).1;
        assert_eq!(said(PublishFormat::Flat)["attributes"], object);
        assert_eq!(said(PublishFormat::Qdrant)["payload"]["attributes"], object);
        let connect = said(PublishFormat::Connect);
        assert_eq!(connect["payload"]["attributes"], json!(text));
        let field = connect["schema"]["fields"].as_array().and_then(|fields| fields.last());
        let json = json!({"field": "attributes", "type": "string", "optional": true,
            "name": "io.debezium.data.Json"});
        assert_eq!(field, Some(&json));
    }

    #[test]
    fn encoded_vectors_are_little_endian_and_round_to_the_nearest() {
        for (format, bytes) in [
            (VectorFormat::Base64F32, vec![0, 0, 0x80, 0x3e, 0, 0, 0x80, 0xbf]),
            (VectorFormat::Base64Bf16, vec![0x80, 0x3e, 0x80, 0xbf]),
        ] {
            let (_, value) = record(PublishFormat::Flat, format);
            let text = value["vector"].as_str().expect("a text");
            assert_eq!(STANDARD.decode(text).expect("base64"), bytes, "{format:?}");
        }
        for value in [1.0_f32, -0.3, 1e-7, 0.999_999] {
            let error = (of_bf16(bf16(value)) - value).abs();
            assert!(error <= value.abs() / 256.0, "{value}: {error}");
        }
        // Half way between two, to the even one: 1 + 1/256, 1 + 3/256.
        assert_eq!(of_bf16(bf16(1.0 + 1.0 / 256.0)), 1.0);
        assert_eq!(of_bf16(bf16(1.0 + 3.0 / 256.0)), 1.0 + 4.0 / 256.0);
    }
}
