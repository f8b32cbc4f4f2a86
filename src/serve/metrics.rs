//! The series of `serve`. docs/reference/serve.md lists them; a test holds it.

use std::sync::Mutex;

use super::shelf::Row;
use crate::telemetry::{Counters, Gauge, Histogram, Histograms, IntGauge, Registry};

/// From 100 us to 6.5 s, each twice the one before: a quantile is right within a factor of two.
const REQUEST_SECONDS: (f64, i32) = (1e-4, 17);
/// Samples that the recall is a mean of.
const RECALL_SAMPLES: usize = 100;

/// What a request asks for: `route` of `millrace_request_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Retrieve,
    Score,
    Embed,
    Item,
    Similar,
    Versions,
    Activate,
}

impl Route {
    pub(super) const ALL: [Self; 7] = [
        Self::Retrieve,
        Self::Score,
        Self::Embed,
        Self::Item,
        Self::Similar,
        Self::Versions,
        Self::Activate,
    ];

    fn spelt(self) -> &'static str {
        match self {
            Self::Retrieve => "retrieve",
            Self::Score => "score",
            Self::Embed => "embed",
            Self::Item => "item",
            Self::Similar => "similar",
            Self::Versions => "versions",
            Self::Activate => "activate",
        }
    }
}

/// Every series of a process that answers.
pub(super) struct ServeMetrics {
    registry: Registry,
    request_seconds: Histograms,
    requests_total: Counters,
    served_version_age_seconds: Gauge,
    served_version_step: IntGauge,
    served_versions: IntGauge,
    index_recall: Gauge,
    recalls: Mutex<Vec<f64>>,
}

impl ServeMetrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let (first, count) = REQUEST_SECONDS;
        let buckets: Vec<f64> = (0..count).map(|bucket| first * 2f64.powi(bucket)).collect();
        let metrics = Self {
            request_seconds: registry.histograms(
                "request_seconds",
                "Time from a request's head to its answer.",
                &["route"],
                &buckets,
            ),
            requests_total: registry.counters(
                "requests_total",
                "Requests answered, by HTTP status.",
                &["route", "status"],
            ),
            served_version_age_seconds: registry.gauge(
                "served_version_age_seconds",
                "Time since the checkpoint that answers was written.",
            ),
            served_version_step: registry
                .int_gauge("served_version_step", "Step of the version that answers."),
            served_versions: registry.int_gauge("served_versions", "Versions in memory."),
            index_recall: registry.gauge(
                "index_recall",
                "Share of the exact answer that the index finds, mean of the last samples.",
            ),
            recalls: Mutex::default(),
            registry,
        };
        metrics.served_version_age_seconds.set(f64::NAN);
        metrics.index_recall.set(f64::NAN);
        for route in Route::ALL {
            metrics.seconds(route);
            metrics.requests_total.with_label_values(&[route.spelt(), "200"]);
        }
        metrics
    }

    fn seconds(&self, route: Route) -> Histogram {
        self.request_seconds.with_label_values(&[route.spelt()])
    }

    /// A request was answered.
    pub(super) fn answered(&self, route: Route, status: u16, seconds: f64) {
        self.seconds(route).observe(seconds);
        let status = status.to_string();
        self.requests_total.with_label_values(&[route.spelt(), &status]).inc();
    }

    /// A sample of the recall.
    pub(super) fn recall(&self, recall: f64) {
        let mut recalls = self.recalls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if recalls.len() == RECALL_SAMPLES {
            recalls.remove(0);
        }
        recalls.push(recall);
        self.index_recall.set(recalls.iter().sum::<f64>() / recalls.len() as f64);
    }

    /// Everything in the Prometheus text format, with what is on the shelf now.
    pub(super) fn render(&self, row: &Row) -> String {
        self.served_versions.set(i64::try_from(row.versions.len()).unwrap_or(i64::MAX));
        if let Some(active) = &row.active {
            let age = active.made.elapsed().unwrap_or_default();
            self.served_version_age_seconds.set(age.as_secs_f64());
            self.served_version_step.set(i64::try_from(active.step).unwrap_or(i64::MAX));
        }
        self.registry.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_series() {
        let metrics = ServeMetrics::new();
        metrics.recall(0.5);
        metrics.recall(1.0);
        let page = metrics.render(&Row::default());
        assert!(page.contains("millrace_index_recall 0.75"), "{page}");
        let series = page.lines().filter_map(|line| line.strip_prefix("# TYPE millrace_"));
        let series: Vec<String> =
            series.map(|line| line.replace(' ', "` | ").replacen("", "| `", 1)).collect();
        assert!(series.len() >= 6, "{series:?}");
        let reference = include_str!("../../docs/reference/serve.md");
        for row in series.iter().filter(|row| !row.contains("build_info")) {
            assert!(reference.contains(&format!("{row} |")), "docs/reference/serve.md lacks {row}");
        }
        for route in Route::ALL {
            assert!(reference.contains(&format!("`{}`", route.spelt())), "{route:?}");
        }
    }
}
