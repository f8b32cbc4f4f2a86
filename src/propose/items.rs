//! Where the items of a log's records are: beside the other fields, in an array, or in some records
//! so and in others so.

use serde_json::{Map, Value};

use super::names::{self, ITEMS};
use super::profile::{Arrays, Field, Items, Profile, at_path};
use super::roles;
use crate::config::alternatives;

/// Of a hundred records so many must have their items in a place, for it to be looked for there.
const RECORDS_MIN: usize = 1;

/// Where the items are of these records, whose fields outside of `arrays` are those of `plain`;
/// `given`: the item's id, if somebody named it.
pub(super) fn find(
    arrays: &Arrays,
    plain: &Profile,
    records: &[Map<String, Value>],
    given: Option<&str>,
) -> Items {
    let mixed = match given {
        None => mixed(arrays, plain, records),
        Some(given) => named(given),
    };
    match mixed {
        Some((within, beside)) => pairs(arrays, plain, within, beside),
        None => Items { array: array(arrays, plain, given), beside: Vec::new() },
    }
}

/// Of an id in two places: what else lies beside them both under one name.
fn pairs(arrays: &Arrays, plain: &Profile, within: String, beside: String) -> Items {
    let array = within.split("[]").next().unwrap_or_default().to_owned();
    let around = beside.rfind('.').map_or("", |dot| &beside[..=dot]);
    let fields = arrays.get(&array).into_iter().flatten();
    let others = fields.map(|field| (format!("{array}[].{field}"), format!("{around}{field}")));
    let others = others.filter(|(one, other)| {
        *one != within && *other != beside && plain.fields.contains_key(other)
    });
    let others: Vec<_> = others.collect();
    let beside = std::iter::once((within, beside)).chain(others).collect();
    Items { array: Some(array), beside }
}

/// An id in two places, as `--set` names it.
fn named(given: &str) -> Option<(String, String)> {
    let mut paths = alternatives(given);
    let (within, beside) = (paths.next()?, paths.next()?);
    within.contains("[]").then(|| (within.to_owned(), beside.to_owned()))
}

/// An id of one name that some records have in an array, and others beside it.
fn mixed(
    arrays: &Arrays,
    plain: &Profile,
    records: &[Map<String, Value>],
) -> Option<(String, String)> {
    let enough = |count: usize| count > 0 && 100 * count >= RECORDS_MIN * records.len();
    let fits = |field: &Field| field.distinct() > 1 && enough(field.present);
    let beside = roles::best(plain, ITEMS, fits)?;
    let name = names::plain(beside);
    arrays.iter().find_map(|(array, fields)| {
        let path = |field: &String| format!("{array}[].{field}");
        let within = fields.iter().map(path).find(|path| names::plain(path) == name)?;
        let elements = |record| at_path(record, array).and_then(Value::as_array);
        let (mut in_array, mut alone) = (0, 0);
        for (record, row) in records.iter().zip(&plain.rows) {
            let has = elements(record).is_some_and(|elements| !elements.is_empty());
            in_array += usize::from(has && !row.contains_key(beside));
            alone += usize::from(!has && row.contains_key(beside));
        }
        (enough(in_array) && enough(alone)).then(|| (within, beside.to_owned()))
    })
}

/// The array in which the items are, if no field beside it looks like their id.
fn array(arrays: &Arrays, plain: &Profile, given: Option<&str>) -> Option<String> {
    if let Some(item) = given {
        return item.split_once("[]").map(|(array, _)| array.to_owned());
    }
    let beside = roles::best(plain, ITEMS, roles::is_id);
    let beside = beside.and_then(|path| names::rank(path, ITEMS)).unwrap_or(usize::MAX);
    let within = arrays.iter().filter_map(|(array, fields)| {
        let paths = fields.iter().map(|field| format!("{array}[].{field}"));
        Some((paths.filter_map(|path| names::rank(&path, ITEMS)).min()?, array))
    });
    within.min().filter(|(rank, _)| *rank < beside).map(|(_, array)| array.clone())
}
