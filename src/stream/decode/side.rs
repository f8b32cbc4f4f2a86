//! The fields of one side of an event, compiled.

use super::error::DecodeError;
use super::fields::{FieldPlace, Fields};
use crate::config::{BAG_LENGTH, FeatureConfig, FeatureKind};

/// Values of optional features and of attributes that could not be read, and count as absent.
#[derive(Debug, Default)]
pub struct Unread {
    /// How many there were.
    pub values: u64,
    /// What was wrong with the first one.
    pub first: Option<String>,
}

impl Unread {
    /// One more, for this reason.
    pub(super) fn note(&mut self, reason: &dyn std::fmt::Display) {
        self.values += 1;
        self.first.get_or_insert_with(|| reason.to_string());
    }
}

#[derive(Debug)]
pub(super) struct Side {
    pub(super) id: Field,
    pub(super) features: Vec<Feature>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) place: FieldPlace,
}

#[derive(Debug)]
pub(super) struct Feature {
    /// None: a history that the trainer keeps.
    pub(super) field: Option<Field>,
    pub(super) weights: Option<Field>,
    pub(super) kind: FeatureKind,
    pub(super) length: usize,
    pub(super) optional: bool,
    pub(super) id_bytes_max: usize,
}

impl Field {
    pub(super) fn required(fields: &mut Fields, name: &str) -> Field {
        Field { name: name.to_owned(), place: fields.add(name) }
    }

    pub(super) fn new(fields: &mut Fields, name: &str) -> Option<Field> {
        (!name.is_empty()).then(|| Field::required(fields, name))
    }

    pub(super) fn missing(&self) -> DecodeError {
        DecodeError::MissingField { field: self.name.clone() }
    }
}

impl Feature {
    /// The feature of `config`, read from `field`; empty: from none.
    pub(super) fn new(
        fields: &mut Fields,
        config: &FeatureConfig,
        field: &str,
        optional: bool,
        id_bytes_max: usize,
    ) -> Feature {
        Feature {
            field: Field::new(fields, field),
            weights: Field::new(fields, &config.weights),
            kind: config.kind,
            length: config.length.unwrap_or(BAG_LENGTH),
            optional,
            id_bytes_max,
        }
    }
}

/// Compiles the features of one side; events need not have those that a catalogue `listed`.
pub(super) fn features(
    fields: &mut Fields,
    configs: &[FeatureConfig],
    listed: &dyn Fn(&str) -> bool,
    id_bytes_max: usize,
) -> Vec<Feature> {
    let compile = |config: &FeatureConfig| {
        let optional = config.optional || listed(&config.name);
        Feature::new(fields, config, &config.field, optional, id_bytes_max)
    };
    configs.iter().map(compile).collect()
}
