//! Protobuf: a message is read by the descriptor that its file compiles to.
//!
//! Fields have the names of the `.proto` file. One that may be absent and is (`optional`, a
//! message, one of a `oneof`) is missing; any other has its value, which is 0 or empty if nobody
//! set it. Enums are their names, maps are objects, bytes their digits in hex; `Timestamp` is its
//! text and a wrapper its value, as Protobuf's JSON has it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use jiff::Timestamp;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::prost::Message as _;
use protox::prost_reflect::prost_types::FileDescriptorProto;
use protox::prost_reflect::{
    DynamicMessage, FieldDescriptor, FileDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::Text;
use super::tree::Tree;
use crate::stream::decode::fields::Fields;
use crate::stream::decode::raw::FieldValues;

/// Our name for the file; nobody imports it.
const FILE: &str = "millrace/record.proto";

#[derive(Debug)]
pub(crate) struct Schema(FileDescriptor);

/// The files that a schema imports.
struct Imports(BTreeMap<String, String>);

impl FileResolver for Imports {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let text = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        match compiled(text) {
            None => File::from_source(name, text),
            Some(mut file) => {
                file.name = Some(name.to_owned());
                Ok(File::from_file_descriptor_proto(file))
            }
        }
    }
}

/// The file of a schema that somebody has compiled: its descriptor in base64, as Confluent's client
/// for Python registers it.
fn compiled(text: &str) -> Option<FileDescriptorProto> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    FileDescriptorProto::decode(&*bytes).ok()
}

impl Schema {
    pub(super) fn new(Text { text, references }: &Text) -> Result<Schema, String> {
        let own = (FILE.to_owned(), text.clone());
        let mut files = ChainFileResolver::new();
        files.add(Imports(references.iter().cloned().chain([own]).collect()));
        files.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(files);
        compiler
            .include_imports(true)
            .open_file(FILE)
            .map_err(|error| format!("no Protobuf schema: {error}"))?;
        let file = compiler.descriptor_pool().get_file_by_name(FILE);
        file.map(Schema).ok_or_else(|| "it compiles to nothing".to_owned())
    }

    pub(super) fn read(
        &self,
        datum: &[u8],
        fields: &Fields,
        found: &mut FieldValues,
    ) -> Result<(), String> {
        let message = self.message(datum)?;
        fields.take(Message(&message), found).map_err(|error| error.to_string())
    }

    /// The whole of a datum.
    pub(super) fn json(&self, datum: &[u8]) -> Result<serde_json::Value, String> {
        let message = self.message(datum)?;
        Tree.deserialize(Message(&message)).map_err(|error| error.to_string())
    }

    fn message(&self, datum: &[u8]) -> Result<DynamicMessage, String> {
        let (kind, datum) = self.kind(datum)?;
        DynamicMessage::decode(kind, datum).map_err(|error| error.to_string())
    }

    /// Which of the file's messages a datum is, and the message itself. Its head is the way down
    /// to the type: how many places it has, and each of them; a single zero is the first message.
    fn kind<'d>(&self, datum: &'d [u8]) -> Result<(MessageDescriptor, &'d [u8]), String> {
        let mut rest = datum;
        let steps = match number(&mut rest)? {
            0 => vec![0],
            steps @ 1.. => {
                (0..steps.min(STEPS_MAX)).map(|_| number(&mut rest)).collect::<Result<_, _>>()?
            }
            _ => return Err("a number of places below 0".to_owned()),
        };
        let mut kind: Option<MessageDescriptor> = None;
        for step in steps {
            let step = usize::try_from(step).map_err(|_| "a place below 0".to_owned())?;
            let below = match &kind {
                None => self.0.messages().nth(step),
                Some(kind) => kind.child_messages().nth(step),
            };
            kind = Some(below.ok_or_else(|| format!("the schema has no message at place {step}"))?);
        }
        Ok((kind.ok_or_else(|| "no message is named".to_owned())?, rest))
    }
}

/// Messages lie in each other no deeper.
const STEPS_MAX: i64 = 64;

/// A number as Avro and Confluent's head write it: seven bits a byte, the sign last.
fn number(bytes: &mut &[u8]) -> Result<i64, String> {
    let mut bits = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("it ends in its head")?;
        *bytes = rest;
        bits |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
        }
    }
    Err("a number of more than 64 bits in its head".to_owned())
}

