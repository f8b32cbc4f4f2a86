//! What comes of counting alone: the items that followed the query's last item, lately.
//!
//! A baseline that is hard to beat where sessions are short. Candidates and cases are those of
//! [`Progressive`](millrace_train::evaluation::progressive): the items of the 24 hours before the
//! batch, and events whose query has not had the item. Like the baseline there it knows every event
//! before the one it ranks.

use std::collections::{HashMap, HashSet};

use millrace_events::Batch;
use millrace_train::evaluation::metrics::{Band, Case, Quality};
use millrace_train::evaluation::window::Window;

use crate::events::Log;

const HOUR_MS: i64 = 3_600_000;
const CANDIDATES_MS: i64 = 24 * HOUR_MS;
const POPULARITY_MS: i64 = HOUR_MS;

/// What followed an item: by item a weight, and when it was worth that.
type Followers = HashMap<u64, (f64, i64)>;

/// Everything that is counted.
struct CoClicks {
    half_life_ms: f64,
    recent: Window,
    popular: Window,
    followers: HashMap<u64, Followers>,
    last: HashMap<u64, u64>,
    seen: HashSet<(u64, u64)>,
}

/// Ranks every event of `log` by the events that followed the query's last item, which count half
/// after `half_life_h` hours; the last hour's events break ties, and rank what followed nothing.
pub(super) fn measure(log: &Log, half_life_h: f64) -> Quality {
    let mut counts = CoClicks {
        half_life_ms: half_life_h * HOUR_MS as f64,
        recent: Window::new(CANDIDATES_MS),
        popular: Window::new(POPULARITY_MS),
        followers: HashMap::new(),
        last: HashMap::new(),
        seen: HashSet::new(),
    };
    let mut quality = Quality::default();
    for batch in log.batches() {
        counts.add(&batch, &mut quality);
    }
    quality
}

impl CoClicks {
    fn add(&mut self, batch: &Batch, quality: &mut Quality) {
        let events = &batch.events;
        self.recent.advance(events.times_ms[0], |_| {});
        let mut candidates: Vec<u64> = self.recent.items().collect();
        candidates.sort_unstable();
        let places: HashMap<u64, usize> =
            candidates.iter().enumerate().map(|(place, &item)| (item, place)).collect();
        let mut hour: Vec<u64> = candidates.iter().map(|&item| self.popular.count(item)).collect();
        for event in 0..batch.len() {
            let (query, item) = (events.query_ids[event], events.item_ids[event]);
            let now = events.times_ms[event];
            self.popular.advance(now, |gone| {
                if let Some(&place) = places.get(&gone) {
                    hour[place] -= 1;
                }
            });
            let target = places.get(&item).copied();
            if self.seen.insert((query, item)) {
                let rank = target.map(|target| self.rank(query, now, target, &places, &hour));
                let case = Case {
                    query,
                    time_ms: now,
                    band: Band::Tail,
                    cold: false,
                    listed: false,
                    reward: events.rewards[event],
                };
                quality.add(case, rank);
            }
            self.popular.push(now, item);
            if let Some(target) = target {
                hour[target] += 1;
            }
            self.follow(query, item, now);
        }
        let times = events.times_ms.iter().zip(&events.item_ids);
        times.for_each(|(&time, &item)| self.recent.push(time, item));
    }

    fn weight(&self, (weight, at): (f64, i64), now: i64) -> f64 {
        weight * (-((now - at) as f64) / self.half_life_ms).exp2()
    }

    fn follow(&mut self, query: u64, item: u64, now: i64) {
        let Some(before) = self.last.insert(query, item) else { return };
        let old = self.followers.get(&before).and_then(|followers| followers.get(&item));
        let weight = old.map_or(0.0, |&old| self.weight(old, now)) + 1.0;
        self.followers.entry(before).or_default().insert(item, (weight, now));
    }

    /// Rank of the candidate `target`, equal ones before it: first what followed the query's last
    /// item, by weight and then by the hour's events, then the others by those alone.
    fn rank(
        &self,
        query: u64,
        now: i64,
        target: usize,
        places: &HashMap<u64, usize>,
        hour: &[u64],
    ) -> u32 {
        let followers = self.last.get(&query).and_then(|last| self.followers.get(last));
        let followers: Vec<(usize, f64)> = followers
            .into_iter()
            .flatten()
            .filter_map(|(item, &old)| Some((*places.get(item)?, self.weight(old, now))))
            .collect();
        let score = |&(place, weight): &(usize, f64)| (weight, hour[place]);
        let before = match followers.iter().find(|(place, _)| *place == target) {
            Some(own) => followers.iter().filter(|other| score(other) >= score(own)).count(),
            None => {
                let own = hour[target];
                let all = hour.iter().filter(|&&count| count >= own).count();
                all + followers.iter().filter(|&&(place, _)| hour[place] < own).count()
            }
        };
        u32::try_from(before).expect("fewer than 2^32 items")
    }
}
