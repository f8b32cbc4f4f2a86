//! The fields of a query alone, as a request has them: what a record says of its query side, and of
//! no item.
//!
//! A record that lacks a required field is rejected, because a model must not learn from it. A
//! request that lacks one gets an answer: that of a query of which so much is not known.

use super::raw::FieldValues;
use super::values::{entries, key};
use super::{DecodeError, Mapping, text};
use millrace_events::{Events, id_key};

/// Stands for the query that nobody has seen: no id is empty.
const NOBODY: &[u8] = b"";

impl Mapping {
    /// Appends the query that `payload`, a JSON object, describes to `events`: an event of no item
    /// at no time. The fields that it lacks, the query's id among them, by path.
    ///
    /// # Errors
    /// The first field that holds what it cannot hold; `events` are then as they were.
    pub fn query(&self, payload: &[u8], events: &mut Events) -> Result<Vec<String>, DecodeError> {
        let before = events.len();
        let text = text(Some(payload))?;
        let mut found = FieldValues::default();
        self.fields
            .scan(text, &|_| None, &mut found)
            .map_err(|failure| self.explain(&failure, text))?;
        self.append_query(&found, events).inspect_err(|_| events.truncate(before))
    }

    fn append_query(
        &self,
        found: &FieldValues,
        events: &mut Events,
    ) -> Result<Vec<String>, DecodeError> {
        let mut missing = Vec::new();
        let id = &self.query.id;
        let raw = found.get(id.place);
        let query = if raw.names_something() {
            key(raw, found, id, self.id_bytes_max)?
        } else {
            missing.push(id.name.clone());
            id_key(NOBODY)
        };
        events.query_ids.push(query);
        events.item_ids.push(id_key(NOBODY));
        events.item_names.push("");
        events.times_ms.push(0);
        events.rewards.push(0.0);
        for (feature, column) in self.query.features.iter().zip(&mut events.query) {
            if let Some(field) = &feature.field {
                let raw = found.get(field.place);
                if raw.names_something() {
                    entries(feature, field, raw, found, column)?;
                } else if !feature.optional && !missing.contains(&field.name) {
                    missing.push(field.name.clone());
                }
            }
            column.end();
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn mapping() -> Mapping {
        let config = Config::from_toml(
            r#"
            [query]
            id = "user.id"
            features = [
                { name = "user", kind = "id", field = "user.id", table = "user" },
                { name = "country", kind = "id", field = "country", table = "country" },
                { name = "tags", kind = "bag", field = "tags", table = "tag", optional = true },
                { name = "age", kind = "number", field = "age" },
                { name = "seen", kind = "history", length = 3, table = "item" },
            ]
            [item]
            id = "sku"
            features = [{ name = "sku", kind = "id", field = "sku", table = "item" }]
            "#,
        );
        Mapping::new(&config.expect("valid"))
    }

    #[test]
    fn a_query_is_what_a_record_says_of_it() {
        let mut mapping = mapping();
        let record =
            br#"{"user": {"id": 7}, "country": "br", "tags": ["a", "b"], "age": 31, "sku": "x"}"#;
        let mut events = Events::new(5, 1);
        mapping.decode(Some(record), Some(5), &mut events).expect("whole");
        let mut asked = Events::new(5, 0);
        let missing = mapping.query(record, &mut asked).expect("whole");
        assert!(missing.is_empty());
        assert_eq!((&asked.query, &asked.query_ids), (&events.query, &events.query_ids));
        assert_eq!(asked.len(), 1);
        // What it lacks is said, and what is optional is not missed.
        let missing = mapping.query(br#"{"country": null, "age": 3}"#, &mut asked).expect("little");
        assert_eq!(missing, ["user.id", "country"]);
        assert_eq!(asked.query_ids[1], id_key(NOBODY));
        assert!(asked.query[0].range(1).is_empty() && asked.query[3].values == [31.0, 3.0]);
    }

    #[test]
    fn what_a_field_cannot_hold_is_refused_and_leaves_nothing() {
        let mapping = mapping();
        let mut events = Events::new(5, 0);
        mapping.query(br#"{"user": {"id": "a"}}"#, &mut events).expect("an id");
        let before = events.clone();
        for (payload, field) in [
            (&br#"{"user": {"id": [1]}, "country": "br"}"#[..], Some("user.id")),
            (br#"{"user": {"id": "b"}, "age": "old"}"#, Some("age")),
            (br#"["a"]"#, None),
            (br#"{"user""#, None),
        ] {
            let error = mapping.query(payload, &mut events).expect_err("refused");
            assert_eq!((error.field(), &events), (field, &before), "{error}");
        }
    }
}
