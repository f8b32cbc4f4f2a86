//! How good a model ranks: exact ranks against every candidate, and what they add up to.
//!
//! - [`ranking`]: ranks by score among candidates
//! - [`metrics`]: recall, NDCG and MRR, by popularity band, with bootstrap intervals
//! - [`held_out`]: held-out events against the whole corpus, after training
//! - [`progressive`]: every event against recent items, before it is trained on
//! - [`window`]: which items had events lately
//!
//! Scores are `s / τ + λ log q` (see [`crate::evaluation::popularity`]).

pub mod held_out;
pub mod metrics;
pub mod popularity;
pub mod progressive;
pub mod ranking;
pub mod window;

pub use metrics::{KS, Recall};
pub use ranking::{ranks, static_ranks};
