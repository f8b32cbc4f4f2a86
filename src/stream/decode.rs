//! A record's bytes become an event in columns, by the config's field mapping.
//!
//! Owns: the mapping, compiled once, and every reason for which a record is rejected.
//!
//! Must never know: where records come from, and what features are for.

mod error;
mod foreign;
mod query;
mod scan;
mod values;

use crate::config::{
    Config, FeatureConfig, FeatureKind, MissingReward, Reject, RewardConfig, TimeUnit,
    TimestampConfig,
};

pub use error::{DecodeError, REASONS};
use millrace_events::{Column, Events, id_key};

pub(crate) use scan::{FieldPlace, FieldValues, Fields, Raw};
pub(crate) use values::time_ms;
use values::{Keep, id, key, number, pooled, quoted, vector, weighted};

/// A larger record is rejected unread: an interaction is a few hundred bytes, a 4096-float vector
/// in JSON is under 64 KiB, and a record of megabytes would hold up everything behind it.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Which fields of a record make an event; compiled once from the config.
///
/// ```
/// use millrace::config::Config;
/// use millrace::stream::decode::Mapping;
/// use millrace_events::Events;
///
/// let config = Config::from_toml(
///     r#"
///     [query]
///     id = "user"
///     features = [{ name = "user", kind = "id", field = "user", table = "user" }]
///     [item]
///     id = "sku"
///     features = [{ name = "sku", kind = "id", field = "sku", table = "item" }]
///     "#,
/// )
/// .expect("a valid config");
/// let mut mapping = Mapping::new(&config);
/// let mut events = Events::new(1, 1);
/// let record = br#"{"user": 858, "sku": "a-1", "colour": "red"}"#;
/// mapping.decode(Some(record), Some(1_700_000_000_000), &mut events).expect("both ids are there");
/// assert_eq!((events.len(), events.item_names.get(0)), (1, "a-1"));
/// assert!(mapping.decode(Some(b"{}"), None, &mut events).is_err(), "and nothing is appended");
/// ```
#[derive(Debug)]
pub struct Mapping {
    fields: Fields,
    /// Scratch: the values of the current record.
    found: FieldValues,
    query: Side,
    item: Side,
    reward: Option<Field>,
    /// What divides the reward.
    per: Option<Field>,
    reward_rule: RewardConfig,
    time: Option<Field>,
    unit: TimeUnit,
    id_bytes_max: usize,
    /// An event may be this far ahead of its Kafka record's time, in ms; none: any time will do.
    ahead_max_ms: Option<i64>,
    unread: Unread,
}

/// Values of optional features that could not be read, and count as absent.
#[derive(Debug, Default)]
pub struct Unread {
    /// How many there were.
    pub values: u64,
    /// What was wrong with the first one.
    pub first: Option<DecodeError>,
}

#[derive(Debug)]
struct Side {
    id: Field,
    features: Vec<Feature>,
}

#[derive(Debug)]
struct Field {
    name: String,
    place: FieldPlace,
}

#[derive(Debug)]
struct Feature {
    /// None: a history that the trainer keeps.
    field: Option<Field>,
    weights: Option<Field>,
    kind: FeatureKind,
    length: usize,
    optional: bool,
    id_bytes_max: usize,
}

impl Mapping {
    /// Compiles the mapping of a checked config.
    pub fn new(config: &Config) -> Mapping {
        let mut fields = Fields::default();
        let id_bytes_max = config.kafka.id_bytes_max;
        let query = Side {
            id: Field::required(&mut fields, &config.query.id),
            features: features(&mut fields, &config.query.features, id_bytes_max),
        };
        let item = Side {
            id: Field::required(&mut fields, &config.item.id),
            features: features(&mut fields, &config.item.features, id_bytes_max),
        };
        let reward = Field::new(&mut fields, &config.reward.field);
        let per = Field::new(&mut fields, &config.reward.per);
        let time = Field::new(&mut fields, &config.timestamp.field);
        let (reward_rule, unit) = (config.reward.clone(), config.timestamp.unit);
        Mapping {
            fields,
            found: FieldValues::default(),
            query,
            item,
            reward,
            per,
            reward_rule,
            time,
            unit,
            id_bytes_max: config.kafka.id_bytes_max,
            ahead_max_ms: ahead_max_ms(&config.timestamp),
            unread: Unread::default(),
        }
    }

