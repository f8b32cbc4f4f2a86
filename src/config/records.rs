//! What of a log is an event: `kafka.format`, `[[event]]`, and how a field is named.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a record's bytes are, and what surrounds its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordFormat {
    /// Nothing: a JSON object, or an array of them.
    #[default]
    Json,
    /// Debezium's envelope, with or without its `schema` and `payload`: rows that were inserted or
    /// changed. A deleted row and a tombstone are passed over.
    Debezium,
    /// A CloudEvent, its attributes beside its `data` or in headers.
    CloudEvents,
    /// JSON behind the id of its schema in a registry, which needs not be asked.
    #[serde(rename = "json-schema")]
    JsonSchema,
    /// An Avro datum: behind the id of its schema in a registry, or bare, of `kafka.schema_file`.
    Avro,
    /// A Protobuf message behind the id of its schema in a registry.
    Protobuf,
}

impl RecordFormat {
    /// Its records can be read with their schemas alone.
    pub fn needs_schemas(self) -> bool {
        matches!(self, Self::Avro | Self::Protobuf)
    }

    /// The object in which fields are looked for first, before the record itself.
    pub fn inside(self) -> Option<&'static str> {
        match self {
            Self::Json | Self::JsonSchema | Self::Avro | Self::Protobuf => None,
            Self::Debezium => Some("after"),
            Self::CloudEvents => Some("data"),
        }
    }
}

/// One entry of `[[event]]`: which records are events, and how much one counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventRule {
    /// The condition.
    #[serde(rename = "where")]
    pub condition: Condition,
    /// Factor of the reward.
    pub weight: f32,
}

impl Default for EventRule {
    fn default() -> Self {
        Self { condition: Condition::default(), weight: 1.0 }
    }
}

/// A condition on one field: `equals`, `in` or `exists`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// The field.
    pub field: String,
    /// It has this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<Scalar>,
    /// It has one of these values.
    #[serde(rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<Scalar>,
    /// It is there, and not null (or is not, if false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

/// A value to compare with. `5`, `5.0` and `"5"` are the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a string, a number or a boolean")]
pub enum Scalar {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// A text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// The paths of a field, of which one that has alternatives, `a | b`, has several: it is at the
/// first of them that has a value.
pub fn alternatives(field: &str) -> impl Iterator<Item = &str> {
    field.split('|').map(str::trim)
}

/// A step of a field's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'p> {
    /// The value of this key.
    Key(&'p str),
    /// Each element of the array: one event an element.
    Each,
    /// This element of the array, from 0.
    At(usize),
}

/// The steps of a path such as `user.id`, `items[].item_id` or `items[0].id`.
///
/// # Errors
/// A bracket that holds no number.
pub fn steps(path: &str) -> Result<Vec<Step<'_>>, String> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (key, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        steps.push(Step::Key(key));
        while !rest.is_empty() {
            let inside = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let Some((inside, after)) = inside else {
                return Err(format!("`{path}`: expected `[]` or `[0]` after `{key}`"));
            };
            steps.push(match inside {
                "" => Step::Each,
                number => Step::At(number.parse().map_err(|_| {
                    format!("`{path}`: `[{number}]` is neither `[]` nor a place such as `[0]`")
                })?),
            });
            rest = after;
        }
    }
    Ok(steps)
}

/// What lies beside a record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside<'p> {
    /// The record's key, as text: `@key`.
    Key,
    /// The last header of this name, as text: `@headers.NAME`.
    Header(&'p str),
}

/// What beside the value a path names; none: it is one within the value.
///
/// # Errors
/// An unknown name after `@`.
pub fn beside(path: &str) -> Result<Option<Beside<'_>>, String> {
    match path.strip_prefix('@') {
        None => Ok(None),
        Some("key") => Ok(Some(Beside::Key)),
        Some(name) => match name.strip_prefix("headers.").filter(|name| !name.is_empty()) {
            Some(name) => Ok(Some(Beside::Header(name))),
            None => Err(format!("`{path}`: expected `@key` or `@headers.NAME`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_keys_places_and_each() {
        use Step::{At, Each, Key};
        let cases: [(&str, &[Step<'_>]); 5] = [
            ("user", &[Key("user")]),
            ("a.b", &[Key("a"), Key("b")]),
            ("items[].item_id", &[Key("items"), Each, Key("item_id")]),
            ("ids[]", &[Key("ids"), Each]),
            ("a[0][12].b", &[Key("a"), At(0), At(12), Key("b")]),
        ];
        for (path, expected) in cases {
            assert_eq!(steps(path).as_deref(), Ok(expected), "{path}");
        }
        for wrong in ["a[", "a[x]", "a[-1]", "a[]b", "a]["] {
            assert!(steps(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn alternatives_stand_between_bars() {
        let of = |field| alternatives(field).collect::<Vec<_>>();
        assert_eq!(of("user"), ["user"]);
        assert_eq!(of("items[].id | id|@key"), ["items[].id", "id", "@key"]);
    }

    #[test]
    fn a_key_and_headers_lie_beside_the_value() {
        assert_eq!(beside("@key"), Ok(Some(Beside::Key)));
        assert_eq!(beside("@headers.ce_type"), Ok(Some(Beside::Header("ce_type"))));
        assert_eq!(beside("user"), Ok(None));
        for wrong in ["@", "@keys", "@headers", "@headers."] {
            assert!(beside(wrong).is_err(), "{wrong}");
        }
    }
}
