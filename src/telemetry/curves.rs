//! How series went lately: an hour and a day of them, in memory.
//!
//! The room that measures says which curves there are. A sample reads them from the registry, as a
//! scrape does; its time is the wall clock's, since nothing but a picture is made of it.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;

use super::Registry;

/// Between two points of the hour: 720 of them, which is what a screen shows.
pub(crate) const EVERY: Duration = Duration::from_secs(5);
/// Points of the hour.
const HOUR: usize = 720;
/// Samples of the hour for one of the day.
const DAY_EVERY: usize = 12;
/// Points of the day, one a minute.
const DAY: usize = 1440;

/// One curve of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Curve {
    /// Its name in the JSON.
    pub key: &'static str,
    /// The picture it belongs to.
    pub chart: &'static str,
    /// Its name there.
    pub label: &'static str,
    /// `s`, `/s` or nothing.
    pub unit: &'static str,
    /// The name of a figure at the top of the page; empty: there is none.
    pub tile: &'static str,
    /// What it shows.
    pub of: Reading,
}

/// A family of series, and the label that chooses among them; an empty label: all of them.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Without the prefix.
    pub name: &'static str,
    /// Label and value.
    pub label: (&'static str, &'static str),
}

impl Family {
    /// The series of `name` whose `label` has this `value`.
    pub const fn of(name: &'static str, label: &'static str, value: &'static str) -> Family {
        Family { name, label: (label, value) }
    }

    /// All series of `name`.
    pub const fn all(name: &'static str) -> Family {
        Family::of(name, "", "")
    }
}

/// What is read of a family.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// The sum of gauges.
    Gauge(Family),
    /// The largest of gauges.
    Most(Family),
    /// The least of gauges.
    Least(Family),
    /// What counters gained, a second.
    Rate(Family),
    /// The quantile of what histograms observed since the point before, by linear interpolation.
    Quantile(f64, Family),
}

impl Reading {
    fn family(self) -> Family {
        match self {
            Self::Gauge(family) | Self::Most(family) | Self::Least(family) => family,
            Self::Rate(family) | Self::Quantile(_, family) => family,
        }
    }
}

/// The curves' points. Bounded: some 60 KB for ten curves.
pub(crate) struct Curves {
    curves: &'static [Curve],
    hour: Span,
    day: Span,
    samples: usize,
}

struct Span {
    most: usize,
    /// ms since 1970.
    times_ms: VecDeque<u64>,
    points: Vec<VecDeque<f32>>,
    /// Counters and buckets at the last point.
    before: Option<(u64, Vec<Sum>)>,
}

/// What a curve's families held.
#[derive(Clone, Debug, Default)]
struct Sum {
    value: f64,
    /// Upper bounds and cumulative counts.
    buckets: Vec<(f64, u64)>,
}

/// The points after some time.
#[derive(Serialize)]
pub(crate) struct Points {
    /// Not all of them were there before: draw anew.
    whole: bool,
    capacity: usize,
    /// The time to ask from the next time, ms.
    seen: u64,
    /// Seconds since 1970.
    times: Vec<f64>,
    curves: std::collections::BTreeMap<&'static str, Vec<Option<f32>>>,
}

/// A curve and its newest point, for the page.
#[derive(Serialize)]
pub(crate) struct Newest {
    key: &'static str,
    chart: &'static str,
    label: &'static str,
    unit: &'static str,
    tile: &'static str,
    now: Option<f32>,
}

impl Curves {
    pub(crate) fn new(curves: &'static [Curve]) -> Self {
        let span = |most| Span {
            most,
            times_ms: VecDeque::new(),
            points: vec![VecDeque::new(); curves.len()],
            before: None,
        };
        Self { curves, hour: span(HOUR), day: span(DAY), samples: 0 }
    }

    /// Takes a point of each curve.
    pub(crate) fn sample(&mut self, registry: &Registry, now: SystemTime) {
        let families = registry.gather();
        let sums: Vec<Sum> = self.curves.iter().map(|curve| sum(&families, curve.of)).collect();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = u64::try_from(now).unwrap_or(u64::MAX);
        self.hour.push(self.curves, now_ms, &sums);
        if self.samples.is_multiple_of(DAY_EVERY) {
            self.day.push(self.curves, now_ms, &sums);
        }
        self.samples += 1;
    }

    /// The points after `after_ms` of an hour, or of a day.
    pub(crate) fn points(&self, day: bool, after_ms: u64) -> Points {
        let span = if day { &self.day } else { &self.hour };
        let from = span.times_ms.partition_point(|&time| time <= after_ms);
        let known = |value: &f32| value.is_finite().then_some(*value);
        let points = |points: &VecDeque<f32>| points.range(from..).map(known).collect();
        let keys = self.curves.iter().map(|curve| curve.key);
        #[expect(clippy::cast_precision_loss, reason = "ms since 1970 have 41 bits")]
        let seconds = |&ms: &u64| ms as f64 / 1e3;
        Points {
            whole: from == 0,
            capacity: span.most,
            seen: span.times_ms.back().copied().unwrap_or(after_ms),
            times: span.times_ms.range(from..).map(seconds).collect(),
            curves: keys.zip(span.points.iter().map(points)).collect(),
        }
    }

