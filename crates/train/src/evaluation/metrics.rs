//! What ranks add up to.

use std::collections::HashMap;

use millrace_events::SplitMix;

/// Cut-offs of reports.
pub const KS: [u32; 4] = [10, 50, 100, 300];

/// Replicates of the bootstrap: the ends of a 95% interval lie at the 10th from either end.
const REPLICATES: usize = 400;
/// Hours of event time that a bootstrap needs.
const HOURS_MIN: usize = 24;
/// Milliseconds an hour.
const HOUR_MS: i64 = 3_600_000;

/// Recall at each of [`KS`].
type Recalls = [f64; KS.len()];
/// By query, or by hour.
type Tallies = HashMap<u64, Tally>;

/// Hits at each k over any number of cases, each weighted by its reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Recall {
    ks: Vec<u32>,
    hits: Vec<f64>,
    rewards: f64,
    cases: u64,
}

impl Recall {
    /// Nothing counted yet, for each cut-off in `ks`.
    pub fn new(ks: &[u32]) -> Self {
        Self { ks: ks.to_vec(), hits: vec![0.0; ks.len()], rewards: 0.0, cases: 0 }
    }

    /// Counts one case of this `reward`: the rank of its item (1 is best), or `None` where the item
    /// was not among the candidates, which is a miss at every k. Without a reward the item is
    /// nothing to find, and the case does not count.
    pub fn add(&mut self, rank: Option<u32>, reward: f32) {
        if reward <= 0.0 {
            return;
        }
        let reward = f64::from(reward);
        self.cases += 1;
        self.rewards += reward;
        for (hits, &k) in self.hits.iter_mut().zip(&self.ks) {
            *hits += if rank.is_some_and(|rank| rank <= k) { reward } else { 0.0 };
        }
    }

    /// Cases counted.
    pub fn cases(&self) -> u64 {
        self.cases
    }

    /// `(k, recall@k)` for every k; NaN without cases.
    pub fn values(&self) -> Vec<(u32, f64)> {
        let recall = |&hits: &f64| hits / self.rewards;
        self.ks.iter().copied().zip(self.hits.iter().map(recall)).collect()
    }

    /// recall@k; NaN without cases or where `k` is not counted.
    pub fn at(&self, k: u32) -> f64 {
        self.values().iter().find(|(own, _)| *own == k).map_or(f64::NAN, |(_, value)| *value)
    }
}

/// How popular a case's item is: by the events that its items took, each band holds a third of the
/// traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// The few items of the first third.
    Head,
    /// Those of the second.
    Torso,
    /// All others, unknown ones too.
    Tail,
}

impl Band {
    /// All, the most popular first.
    pub const ALL: [Self; 3] = [Self::Head, Self::Torso, Self::Tail];

    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Torso => "torso",
            Self::Tail => "tail",
        }
    }

    /// Band of each item from its events.
    pub fn of_counts(counts: &[u64]) -> Vec<Self> {
        let total: u64 = counts.iter().sum();
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&item| (std::cmp::Reverse(counts[item]), item));
        let mut bands = vec![Self::Tail; counts.len()];
        let mut before = 0;
        for item in order {
            bands[item] = match 3 * before {
                sum if sum < total => Self::Head,
                sum if sum < 2 * total => Self::Torso,
                _ => Self::Tail,
            };
            before += counts[item];
        }
        bands
    }
}

/// One case of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Key of the query: cases of one query are not independent, so intervals draw queries.
    pub query: u64,
    /// Event time, ms since 1970: nor are those of one hour, so intervals draw hours, too.
    pub time_ms: i64,
    /// Popularity of the target.
    pub band: Band,
    /// The target was first seen not long ago.
    pub cold: bool,
    /// No event of before had the target: it is known from a catalogue alone.
    pub listed: bool,
    /// What the event was worth: its weight in every measure. At 0 its item is nothing to find.
    pub reward: f32,
}

/// Sums over cases, each weighted by its reward.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    cases: u64,
    rewards: f64,
    hits: [f64; KS.len()],
    gains: [f64; KS.len()],
    reciprocal: f64,
}

