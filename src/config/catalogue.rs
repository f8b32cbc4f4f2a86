//! `[[catalogue]]`: topics that say what items or queries are.

use std::collections::BTreeMap;

use millrace_events::EventSide;
use serde::{Deserialize, Serialize};

use super::{Condition, Config, RecordFormat, SideConfig};

/// One entry of `[[catalogue]]`: a compacted topic, one record an id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogueConfig {
    /// The topic.
    pub topic: String,
    /// What its ids are.
    pub side: EventSide,
    /// Field of the id; `@key`: the record's key.
    pub id: String,
    /// By feature of the side: the field of a record that has its value.
    pub features: BTreeMap<String, String>,
    /// Of items: fields of a record that are kept for people and stores, as `item.attributes` are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// What surrounds the fields of a record.
    pub format: RecordFormat,
    /// A record for which it holds takes the id out, as one without a value does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Condition>,
    /// What of it is known to the first event.
    pub begin: CatalogueBegin,
    /// With `begin = "end"`: the end to take, an offset for each partition, in order; none: the end
    /// that the topic has when a run begins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub end: Vec<i64>,
}

/// What of a catalogue is known to the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogueBegin {
    /// `train` reads as [`End`](Self::End), everything else as [`PointInTime`](Self::PointInTime).
    #[default]
    Auto,
    /// All that the topic holds when the run begins.
    End,
    /// What is not newer than the event, as for every other event.
    PointInTime,
}

impl Default for CatalogueConfig {
    fn default() -> Self {
        Self {
            topic: String::new(),
            side: EventSide::Item,
            id: String::new(),
            features: BTreeMap::new(),
            attributes: Vec::new(),
            format: RecordFormat::Json,
            hidden: None,
            begin: CatalogueBegin::Auto,
            end: Vec::new(),
        }
    }
}

impl CatalogueConfig {
    /// All of it that says what is read of a record, as a text.
    pub fn reading(&self) -> String {
        let Self { side, id, features, format, hidden, attributes, .. } = self;
        let read = (side, id, features, format, hidden);
        // Without attributes it is the text that it was before there were any.
        let text = match &attributes[..] {
            [] => serde_json::to_string(&read),
            attributes => serde_json::to_string(&(read, attributes)),
        };
        text.expect("plain values are JSON")
    }
}

impl Config {
    /// The id and the features of a side.
    pub fn side(&self, side: EventSide) -> &SideConfig {
        match side {
            EventSide::Query => &self.query,
            EventSide::Item => &self.item,
        }
    }

    /// Whether a catalogue has this feature of a side: then no event needs to.
    pub fn is_listed(&self, side: EventSide, feature: &str) -> bool {
        let of_side = self.catalogue.iter().filter(|catalogue| catalogue.side == side);
        of_side.into_iter().any(|catalogue| catalogue.features.contains_key(feature))
    }
}
