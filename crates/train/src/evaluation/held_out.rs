//! Held-out events against the whole corpus, by exact search, after training.

use std::collections::{HashMap, HashSet};

use super::metrics::{Band, Case, Quality};
use super::popularity::bias;
use super::ranking::{Candidates, rank, static_ranks, top};
use crate::state::State;
use millrace_events::Batch;

/// An item that training saw in fewer events than this is cold.
const COLD_EVENTS: u64 = 10;
/// Length of the lists that [`Shown`] is about.
const LIST: usize = 10;

/// An evaluation of one trained state.
pub struct HeldOut {
    candidates: Candidates,
    index: HashMap<u64, usize>,
    /// `[items]`, added to every dot product; empty: nothing.
    bias: Vec<f32>,
    /// `[items]`, events that the item was trained on in.
    counts: Vec<u64>,
    bands: Vec<Band>,
    by_popularity: Vec<u32>,
    /// What the model achieved.
    pub model: Quality,
    /// What a ranking by events in training achieves.
    pub popularity: Quality,
    /// Cases whose item training never saw: a miss for both.
    pub unknown_items: u64,
    /// What the model's best ten consist of.
    pub shown: Shown,
}

/// What the lists of the best ten items consist of.
#[derive(Debug, Default)]
pub struct Shown {
    items: HashSet<usize>,
    entries: u64,
    events: f64,
    cases: u64,
    target_events: f64,
}

impl Shown {
    fn add(&mut self, list: &[usize], target: Option<usize>, counts: &[u64]) {
        self.items.extend(list);
        self.entries += list.len() as u64;
        self.events += list.iter().map(|&item| counts[item] as f64).sum::<f64>();
        self.cases += 1;
        self.target_events += target.map_or(0.0, |target| counts[target] as f64);
    }

    /// Share of `candidates` that stand in any list.
    pub fn coverage(&self, candidates: usize) -> f64 {
        self.items.len() as f64 / candidates as f64
    }

    /// Mean popularity (events in training) of what is shown over that of what was chosen: above 1
    /// the lists are more popular than the traffic.
    pub fn popularity_bias(&self) -> f64 {
        let shown = self.events / self.entries as f64;
        shown / (self.target_events / self.cases as f64)
    }
}

/// Which items a query has had.
#[derive(Clone, Debug, Default)]
pub struct Seen(HashMap<u64, HashSet<u64>>);

impl Seen {
    /// Takes in a batch's events.
    pub fn add(&mut self, batch: &Batch) {
        for (&query, &item) in batch.events.query_ids.iter().zip(&batch.events.item_ids) {
            self.insert(query, item);
        }
    }

    fn insert(&mut self, query: u64, item: u64) {
        self.0.entry(query).or_default().insert(item);
    }

    /// Whether `query` has had `item`.
    pub fn has(&self, query: u64, item: u64) -> bool {
        self.0.get(&query).is_some_and(|items| items.contains(&item))
    }

    /// By event of `batch`: what its query has had, as places in `index`, without its target.
    pub(super) fn before(
        &self,
        batch: &Batch,
        index: &HashMap<u64, usize>,
        targets: &[Option<usize>],
    ) -> Vec<Vec<usize>> {
        let events = batch.events.query_ids.iter().zip(targets);
        events.map(|(&query, &target)| self.places(query, index, target)).collect()
    }

    /// What `query` has had, as places in `index`, without `target`.
    fn places(&self, query: u64, index: &HashMap<u64, usize>, target: Option<usize>) -> Vec<usize> {
        let items = self.0.get(&query).into_iter().flatten();
        let places = items.filter_map(|id| index.get(id).copied());
        places.filter(|&place| Some(place) != target).collect()
    }
}

