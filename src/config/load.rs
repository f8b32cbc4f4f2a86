//! From text to a [`Config`]: overrides, unknown keys, wrong types, all of them at once.

use std::fmt;
use std::path::Path;

use toml::{Table, Value};

use super::{BatchConfig, Config, lengths, references};

/// One thing wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Dotted path of the key, or empty for the file as a whole.
    pub key: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { key, reason } = self;
        if key.is_empty() { write!(f, "{reason}") } else { write!(f, "{key}: {reason}") }
    }
}

impl std::error::Error for Fault {}

/// Everything wrong with a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Fault { key: key.into(), reason: reason.into() });
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl Config {
    /// Reads `path` (none: all defaults), applies `--set section.key=value` overrides in order,
    /// and checks everything.
    ///
    /// # Errors
    /// All faults found: unknown keys, wrong types, and values that contradict each other.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Config, Faults> {
        let mut faults = Faults::default();
        let text = match path {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                let mut faults = Faults::default();
                faults.add("", format!("cannot read {}: {error}", path.display()));
                faults
            })?,
        };
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let mut faults = Faults::default();
            faults.add("", not_toml(&error, &text));
            faults
        })?;
        for text in overrides {
            if let Err(fault) = apply_override(&mut table, text) {
                faults.0.push(fault);
            }
        }
        for renamed in rename(&mut table) {
            tracing::warn!("{renamed}");
        }
        let variable = |name: &str| std::env::var(name).ok();
        let file = |path: &str| std::fs::read_to_string(path);
        references::resolve(&mut table, &variable, &file, &mut faults);
        let config = parse(table, &mut faults);
        config.validate(&mut faults);
        if faults.0.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// Parses text that an earlier [`Config::to_toml`] wrote.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Config, Faults> {
        let mut faults = Faults::default();
        let config = match text.parse::<Table>() {
            Ok(mut table) => {
                rename(&mut table);
                parse(table, &mut faults)
            }
            Err(error) => {
                faults.add("", not_toml(&error, text));
                return Err(faults);
            }
        };
        config.validate(&mut faults);
        if faults.0.is_empty() { Ok(config) } else { Err(faults) }
    }
}

/// Keys of old that counted steps, each with the one that counts events instead.
pub(super) const RENAMED: [(&str, &str, &str); 3] = [
    ("embedding", "expiry_steps", "expiry_events"),
    ("corpus", "tombstone_steps", "tombstone_events"),
    ("negatives", "cross_batch_after_steps", "cross_batch_after_events"),
];

/// Turns the old keys into the new, a step being a full batch; a line for each of them. A number
/// that is none, or that stands beside the new key, is left for the parser to refuse.
fn rename(table: &mut Table) -> Vec<String> {
    let batch = table.get("batch").and_then(|batch| batch.get("size")).and_then(Value::as_integer);
    let batch = batch.unwrap_or(BatchConfig::default().size as i64);
    let mut lines = Vec::new();
    for (section, old, new) in RENAMED {
        let Some(Value::Table(keys)) = table.get_mut(section) else { continue };
        if keys.contains_key(new) {
            continue;
        }
        let Some(events) =
            keys.get(old).and_then(Value::as_integer).and_then(|steps| steps.checked_mul(batch))
        else {
            continue;
        };
        keys.remove(old);
        keys.insert(new.to_owned(), Value::Integer(events));
        lines.push(format!(
            "{section}.{old} is {section}.{new} now, and counts events: read as {events}, with \
             {batch} events a step"
        ));
    }
    lines
}

/// The table whose values no message may show.
const PROPERTIES: &str = "kafka.properties";
/// Nor may one show these.
const KEYS: &str = "serve.keys";
const LOGIN: [&str; 2] = ["registry.user", "registry.password"];

/// What is wrong with a text that is no TOML, and in which line. The line itself is not shown: it
/// may hold a password.
fn not_toml(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let place = before
        .map_or(String::new(), |before| format!("line {}: ", before.matches('\n').count() + 1));
    format!("not valid TOML: {place}{}", error.message().trim_end())
}

/// An override for a message: of what is secret only its key.
fn shown(text: &str) -> String {
    let mut secrets = [PROPERTIES, KEYS].into_iter().chain(LOGIN);
    let secret = secrets.find(|key| text.trim_start().starts_with(key));
    match (secret, text.split_once('=')) {
        (None, _) => text.to_owned(),
        (Some(_), Some((key, _))) => format!("{key}=..."),
        (Some(secret), None) => format!("{secret}..."),
    }
}

/// librdkafka takes texts only. A number or `true` is one that lacks its quotes, and a key that
/// lacks them (`security.protocol = "SSL"`) is a table within a table.
fn properties_as_texts(table: &mut Table) {
    let Some(Value::Table(kafka)) = table.get_mut("kafka") else { return };
    let Some(Value::Table(properties)) = kafka.get_mut("properties") else { return };
    let as_text = |value: Value| match value {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Value::String(value.to_string()),
        other => other,
    };
    let texts = leaves(std::mem::take(properties)).into_iter();
    *properties = texts.map(|(key, value)| (key, as_text(value))).collect();
}

