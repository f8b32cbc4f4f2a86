//! What the page draws of a process that answers.

use super::metrics::ServeMetrics;
use crate::telemetry::{Curve, Family, Reading};

const fn family(name: &'static str, label: &'static str, value: &'static str) -> Family {
    Family { name, label: (label, value) }
}

impl ServeMetrics {
    /// The curves of the page, in the order of their pictures.
    pub(super) const CURVES: &[Curve] = &[
        Curve {
            key: "requests",
            chart: "Requests, a second",
            label: "requests",
            unit: "/s",
            tile: "Requests",
            of: Reading::Rate(family("requests_total", "", "")),
        },
        Curve {
            key: "p50",
            chart: "Time of a request to retrieve",
            label: "p50",
            unit: "s",
            tile: "",
            of: Reading::Quantile(0.5, family("request_seconds", "route", "retrieve")),
        },
        Curve {
            key: "p99",
            chart: "Time of a request to retrieve",
            label: "p99",
            unit: "s",
            tile: "Request p99",
            of: Reading::Quantile(0.99, family("request_seconds", "route", "retrieve")),
        },
        Curve {
            key: "served",
            chart: "Event until served, p99",
            label: "learned from",
            unit: "s",
            tile: "Event to served, p99",
            of: Reading::Quantile(0.99, family("freshness_seconds", "stage", "served")),
        },
        Curve {
            key: "history",
            chart: "Event until served, p99",
            label: "in its history",
            unit: "s",
            tile: "",
            of: Reading::Quantile(0.99, family("freshness_seconds", "stage", "history")),
        },
        Curve {
            key: "age",
            chart: "Age of the version that answers",
            label: "age",
            unit: "s",
            tile: "Version that answers",
            of: Reading::Gauge(family("served_version_age_seconds", "", "")),
        },
        Curve {
            key: "events",
            chart: "Events read, a second",
            label: "events",
            unit: "/s",
            tile: "Events read",
            of: Reading::Rate(family("history_records_total", "result", "taken")),
        },
        Curve {
            key: "lag",
            chart: "Records that histories lack",
            label: "records",
            unit: "",
            tile: "",
            of: Reading::Gauge(family("history_lag", "", "")),
        },
        Curve {
            key: "recall",
            chart: "Share of the exact answer that is found",
            label: "recall",
            unit: "",
            tile: "",
            of: Reading::Gauge(family("index_recall", "", "")),
        },
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_of_a_series_that_there_is() {
        let page = ServeMetrics::new().registry().render();
        for Curve { key, of, .. } in ServeMetrics::CURVES {
            let (Reading::Gauge(family) | Reading::Rate(family) | Reading::Quantile(_, family)) =
                of;
            // The lag has a series once a partition is known.
            let there = page.contains(&format!("# TYPE millrace_{} ", family.name));
            assert!(there || family.name == "history_lag", "{key}");
            let label = format!("{}=\"{}\"", family.label.0, family.label.1);
            assert!(family.label.0.is_empty() || page.contains(&label), "{key}: {label}");
        }
    }
}
