//! What the page draws of a process that answers.

use super::metrics::ServeMetrics;
use crate::telemetry::{Curve, Family, Reading};

impl ServeMetrics {
    /// The curves of the page, in the order of their pictures.
    pub(super) const CURVES: &[Curve] = &[
        Curve {
            key: "requests",
            chart: "Requests, a second",
            label: "requests",
            unit: "/s",
            tile: "Requests",
            of: Reading::Rate(Family::all("requests_total")),
        },
        Curve {
            key: "p50",
            chart: "Time of a request to retrieve",
            label: "p50",
            unit: "s",
            tile: "",
            of: Reading::Quantile(0.5, Family::of("request_seconds", "route", "retrieve")),
        },
        Curve {
            key: "p99",
            chart: "Time of a request to retrieve",
            label: "p99",
            unit: "s",
            tile: "Request p99",
            of: Reading::Quantile(0.99, Family::of("request_seconds", "route", "retrieve")),
        },
        Curve {
            key: "served",
            chart: "Event until served, p99",
            label: "learned from",
            unit: "s",
            tile: "Event to served, p99",
            of: Reading::Quantile(0.99, Family::of("freshness_seconds", "stage", "served")),
        },
        Curve {
            key: "history",
            chart: "Event until served, p99",
            label: "in its history",
            unit: "s",
            tile: "",
            of: Reading::Quantile(0.99, Family::of("freshness_seconds", "stage", "history")),
        },
        Curve {
            key: "age",
            chart: "Age of the version that answers",
            label: "age",
            unit: "s",
            tile: "Version that answers",
            of: Reading::Most(Family::all("served_version_age_seconds")),
        },
        Curve {
            key: "events",
            chart: "Events read, a second",
            label: "events",
            unit: "/s",
            tile: "Events read",
            of: Reading::Rate(Family::of("history_records_total", "result", "taken")),
        },
        Curve {
            key: "lag",
            chart: "Records that histories lack",
            label: "records",
            unit: "",
            tile: "",
            of: Reading::Gauge(Family::all("history_lag")),
        },
        Curve {
            key: "recall",
            chart: "Share of the exact answer that is found",
            label: "recall",
            unit: "",
            tile: "",
            of: Reading::Least(Family::all("index_recall")),
        },
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Registry, assert_there};

    #[test]
    fn every_curve_is_of_a_series_that_there_is() {
        assert_there(
            ServeMetrics::CURVES,
            ServeMetrics::new(Registry::new()).registry(),
            "history_lag",
        );
    }
}