    /// Appends the event of one record to `events`, whose features are those of the config.
    /// `record_time_ms` is Kafka's own timestamp, used if the config names no field, and otherwise
    /// to tell a time that lies ahead.
    ///
    /// # Errors
    /// The first thing that makes the record unusable; `events` are then as they were.
    pub fn decode(
        &mut self,
        payload: Option<&[u8]>,
        record_time_ms: Option<i64>,
        events: &mut Events,
    ) -> Result<(), DecodeError> {
        let before = events.len();
        let text = text(payload)?;
        if let Err(failure) = self.fields.scan(text, &mut self.found) {
            self.scan_mended(text)
                .map_err(|again| self.explain(again.as_ref().unwrap_or(&failure), text))?;
        }
        let mut unread = std::mem::take(&mut self.unread);
        let appended = self.append(record_time_ms, events, &mut unread);
        self.unread = unread;
        appended.inspect_err(|_| events.truncate(before))
    }

    /// Reads a text that is no JSON as what was meant; or the failure, if it is another one.
    fn scan_mended(&mut self, text: &str) -> Result<(), Option<scan::ScanError>> {
        // A number out of range, which nobody minds unless the field is mapped.
        let mended = foreign::mended(text, "1e999").ok_or(None)?;
        let Err(failure) = self.fields.scan(&mended, &mut self.found) else { return Ok(()) };
        let features = self.query.features.iter().chain(&self.item.features);
        let mut optional = features.filter(|feature| feature.optional);
        if !optional.any(|feature| feature.field.as_ref().is_some_and(|f| failure.at(f.place))) {
            return Err(Some(failure));
        }
        let error = self.explain(&failure, text);
        self.unread.values += 1;
        self.unread.first.get_or_insert(error);
        let absent = foreign::mended(text, "null").ok_or(None)?;
        self.fields.scan(&absent, &mut self.found).map_err(Some)
    }

    /// The values that could not be read since the last call.
    pub fn take_unread(&mut self) -> Unread {
        std::mem::take(&mut self.unread)
    }

    /// Appends the values that were found. If that fails, some of them may have been appended.
    fn append(
        &self,
        record_time_ms: Option<i64>,
        events: &mut Events,
        unread: &mut Unread,
    ) -> Result<(), DecodeError> {
        let (query, item) = (&self.query, &self.item);
        let found = &self.found;
        events.query_ids.push(key(found.get(query.id.place), found, &query.id, self.id_bytes_max)?);
        let mut digits = itoa::Buffer::new();
        let name = id(found.get(item.id.place), found, &item.id, self.id_bytes_max, &mut digits)?;
        events.item_ids.push(id_key(name.as_bytes()));
        events.item_names.push(name);
        events.times_ms.push(self.time(record_time_ms)?);
        events.rewards.push(self.reward()?);
        let query = query.features.iter().zip(&mut events.query);
        let item = item.features.iter().zip(&mut events.item);
        for (feature, column) in query.chain(item) {
            value(feature, found, column, unread)?;
        }
        Ok(())
    }

    fn explain(&self, failure: &scan::ScanError, text: &str) -> DecodeError {
        let reason = failure.error.to_string();
        if failure.error.is_data() {
            return DecodeError::NotObject { reason: reason + foreign::name_text(text) };
        }
        let sides = [&self.query, &self.item];
        let features = sides.iter().flat_map(|side| side.features.iter());
        let mut fields = features
            .flat_map(|feature| feature.field.iter().chain(&feature.weights))
            .chain(sides.iter().map(|side| &side.id))
            .chain(self.reward.iter().chain(&self.per).chain(&self.time));
        // serde_json has no code for this one in its public interface.
        if reason.contains("number out of range")
            && let Some(field) = fields.find(|field| failure.at(field.place))
        {
            return DecodeError::BadNumber { field: field.name.clone() };
        }
        DecodeError::NotJson { reason }
    }

