//! A catalogue's record as a change: an id, and the values of its features or that it has gone.
//!
//! A record without a value is of the id that its key names: as text, or, if it is a JSON object,
//! by the same field as in a value.

use super::attributes;
use super::error::DecodeError;
use super::fields::{Fields, Outside};
use super::raw::FieldValues;
use super::rules::Rule;
use super::side::{Feature, Field, Unread};
use super::values::{id, value};
use super::{Deletion, Envelope, foreign, text};
use crate::config::{CatalogueConfig, Config, FeatureConfig, FeatureKind, attribute_name};
use millrace_events::{CatalogueChange, Column, EventSide, FeatureValue, Names, id_key};

/// Which fields of a catalogue's record make a change; compiled once from the config.
#[derive(Debug)]
pub(crate) struct CatalogueMapping {
    side: EventSide,
    fields: Fields,
    /// Scratch: the values of the current record.
    found: FieldValues,
    id: Field,
    /// By feature of the side; none: the catalogue does not have it.
    features: Vec<Option<Feature>>,
    attributes: Vec<Field>,
    /// Of each of them the place among all that are kept, and how many these are.
    places: (Vec<usize>, usize),
    hidden: Option<Rule>,
    deletion: Option<Deletion>,
    id_bytes_max: usize,
    unread: Unread,
}

impl CatalogueMapping {
    /// Compiles an entry of a checked config.
    pub(crate) fn new(config: &Config, catalogue: &CatalogueConfig) -> CatalogueMapping {
        let mut fields = Fields::new(catalogue.format);
        let id_bytes_max = config.kafka.id_bytes_max;
        let side = config.side(catalogue.side);
        let mut compile = |feature: &FeatureConfig| {
            // What is the id in an event is the id here.
            let is_id = feature.kind == FeatureKind::Id && feature.field == side.id;
            let field = catalogue.features.get(&feature.name);
            let field = field.or(is_id.then_some(&catalogue.id))?;
            Some(Feature::new(&mut fields, feature, field, true, id_bytes_max))
        };
        let features = side.features.iter().map(&mut compile).collect();
        let kept = config.attributes();
        let place = |field: &String| kept.iter().position(|name| name == attribute_name(field));
        let placed = catalogue.attributes.iter();
        let placed = placed.filter_map(|field| Some((field.clone(), place(field)?)));
        let (paths, places): (Vec<String>, Vec<usize>) = placed.unzip();
        let hidden = catalogue.hidden.as_ref();
        CatalogueMapping {
            side: catalogue.side,
            id: Field::required(&mut fields, &catalogue.id),
            features,
            attributes: attributes::fields(&mut fields, &paths),
            places: (places, kept.len()),
            hidden: hidden.map(|condition| Rule::new(&mut fields, condition, 1.0)),
            deletion: Deletion::of(catalogue.format, &mut fields),
            fields,
            found: FieldValues::default(),
            id_bytes_max,
            unread: Unread::default(),
        }
    }

    /// The change that a record is.
    ///
    /// # Errors
    /// What makes the record unusable.
    pub(crate) fn decode(
        &mut self,
        payload: Option<&[u8]>,
        envelope: &Envelope<'_, '_>,
    ) -> Result<CatalogueChange, DecodeError> {
        if payload.is_none() {
            return self.removed(envelope);
        }
        self.scan(text(payload)?, envelope)?;
        let found = &self.found;
        if self.deletion.as_ref().is_some_and(|deletion| deletion.says_so(found)) {
            return self.removed(envelope);
        }
        let mut digits = itoa::Buffer::new();
        let raw = found.get(self.id.place);
        let name: Box<str> = id(raw, found, &self.id, self.id_bytes_max, &mut digits)?.into();
        if self.hidden.as_ref().is_some_and(|rule| rule.holds(found)) {
            return Ok(self.change(name, None));
        }
        let mut values = Vec::with_capacity(self.features.len());
        for feature in &self.features {
            let mut column = Column::default();
            if let Some(feature) = feature {
                value(feature, found, &mut column, &mut self.unread)?;
            }
            values.push(match column.ends.is_empty() {
                true => FeatureValue::Absent,
                false => column.value(0),
            });
        }
        let attributes = self.attributes_of();
        Ok(CatalogueChange { attributes, ..self.change(name, Some(values)) })
    }

