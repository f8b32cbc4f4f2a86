//! What the page draws of a run.

use super::Metrics;
use crate::telemetry::{Curve, Family, Reading};

const fn family(name: &'static str, label: &'static str, value: &'static str) -> Family {
    Family { name, label: (label, value) }
}

impl Metrics {
    /// The curves of the page, in the order of their pictures.
    pub const CURVES: &[Curve] = &[
        Curve {
            key: "events",
            chart: "Events trained on, a second",
            label: "events",
            unit: "/s",
            tile: "Events trained on",
            of: Reading::Rate(family("events_total", "result", "trained")),
        },
        Curve {
            key: "lag",
            chart: "Records not read yet",
            label: "records",
            unit: "",
            tile: "Records not read yet",
            of: Reading::Gauge(family("consumer_lag", "", "")),
        },
        Curve {
            key: "behind",
            chart: "Newest event behind now",
            label: "trained on",
            unit: "s",
            tile: "Newest event behind now",
            of: Reading::Gauge(family("event_age_seconds", "stage", "trained")),
        },
        Curve {
            key: "loss",
            chart: "Loss",
            label: "loss",
            unit: "",
            tile: "",
            of: Reading::Gauge(family("train_loss", "", "")),
        },
        Curve {
            key: "recall_10",
            chart: "Recall before training",
            label: "at 10",
            unit: "",
            tile: "",
            of: Reading::Gauge(family("recall", "k", "10")),
        },
        Curve {
            key: "recall_100",
            chart: "Recall before training",
            label: "at 100",
            unit: "",
            tile: "",
            of: Reading::Gauge(family("recall", "k", "100")),
        },
        Curve {
            key: "checkpoint",
            chart: "Age of the newest checkpoint",
            label: "age",
            unit: "s",
            tile: "Newest checkpoint",
            of: Reading::Gauge(family("checkpoint_age_seconds", "", "")),
        },
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_curve_is_of_a_series_that_there_is() {
        let page = Metrics::new(&Config::default()).registry().render();
        for Curve { key, of, .. } in Metrics::CURVES {
            let (Reading::Gauge(family) | Reading::Rate(family) | Reading::Quantile(_, family)) =
                of;
            // The lag has a series once a partition is known.
            let there = page.contains(&format!("# TYPE millrace_{} ", family.name));
            assert!(there || family.name == "consumer_lag", "{key}");
            let label = format!("{}=\"{}\"", family.label.0, family.label.1);
            assert!(family.label.0.is_empty() || page.contains(&label), "{key}: {label}");
        }
    }
}
