//! A record's bytes become an event in columns, by the config's field mapping.
//!
//! Owns: the mapping, compiled once, and every reason for which a record is rejected.
//!
//! Must never know: where records come from, and what features are for.

mod attributes;
pub(crate) mod catalogue;
mod error;
mod fields;
mod foreign;
mod query;
mod raw;
mod rules;
mod scan;
#[cfg(feature = "registry")]
mod schema;
mod side;
mod times;
mod values;

use crate::config::{
    Config, MissingReward, RecordFormat, Reject, RewardConfig, SideConfig, alternatives,
};

pub use error::{DecodeError, REASONS};
use millrace_events::{Events, id_key};

pub(crate) use fields::{FieldPlace, Fields, Outside};
pub(crate) use foreign::in_hex;
pub(crate) use raw::FieldValues;
use raw::Raw;
use rules::Rules;
#[cfg(feature = "registry")]
pub(crate) use schema::{Schema, Text};
pub use side::Unread;
use side::{Field, Side, features};
pub(crate) use times::{EventTime, time_of_text};
use values::{id, key, number, value};

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
    /// Of the item.
    attributes: Vec<Field>,
    reward: Option<Field>,
    /// What divides the reward.
    per: Option<Field>,
    reward_rule: RewardConfig,
    rules: Rules,
    time: Option<EventTime>,
    /// What says that a row was deleted.
    deletion: Option<Deletion>,
    id_bytes_max: usize,
    /// Events of one record at most: a record is in one batch.
    events_max: usize,
    unread: Unread,
}

/// Where a change stream says that a row has gone.
#[derive(Debug)]
struct Deletion {
    /// Debezium's letter for what happened.
    op: FieldPlace,
    /// What its transformation to plain rows leaves instead.
    deleted: FieldPlace,
}

/// A record's value, out of what its format wraps it in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'r> {
    /// JSON; none: there is no value.
    Text(Option<&'r [u8]>),
    /// What this schema describes.
    #[cfg(feature = "registry")]
    Datum(&'r Schema, &'r [u8]),
}

/// A record beside its value.
pub(crate) struct Envelope<'e, 'r> {
    /// Kafka's own timestamp, ms.
    pub(crate) time_ms: Option<i64>,
    /// Gives its key and its headers.
    pub(crate) outside: &'e dyn Fn(&Outside) -> Option<&'r [u8]>,
}

impl Mapping {
    /// Compiles the mapping of a checked config.
    pub fn new(config: &Config) -> Mapping {
        let format = config.kafka.format;
        let mut fields = Fields::new(format);
        let id_bytes_max = config.kafka.id_bytes_max;
        let mut side = |which| {
            let SideConfig { id, features: configs, .. } = config.side(which);
            let listed = |name: &str| config.is_listed(which, name);
            let id = Field::required(&mut fields, id);
            Side { id, features: features(&mut fields, configs, &listed, id_bytes_max) }
        };
        let query = side(millrace_events::EventSide::Query);
        let item = side(millrace_events::EventSide::Item);
        if alternatives(&config.item.id).nth(1).is_some() {
            fields.stands_alone(item.id.place);
        }
        let attributes = attributes::fields(&mut fields, &config.item.attributes);
        let reward = Field::new(&mut fields, &config.reward.field);
        let per = Field::new(&mut fields, &config.reward.per);
        let time = EventTime::new(&mut fields, &config.timestamp);
        let rules = Rules::new(&mut fields, &config.event);
        let deletion = Deletion::of(format, &mut fields);
        Mapping {
            fields,
            found: FieldValues::default(),
            query,
            item,
            attributes,
            reward,
            per,
            reward_rule: config.reward.clone(),
            rules,
            time,
            deletion,
            id_bytes_max,
            events_max: config.batch.size.min(raw::EVENTS_MAX),
            unread: Unread::default(),
        }
    }

