//! Every default. `config/trainer.toml` gives the reasons; a test keeps both the same.

use std::collections::BTreeMap;

use super::*;
use millrace_train::model::towers::DenseRule;
use millrace_train::objective::Correction;
use millrace_train::objective::softmax::Precision;

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            topic: "interactions".into(),
            format: RecordFormat::Json,
            schema_file: String::new(),
            dead_letter_topic: "interactions-dead".into(),
            start: Start::Earliest,
            on_data_loss: OnDataLoss::Fail,
            tombstone: Tombstone::Reject,
            order: Order::EventTime,
            buffer_events: 65_536,
            merge_wait_ms: 10_000,
            discover_s: 60,
            rejected_share_max: 0.05,
            rejected_window: 10_000,
            id_bytes_max: 1024,
            group: "millrace".into(),
            client_id: "millrace".into(),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            size: 1024,
            linger_ms: 1000,
            times: 1,
            min_events: 1,
            min_events_wait_ms: 60_000,
            shuffle_events: 0,
            queue: 8,
        }
    }
}

impl Default for TimestampConfig {
    fn default() -> Self {
        Self {
            field: String::new(),
            unit: TimeUnit::Milliseconds,
            format: String::new(),
            zone: "UTC".to_owned(),
            ahead_max_s: 86_400,
        }
    }
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            field: String::new(),
            per: String::new(),
            missing: MissingReward::Worth(1.0),
            scale: 1.0,
            min: 0.0,
            max: 1.0,
            threshold: None,
        }
    }
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        Self {
            dim: 32,
            rows_max: 1_000_000,
            init_scale: 0.05,
            learning_rate: 0.05,
            epsilon: 1e-8,
            accumulator_decay: 0.95,
            admit_after: 1,
            expiry_events: 0,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { hidden: vec![128], dim: 64 }
    }
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            correction: Correction::Corrected,
            strength: 1.0,
            precision: Precision::F32,
            temperature: 0.07,
            temperature_learning_rate: 0.0,
            mask_same_query: false,
            mask_history: false,
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            dense: DenseRule::Adagrad,
            learning_rate: 0.01,
            epsilon: 1e-5,
            accumulator_decay: 0.99,
            average_decay: 0.0,
        }
    }
}

impl Default for FrequencyConfig {
    fn default() -> Self {
        Self {
            paper: false,
            exact: false,
            hashes: 2,
            buckets: 1_000_000,
            alpha: Alpha::Auto,
            initial_gap: 100.0,
            exact_ids_max: 1_000_000,
        }
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { queries_max: 1_000_000 }
    }
}

impl Default for CorpusConfig {
    fn default() -> Self {
        Self { items_max: 1_000_000, tombstone_events: 100_000_000, expiry_events: 0 }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            directory: "checkpoints".into(),
            every_steps: 1000,
            every_s: 300,
            keep: 3,
            base_every: 16,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".into() }
    }
}
