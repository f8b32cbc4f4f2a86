//! Series and the registry that renders them.

use std::collections::{BTreeMap, HashMap};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, Opts, TextEncoder};

pub use prometheus::{
    Gauge, GaugeVec as Gauges, Histogram, HistogramVec as Histograms, IntCounter as Counter,
    IntCounterVec as Counters, IntGauge, IntGaugeVec as IntGauges,
};

/// Buckets of `freshness_seconds`: the first, and how many, each twice the one before. From 10 ms
/// to 1.5 hours; what is older comes from an old log, and how old no longer matters.
pub const FRESHNESS_SECONDS: (f64, i32) = (0.01, 20);

/// So many bounds of buckets from `first` on, each twice the one before: a quantile is right within
/// a factor of two.
pub fn doubling((first, count): (f64, i32)) -> Vec<f64> {
    (0..count).map(|power| first * 2_f64.powi(power)).collect()
}

/// Series of one process, or of one run in a test: two registries do not meet, and a clone is the
/// same one. Every name gets the prefix `millrace_`.
#[derive(Clone, Debug)]
pub struct Registry {
    own: prometheus::Registry,
    /// Those that are shown with it.
    beside: Vec<Registry>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

/// Names, labels and buckets are constants: a wrong one fails the first test that makes them.
impl Registry {
    /// Nothing but `millrace_build_info`, and what the process uses.
    pub fn new() -> Registry {
        let registry = Registry { own: prometheus::Registry::new(), beside: Vec::new() };
        let build = registry.int_gauges("build_info", "Always 1.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // `process_*`, by the names that every Prometheus client gives: memory, descriptors, CPU.
        #[cfg(target_os = "linux")]
        registry
            .own
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("nobody else has these names");
        registry
    }

    /// Nothing yet, and every series will have `label` with this `value`: for one of several parts
    /// of a process that have the same series. It is shown [`beside`](Self::beside) the process's.
    pub fn labelled(label: &str, value: &str) -> Registry {
        let labels = HashMap::from([(label.to_owned(), value.to_owned())]);
        let own = prometheus::Registry::new_custom(None, Some(labels));
        Registry { own: own.expect("the prefix is not empty"), beside: Vec::new() }
    }

    /// This one, which shows the series of `others` with its own.
    #[must_use]
    pub fn beside(mut self, others: Vec<Registry>) -> Registry {
        self.beside.extend(others);
        self
    }

    /// All series as they are now, by name.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.own.gather();
        families.extend(self.beside.iter().flat_map(Registry::gather));
        let mut by_name: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for mut family in families {
            match by_name.get_mut(family.name()) {
                Some(known) => known.mut_metric().extend(family.take_metric()),
                None => drop(by_name.insert(family.name().to_owned(), family)),
            }
        }
        by_name.into_values().collect()
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.gather())
            .expect("registered families have names, and a String takes any text")
    }

    /// A sum that only grows.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.registered(Counter::with_opts(opts(name, help)))
    }

    /// A value that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.registered(Gauge::with_opts(opts(name, help)))
    }

    /// As [`Registry::gauge`], of whole numbers.
    pub fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::with_opts(opts(name, help)))
    }

    /// A distribution, counted by `buckets`.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.registered(Histogram::with_opts(opts))
    }

    /// A [`Registry::counter`] for each combination of `labels`.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Counters {
        self.registered(Counters::new(opts(name, help), labels))
    }

    /// A [`Registry::gauge`] for each combination of `labels`.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Gauges {
        self.registered(Gauges::new(opts(name, help), labels))
    }

    /// A [`Registry::int_gauge`] for each combination of `labels`.
    pub fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGauges {
        self.registered(IntGauges::new(opts(name, help), labels))
    }

    /// A [`Registry::histogram`] for each combination of `labels`.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Histograms {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.registered(Histograms::new(opts, labels))
    }

    fn registered<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("names, labels and buckets are valid constants");
        self.own.register(Box::new(metric.clone())).expect("each name is registered once");
        metric
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("millrace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_registries_do_not_meet() {
        let (one, two) = (Registry::new(), Registry::new());
        one.counter("published_total", "Vectors delivered.").inc_by(7);
        two.counter("published_total", "Vectors delivered.");
        assert!(one.render().contains("millrace_published_total 7"));
        assert!(one.render().contains("\nprocess_resident_memory_bytes "));
        assert!(two.render().contains("millrace_published_total 0"));
    }

    #[test]
    fn parts_of_a_process_have_the_same_series_with_a_label() {
        let parts = ["a", "b"].map(|part| Registry::labelled("arm", part));
        for (count, part) in (3..).zip(&parts) {
            part.counters("asked_total", "Asked.", &["route"])
                .with_label_values(&["x"])
                .inc_by(count);
        }
        let page = Registry::new().beside(parts.to_vec()).render();
        assert_eq!(page.matches("# TYPE millrace_asked_total counter").count(), 1, "{page}");
        for line in ["{route=\"x\",arm=\"a\"} 3", "{route=\"x\",arm=\"b\"} 4"] {
            assert!(page.contains(&format!("millrace_asked_total{line}")), "{page}");
        }
        assert_eq!(page.matches("# TYPE millrace_build_info").count(), 1);
    }

    #[test]
    fn the_version_is_a_label() {
        let version = env!("CARGO_PKG_VERSION");
        let line = format!("millrace_build_info{{version=\"{version}\"}} 1");
        assert!(Registry::new().render().contains(&line));
    }
}
