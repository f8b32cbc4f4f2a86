//! What the parts of a trainer are built from, out of the program's config.

use super::corpus::Corpus;
use super::frequency::{FrequencySettings, Mode, Rate};
use crate::config::{Alpha, Config};

/// An empty corpus with the config's bounds.
pub fn corpus(config: &Config) -> Corpus {
    Corpus::new(config.corpus.items_max, config.corpus.tombstone_events)
}

/// The rate of both of the paper's experiments on real data (sections 6.2 and 6.3).
const PAPER_ALPHA: f32 = 0.01;

/// What the config's estimator is built from.
pub fn frequency_settings(config: &Config) -> FrequencySettings {
    let frequency = &config.frequency;
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
        seed: config.seed,
        batch: config.batch.size as u64,
    }
}
