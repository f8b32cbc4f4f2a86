//! Every so-many-th answer is held against the exact one.
//!
//! On a thread of its own: a scan of a million items in full reads some two hundred megabytes, and
//! nobody should wait for it, neither who was answered nor who is next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use millrace_retrieval::Search;

use super::Version;
use super::metrics::ServeMetrics;
use crate::priority::{Priority, yield_to_others};

/// Answers between two samples.
const EVERY: u64 = 1000;

/// Counts the answers of an arm, and picks some.
pub(super) struct Samples {
    answered: AtomicU64,
    sender: Sender<Asked>,
}

/// What one of them was asked.
struct Asked {
    version: Arc<Version>,
    /// `[dim]`
    query: Vec<f32>,
    k: usize,
    popularity: f32,
}

impl Samples {
    /// Measures on a thread of its own, which ends with this.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn start(metrics: &Arc<ServeMetrics>) -> std::io::Result<Self> {
        // One waits while one is measured; what comes meanwhile is no sample.
        let (sender, asked): (_, Receiver<Asked>) = crossbeam_channel::bounded(1);
        let metrics = Arc::clone(metrics);
        std::thread::Builder::new().name("recall".into()).spawn(move || {
            yield_to_others(Priority::Lowest);
            asked.iter().filter_map(|asked| asked.recall()).for_each(|recall| {
                metrics.recall(recall);
            });
        })?;
        Ok(Self { answered: AtomicU64::new(0), sender })
    }

    /// Takes in an answer of `version`; `query` gives the vector of its first query.
    pub(super) fn count(
        &self,
        version: &Arc<Version>,
        (k, popularity): (usize, f32),
        query: impl FnOnce() -> Option<Vec<f32>>,
    ) {
        if !self.answered.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY) {
            return;
        }
        if let Some(query) = query() {
            let asked = Asked { version: Arc::clone(version), query, k, popularity };
            // A full channel: the one before is still being measured.
            self.sender.try_send(asked).ok();
        }
    }
}

impl Asked {
    /// Share of the exact answer that the index finds.
    fn recall(&self) -> Option<f64> {
        let Self { version, query, k, popularity } = self;
        let (k, popularity) = (*k, *popularity);
        let search = Search { query, k, popularity, excluded: &[], allowed: None };
        let found = version.index.search(&search).ok()?;
        let exact = version.index.exact(&search).ok()?;
        let hits = exact.iter().filter(|hit| found.contains(hit)).count();
        Some(hits as f64 / exact.len().max(1) as f64)
    }
}