    /// Every curve with its newest point that is known; of the last minute, since a quantile has
    /// none where nothing happened.
    pub(crate) fn newest(&self) -> Vec<Newest> {
        let of = |(curve, points): (&Curve, &VecDeque<f32>)| {
            let now = points.iter().rev().take(DAY_EVERY).find(|value| value.is_finite());
            let Curve { key, chart, label, unit, tile, .. } = *curve;
            Newest { key, chart, label, unit, tile, now: now.copied() }
        };
        self.curves.iter().zip(&self.hour.points).map(of).collect()
    }
}

impl Span {
    fn push(&mut self, curves: &[Curve], now_ms: u64, sums: &[Sum]) {
        let before = self.before.replace((now_ms, sums.to_vec()));
        for (number, curve) in curves.iter().enumerate() {
            let earlier =
                before.as_ref().map(|(time, sums)| (now_ms - (*time).min(now_ms), &sums[number]));
            let value = point(curve.of, &sums[number], earlier);
            #[expect(clippy::cast_possible_truncation, reason = "for a picture")]
            self.points[number].push_back(value as f32);
            if self.points[number].len() > self.most {
                self.points[number].pop_front();
            }
        }
        self.times_ms.push_back(now_ms);
        if self.times_ms.len() > self.most {
            self.times_ms.pop_front();
        }
    }
}

/// The value of a curve, given what there was so many ms earlier.
#[expect(clippy::cast_precision_loss, reason = "for a picture")]
fn point(of: Reading, now: &Sum, earlier: Option<(u64, &Sum)>) -> f64 {
    match (of, earlier) {
        (Reading::Gauge(_) | Reading::Most(_) | Reading::Least(_), _) => now.value,
        (_, None | Some((0, _))) => f64::NAN,
        (Reading::Rate(_), Some((ms, before))) => {
            // Below it: the counter began anew, and nobody knows what it gained.
            let gained = now.value - before.value;
            if gained < 0.0 { f64::NAN } else { gained * 1e3 / ms as f64 }
        }
        (Reading::Quantile(quantile, _), Some((_, before))) => {
            let gained = now.buckets.iter().enumerate().map(|(at, &(bound, count))| {
                let earlier = before.buckets.get(at).map_or(0, |&(_, count)| count);
                (bound, count.saturating_sub(earlier))
            });
            within(&gained.collect::<Vec<_>>(), quantile)
        }
    }
}

/// The quantile of a histogram's cumulative counts; NaN without any.
#[expect(clippy::cast_precision_loss, reason = "for a picture")]
fn within(buckets: &[(f64, u64)], quantile: f64) -> f64 {
    let all = buckets.last().map_or(0, |&(_, count)| count);
    if all == 0 {
        return f64::NAN;
    }
    let rank = quantile * all as f64;
    let (mut bound_before, mut count_before) = (0.0, 0);
    for &(bound, count) in buckets {
        if count as f64 >= rank {
            // What lies above the last bound is at least that.
            if bound.is_infinite() {
                return bound_before;
            }
            let inside = (count - count_before).max(1) as f64;
            let share = (rank - count_before as f64) / inside;
            return bound_before + (bound - bound_before) * share.clamp(0.0, 1.0);
        }
        (bound_before, count_before) = (bound, count);
    }
    bound_before
}

fn sum(families: &[MetricFamily], of: Reading) -> Sum {
    let mut sum = Sum::default();
    let mut any = false;
    for metric in matching(families, of.family()) {
        let gauge = metric.get_gauge().get_value();
        match of {
            Reading::Gauge(_) => sum.value += gauge,
            // The first one, and whatever is more, or less.
            Reading::Most(_) if any => sum.value = sum.value.max(gauge),
            Reading::Least(_) if any => sum.value = sum.value.min(gauge),
            Reading::Most(_) | Reading::Least(_) => sum.value = gauge,
            Reading::Rate(_) => sum.value += metric.get_counter().get_value(),
            Reading::Quantile(..) => add_buckets(&mut sum, metric),
        }
        any = true;
    }
    if !any {
        sum.value = f64::NAN;
    }
    sum
}

fn add_buckets(sum: &mut Sum, metric: &Metric) {
    let histogram = metric.get_histogram();
    let inner = histogram.get_bucket().iter();
    let inner = inner.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let all = inner.chain([(f64::INFINITY, histogram.get_sample_count())]);
    for (at, (bound, count)) in all.enumerate() {
        match sum.buckets.get_mut(at) {
            Some((_, total)) => *total += count,
            None => sum.buckets.push((bound, count)),
        }
    }
}

fn matching(families: &[MetricFamily], family: Family) -> impl Iterator<Item = &Metric> {
    let (label, value) = family.label;
    let named =
        move |found: &&MetricFamily| found.name().strip_prefix("millrace_") == Some(family.name);
    let chosen = move |metric: &&Metric| {
        let mut labels = metric.get_label().iter();
        label.is_empty() || labels.any(|pair| pair.name() == label && pair.value() == value)
    };
    families.iter().filter(named).flat_map(|found| found.get_metric()).filter(chosen)
}

