//! The series of `serve`. docs/reference/serve.md lists them; a test holds it.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use super::shelf::Shelf;
use crate::telemetry::{
    Counters, FRESHNESS_SECONDS, Gauge, Gauges, Histogram, Histograms, IntGauge, IntGauges,
    Registry, doubling,
};

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
    Infer,
}

impl Route {
    pub(super) const ALL: [Self; 8] = [
        Self::Retrieve,
        Self::Score,
        Self::Embed,
        Self::Item,
        Self::Similar,
        Self::Versions,
        Self::Activate,
        Self::Infer,
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
            Self::Infer => "infer",
        }
    }
}

/// How far an event has come: `stage` of `millrace_freshness_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The version that answers has learned from it.
    Served,
    /// It is in its query's history.
    History,
}

impl Stage {
    const ALL: [Self; 2] = [Self::Served, Self::History];

    fn spelt(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::History => "history",
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
    freshness_seconds: Histograms,
    event_age_seconds: Gauges,
    histories_following: IntGauge,
    history_bytes: IntGauge,
    history_lag: IntGauges,
    history_records_total: Counters,
    rejected_total: Counters,
    recalls: Mutex<Vec<f64>>,
}

impl ServeMetrics {
    /// The series, in `registry`. Those whose labels are known already exist.
    pub(super) fn new(registry: Registry) -> Self {
        let metrics = Self::without_series(registry);
        metrics.served_version_age_seconds.set(f64::NAN);
        metrics.index_recall.set(f64::NAN);
        for stage in Stage::ALL {
            metrics.freshness_seconds.with_label_values(&[stage.spelt()]);
            metrics.event_age_seconds.with_label_values(&[stage.spelt()]).set(f64::NAN);
        }
        for result in ["taken", "rejected", "skipped"] {
            metrics.history_records_total.with_label_values(&[result]);
        }
        for route in Route::ALL {
            metrics.seconds(route);
            metrics.requests_total.with_label_values(&[route.spelt(), "200"]);
        }
        metrics
    }

    fn without_series(registry: Registry) -> Self {
        let buckets = doubling(REQUEST_SECONDS);
        let freshness = doubling(FRESHNESS_SECONDS);
        Self {
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
            freshness_seconds: registry.histograms(
                "freshness_seconds",
                "Time from an event until answers know of it.",
                &["stage"],
                &freshness,
            ),
            event_age_seconds: registry.gauges(
                "event_age_seconds",
                "Newest event's age.",
                &["stage"],
            ),
            histories_following: registry
                .int_gauge("histories_following", "1 while histories follow the topic."),
            history_bytes: registry
                .int_gauge("history_bytes", "Bytes of what was read behind the versions."),
            history_lag: registry.int_gauges(
                "history_lag",
                "Records between what histories know and the log's end.",
                &["topic", "partition"],
            ),
            history_records_total: registry.counters(
                "history_records_total",
                "Records that were read behind the versions.",
                &["result"],
            ),
            rejected_total: registry.counters(
                "rejected_total",
                "Records that histories cannot use, by reason.",
                &["reason"],
            ),
            recalls: Mutex::default(),
            registry,
        }
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

    /// Answers know of an event that is so old.
    pub(super) fn fresh(&self, stage: Stage, seconds: f64) {
        self.freshness_seconds.with_label_values(&[stage.spelt()]).observe(seconds);
    }

    /// An event went into its query's history.
    pub(super) fn history_event(&self) {
        self.history_records_total.with_label_values(&["taken"]).inc();
    }

    /// A record was no event: rejected for a reason, or passed over.
    pub(super) fn no_event(&self, reason: Option<&str>) {
        let result = if reason.is_some() { "rejected" } else { "skipped" };
        self.history_records_total.with_label_values(&[result]).inc();
        if let Some(reason) = reason {
            self.rejected_total.with_label_values(&[reason]).inc();
        }
    }

    /// How the reading of histories stands.
    pub(super) fn histories(&self, following: bool, bytes: usize, newest_ms: Option<i64>) {
        self.histories_following.set(i64::from(following));
        self.history_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        if let Some(newest_ms) = newest_ms {
            self.event_age(Stage::History, newest_ms);
        }
    }

    /// Records between what histories know of a partition and its end.
    pub(super) fn history_lag(&self, topic: &str, partition: i32, lag: i64) {
        let partition = partition.to_string();
        self.history_lag.with_label_values(&[topic, &partition]).set(lag);
    }

    fn event_age(&self, stage: Stage, newest_ms: i64) {
        let age = age(SystemTime::now(), newest_ms);
        self.event_age_seconds.with_label_values(&[stage.spelt()]).set(age);
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

    /// Sets what is true only at a moment: what is on the shelf, and ages.
    pub(super) fn refresh(&self, shelf: &Shelf) {
        self.served_versions.set(i64::try_from(shelf.in_memory()).unwrap_or(i64::MAX));
        let row = shelf.row();
        if let Some(active) = &row.active {
            let age = active.made.elapsed().unwrap_or_default();
            self.served_version_age_seconds.set(age.as_secs_f64());
            self.served_version_step.set(i64::try_from(active.step).unwrap_or(i64::MAX));
            self.event_age(Stage::Served, active.event_time_ms);
        }
    }

    /// All series.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Seconds from an event's time to `now`; a time ahead counts as the present.
pub(super) fn age(now: SystemTime, time_ms: i64) -> f64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    (now - time_ms as f64 / 1e3).max(0.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_dashboard_shows_every_series_and_no_other() {
        let metrics = ServeMetrics::new(Registry::new());
        metrics.no_event(Some("empty"));
        metrics.history_lag("clicks", 0, 3);
        let names = |text: &str| -> BTreeSet<String> {
            let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
            let own = words.filter_map(|word| word.strip_prefix("millrace_"));
            own.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
        };
        let page = metrics.registry().render();
        let kinds: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let shown = names(include_str!("../../dashboards/serve.json"));
        assert_eq!(names(&kinds.join(" ")), shown, "left: on /metrics, right: on the dashboard");
    }

    #[test]
    fn the_reference_lists_every_series() {
        let metrics = ServeMetrics::new(Registry::new());
        metrics.recall(0.5);
        metrics.recall(1.0);
        metrics.no_event(Some("empty"));
        metrics.history_lag("clicks", 0, 3);
        metrics.refresh(&Shelf::new(1));
        let page = metrics.registry().render();
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
