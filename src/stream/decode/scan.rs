//! One pass over a JSON text that keeps the mapped fields and skips the rest unread.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What stood at a mapped field. Strings borrow from the record unless they hold escapes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw<'de> {
    Missing,
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Cow<'de, str>),
    List(Vec<Raw<'de>>),
    /// An object, or an array within an array: no mapped field takes one, so its content is gone.
    Nested,
}

impl Raw<'_> {
    /// What it is, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Raw::Missing => "nothing",
            Raw::Null => "null",
            Raw::Bool(_) => "a boolean",
            Raw::Signed(_) | Raw::Unsigned(_) => "an integer",
            Raw::Float(_) => "a number with a fraction",
            Raw::Text(_) => "a string",
            Raw::List(_) => "an array",
            Raw::Nested => "an object or a nested array",
        }
    }

    /// `null` means the same as no field at all.
    pub(crate) fn absent(&self) -> bool {
        matches!(self, Raw::Missing | Raw::Null)
    }
}

/// The mapped fields as a tree of keys.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    root: Node,
    slots: usize,
}

/// Where a field's value lands. A dotted path has two places: a key that is spelt with the dots,
/// and the path through nested objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    literal: usize,
    nested: Option<usize>,
}

#[derive(Debug, Default)]
struct Node {
    // A handful of keys: comparing lengths and bytes beats hashing.
    children: Vec<(Box<str>, Node)>,
    slot: Option<usize>,
}

/// Elements of arrays have no mapped fields within.
static LEAF: Node = Node { children: Vec::new(), slot: None };

impl Fields {
    /// Maps `path`; the same path always has the same place.
    pub(crate) fn add(&mut self, path: &str) -> Place {
        let literal = self.root.slot_at(&mut std::iter::once(path), &mut self.slots);
        let nested =
            path.contains('.').then(|| self.root.slot_at(&mut path.split('.'), &mut self.slots));
        Place { literal, nested }
    }

    /// Reads `text`, which must be one JSON object.
    pub(crate) fn scan<'de>(&self, text: &'de str) -> Result<Found<'de>, ScanError> {
        let mut found = Found { slots: vec![Raw::Missing; self.slots], at: None };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json
            .deserialize_map(Top { node: &self.root, found: &mut found })
            .and_then(|()| json.end());
        match read {
            Ok(()) => Ok(found),
            Err(error) => Err(ScanError { error, slot: found.at }),
        }
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
    pub(crate) fn at(&self, place: Place) -> bool {
        self.slot == Some(place.literal) || (self.slot.is_some() && self.slot == place.nested)
    }
}

/// Values of the mapped fields of one record.
#[derive(Debug)]
pub(crate) struct Found<'de> {
    slots: Vec<Raw<'de>>,
    at: Option<usize>,
}

impl<'de> Found<'de> {
    /// The value at `place`; a key spelt with dots goes before a path through objects.
    pub(crate) fn get(&self, place: Place) -> &Raw<'de> {
        match (&self.slots[place.literal], place.nested) {
            (Raw::Missing, Some(nested)) => &self.slots[nested],
            (literal, _) => literal,
        }
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
        let known = self.children.iter().position(|(name, _)| **name == *key);
        let index = known.unwrap_or_else(|| {
            self.children.push((key.into(), Node::default()));
            self.children.len() - 1
        });
        self.children[index].1.slot_at(path, slots)
    }

    fn child(&self, key: &str) -> Option<&Node> {
        self.children.iter().find(|(name, _)| **name == *key).map(|(_, node)| node)
    }

    /// Of a key that stands twice the last one counts, with everything below it.
    fn clear(&self, found: &mut Found<'_>) {
        if let Some(slot) = self.slot {
            found.slots[slot] = Raw::Missing;
        }
        for (_, child) in &self.children {
            child.clear(found);
        }
    }

    fn read_map<'de, A: MapAccess<'de>>(
        &self,
        found: &mut Found<'de>,
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
struct Top<'f, 'de> {
    node: &'f Node,
    found: &'f mut Found<'de>,
}

impl<'de> Visitor<'de> for Top<'_, 'de> {
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
struct Value<'f, 'de> {
    node: &'f Node,
    found: &'f mut Found<'de>,
    in_list: bool,
}

impl<'de> DeserializeSeed<'de> for Value<'_, 'de> {
    type Value = Raw<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Raw<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, 'de> {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Raw<'de>, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Raw<'de>, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Raw<'de>, E> {
        Ok(Raw::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Raw<'de>, E> {
        Ok(i64::try_from(value).map_or(Raw::Unsigned(value), Raw::Signed))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw<'de>, E> {
        Ok(Raw::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Raw<'de>, E> {
        Ok(Raw::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Raw<'de>, E> {
        Ok(Raw::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw<'de>, A::Error> {
        if self.in_list {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Raw::Nested);
        }
        let mut elements = Vec::new();
        let found = self.found;
        while let Some(raw) = list.next_element_seed(Value { node: &LEAF, found, in_list: true })? {
            elements.push(raw);
        }
        Ok(Raw::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Raw<'de>, A::Error> {
        self.node.read_map(self.found, map)?;
        Ok(Raw::Nested)
    }
}
