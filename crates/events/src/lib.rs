//! The ground floor: the plain nouns that every room of Millrace speaks of.
//!
//! An [`Event`] is one interaction. [`Events`] holds many of them in columns, a [`Column`] for each
//! feature. A [`Batch`] is what one training step takes: events, and the [`Offsets`] that reading
//! them leads to. A [`CatalogueChange`] is what a catalogue says of an item or a query between two
//! of them. A [`Witness`] tells one log from another. [`SplitMix`] is the generator of all that
//! must be a pure function of a seed.
//!
//! Plain data: it knows no log, no model, no file, no clock and no configuration.

mod batch;
mod catalogue;
mod column;
mod event;
mod events;
mod offsets;
mod random;
mod witness;

pub use batch::Batch;
pub use catalogue::{ATTRIBUTES_BYTES_MAX, CatalogueChange, CataloguePlace, EventSide};
pub use column::Column;
pub use event::{Event, FeatureValue, id_key};
pub use events::{Events, Names};
pub use offsets::{Offsets, lane, lane_place};
pub use random::{SplitMix, mix};
pub use witness::{Trace, Witness};