type Error = serde::de::value::Error;

/// A message as an object.
struct Message<'m>(&'m DynamicMessage);

impl<'de> Deserializer<'de> for Message<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let kind = self.0.descriptor();
        let part = |number| self.0.get_field_by_number(number);
        match kind.full_name().strip_prefix("google.protobuf.") {
            Some("Timestamp") => {
                let [seconds, nanos] = [part(1), part(2)];
                let seconds = seconds.and_then(|value| value.as_i64()).unwrap_or(0);
                let nanos = nanos.and_then(|value| value.as_i32()).unwrap_or(0);
                match Timestamp::new(seconds, nanos) {
                    Ok(time) => visitor.visit_str(&time.to_string()),
                    Err(error) => Err(Error::custom(error)),
                }
            }
            Some(wrapper) if wrapper.ends_with("Value") && wrapper != "Value" => {
                match (kind.get_field(1), part(1)) {
                    (Some(field), Some(value)) if wrapper != "ListValue" => {
                        Field(&value, &field.kind()).deserialize_any(visitor)
                    }
                    _ => visitor.visit_unit(),
                }
            }
            _ => visitor.visit_map(Members { message: self.0, next: 0, value: None, kind }),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

/// The fields of a message, in the order of their numbers.
struct Members<'m> {
    message: &'m DynamicMessage,
    kind: MessageDescriptor,
    next: usize,
    value: Option<FieldDescriptor>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while let Some(field) = self.kind.fields().nth(self.next) {
            self.next += 1;
            if field.supports_presence() && !self.message.has_field(&field) {
                continue;
            }
            let key = seed.deserialize(StrDeserializer::<Error>::new(field.name()))?;
            self.value = Some(field);
            return Ok(Some(key));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let field = self.value.take().expect("a key comes first");
        let value: Cow<'_, Value> = self.message.get_field(&field);
        seed.deserialize(Field(&value, &field.kind()))
    }
}

/// A field's value, or an element of it, of this kind.
struct Field<'m>(&'m Value, &'m Kind);

impl<'de> Deserializer<'de> for Field<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Field(value, kind) = self;
        match value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::I32(value) => visitor.visit_i64(i64::from(*value)),
            Value::I64(value) => visitor.visit_i64(*value),
            Value::U32(value) => visitor.visit_u64(u64::from(*value)),
            Value::U64(value) => visitor.visit_u64(*value),
            Value::F32(value) => visitor.visit_f64(f64::from(*value)),
            Value::F64(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_str(value),
            Value::Bytes(value) => visitor.visit_bytes(value),
            Value::EnumNumber(number) => match kind {
                // One that the schema does not name is its number.
                Kind::Enum(names) => match names.get_value(*number) {
                    Some(name) => visitor.visit_str(name.name()),
                    None => visitor.visit_i64(i64::from(*number)),
                },
                _ => visitor.visit_i64(i64::from(*number)),
            },
            Value::Message(message) => Message(message).deserialize_any(visitor),
            Value::List(list) => visitor.visit_seq(Elements { rest: list.iter(), kind }),
            Value::Map(map) => {
                let Kind::Message(entry) = kind else { return visitor.visit_unit() };
                let kind = entry.map_entry_value_field().kind();
                visitor.visit_map(Entries { rest: map.iter(), value: None, kind })
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// The elements of a repeated field.
struct Elements<'m> {
    rest: std::slice::Iter<'m, Value>,
    kind: &'m Kind,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.rest.next().map(|value| seed.deserialize(Field(value, self.kind))).transpose()
    }
}

/// The entries of a map.
struct Entries<'m, I> {
    rest: I,
    value: Option<&'m Value>,
    kind: Kind,
}

impl<'de, 'm, I: Iterator<Item = (&'m MapKey, &'m Value)>> MapAccess<'de> for Entries<'m, I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let key = match key {
            MapKey::Bool(key) => key.to_string(),
            MapKey::I32(key) => key.to_string(),
            MapKey::I64(key) => key.to_string(),
            MapKey::U32(key) => key.to_string(),
            MapKey::U64(key) => key.to_string(),
            MapKey::String(key) => key.clone(),
        };
        seed.deserialize(StrDeserializer::<Error>::new(&key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self.value.take().expect("a key comes first");
        seed.deserialize(Field(value, &self.kind))
    }
}
