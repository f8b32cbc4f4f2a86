//! `[[interactions]]`: further topics of the log, each with what is different in its records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Config, EventRule, RecordFormat, RewardConfig, SideConfig, TimestampConfig, attribute_name,
};

/// One entry of `[[interactions]]`: a topic that is read beside `kafka.topic`, as if both were one.
/// What it does not name is read as in the records of that one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InteractionsConfig {
    /// The topic.
    pub topic: String,
    /// In place of `kafka.format`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<RecordFormat>,
    /// In place of `kafka.schema_file`, which is for `kafka.format` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_file: Option<String>,
    /// In place of `[timestamp]`, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampConfig>,
    /// In place of the `[[event]]` rules; an empty list: every record is an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Vec<EventRule>>,
    /// In place of `[reward]`, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardConfig>,
    /// Other fields of the query.
    #[serde(skip_serializing_if = "OtherFields::is_empty")]
    pub query: OtherFields,
    /// Other fields of the item.
    #[serde(skip_serializing_if = "OtherFields::is_empty")]
    pub item: OtherFields,
}

/// Where a topic's records have a side's values, if not where those of `kafka.topic` have them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtherFields {
    /// Field of the id; empty: the same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// By feature: its field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, String>,
    /// By attribute: its field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl OtherFields {
    fn is_empty(&self) -> bool {
        *self == OtherFields::default()
    }

    fn put_into(&self, side: &mut SideConfig) {
        if !self.id.is_empty() {
            side.id.clone_from(&self.id);
        }
        for feature in &mut side.features {
            if let Some(field) = self.features.get(&feature.name) {
                feature.field.clone_from(field);
            }
        }
        for own in &mut side.attributes {
            if let Some(field) = self.attributes.get(attribute_name(own)) {
                own.clone_from(field);
            }
        }
    }
}

impl Config {
    /// The topics of interactions, in the order of their lanes.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let others = self.interactions.iter().map(|other| other.topic.as_str());
        std::iter::once(self.kafka.topic.as_str()).chain(others)
    }

    /// The topics of interactions in a message: `clicks, orders`.
    pub fn topic_names(&self) -> String {
        self.topics().collect::<Vec<_>>().join(", ")
    }

    /// This config for each topic of interactions, as if it were the only one.
    pub fn by_topic(&self) -> impl Iterator<Item = Config> {
        let first = Config { interactions: Vec::new(), ..self.clone() };
        let others = self.interactions.iter().map({
            let first = first.clone();
            move |other| other.of(first.clone())
        });
        std::iter::once(first).chain(others)
    }
}

impl InteractionsConfig {
    /// `config`, which is that of the first topic, for this one.
    fn of(&self, mut config: Config) -> Config {
        let Self { topic, format, schema_file, timestamp, event, reward, query, item } = self;
        config.kafka.topic.clone_from(topic);
        if format.is_some() || schema_file.is_some() {
            config.kafka.schema_file = schema_file.clone().unwrap_or_default();
        }
        config.kafka.format = format.unwrap_or(config.kafka.format);
        config.timestamp = timestamp.clone().unwrap_or(config.timestamp);
        config.event = event.clone().unwrap_or(config.event);
        config.reward = reward.clone().unwrap_or(config.reward);
        query.put_into(&mut config.query);
        item.put_into(&mut config.item);
        config
    }
}
