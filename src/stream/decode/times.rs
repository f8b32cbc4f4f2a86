//! The time of an event, from a number or a text. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use crate::config::{TimeUnit, TimestampConfig};

use super::error::DecodeError;
use super::fields::{FieldPlace, Fields};
use super::raw::{FieldValues, Raw};
use super::values::{quoted, wrong_type};

/// Event times must lie in the years 1 to 9999: a time outside is one in another unit.
const TIMES_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Where an event's time stands, and how it is read.
#[derive(Debug)]
pub(crate) struct EventTime {
    pub(super) name: String,
    pub(super) place: FieldPlace,
    unit: TimeUnit,
    /// Form of texts; empty: ISO 8601.
    format: String,
    /// Zone of texts that name none.
    zone: TimeZone,
    /// An event may be this far ahead of its Kafka record's time, in ms; none: any time will do.
    ahead_max_ms: Option<i64>,
}

impl EventTime {
    /// Of a checked config; none: an event's time is its record's.
    pub(crate) fn new(fields: &mut Fields, config: &TimestampConfig) -> Option<EventTime> {
        let limit = i64::try_from(config.ahead_max_s).unwrap_or(i64::MAX).saturating_mul(1000);
        (!config.field.is_empty()).then(|| EventTime {
            name: config.field.clone(),
            place: fields.add(&config.field),
            unit: config.unit,
            format: config.format.clone(),
            zone: TimeZone::get(&config.zone).expect("a checked zone"),
            ahead_max_ms: (limit > 0).then_some(limit),
        })
    }

    /// Milliseconds since 1970. `record_time_ms`: Kafka's own time of the record, which tells a
    /// time that lies ahead.
    pub(super) fn of(
        &self,
        found: &FieldValues,
        record_time_ms: Option<i64>,
    ) -> Result<i64, DecodeError> {
        let time = self.ms(found)?;
        // 1970 is a record's time where nobody gave it one: in a file, or by an old client.
        match (self.ahead_max_ms, record_time_ms.filter(|sent| *sent > 0)) {
            (Some(limit), Some(sent)) if time.saturating_sub(sent) > limit => {
                Err(DecodeError::Future {
                    field: self.name.clone(),
                    value: quoted(found.get(self.place), found),
                    ahead_s: time.saturating_sub(sent) / 1000,
                    limit_s: limit / 1000,
                })
            }
            _ => Ok(time),
        }
    }

    /// Milliseconds since 1970: of a number or a numeric string in the unit, or of a text.
    pub(crate) fn ms(&self, found: &FieldValues) -> Result<i64, DecodeError> {
        let raw = found.get(self.place);
        let ms = match raw {
            raw if !raw.names_something() => {
                return Err(DecodeError::MissingField { field: self.name.clone() });
            }
            Raw::Signed(value) => self.whole(value),
            Raw::Unsigned(_) => None,
            Raw::Float(value) => self.fraction(value),
            Raw::Text(text) => {
                let text = found.text(text).trim();
                let number = || match text.parse::<i64>() {
                    Ok(value) => self.whole(value),
                    Err(_) => text.parse::<f64>().ok().and_then(|value| self.fraction(value)),
                };
                // `20251026` is a number, but not where a form is given.
                let number = if self.format.is_empty() { number() } else { None };
                number.or_else(|| time_of_text(text, &self.format, &self.zone))
            }
            other => {
                let expected = "a time (a number, or a string)";
                return Err(wrong_type(&self.name, expected, other));
            }
        };
        ms.filter(|ms| TIMES_MS.contains(ms)).ok_or_else(|| DecodeError::BadTimestamp {
            field: self.name.clone(),
            value: quoted(raw, found),
            expected: self.expected(raw),
        })
    }

    /// A time that overflows lies outside of [`TIMES_MS`] as well.
    fn whole(&self, value: i64) -> Option<i64> {
        match self.unit {
            TimeUnit::Seconds => value.checked_mul(1000),
            TimeUnit::Milliseconds => Some(value),
            TimeUnit::Microseconds => Some(value.div_euclid(1000)),
            TimeUnit::Nanoseconds => Some(value.div_euclid(1_000_000)),
        }
    }

    /// A float's microseconds are exact up to the year 2255, and the cast saturates beyond.
    fn fraction(&self, value: f64) -> Option<i64> {
        let unit_us = match self.unit {
            TimeUnit::Seconds => 1e6,
            TimeUnit::Milliseconds => 1e3,
            TimeUnit::Microseconds => 1.0,
            TimeUnit::Nanoseconds => 1e-3,
        };
        value.is_finite().then(|| ((value * unit_us).round() as i64).div_euclid(1000))
    }

    /// What the value should have been, and what to look at.
    fn expected(&self, raw: Raw) -> String {
        let unit = match self.unit {
            TimeUnit::Seconds => "seconds",
            TimeUnit::Milliseconds => "milliseconds",
            TimeUnit::Microseconds => "microseconds",
            TimeUnit::Nanoseconds => "nanoseconds",
        };
        match raw {
            Raw::Text(_) if self.format.is_empty() => {
                format!("time in {unit} and none in ISO 8601; is timestamp.format needed?")
            }
            Raw::Text(_) => format!("time like `{}`; is timestamp.format right?", self.format),
            _ => format!("time in {unit}; is timestamp.unit right?"),
        }
    }
}

/// Milliseconds since 1970 of a text in `format`, as strftime has it; empty: in ISO 8601. A text
/// that names no zone is of `zone`.
pub(crate) fn time_of_text(text: &str, format: &str, zone: &TimeZone) -> Option<i64> {
    if format.is_empty() { iso_ms(text, zone) } else { formatted_ms(text, format, zone) }
}

/// `2025-10-26T03:25:30.123Z` and all other forms of ISO 8601 and RFC 3339; one without a zone is
/// of `zone`, one without a time is midnight.
fn iso_ms(text: &str, zone: &TimeZone) -> Option<i64> {
    match text.parse::<Timestamp>() {
        Ok(timestamp) => Some(timestamp.as_millisecond()),
        Err(_) => civil_ms(text.parse().ok()?, zone),
    }
}

fn formatted_ms(text: &str, format: &str, zone: &TimeZone) -> Option<i64> {
    let parts = BrokenDownTime::parse(format, text).ok()?;
    if parts.offset().is_some() || parts.iana_time_zone().is_some() {
        return Some(parts.to_timestamp().ok()?.as_millisecond());
    }
    let datetime = parts.to_datetime().or_else(|_| Ok::<_, jiff::Error>(parts.to_date()?.into()));
    match datetime {
        Ok(datetime) => civil_ms(datetime, zone),
        // `%s`: seconds since 1970.
        Err(_) => Some(parts.to_timestamp().ok()?.as_millisecond()),
    }
}

/// Where a clock is set back an hour, the first of the two; where it is set ahead, as if it had
/// gone on.
fn civil_ms(datetime: DateTime, zone: &TimeZone) -> Option<i64> {
    Some(zone.to_timestamp(datetime).ok()?.as_millisecond())
}
