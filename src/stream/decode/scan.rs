//! One pass over a record, of JSON or by a schema, that keeps the mapped fields and skips the rest
//! unread.
//!
//! The kept values go into a scratch that the next record reuses: a record costs no allocation.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::{FieldPlace, Fields, LEAF, Node, Outside};
use super::raw::{EVENTS_MAX, FieldValues, Raw, Span};

impl Fields {
    /// Reads `text`, which must be a JSON object or an array of them, into `found`. `outside` gives
    /// what lies beside the record's value.
    pub(crate) fn scan<'r>(
        &self,
        text: &str,
        outside: &dyn Fn(&Outside) -> Option<&'r [u8]>,
        found: &mut FieldValues,
    ) -> Result<(), ScanError> {
        self.clear(outside, found);
        let mut json = serde_json::Deserializer::from_str(text);
        self.take(&mut json, found)
            .and_then(|()| json.end())
            .map_err(|error| ScanError { error, slot: found.at })
    }

    /// Makes room for the next record's values, of which `outside` gives those beside its own.
    pub(super) fn clear<'r>(
        &self,
        outside: &dyn Fn(&Outside) -> Option<&'r [u8]>,
        found: &mut FieldValues,
    ) {
        found.slots.clear();
        found.slots.resize(self.slots, Raw::Missing);
        found.elements.clear();
        found.text.clear();
        found.rows.clear();
        (found.events, found.rows_are_whole) = (0, false);
        found.at = None;
        for (what, slot) in &self.beside {
            let text = outside(what).and_then(|bytes| std::str::from_utf8(bytes).ok());
            found.slots[*slot] = text.map_or(Raw::Missing, |text| found.keep(text));
        }
    }

    /// Reads the mapped fields of a record, whatever it is written in.
    pub(super) fn take<'de, D: Deserializer<'de>>(
        &self,
        record: D,
        found: &mut FieldValues,
    ) -> Result<(), D::Error> {
        record.deserialize_any(Top { fields: self, found: &mut *found })?;
        self.choose(found);
        Ok(())
    }

    /// Fills the slots of fields that have alternatives.
    #[inline]
    fn choose(&self, found: &mut FieldValues) {
        for (slot, places) in &self.alternatives {
            let mut values = places.iter().map(|place| found.get(*place));
            found.slots[*slot] = values.find(|raw| raw.names_something()).unwrap_or(Raw::Missing);
        }
    }

    /// Whether a record is an event without an element of its array.
    fn is_alone(&self, found: &mut FieldValues) -> bool {
        let Some(place) = self.alone else { return false };
        self.choose(found);
        found.get(place).names_something()
    }

    /// Puts event `event` of the record that was read last in the slots.
    pub(crate) fn select(&self, event: usize, found: &mut FieldValues) {
        let FieldValues { slots, rows, rows_are_whole, .. } = found;
        if *rows_are_whole {
            slots.copy_from_slice(&rows[event * self.slots..][..self.slots]);
        } else if !self.each.is_empty() {
            let row = &rows[event * self.each.len()..][..self.each.len()];
            self.each.iter().zip(row).for_each(|(&slot, &raw)| slots[slot] = raw);
        }
        self.choose(found);
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
    pub(crate) fn at(&self, fields: &Fields, place: FieldPlace) -> bool {
        self.slot.is_some_and(|slot| fields.holds(place, slot))
    }
}

impl Node {
    /// If a key repeats, the last one wins, with everything below it.
    fn clear(&self, fields: &Fields, found: &mut FieldValues) {
        self.slots(&mut |slot| found.slots[slot] = Raw::Missing);
        if !fields.each.is_empty() && self.holds_each() {
            found.rows.clear();
            found.events = 0;
        }
    }
}

/// Reads an object whose mapped fields are those of `node`.
fn read_map<'de, A: MapAccess<'de>>(
    fields: &Fields,
    node: &Node,
    found: &mut FieldValues,
    mut map: A,
) -> Result<(), A::Error> {
    while let Some(child) = map.next_key_seed(Key(node))? {
        let Some(node) = child else {
            map.next_value::<IgnoredAny>()?;
            continue;
        };
        node.clear(fields, found);
        found.at = node.slot.or(found.at);
        let raw = map.next_value_seed(Value { fields, node, found, in_list: false })?;
        if let Some(slot) = node.slot {
            found.slots[slot] = raw;
        }
    }
    Ok(())
}

/// The record itself, or one within an array of them.
struct Top<'f> {
    fields: &'f Fields,
    found: &'f mut FieldValues,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, or an array of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { fields, found } = self;
        read_map(fields, &fields.root, found, map)?;
        if fields.each.is_empty() {
            found.events = 1;
        } else if found.events == 0 && fields.is_alone(found) {
            found.end_row(&fields.each);
        }
        Ok(())
    }

    /// Each element is a record of its own, with all its fields.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { fields, found } = self;
        let beside: Vec<_> =
            fields.beside.iter().map(|&(_, slot)| (slot, found.slots[slot])).collect();
        let (mut rows, mut events) = (Vec::new(), 0);
        while list.next_element_seed(Top { fields, found: &mut *found })?.is_some() {
            for event in 0..found.events.min(EVENTS_MAX.saturating_sub(events)) {
                fields.select(event, found);
                rows.extend_from_slice(&found.slots);
            }
            events += found.events;
            found.events = 0;
            found.rows.clear();
            found.slots.fill(Raw::Missing);
            beside.iter().for_each(|&(slot, raw)| found.slots[slot] = raw);
        }
        found.rows = rows;
        (found.events, found.rows_are_whole) = (events, true);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = ();

    /// An element is an object: arrays of arrays are no records.
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
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
    fields: &'f Fields,
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
        Ok(self.found.keep(value))
    }

    /// Bytes are their hexadecimal digits: as text they need not be any, and no two are one id.
    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Raw, E> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let text = &mut self.found.text;
        let start = text.len();
        let digits = value.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        text.extend(digits.map(|digit| char::from(DIGITS[usize::from(digit)])));
        Ok(Raw::Text(Span::new(start, text.len())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        if self.in_list {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Raw::Nested);
        }
        let Self { fields, node, found, .. } = self;
        if node.has_elements() {
            return read_elements(fields, node, found, list);
        }
        let start = found.elements.len();
        loop {
            let value = Value { fields, node: &LEAF, found: &mut *found, in_list: true };
            let Some(raw) = list.next_element_seed(value)? else { break };
            found.elements.push(raw);
        }
        Ok(Raw::List(Span::new(start, found.elements.len())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Raw, A::Error> {
        read_map(self.fields, self.node, self.found, map)?;
        Ok(Raw::Nested)
    }
}

/// Reads an array whose elements may hold mapped fields.
fn read_elements<'de, A: SeqAccess<'de>>(
    fields: &Fields,
    node: &Node,
    found: &mut FieldValues,
    mut list: A,
) -> Result<Raw, A::Error> {
    // An element may hold arrays, whose own elements go to the scratch meanwhile.
    let mut elements = Vec::new();
    loop {
        let element = node.element(elements.len()).unwrap_or(&LEAF);
        found.at = element.slot.or(found.at);
        let value = Value { fields, node: element, found, in_list: true };
        let Some(raw) = list.next_element_seed(value)? else { break };
        elements.push(raw);
        if let Some(slot) = element.slot {
            found.slots[slot] = raw;
        }
        if node.each.is_some() {
            found.end_row(&fields.each);
        }
    }
    let start = found.elements.len();
    found.elements.append(&mut elements);
    Ok(Raw::List(Span::new(start, found.elements.len())))
}
