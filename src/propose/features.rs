//! What the towers could see of a record beside its ids.

use std::collections::{BTreeMap, BTreeSet};

use super::profile::{Cell, Field, Profile};
use super::roles;

/// Features of one side beside its id: more of them cost time, and the last ones add little.
const FEATURES_MAX: usize = 8;
/// A table's rows should come again: an id with more values than this share of the rows does not.
const DISTINCT_SHARE_MAX: f64 = 0.5;
/// Of the rows in which an item comes again, so many must have the item's first value.
const STEADY: f64 = 0.98;

/// A feature and its kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Feature {
    pub(super) field: String,
    pub(super) kind: Kind,
    /// Different values in the sample.
    pub(super) distinct: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    Bag,
    Log,
    Zscore,
}

/// Features of the query's and of the item's side, and fields that are none, each with the reason.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sides {
    pub(super) query: Vec<Feature>,
    pub(super) item: Vec<Feature>,
    pub(super) unused: Vec<(String, &'static str)>,
}

/// Sorts every field that is not `taken`: one that an item always brings along is the item's, any
/// other is the query's, as the circumstances in which it asks.
pub(super) fn sides(profile: &Profile, item: &str, taken: &BTreeSet<&str>) -> Sides {
    let mut sides = Sides::default();
    let items = profile.fields.get(item).map_or(0, Field::distinct);
    for (path, field) in &profile.fields {
        if taken.contains(path.as_str()) {
            continue;
        }
        let kind = match kind(path, field) {
            Ok(kind) => kind,
            Err(reason) => {
                sides.unused.push((path.clone(), reason));
                continue;
            }
        };
        let of_item = is_steady(profile, item, path);
        if of_item && kind == Kind::Id && 10 * field.distinct() > 8 * items {
            sides.unused.push((path.clone(), "says no more than the item's id"));
            continue;
        }
        let side = if of_item { &mut sides.item } else { &mut sides.query };
        if side.len() == FEATURES_MAX {
            sides.unused.push((path.clone(), "there are enough others"));
            continue;
        }
        side.push(Feature { field: path.clone(), kind, distinct: field.distinct() });
    }
    sides
}

fn kind(path: &str, field: &Field) -> Result<Kind, &'static str> {
    if field.distinct() < 2 {
        return Err("always the same");
    }
    if field.share() < 0.01 {
        return Err("rare");
    }
    if field.is_list() {
        return Ok(Kind::Bag);
    }
    let many = field.distinct() > 20;
    let is_quantity = many && field.is_number() && !path.to_lowercase().ends_with("id");
    if (is_quantity || many && !field.is_number()) && roles::time_at(path, field).is_some() {
        return Err("a time");
    }
    if is_quantity {
        let (least, most) = field
            .parsed()
            .fold((f64::MAX, f64::MIN), |(least, most), x| (least.min(x), most.max(x)));
        return Ok(if least >= 0.0 && most > 100.0 { Kind::Log } else { Kind::Zscore });
    }
    if field.is_unique() || field.distinct() as f64 > DISTINCT_SHARE_MAX * field.present as f64 {
        return Err("nearly every record has a value of its own");
    }
    Ok(Kind::Id)
}

/// Whether the item says what the field holds.
fn is_steady(profile: &Profile, item: &str, path: &str) -> bool {
    let mut first: BTreeMap<String, &Cell> = BTreeMap::new();
    let (mut again, mut same) = (0_usize, 0_usize);
    for row in &profile.rows {
        let (Some(id), Some(value)) = (row.get(item), row.get(path)) else { continue };
        match first.get(&id.key()) {
            None => drop(first.insert(id.key(), value)),
            Some(before) => {
                again += 1;
                same += usize::from(*before == value);
            }
        }
    }
    again >= 10 && same as f64 >= STEADY * again as f64
}
