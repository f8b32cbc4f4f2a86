//! A config for somebody's log, proposed from a sample of it.
//!
//! Pure: it is given the sample's lines, and gives a text and what it understood. It reads names
//! (`user_id`, `sku`), values (times, few or many different ones) and what depends on what. The
//! result is a first try: whoever knows the log corrects it.
//!
//! Must never know: where the sample came from.

mod document;
mod features;
mod items;
mod names;
mod profile;
mod roles;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use toml::{Table, Value as Toml};

use crate::config::{Config, Fault, RecordFormat, alternatives, parse_override};
use crate::stream::decode::{DecodeError, Mapping, in_hex};
use crate::stream::events_of;

use document::Document;
use features::{Feature, Kind, Sides};
use profile::Profile;
use roles::{Kinds, Reward, Time};

/// What is known beside the sample.
#[derive(Debug, Default)]
pub struct Given<'g> {
    /// The brokers and the topic, where the sample came from some.
    pub from: Option<(&'g str, &'g str)>,
    /// What the sample was before it was JSON, where it was something else.
    pub format: Option<RecordFormat>,
    /// `--set`, which has the last word.
    pub overrides: &'g [String],
}

/// A config, and how it fits the sample.
#[derive(Debug)]
pub struct Proposal {
    /// The file.
    pub text: String,
    /// What the sample is, a line each.
    pub understood: Vec<String>,
}

/// Why no config can be proposed.
#[derive(Debug, thiserror::Error)]
pub enum Unclear {
    /// Nothing of the sample can be read.
    #[error(
        "none of the {lines} records is a JSON object or an array of them, nor behind the id of a \
         schema. Avro without such ids is read by the file of its schema: --set \
         kafka.schema_file=FILE, with --brokers and --topic. For other formats see \
         docs/how-to/your-log.md. The first record begins with {begin}"
    )]
    NoJson {
        /// Records looked at.
        lines: usize,
        /// Of the first one.
        begin: String,
    },
    /// A role that no field's name fits.
    #[error(
        "no field looks like the id of {what}; name it: --set {key}=FIELD. There are: {fields}"
    )]
    NoField {
        /// Whose id.
        what: &'static str,
        /// The key that names it.
        key: &'static str,
        /// Fields with the number of their values.
        fields: String,
    },
    /// `--set` of another form.
    #[error(transparent)]
    Override(#[from] Fault),
}

/// The fields that were found, or given.
struct Roles {
    query: String,
    item: String,
    time: Option<Time>,
    kinds: Option<Kinds>,
    reward: Option<Reward>,
}

/// Proposes a config for records like `lines`.
///
/// # Errors
/// The sample is not JSON, or no field looks like an id of the query or of the item.
pub fn propose(lines: &[Vec<u8>], given: &Given<'_>) -> Result<Proposal, Unclear> {
    let values = lines.iter().filter_map(|line| serde_json::from_slice(line).ok());
    let records: Vec<Value> =
        values.filter(|value: &Value| value.is_object() || value.is_array()).collect();
    if records.is_empty() {
        return Err(Unclear::NoJson { lines: lines.len(), begin: begin(lines) });
    }
    let sets: Vec<(Vec<&str>, Toml)> =
        given.overrides.iter().map(|text| parse_override(text)).collect::<Result<_, _>>()?;
    let set = |path: &[&str]| {
        let found = sets.iter().rev().find(|(other, _)| other == path);
        found.and_then(|(_, value)| value.as_str()).map(str::to_owned)
    };
    let profile = Profile::new(&records, given.format, |arrays, plain, records| {
        items::find(arrays, plain, records, set(&["item", "id"]).as_deref())
    });
    let role = |path: &[&str], names: &[&str], what, key| {
        set(path)
            .or_else(|| roles::best(&profile, names, roles::is_id).map(str::to_owned))
            .ok_or_else(|| Unclear::NoField { what, key, fields: listed(&profile) })
    };
    let query = role(&["query", "id"], names::QUERIES, "who asks (a user)", "query.id")?;
    let item = role(&["item", "id"], names::ITEMS, "what there is to find (an item)", "item.id")?;
    let given_time = set(&["timestamp", "field"])
        .and_then(|path| roles::time_at(&path, profile.fields.get(&path)?));
    let roles = Roles {
        query,
        item,
        time: given_time.or_else(|| roles::time(&profile)),
        kinds: roles::kinds(&profile),
        reward: roles::reward(&profile),
    };
    let sides = features::sides(&profile, &roles.item, &roles.taken());
    // The other topics have their names of that of the log, wherever it is given.
    let [brokers, topic] = ["brokers", "topic"].map(|key| set(&["kafka", key]));
    let (first, named) = given.from.unwrap_or(("127.0.0.1:9092", "interactions"));
    let from = (brokers.as_deref().unwrap_or(first), topic.as_deref().unwrap_or(named));
    let mut document = document(&profile, &roles, &sides, from);
    if sets.iter().any(|(path, _)| path[0] == "registry") {
        document.section("registry", &["Has the schemas of the records.".to_owned()]);
    }
    sets.iter().for_each(|(path, value)| document.set(path, value));
    let text = document.to_toml();
    let understood = understood(&profile, &roles, &text, lines);
    Ok(Proposal { text, understood })
}

