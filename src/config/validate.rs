//! Checks across keys. Everything wrong is reported, each with its key's path.

mod catalogue;
mod interactions;
mod records;
mod tables;

use std::collections::BTreeSet;

use super::{
    BatchConfig, Config, Faults, FeatureConfig, FeatureKind, MissingReward, RewardConfig, Transform,
};
use millrace_events::EventSide;
use millrace_train::model::feature::Pool;

impl Config {
    pub(super) fn validate(&self, faults: &mut Faults) {
        self.validate_stream(faults);
        self.registry.validate(&self.kafka, faults);
        self.validate_records(faults);
        self.validate_interactions(faults);
        self.validate_catalogues(faults);
        self.validate_attributes(faults);
        self.validate_side((EventSide::Query, "query"), faults);
        self.validate_side((EventSide::Item, "item"), faults);
        validate_reward(&self.reward, faults);
        self.validate_training(faults);
        self.validate_tables(faults);
        self.validate_outputs(faults);
        self.serve.validate(faults);
    }

    fn validate_stream(&self, faults: &mut Faults) {
        let kafka = &self.kafka;
        let not_empty = [("kafka.brokers", &kafka.brokers), ("kafka.topic", &kafka.topic)];
        for (key, value) in not_empty {
            if value.is_empty() {
                faults.add(key, "must not be empty");
            }
        }
        if kafka.dead_letter_topic == kafka.topic {
            faults.add("kafka.dead_letter_topic", "must differ from kafka.topic");
        }
        let share = kafka.rejected_share_max;
        if !(0.0..=1.0).contains(&share) {
            faults.add("kafka.rejected_share_max", format!("is {share}; must be in 0..=1"));
        }
        at_least(faults, "kafka.rejected_window", kafka.rejected_window, 1);
        at_least(faults, "kafka.buffer_events", kafka.buffer_events as u64, 1);
        at_least(faults, "kafka.id_bytes_max", kafka.id_bytes_max as u64, 1);
        if (1..MERGE_WAIT_MS_MIN).contains(&kafka.merge_wait_ms) {
            let wait = kafka.merge_wait_ms;
            let reason = format!("is {wait}; must be 0 or at least {MERGE_WAIT_MS_MIN}");
            faults.add("kafka.merge_wait_ms", reason);
        }
        for reserved in RESERVED_PROPERTIES {
            if kafka.properties.contains_key(reserved) {
                let key = format!("kafka.properties.\"{reserved}\"");
                faults.add(key, "is set by millrace itself and must not be given");
            }
        }
        at_least(faults, "batch.size", self.batch.size as u64, 2);
        let BatchConfig { size, min_events, shuffle_events: window, .. } = self.batch;
        if min_events == 0 || min_events > size {
            let reason = format!("is {min_events}; must be in 1..=batch.size ({size})");
            faults.add("batch.min_events", reason);
        }
        if window > SHUFFLE_EVENTS_MAX || !window.is_multiple_of(size.max(1)) {
            let reason = format!(
                "is {window}; must be 0 or a multiple of batch.size ({size}), at most \
                 {SHUFFLE_EVENTS_MAX}"
            );
            faults.add("batch.shuffle_events", reason);
        }
        at_least(faults, "batch.times", u64::from(self.batch.times), 1);
        at_least(faults, "batch.queue", self.batch.queue as u64, 1);
    }

    fn validate_side(&self, (which, side): (EventSide, &str), faults: &mut Faults) {
        let config = self.side(which);
        if config.id.is_empty() {
            let what = format!("must name the field that identifies the {side}");
            faults.add(format!("{side}.id"), what);
        }
        if config.features.is_empty() {
            let key = format!("{side}.features");
            faults.add(key, format!("the {side} tower needs at least one feature"));
        }
        let mut names = BTreeSet::new();
        for (index, feature) in config.features.iter().enumerate() {
            let key = format!("{side}.features[{index}]");
            if feature.name.is_empty() {
                faults.add(format!("{key}.name"), "must not be empty");
            } else if !names.insert(&feature.name) {
                let reason = format!("`{}` stands twice in [{side}]", feature.name);
                faults.add(format!("{key}.name"), reason);
            }
            let listed = self.is_listed(which, &feature.name);
            validate_feature((which, listed), &key, feature, faults);
        }
    }

