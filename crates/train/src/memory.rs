//! What the trainer remembers of items and queries: the corpus, histories, the last full batch.
//!
//! Must never know: the model.

pub mod catalogue;
pub(crate) mod copying;
pub mod corpus;
mod gone;
pub mod history;
mod pieces;
mod stamped;
pub(crate) mod window;
