//! What the towers see: `[query]`, `[item]` and their features.

use millrace_train::model::feature::Pool;
use serde::{Deserialize, Serialize};

/// `[query]` or `[item]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SideConfig {
    /// Field that identifies the query (user) or the item.
    pub id: String,
    /// Of an item: fields of a record that are kept for people and stores. No tower sees them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// What the tower sees.
    pub features: Vec<FeatureConfig>,
}

/// One entry of `[[query.features]]` or `[[item.features]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeatureConfig {
    /// Its name in messages; unique within the side.
    pub name: String,
    /// What kind of value it is.
    pub kind: FeatureKind,
    /// Field (dots reach into objects). A `history` without one is kept by the trainer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Embedding table (`id`, `bag`, `history`, `number` in buckets); shared by name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// `bag`: field of per-entry weights; then the pool is a weighted sum, else a mean.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub weights: String,
    /// `history`: items kept; `bag`: entries used (the rest is dropped); `vector`: its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// `number`: how it is scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// `number` in buckets: ascending boundaries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boundaries: Vec<f32>,
    /// `id`: share of its ids that training takes for unknown, so that the row which stands for
    /// unknown ones learns, and other features with it.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropout: f32,
    /// `bag`: how its rows become one; a weighted sum with `weights`, else a mean. `history`: a
    /// mean, or by attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// `history`: after so many items one counts half as much as the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_life: Option<f32>,
    /// `number`: it is kept within these before it is scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f32; 2]>,
    /// `number`: a second float says where there is none.
    #[serde(skip_serializing_if = "is_false")]
    pub missing: bool,
    /// A record without the field is used all the same (no row, zeros).
    #[serde(skip_serializing_if = "is_false")]
    pub optional: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

/// Kind of a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureKind {
    /// One string or integer, hashed to 64 bits: one row.
    #[default]
    Id,
    /// Several of them, pooled.
    Bag,
    /// A number.
    Number,
    /// A given embedding.
    Vector,
    /// The last items of this query, taken before this event.
    History,
}

/// Scaling of a `number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// As it is.
    None,
    /// sign(x) ln(1 + |x|).
    Log,
    /// (x - mean) / deviation, from statistics streamed up to this batch.
    Zscore,
    /// An embedding row per bucket between `boundaries`.
    Buckets,
}
