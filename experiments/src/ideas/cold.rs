//! What a model makes of items that it has never seen an event of.
//!
//! A share of the items is hidden: none of their events is trained on. Their features are known all
//! the same, as from a catalogue, and each one's first clicks among the held-out events are ranked
//! among the hidden items, and among all.

use std::collections::{BTreeMap, HashMap};

use millrace::config::Config;
use millrace_events::mix;
use millrace_train::evaluation::ranking::{Candidates, rank};
use millrace_train::memory::corpus::{Attributes, Item};
use millrace_train::placement::Placement;
use serde_json::{Value, json};

use crate::events::Log;
use crate::quality::held_out;

/// Of a hundred items so many are hidden.
const HIDDEN: u64 = 5;
/// First clicks of each that count.
const CLICKS: usize = 10;

/// Whether an item is hidden: a function of its key and the seed alone.
fn is_hidden(item: u64, seed: u64) -> bool {
    mix(item ^ mix(seed)) % 100 < HIDDEN
}

/// Trains on the events of the items that are not hidden, then ranks the first clicks of those
/// that are.
pub(super) fn measure(
    config: &Config,
    placement: &Placement,
    passes: u32,
    (train, test): (&Log, &Log),
) -> Value {
    let hidden = |item| is_hidden(item, config.seed);
    let shown = train.of_items(|item| !hidden(item));
    let mut trainer = held_out::trained(config, placement, passes, &shown);
    let secret = catalogue(&[train, test], hidden);
    let state = trainer.state();
    let known: Vec<(u64, Item)> = state.corpus.sorted();
    let all: Vec<(u64, Item)> = secret.iter().chain(&known).cloned().collect();
    let dim = state.model.towers.dim();
    let vectors = state.model.embed_items(&all); // [items, dim]
    let among = Candidates::new(&vectors, dim);
    let places: HashMap<u64, usize> =
        secret.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();

    let mut clicks: HashMap<u64, usize> = HashMap::new();
    let (mut cases, mut in_secret, mut in_all) = (0u32, 0u32, 0u32);
    for batch in test.batches() {
        let queries = trainer.embed_and_remember(&batch); // [events, dim]
        let targets: Vec<Option<usize>> = batch
            .events
            .item_ids
            .iter()
            .map(|item| {
                let place = *places.get(item)?;
                let seen = clicks.entry(*item).or_default();
                *seen += 1;
                (*seen <= CLICKS).then_some(place)
            })
            .collect();
        let ranks = among.score(&queries, |event, dots| {
            let target = targets[event]?;
            Some((rank(&dots[..secret.len()], target), rank(dots, target)))
        });
        for (secret, all) in ranks.into_iter().flatten() {
            cases += 1;
            in_secret += u32::from(secret <= 10);
            in_all += u32::from(all <= 100);
        }
    }
    let share = |hits: u32| f64::from(hits) / f64::from(cases);
    let chance = 10.0 / secret.len() as f64;
    json!({
        "hidden": secret.len(), "cases": cases, "chance": chance,
        "recall_10_among_hidden": share(in_secret), "times_chance": share(in_secret) / chance,
        "recall_100_among_all": share(in_all),
    })
}

/// The items of the logs that are `wanted`, with their features, by key.
fn catalogue(logs: &[&Log], wanted: impl Fn(u64) -> bool) -> Vec<(u64, Item)> {
    let mut items = BTreeMap::new();
    for batch in logs.iter().flat_map(|log| log.batches()) {
        let events = &batch.events;
        for (event, &id) in events.item_ids.iter().enumerate() {
            if wanted(id) {
                items.entry(id).or_insert_with(|| Item {
                    name: events.item_names.get(event).into(),
                    values: events.item.iter().map(|column| column.value(event)).collect(),
                    count: 0,
                    touched: 0,
                    attributes: Attributes::default(),
                });
            }
        }
    }
    items.into_iter().collect()
}
