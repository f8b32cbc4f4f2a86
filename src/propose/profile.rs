//! What the fields of a sample hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::config::RecordFormat;

/// Objects within objects that are looked into: deeper fields are rarely what a model should see.
const DEPTH_MAX: usize = 4;

/// A value of one field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(f64),
    Bool(bool),
    List(Vec<String>),
}

impl Cell {
    /// What tells it from others.
    pub(super) fn key(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Number(number) => number.to_string(),
            Cell::Bool(value) => value.to_string(),
            Cell::List(list) => list.join(","),
        }
    }

    /// Its number; of a text, the one that it spells.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Cell::Number(number) => Some(*number),
            Cell::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Cell::Bool(_) | Cell::List(_) => None,
        }
    }
}

/// Paths of arrays of objects, with the names of these objects' fields.
pub(super) type Arrays = BTreeMap<String, BTreeSet<String>>;

/// Where the items are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Items {
    /// The array each of whose elements is an event.
    pub(super) array: Option<String>,
    /// Where an element has a value, and where a record without elements has it: the first one is
    /// the item's id.
    pub(super) beside: Vec<(String, String)>,
}

/// Fields by path, of one event.
pub(super) type Row = BTreeMap<String, Cell>;

/// A sample as events would be read from it.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) format: RecordFormat,
    /// Records are a change stream's, and their format knows nothing of it.
    pub(super) changes: bool,
    /// Where the items are.
    pub(super) items: Items,
    pub(super) rows: Vec<Row>,
    /// Every field that some row has.
    pub(super) fields: BTreeMap<String, Field>,
}

/// One field of a sample.
#[derive(Debug, Default)]
pub(super) struct Field {
    /// Rows that have it.
    pub(super) present: usize,
    /// Of all rows.
    pub(super) rows: usize,
    /// Its values, and how often each comes.
    pub(super) values: BTreeMap<String, usize>,
    /// Rows in which it is a number, or a text that spells one; and an array.
    pub(super) numbers: usize,
    pub(super) lists: usize,
}

impl Field {
    /// Share of the rows that have it.
    pub(super) fn share(&self) -> f64 {
        self.present as f64 / self.rows.max(1) as f64
    }

    /// Different values.
    pub(super) fn distinct(&self) -> usize {
        self.values.len()
    }

    /// Nearly every row has a value of its own.
    pub(super) fn is_unique(&self) -> bool {
        self.present >= 20 && self.distinct() as f64 > 0.9 * self.present as f64
    }

    pub(super) fn is_number(&self) -> bool {
        self.numbers > 0 && self.numbers == self.present
    }

    /// The numbers among its values.
    pub(super) fn parsed(&self) -> impl Iterator<Item = f64> {
        self.values.keys().filter_map(|value| value.trim().parse().ok())
    }

    pub(super) fn is_list(&self) -> bool {
        2 * self.lists > self.present
    }
}

impl Profile {
    /// Of records as JSON, which were of this format if one is named; `find` says where the
    /// items are, given the arrays of objects that there are and the fields outside of them.
    pub(super) fn new(
        records: &[Value],
        format: Option<RecordFormat>,
        find: impl FnOnce(&Arrays, &Profile, &[Map<String, Value>]) -> Items,
    ) -> Profile {
        let objects: Vec<&Map<String, Value>> = records.iter().flat_map(objects).collect();
        let seen = format_of(&objects);
        let format = format.unwrap_or(seen);
        let changes = seen == RecordFormat::Debezium && format != seen;
        let fields = |object: &&Map<String, Value>| match changes {
            true => change(object),
            false => inside(object, format),
        };
        let inner: Vec<Map<String, Value>> = objects.iter().filter_map(fields).collect();
        let mut plain = Profile { format, changes, ..Profile::default() };
        plain.read(&inner);
        let items = find(&arrays_of(&inner), &plain, &inner);
        if items.array.is_none() {
            return plain;
        }
        let mut profile = Profile { format, changes, items, ..Profile::default() };
        profile.read(&inner);
        profile
    }

