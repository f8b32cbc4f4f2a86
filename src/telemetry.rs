//! The outside's view of a running process: log lines, metrics, health endpoints.
//!
//! Owns how series are made, named and rendered, the state behind `/healthz` and `/readyz`, the
//! page at `/` with its curves, the HTTP routes that show them, and how the process logs.
//!
//! Must never know: any other room. It measures nothing and reads no topic, no model and no file;
//! the clock only says when a curve's point or a warning was taken. The room that measures has the
//! names and labels of its series ([`crate::pipeline::Metrics`]), and whoever measured a value sets
//! it there.

mod board;
mod curves;
mod health;
mod http;
mod logging;
mod metrics;
pub(crate) mod server;

pub use board::{Board, Role};
pub(crate) use board::{json, page};
#[cfg(test)]
pub(crate) use curves::assert_there;
pub use curves::{Curve, Family, Reading};
pub use health::Health;
pub use http::serve;
pub(crate) use http::{METRICS_TYPE, sample};
pub use logging::init_logging;
pub use metrics::{
    Counter, Counters, FRESHNESS_SECONDS, Gauge, Gauges, Histogram, Histograms, IntGauge,
    IntGauges, Registry, doubling,
};
