//! The outside's view of a running process: log lines, metrics, health endpoints.
//!
//! Owns how series are made, named and rendered, the state behind `/healthz` and `/readyz`, the
//! HTTP routes that show them, and how the process logs.
//!
//! Must never know: any other room. It measures nothing and reads no clock, no topic, no model and
//! no file. The room that measures has the names and labels of its series
//! ([`crate::pipeline::Metrics`]), and whoever measured a value sets it there.

mod health;
mod http;
mod logging;
mod metrics;
pub(crate) mod server;

pub use health::Health;
pub(crate) use http::METRICS_TYPE;
pub use http::serve;
pub use logging::init_logging;
pub use metrics::{
    Counter, Counters, Gauge, Gauges, Histogram, Histograms, IntGauge, IntGauges, Registry,
};
