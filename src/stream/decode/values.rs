//! From what stood at a mapped field to what a feature holds. Pure, one kind a function.

use crate::config::TimeUnit;

use super::super::event::{FeatureValue, id_key};
use super::Field;
use super::error::DecodeError;
use super::scan::Raw;

/// Event times must lie in the years 1 to 9999: what lies outside is a unit gone wrong.
const TIMES_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// An id's text: strings as they are, integers in decimal.
pub(super) fn id<'r>(
    raw: &'r Raw<'_>,
    field: &Field,
    digits: &'r mut itoa::Buffer,
) -> Result<&'r str, DecodeError> {
    Ok(match raw {
        Raw::Missing | Raw::Null => return Err(field.missing()),
        Raw::Text(text) if text.is_empty() => return Err(field.missing()),
        Raw::Text(text) => text,
        Raw::Signed(value) => digits.format(*value),
        Raw::Unsigned(value) => digits.format(*value),
        Raw::Bool(true) => "true",
        Raw::Bool(false) => "false",
        // 858.0 is refused too: past 2^53 its digits are not those that the source meant.
        other => return Err(wrong_type(&field.name, "an id (a string or an integer)", other)),
    })
}

/// Entries of an array, or a single scalar as an array of one.
fn entries<'r, 'de>(raw: &'r Raw<'de>) -> &'r [Raw<'de>] {
    match raw {
        Raw::List(list) => list,
        scalar => std::slice::from_ref(scalar),
    }
}

/// Null and empty entries name nothing and are passed over.
fn names_something(raw: &Raw<'_>) -> bool {
    !raw.absent() && !matches!(raw, Raw::Text(text) if text.is_empty())
}

/// Keys of a bag or history, cut by `cut`, with weights that make their sum a mean.
pub(super) fn pooled(
    raw: &Raw<'_>,
    field: &Field,
    cut: impl FnOnce(&mut Vec<(u64, f32)>),
) -> Result<FeatureValue, DecodeError> {
    let mut digits = itoa::Buffer::new();
    let mut keys = Vec::with_capacity(entries(raw).len());
    for entry in entries(raw).iter().filter(|entry| names_something(entry)) {
        keys.push((id_key(id(entry, field, &mut digits)?.as_bytes()), 0.0));
    }
    cut(&mut keys);
    let mean = 1.0 / keys.len().max(1) as f32;
    keys.iter_mut().for_each(|(_, weight)| *weight = mean);
    Ok(FeatureValue::Bag(keys))
}

pub(super) fn weighted(
    raw: &Raw<'_>,
    field: &Field,
    raw_weights: &Raw<'_>,
    weights: &Field,
    length: usize,
) -> Result<FeatureValue, DecodeError> {
    if raw_weights.absent() {
        return Err(weights.missing());
    }
    let (ids, factors) = (entries(raw), entries(raw_weights));
    if ids.len() != factors.len() {
        let (expected, found) = (ids.len(), factors.len());
        return Err(DecodeError::WrongLength { field: weights.name.clone(), expected, found });
    }
    let mut digits = itoa::Buffer::new();
    let mut keys = Vec::with_capacity(ids.len().min(length));
    let pairs = ids.iter().zip(factors).filter(|(id, _)| names_something(id));
    for (entry, factor) in pairs.take(length) {
        let key = id_key(id(entry, field, &mut digits)?.as_bytes());
        keys.push((key, number(factor, &weights.name)?));
    }
    Ok(FeatureValue::Bag(keys))
}

pub(super) fn vector(raw: &Raw<'_>, field: &str, length: usize) -> Result<Vec<f32>, DecodeError> {
    let Raw::List(list) = raw else { return Err(wrong_type(field, "an array of numbers", raw)) };
    if list.len() != length {
        let (expected, found) = (length, list.len());
        return Err(DecodeError::WrongLength { field: field.to_owned(), expected, found });
    }
    list.iter().map(|entry| number(entry, field)).collect()
}

pub(super) fn number(raw: &Raw<'_>, field: &str) -> Result<f32, DecodeError> {
    let value = match raw {
        Raw::Signed(value) => *value as f32,
        Raw::Unsigned(value) => *value as f32,
        Raw::Float(value) => *value as f32,
        Raw::Bool(value) => f32::from(*value),
        other => return Err(wrong_type(field, "a number", other)),
    };
    if value.is_finite() { Ok(value) } else { Err(DecodeError::BadNumber { field: field.into() }) }
}

/// Milliseconds since 1970 of a number or a numeric string in `unit`.
pub(crate) fn time_ms(raw: &Raw<'_>, field: &str, unit: TimeUnit) -> Result<i64, DecodeError> {
    let (name, per_unit_us) = match unit {
        TimeUnit::Seconds => ("seconds", 1_000_000),
        TimeUnit::Milliseconds => ("milliseconds", 1_000),
        TimeUnit::Microseconds => ("microseconds", 1),
    };
    let whole = |value: i128| Some((value * per_unit_us).div_euclid(1000));
    // A float's microseconds are exact up to the year 2255, and the cast saturates beyond.
    let fraction = |value: f64| {
        value.is_finite().then(|| ((value * per_unit_us as f64).round() as i128).div_euclid(1000))
    };
    let (ms, value) = match raw {
        raw if !names_something(raw) => {
            return Err(DecodeError::MissingField { field: field.to_owned() });
        }
        Raw::Signed(value) => (whole((*value).into()), value as &dyn std::fmt::Display),
        Raw::Unsigned(value) => (whole((*value).into()), value as &dyn std::fmt::Display),
        Raw::Float(value) => (fraction(*value), value as &dyn std::fmt::Display),
        Raw::Text(text) => {
            let trimmed = text.trim();
            let ms = match trimmed.parse::<i64>() {
                Ok(value) => whole(value.into()),
                Err(_) => trimmed.parse::<f64>().ok().and_then(fraction),
            };
            (ms, text as &dyn std::fmt::Display)
        }
        other => return Err(wrong_type(field, "a time (a number or a numeric string)", other)),
    };
    ms.and_then(|ms| i64::try_from(ms).ok()).filter(|ms| TIMES_MS.contains(ms)).ok_or_else(|| {
        DecodeError::BadTimestamp { field: field.to_owned(), value: clip(value), unit: name }
    })
}

/// A message quotes at most this much of a record: it travels in a header and a log line.
fn clip(value: &dyn std::fmt::Display) -> String {
    const CHARS_MAX: usize = 64;
    value.to_string().chars().take(CHARS_MAX).collect()
}

fn wrong_type(field: &str, expected: &'static str, raw: &Raw<'_>) -> DecodeError {
    DecodeError::WrongType { field: field.to_owned(), expected, found: raw.what() }
}