    fn validate_training(&self, faults: &mut Faults) {
        at_least(faults, "model.dim", self.model.dim as u64, 1);
        if self.model.hidden.contains(&0) {
            faults.add("model.hidden", "a layer of width 0 carries nothing");
        }
        positive(faults, "loss.temperature", f64::from(self.loss.temperature));
        if !(0.0..=1.0).contains(&self.loss.strength) {
            let reason = format!("is {}; must be in 0..=1", self.loss.strength);
            faults.add("loss.strength", reason);
        }
        let rate = self.loss.temperature_learning_rate;
        if !(0.0..=1.0).contains(&rate) {
            faults.add("loss.temperature_learning_rate", format!("is {rate}; must be in 0..=1"));
        }
        positive(faults, "optimizer.learning_rate", f64::from(self.optimizer.learning_rate));
        share(faults, "optimizer.accumulator_decay", self.optimizer.accumulator_decay);
        let decay = self.optimizer.average_decay;
        if !(0.0..1.0).contains(&decay) {
            let reason = format!("is {decay}; must be 0 or more and below 1");
            faults.add("optimizer.average_decay", reason);
        }
        // A step's memory and time grow with every column.
        let columns = [
            ("negatives.mixed", self.negatives.mixed),
            ("negatives.cross_batch", self.negatives.cross_batch),
        ];
        for (key, count) in columns.into_iter().filter(|(_, count)| *count > NEGATIVES_MAX) {
            faults.add(key, format!("is {count}; must be at most {NEGATIVES_MAX}"));
        }
        positive(faults, "optimizer.epsilon", f64::from(self.optimizer.epsilon));
        let weight = self.retrieval.popularity;
        if !(0.0..=100.0).contains(&weight) {
            faults.add("retrieval.popularity", format!("is {weight}; must be in 0..=100"));
        }
        self.validate_seen(faults);
        let frequency = &self.frequency;
        if !frequency.alpha.is_valid() {
            let reason = format!("is {}; must be in (0, 1] or \"auto\"", frequency.alpha);
            faults.add("frequency.alpha", reason);
        }
        if frequency.paper && frequency.exact {
            faults.add("frequency.exact", "the paper's algorithms have no exact variant");
        }
        if !(1..=16).contains(&frequency.hashes) {
            faults.add("frequency.hashes", format!("is {}; must be in 1..=16", frequency.hashes));
        }
        at_least(faults, "frequency.buckets", frequency.buckets as u64, 1);
        at_least(faults, "frequency.exact_ids_max", frequency.exact_ids_max as u64, 1);
        if frequency.initial_gap < 1.0 || !frequency.initial_gap.is_finite() {
            let reason = format!("is {}; a gap is at least 1 batch", frequency.initial_gap);
            faults.add("frequency.initial_gap", reason);
        }
        at_least(faults, "corpus.items_max", self.corpus.items_max as u64, 1);
        at_least(faults, "history.queries_max", self.history.queries_max as u64, 1);
    }

    /// What asks for the items that a query has had.
    fn validate_seen(&self, faults: &mut Faults) {
        let kept = |feature: &FeatureConfig| {
            feature.kind == FeatureKind::History && feature.field.is_empty()
        };
        if !self.query.features.iter().any(kept) {
            let reason = "needs histories, which a query feature of kind \"history\" without a \
                          `field` keeps";
            let keys = [
                ("loss.mask_history", self.loss.mask_history),
                ("retrieval.exclude_seen", self.retrieval.exclude_seen),
            ];
            keys.iter().filter(|(_, set)| *set).for_each(|(key, _)| faults.add(*key, reason));
        }
    }

