//! What the page draws of a run.

use super::Metrics;
use crate::telemetry::{Curve, Family, Reading};

impl Metrics {
    /// The curves of the page, in the order of their pictures.
    pub const CURVES: &[Curve] = &[
        Curve {
            key: "events",
            chart: "Events trained on, a second",
            label: "events",
            unit: "/s",
            tile: "Events trained on",
            of: Reading::Rate(Family::of("events_total", "result", "trained")),
        },
        Curve {
            key: "lag",
            chart: "Records not read yet",
            label: "records",
            unit: "",
            tile: "Records not read yet",
            of: Reading::Gauge(Family::all("consumer_lag")),
        },
        Curve {
            key: "behind",
            chart: "Newest event behind now",
            label: "trained on",
            unit: "s",
            tile: "Newest event behind now",
            of: Reading::Gauge(Family::of("event_age_seconds", "stage", "trained")),
        },
        Curve {
            key: "fresh",
            chart: "Event until its vector is acknowledged, p99",
            label: "published",
            unit: "s",
            tile: "",
            of: Reading::Quantile(0.99, Family::of("freshness_seconds", "stage", "published")),
        },
        Curve {
            key: "loss",
            chart: "Loss",
            label: "loss",
            unit: "",
            tile: "",
            of: Reading::Gauge(Family::all("train_loss")),
        },
        Curve {
            key: "recall_10",
            chart: "Recall before training",
            label: "model at 10",
            unit: "",
            tile: "",
            of: Reading::Gauge(Family::of("recall", "k", "10")),
        },
        Curve {
            key: "popular_10",
            chart: "Recall before training",
            label: "popularity at 10",
            unit: "",
            tile: "",
            of: Reading::Gauge(Family::of("popularity_recall", "k", "10")),
        },
        Curve {
            key: "recall_100",
            chart: "Recall before training",
            label: "model at 100",
            unit: "",
            tile: "",
            of: Reading::Gauge(Family::of("recall", "k", "100")),
        },
        Curve {
            key: "popular_100",
            chart: "Recall before training",
            label: "popularity at 100",
            unit: "",
            tile: "",
            of: Reading::Gauge(Family::of("popularity_recall", "k", "100")),
        },
        Curve {
            key: "checkpoint",
            chart: "Age of the newest checkpoint",
            label: "age",
            unit: "s",
            tile: "Newest checkpoint",
            of: Reading::Gauge(Family::all("checkpoint_age_seconds")),
        },
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::telemetry::assert_there;

    #[test]
    fn every_curve_is_of_a_series_that_there_is() {
        assert_there(Metrics::CURVES, Metrics::new(&Config::default()).registry(), "consumer_lag");
    }
}
