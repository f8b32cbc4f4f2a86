//! What a record says of an item for people and stores, as JSON: a text, a number, a boolean, or an
//! array of these. Nothing that is wrong with it makes a record unusable.

use std::fmt::Write as _;

use serde_json::Number;

use super::fields::Fields;
use super::raw::{FieldValues, Raw};
use super::side::{Field, Unread};
use super::values::wrong_type;
use millrace_events::{ATTRIBUTES_BYTES_MAX, Names};

/// Compiles the paths of attributes.
pub(super) fn fields(fields: &mut Fields, paths: &[String]) -> Vec<Field> {
    paths.iter().map(|path| Field::required(fields, path)).collect()
}

/// Appends what a record has of each of `fields` to its column. A value that is none of an
/// attribute, and all of them where they are too long together, are left out and count as unread.
pub(super) fn append(
    fields: &[Field],
    found: &FieldValues,
    columns: &mut [Names],
    unread: &mut Unread,
) {
    let mut bytes = 0;
    for (field, column) in fields.iter().zip(&mut *columns) {
        let raw = found.get(field.place);
        bytes += column.write(|text| {
            let start = text.len();
            if !write(raw, found, text) {
                text.truncate(start);
                let expected = "a string, a number, a boolean or an array of them";
                unread.note(&wrong_type(&field.name, expected, raw));
            }
            text.len() - start
        });
    }
    if bytes > ATTRIBUTES_BYTES_MAX {
        unread.note(&format_args!(
            "the attributes of an item have {bytes} bytes; the limit is {ATTRIBUTES_BYTES_MAX}"
        ));
        for column in columns {
            column.truncate(column.len() - 1);
            column.push("");
        }
    }
}

/// Appends `raw` as JSON; nothing, if it is absent. False if it has no such form: then something
/// may have been appended.
fn write(raw: Raw, found: &FieldValues, out: &mut String) -> bool {
    if raw.absent() {
        return true;
    }
    let Raw::List(list) = raw else { return scalar(raw, found, out) };
    out.push('[');
    let mut first = true;
    // An entry of null says nothing.
    for &entry in found.elements(list).iter().filter(|entry| !entry.absent()) {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        if !scalar(entry, found, out) {
            return false;
        }
    }
    out.push(']');
    true
}

fn scalar(raw: Raw, found: &FieldValues, out: &mut String) -> bool {
    let written = match raw {
        Raw::Bool(value) => write!(out, "{value}"),
        Raw::Signed(value) => write!(out, "{value}"),
        Raw::Unsigned(value) => write!(out, "{value}"),
        Raw::Float(value) => match Number::from_f64(value) {
            Some(number) => write!(out, "{number}"),
            None => return false,
        },
        Raw::Text(text) => {
            let text = serde_json::to_string(found.text(text)).expect("a text is JSON");
            out.write_str(&text)
        }
        Raw::Missing | Raw::Null | Raw::List(_) | Raw::Nested => return false,
    };
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::stream::decode::Mapping;
    use crate::stream::events_of;

    const FIELDS: &str = "\"title\", \"product.price\", \"tags\", \"flags.new\"";

    fn config(item: &str, attributes: &str) -> Config {
        let text = format!(
            r#"
            [query]
            id = "user"
            features = [{{ name = "user", kind = "id", field = "user", table = "user" }}]
            [item]
            id = "{item}"
            features = [{{ name = "sku", kind = "id", field = "{item}", table = "item" }}]
            attributes = [{attributes}]
            "#
        );
        Config::from_toml(&text).expect("valid")
    }

    /// What the events of a record say, and how many values were unread.
    fn said(config: &Config, record: &str) -> (Vec<Vec<String>>, u64) {
        let (mut mapping, mut events) = (Mapping::new(config), events_of(config));
        mapping.decode(Some(record.as_bytes()), Some(1), &mut events).expect("it is accepted");
        let of = |event| events.attributes.iter().map(|c| c.get(event).to_owned()).collect();
        ((0..events.len()).map(of).collect(), mapping.take_unread().values)
    }

    fn one(fields: &str) -> (Vec<String>, u64) {
        let record = format!(r#"{{"user": 1, "sku": 2{fields}}}"#);
        let (mut said, unread) = said(&config("sku", FIELDS), &record);
        (said.pop().expect("an event"), unread)
    }

    #[test]
    fn values_are_kept_as_they_stand_in_the_record() {
        let fields = r#", "title": "A \"3\"\n\u00e9", "product": {"price": -2.50},
            "tags": ["a", 7, true, null, 1e3], "flags": {"new": false}"#;
        let json = [r#""A \"3\"\né""#, "-2.5", r#"["a",7,true,1000.0]"#, "false"];
        assert_eq!(one(fields), (json.map(str::to_owned).to_vec(), 0));
        // A key that is spelt with the dot; the largest integers.
        let fields = r#", "product.price": 18446744073709551615, "title": -9223372036854775808"#;
        let json = ["-9223372036854775808", "18446744073709551615", "", ""];
        assert_eq!(one(fields), (json.map(str::to_owned).to_vec(), 0));
        assert_eq!(one(r#", "title": "", "tags": []"#).0, ["\"\"", "", "[]", ""]);
    }

    #[test]
    fn what_is_missing_or_null_says_nothing() {
        for fields in ["", r#", "title": null, "product": null, "tags": null"#] {
            assert_eq!(one(fields), (vec![String::new(); 4], 0), "{fields}");
        }
    }

    #[test]
    fn objects_and_what_is_too_long_are_left_out_and_counted() {
        let fields = r#", "title": {"en": "A"}, "product": {"price": 1}, "tags": [["a"]]"#;
        assert_eq!(one(fields).0, ["", "1", "", ""]);
        assert_eq!(one(fields).1, 2);
        assert_eq!(one(r#", "title": NaN, "tags": "x\ud83d""#).0, ["", "", "\"x\u{fffd}\"", ""]);
        let title = "x".repeat(ATTRIBUTES_BYTES_MAX - 3);
        let fields = format!(r#", "title": "{title}", "product": {{"price": 1}}"#);
        assert_eq!(one(&fields).0[1], "1", "so much is allowed");
        let fields = format!(r#", "title": "x{title}", "product": {{"price": 1}}"#);
        assert_eq!(one(&fields), (vec![String::new(); 4], 1));
    }

    #[test]
    fn each_element_of_an_array_has_its_own() {
        let config = config("items[].sku", "\"items[].name\", \"shop\"");
        let record = r#"{"user": 1, "shop": "s", "items": [
            {"sku": 1, "name": "one"}, {"sku": 2}, {"sku": 3, "name": {"no": 1}}]}"#;
        let rows = [["\"one\"", "\"s\""], ["", "\"s\""], ["", "\"s\""]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        assert_eq!(said(&config, record), (rows, 1));
    }

    #[test]
    fn a_record_that_is_rejected_leaves_nothing() {
        let config = config("sku", FIELDS);
        let (mut mapping, mut events) = (Mapping::new(&config), events_of(&config));
        let good = br#"{"user": 1, "sku": 2, "title": "A"}"#;
        mapping.decode(Some(good), Some(1), &mut events).expect("good");
        let before = events.clone();
        let bad = br#"[{"user": 1, "sku": 2, "title": "B"}, {"user": 1, "title": "C"}]"#;
        assert!(mapping.decode(Some(bad), Some(1), &mut events).is_err());
        assert_eq!(events, before);
    }
}
