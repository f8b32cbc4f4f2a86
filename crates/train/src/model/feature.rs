//! What a side of the model sees of an event: its features, one a column.

/// One feature of a side.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name in messages; also salts its buckets, so that two features may share a table.
    pub name: String,
    /// What the tower sees of it.
    pub input: FeatureInput,
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
        Self { name: name.to_owned(), input }
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
