//! A record's bytes become an [`Event`], by the config's field mapping.
//!
//! Owns: the mapping, compiled once, and every reason for which a record is rejected.
//!
//! Must never know: where records come from, and what features are for.

mod error;
mod scan;
mod values;

use crate::config::{Config, FeatureConfig, FeatureKind, RewardConfig, TimeUnit};

use super::event::{Event, FeatureValue, id_key};
pub use error::DecodeError;

pub(crate) use scan::{Fields, Place, Raw};
pub(crate) use values::time_ms;
use values::{id, number, pooled, vector, weighted};

/// A larger record is rejected unread: an interaction is a few hundred bytes, a 4096-float vector
/// in JSON is under 64 KiB, and a record of megabytes would hold up everything behind it.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Which fields of a record make an event; compiled once from the config.
#[derive(Debug)]
pub struct Mapping {
    fields: Fields,
    query: Side,
    item: Side,
    reward: Option<Field>,
    reward_rule: RewardConfig,
    time: Option<Field>,
    unit: TimeUnit,
}

#[derive(Debug)]
struct Side {
    id: Field,
    features: Vec<Feature>,
}

#[derive(Debug)]
struct Field {
    name: String,
    place: Place,
}

#[derive(Debug)]
struct Feature {
    /// None: a history that the trainer keeps.
    field: Option<Field>,
    weights: Option<Field>,
    kind: FeatureKind,
    length: usize,
    optional: bool,
}

impl Mapping {
    /// Compiles the mapping of a checked config.
    pub fn new(config: &Config) -> Mapping {
        let mut fields = Fields::default();
        let query = Side {
            id: Field::required(&mut fields, &config.query.id),
            features: features(&mut fields, &config.query.features),
        };
        let item = Side {
            id: Field::required(&mut fields, &config.item.id),
            features: features(&mut fields, &config.item.features),
        };
        let reward = Field::new(&mut fields, &config.reward.field);
        let time = Field::new(&mut fields, &config.timestamp.field);
        let (reward_rule, unit) = (config.reward.clone(), config.timestamp.unit);
        Mapping { fields, query, item, reward, reward_rule, time, unit }
    }

    /// Reads one record. `record_time_ms` is Kafka's own timestamp, used where the config names
    /// no field.
    ///
    /// # Errors
    /// The first thing that makes the record unusable.
    pub fn decode(
        &self,
        payload: Option<&[u8]>,
        record_time_ms: Option<i64>,
    ) -> Result<Event, DecodeError> {
        let text = text(payload)?;
        let found = self.fields.scan(text).map_err(|failure| self.explain(&failure))?;
        let mut digits = itoa::Buffer::new();
        let query_id = {
            let raw = found.get(self.query.id.place);
            id_key(id(raw, &self.query.id, &mut digits)?.as_bytes())
        };
        let item_name = id(found.get(self.item.id.place), &self.item.id, &mut digits)?;
        Ok(Event {
            time_ms: self.time(&found, record_time_ms)?,
            query_id,
            item_id: id_key(item_name.as_bytes()),
            reward: self.reward(&found)?,
            query: values(&self.query.features, &found)?,
            item: values(&self.item.features, &found)?,
            item_name: item_name.into(),
        })
    }

    fn explain(&self, failure: &scan::ScanError) -> DecodeError {
        let reason = failure.error.to_string();
        if failure.error.is_data() {
            return DecodeError::NotObject { reason };
        }
        let sides = [&self.query, &self.item];
        let features = sides.iter().flat_map(|side| side.features.iter());
        let mut fields = features
            .flat_map(|feature| feature.field.iter().chain(&feature.weights))
            .chain(sides.iter().map(|side| &side.id))
            .chain(self.reward.iter().chain(&self.time));
        // serde_json has no code for this one in its public interface.
        if reason.contains("number out of range")
            && let Some(field) = fields.find(|field| failure.at(field.place))
        {
            return DecodeError::BadNumber { field: field.name.clone() };
        }
        DecodeError::NotJson { reason }
    }