    fn validate_outputs(&self, faults: &mut Faults) {
        if self.checkpoint.directory.is_empty() {
            faults.add("checkpoint.directory", "must not be empty");
        }
        at_least(faults, "checkpoint.every_steps", self.checkpoint.every_steps, 1);
        at_least(faults, "checkpoint.keep", self.checkpoint.keep as u64, 1);
        at_least(faults, "checkpoint.base_every", self.checkpoint.base_every, 1);
        self.publish.validate(self, faults);
        self.artifact.validate(faults);
        let listen = &self.http.listen;
        if !listen.is_empty() && listen.parse::<std::net::SocketAddr>().is_err() {
            let reason = format!("`{listen}` is not an address; expected like 0.0.0.0:9464");
            faults.add("http.listen", reason);
        }
    }
}

/// Most negatives of a kind: 64 times the paper's batch is minutes a step.
const NEGATIVES_MAX: usize = 1 << 19;

/// About 10 GB of events: beyond it the window would be the program's memory.
const SHUFFLE_EVENTS_MAX: usize = 10_000_000;

/// A partition that is well and has nothing says so within a tenth of this.
const MERGE_WAIT_MS_MIN: u64 = 1000;

/// librdkafka properties that promises rest on, or that have a key of their own.
const RESERVED_PROPERTIES: [&str; 17] = [
    "bootstrap.servers",
    "client.id",
    "group.id",
    "enable.idempotence",
    // That of the publisher is its topic's; any other producer with one would send nothing.
    "transactional.id",
    "acks",
    "request.required.acks",
    "partitioner",
    "check.crcs",
    "message.max.bytes",
    "receive.message.max.bytes",
    "fetch.max.bytes",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "auto.offset.reset",
    "isolation.level",
];

/// Entries of a bag that are used where the config names no `length`: a record with thousands of
/// tags must not make one step as long as a hundred.
pub(crate) const BAG_LENGTH: usize = 64;

/// `listed`: a catalogue has the feature, and an event need not.
fn validate_feature(
    (side, listed): (EventSide, bool),
    key: &str,
    feature: &FeatureConfig,
    faults: &mut Faults,
) {
    let kind = feature.kind;
    let buckets = feature.transform == Some(Transform::Buckets);
    let has_table = match kind {
        FeatureKind::Id | FeatureKind::Bag | FeatureKind::History => true,
        FeatureKind::Number => buckets,
        FeatureKind::Vector => false,
    };
    if has_table && feature.table.is_empty() {
        faults.add(format!("{key}.table"), "must name an embedding table");
    }
    if !has_table && !feature.table.is_empty() {
        faults.add(format!("{key}.table"), "a feature of this kind has no table");
    }
    if feature.field.is_empty() && kind != FeatureKind::History && !listed {
        faults.add(format!("{key}.field"), "must name a field of the record");
    }
    if kind == FeatureKind::History && side == EventSide::Item {
        faults.add(format!("{key}.kind"), "a history belongs to the query");
    }
    match (kind, feature.length) {
        (FeatureKind::History | FeatureKind::Vector, None) => {
            faults.add(format!("{key}.length"), "must be given for this kind");
        }
        (FeatureKind::Id | FeatureKind::Number, Some(_)) => {
            faults.add(format!("{key}.length"), "has no meaning for this kind");
        }
        (_, Some(length)) if !(1..=4096).contains(&length) => {
            faults.add(format!("{key}.length"), format!("is {length}; must be in 1..=4096"));
        }
        _ => {}
    }
    if kind != FeatureKind::Bag && !feature.weights.is_empty() {
        faults.add(format!("{key}.weights"), "only a bag has weights");
    }
    if kind != FeatureKind::Number && feature.transform.is_some() {
        faults.add(format!("{key}.transform"), "only a number has a transform");
    }
    validate_options(key, feature, faults);
    if buckets == feature.boundaries.is_empty() {
        let reason = "boundaries and transform = \"buckets\" go together";
        faults.add(format!("{key}.boundaries"), reason);
    }
    if !feature.boundaries.is_sorted_by(|a, b| a < b) {
        faults.add(format!("{key}.boundaries"), "must ascend");
    }
}

