//! The ideas, each an edit of a config.

use millrace::config::{Config, FeatureConfig, FeatureKind, SideConfig};
use millrace_train::model::feature::Pool;

/// One idea.
pub(super) struct Idea {
    /// What it is called in a combination.
    pub(super) name: &'static str,
    /// What it changes.
    pub(super) edit: fn(&mut Config),
}

/// All of them. An idea edits what the ones before it left: `defaults` begins a combination that is
/// not to have what the data set's config has found to be good.
pub(super) const IDEAS: &[Idea] = &[
    idea("defaults", |config| {
        config.model.hidden.clone_from(&Config::default().model.hidden);
        config.loss.temperature = Config::default().loss.temperature;
        config.loss.mask_same_query = false;
        config.negatives.mixed = 0;
    }),
    idea("hidden-256", |config| config.model.hidden = vec![256]),
    idea("histories-9", |config| histories(config, &[9])),
    idea("histories-1-4-20", |config| histories(config, &[1, 4, 20])),
    idea("histories-1-3-10", |config| histories(config, &[1, 3, 10])),
    idea("histories-6", |config| histories(config, &[1, 2, 3, 5, 10, 30])),
    idea("histories-8", |config| histories(config, &[1, 2, 3, 4, 6, 10, 20, 50])),
    idea("histories-9-to-100", |config| histories(config, &[1, 2, 3, 4, 6, 10, 20, 40, 100])),
    idea("own-tables", |config| tables(config, |feature| feature.name.clone())),
    idea("one-own-table", |config| tables(config, |_| "history".to_owned())),
    idea("half-life-3", |config| {
        let features = config.query.features.iter_mut();
        features
            .filter(|feature| feature.kind == FeatureKind::History)
            .for_each(|feature| feature.half_life = Some(3.0));
    }),
    // A history of one item is that item either way.
    idea("attention", |config| {
        let features = config.query.features.iter_mut();
        features
            .filter(|feature| feature.kind == FeatureKind::History && feature.length != Some(1))
            .for_each(|feature| feature.pool = Some(Pool::Attention));
    }),
    idea("attended-50", |config| {
        let features = &mut config.query.features;
        let one = features.iter().find(|feature| feature.kind == FeatureKind::History).cloned();
        features.extend(one.map(|one| FeatureConfig {
            name: "attended".to_owned(),
            table: "attended".to_owned(),
            length: Some(50),
            pool: Some(Pool::Attention),
            ..one
        }));
    }),
    idea("no-query-id", |config| {
        let id = config.query.id.clone();
        config.query.features.retain(|feature| feature.field != id);
    }),
    idea("item-dropout", |config| dropout(&mut config.item)),
    idea("query-dropout", |config| dropout(&mut config.query)),
    idea("admit-2", |config| config.embedding.admit_after = 2),
    idea("admit-3", |config| config.embedding.admit_after = 3),
    idea("admit-10", |config| config.embedding.admit_after = 10),
    idea("no-item-id", |config| {
        let id = config.item.id.clone();
        config.item.features.retain(|feature| feature.field != id);
    }),
    idea("twice", |config| config.batch.times = 2),
    idea("averaged", |config| config.optimizer.average_decay = 0.99),
    idea("mixed", |config| config.negatives.mixed = 2_048),
    idea("masked", |config| config.loss.mask_same_query = true),
    idea("history-masked", |config| config.loss.mask_history = true),
];

const fn idea(name: &'static str, edit: fn(&mut Config)) -> Idea {
    Idea { name, edit }
}

/// A tenth of the side's own ids is taken for unknown.
fn dropout(side: &mut SideConfig) {
    let id = &side.id;
    let own = side.features.iter_mut().filter(|feature| feature.field == *id);
    own.for_each(|feature| feature.dropout = 0.1);
}

/// The last items of a query as so many features, each the mean of the last `length`; no other
/// history. They read the rows of the items.
fn histories(config: &mut Config, lengths: &[usize]) {
    let Some(id) = config.item.features.iter().find(|feature| feature.field == config.item.id)
    else {
        return;
    };
    let table = id.table.clone();
    config.query.features.retain(|feature| feature.kind != FeatureKind::History);
    config.query.features.extend(lengths.iter().map(|&length| FeatureConfig {
        name: format!("last {length}"),
        kind: FeatureKind::History,
        table: table.clone(),
        length: Some(length),
        ..FeatureConfig::default()
    }));
}

/// Histories read rows of the tables that `name` says.
fn tables(config: &mut Config, name: impl Fn(&FeatureConfig) -> String) {
    let features = config.query.features.iter_mut();
    features
        .filter(|feature| feature.kind == FeatureKind::History)
        .for_each(|feature| feature.table = name(feature));
}
