//! What the trainer is built from, read off the config.

use std::collections::BTreeMap;

use super::{
    Alpha, CatalogueConfig, Config, EmbeddingConfig, FeatureConfig, FeatureKind, KafkaConfig,
    SideConfig, Transform,
};
use millrace_train::frequency::{FrequencySettings, Mode, Rate};
use millrace_train::model::ModelSettings;
use millrace_train::model::feature::{Feature, FeatureInput, NumberScale};
use millrace_train::model::towers::DenseSettings;
use millrace_train::objective::ObjectiveSettings;
use millrace_train::settings::TrainSettings;
use millrace_train::table::TableSettings;

/// The rate of both of the paper's experiments on real data (sections 6.2 and 6.3).
const PAPER_ALPHA: f32 = 0.01;

impl KafkaConfig {
    /// This one, with the keys of `other` that say how a record is read.
    #[must_use]
    pub fn reading_as(self, other: &KafkaConfig) -> KafkaConfig {
        let KafkaConfig { format, tombstone, id_bytes_max, .. } = *other;
        KafkaConfig { format, tombstone, id_bytes_max, ..self }
    }
}

impl Config {
    /// What a trainer of this config is built from.
    ///
    /// # Panics
    /// If the config was not validated: a history or a vector without a length.
    pub fn train(&self) -> TrainSettings {
        TrainSettings {
            seed: self.seed,
            batch: self.batch.size,
            times: self.batch.times,
            model: self.model_settings(),
            objective: self.objective(),
            frequency: self.frequency_settings(),
            queries_max: self.history.queries_max,
            items_max: self.corpus.items_max,
            tombstone_events: self.corpus.tombstone_events,
            item_expiry_events: (self.corpus.expiry_events > 0)
                .then_some(self.corpus.expiry_events),
            attributes: self.attributes(),
        }
    }

    /// All of it that says which records are events, and of which query and item, as a text: equal
    /// texts read a log alike.
    pub fn reading(&self) -> String {
        let Config { timestamp, event, reward, query, item, interactions, .. } = self;
        let listed: Vec<String> = self.catalogue.iter().map(CatalogueConfig::reading).collect();
        let kafka = KafkaConfig::default().reading_as(&self.kafka);
        let item = SideConfig { attributes: Vec::new(), ..item.clone() };
        let first = (kafka, timestamp, event, reward, query, item);
        serde_json::to_string(&(first, interactions, listed))
            .expect("the sections of a config are JSON")
    }

    fn model_settings(&self) -> ModelSettings {
        let features = |features: &[FeatureConfig]| features.iter().map(feature).collect();
        let mut settings = ModelSettings {
            seed: self.seed,
            query: features(&self.query.features),
            item: features(&self.item.features),
            tables: BTreeMap::new(),
            hidden: self.model.hidden.clone(),
            dim: self.model.dim,
            dense: DenseSettings {
                rule: self.optimizer.dense,
                learning_rate: self.optimizer.learning_rate,
                epsilon: self.optimizer.epsilon,
                decay: self.optimizer.accumulator_decay,
                average: self.optimizer.average_decay,
            },
        };
        for name in settings.table_names() {
            let table = self.table_settings(&self.table(&name), settings.table_seed(&name));
            settings.tables.insert(name, table);
        }
        settings
    }

    fn objective(&self) -> ObjectiveSettings {
        ObjectiveSettings {
            correction: self.loss.correction,
            precision: self.loss.precision,
            strength: self.loss.strength,
            temperature: self.loss.temperature,
            temperature_learning_rate: self.loss.temperature_learning_rate,
            mask_same_query: self.loss.mask_same_query,
            mask_history: self.loss.mask_history,
            mixed: self.negatives.mixed,
            cross_batch: self.negatives.cross_batch,
            cross_batch_after_events: self.negatives.cross_batch_after_events,
        }
    }

    fn table_settings(&self, table: &EmbeddingConfig, seed: u64) -> TableSettings {
        TableSettings {
            dim: table.dim,
            rows_max: table.rows_max,
            init_scale: table.init_scale,
            seed,
            learning_rate: table.learning_rate,
            epsilon: table.epsilon,
            decay: table.accumulator_decay,
            batch: self.batch.size as u64,
            admit_after: table.admit_after,
            expiry_events: (table.expiry_events > 0).then_some(table.expiry_events),
        }
    }

    /// What the estimator is built from.
    pub fn frequency_settings(&self) -> FrequencySettings {
        let frequency = &self.frequency;
        FrequencySettings {
            mode: if frequency.paper { Mode::Paper } else { Mode::Default },
            exact: frequency.exact,
            hashes: frequency.hashes,
            buckets: frequency.buckets,
            alpha: match frequency.alpha {
                Alpha::Fixed(alpha) => Rate::Fixed(alpha),
                Alpha::Auto if frequency.paper => Rate::Fixed(PAPER_ALPHA),
                Alpha::Auto => Rate::Auto,
            },
            initial_gap: frequency.initial_gap,
            exact_ids_max: frequency.exact_ids_max,
            seed: self.seed,
            batch: self.batch.size as u64,
        }
    }
}

fn feature(config: &FeatureConfig) -> Feature {
    let table = || config.table.clone();
    let length = || config.length.expect("validated");
    let input = match config.kind {
        FeatureKind::Id | FeatureKind::Bag => FeatureInput::Rows { table: table() },
        FeatureKind::History if config.field.is_empty() => {
            FeatureInput::Kept { table: table(), length: length() }
        }
        FeatureKind::History => FeatureInput::Rows { table: table() },
        FeatureKind::Vector => FeatureInput::Vector { length: length() },
        FeatureKind::Number => match config.transform {
            Some(Transform::Buckets) => {
                FeatureInput::Buckets { table: table(), boundaries: config.boundaries.clone() }
            }
            Some(Transform::Log) => FeatureInput::Number(NumberScale::Log),
            Some(Transform::Zscore) => FeatureInput::Number(NumberScale::Zscore),
            Some(Transform::None) | None => FeatureInput::Number(NumberScale::Raw),
        },
    };
    let pool = config.pool.unwrap_or_default();
    Feature {
        dropout: config.dropout,
        pool,
        half_life: config.half_life,
        clip: config.clip,
        missing: config.missing,
        ..Feature::new(&config.name, input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trainers_defaults_are_those_of_the_config() {
        let features = vec![FeatureConfig { table: "item".into(), ..FeatureConfig::default() }];
        let mut config = Config::default();
        config.query.features.clone_from(&features);
        config.item.features = features;
        let mut settings = config.train();
        let ModelSettings { query, item, .. } = settings.model.clone();
        assert_eq!(settings, TrainSettings::new(config.batch.size, query.clone(), item.clone()));
        settings.model.hidden.clear();
        assert_ne!(settings, TrainSettings::new(config.batch.size, query, item));
    }
}
