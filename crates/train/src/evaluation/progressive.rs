//! Every event against recent items, before it is trained on: what a service that retrains all the
//! time would have shown.

use std::collections::{BTreeMap, HashMap};

use super::held_out::Seen;
use super::metrics::{Band, Case, KS, Quality, Sums};
use super::popularity::bias;
use super::ranking::{Candidates, rank, rank_by_count_but};
use super::window::Window;
use crate::memory::corpus::Item;
use crate::state::State;
use millrace_events::Batch;

/// Cases after which a weight's gains count half: enough to tell weights apart, few enough to
/// follow a change within hours on a topic of a million events a week.
const CASES_A_HALF_LIFE: f64 = 50_000.0;
/// Milliseconds a day.
const DAY_MS: i64 = 86_400_000;
/// Which of [`KS`] a weight is chosen by: gains at 100 count the first places most and all a
/// retrieval list has.
const CHOSEN_BY: usize = 2;

/// What is compared, and among what.
#[derive(Clone, Debug)]
pub struct ProgressiveSettings {
    /// Candidates are the items of the last events, this far back, ms.
    pub candidates_ms: i64,
    /// The baseline ranks by events of the last so many ms.
    pub popularity_ms: i64,
    /// Weights λ of log q to be compared.
    pub weights: Vec<f32>,
    /// Leaves out events whose query has had the item before.
    pub new_only: bool,
    /// What a query has had is no candidate of its (the target excepted), neither for the model nor
    /// for the baseline.
    pub exclude_seen: bool,
    /// An item first seen fewer events ago is cold.
    pub cold_events: u64,
}

impl Default for ProgressiveSettings {
    fn default() -> Self {
        Self {
            candidates_ms: DAY_MS,
            popularity_ms: 3_600_000,
            weights: vec![0.0, 0.5, 1.0, 2.0, 4.0, 8.0],
            new_only: false,
            exclude_seen: false,
            cold_events: 10_000,
        }
    }
}

/// A way of ranking with its results.
#[derive(Clone, Debug, Default)]
pub struct Ranking {
    /// Over all events.
    pub total: Quality,
    /// By day since the first event, from 0.
    pub days: BTreeMap<i64, Sums>,
}

/// What has been ranked so far, and which items are recent, popular, new and seen.
#[derive(Clone)]
pub struct Progressive {
    settings: ProgressiveSettings,
    /// Results of each of the weights.
    pub weights: Vec<Ranking>,
    /// Results of the weight that had been best so far, event by event.
    pub chosen: Ranking,
    /// Results of the baseline.
    pub popularity: Ranking,
    /// Gains of each weight, fading.
    gains: Vec<f64>,
    recent: Window,
    popular: Window,
    first_seen: HashMap<u64, u64>,
    seen: Seen,
    events: u64,
    began_ms: Option<i64>,
    candidates: (u64, u64),
}

impl Ranking {
    fn add(&mut self, day: i64, case: Case, rank: Option<u32>) {
        self.total.add(case, rank);
        self.days.entry(day).or_default().add(rank, case.reward);
    }
}

impl Progressive {
    /// Nothing scored yet.
    pub fn new(settings: ProgressiveSettings) -> Self {
        let weights = settings.weights.len();
        Self {
            weights: vec![Ranking::default(); weights],
            chosen: Ranking::default(),
            popularity: Ranking::default(),
            gains: vec![0.0; weights],
            recent: Window::new(settings.candidates_ms),
            popular: Window::new(settings.popularity_ms),
            first_seen: HashMap::new(),
            seen: Seen::default(),
            events: 0,
            began_ms: None,
            candidates: (0, 0),
            settings,
        }
    }

    /// What is compared.
    pub fn settings(&self) -> &ProgressiveSettings {
        &self.settings
    }

    /// Mean number of candidates; NaN before the first event.
    pub fn mean_candidates(&self) -> f64 {
        self.candidates.0 as f64 / self.candidates.1 as f64
    }

    /// The weight that has been best so far.
    pub fn best_weight(&self) -> f32 {
        self.settings.weights[self.best()]
    }

    fn best(&self) -> usize {
        let mut best = 0;
        for (weight, gain) in self.gains.iter().enumerate() {
            if *gain > self.gains[best] {
                best = weight;
            }
        }
        best
    }

