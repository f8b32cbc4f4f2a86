//! The paper's simulation (section 6.1): a known law, switched half-way, and the error of an
//! estimator that follows it.

use std::ops::RangeInclusive;

use millrace_events::SplitMix;
use millrace_train::frequency::{Frequency, FrequencySettings, Meaning};
use rayon::prelude::*;

use super::Work;
use super::sample::Sample;

const ITEMS: u32 = 1000;
pub(super) const BATCH: usize = 128;
/// Last step under the first law.
pub(super) const SWITCH: u64 = 10_000;
pub(super) const STEPS: u64 = 20_000;
/// Steps between readings: an estimate hardly moves in ten steps, and to read 1,000 items costs
/// more than to update 128.
const READ_EVERY: u64 = 10;
/// Steps between points of a curve: two to a pixel.
const DRAW_EVERY: u64 = 50;

/// The probability of each item in a single draw.
struct Law(Vec<f64>);

impl Law {
    /// `q ∝ i²`.
    fn first() -> Self {
        let squares = || (0..ITEMS).map(|i| f64::from(i).powi(2));
        let total: f64 = squares().sum();
        Self(squares().map(|square| square / total).collect())
    }

    /// `q ∝ (M - 1 - i)²`.
    fn second() -> Self {
        let Self(mut q) = Self::first();
        q.reverse();
        Self(q)
    }

    /// A batch without replacement: the smallest of `exponential / q` (Efraimidis and Spirakis
    /// 2006).
    fn batch(&self, random: &mut SplitMix) -> Vec<u64> {
        let arrivals = self.0.iter().map(|q| -uniform(random).ln() / q);
        let mut arrivals: Vec<(f64, u64)> = arrivals.zip(0..).collect();
        arrivals.select_nth_unstable_by(BATCH, |a, b| a.0.total_cmp(&b.0));
        arrivals[..BATCH].iter().map(|arrival| arrival.1).collect()
    }

    /// Half of the summed `|p̂ - B q|`, by batch size: the total variation between q̂ and q.
    fn error(&self, estimate: impl Fn(u64) -> f64) -> f64 {
        let errors = self.0.iter().zip(0..).map(|(q, id)| (estimate(id) - BATCH as f64 * q).abs());
        errors.sum::<f64>() / (2.0 * BATCH as f64)
    }
}