    /// Appends the events of one record to `events`, whose features are those of the config, and
    /// says how many there were; 0: the record is passed over, because it is not meant to be one.
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
    ) -> Result<usize, DecodeError> {
        let envelope = Envelope { time_ms: record_time_ms, outside: &|_| None };
        self.decode_record(Content::Text(payload), &envelope, events)
    }

    /// [`decode`](Self::decode) of a record whose key and headers may be fields.
    pub(crate) fn decode_record(
        &mut self,
        content: Content<'_>,
        envelope: &Envelope<'_, '_>,
        events: &mut Events,
    ) -> Result<usize, DecodeError> {
        let before = events.len();
        match content {
            Content::Text(None) if self.deletion.is_some() => return Ok(0),
            Content::Text(payload) => self.scan_text(text(payload)?, envelope)?,
            #[cfg(feature = "registry")]
            Content::Datum(schema, datum) => {
                self.fields.clear(envelope.outside, &mut self.found);
                schema.read(datum, &self.fields, &mut self.found)?;
            }
        }
        let (there, limit) = (self.found.events(), self.events_max);
        if there > limit {
            return Err(DecodeError::TooManyEvents { events: there, limit });
        }
        let mut unread = std::mem::take(&mut self.unread);
        let appended = (0..there).try_for_each(|event| {
            self.fields.select(event, &mut self.found);
            self.append(envelope.time_ms, events, &mut unread)
        });
        self.unread = unread;
        appended.inspect_err(|_| events.truncate(before))?;
        Ok(events.len() - before)
    }

    fn scan_text(&mut self, text: &str, envelope: &Envelope<'_, '_>) -> Result<(), DecodeError> {
        let Err(failure) = self.fields.scan(text, envelope.outside, &mut self.found) else {
            return Ok(());
        };
        self.scan_mended(text, envelope)
            .map_err(|again| self.explain(again.as_ref().unwrap_or(&failure), text))
    }

    /// Reads a text that is no JSON as what was meant; or the failure, if it is another one.
    fn scan_mended(
        &mut self,
        text: &str,
        envelope: &Envelope<'_, '_>,
    ) -> Result<(), Option<scan::ScanError>> {
        // A number out of range, which nobody minds unless the field is mapped.
        let mended = foreign::mended(text, "1e999").ok_or(None)?;
        let Err(failure) = self.fields.scan(&mended, envelope.outside, &mut self.found) else {
            return Ok(());
        };
        let features = self.query.features.iter().chain(&self.item.features);
        let optional = features.filter(|feature| feature.optional);
        let optional = optional.filter_map(|feature| feature.field.as_ref());
        if !optional.chain(&self.attributes).any(|field| failure.at(&self.fields, field.place)) {
            return Err(Some(failure));
        }
        let error = self.explain(&failure, text);
        self.unread.note(&error);
        let absent = foreign::mended(text, "null").ok_or(None)?;
        self.fields.scan(&absent, envelope.outside, &mut self.found).map_err(Some)
    }

    /// The values that could not be read since the last call.
    pub fn take_unread(&mut self) -> Unread {
        std::mem::take(&mut self.unread)
    }

    /// Appends the event that is selected, if it is one. If that fails, some of its values may have
    /// been appended.
    fn append(
        &self,
        record_time_ms: Option<i64>,
        events: &mut Events,
        unread: &mut Unread,
    ) -> Result<(), DecodeError> {
        let (query, item) = (&self.query, &self.item);
        let found = &self.found;
        if self.deletion.as_ref().is_some_and(|deletion| deletion.says_so(found)) {
            return Ok(());
        }
        let Some(weight) = self.rules.weight(found) else { return Ok(()) };
        events.query_ids.push(key(found.get(query.id.place), found, &query.id, self.id_bytes_max)?);
        let mut digits = itoa::Buffer::new();
        let name = id(found.get(item.id.place), found, &item.id, self.id_bytes_max, &mut digits)?;
        events.item_ids.push(id_key(name.as_bytes()));
        events.item_names.push(name);
        events.times_ms.push(match &self.time {
            Some(time) => time.of(found, record_time_ms)?,
            None => record_time_ms.ok_or_else(|| DecodeError::MissingField {
                field: "timestamp of the Kafka record".to_owned(),
            })?,
        });
        events.rewards.push(weight * self.reward()?);
        let query = query.features.iter().zip(&mut events.query);
        let item = item.features.iter().zip(&mut events.item);
        for (feature, column) in query.chain(item) {
            value(feature, found, column, unread)?;
        }
        if !self.attributes.is_empty() {
            attributes::append(&self.attributes, found, &mut events.attributes, unread);
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
            .chain(self.reward.iter().chain(&self.per));
        // serde_json has no code for this one in its public interface.
        if reason.contains("number out of range")
            && let Some(field) = fields.find(|field| failure.at(&self.fields, field.place))
        {
            return DecodeError::BadNumber { field: field.name.clone() };
        }
        DecodeError::NotJson { reason }
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

impl Deletion {
    fn of(format: RecordFormat, fields: &mut Fields) -> Option<Deletion> {
        (format == RecordFormat::Debezium)
            .then(|| Deletion { op: fields.add("op"), deleted: fields.add("__deleted") })
    }

    /// The row was deleted, all rows were, or nothing happened to any.
    fn says_so(&self, found: &FieldValues) -> bool {
        let text = |place| match found.get(place) {
            Raw::Text(text) => found.text(text),
            Raw::Bool(true) => "true",
            _ => "",
        };
        matches!(text(self.op), "d" | "t" | "m") || text(self.deleted) == "true"
    }
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
    let odd = !matches!(payload[0], b'{' | b'[') || payload.get(1) == Some(&0);
    if odd && let Some(what) = foreign::name(payload) {
        return Err(DecodeError::Foreign { what });
    }
    std::str::from_utf8(payload)
        .map_err(|error| DecodeError::InvalidUtf8 { at: error.valid_up_to() })
}

#[cfg(test)]
mod tests;