/// What says how a value becomes an input, each for one kind alone.
fn validate_options(key: &str, feature: &FeatureConfig, faults: &mut Faults) {
    let FeatureConfig { kind, dropout, pool, half_life, clip, missing, .. } = *feature;
    if kind != FeatureKind::Id && dropout != 0.0 {
        faults.add(format!("{key}.dropout"), "only an id has a dropout");
    }
    if !(0.0..1.0).contains(&dropout) {
        faults.add(format!("{key}.dropout"), format!("is {dropout}; must be in 0..1"));
    }
    let fits = match kind {
        FeatureKind::Bag => pool != Some(Pool::Attention),
        FeatureKind::History => matches!(pool, None | Some(Pool::Mean | Pool::Attention)),
        _ => pool.is_none(),
    };
    if !fits {
        let reason = "a bag is pooled to \"mean\", \"max\" or \"sum\", a history to \"mean\" or \
                      \"attention\", and nothing else is pooled";
        faults.add(format!("{key}.pool"), reason);
    }
    if pool == Some(Pool::Sum) && feature.weights.is_empty() {
        let reason = "a sum takes `weights`; without them a bag is pooled to \"mean\" or \"max\"";
        faults.add(format!("{key}.pool"), reason);
    }
    if kind != FeatureKind::History && half_life.is_some() {
        faults.add(format!("{key}.half_life"), "only a history has a half-life");
    }
    if let Some(half_life) = half_life {
        positive(faults, &format!("{key}.half_life"), f64::from(half_life));
    }
    if kind != FeatureKind::Number && (clip.is_some() || missing) {
        let option = if missing { "missing" } else { "clip" };
        faults.add(format!("{key}.{option}"), "only a number has it");
    }
    if let Some([least, most]) = clip
        && !(least < most && least.is_finite() && most.is_finite())
    {
        faults.add(format!("{key}.clip"), format!("[{least}, {most}] is no interval"));
    }
    if missing && (!feature.optional || feature.transform == Some(Transform::Buckets)) {
        let reason = "is for a number with `optional = true` that is not in buckets";
        faults.add(format!("{key}.missing"), reason);
    }
}

fn validate_reward(reward: &RewardConfig, faults: &mut Faults) {
    if reward.field.is_empty() && !reward.per.is_empty() {
        faults.add("reward.per", "there is no reward.field to divide");
    }
    if let MissingReward::Worth(worth) = reward.missing
        && !(worth >= 0.0 && worth.is_finite())
    {
        faults.add("reward.missing", format!("is {worth}; must be from 0 up, or \"reject\""));
    }
    if reward.min < 0.0 || reward.min >= reward.max || !reward.max.is_finite() {
        let reason = format!("[{}, {}] must be an interval from 0 up", reward.min, reward.max);
        faults.add("reward.max", reason);
    }
    positive(faults, "reward.scale", f64::from(reward.scale));
}

pub(super) fn at_least(faults: &mut Faults, key: &str, value: u64, least: u64) {
    if value < least {
        faults.add(key, format!("is {value}; must be at least {least}"));
    }
}

/// A factor that leaves something and adds nothing.
fn share(faults: &mut Faults, key: &str, value: f32) {
    if !(value > 0.0 && value <= 1.0) {
        faults.add(key, format!("is {value}; must be in (0, 1]"));
    }
}

fn positive(faults: &mut Faults, key: &str, value: f64) {
    if !(value > 0.0 && value.is_finite()) {
        faults.add(key, format!("is {value}; must be above 0"));
    }
}
