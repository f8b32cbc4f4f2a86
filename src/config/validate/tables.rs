//! Whether the tables of embeddings can be what the config says.

use millrace_train::table::ADMIT_AFTER_MAX;

use super::{BAG_LENGTH, at_least, positive, share};
use crate::config::{Config, Faults, FeatureKind};

impl Config {
    pub(super) fn validate_tables(&self, faults: &mut Faults) {
        let embedding = &self.embedding;
        positive(faults, "embedding.init_scale", f64::from(embedding.init_scale));
        positive(faults, "embedding.learning_rate", f64::from(embedding.learning_rate));
        positive(faults, "embedding.epsilon", f64::from(embedding.epsilon));
        share(faults, "embedding.accumulator_decay", embedding.accumulator_decay);
        let used = self.table_names();
        for name in self.tables.keys().filter(|name| !used.contains(name)) {
            let reason = "no feature uses this table; misspelt?";
            faults.add(format!("tables.{name}"), reason);
        }
        for name in &used {
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
                let reason = "a table's name is letters, digits, - and _ (it names a file)";
                faults.add(format!("tables.{name}"), reason);
            }
            let table = self.table(name);
            at_least(faults, &format!("tables.{name}.dim"), table.dim as u64, 1);
            if !(1..=ADMIT_AFTER_MAX).contains(&table.admit_after) {
                let reason = format!("is {}; must be in 1..={ADMIT_AFTER_MAX}", table.admit_after);
                faults.add(format!("tables.{name}.admit_after"), reason);
            }
            // The rows of one batch must fit beside each other: the longest untouched row may
            // not be one that this very step reads.
            let items = self.batch.size + self.negatives.mixed;
            let needed = 2 * items * self.ids_per_event(name);
            if table.rows_max < needed {
                let reason = format!(
                    "is {}; one step can touch {needed} rows ((batch.size + negatives.mixed) x ids \
                     an event x 2)",
                    table.rows_max
                );
                faults.add(format!("tables.{name}.rows_max"), reason);
            }
        }
    }

    /// At most this many ids of one event fall into `table`.
    fn ids_per_event(&self, table: &str) -> usize {
        let features = self.query.features.iter().chain(&self.item.features);
        features
            .filter(|feature| feature.table == table)
            .map(|feature| match feature.kind {
                FeatureKind::Bag | FeatureKind::History => feature.length.unwrap_or(BAG_LENGTH),
                _ => 1,
            })
            .sum()
    }
}
