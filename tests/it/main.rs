//! The program as its users meet it: the binary, a real Apache Kafka, real data.
//!
//! The broker is started by the tests themselves (`scripts/kafka`, port 19092) unless
//! MILLRACE_TEST_BROKERS names one, and a second one with users and certificates (port 19192)
//! unless MILLRACE_TEST_SECURED_BROKERS names it; so is a schema registry (`scripts/registry`, port
//! 19081, MILLRACE_TEST_REGISTRY). `scripts/test` stops them. Tests on real data skip with a
//! printed reason where `../shared/data` (or MILLRACE_DATA) is absent.

mod artifact;
mod attributes;
mod bad_records;
mod by_day;
mod cases;
mod catalogues;
mod check;
mod cut;
#[cfg(feature = "gpu")]
mod device;
mod estimate;
mod evaluate;
mod examples;
mod learning;
mod log;
mod proposals;
mod publishing;
mod quiet;
mod recovery;
#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "tls")]
mod rights;
#[cfg(feature = "tls")]
mod secured;
mod serving;
mod support;
mod synthesize;
mod telemetry;
mod topics;
