//! Avro: a datum is read by the schema that it was written with; fields that this one lacks are
//! missing, as in JSON. Unions are their value, enums their symbol, bytes their digits in hex.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde::de::DeserializeSeed as _;
use serde_avro_fast::de::read::SliceRead;
use serde_avro_fast::de::{DeserializerConfig, DeserializerState};
use serde_json::Value;

use super::Text;
use super::tree::Tree;
use crate::stream::decode::fields::Fields;
use crate::stream::decode::raw::FieldValues;

/// What says that the schema's fingerprint follows (the single-object encoding).
const SINGLE: [u8; 2] = [0xc3, 0x01];

/// More elements no array of a record has that is under a megabyte, unless they have no bytes.
const ELEMENTS_MAX: usize = super::super::RECORD_BYTES_MAX;

#[derive(Debug)]
pub(crate) struct Schema(serde_avro_fast::Schema);

impl Schema {
    pub(super) fn new(text: &Text) -> Result<Schema, String> {
        let whole = if text.references.is_empty() { text.text.clone() } else { inlined(text)? };
        let parsed = whole.parse::<serde_avro_fast::Schema>();
        parsed.map(Schema).map_err(|error| format!("no Avro schema: {error}"))
    }

    pub(super) fn read(
        &self,
        datum: &[u8],
        fields: &Fields,
        found: &mut FieldValues,
    ) -> Result<(), String> {
        let mut state = self.state(datum);
        fields.take(state.deserializer(), found).map_err(|error| error.to_string())?;
        ended(state)
    }

    /// The whole of a datum.
    pub(super) fn json(&self, datum: &[u8]) -> Result<Value, String> {
        let mut state = self.state(datum);
        let value = Tree.deserialize(state.deserializer()).map_err(|error| error.to_string())?;
        ended(state).map(|()| value)
    }

    fn state<'d>(&'d self, datum: &'d [u8]) -> State<'d> {
        let mut config = DeserializerConfig::new(&self.0);
        config.max_seq_size = ELEMENTS_MAX;
        DeserializerState::with_config(SliceRead::new(datum), config)
    }

    /// A datum without the head of the single-object encoding, if it has one of this schema.
    pub(crate) fn bare<'d>(&self, datum: &'d [u8]) -> &'d [u8] {
        let headed = datum.strip_prefix(&SINGLE);
        headed.and_then(|rest| rest.strip_prefix(self.0.rabin_fingerprint())).unwrap_or(datum)
    }
}

type State<'d> = DeserializerState<'d, SliceRead<'d>>;

fn ended(state: State<'_>) -> Result<(), String> {
    match state.into_reader().read(&mut [0]) {
        Ok(0) => Ok(()),
        _ => Err("bytes are left behind it".to_owned()),
    }
}

/// The schema as one text: each type that it refers to is spelt out where it is first named.
fn inlined(text: &Text) -> Result<String, String> {
    let json = |text: &str| {
        serde_json::from_str::<Value>(text).map_err(|error| format!("no Avro schema: {error}"))
    };
    let mut references = Vec::new();
    for (name, text) in &text.references {
        references.push((name.as_str(), json(text)?));
    }
    let mut schema = json(&text.text)?;
    spell_out(&mut schema, &references, &mut BTreeSet::new());
    Ok(schema.to_string())
}

fn spell_out<'r>(
    schema: &mut Value,
    references: &'r [(&'r str, Value)],
    spelt: &mut BTreeSet<&'r str>,
) {
    match schema {
        Value::String(named) => {
            let known = references.iter().find(|(name, _)| name == named);
            if let Some((name, definition)) = known.filter(|(name, _)| spelt.insert(name)) {
                debug_assert_eq!(name, named);
                *schema = definition.clone();
                spell_out(schema, references, spelt);
            }
        }
        Value::Array(union) => union.iter_mut().for_each(|kind| spell_out(kind, references, spelt)),
        Value::Object(keys) => {
            for key in ["type", "items", "values"] {
                if let Some(kind) = keys.get_mut(key) {
                    spell_out(kind, references, spelt);
                }
            }
            let fields = keys.get_mut("fields").and_then(Value::as_array_mut);
            fields.into_iter().flatten().for_each(|field| spell_out(field, references, spelt));
        }
        _ => {}
    }
}