    /// The record's attributes, by place among all that are kept.
    fn attributes_of(&mut self) -> Vec<Box<str>> {
        let Self { attributes: fields, places: (places, kept), found, unread, .. } = self;
        if fields.is_empty() {
            return Vec::new();
        }
        let mut columns = vec![Names::default(); fields.len()];
        attributes::append(fields, found, &mut columns, unread);
        let mut attributes = vec![Box::default(); *kept];
        for (place, column) in places.iter().zip(&columns) {
            attributes[*place] = column.get(0).into();
        }
        attributes
    }

    /// The id that the record's key names is taken out.
    fn removed(&mut self, envelope: &Envelope<'_, '_>) -> Result<CatalogueChange, DecodeError> {
        let missing = || DecodeError::MissingField { field: "key of the Kafka record".to_owned() };
        let key = (envelope.outside)(&Outside::Key).filter(|key| !key.is_empty());
        let key = std::str::from_utf8(key.ok_or_else(missing)?);
        let key = key.map_err(|error| DecodeError::InvalidUtf8 { at: error.valid_up_to() })?;
        if !key.trim_start().starts_with('{') {
            if key.len() > self.id_bytes_max {
                let (field, limit) = ("key of the Kafka record".to_owned(), self.id_bytes_max);
                return Err(DecodeError::IdTooLong { field, bytes: key.len(), limit });
            }
            return Ok(self.change(key.into(), None));
        }
        self.scan(key, envelope)?;
        let (found, mut digits) = (&self.found, itoa::Buffer::new());
        let raw = found.get(self.id.place);
        let name = id(raw, found, &self.id, self.id_bytes_max, &mut digits)?.into();
        Ok(self.change(name, None))
    }

    fn scan(&mut self, text: &str, envelope: &Envelope<'_, '_>) -> Result<(), DecodeError> {
        let scanned = self.fields.scan(text, envelope.outside, &mut self.found);
        // A title with half an emoji is no reason to miss the item.
        let scanned = scanned.or_else(|failure| match foreign::mended(text, "null") {
            Some(mended) => self.fields.scan(&mended, envelope.outside, &mut self.found),
            None => Err(failure),
        });
        scanned.map_err(|failure| {
            let reason = failure.error.to_string();
            match failure.error.is_data() {
                true => DecodeError::NotObject { reason },
                false => DecodeError::NotJson { reason },
            }
        })
    }

    fn change(&self, name: Box<str>, values: Option<Vec<FeatureValue>>) -> CatalogueChange {
        let (side, id, attributes) = (self.side, id_key(name.as_bytes()), Vec::new());
        CatalogueChange { at: 0, side, id, name, values, attributes }
    }