impl Roles {
    fn taken(&self) -> BTreeSet<&str> {
        let mut taken = BTreeSet::from([&*self.query, &*self.item]);
        taken.extend(self.time.iter().map(|time| &*time.field));
        taken.extend(self.kinds.iter().map(|kinds| &*kinds.field));
        match &self.reward {
            Some(Reward::Rating(field, _)) => drop(taken.insert(field)),
            Some(Reward::Part(part, whole)) => taken.extend([&**part, &**whole]),
            None => {}
        }
        taken
    }
}

/// What a sample begins with: its text, or its bytes in hex.
fn begin(lines: &[Vec<u8>]) -> String {
    let first = lines.first().map_or(&[][..], |line| &line[..line.len().min(40)]);
    match std::str::from_utf8(first) {
        Ok(text) if !text.contains(char::is_control) => format!("`{text}`"),
        _ => in_hex(&first[..first.len().min(8)]),
    }
}

/// Every field and how many values it has.
fn listed(profile: &Profile) -> String {
    let fields = profile.fields.iter();
    let listed = fields.map(|(path, field)| format!("{path} ({} values)", field.distinct()));
    listed.collect::<Vec<_>>().join(", ")
}

fn document(
    profile: &Profile,
    roles: &Roles,
    sides: &Sides,
    (brokers, topic): (&str, &str),
) -> Document {
    let mut document = Document::new(&[
        "Proposed by `millrace init` from a sample of the log; correct what it got wrong.",
        "Every key that is not here has the default that config/trainer.toml shows and explains.",
        "Next: millrace check FILE --connect --sample 1000",
    ]);
    document.section("kafka", &[]).key("brokers", brokers).key("topic", topic);
    if profile.format != RecordFormat::Json {
        let format = Toml::try_from(profile.format).expect("a word");
        document.key("format", format);
    }
    document.key("dead_letter_topic", format!("{topic}-dead"));
    if profile.changes {
        document.key("tombstone", "skip");
    }
    match &roles.kinds {
        Some(kinds) => events(&mut document, kinds),
        None if profile.changes => changes(&mut document),
        None => {}
    }
    timestamp(&mut document, roles.time.as_ref());
    match &roles.reward {
        None => {}
        Some(Reward::Rating(field, most)) => {
            let note = format!("Ratings up to {most}: the best is worth 1.");
            document
                .section("reward", &[note])
                .key("field", field.as_str())
                .key("scale", 1.0 / most);
        }
        Some(Reward::Part(part, whole)) => {
            let note = "The part of the item that somebody stayed for.".to_owned();
            document.section("reward", &[note]).key("field", &**part).key("per", &**whole);
        }
    }
    side(&mut document, "query", &roles.query, &sides.query);
    let note = "The last items of the same user, kept by the trainer: what it asks for next.";
    for (index, length) in [1, 4, 20].into_iter().enumerate() {
        let notes: &[String] = if index == 0 { &[note.to_owned()] } else { &[] };
        document.section("[query.features]", notes);
        let name =
            if length == 1 { "last item".to_owned() } else { format!("last {length} items") };
        document.key("name", name).key("kind", "history").key("length", length);
        document.key("table", format!("last-{length}"));
    }
    side(&mut document, "item", &roles.item, &sides.item);
    if !sides.unused.is_empty() {
        document.rest("Not used:".to_owned());
        for (field, reason) in &sides.unused {
            document.rest(format!("  {field}: {reason}"));
        }
    }
    document.section("checkpoint", &[]).key("directory", "checkpoints");
    let note = "Item vectors go here; \"\": nowhere.".to_owned();
    document.section("publish", &[note]).key("topic", format!("{topic}-vectors"));
    document.key("versions_topic", format!("{topic}-versions"));
    document
}

fn events(document: &mut Document, kinds: &Kinds) {
    let Kinds { field, worth, rest } = kinds;
    let mut notes =
        vec![format!("What of `{field}` is an event, and what each is worth beside others.")];
    if !rest.is_empty() {
        let rest: Vec<_> =
            rest.iter().map(|(value, count)| format!("{value} ({count} of the sample)")).collect();
        notes.push(format!("Passed over: {}.", rest.join(", ")));
    }
    for (value, weight, _) in worth {
        let condition: Table = [("field", field), ("equals", value)]
            .map(|(key, value)| (key.to_owned(), Toml::from(value.as_str())))
            .into_iter()
            .collect();
        document.section("[event]", &std::mem::take(&mut notes));
        document.key("where", condition).key("weight", f64::from((weight * 10.0).round()) / 10.0);
    }
}

