//! A mapped field's raw value becomes a feature's value. Pure; one function for each kind.

use super::error::DecodeError;
use super::raw::{FieldValues, Raw};
use super::side::{Feature, Field, Unread};
use crate::config::FeatureKind;
use millrace_events::{Column, id_key};

/// An id's text: strings as they are, integers in decimal.
#[inline]
pub(super) fn id<'r>(
    raw: Raw,
    found: &'r FieldValues,
    field: &Field,
    bytes_max: usize,
    digits: &'r mut itoa::Buffer,
) -> Result<&'r str, DecodeError> {
    match raw {
        raw if !raw.names_something() => Err(field.missing()),
        Raw::Text(text) if found.text(text).len() > bytes_max => {
            let (field, bytes) = (field.name.clone(), found.text(text).len());
            Err(DecodeError::IdTooLong { field, bytes, limit: bytes_max })
        }
        // 858.0 is refused too: past 2^53 its digits are not those that the source meant.
        raw => {
            let expected = "an id (a string, or an integer without a decimal point)";
            let text = raw.scalar(found, digits);
            text.ok_or_else(|| wrong_type(&field.name, expected, raw))
        }
    }
}

/// The key of an id.
#[inline]
pub(super) fn key(
    raw: Raw,
    found: &FieldValues,
    field: &Field,
    bytes_max: usize,
) -> Result<u64, DecodeError> {
    let mut digits = itoa::Buffer::new();
    Ok(id_key(id(raw, found, field, bytes_max, &mut digits)?.as_bytes()))
}

/// Entries of an array, or a single scalar as an array of one.
#[inline]
fn as_list<'r>(raw: &'r Raw, found: &'r FieldValues) -> &'r [Raw] {
    match raw {
        Raw::List(list) => found.elements(*list),
        scalar => std::slice::from_ref(scalar),
    }
}

/// Which of a mean's entries count.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    First(usize),
    Last(usize),
}

/// Appends the keys of a bag or history to the event's entries, with weights that make their sum a
/// mean. Entries that name nothing are passed over.
pub(super) fn pooled(
    raw: Raw,
    found: &FieldValues,
    feature: &Feature,
    field: &Field,
    keep: Keep,
    column: &mut Column,
) -> Result<(), DecodeError> {
    let start = column.ids.len();
    for &entry in as_list(&raw, found).iter().filter(|entry| entry.names_something()) {
        column.ids.push(key(entry, found, field, feature.id_bytes_max)?);
    }
    match keep {
        Keep::First(length) => column.ids.truncate(start + length),
        Keep::Last(length) => {
            let past = (column.ids.len() - start).saturating_sub(length);
            column.ids.drain(start..start + past);
        }
    }
    let mean = 1.0 / (column.ids.len() - start).max(1) as f32;
    column.values.resize(column.ids.len(), mean);
    Ok(())
}

/// Appends the keys of a bag and their weights to the event's entries.
pub(super) fn weighted(
    raw: Raw,
    found: &FieldValues,
    feature: &Feature,
    (field, weights): (&Field, &Field),
    column: &mut Column,
) -> Result<(), DecodeError> {
    let raw_weights = found.get(weights.place);
    if raw_weights.absent() {
        return Err(weights.missing());
    }
    let (ids, factors) = (as_list(&raw, found), as_list(&raw_weights, found));
    if ids.len() != factors.len() {
        let (expected, found) = (ids.len(), factors.len());
        return Err(DecodeError::WrongLength { field: weights.name.clone(), expected, found });
    }
    let pairs = ids.iter().zip(factors).filter(|(id, _)| id.names_something());
    for (&entry, &factor) in pairs.take(feature.length) {
        let key = key(entry, found, field, feature.id_bytes_max)?;
        column.entry(key, number(factor, found, &weights.name)?);
    }
    Ok(())
}

