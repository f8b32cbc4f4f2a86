//! A world whose truth is known: planted preferences, skewed popularity, drift.
//!
//! `p(item | query, t) ∝ popularity(item, t) · exp(taste · <query, item>)`, so the best ranking any
//! model can give, and its recall, can be computed. Owns the truth; knows nothing of Kafka or of
//! the trainer.

use millrace_events::SplitMix;

/// Size and shape of the world.
#[derive(Clone, Debug)]
pub struct WorldSettings {
    /// Queries (users).
    pub queries: usize,
    /// Items.
    pub items: usize,
    /// Width of the planted vectors.
    pub dim: usize,
    /// How strongly a query's taste speaks against popularity (nats at cosine 1).
    pub taste: f32,
    /// Popularity of the i-th item is `1 / (i + 1)^skew`, before drift.
    pub skew: f32,
    /// Amplitude of each item's swing in popularity, in nats.
    pub drift: f32,
    /// Events in which popularity swings once around.
    pub period: u64,
    /// Seed of everything.
    pub seed: u64,
}

/// Popularity is held still for this share of a period: redrawing the sampling table for every
/// event would cost more than the events.
const EPOCHS_A_PERIOD: u64 = 64;

/// The planted truth and a stream drawn from it.
pub struct World {
    settings: WorldSettings,
    queries: Vec<f32>, // [queries, dim], unit rows
    items: Vec<f32>,   // [items, dim], unit rows
    phases: Vec<f32>,  // [items], in turns
    ranks: Vec<usize>, // [items], place in the skew
    random: SplitMix,
    drawn: u64,
    epoch: Option<u64>,
    alias: Alias,
}

/// One interaction: query and item by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interaction {
    /// Which query.
    pub query: usize,
    /// Which item.
    pub item: usize,
}

impl World {
    /// A world from its seed.
    pub fn new(settings: WorldSettings) -> Self {
        let mut random = SplitMix::new(settings.seed);
        let queries = unit_rows(settings.queries, settings.dim, &mut random);
        let items = unit_rows(settings.items, settings.dim, &mut random);
        let phases = (0..settings.items).map(|_| random.unit()).collect();
        let mut ranks: Vec<usize> = (0..settings.items).collect();
        for i in (1..ranks.len()).rev() {
            ranks.swap(i, below(&mut random, i + 1));
        }
        let alias = Alias::new(&[1.0]);
        Self { queries, items, phases, ranks, random, drawn: 0, epoch: None, alias, settings }
    }

    /// Its size and shape.
    pub fn settings(&self) -> &WorldSettings {
        &self.settings
    }

    /// Draws the next interaction; time moves on by one event.
    pub fn draw(&mut self) -> Interaction {
        let epoch = self.drawn / (self.settings.period / EPOCHS_A_PERIOD).max(1);
        if self.epoch != Some(epoch) {
            let weights: Vec<f32> =
                (0..self.settings.items).map(|item| self.log_popularity(item).exp()).collect();
            self.alias = Alias::new(&weights);
            self.epoch = Some(epoch);
        }
        self.drawn += 1;
        let query = below(&mut self.random, self.settings.queries);
        // Rejection: propose by popularity, accept by taste. The bound holds at cosine 1.
        loop {
            let item = self.alias.draw(&mut self.random);
            let accept = (self.settings.taste * (self.affinity(query, item) - 1.0)).exp();
            if self.random.unit() < accept {
                return Interaction { query, item };
            }
        }
    }

    /// An interaction as a JSON line of config/demo.toml's shape.
    pub fn line(&self, drawn: Interaction, time_ms: u64) -> String {
        let Interaction { query, item } = drawn;
        let category = self.category(item);
        format!(
            r#"{{"user":"u{query}","item":"i{item}","category":"c{category}","time_ms":{time_ms}}}"#
        )
    }

    /// The truth's score of every item for `query` now, in nats: ranking by it is the ceiling.
    pub fn scores(&self, query: usize) -> Vec<f64> {
        let score = |item| {
            f64::from(self.log_popularity(item) + self.settings.taste * self.affinity(query, item))
        };
        (0..self.settings.items).map(score).collect()
    }

