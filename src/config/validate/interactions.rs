//! Checks of `[[interactions]]`.

use std::collections::BTreeSet;

use super::validate_reward;
use crate::config::{Config, Faults, OtherFields, SideConfig, attribute_name};

/// Each topic costs a request at every look for new partitions, and a decoder on every thread.
const TOPICS_MAX: usize = 64;

impl Config {
    pub(super) fn validate_interactions(&self, faults: &mut Faults) {
        if self.interactions.len() >= TOPICS_MAX {
            let reason = format!("a log has {TOPICS_MAX} topics at most");
            faults.add("interactions", reason);
        }
        let catalogues = self.catalogue.iter().map(|catalogue| &catalogue.topic);
        let letters = std::iter::once(&self.kafka.dead_letter_topic);
        // `[publish]` looks at its own topics.
        let others = catalogues.chain(letters).chain([&self.kafka.topic]).map(String::as_str);
        let mut used: BTreeSet<&str> = others.collect();
        for (index, (other, own)) in
            self.interactions.iter().zip(self.by_topic().skip(1)).enumerate()
        {
            let key = format!("interactions[{index}]");
            if other.topic.is_empty() {
                faults.add(format!("{key}.topic"), "must not be empty");
            } else if !used.insert(&other.topic) {
                let reason = format!("`{}` has another use in this config", other.topic);
                faults.add(format!("{key}.topic"), reason);
            }
            for (side, fields, config) in
                [("query", &other.query, &self.query), ("item", &other.item, &self.item)]
            {
                validate_features(&format!("{key}.{side}"), fields, config, faults);
                validate_attributes(&format!("{key}.{side}"), fields, config, faults);
            }
            self.validate_reading(&key, &own, faults);
        }
    }

    /// Adds what is wrong with the way in which the topic is read, and is not wrong with the first
    /// one.
    fn validate_reading(&self, key: &str, own: &Config, faults: &mut Faults) {
        let reading = |config: &Config| {
            let mut faults = Faults::default();
            config.validate_records(&mut faults);
            config.registry.validate(&config.kafka, &mut faults);
            validate_reward(&config.reward, &mut faults);
            faults.0
        };
        let first = reading(self);
        for fault in reading(own).into_iter().filter(|fault| !first.contains(fault)) {
            faults.add(format!("{key}: {}", fault.key), fault.reason);
        }
    }
}

/// Names of features that have a field.
fn validate_features(key: &str, fields: &OtherFields, side: &SideConfig, faults: &mut Faults) {
    for (name, field) in &fields.features {
        let features = || side.features.iter().filter(|feature| !feature.field.is_empty());
        if !features().any(|feature| feature.name == *name) {
            let names: Vec<&str> = features().map(|feature| feature.name.as_str()).collect();
            let reason = format!("no feature with a field; there are {names:?}");
            faults.add(format!("{key}.features.{name}"), reason);
        } else if field.is_empty() {
            faults.add(format!("{key}.features.{name}"), "must name a field of the record");
        }
    }
}

/// Names of attributes that the first topic's records have.
fn validate_attributes(key: &str, fields: &OtherFields, side: &SideConfig, faults: &mut Faults) {
    let names: Vec<&str> = side.attributes.iter().map(|field| attribute_name(field)).collect();
    for (name, field) in &fields.attributes {
        if !names.contains(&&**name) {
            let reason = format!("no such attribute; there are {names:?}");
            faults.add(format!("{key}.attributes.{name}"), reason);
        } else if field.is_empty() {
            faults.add(format!("{key}.attributes.{name}"), "must name a field of the record");
        }
    }
}