/// The values of a table and of the tables in it, each with its dotted path.
pub(crate) fn leaves(table: Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                let below = leaves(inner).into_iter();
                found.extend(below.map(|(path, value)| (format!("{key}.{path}"), value)));
            }
            value => found.push((key, value)),
        }
    }
    found
}

/// serde stops at the first wrong type. Taking the offending key out and parsing again finds the
/// next one; each round removes a key, so the loop ends.
fn parse(mut table: Table, faults: &mut Faults) -> Config {
    properties_as_texts(&mut table);
    lengths::expand(&mut table);
    loop {
        let mut unknown = Vec::new();
        let ignored = &mut |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let mut track = serde_path_to_error::Track::new();
        let path_aware =
            serde_path_to_error::Deserializer::new(Value::Table(table.clone()), &mut track);
        let parsed: Result<Config, _> = serde_ignored::deserialize(path_aware, ignored);
        match parsed {
            Ok(config) => {
                for key in unknown {
                    faults.add(key, "unknown key; config/trainer.toml lists every key");
                }
                return config;
            }
            Err(error) => {
                let path = track.path().to_string();
                // serde's words quote the value, which may be a password.
                let reason = if path.starts_with(PROPERTIES) || LOGIN.contains(&&*path) {
                    "must be a string, in quotes".to_owned()
                } else if path.starts_with(KEYS) {
                    "must be an array of strings".to_owned()
                } else {
                    error.to_string().trim_end().to_owned()
                };
                faults.add(path.clone(), reason);
                if !remove(&mut table, &path) {
                    return Config::default();
                }
            }
        }
    }
}

/// Removes the key at `path` (`a.b[2].c`); true if there was something to remove.
fn remove(table: &mut Table, path: &str) -> bool {
    let steps = path.replace('[', ".").replace(']', "");
    let mut steps: Vec<&str> = steps.split('.').collect();
    // A librdkafka property has dots of its own.
    if let Some(name) = path.strip_prefix("kafka.properties.") {
        steps = vec!["kafka", "properties", name];
    }
    let Some(last) = steps.pop() else { return false };
    let mut root = Value::Table(std::mem::take(table));
    let mut at = Some(&mut root);
    for step in steps {
        at = at.and_then(|value| match value {
            Value::Table(table) => table.get_mut(step),
            Value::Array(array) => step.parse::<usize>().ok().and_then(|i| array.get_mut(i)),
            _ => None,
        });
    }
    let removed = match at {
        Some(Value::Table(table)) => table.remove(last).is_some(),
        Some(Value::Array(array)) => match last.parse::<usize>() {
            Ok(index) if index < array.len() => {
                array.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    };
    if let Value::Table(inner) = root {
        *table = inner;
    }
    removed
}

/// The path and the value of `section.key=value`. The value is TOML; what is not valid TOML is a
/// string, so that `kafka.brokers=host:9092` needs no quotes.
///
/// # Errors
/// A text of another form.
pub fn parse_override(text: &str) -> Result<(Vec<&str>, Value), Fault> {
    let wrong = |reason: String| Fault { key: format!("--set {}", shown(text)), reason };
    let form = || wrong("expected section.key=value".to_owned());
    let (path, value) = text.split_once('=').ok_or_else(form)?;
    let property = path.trim().starts_with(PROPERTIES);
    let value = match format!("v = {value}").parse::<Table>() {
        Ok(mut parsed) => match parsed.remove("v").ok_or_else(form)? {
            // librdkafka takes text only: a number or `true` is one that lacks its quotes.
            Value::String(text) => Value::String(text),
            _ if property => Value::String(value.to_owned()),
            other => other,
        },
        Err(_) => Value::String(value.to_owned()),
    };
    let mut steps: Vec<&str> = path.trim().split('.').collect();
    // A librdkafka property has dots of its own: everything after `kafka.properties.` is its name.
    if let [first, second, rest @ ..] = steps.as_slice()
        && *first == "kafka"
        && *second == "properties"
        && rest.len() > 1
    {
        let name = &path.trim()["kafka.properties.".len()..];
        steps = vec!["kafka", "properties", name];
    }
    match steps.last() {
        Some(last) if !last.is_empty() => Ok((steps, value)),
        _ => Err(form()),
    }
}

/// Applies `section.key=value`.
fn apply_override(table: &mut Table, text: &str) -> Result<(), Fault> {
    let wrong = |reason: String| Fault { key: format!("--set {}", shown(text)), reason };
    let (mut steps, value) = parse_override(text)?;
    let last = steps.pop().expect("a path has a key");
    let mut at = table;
    for step in steps {
        at = at
            .entry(step)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| wrong(format!("`{step}` is not a section")))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}
