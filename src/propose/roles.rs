//! Which field is what: query, item, time, kind of event, reward.

use jiff::tz::TimeZone;

use crate::stream::decode::time_of_text;

use super::names::{self, EVENTS, LASTS, RATINGS, TIMES, WATCHED};
use super::profile::{Field, Profile};

/// Where an event's time stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Time {
    pub(super) field: String,
    /// Of numbers.
    pub(super) unit: Option<&'static str>,
    /// Of texts that are not ISO 8601.
    pub(super) format: Option<&'static str>,
}

/// What happened, and what each is worth.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kinds {
    pub(super) field: String,
    /// Values with a worth, and how often they come.
    pub(super) worth: Vec<(String, f32, usize)>,
    /// Values without.
    pub(super) rest: Vec<(String, usize)>,
}

/// What an event is worth.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reward {
    /// A rating of at most so much.
    Rating(String, f64),
    /// The part of the item that somebody stayed for.
    Part(String, String),
}

/// The field whose name is the best of `names`; one that most rows have goes before one that few
/// have.
pub(super) fn best<'p>(
    profile: &'p Profile,
    names: &[&str],
    fits: impl Fn(&Field) -> bool,
) -> Option<&'p str> {
    let ranked = profile.fields.iter().filter_map(|(path, field)| {
        let rank = names::rank(path, names)?;
        (fits(field) && !field.is_list()).then_some(((field.share() < 0.5, rank), path))
    });
    ranked.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, path)| path.as_str())
}

/// An id comes again; nearly every record has it.
pub(super) fn is_id(field: &Field) -> bool {
    field.distinct() > 1 && field.share() > 0.2
}

/// Forms of texts that are not ISO 8601, as strftime has them.
const FORMATS: [&str; 8] = [
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %z %Y",
    "%d/%m/%Y %H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y%m%d%H%M%S",
    "%Y%m%d",
];

/// Numbers that are times between 1975 and 2128, by unit.
const UNITS: [(&str, f64); 4] = [("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)];

/// The field of the event's time.
pub(super) fn time(profile: &Profile) -> Option<Time> {
    let mut named: Vec<(usize, &String)> = profile
        .fields
        .iter()
        .filter(|(_, field)| field.share() > 0.9 && !field.is_list())
        .filter_map(|(path, _)| Some((names::rank(path, TIMES)?, path)))
        .collect();
    named.sort();
    named.into_iter().find_map(|(_, path)| time_at(path, &profile.fields[path]))
}

/// How to read a field's values as times; none: they are none.
pub(super) fn time_at(path: &str, field: &Field) -> Option<Time> {
    let time = |unit, format| Time { field: path.to_owned(), unit, format };
    if field.is_number() {
        let mut numbers: Vec<f64> = field.parsed().collect();
        numbers.sort_by(f64::total_cmp);
        let median = *numbers.get(numbers.len() / 2)?;
        let is = |(_, per_second): &&(_, f64)| (1.6e8..5e9).contains(&(median / per_second));
        if let Some((unit, _)) = UNITS.iter().find(is) {
            return Some(time(Some(*unit), None));
        }
    }
    let texts: Vec<&String> = field.values.keys().take(100).collect();
    let reads = |format: &str| {
        let read = texts.iter().filter(|text| time_of_text(text, format, &TimeZone::UTC).is_some());
        20 * read.count() >= 19 * texts.len()
    };
    if reads("") {
        return Some(time(None, None));
    }
    FORMATS.iter().find(|format| reads(format)).map(|format| time(None, Some(*format)))
}

/// The field that says what happened, if some of what happened is worth more than the rest.
pub(super) fn kinds(profile: &Profile) -> Option<Kinds> {
    let few = |field: &Field| (2..=40).contains(&field.distinct()) && !field.is_number();
    let field = best(profile, EVENTS, few)?;
    let mut worth = Vec::new();
    let mut rest = Vec::new();
    for (value, &count) in &profile.fields[field].values {
        match names::worth(value) {
            Some(weight) => worth.push((value.clone(), weight, count)),
            None => rest.push((value.clone(), count)),
        }
    }
    worth.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    (!worth.is_empty()).then(|| Kinds { field: field.to_owned(), worth, rest })
}

/// The fields of the reward.
pub(super) fn reward(profile: &Profile) -> Option<Reward> {
    let number = |field: &Field| field.is_number() && field.distinct() > 1 && field.share() > 0.5;
    if let (Some(part), Some(whole)) =
        (best(profile, WATCHED, number), best(profile, LASTS, number))
    {
        return Some(Reward::Part(part.to_owned(), whole.to_owned()));
    }
    let few = |field: &Field| number(field) && field.distinct() <= 100;
    let rating = best(profile, RATINGS, few)?;
    let most = profile.fields[rating].parsed().fold(0.0, f64::max);
    (most > 0.0).then(|| Reward::Rating(rating.to_owned(), most))
}
