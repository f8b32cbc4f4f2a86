//! Values that stand elsewhere: `env:NAME`, `file:PATH`, and `${NAME}` within a text.
//!
//! A password belongs neither into the file, which is shared, nor onto the command line, which
//! every user of the machine can read.
//!
//! Must never do: show a value.

use toml::{Table, Value};

use super::Faults;

/// Puts what they refer to in the place of all references. `variable` and `file` read a variable of
/// the environment and a file.
pub(super) fn resolve(
    table: &mut Table,
    variable: &dyn Fn(&str) -> Option<String>,
    file: &dyn Fn(&str) -> std::io::Result<String>,
    faults: &mut Faults,
) {
    let read = |text: &str| referred(text, variable, file);
    for (key, value) in table.iter_mut() {
        walk(key, value, &read, faults);
    }
}

type Read<'r> = &'r dyn Fn(&str) -> Result<Option<String>, String>;

fn walk(path: &str, value: &mut Value, read: Read<'_>, faults: &mut Faults) {
    match value {
        Value::String(text) => match read(text) {
            Ok(Some(found)) => *text = found,
            Ok(None) => {}
            Err(reason) => faults.add(path, reason),
        },
        Value::Array(array) => {
            for (index, value) in array.iter_mut().enumerate() {
                walk(&format!("{path}[{index}]"), value, read, faults);
            }
        }
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                walk(&format!("{path}.{key}"), value, read, faults);
            }
        }
        _ => {}
    }
}

/// What `text` refers to; none: it is meant as it is.
fn referred(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    file: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<Option<String>, String> {
    let variable = |name: &str| {
        variable(name).ok_or_else(|| format!("no variable `{name}` in the environment"))
    };
    if let Some(name) = text.strip_prefix("env:") {
        return variable(name).map(Some);
    }
    if let Some(path) = text.strip_prefix("file:") {
        let content = file(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        // An editor ends a file with a line break that is no part of a password.
        return Ok(Some(content.trim_end_matches(['\n', '\r']).to_owned()));
    }
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) =
            after.split_once('}').ok_or_else(|| "a `${` without its `}`".to_owned())?;
        out.push_str(before);
        out.push_str(&variable(name)?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> (Table, Vec<String>) {
        let mut table: Table = text.parse().expect("TOML");
        let mut faults = Faults::default();
        let variable = |name: &str| (name == "HOST").then(|| "broker-1".to_owned());
        let file = |path: &str| match path {
            "/run/password" => Ok("open sesame\n".to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        resolve(&mut table, &variable, &file, &mut faults);
        (table, faults.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn references_are_read() {
        let (table, faults) = resolved(
            r#"
            kafka = { brokers = "${HOST}:9092,b-${HOST}", topic = "costs $5" }
            [kafka_properties]
            "sasl.password" = "file:/run/password"
            "sasl.username" = "env:HOST"
            list = ["env:HOST"]
            "#,
        );
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(table["kafka"]["brokers"].as_str(), Some("broker-1:9092,b-broker-1"));
        assert_eq!(table["kafka"]["topic"].as_str(), Some("costs $5"));
        let properties = &table["kafka_properties"];
        assert_eq!(properties["sasl.password"].as_str(), Some("open sesame"));
        assert_eq!(properties["sasl.username"].as_str(), Some("broker-1"));
        assert_eq!(properties["list"][0].as_str(), Some("broker-1"));
    }

    #[test]
    fn what_is_not_there_is_a_fault_of_its_key() {
        let (_, faults) = resolved(
            "a = \"env:GONE\"\nb.c = \"file:/gone\"\nd = \"${HOST\"\ne = [\"x\", \"${GONE}\"]",
        );
        assert_eq!(
            faults,
            [
                "a: no variable `GONE` in the environment",
                "b.c: cannot read /gone: entity not found",
                "d: a `${` without its `}`",
                "e[1]: no variable `GONE` in the environment",
            ]
        );
    }
}