/// Appends a given embedding to the event's entries.
pub(super) fn vector(
    raw: Raw,
    found: &FieldValues,
    field: &str,
    length: usize,
    column: &mut Column,
) -> Result<(), DecodeError> {
    let Raw::List(list) = raw else { return Err(wrong_type(field, "an array of numbers", raw)) };
    let list = found.elements(list);
    if list.len() != length {
        let (expected, found) = (length, list.len());
        return Err(DecodeError::WrongLength { field: field.to_owned(), expected, found });
    }
    for &entry in list {
        column.values.push(number(entry, found, field)?);
    }
    Ok(())
}

/// A number, or a string that is one.
pub(super) fn number(raw: Raw, found: &FieldValues, field: &str) -> Result<f32, DecodeError> {
    let value = match raw {
        Raw::Signed(value) => value as f32,
        Raw::Unsigned(value) => value as f32,
        Raw::Float(value) => value as f32,
        Raw::Bool(value) => f32::from(value),
        Raw::Text(text) => match found.text(text).trim().parse::<f32>() {
            Ok(value) => value,
            Err(_) => return Err(wrong_type(field, "a number", raw)),
        },
        other => return Err(wrong_type(field, "a number", other)),
    };
    if value.is_finite() { Ok(value) } else { Err(DecodeError::BadNumber { field: field.into() }) }
}

/// A scalar for a message, which quotes at most this much of a record: it travels in a header and
/// a log line.
pub(super) fn quoted(raw: Raw, found: &FieldValues) -> String {
    const CHARS_MAX: usize = 64;
    let whole = match raw {
        Raw::Signed(value) => value.to_string(),
        Raw::Unsigned(value) => value.to_string(),
        Raw::Float(value) => value.to_string(),
        Raw::Text(text) => found.text(text).to_owned(),
        other => other.what().to_owned(),
    };
    whole.chars().take(CHARS_MAX).collect()
}

pub(super) fn wrong_type(field: &str, expected: &'static str, raw: Raw) -> DecodeError {
    DecodeError::WrongType { field: field.to_owned(), expected, found: raw.what() }
}

/// Appends one feature's value to its column. One that is optional and cannot be read is absent: an
/// event is worth more than a price.
pub(super) fn value(
    feature: &Feature,
    found: &FieldValues,
    column: &mut Column,
    unread: &mut Unread,
) -> Result<(), DecodeError> {
    if let Some(field) = &feature.field {
        let raw = found.get(field.place);
        // An empty id names nothing. An empty array is a bag of nothing, which is something else.
        if raw.names_something() {
            let before = (column.ids.len(), column.values.len());
            match entries(feature, field, raw, found, column) {
                Err(error) if feature.optional => {
                    column.ids.truncate(before.0);
                    column.values.truncate(before.1);
                    unread.note(&error);
                }
                read => read?,
            }
        } else if !feature.optional {
            return Err(field.missing());
        }
    }
    column.end();
    Ok(())
}

/// Appends what `raw` holds of a feature.
pub(super) fn entries(
    feature: &Feature,
    field: &Field,
    raw: Raw,
    found: &FieldValues,
    column: &mut Column,
) -> Result<(), DecodeError> {
    let length = feature.length;
    match (feature.kind, &feature.weights) {
        (FeatureKind::Id, _) => column.entry(key(raw, found, field, feature.id_bytes_max)?, 1.0),
        (FeatureKind::Number, _) => column.values.push(number(raw, found, &field.name)?),
        (FeatureKind::Vector, _) => vector(raw, found, &field.name, length, column)?,
        (FeatureKind::Bag, Some(weights)) => {
            weighted(raw, found, feature, (field, weights), column)?;
        }
        (FeatureKind::Bag, None) => {
            pooled(raw, found, feature, field, Keep::First(length), column)?;
        }
        (FeatureKind::History, _) => {
            pooled(raw, found, feature, field, Keep::Last(length), column)?;
        }
    }
    Ok(())
}