impl Sums {
    pub(super) fn add(&mut self, rank: Option<u32>, reward: f32) {
        if reward <= 0.0 {
            return;
        }
        let reward = f64::from(reward);
        self.cases += 1;
        self.rewards += reward;
        let Some(rank) = rank else { return };
        let rank_f64 = f64::from(rank);
        self.reciprocal += reward * rank_f64.recip();
        for ((hits, gains), k) in self.hits.iter_mut().zip(&mut self.gains).zip(KS) {
            if rank <= k {
                *hits += reward;
                *gains += reward * (1.0 + rank_f64).log2().recip();
            }
        }
    }

    /// Cases counted: those with a reward.
    pub fn cases(&self) -> u64 {
        self.cases
    }

    /// Share of the rewards whose target is among the best k, for each of [`KS`]; NaN without
    /// cases.
    pub fn recall(&self) -> [f64; KS.len()] {
        self.hits.map(|hits| self.mean(hits))
    }

    /// Mean of `1 / log2(1 + rank)` where the rank is at most k, else 0: one relevant item a case,
    /// so the ideal gain is 1.
    pub fn ndcg(&self) -> [f64; KS.len()] {
        self.gains.map(|gains| self.mean(gains))
    }

    /// Mean of `1 / rank`, 0 where the target is no candidate.
    pub fn mrr(&self) -> f64 {
        self.mean(self.reciprocal)
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.rewards
    }
}

/// What one way of ranking achieved.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Over all cases.
    pub all: Sums,
    /// By [`Band`].
    pub bands: [Sums; 3],
    /// Over cold targets.
    pub cold: Sums,
    /// Over targets that only a catalogue knew.
    pub listed: Sums,
    by_query: Tallies,
    by_hour: Tallies,
}

/// Rewards of a query or an hour and those that were hit, by band.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    rewards: [f64; 3],
    hits: [[f64; KS.len()]; 3],
}

/// A measure and the ends of its 95% interval: percentiles of a bootstrap over queries, or over
/// hours of event time where that is wider. One over few hours says nothing and is not looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The measure itself.
    pub value: f64,
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

impl Quality {
    /// Counts a case; `None`: the target was no candidate. A case without a reward does not count.
    pub fn add(&mut self, case: Case, rank: Option<u32>) {
        let Case { query, time_ms, band, cold, listed, reward } = case;
        if reward <= 0.0 {
            return;
        }
        let band = band as usize;
        self.all.add(rank, reward);
        self.bands[band].add(rank, reward);
        if cold {
            self.cold.add(rank, reward);
        }
        if listed {
            self.listed.add(rank, reward);
        }
        let hour = time_ms.div_euclid(HOUR_MS).cast_unsigned();
        self.by_query.entry(query).or_default().add(band, rank, reward);
        self.by_hour.entry(hour).or_default().add(band, rank, reward);
    }

    /// Recall at each of [`KS`] in `bands`, with intervals.
    pub fn recall(&self, bands: &[Band]) -> [Interval; KS.len()] {
        let drawn = |by: fn(&Self) -> &Tallies| replicates(by(self), bands);
        widest(self.value(bands), self.has_hours(), drawn)
    }

    /// By how much recall is above `other`'s. The same queries and hours are drawn for both, so
    /// what makes one hard for both cancels.
    pub fn recall_above(&self, other: &Self, bands: &[Band]) -> [Interval; KS.len()] {
        let minus = |a: Recalls, b: Recalls| std::array::from_fn(|k| a[k] - b[k]);
        let drawn = |by: fn(&Self) -> &Tallies| {
            let pairs = replicates(by(self), bands).into_iter().zip(replicates(by(other), bands));
            pairs.map(|(own, others)| minus(own, others)).collect()
        };
        let value = minus(self.value(bands), other.value(bands));
        widest(value, self.has_hours() && other.has_hours(), drawn)
    }

    fn has_hours(&self) -> bool {
        self.by_hour.len() >= HOURS_MIN
    }

    fn value(&self, bands: &[Band]) -> Recalls {
        let sum = |of: &dyn Fn(&Sums) -> f64| {
            bands.iter().map(|&band| of(&self.bands[band as usize])).sum::<f64>()
        };
        let rewards = sum(&|sums| sums.rewards);
        std::array::from_fn(|k| sum(&|sums| sums.hits[k]) / rewards)
    }
}

impl Tally {
    fn add(&mut self, band: usize, rank: Option<u32>, reward: f32) {
        let reward = f64::from(reward);
        self.rewards[band] += reward;
        for (hits, k) in self.hits[band].iter_mut().zip(KS) {
            *hits += if rank.is_some_and(|rank| rank <= k) { reward } else { 0.0 };
        }
    }
}

