//! What a side of the model sees of an event: its features, one a column.

use serde::{Deserialize, Serialize};

/// One feature of a side.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name in messages; also salts its buckets, so that two features may share a table.
    pub name: String,
    /// What the tower sees of it.
    pub input: FeatureInput,
    /// Share of its ids that a step of training takes for unknown: they read the row of
    /// [`UNKNOWN`](crate::table::UNKNOWN), which so learns to stand for them, and features beside
    /// them learn to do without (Volkovs et al. 2017). Ids without a row read it ever after, and
    /// new rows begin there. 0: there is no such row, and they read what a new row would hold.
    pub dropout: f32,
    /// How the rows of a bag become one.
    pub pool: Pool,
    /// Of a history: after so many items one counts half as much as the last. None: all count the
    /// same.
    pub half_life: Option<f32>,
    /// Of a number: it is kept within these, before it is scaled.
    pub clip: Option<[f32; 2]>,
    /// Of a number: a second float says where there is none, 1 for missing. Else a missing one
    /// passes for 0.
    pub missing: bool,
}

/// How the rows of a bag become one, by the column's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// Their weighted sum. Weights of `1 / n` make it the mean.
    #[default]
    Sum,
    /// Their weighted mean: the sum over that of the weights' sizes (the paper's seed videos, Yi et
    /// al. 2019, section 5.1).
    Mean,
    /// Of each dimension the greatest, whatever the weights; of an empty bag 0.
    Max,
    /// Of a history: by what each row has to do with the last one, `softmax(<row, last> /
    /// sqrt(dim))` times the weights of the mean (Vaswani et al. 2017, equation 1).
    Attention,
}

/// How a feature's column becomes a part of a tower's input.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureInput {
    /// Rows of a table, pooled by the column's weights.
    Rows {
        /// Its table.
        table: String,
    },
    /// The query's last items, which the trainer keeps itself, mean-pooled. The column is empty.
    Kept {
        /// The table, as a rule that of the items' ids.
        table: String,
        /// Items, at most.
        length: usize,
    },
    /// A number's bucket as a row.
    Buckets {
        /// Its table.
        table: String,
        /// Ascending; `n` boundaries part `n + 1` buckets.
        boundaries: Vec<f32>,
    },
    /// A number, scaled.
    Number(NumberScale),
    /// A given vector.
    Vector {
        /// Its floats.
        length: usize,
    },
}

/// How a number is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberScale {
    /// As it is, within a bound.
    Raw,
    /// `sign(x) ln(1 + |x|)`.
    Log,
    /// `(x - mean) / deviation`, from statistics streamed up to this batch.
    Zscore,
}

impl Feature {
    /// A feature by its name and what the tower sees of it.
    pub fn new(name: &str, input: FeatureInput) -> Self {
        Self {
            name: name.to_owned(),
            input,
            dropout: 0.0,
            pool: Pool::Sum,
            half_life: None,
            clip: None,
            missing: false,
        }
    }

    /// The table it names, if any.
    pub fn table(&self) -> Option<&str> {
        match &self.input {
            FeatureInput::Rows { table }
            | FeatureInput::Kept { table, .. }
            | FeatureInput::Buckets { table, .. } => Some(table),
            FeatureInput::Number(_) | FeatureInput::Vector { .. } => None,
        }
    }
}
