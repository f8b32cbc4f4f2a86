//! `lengths = [1, 4, 20]`: one history read at several lengths, a feature each.
//!
//! The mean of the last item, of the last four and of the last twenty tell recent from old, which
//! one mean cannot. Each costs a part of the tower's input. They share a table, unless its name
//! holds [`PLACE`], where the length then stands.

use toml::{Table, Value};

/// Stands for the length in the name of a table.
const PLACE: &str = "{length}";

/// Puts, in place of each feature that names `lengths`, one of each length. What is no list of
/// lengths stays, for the parser to refuse.
pub(super) fn expand(table: &mut Table) {
    let Some(Value::Table(query)) = table.get_mut("query") else { return };
    let Some(Value::Array(features)) = query.get_mut("features") else { return };
    *features = features.drain(..).flat_map(of_each_length).collect();
}

fn of_each_length(feature: Value) -> Vec<Value> {
    let Value::Table(keys) = &feature else { return vec![feature] };
    let lengths = match keys.get("lengths") {
        Some(Value::Array(lengths)) if !lengths.is_empty() && !keys.contains_key("length") => {
            lengths.clone()
        }
        _ => return vec![feature],
    };
    let of_length = |length: Value| {
        let mut keys = keys.clone();
        keys.remove("lengths");
        if let Some(Value::String(name)) = keys.get_mut("name") {
            name.push_str(&format!(" ({length})"));
        }
        if let Some(Value::String(table)) = keys.get_mut("table") {
            *table = table.replace(PLACE, &length.to_string());
        }
        keys.insert("length".to_owned(), length);
        Value::Table(keys)
    };
    lengths.into_iter().map(of_length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_of_three_lengths_is_three_features() {
        let text = r#"
            [[query.features]]
            name = "user"
            [[query.features]]
            name = "last films"
            kind = "history"
            table = "last-{length}"
            lengths = [1, 4, 20]
        "#;
        let mut table: Table = text.parse().expect("TOML");
        expand(&mut table);
        let features = table["query"]["features"].as_array().expect("an array");
        let names: Vec<&str> = features.iter().filter_map(|keys| keys["name"].as_str()).collect();
        assert_eq!(names, ["user", "last films (1)", "last films (4)", "last films (20)"]);
        let lengths: Vec<Option<i64>> =
            features.iter().map(|keys| keys.get("length").and_then(Value::as_integer)).collect();
        assert_eq!(lengths, [None, Some(1), Some(4), Some(20)]);
        let tables: Vec<Option<&str>> =
            features.iter().map(|keys| keys.get("table").and_then(Value::as_str)).collect();
        assert_eq!(tables, [None, Some("last-1"), Some("last-4"), Some("last-20")]);
        assert!(features.iter().all(|keys| keys.get("lengths").is_none()));
        let once = table.clone();
        expand(&mut table);
        assert_eq!(table, once, "what was expanded stays");
    }

    #[test]
    fn what_is_no_list_of_lengths_is_left_to_the_parser() {
        for feature in ["lengths = 3", "lengths = []", "lengths = [1, 2]\nlength = 4"] {
            let mut table: Table = format!("[[query.features]]\n{feature}").parse().expect("TOML");
            let before = table.clone();
            expand(&mut table);
            assert_eq!(table, before);
        }
    }
}
