//! Which keys a saved state belongs to.

use std::collections::BTreeMap;

use super::{
    BatchConfig, Config, EmbeddingConfig, FrequencyConfig, KafkaConfig, LossConfig,
    OptimizerConfig, SideConfig, TableConfig, TimestampConfig,
};

impl Config {
    /// The keys that give a saved state its shape and meaning, `key = value` a line. Two configs
    /// with the same text can go on from each other's checkpoints; rates, topics and cadences
    /// may differ.
    pub fn state_keys(&self) -> String {
        let state = Config {
            seed: self.seed,
            kafka: KafkaConfig { format: self.kafka.format, ..KafkaConfig::default() },
            event: self.event.clone(),
            batch: BatchConfig { size: self.batch.size, ..BatchConfig::default() },
            timestamp: TimestampConfig {
                ahead_max_s: TimestampConfig::default().ahead_max_s,
                ..self.timestamp.clone()
            },
            reward: self.reward.clone(),
            query: self.query.clone(),
            // What no tower sees is collected from now on.
            item: SideConfig { attributes: Vec::new(), ..self.item.clone() },
            tables: self.shapes_of_tables(),
            model: self.model.clone(),
            frequency: FrequencyConfig {
                alpha: FrequencyConfig::default().alpha,
                exact_ids_max: FrequencyConfig::default().exact_ids_max,
                ..self.frequency.clone()
            },
            embedding: EmbeddingConfig { dim: self.embedding.dim, ..EmbeddingConfig::default() },
            optimizer: OptimizerConfig {
                dense: self.optimizer.dense,
                ..OptimizerConfig::default()
            },
            // A corrected model's scores say how likely an item is, a plain one's how much likelier
            // than its share: versions of a state that turns from one to the other mix both.
            loss: LossConfig { correction: self.loss.correction, ..LossConfig::default() },
            ..Config::default()
        };
        state.to_toml()
    }

    /// `tables` without what may change from run to run.
    fn shapes_of_tables(&self) -> BTreeMap<String, TableConfig> {
        let shape = |table: &TableConfig| TableConfig { admit_after: None, ..table.clone() };
        let shapes = self.tables.iter().map(|(name, table)| (name.clone(), shape(table)));
        // Who wrote no shape has that of the others.
        let given = |(name, shape): &(String, TableConfig)| {
            *shape != TableConfig::default() || self.tables[name] == TableConfig::default()
        };
        shapes.filter(given).collect()
    }

    /// The other keys that say what is learned, `key = value` a line: a state may go on with other
    /// values, but its scores move to them only as events come.
    pub fn objective_keys(&self) -> String {
        let correction = LossConfig::default().correction;
        let objective = Config {
            loss: LossConfig { correction, ..self.loss.clone() },
            negatives: self.negatives.clone(),
            ..Config::default()
        };
        objective.to_toml()
    }

    /// Digest of [`Config::state_keys`], in hex.
    pub fn digest(&self) -> String {
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(self.state_keys().as_bytes()))
    }
}
