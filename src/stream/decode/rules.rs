//! Which records are events: `[[event]]`.

use crate::config::{Condition, EventRule};

use super::fields::{FieldPlace, Fields};
use super::raw::{FieldValues, Raw};

/// Conditions, the first of which that holds says what an event is worth.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

/// A condition on a record, and what an event is worth for which it holds.
#[derive(Debug)]
pub(super) struct Rule {
    place: FieldPlace,
    test: Test,
    weight: f32,
}

#[derive(Debug)]
enum Test {
    Exists(bool),
    OneOf(Vec<String>),
}

impl Rules {
    /// Of a checked config.
    pub(super) fn new(fields: &mut Fields, rules: &[EventRule]) -> Rules {
        let rule = |rule: &EventRule| Rule::new(fields, &rule.condition, rule.weight);
        Rules(rules.iter().map(rule).collect())
    }

    /// Factor of the reward; none: it is no event.
    #[inline]
    pub(super) fn weight(&self, found: &FieldValues) -> Option<f32> {
        if self.0.is_empty() {
            return Some(1.0);
        }
        self.0.iter().find(|rule| rule.holds(found)).map(|rule| rule.weight)
    }
}

impl Rule {
    /// Of a checked condition.
    pub(super) fn new(fields: &mut Fields, condition: &Condition, weight: f32) -> Rule {
        let Condition { field, equals, one_of, exists } = condition;
        let test = match exists {
            Some(exists) => Test::Exists(*exists),
            None => Test::OneOf(equals.iter().chain(one_of).map(ToString::to_string).collect()),
        };
        Rule { place: fields.add(field), test, weight }
    }

    pub(super) fn holds(&self, found: &FieldValues) -> bool {
        let raw = found.get(self.place);
        match &self.test {
            Test::Exists(exists) => *exists != raw.absent(),
            Test::OneOf(words) => match raw {
                // As a number of the config is spelt: 5.0 is 5.
                Raw::Float(value) => {
                    let spelt = value.to_string();
                    words.contains(&spelt)
                }
                raw => {
                    let mut digits = itoa::Buffer::new();
                    let text = raw.scalar(found, &mut digits);
                    text.is_some_and(|text| words.iter().any(|word| word == text))
                }
            },
        }
    }
}
