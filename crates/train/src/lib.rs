//! Batches change the model: the trainer of Millrace, without Kafka, files or a clock.
//!
//! Owns all that accumulates: rows and their accumulators, dense weights, the frequency estimator,
//! histories, statistics, the step. One owner, the trainer's thread, so a snapshot between two
//! steps is consistent without locks.
//!
//! In reading order:
//! - [`trainer`]: Algorithm 1 of Yi et al. 2019, a batch at a time
//! - [`state`]: all that accumulates, with its [`progress`]; [`captured`]: a copy as of one step
//! - [`query_side`]: what of it turns queries into vectors, for who only answers; [`item_side`]:
//!   the items with their vectors
//! - [`settings`]: what it is built from; [`placement`]: where towers and loss compute
//! - [`model`]: features become vectors: encoder and towers over [`table`]s of embeddings
//! - [`objective`]: what the softmax is asked, with its negatives and temperature
//! - [`frequency`]: how often each item comes, the `log q` that corrects the softmax
//! - [`memory`]: what is remembered of items and queries
//! - [`evaluation`]: recall, before training or on held-out events
//! - [`kernel`]: products, matrices and maps that the others compute with
//!
//! Never knows: rdkafka, tokio, axum, clap, files, the clock, logging. The manifest holds it.

pub mod capture;
pub mod captured;
pub mod evaluation;
pub mod frequency;
pub mod item_side;
pub mod kernel;
pub mod memory;
pub mod model;
pub mod objective;
pub mod placement;
mod portion;
pub mod progress;
pub mod query_side;
pub mod saved;
pub mod settings;
pub mod state;
pub mod table;
pub mod trainer;

pub use captured::Captured;
pub use item_side::ItemSide;
pub use placement::Placement;
pub use portion::Portion;
pub use progress::Progress;
pub use query_side::QuerySide;
pub use saved::Damaged;
pub use settings::TrainSettings;
pub use state::State;
pub use trainer::{Phase, StepReport, Trainer};

#[cfg(test)]
mod tests;
