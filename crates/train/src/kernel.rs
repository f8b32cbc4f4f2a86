//! What the rooms above compute with: products, matrices, maps by id, sets of places, bytes.
//!
//! Must never know: what the numbers mean.

pub(crate) mod bytes;
pub(crate) mod id_map;
pub(crate) mod marks;
pub mod matrix;
pub(crate) mod product;
