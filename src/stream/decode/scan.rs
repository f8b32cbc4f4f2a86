//! One pass over a JSON text that keeps the mapped fields and skips the rest unread.
//!
//! The kept values go into a scratch that the next record reuses: a record costs no allocation.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The raw value of a mapped field. [`FieldValues`] holds the strings and the elements of arrays.
// It is returned through memory. A tag of a byte is stored as one and loaded with its neighbours,
// which waits for the store to reach the cache: a tenth of decoding.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u64)]
pub(crate) enum Raw {
    Missing,
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Span),
    List(Span),
    /// An object, or an array within an array: no mapped field takes one, so its content is gone.
    Nested,
}

/// The place of a string or an array in the scratch. 32 bits are enough: no record or line is
/// larger than 10 MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Span {
        let narrow = |at| u32::try_from(at).expect("a record is far below 4 GiB");
        Span { start: narrow(start), end: narrow(end) }
    }

    #[inline]
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Raw {
    /// Its kind, for messages.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Raw::Missing => "nothing",
            Raw::Null => "null",
            Raw::Bool(_) => "a boolean",
            Raw::Signed(_) | Raw::Unsigned(_) => "an integer",
            Raw::Float(_) => "a number with a decimal point or an exponent",
            Raw::Text(_) => "a string",
            Raw::List(_) => "an array",
            Raw::Nested => "an object or a nested array",
        }
    }

    /// `null` means the same as no field at all.
    #[inline]
    pub(crate) fn absent(self) -> bool {
        matches!(self, Raw::Missing | Raw::Null)
    }

    /// Null and empty strings name nothing.
    #[inline]
    pub(crate) fn names_something(self) -> bool {
        !self.absent() && !matches!(self, Raw::Text(text) if text.range().is_empty())
    }
}

/// The mapped fields as a tree of keys.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    root: Node,
    slots: usize,
}

/// The slots of a field's value. A dotted path has two: one for a key that is spelt with the dots,
/// one for the path through nested objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldPlace {
    literal: usize,
    nested: Option<usize>,
}

#[derive(Debug, Default)]
struct Node {
    // A handful of keys: comparing numbers beats hashing.
    children: Vec<Child>,
    slot: Option<usize>,
}

#[derive(Debug)]
struct Child {
    tail: u64,
    name: Box<str>,
    node: Node,
}

/// A key's last eight bytes. Keys of one log begin alike ("click_os", "click_region"), and seldom
/// end so.
#[inline]
fn tail(key: &str) -> u64 {
    let bytes = key.as_bytes();
    match bytes.last_chunk() {
        Some(last) => u64::from_be_bytes(*last),
        None => bytes.iter().fold(0, |tail, &byte| tail << 8 | u64::from(byte)),
    }
}

/// Elements of arrays have no mapped fields within.
static LEAF: Node = Node { children: Vec::new(), slot: None };

impl Fields {
    /// Maps `path`; the same path always has the same place.
    pub(crate) fn add(&mut self, path: &str) -> FieldPlace {
        let literal = self.root.slot_at(&mut std::iter::once(path), &mut self.slots);
        let nested =
            path.contains('.').then(|| self.root.slot_at(&mut path.split('.'), &mut self.slots));
        FieldPlace { literal, nested }
    }

    /// Reads `text`, which must be one JSON object, into `found`.
    pub(crate) fn scan(&self, text: &str, found: &mut FieldValues) -> Result<(), ScanError> {
        found.slots.clear();
        found.slots.resize(self.slots, Raw::Missing);
        found.elements.clear();
        found.text.clear();
        found.at = None;
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_map(Top { node: &self.root, found })
            .and_then(|()| json.end())
            .map_err(|error| ScanError { error, slot: found.at })
    }
}

/// Why a text could not be read, and the mapped field that was being read (or was read last).
#[derive(Debug)]
pub(crate) struct ScanError {
    pub(crate) error: serde_json::Error,
    slot: Option<usize>,
}

