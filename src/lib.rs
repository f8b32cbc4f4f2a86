//! Millrace: an always-on two-tower trainer.
//!
//! Kafka is the log; the trainer is a state machine that applies batches to it in order; a
//! checkpoint is the state together with the offsets that produced it; recovery is "load the
//! newest good checkpoint and read on". Offsets travel with the data and always mean *the next
//! offset to read*.
//!
//! The rooms, in reading order (each one's `//!` says what it owns and what it must never know):
//!
//! - [`pipeline`]: the program: threads, channels, cadences, stop order; no maths
//! - [`stream`]: records become events, events become columnar batches
//! - [`checkpoint`]: snapshots become durable; the newest good one is found
//! - [`sections`]: what a checkpoint holds, as the trainer reads it
//! - [`artifact`]: a durable checkpoint becomes files that need nothing of this program
//! - [`publish`]: a durable checkpoint becomes embeddings on a topic
//! - [`serve`]: a durable checkpoint answers queries over HTTP
//! - [`plot`]: curves and scatters as SVG
//! - [`priority`]: threads that yield to others; `allocator`: when free memory goes back
//! - [`telemetry`], [`edge`], [`progress`]: what people and Prometheus see; signals
//! - [`config`]: every knob, default, unit and cross-check
//! - [`commands`]: what `millrace --help` lists
//! - [`synthetic`]: a world whose truth is known, for `demo`, `synthesize` and tests

mod allocator;
pub mod artifact;
pub mod checkpoint;
pub mod commands;
pub mod config;
pub mod edge;
pub mod pipeline;
pub mod plot;
pub mod priority;
pub mod progress;
pub mod propose;
pub mod publish;
pub mod sections;
pub mod serve;
pub mod stream;
pub mod synthetic;
pub mod telemetry;