/// The values of a family's counters, or the sums of its histograms, by the value of `label`.
pub(crate) fn by_label(registry: &Registry, name: &str, label: &str) -> Vec<(String, f64)> {
    let families = registry.gather();
    let found = families.iter().filter(|f| f.name().strip_prefix("millrace_") == Some(name));
    let value = |metric: &Metric| {
        let pair = metric.get_label().iter().find(|pair| pair.name() == label)?;
        let histogram = metric.get_histogram();
        let sum = if histogram.get_bucket().is_empty() {
            metric.get_counter().get_value()
        } else {
            histogram.get_sample_sum()
        };
        Some((pair.value().to_owned(), sum))
    };
    found.flat_map(|family| family.get_metric()).filter_map(value).collect()
}

/// Checks that each of the curves is of a series of `registry`, or of the family `later`, which has
/// none before a partition is known.
#[cfg(test)]
pub(crate) fn assert_there(curves: &[Curve], registry: &Registry, later: &str) {
    let page = registry.render();
    for Curve { key, of, .. } in curves {
        let Family { name, label: (label, value) } = of.family();
        let there = page.contains(&format!("# TYPE millrace_{name} "));
        assert!(there || name == later, "{key}");
        let label = (!label.is_empty()).then(|| format!("{label}=\"{value}\""));
        assert!(label.as_ref().is_none_or(|label| page.contains(label)), "{key}: {label:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn curve(key: &'static str, of: Reading) -> Curve {
        Curve { key, chart: "c", label: "l", unit: "", tile: "", of }
    }

    const CURVES: [Curve; 4] = [
        curve("rate", Reading::Rate(Family::of("things_total", "kind", "good"))),
        curve("gauge", Reading::Gauge(Family::all("lag"))),
        curve("p50", Reading::Quantile(0.5, Family::of("took_seconds", "kind", "good"))),
        curve("absent", Reading::Gauge(Family::all("nothing"))),
    ];

    #[test]
    fn a_point_is_what_a_person_would_read_off_two_scrapes() {
        let registry = Registry::new();
        let things = registry.counters("things_total", "Things.", &["kind"]);
        let lag = registry.int_gauges("lag", "Lag.", &["partition"]);
        let took = registry.histograms("took_seconds", "Took.", &["kind"], &[1.0, 2.0, 4.0]);
        let mut curves = Curves::new(&CURVES);
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        things.with_label_values(&["good"]).inc_by(7);
        curves.sample(&registry, at(0));
        things.with_label_values(&["good"]).inc_by(20);
        things.with_label_values(&["bad"]).inc_by(1000);
        lag.with_label_values(&["0"]).set(3);
        lag.with_label_values(&["1"]).set(4);
        for seconds in [0.5, 1.5, 1.5, 9.0] {
            took.with_label_values(&["good"]).observe(seconds);
        }
        took.with_label_values(&["bad"]).observe(3.0);
        curves.sample(&registry, at(10));
        curves.sample(&registry, at(20));
        let points = serde_json::to_value(curves.points(false, 0)).expect("JSON");
        assert_eq!(points["times"], serde_json::json!([1e6, 1_000_010.0, 1_000_020.0]));
        assert_eq!(points["curves"]["rate"], serde_json::json!([null, 2.0, 0.0]));
        assert_eq!(points["curves"]["gauge"], serde_json::json!([null, 7.0, 7.0]));
        assert_eq!(points["curves"]["p50"], serde_json::json!([null, 1.5, null]));
        assert_eq!(points["curves"]["absent"], serde_json::json!([null, null, null]));
        let later = serde_json::to_value(curves.points(false, 1_000_010_000)).expect("JSON");
        assert_eq!(
            (&later["whole"], &later["times"]),
            (&false.into(), &serde_json::json!([1_000_020.0]))
        );
        let newest = serde_json::to_value(curves.newest()).expect("JSON");
        assert_eq!(newest[2]["now"], 1.5, "of the last minute");
        assert_eq!(by_label(&registry, "things_total", "kind").len(), 2);
        assert_eq!(by_label(&registry, "took_seconds", "kind")[1], ("good".to_owned(), 12.5));
    }

    #[test]
    fn an_hour_and_a_day_are_all_that_is_kept() {
        let registry = Registry::new();
        let mut curves = Curves::new(&CURVES);
        let samples = HOUR + DAY_EVERY * 3;
        for sample in 1..=samples as u64 {
            curves.sample(&registry, UNIX_EPOCH + EVERY * u32::try_from(sample).expect("few"));
        }
        assert_eq!(curves.points(false, 0).times.len(), HOUR);
        assert_eq!(curves.points(true, 0).times.len(), samples.div_ceil(DAY_EVERY));
        assert!(curves.day.points.iter().all(|points| points.len() <= DAY));
    }
}