impl ScanError {
    /// True if the error came up at or after `place` and before the next mapped field.
    pub(crate) fn at(&self, place: FieldPlace) -> bool {
        self.slot == Some(place.literal) || (self.slot.is_some() && self.slot == place.nested)
    }
}

/// Values of the mapped fields of one record.
#[derive(Debug, Default)]
pub(crate) struct FieldValues {
    slots: Vec<Raw>,
    /// Elements of the mapped fields' arrays.
    elements: Vec<Raw>,
    /// Their strings, unescaped.
    text: String,
    at: Option<usize>,
}

impl FieldValues {
    /// The value at `place`; a key spelt with dots goes before a path through objects.
    #[inline]
    pub(crate) fn get(&self, place: FieldPlace) -> Raw {
        match (self.slots[place.literal], place.nested) {
            (Raw::Missing, Some(nested)) => self.slots[nested],
            (literal, _) => literal,
        }
    }

    /// A string.
    #[inline]
    pub(crate) fn text(&self, span: Span) -> &str {
        &self.text[span.range()]
    }

    /// Elements of an array.
    #[inline]
    pub(crate) fn elements(&self, span: Span) -> &[Raw] {
        &self.elements[span.range()]
    }
}

impl Node {
    fn slot_at(&mut self, path: &mut dyn Iterator<Item = &str>, slots: &mut usize) -> usize {
        let Some(key) = path.next() else {
            return *self.slot.get_or_insert_with(|| {
                *slots += 1;
                *slots - 1
            });
        };
        let known = self.children.iter().position(|child| *child.name == *key);
        let index = known.unwrap_or_else(|| {
            let child = Child { tail: tail(key), name: key.into(), node: Node::default() };
            self.children.push(child);
            self.children.len() - 1
        });
        self.children[index].node.slot_at(path, slots)
    }

    #[inline]
    fn child(&self, key: &str) -> Option<&Node> {
        let tail = tail(key);
        let child = self.children.iter().find(|child| child.tail == tail && *child.name == *key);
        child.map(|child| &child.node)
    }

    /// If a key repeats, the last one wins, with everything below it.
    fn clear(&self, found: &mut FieldValues) {
        if let Some(slot) = self.slot {
            found.slots[slot] = Raw::Missing;
        }
        self.children.iter().for_each(|child| child.node.clear(found));
    }

    fn read_map<'de, A: MapAccess<'de>>(
        &self,
        found: &mut FieldValues,
        mut map: A,
    ) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Key(self))? {
            let Some(node) = child else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            node.clear(found);
            found.at = node.slot.or(found.at);
            let raw = map.next_value_seed(Value { node, found, in_list: false })?;
            if let Some(slot) = node.slot {
                found.slots[slot] = raw;
            }
        }
        Ok(())
    }
}

/// The record itself.
struct Top<'f> {
    node: &'f Node,
    found: &'f mut FieldValues,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.node.read_map(self.found, map)
    }
}

/// A key: which mapped node it names, if any. Nothing is allocated, escapes included.
struct Key<'f>(&'f Node);

impl<'de, 'f> DeserializeSeed<'de> for Key<'f> {
    type Value = Option<&'f Node>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'f> Visitor<'_> for Key<'f> {
    type Value = Option<&'f Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(key))
    }
}

/// The value of a mapped key, or an element of its array.
struct Value<'f> {
    node: &'f Node,
    found: &'f mut FieldValues,
    in_list: bool,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Raw;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Raw, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::Unsigned(value), Raw::Signed))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Raw, E> {
        let start = self.found.text.len();
        self.found.text.push_str(value);
        Ok(Raw::Text(Span::new(start, self.found.text.len())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        if self.in_list {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Raw::Nested);
        }
        let found = self.found;
        let start = found.elements.len();
        while let Some(raw) = list.next_element_seed(Value { node: &LEAF, found, in_list: true })? {
            found.elements.push(raw);
        }
        Ok(Raw::List(Span::new(start, found.elements.len())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Raw, A::Error> {
        self.node.read_map(self.found, map)?;
        Ok(Raw::Nested)
    }
}
