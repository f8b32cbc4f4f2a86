//! The best items of one version for a query vector, by `dot / temperature + popularity * log q`.
//!
//! An [`Index`] belongs to one version and never changes: a two-tower model moves every vector in
//! every version, so an index is built anew, in a second or so for a million items. The popularity
//! weight, what to leave out and what to choose from come with each request.
//!
//! How it works, from the ground up:
//! - `kernel`: dot products of whole numbers, by the widest instructions there are
//! - `codes`: vectors as whole numbers with a bound on what that costs
//! - `vectors`: in full, for what is computed again
//! - `best`: the best so far, under those bounds
//! - `centroids`: which vectors lie near each other
//! - `allowed`: what a request may choose from
//! - `index`: all of it together
//!
//! Up to [`IndexSettings::exact_max`] items each is scanned as whole numbers of eight bits, and
//! what the bounds cannot tell apart is computed again in full: the answer is that of a scan in
//! `f32`, ids and order. Above it items lie in lists by nearness, and a request scans the lists
//! that promise most. Codes say what an item is off the mean of its list, so items that are nearly
//! alike, as those that nobody has learned of are, cost no more than others.
//!
//! Never knows: Kafka, HTTP, files, the clock, logs; where vectors come from and what ids mean.

mod allowed;
mod best;
mod centroids;
mod codes;
mod index;
mod kernel;
mod vectors;

pub use allowed::Allowed;
pub use centroids::Centroids;
pub use index::{Hit, Index, IndexSettings, Items, NotFinite, Search};

#[cfg(test)]
mod tests;
