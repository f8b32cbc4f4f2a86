//! Trains on a vector of events in memory, without a log, and prints each item's neighbours.
//!
//! `cargo run --release --example embed_in_memory`

use millrace_events::{Batch, Event, Events, FeatureValue, Offsets, SplitMix, id_key};
use millrace_train::evaluation::ranking::top;
use millrace_train::model::feature::{Feature, FeatureInput};
use millrace_train::{Placement, TrainSettings, Trainer};

/// Events of a full batch.
const BATCH: usize = 128;

/// The model knows a customer and a drink by their ids alone.
fn settings() -> TrainSettings {
    let side = |name: &str| vec![Feature::new(name, FeatureInput::Rows { table: name.into() })];
    let mut settings = TrainSettings::new(BATCH, side("customer"), side("drink"));
    settings.model.dim = 16;
    settings
}

/// A customer keeps to one row.
pub(crate) const DRINKS: [[&str; 4]; 3] = [
    ["espresso", "cappuccino", "latte", "mocha"],
    ["green tea", "black tea", "rooibos", "mate"],
    ["apple juice", "orange juice", "lemonade", "cider"],
];

fn orders(count: usize) -> Vec<Event> {
    let mut random = SplitMix::new(1);
    let mut order = |time_ms| {
        let customer = random.next_u64() % 300;
        let drink = DRINKS[(customer % 3) as usize][(random.next_u64() % 4) as usize];
        let (query_id, item_id) = (id_key(&customer.to_le_bytes()), id_key(drink.as_bytes()));
        let query = vec![FeatureValue::Id(query_id)];
        let item = vec![FeatureValue::Id(item_id)];
        Event { time_ms, query_id, item_id, item_name: drink.into(), reward: 1.0, query, item }
    };
    (0..count as i64).map(&mut order).collect()
}

/// Each drink with the three that are nearest to it.
pub(crate) fn neighbours() -> Vec<(String, Vec<String>)> {
    let mut trainer = Trainer::new(&settings(), &Placement::Cpu, Offsets::new("memory"));
    for orders in orders(40_000).chunks(BATCH) {
        let mut batch = Batch::new(Events::new(1, 1), Offsets::new("memory"));
        orders.iter().for_each(|order| batch.events.push(order));
        trainer.step(&batch);
    }
    let model = &trainer.state().model;
    let items = trainer.state().corpus.sorted();
    let vectors = model.embed_items(&items); // [items, dim], rows of length 1
    let rows: Vec<&[f32]> = vectors.chunks(model.towers.dim()).collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let name = |at: usize| items[at].1.name.to_string();
    let nearest = |at: usize| {
        let cosines: Vec<f32> = rows.iter().map(|row| dot(rows[at], row)).collect();
        top(&cosines, 4).into_iter().filter(|&other| other != at).map(name).collect()
    };
    (0..items.len()).map(|at| (name(at), nearest(at))).collect()
}

fn main() {
    for (drink, nearest) in neighbours() {
        println!("{drink:<13} {}", nearest.join(", "));
    }
}
