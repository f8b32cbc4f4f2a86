//! What is learned and how: tables, towers, loss, optimizer, estimator, retrieval.

use serde::{Deserialize, Serialize};

use super::Alpha;
use millrace_train::model::towers::DenseRule;
use millrace_train::objective::Correction;
use millrace_train::objective::softmax::Precision;

/// `[embedding]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddingConfig {
    /// Floats a row.
    pub dim: usize,
    /// Rows a table may hold; beyond it the longest untouched go.
    pub rows_max: usize,
    /// A new row is uniform in +- this.
    pub init_scale: f32,
    /// Row-wise Adagrad's rate.
    pub learning_rate: f32,
    /// Row-wise Adagrad's epsilon.
    pub epsilon: f32,
    /// What is left of a row's sum of squares a full batch later; 1: all.
    pub accumulator_decay: f32,
    /// A new id gets a row once it has come this often, and reads that of unknown ones before; 1:
    /// at once.
    pub admit_after: u64,
    /// Rows untouched for this many events go; 0: never.
    pub expiry_events: u64,
}

/// `[tables.NAME]`: departures from `[embedding]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableConfig {
    /// Floats a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// Rows it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_max: Option<usize>,
    /// Times that an id must have come for a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admit_after: Option<u64>,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// Widths of the hidden layers (ReLU) of each tower.
    pub hidden: Vec<usize>,
    /// Width of both towers' output, which is L2-normalised.
    pub dim: usize,
}

/// `[loss]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossConfig {
    /// Sampling-bias correction.
    pub correction: Correction,
    /// Number format of the logits' products.
    pub precision: Precision,
    /// Factor of log q.
    pub strength: f32,
    /// Divides the cosine before the correction.
    pub temperature: f32,
    /// Adagrad's rate for the temperature's logarithm; 0: it stays as it is.
    pub temperature_learning_rate: f32,
    /// Other events of the same query are no negatives.
    pub mask_same_query: bool,
    /// Items of a query's history are no negatives of it.
    pub mask_history: bool,
}

/// `[negatives]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NegativesConfig {
    /// Items drawn uniformly from the corpus each step (Yang et al. 2020).
    pub mixed: usize,
    /// Past events whose item vectors serve as negatives (Wang et al. 2021).
    pub cross_batch: usize,
    /// Events before the first vectors are kept for that.
    pub cross_batch_after_events: u64,
}

/// `[optimizer]`: the towers' dense weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimizerConfig {
    /// Which.
    pub dense: DenseRule,
    /// Its rate.
    pub learning_rate: f32,
    /// Its epsilon.
    pub epsilon: f32,
    /// Adagrad: what is left of the sums of squares a full batch later; 1: all.
    pub accumulator_decay: f32,
    /// What is left of the weights' mean a full batch later; 0: none is taken.
    pub average_decay: f32,
}

/// `[retrieval]`: score = dot / temperature + popularity * log q.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetrievalConfig {
    /// Weight of log q, as of the request.
    pub popularity: f32,
    /// What a query has had is not retrieved for it, unless a request says otherwise.
    pub exclude_seen: bool,
}

/// `[frequency]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FrequencyConfig {
    /// Algorithms 2 and 3 to the letter, for comparison.
    pub paper: bool,
    /// Keyed by id instead of by bucket.
    pub exact: bool,
    /// Hash functions (m).
    pub hashes: usize,
    /// Buckets of each (H).
    pub buckets: usize,
    /// Rate of the moving average, per hit of a bucket.
    pub alpha: Alpha,
    /// Gap of an item never seen, in full batches, until other items' first gaps say better.
    pub initial_gap: f32,
    /// `exact`: ids held; beyond it the longest unseen go.
    pub exact_ids_max: usize,
}