    fn time(&self, record_time_ms: Option<i64>) -> Result<i64, DecodeError> {
        let Some(field) = &self.time else {
            let field = "timestamp of the Kafka record".to_owned();
            return record_time_ms.ok_or(DecodeError::MissingField { field });
        };
        let raw = self.found.get(field.place);
        let time = time_ms(raw, &self.found, &field.name, self.unit)?;
        // 1970 is a record's time where nobody gave it one: in a file, or by an old client.
        match (self.ahead_max_ms, record_time_ms.filter(|sent| *sent > 0)) {
            (Some(limit), Some(sent)) if time.saturating_sub(sent) > limit => {
                Err(DecodeError::Future {
                    field: field.name.clone(),
                    value: quoted(raw, &self.found),
                    ahead_s: time.saturating_sub(sent) / 1000,
                    limit_s: limit / 1000,
                })
            }
            _ => Ok(time),
        }
    }

    fn reward(&self) -> Result<f32, DecodeError> {
        let rule = &self.reward_rule;
        let Some(field) = &self.reward else { return Ok(1.0_f32.clamp(rule.min, rule.max)) };
        let Some(mut value) = self.number(field)? else { return self.missing_reward(field) };
        if let Some(per) = &self.per {
            match self.number(per)? {
                Some(divisor) if divisor > 0.0 => value /= divisor,
                _ => return self.missing_reward(per),
            }
        }
        Ok(match rule.threshold {
            Some(threshold) => f32::from(value >= threshold),
            None => (rule.scale * value).clamp(rule.min, rule.max),
        })
    }

    /// The number in `field`, if it is there.
    fn number(&self, field: &Field) -> Result<Option<f32>, DecodeError> {
        match self.found.get(field.place) {
            raw if raw.absent() => Ok(None),
            raw => number(raw, &self.found, &field.name).map(Some),
        }
    }

    /// What an event is worth whose reward lacks `field`.
    fn missing_reward(&self, field: &Field) -> Result<f32, DecodeError> {
        match self.reward_rule.missing {
            MissingReward::Worth(worth) => {
                Ok(worth.clamp(self.reward_rule.min, self.reward_rule.max))
            }
            MissingReward::Not(Reject::Reject) => Err(field.missing()),
        }
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

fn features(fields: &mut Fields, configs: &[FeatureConfig], id_bytes_max: usize) -> Vec<Feature> {
    let compile = |config: &FeatureConfig| Feature {
        field: Field::new(fields, &config.field),
        weights: Field::new(fields, &config.weights),
        kind: config.kind,
        length: config.length.unwrap_or(crate::config::BAG_LENGTH),
        optional: config.optional,
        id_bytes_max,
    };
    configs.iter().map(compile).collect()
}

fn ahead_max_ms(config: &TimestampConfig) -> Option<i64> {
    let limit = i64::try_from(config.ahead_max_s).unwrap_or(i64::MAX).saturating_mul(1000);
    (limit > 0).then_some(limit)
}

/// The record's text, if it is one of a size worth reading.
fn text(payload: Option<&[u8]>) -> Result<&str, DecodeError> {
    let payload = foreign::without_bom(payload.ok_or(DecodeError::Tombstone)?);
    if payload.len() > RECORD_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: payload.len() });
    }
    if payload.trim_ascii().is_empty() {
        return Err(DecodeError::Empty);
    }
    let odd = payload[0] != b'{' || payload.get(1) == Some(&0);
    if odd && let Some(what) = foreign::name(payload) {
        return Err(DecodeError::Foreign { what });
    }
    std::str::from_utf8(payload)
        .map_err(|error| DecodeError::InvalidUtf8 { at: error.valid_up_to() })
}

/// Appends one feature's value to its column. One that is optional and cannot be read is absent: an
/// event is worth more than a price.
fn value(
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
                    unread.values += 1;
                    unread.first.get_or_insert(error);
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

fn entries(
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

#[cfg(test)]
mod tests;