impl HeldOut {
    /// Of `state` as it is, every item of its corpus being a candidate. `popularity` is λ: log q
    /// is taken from the estimator as it is now.
    pub fn new(state: &State, popularity: f32) -> Self {
        let items = state.corpus.sorted();
        let vectors = state.model.embed_items(&items); // [items, dim]
        let counts: Vec<u64> = items.iter().map(|(_, item)| item.count).collect();
        let ids: Vec<u64> = items.iter().map(|(id, _)| *id).collect();
        Self {
            candidates: Candidates::new(&vectors, state.model.towers.dim()),
            index: ids.iter().enumerate().map(|(place, id)| (*id, place)).collect(),
            bias: bias(state, &ids, popularity),
            bands: Band::of_counts(&counts),
            by_popularity: static_ranks(&counts),
            counts,
            model: Quality::default(),
            popularity: Quality::default(),
            unknown_items: 0,
            shown: Shown::default(),
        }
    }

    /// Items ranked.
    pub fn candidates(&self) -> usize {
        self.candidates.len()
    }

    /// Ranks the item of each event that has a reward, which is its weight. `queries` are the
    /// events' vectors, `[events, dim]`; with `seen` what a query has had is no candidate (its
    /// target excepted).
    pub fn add(&mut self, batch: &Batch, queries: &[f32], seen: Option<&Seen>) {
        let targets = self.targets(batch);
        let excluded = match seen {
            Some(seen) => seen.before(batch, &self.index, &targets),
            None => vec![Vec::new(); batch.len()],
        };
        self.rank_each(batch, queries, &targets, &excluded);
    }

    /// [`add`](Self::add) as a service meets the events, which come in their order: what a query
    /// had before each of them is no candidate. `seen` takes them in.
    pub fn add_in_order(&mut self, batch: &Batch, queries: &[f32], seen: &mut Seen) {
        let targets = self.targets(batch);
        let events = batch.events.query_ids.iter().zip(&batch.events.item_ids).zip(&targets);
        let excluded: Vec<Vec<usize>> = events
            .map(|((&query, &item), &target)| {
                let places = seen.places(query, &self.index, target);
                seen.insert(query, item);
                places
            })
            .collect();
        self.rank_each(batch, queries, &targets, &excluded);
    }

    fn targets(&self, batch: &Batch) -> Vec<Option<usize>> {
        batch.events.item_ids.iter().map(|id| self.index.get(id).copied()).collect()
    }

    fn rank_each(
        &mut self,
        batch: &Batch,
        queries: &[f32],
        targets: &[Option<usize>],
        excluded: &[Vec<usize>],
    ) {
        let found = self.candidates.score(queries, |event, dots| {
            let mut scores = dots.to_vec();
            scores.iter_mut().zip(&self.bias).for_each(|(score, bias)| *score += bias);
            let excluded = &excluded[event];
            excluded.iter().for_each(|&place| scores[place] = f32::NEG_INFINITY);
            let ranks = targets[event].map(|target| {
                let own = self.by_popularity[target];
                let better = |&&place: &&usize| self.by_popularity[place] < own;
                let before = excluded.iter().filter(better).count();
                let before = u32::try_from(before).expect("fewer than 2^32 items");
                (rank(&scores, target), own - before)
            });
            (ranks, top(&scores, LIST))
        });
        for (event, (ranks, list)) in found.into_iter().enumerate() {
            let target = targets[event];
            let case = Case {
                query: batch.events.query_ids[event],
                time_ms: batch.events.times_ms[event],
                band: target.map_or(Band::Tail, |target| self.bands[target]),
                cold: target.is_none_or(|target| self.counts[target] < COLD_EVENTS),
                listed: target.is_some_and(|target| self.counts[target] == 0),
                reward: batch.events.rewards[event],
            };
            if case.reward <= 0.0 {
                continue;
            }
            self.model.add(case, ranks.map(|(model, _)| model));
            self.popularity.add(case, ranks.map(|(_, popularity)| popularity));
            self.unknown_items += u64::from(target.is_none());
            self.shown.add(&list, target, &self.counts);
        }
    }
}