/// Recall of each replicate. The weight of a query or an hour in a replicate (Poisson of mean 1,
/// which a draw with replacement from many comes to) depends on its key alone.
fn replicates(tallies: &Tallies, bands: &[Band]) -> Vec<Recalls> {
    let mut sums = vec![[0.0f64; 1 + KS.len()]; REPLICATES];
    for (&key, tally) in tallies {
        let mut own = [0.0f64; 1 + KS.len()];
        for &band in bands {
            own[0] += tally.rewards[band as usize];
            for (own, hits) in own[1..].iter_mut().zip(tally.hits[band as usize]) {
                *own += hits;
            }
        }
        if own[0] == 0.0 {
            continue;
        }
        let mut random = SplitMix::new(key);
        for sums in &mut sums {
            let weight = poisson(random.unit()) as f64;
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += weight * own);
        }
    }
    let recall = |sums: [f64; 1 + KS.len()]| std::array::from_fn(|k| sums[1 + k] / sums[0]);
    sums.into_iter().map(recall).collect()
}

/// At each k the wider of two intervals: of `drawn` queries, and of hours if there are enough.
fn widest(
    values: Recalls,
    has_hours: bool,
    drawn: impl Fn(fn(&Quality) -> &Tallies) -> Vec<Recalls>,
) -> [Interval; KS.len()] {
    let by_query = intervals(values, &drawn(|quality| &quality.by_query));
    if !has_hours {
        return by_query;
    }
    let by_hour = intervals(values, &drawn(|quality| &quality.by_hour));
    let width = |interval: &Interval| interval.high - interval.low;
    std::array::from_fn(|k| {
        if width(&by_hour[k]) > width(&by_query[k]) { by_hour[k] } else { by_query[k] }
    })
}

/// A Poisson number of mean 1 from a uniform one in [0, 1).
fn poisson(uniform: f32) -> u64 {
    let (mut probability, mut below, mut number) = ((-1.0f32).exp(), (-1.0f32).exp(), 0);
    while uniform >= below && number < 10 {
        number += 1;
        probability /= number as f32;
        below += probability;
    }
    number
}