    fn read(&mut self, objects: &[Map<String, Value>]) {
        for object in objects {
            let mut shared = Row::new();
            flatten("", object, DEPTH_MAX, &mut shared);
            let Some(array) = &self.items.array else {
                self.rows.push(shared);
                continue;
            };
            let elements = at_path(object, array).and_then(Value::as_array);
            let elements = elements.map_or(&[][..], Vec::as_slice);
            let alone = self.items.beside.first().is_some_and(|(_, id)| shared.contains_key(id));
            if elements.is_empty() && alone {
                self.rows.push(shared.clone());
            }
            for element in elements {
                let mut row = shared.clone();
                row.remove(array);
                let prefix = format!("{array}[]");
                match element {
                    Value::Object(object) => {
                        flatten(&format!("{prefix}."), object, DEPTH_MAX, &mut row);
                    }
                    scalar => row.extend(cell(scalar).map(|cell| (prefix, cell))),
                }
                self.rows.push(row);
            }
        }
        for (within, beside) in &self.items.beside {
            for row in &mut self.rows {
                let (one, other) = (row.remove(within), row.remove(beside));
                row.extend(one.or(other).map(|cell| (format!("{within} | {beside}"), cell)));
            }
        }
        for (path, cell) in self.rows.iter().flatten() {
            let field = self.fields.entry(path.clone()).or_default();
            field.present += 1;
            field.numbers += usize::from(cell.number().is_some());
            field.lists += usize::from(matches!(cell, Cell::List(_)));
            *field.values.entry(cell.key()).or_default() += 1;
        }
        self.fields.values_mut().for_each(|field| field.rows = self.rows.len());
    }
}

/// The records in a value: it, or its elements.
fn objects(value: &Value) -> Vec<&Map<String, Value>> {
    match value {
        Value::Array(array) => array.iter().filter_map(Value::as_object).collect(),
        value => value.as_object().into_iter().collect(),
    }
}

fn format_of(objects: &[&Map<String, Value>]) -> RecordFormat {
    let most = |test: &dyn Fn(&Map<String, Value>) -> bool| {
        2 * objects.iter().filter(|object| test(object)).count() > objects.len()
    };
    let changes =
        |object: &Map<String, Value>| object.contains_key("op") && object.contains_key("after");
    let payload = |object: &Map<String, Value>| {
        object.get("payload").and_then(Value::as_object).is_some_and(changes)
    };
    if most(&|object| changes(object) || payload(object)) {
        RecordFormat::Debezium
    } else if most(&|object| object.contains_key("specversion") && object.contains_key("data")) {
        RecordFormat::CloudEvents
    } else {
        RecordFormat::Json
    }
}

/// A record's fields as its format has them, those of the inner object first; none: it is no event.
fn inside(object: &Map<String, Value>, format: RecordFormat) -> Option<Map<String, Value>> {
    let Some(key) = format.inside() else { return Some(object.clone()) };
    let object = match object.get("payload").and_then(Value::as_object) {
        Some(payload) if format == RecordFormat::Debezium => payload,
        _ => object,
    };
    let inner = object.get(key)?.as_object()?;
    let mut fields = inner.clone();
    for (name, value) in object.iter().filter(|(name, value)| {
        *name != key && *name != "before" && !value.is_object() && !inner.contains_key(*name)
    }) {
        fields.insert(name.clone(), value.clone());
    }
    Some(fields)
}

/// What a change says of the row that there is now; none: there is none.
fn change(object: &Map<String, Value>) -> Option<Map<String, Value>> {
    let after = object.get("after").filter(|after| after.is_object())?;
    let about = object.iter().filter(|(name, value)| *name != "op" && !value.is_object());
    let about = about.map(|(name, value)| (name.clone(), value.clone()));
    Some(about.chain([("after".to_owned(), after.clone())]).collect())
}

fn flatten(prefix: &str, object: &Map<String, Value>, depth: usize, row: &mut Row) {
    for (name, value) in object {
        let path = format!("{prefix}{name}");
        match value {
            Value::Object(object) if depth > 0 => {
                flatten(&format!("{path}."), object, depth - 1, row);
            }
            value => row.extend(cell(value).map(|cell| (path, cell))),
        }
    }
}

fn cell(value: &Value) -> Option<Cell> {
    Some(match value {
        Value::String(text) if !text.is_empty() => Cell::Text(text.clone()),
        Value::Number(number) => Cell::Number(number.as_f64()?),
        Value::Bool(value) => Cell::Bool(*value),
        Value::Array(list) => {
            let scalars: Option<Vec<String>> = list.iter().map(scalar).collect();
            Cell::List(scalars?)
        }
        _ => return None,
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn arrays_of(objects: &[Map<String, Value>]) -> Arrays {
    let mut arrays = Arrays::new();
    objects.iter().for_each(|object| note_arrays("", object, DEPTH_MAX, &mut arrays));
    arrays
}

fn note_arrays(prefix: &str, object: &Map<String, Value>, depth: usize, arrays: &mut Arrays) {
    for (name, value) in object {
        let path = format!("{prefix}{name}");
        match value {
            Value::Array(list) if list.first().is_some_and(Value::is_object) => {
                let elements = list.iter().filter_map(Value::as_object);
                arrays.entry(path).or_default().extend(elements.flat_map(Map::keys).cloned());
            }
            Value::Object(object) if depth > 0 => {
                note_arrays(&format!("{path}."), object, depth - 1, arrays);
            }
            _ => {}
        }
    }
}

pub(super) fn at_path<'v>(object: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    at_path(object.get(first)?.as_object()?, rest)
}