/// Of a change stream, rows that came or changed are events.
fn changes(document: &mut Document) {
    let there = ["c", "r", "u"].map(Toml::from).to_vec();
    let condition =
        Table::from_iter([("field".to_owned(), "op".into()), ("in".to_owned(), there.into())]);
    let note = "Debezium's changes: rows that were inserted, read or updated, not deleted.";
    document.section("[event]", &[note.to_owned()]).key("where", condition);
}

fn timestamp(document: &mut Document, time: Option<&Time>) {
    let Some(Time { field, unit, format }) = time else {
        let note = "No field looks like the event's time: the Kafka record's own is used.";
        document.section("timestamp", &[note.to_owned()]).key("field", "");
        return;
    };
    document.section("timestamp", &[]).key("field", field.as_str());
    if let Some(unit) = unit {
        document.key("unit", *unit);
    }
    if let Some(format) = format {
        document.key("format", *format);
        document.rest("zone = \"Europe/Berlin\"  if its times are not UTC".to_owned());
    }
}

fn side(document: &mut Document, side: &str, id: &str, features: &[Feature]) {
    document.section(side, &[]).key("id", id);
    let header = format!("[{side}.features]");
    document.section(&header, &[]);
    document.key("name", side).key("kind", "id").key("field", id).key("table", side);
    for Feature { field, kind, distinct } in features {
        document.section(&header, &[format!("{distinct} values in the sample.")]);
        let name = alternatives(field).last().unwrap_or(field);
        let (kind, key, value) = match kind {
            Kind::Id => ("id", "table", table_of(name)),
            Kind::Bag => ("bag", "table", table_of(name)),
            Kind::Log => ("number", "transform", "log".to_owned()),
            Kind::Zscore => ("number", "transform", "zscore".to_owned()),
        };
        document.key("name", name).key("kind", kind).key("field", field.as_str());
        document.key(key, value).key("optional", true);
    }
}

/// A table's name names a file.
fn table_of(field: &str) -> String {
    field.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// What the sample is, three of its records as the config reads them, and how many it reads.
fn understood(profile: &Profile, roles: &Roles, text: &str, lines: &[Vec<u8>]) -> Vec<String> {
    let count = |path: &str| profile.fields.get(path).map_or(0, profile::Field::distinct);
    let mut said = vec![format!("{} records, {} events in them", lines.len(), profile.rows.len())];
    if let Some(array) = &profile.items.array {
        let alone = profile.items.beside.first().map(|(_, id)| format!(", or one with `{id}`"));
        let alone = alone.unwrap_or_default();
        said.push(format!("one event for each element of `{array}`{alone}"));
    }
    said.push(format!("query: `{}`, {} of them", roles.query, count(&roles.query)));
    said.push(format!("item:  `{}`, {} of them", roles.item, count(&roles.item)));
    match &roles.time {
        None => said.push("time:  that of the Kafka record".to_owned()),
        Some(Time { field, unit, format }) => {
            let how = format.or(*unit).unwrap_or("ISO 8601");
            said.push(format!("time:  `{field}` ({how})"));
        }
    }
    match Config::from_toml(text) {
        Err(faults) => said.push(format!("the proposal needs a hand:\n{faults}")),
        Ok(config) => said.extend(tried(&config, lines)),
    }
    said
}

/// What the config makes of the sample.
fn tried(config: &Config, lines: &[Vec<u8>]) -> Vec<String> {
    let mut mapping = Mapping::new(config);
    let (mut read, mut skipped, mut shown) = (0, 0, Vec::new());
    let mut rejected: BTreeMap<&'static str, (usize, DecodeError)> = BTreeMap::new();
    for line in lines {
        let mut events = events_of(config);
        match mapping.decode(Some(line), Some(0), &mut events) {
            Ok(0) => skipped += 1,
            Ok(count) => {
                read += 1;
                if shown.len() < 3 {
                    shown.push(as_read(line, &events, count));
                }
            }
            Err(error) => rejected.entry(error.reason()).or_insert((0, error)).0 += 1,
        }
    }
    let mut said = shown;
    said.push(format!("of {} records {read} are read, {skipped} are no events", lines.len()));
    for (reason, (count, error)) in rejected {
        said.push(format!("{count} are rejected as {reason}, the first because {error}"));
    }
    said
}

/// A record's events in words.
fn as_read(line: &[u8], events: &millrace_events::Events, count: usize) -> String {
    const CHARS_MAX: usize = 60;
    let text: String = String::from_utf8_lossy(line).chars().take(CHARS_MAX).collect();
    let time = jiff::Timestamp::from_millisecond(events.times_ms[0]);
    let time = time.map_or_else(|_| "no time".to_owned(), |time| time.to_string());
    let items: Vec<_> = events.item_names.iter().take(3).map(|name| format!("`{name}`")).collect();
    let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
    format!("{text}...\n  is {}{more} at {time}, worth {}", items.join(", "), events.rewards[0])
}

#[cfg(test)]
mod tests;