    /// Scores a batch's events, weighted by their rewards, with `state` as it is before it trains
    /// on them, then takes them in. Candidates and scores are those of the batch's beginning; the
    /// baseline knows every event before the one it ranks.
    pub fn add(&mut self, state: &State, batch: &Batch) {
        let Some(&now) = batch.events.times_ms.first() else { return };
        let began = *self.began_ms.get_or_insert(now);
        self.recent.advance(now, |_| {});
        let items = self.items(state);
        let index: HashMap<u64, usize> =
            items.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
        let ids: Vec<u64> = items.iter().map(|(id, _)| *id).collect();
        let counts: Vec<u64> = ids.iter().map(|id| self.recent.count(*id)).collect();
        let bands = Band::of_counts(&counts);
        let targets: Vec<Option<usize>> =
            batch.events.item_ids.iter().map(|id| index.get(id).copied()).collect();
        let excluded = match self.settings.exclude_seen {
            true => self.seen.before(batch, &index, &targets),
            false => vec![Vec::new(); batch.len()],
        };
        let model_ranks = self.model_ranks(state, batch, &items, &ids, (&targets, &excluded));
        let popularity_ranks = self.popularity_ranks(batch, &index, (&targets, &excluded));
        let best = self.best();
        for event in 0..batch.len() {
            let (query, item) = (batch.events.query_ids[event], batch.events.item_ids[event]);
            let first = *self.first_seen.entry(item).or_insert(self.events);
            self.events += 1;
            if self.settings.new_only && self.seen.has(query, item) {
                continue;
            }
            let case = Case {
                query,
                time_ms: batch.events.times_ms[event],
                band: targets[event].map_or(Band::Tail, |target| bands[target]),
                cold: self.events - 1 - first < self.settings.cold_events,
                // Only what came lately is a candidate.
                listed: false,
                reward: batch.events.rewards[event],
            };
            if case.reward <= 0.0 {
                continue;
            }
            let day = (batch.events.times_ms[event] - began).div_euclid(DAY_MS);
            self.popularity.add(day, case, popularity_ranks[event]);
            self.chosen.add(day, case, model_ranks[event].as_ref().map(|ranks| ranks[best]));
            self.candidates = (self.candidates.0 + ids.len() as u64, self.candidates.1 + 1);
            for (weight, ranking) in self.weights.iter_mut().enumerate() {
                let rank = model_ranks[event].as_ref().map(|ranks| ranks[weight]);
                ranking.add(day, case, rank);
                let gain = rank.filter(|&rank| rank <= KS[CHOSEN_BY]).map_or(0.0, gain);
                self.gains[weight] += f64::from(case.reward) * gain;
            }
        }
        let fade = (-(batch.len() as f64) / CASES_A_HALF_LIFE).exp2();
        self.gains.iter_mut().for_each(|gain| *gain *= fade);
        for (&time, &item) in batch.events.times_ms.iter().zip(&batch.events.item_ids) {
            self.recent.push(time, item);
        }
        self.remember(batch);
    }

    /// Takes in a batch's events without scoring them, for a run that goes on from a checkpoint:
    /// which items are recent, popular, new and seen is then as if it had scored them. The weight
    /// that has been best so far is not: it begins anew.
    pub fn pass_over(&mut self, batch: &Batch) {
        let events = &batch.events;
        let Some(&now) = events.times_ms.first() else { return };
        self.recent.advance(now, |_| {});
        for (&time, &item) in events.times_ms.iter().zip(&events.item_ids) {
            self.first_seen.entry(item).or_insert(self.events);
            self.events += 1;
            self.popular.advance(time, |_| {});
            self.popular.push(time, item);
            self.recent.push(time, item);
        }
        self.remember(batch);
    }

    /// Which items each query has had, where that is asked for.
    fn remember(&mut self, batch: &Batch) {
        if self.settings.new_only || self.settings.exclude_seen {
            self.seen.add(batch);
        }
    }

    /// The recent items, by key.
    fn items(&self, state: &State) -> Vec<(u64, Item)> {
        let mut ids: Vec<u64> = self.recent.items().collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| Some((id, state.corpus.get(id)?))).collect()
    }

    /// By event: its target's rank with each of the weights.
    fn model_ranks(
        &self,
        state: &State,
        batch: &Batch,
        items: &[(u64, Item)],
        ids: &[u64],
        (targets, excluded): (&[Option<usize>], &[Vec<usize>]),
    ) -> Vec<Option<Vec<u32>>> {
        let vectors = state.model.embed_items(items); // [candidates, dim]
        let candidates = Candidates::new(&vectors, state.model.towers.dim());
        let biases: Vec<Vec<f32>> =
            self.settings.weights.iter().map(|&weight| bias(state, ids, weight)).collect();
        let queries = state.embed_ahead(batch); // [events, dim]
        candidates.score(&queries, |event, dots| {
            let target = targets[event]?;
            let mut scores = Vec::with_capacity(dots.len());
            let of_weight = |bias: &Vec<f32>| {
                scores.clear();
                scores.extend_from_slice(dots);
                scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
                excluded[event].iter().for_each(|&place| scores[place] = f32::NEG_INFINITY);
                rank(&scores, target)
            };
            Some(biases.iter().map(of_weight).collect())
        })
    }

    /// By event: its target's rank by events of the last `popularity_ms` before it.
    fn popularity_ranks(
        &mut self,
        batch: &Batch,
        index: &HashMap<u64, usize>,
        (targets, excluded): (&[Option<usize>], &[Vec<usize>]),
    ) -> Vec<Option<u32>> {
        let mut counts = vec![0u32; index.len()];
        for (id, count) in self.popular.counts() {
            if let Some(&place) = index.get(&id) {
                counts[place] = u32::try_from(count).unwrap_or(u32::MAX);
            }
        }
        let events = batch.events.times_ms.iter().zip(&batch.events.item_ids);
        events
            .zip(targets.iter().zip(excluded))
            .map(|((&time, &item), (&target, excluded))| {
                self.popular.advance(time, |gone| {
                    if let Some(&place) = index.get(&gone) {
                        counts[place] -= 1;
                    }
                });
                let rank = target.map(|target| rank_by_count_but(&counts, target, excluded));
                self.popular.push(time, item);
                if let Some(target) = target {
                    counts[target] += 1;
                }
                rank
            })
            .collect()
    }
}

/// What a rank is worth (as in NDCG).
fn gain(rank: u32) -> f64 {
    (1.0 + f64::from(rank)).log2().recip()
}