    /// The values that could not be read since the last call.
    pub(crate) fn take_unread(&mut self) -> Unread {
        std::mem::take(&mut self.unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(entry: &str) -> CatalogueMapping {
        let config = Config::from_toml(&format!(
            r#"
            [query]
            id = "user"
            features = [{{ name = "user", kind = "id", field = "user", table = "user" }}]
            [item]
            id = "sku"
            features = [
                {{ name = "sku", kind = "id", field = "sku", table = "item" }},
                {{ name = "tags", kind = "bag", table = "tag" }},
                {{ name = "price", kind = "number", field = "price" }},
                {{ name = "shop", kind = "id", field = "shop", table = "shop", optional = true }},
            ]
            [[catalogue]]
            topic = "items"
            features = {{ tags = "detail.tags", price = "price" }}
            {entry}
            "#
        ));
        let config = config.expect("valid");
        CatalogueMapping::new(&config, &config.catalogue[0])
    }

    fn decode(
        mapping: &mut CatalogueMapping,
        key: Option<&str>,
        value: Option<&str>,
    ) -> Result<(String, Option<Vec<FeatureValue>>), DecodeError> {
        let outside = |what: &Outside| match what {
            Outside::Key => key.map(str::as_bytes),
            Outside::Header(_) => None,
        };
        let envelope = Envelope { time_ms: Some(1), outside: &outside };
        let change = mapping.decode(value.map(str::as_bytes), &envelope)?;
        assert_eq!(change.id, id_key(change.name.as_bytes()));
        Ok((change.name.into(), change.values))
    }

    #[test]
    fn a_record_has_the_features_that_are_mapped_and_the_id() {
        let mut mapping = mapping("id = \"id\"\nhidden = { field = \"stock\", equals = 0 }");
        let tag = |tag: &str| id_key(tag.as_bytes());
        let value = r#"{"id": 7, "detail": {"tags": ["a", "b"]}, "price": 2.5, "shop": "x"}"#;
        let values = vec![
            FeatureValue::Id(tag("7")),
            FeatureValue::Bag(vec![(tag("a"), 0.5), (tag("b"), 0.5)]),
            FeatureValue::Number(2.5),
            FeatureValue::Absent,
        ];
        assert_eq!(decode(&mut mapping, None, Some(value)), Ok(("7".into(), Some(values))));
        let bare = decode(&mut mapping, None, Some(r#"{"id": "7", "price": "dear"}"#));
        let (_, values) = bare.expect("a value that cannot be read counts as absent");
        let own = FeatureValue::Id(tag("7"));
        let absent = FeatureValue::Absent;
        assert_eq!(values, Some(vec![own, absent.clone(), absent.clone(), absent]));
        assert_eq!(mapping.take_unread().values, 1);
        let hidden = decode(&mut mapping, None, Some(r#"{"id": "7", "stock": 0, "price": 1}"#));
        assert_eq!(hidden, Ok(("7".into(), None)));
        let error = decode(&mut mapping, None, Some(r#"{"price": 1}"#)).expect_err("no id");
        assert_eq!(error.field(), Some("id"));
    }

    #[test]
    fn attributes_have_their_place_among_all_that_are_kept() {
        let config = Config::from_toml(
            r#"
            [query]
            id = "user"
            features = [{ name = "user", kind = "id", field = "user", table = "user" }]
            [item]
            id = "sku"
            features = [{ name = "sku", kind = "id", field = "sku", table = "item" }]
            attributes = ["shop", "title"]
            [[catalogue]]
            topic = "items"
            id = "id"
            attributes = ["detail.title", "picture"]
            "#,
        );
        let config = config.expect("valid");
        let mut mapping = CatalogueMapping::new(&config, &config.catalogue[0]);
        let envelope = Envelope { time_ms: Some(1), outside: &|_| None };
        let mut said = |row: &str| {
            let change = mapping.decode(Some(row.as_bytes()), &envelope).expect("a row");
            change.attributes.iter().map(|json| (**json).to_owned()).collect::<Vec<_>>()
        };
        let row = r#"{"id": 7, "detail": {"title": "T"}, "picture": ["a", "b"], "shop": "s"}"#;
        assert_eq!(said(row), ["", "\"T\"", "[\"a\",\"b\"]"]);
        assert_eq!(said(r#"{"id": 7, "picture": {"no": 1}}"#), ["", "", ""]);
        assert_eq!(
            said(r#"{"id": 7, "detail": {"title": "x\ud83d"}, "a": NaN}"#)[1],
            "\"x\u{fffd}\""
        );
        assert_eq!(mapping.take_unread().values, 1);
    }

    #[test]
    fn a_tombstone_takes_out_what_its_key_names() {
        let mut plain = mapping("id = \"id\"");
        assert_eq!(decode(&mut plain, Some("a 7"), None), Ok(("a 7".into(), None)));
        assert_eq!(decode(&mut plain, Some(r#"{"id": 7}"#), None), Ok(("7".into(), None)));
        assert!(decode(&mut plain, None, None).is_err());
        assert!(decode(&mut plain, Some(r#"{"sku": 7}"#), None).is_err());
        let mut keyed = mapping("id = \"@key\"");
        let (name, values) = decode(&mut keyed, Some("k"), Some("{}")).expect("the key is the id");
        assert!(name == "k" && values.is_some());
        assert_eq!(decode(&mut keyed, Some("k"), None), Ok(("k".into(), None)));
        let mut changes = mapping("id = \"id\"\nformat = \"debezium\"");
        let key = Some(r#"{"schema": {}, "payload": {"id": 7}}"#);
        let value = r#"{"payload": {"op": "d", "before": {"id": 7}, "after": null}}"#;
        assert_eq!(decode(&mut changes, key, Some(value)), Ok(("7".into(), None)));
        assert_eq!(decode(&mut changes, key, None), Ok(("7".into(), None)));
        let value = r#"{"payload": {"op": "c", "after": {"id": 7, "price": 3}}}"#;
        let (name, values) = decode(&mut changes, key, Some(value)).expect("an insert");
        assert!(name == "7" && values.expect("there")[2] == FeatureValue::Number(3.0));
    }
}