    fn time(
        &self,
        found: &scan::Found<'_>,
        record_time_ms: Option<i64>,
    ) -> Result<i64, DecodeError> {
        let Some(field) = &self.time else {
            let field = "timestamp of the Kafka record".to_owned();
            return record_time_ms.ok_or(DecodeError::MissingField { field });
        };
        time_ms(found.get(field.place), &field.name, self.unit)
    }

    fn reward(&self, found: &scan::Found<'_>) -> Result<f32, DecodeError> {
        let rule = &self.reward_rule;
        let Some(field) = &self.reward else { return Ok(1.0_f32.clamp(rule.min, rule.max)) };
        let raw = found.get(field.place);
        let value = match raw {
            raw if raw.absent() => return Ok(1.0_f32.clamp(rule.min, rule.max)),
            raw => number(raw, &field.name)?,
        };
        Ok(match rule.threshold {
            Some(threshold) => f32::from(value >= threshold),
            None => (rule.scale * value).clamp(rule.min, rule.max),
        })
    }
}

impl Field {
    fn required(fields: &mut Fields, name: &str) -> Field {
        Field { name: name.to_owned(), place: fields.add(name) }
    }

    fn new(fields: &mut Fields, name: &str) -> Option<Field> {
        (!name.is_empty()).then(|| Field::required(fields, name))
    }

    fn missing(&self) -> DecodeError {
        DecodeError::MissingField { field: self.name.clone() }
    }
}

fn features(fields: &mut Fields, configs: &[FeatureConfig]) -> Vec<Feature> {
    let compile = |config: &FeatureConfig| Feature {
        field: Field::new(fields, &config.field),
        weights: Field::new(fields, &config.weights),
        kind: config.kind,
        length: config.length.unwrap_or(crate::config::BAG_LENGTH),
        optional: config.optional,
    };
    configs.iter().map(compile).collect()
}

/// The record's text, if it is one of a size worth reading.
fn text(payload: Option<&[u8]>) -> Result<&str, DecodeError> {
    let payload = payload.ok_or(DecodeError::Tombstone)?;
    if payload.len() > RECORD_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: payload.len() });
    }
    if payload.trim_ascii().is_empty() {
        return Err(DecodeError::Empty);
    }
    std::str::from_utf8(payload)
        .map_err(|error| DecodeError::InvalidUtf8 { at: error.valid_up_to() })
}

fn values(features: &[Feature], found: &scan::Found<'_>) -> Result<Vec<FeatureValue>, DecodeError> {
    features.iter().map(|feature| value(feature, found)).collect()
}

fn value(feature: &Feature, found: &scan::Found<'_>) -> Result<FeatureValue, DecodeError> {
    let Some(field) = &feature.field else { return Ok(FeatureValue::Absent) };
    let raw = found.get(field.place);
    // An empty id names nothing. An empty array is a bag of nothing, which is something else.
    let empty = matches!(raw, Raw::Text(text) if text.is_empty());
    if raw.absent() || empty {
        let absent = if feature.optional { Ok(FeatureValue::Absent) } else { Err(field.missing()) };
        return absent;
    }
    match feature.kind {
        FeatureKind::Id => {
            let mut digits = itoa::Buffer::new();
            Ok(FeatureValue::Id(id_key(id(raw, field, &mut digits)?.as_bytes())))
        }
        FeatureKind::Number => Ok(FeatureValue::Number(number(raw, &field.name)?)),
        FeatureKind::Vector => vector(raw, &field.name, feature.length).map(FeatureValue::Vector),
        FeatureKind::Bag => match &feature.weights {
            Some(weights) => {
                weighted(raw, field, found.get(weights.place), weights, feature.length)
            }
            None => pooled(raw, field, |keys| keys.truncate(feature.length)),
        },
        FeatureKind::History => pooled(raw, field, |keys| {
            keys.drain(..keys.len().saturating_sub(feature.length));
        }),
    }
}

#[cfg(test)]
mod tests;
