//! How far a state has come: what a checkpoint says of it beside the state itself.

use millrace_events::Offsets;

/// What the manifest holds beside the sections.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Batches trained on.
    pub step: u64,
    /// Events trained on.
    pub events: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Time of the newest event trained on, ms since 1970.
    pub event_time_ms: i64,
    /// Next offset to read.
    pub offsets: Offsets,
    /// Which time over the log the offsets belong to; 1: the first.
    pub pass: u32,
}