    /// Which of `groups` directions an item points to most: a feature that tells something of it.
    pub fn category(&self, item: usize) -> usize {
        let dim = self.settings.dim;
        let vector = &self.items[item * dim..(item + 1) * dim];
        let largest = (0..dim).max_by(|&a, &b| vector[a].abs().total_cmp(&vector[b].abs()));
        let axis = largest.expect("a vector has an axis");
        2 * axis + usize::from(vector[axis] < 0.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a demo")]
    fn log_popularity(&self, item: usize) -> f32 {
        let settings = &self.settings;
        let epoch_events = (settings.period / EPOCHS_A_PERIOD).max(1);
        let now = self.epoch.unwrap_or(0) * epoch_events;
        let turn = now as f32 / settings.period as f32 + self.phases[item];
        let base = -settings.skew * ((self.ranks[item] + 1) as f32).ln();
        base + settings.drift * (std::f32::consts::TAU * turn).sin()
    }

    fn affinity(&self, query: usize, item: usize) -> f32 {
        let dim = self.settings.dim;
        let (query, item) = (&self.queries[query * dim..], &self.items[item * dim..]);
        query[..dim].iter().zip(&item[..dim]).map(|(a, b)| a * b).sum()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the bound is a usize")]
fn below(random: &mut SplitMix, bound: usize) -> usize {
    ((u128::from(random.next_u64()) * bound as u128) >> 64) as usize
}

/// Rows of independent normals, scaled to length 1: uniform on the sphere.
fn unit_rows(rows: usize, dim: usize, random: &mut SplitMix) -> Vec<f32> {
    let mut values = Vec::with_capacity(rows * dim);
    for _ in 0..rows {
        let row: Vec<f32> = (0..dim)
            .map(|_| {
                // Box and Muller.
                let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
                radius * (std::f32::consts::TAU * random.unit()).cos()
            })
            .collect();
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        values.extend(row.iter().map(|x| x / norm));
    }
    values
}

/// Draws in constant time from given weights (Walker; Vose 1991).
struct Alias {
    keep: Vec<f32>,
    other: Vec<usize>,
}

impl Alias {
    #[expect(clippy::cast_precision_loss, reason = "counts of a demo")]
    fn new(weights: &[f32]) -> Self {
        let scale = weights.len() as f32 / weights.iter().sum::<f32>();
        let mut keep: Vec<f32> = weights.iter().map(|weight| weight * scale).collect();
        let mut other: Vec<usize> = (0..weights.len()).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&i| keep[i] < 1.0);
        while let (Some(poor), Some(rich)) = (small.pop(), large.pop()) {
            other[poor] = rich;
            keep[rich] -= 1.0 - keep[poor];
            if keep[rich] < 1.0 { small.push(rich) } else { large.push(rich) }
        }
        // What rounding left over keeps itself.
        for i in small.into_iter().chain(large) {
            keep[i] = 1.0;
        }
        Self { keep, other }
    }

    fn draw(&self, random: &mut SplitMix) -> usize {
        let i = below(random, self.keep.len());
        if random.unit() < self.keep[i] { i } else { self.other[i] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> WorldSettings {
        WorldSettings {
            queries: 5,
            items: 40,
            dim: 4,
            taste: 3.0,
            skew: 1.0,
            drift: 0.0,
            period: 1_000_000,
            seed: 7,
        }
    }

    #[test]
    fn draws_follow_the_truth() {
        let mut world = World::new(settings());
        let mut counts = vec![0.0f64; 40];
        let mut total = 0.0;
        while total < 40_000.0 {
            let drawn = world.draw();
            if drawn.query == 2 {
                counts[drawn.item] += 1.0;
                total += 1.0;
            }
        }
        let scores = world.scores(2);
        let norm: f64 = scores.iter().map(|score| score.exp()).sum();
        for (item, score) in scores.iter().enumerate() {
            let expected = total * score.exp() / norm;
            let deviation = (counts[item] - expected).abs();
            assert!(deviation < 5.0 * expected.sqrt() + 5.0, "item {item}: {deviation}");
        }
    }

    #[test]
    fn popularity_drifts() {
        let mut world = World::new(WorldSettings { drift: 2.0, period: 6400, ..settings() });
        world.draw();
        let before = world.scores(0);
        for _ in 0..1600 {
            world.draw();
        }
        let after = world.scores(0);
        let moved = before.iter().zip(&after).filter(|(a, b)| (*a - *b).abs() > 0.5).count();
        assert!(moved > 20, "{moved} of 40 items moved in a quarter of a period");
    }

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let (mut a, mut b) = (World::new(settings()), World::new(settings()));
        assert!((0..1000).all(|_| a.draw() == b.draw()));
    }
}