fn intervals(values: Recalls, replicates: &[Recalls]) -> [Interval; KS.len()] {
    std::array::from_fn(|k| {
        let mut sorted: Vec<f64> = replicates.iter().map(|replicate| replicate[k]).collect();
        sorted.sort_by(f64::total_cmp);
        let cut = sorted.len() / 40;
        Interval { value: values[k], low: sorted[cut], high: sorted[sorted.len() - 1 - cut] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_misses_and_unknown_items() {
        let mut recall = Recall::new(&[1, 10]);
        for rank in [Some(1), Some(7), Some(11), None] {
            recall.add(rank, 1.0);
        }
        assert_eq!(recall.values(), [(1, 0.25), (10, 0.5)]);
        assert_eq!(recall.at(10), 0.5);
        assert!(recall.at(3).is_nan());
    }

    fn case(query: u64, band: Band) -> Case {
        Case {
            query,
            time_ms: 0,
            band,
            cold: query.is_multiple_of(2),
            listed: query == 4,
            reward: 1.0,
        }
    }

    #[test]
    fn measures_by_hand() {
        let mut quality = Quality::default();
        quality.add(case(1, Band::Head), Some(1));
        quality.add(case(2, Band::Tail), Some(40));
        quality.add(case(3, Band::Tail), None);
        let third = 1.0 / 3.0;
        assert_eq!(quality.all.recall(), [third, 2.0 * third, 2.0 * third, 2.0 * third]);
        assert!((quality.all.mrr() - (1.0 + 1.0 / 40.0) / 3.0).abs() < 1e-12);
        let gain = 1.0 / 41f64.log2();
        assert!((quality.all.ndcg()[1] - (1.0 + gain) / 3.0).abs() < 1e-12);
        assert_eq!(quality.bands[Band::Tail as usize].recall()[1], 0.5);
        assert_eq!((quality.cold.cases(), quality.cold.recall()[1]), (1, 1.0));
        assert_eq!(quality.recall(&[Band::Head])[0].value, 1.0);
        assert_eq!(quality.recall(&Band::ALL)[1].value, 2.0 * third);
    }

    /// An event worth 3 counts as three of them; one that is worth nothing has nothing to find.
    #[test]
    fn cases_weigh_what_their_events_are_worth() {
        let (mut weighted, mut repeated) = (Quality::default(), Quality::default());
        for (query, rank, reward) in [(1, Some(4), 3.0), (2, None, 1.0), (3, Some(1), 0.0)] {
            let case = Case { reward, ..case(query, Band::Torso) };
            weighted.add(case, rank);
            let once = Case { reward: 1.0, ..case };
            (0..reward as u32).for_each(|_| repeated.add(once, rank));
        }
        assert_eq!((weighted.all.cases(), repeated.all.cases()), (2, 4));
        assert_eq!(weighted.all.recall(), [0.75; KS.len()]);
        assert_eq!(weighted.all.ndcg(), repeated.all.ndcg());
        assert_eq!(weighted.all.mrr(), repeated.all.mrr());
        let values = |quality: &Quality| quality.recall(&Band::ALL).map(|recall| recall.value);
        assert_eq!(values(&weighted), values(&repeated));
        let mut recall = Recall::new(&[10]);
        for (rank, reward) in [(Some(4), 3.0), (None, 1.0), (Some(1), 0.0)] {
            recall.add(rank, reward);
        }
        assert_eq!((recall.at(10), recall.cases()), (0.75, 2));
    }

    #[test]
    fn bands_hold_a_third_of_the_traffic_each() {
        // 12 events: the first item alone takes half.
        let bands = Band::of_counts(&[1, 6, 2, 1, 2]);
        assert_eq!(bands, [Band::Tail, Band::Head, Band::Torso, Band::Tail, Band::Tail]);
    }

    /// 400 queries of one case each: the interval of a share p is p ± 1.96 sqrt(p (1 - p) / 400).
    #[test]
    fn intervals_are_those_of_a_share() {
        let mut quality = Quality::default();
        let mut random = SplitMix::new(5);
        for _ in 0..400 {
            let query = random.next_u64();
            quality.add(case(query, Band::Tail), (random.unit() < 0.3).then_some(1));
        }
        let Interval { value, low, high } = quality.recall(&Band::ALL)[0];
        let half = 1.96 * (value * (1.0 - value) / 400.0).sqrt();
        assert!((high - value - half).abs() < 0.3 * half, "{low} {value} {high}");
        assert!((value - low - half).abs() < 0.3 * half, "{low} {value} {high}");
    }

    /// Each hour of a hundred is good or bad as a whole: a hundred cases, not ten thousand.
    #[test]
    fn intervals_know_of_hours_that_are_hard() {
        let mut quality = Quality::default();
        let mut random = SplitMix::new(8);
        for hour in 0..100i64 {
            let good = random.unit() < 0.5;
            for _ in 0..100 {
                let own = case(random.next_u64(), Band::Tail);
                let own = Case { time_ms: hour * HOUR_MS + 7, ..own };
                quality.add(own, good.then_some(1));
            }
        }
        let Interval { value, low, high } = quality.recall(&Band::ALL)[0];
        let half = 1.96 * (value * (1.0 - value) / 100.0).sqrt();
        assert!((high - low - 2.0 * half).abs() < 0.6 * half, "{low} {value} {high}");
    }

    /// A ranking that finds what the other finds and two queries more in every hundred: far within
    /// the noise of each, yet surely above.
    #[test]
    fn differences_are_paired() {
        let (mut worse, mut better) = (Quality::default(), Quality::default());
        for query in 0..2000 {
            let case = case(query, Band::Head);
            let hit = query % 2 == 0;
            worse.add(case, hit.then_some(3));
            better.add(case, (hit || query % 100 < 4).then_some(3));
        }
        let above = better.recall_above(&worse, &Band::ALL)[0];
        assert!((above.value - 0.02).abs() < 1e-12);
        assert!(above.low > 0.01 && above.high < 0.03, "{above:?}");
        assert!(worse.recall(&Band::ALL)[0].high > better.recall(&Band::ALL)[0].low);
    }

    #[test]
    fn poisson_has_mean_and_variance_1() {
        let mut random = SplitMix::new(2);
        let draws: Vec<f64> = (0..20_000).map(|_| poisson(random.unit()) as f64).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 1.0).abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
