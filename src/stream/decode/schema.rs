//! Records by a schema that is known at run time only.
//!
//! A datum is walked once, by the same visitors as JSON: its fields go into the same columns, and
//! no text of it is made between. Pure: where schemas come from is for others to know.

mod avro;
mod protobuf;
mod tree;

use super::error::DecodeError;
use super::fields::Fields;
use super::raw::FieldValues;

/// A schema, ready to read by.
#[derive(Debug)]
pub(crate) enum Schema {
    /// Avro's, by which the datum was written.
    Avro(avro::Schema),
    /// A file of Protobuf messages.
    Protobuf(protobuf::Schema),
}

/// The text of a schema, and of those that it refers to, each by the name that it has for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) references: Vec<(String, String)>,
}

impl Schema {
    /// Of an Avro schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn avro(text: &Text) -> Result<Schema, String> {
        avro::Schema::new(text).map(Schema::Avro)
    }

    /// Of a `.proto` file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn protobuf(text: &Text) -> Result<Schema, String> {
        protobuf::Schema::new(text).map(Schema::Protobuf)
    }

    /// Reads the mapped fields of `datum`.
    pub(super) fn read(
        &self,
        datum: &[u8],
        fields: &Fields,
        found: &mut FieldValues,
    ) -> Result<(), DecodeError> {
        let read = match self {
            Schema::Avro(schema) => schema.read(datum, fields, found),
            Schema::Protobuf(schema) => schema.read(datum, fields, found),
        };
        read.map_err(|reason| DecodeError::BadDatum { reason })
    }

    /// The whole of `datum`, as JSON.
    ///
    /// # Errors
    /// It is none of this schema.
    pub(crate) fn json(&self, datum: &[u8]) -> Result<serde_json::Value, String> {
        match self {
            Schema::Avro(schema) => schema.json(datum),
            Schema::Protobuf(schema) => schema.json(datum),
        }
    }
}

#[cfg(test)]
mod tests;
