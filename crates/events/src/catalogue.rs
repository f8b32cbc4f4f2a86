//! What a catalogue says of items or queries between events, and how far one has been read.

use serde::{Deserialize, Serialize};

use crate::{FeatureValue, Offsets};

/// One of the two sides of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventSide {
    /// Who asks.
    Query,
    /// What is found.
    Item,
}

/// An item's attributes are this long at most, all of them, as JSON: a title, a picture's address
/// and some tags are a few hundred bytes. A million items of this length would be 4 GiB.
pub const ATTRIBUTES_BYTES_MAX: usize = 4096;

/// A catalogue's new word on one id.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogueChange {
    /// How many events of its batch come before it.
    pub at: u32,
    /// What the id is one of.
    pub side: EventSide,
    /// The id's key.
    pub id: u64,
    /// The id as the catalogue wrote it.
    pub name: Box<str>,
    /// One value per feature of the side, [`FeatureValue::Absent`] for those that the catalogue
    /// does not have; none: the id has been taken out.
    pub values: Option<Vec<FeatureValue>>,
    /// JSON of each attribute that is kept of items, in their order, empty where the catalogue does
    /// not have it; none at all: it has none of them.
    pub attributes: Vec<Box<str>>,
}

/// How far a state has read a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CataloguePlace {
    /// What its ids are.
    pub side: EventSide,
    /// What of a record is read, and how: a place under another reading is none.
    pub reading: String,
    /// The next offset to read.
    pub next: Offsets,
    /// What lies before these offsets comes before the first event, whatever its time.
    pub bootstrap: Offsets,
}
