//! Records become events, events become columnar batches.
//!
//! Owns: the field mapping, dead letters, the merge of partitions by event time, the consumer, and
//! the way from a file of lines to a topic. Offsets travel with the data: a batch carries the
//! offsets that reading it leads to, so nobody ever asks the consumer where it is.
//!
//! Must never know: burn, metrics, what a batch is for.

pub mod calendar;
pub mod catalogue;
mod certificate;
pub mod client;
pub mod cut;
pub mod dead_letter;
pub mod decode;
mod describe;
pub mod form;
pub mod group;
pub mod identity;
pub mod log;
pub mod merge;
pub(crate) mod newest;
pub(crate) mod outbox;
pub mod position;
pub mod produce;
mod queue;
mod refusal;
pub mod shuffle;
pub mod source;
pub mod survey;
pub mod tail;
pub mod topic;
pub mod verdict;
mod wire;

use millrace_events::Events;

use crate::config::Config;

/// No events, of the features of `config` and its attributes of items.
pub fn events_of(config: &Config) -> Events {
    Events::new(config.query.features.len(), config.item.features.len())
        .with_attributes(config.item.attributes.len())
}
