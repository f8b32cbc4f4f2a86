//! Checks of what names fields, and of what an event is.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;

use crate::config::{Condition, Config, EventRule, Faults, Step, TimestampConfig};
use crate::config::{alternatives, beside, steps};

impl Config {
    /// `[timestamp]`, `[[event]]`, and every path.
    pub(super) fn validate_records(&self, faults: &mut Faults) {
        validate_timestamp(&self.timestamp, faults);
        for (index, EventRule { condition, weight }) in self.event.iter().enumerate() {
            let key = format!("event[{index}]");
            if !(*weight >= 0.0 && weight.is_finite()) {
                faults.add(format!("{key}.weight"), format!("is {weight}; must be from 0 up"));
            }
            let Condition { field, equals, one_of, exists } = condition;
            if field.is_empty() {
                faults.add(format!("{key}.where.field"), "must name a field of the record");
            }
            let tests = [equals.is_some(), !one_of.is_empty(), exists.is_some()];
            if tests.into_iter().filter(|given| *given).count() != 1 {
                let reason = "one of `equals`, `in` and `exists` must be given";
                faults.add(format!("{key}.where"), reason);
            }
        }
        self.validate_paths(faults);
    }

    fn validate_paths(&self, faults: &mut Faults) {
        let mut arrays = BTreeSet::new();
        let paths = self.paths();
        for (key, path) in &paths {
            match array_of(path) {
                Err(reason) => faults.add(key, reason),
                Ok(array) => arrays.extend(array),
            }
            if arrays.len() > 1 {
                let arrays: Vec<_> = arrays.iter().map(|array| format!("`{array}[]`")).collect();
                let reason = format!(
                    "{}: only one array of a record can hold its events",
                    arrays.join(" and ")
                );
                faults.add(key, reason);
                return;
            }
        }
        let Some(array) = arrays.first() else { return };
        for (key, path) in paths {
            let behind = path.strip_prefix(array).filter(|behind| behind.starts_with('['));
            if behind.is_some_and(|behind| !behind.starts_with("[]")) {
                let reason = format!("`{path}`: `{array}[]` takes that array apart");
                faults.add(key, reason);
            }
        }
    }

    /// Every path that a field is looked for at, with its key.
    fn paths(&self) -> Vec<(String, &str)> {
        let mut paths = vec![
            ("query.id".to_owned(), &*self.query.id),
            ("item.id".to_owned(), &*self.item.id),
            ("timestamp.field".to_owned(), &*self.timestamp.field),
            ("reward.field".to_owned(), &*self.reward.field),
            ("reward.per".to_owned(), &*self.reward.per),
        ];
        for (side, config) in [("query", &self.query), ("item", &self.item)] {
            for (index, feature) in config.features.iter().enumerate() {
                let key = format!("{side}.features[{index}]");
                paths.push((format!("{key}.weights"), &feature.weights));
                paths.push((format!("{key}.field"), &feature.field));
            }
        }
        for (index, field) in self.item.attributes.iter().enumerate() {
            paths.push((format!("item.attributes[{index}]"), field));
        }
        for (index, rule) in self.event.iter().enumerate() {
            paths.push((format!("event[{index}].where.field"), &rule.condition.field));
        }
        paths.retain(|(_, path)| !path.is_empty());
        let each =
            |(key, field): (String, _)| alternatives(field).map(move |one| (key.clone(), one));
        paths.into_iter().flat_map(each).collect()
    }
}

/// The array each of whose elements is an event, if the path leads through one.
fn array_of(path: &str) -> Result<Option<&str>, String> {
    if path.is_empty() {
        return Err("a path must stand on both sides of `|`".to_owned());
    }
    if beside(path)?.is_some() {
        return Ok(None);
    }
    let steps = steps(path)?;
    match steps.iter().filter(|&&step| step == Step::Each).count() {
        0 => Ok(None),
        1 => Ok(path.split("[]").next()),
        _ => Err(format!("`{path}`: `[]` may stand once")),
    }
}

fn validate_timestamp(timestamp: &TimestampConfig, faults: &mut Faults) {
    let TimestampConfig { format, zone, .. } = timestamp;
    if TimeZone::get(zone).is_err() {
        let reason = format!("`{zone}` is no time zone; expected like UTC or Europe/Berlin");
        faults.add("timestamp.zone", reason);
    }
    if format.is_empty() {
        return;
    }
    let now = Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
    let there_and_back = strtime::format(format, &now)
        .and_then(|text| BrokenDownTime::parse(format, &text).map(|parts| (text, parts)));
    match there_and_back {
        Err(error) => faults.add("timestamp.format", format!("`{format}`: {error}")),
        Ok((text, parts)) if parts.to_date().is_err() && parts.to_timestamp().is_err() => {
            let reason = format!("`{format}` gives times like `{text}`, which have no date");
            faults.add("timestamp.format", reason);
        }
        Ok(_) => {}
    }
}