/// Uniform in (0, 1).
pub(super) fn uniform(random: &mut SplitMix) -> f64 {
    ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Error of an estimator that knows how often each item really comes: without replacement that is
/// not `B q`. An item is in the batch if its exponential arrives before a time t, and t is so
/// nearly fixed (Rosén 1997, order sampling) that `P(in) = 1 - exp(-t q)`, with the t that fills a
/// batch: .0234, where integrating over t gives .0233. Counted in a finite stream it comes out
/// higher, by the count's noise.
pub(super) fn ideal_error() -> f64 {
    let law = Law::first();
    let inclusion = |t: f64, q: f64| -(-t * q).exp_m1();
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..100 {
        let t = (low + high) / 2.0;
        let filled: f64 = law.0.iter().map(|&q| inclusion(t, q)).sum();
        if filled < BATCH as f64 { low = t } else { high = t }
    }
    law.error(|id| inclusion(low, law.0[id as usize]))
}

/// Error after some of the steps: see [`Curve::follow`].
pub(super) struct Curve(Vec<(u64, f64)>);

impl Curve {
    /// Runs one estimator over a stream; reads it at step 1, every tenth step, and after the switch
    /// every step until half of the error is gone.
    fn follow(settings: FrequencySettings, stream: &[Vec<u64>]) -> Self {
        let mut frequency = Frequency::new(settings);
        let (first, second) = (Law::first(), Law::second());
        let mut points = Vec::new();
        let mut goal = None;
        for (batch, step) in stream.iter().zip(1..) {
            frequency.update(step, batch);
            let halving = step > SWITCH && goal != Some(f64::INFINITY);
            if step == 1 || step % READ_EVERY == 0 || halving {
                let law = if step > SWITCH { &second } else { &first };
                let read = |id| f64::from(frequency.estimate(id, Meaning::Probability));
                let error = law.error(read);
                points.push((step, error));
                if halving && error <= *goal.get_or_insert(error / 2.0) {
                    goal = Some(f64::INFINITY);
                }
            }
        }
        Self(points)
    }

    pub(super) fn at(&self, step: u64) -> f64 {
        let at = self.0.binary_search_by_key(&step, |point| point.0);
        self.0[at.expect("only steps that every curve has are asked for")].1
    }

    pub(super) fn mean(&self, steps: RangeInclusive<u64>) -> f64 {
        let points = self.0.iter().filter(|(step, _)| step % READ_EVERY == 0);
        Sample::new(points.filter(|(step, _)| steps.contains(step)).map(|point| point.1)).mean
    }

    /// Steps after the switch until half of the error of the first of them is gone; all of them if
    /// it never is.
    pub(super) fn half_recovery(&self) -> u64 {
        let goal = self.at(SWITCH + 1) / 2.0;
        let reached = self.0.iter().find(|&&(step, error)| step > SWITCH && error <= goal);
        reached.map_or(STEPS, |point| point.0) - SWITCH
    }

    /// The steps worth a point in a figure.
    pub(super) fn drawn(&self) -> impl Iterator<Item = u64> {
        let steps = self.0.iter().map(|point| point.0);
        steps.filter(|&step| step == 1 || step % DRAW_EVERY == 0 || step == SWITCH + 1)
    }
}

/// The curves of some estimators, each over the same streams.
pub(super) struct Curves {
    settings: Vec<FrequencySettings>,
    /// Seeds, settings.
    curves: Vec<Vec<Curve>>,
}

impl Curves {
    /// Seeds 1 to `seeds` seed both the stream and the hashes.
    pub(super) fn new(settings: Vec<FrequencySettings>, steps: u64, seeds: u64) -> Self {
        let work = Work::new("simulation", seeds * settings.len() as u64);
        let (first, second) = (Law::first(), Law::second());
        let of_seed = |seed| {
            let mut random = SplitMix::new(seed);
            let law = |step| if step > SWITCH { &second } else { &first };
            let stream: Vec<_> = (1..=steps).map(|step| law(step).batch(&mut random)).collect();
            let follow = |settings: &FrequencySettings| {
                let curve = Curve::follow(FrequencySettings { seed, ..settings.clone() }, &stream);
                work.done();
                curve
            };
            settings.iter().map(follow).collect()
        };
        let curves = (1..=seeds).into_par_iter().map(of_seed).collect();
        work.finish();
        Self { settings, curves }
    }

    /// One a seed.
    pub(super) fn of(&self, settings: &FrequencySettings) -> impl Iterator<Item = &Curve> + Clone {
        let at = self.settings.iter().position(|known| known == settings);
        let at = at.expect("what is read was simulated");
        self.curves.iter().map(move |curves| &curves[at])
    }

    pub(super) fn sample(
        &self,
        settings: &FrequencySettings,
        figure: impl Fn(&Curve) -> f64,
    ) -> Sample {
        Sample::new(self.of(settings).map(figure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ideal_knows_the_inclusion_probabilities() {
        assert!((ideal_error() - 0.0233).abs() < 2e-4, "{}", ideal_error());
        let (law, mut random) = (Law::first(), SplitMix::new(1));
        let has_top = |_: &u32| law.batch(&mut random).contains(&999);
        let share = (0..20_000).filter(has_top).count() as f64 / 20_000.0;
        assert!((share - 0.353).abs() < 0.01, "{share}");
    }

    #[test]
    fn a_batch_has_no_item_twice() {
        let mut batch = Law::first().batch(&mut SplitMix::new(1));
        batch.sort_unstable();
        batch.dedup();
        assert_eq!(batch.len(), BATCH);
    }

    #[test]
    fn half_recovery_by_hand() {
        let mut points = vec![(SWITCH, 0.1), (SWITCH + 1, 0.8), (SWITCH + 2, 0.5)];
        assert_eq!(Curve(points.clone()).half_recovery(), STEPS - SWITCH);
        points.extend([(SWITCH + 3, 0.4), (SWITCH + 10, 0.2)]);
        let curve = Curve(points);
        assert_eq!(curve.half_recovery(), 3);
        assert_eq!(curve.mean(SWITCH..=SWITCH + 9), 0.1);
        assert_eq!(curve.mean(SWITCH + 1..=STEPS), 0.2);
    }
}
