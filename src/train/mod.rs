//! Batches change the model.
//!
//! Owns all that accumulates: rows and their accumulators, dense weights, the frequency
//! estimator, histories, statistics, the step. One owner, the trainer thread, so a snapshot
//! between two steps is consistent without locks.
//!
//! Must never know: rdkafka, tokio, files, the clock.

mod blame;
pub mod capture;
mod copying;
pub mod corpus;
pub mod counters;
mod dense;
mod distinct;
pub mod embedding;
pub mod encoder;
pub mod evaluation;
pub mod frequency;
pub mod history;
mod id_map;
pub mod loss;
pub mod model;
mod negatives;
mod objective;
pub mod placement;
pub mod popularity;
pub mod portion;
mod product;
pub mod rows;
pub mod settings;
pub mod statistics;
mod temperature;
pub mod trainer;
pub mod two_tower;
mod window;

#[cfg(test)]
mod tests;
