//! Records become events, events become columnar batches.
//!
//! Owns: the field mapping, dead letters, the offsets algebra, the merge of partitions by event
//! time, and the consumer. Offsets travel with the data: a [`batch::Batch`] carries the offsets
//! that reading it leads to, so nobody ever asks the consumer where it is.
//!
//! Must never know: burn, files, metrics.

pub mod batch;
pub mod column;
pub mod cut;
pub mod dead_letter;
pub mod decode;
pub mod event;
pub mod events;
pub mod merge;
pub mod offsets;
pub mod position;
pub mod produce;
mod queue;
pub mod shuffle;
pub mod source;
