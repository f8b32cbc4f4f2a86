//! Answers: the best items of one version for a query, over HTTP.
//!
//! ```text
//! directory of checkpoints -> follower thread -> shelf of versions (one pointer)
//!                                                       |
//!            HTTP thread -> threads that compute -------+
//! ```
//!
//! A [`Version`] is one checkpoint, whole: query tower, tables, histories, item vectors, log q,
//! temperature. It never changes once it is on the shelf, and a request takes one from there once,
//! so no answer mixes two. The follower builds the next version beside the one that answers, and
//! goes on when the directory or the trainer is away.
//!
//! Must never know: the log (an answer's histories are those of the checkpoint), how a version was
//! trained. It writes nothing.

mod access;
mod answer;
mod follow;
mod http;
mod metrics;
mod problem;
mod request;
mod shelf;
mod version;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::config::Config;
use crate::telemetry::Health;

use follow::Follower;
use http::{App, Server};
use metrics::ServeMetrics;
use shelf::Shelf;

pub use version::Version;

/// How long the stop flag may go unseen.
const TICK: Duration = Duration::from_millis(50);

/// Answers on `http.listen` until `stop` is set, with the versions of `from`: a directory of
/// checkpoints, which is followed, or one checkpoint.
///
/// # Errors
/// An address that cannot be listened on, or threads that cannot be had. A directory without a
/// good checkpoint is none: it is waited for.
pub fn run(config: &Config, from: PathBuf, stop: &AtomicBool) -> anyhow::Result<()> {
    let health = Arc::new(Health::new());
    let metrics = Arc::new(ServeMetrics::new());
    let shelf = Arc::new(Shelf::new(config.serve.keep_versions));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.serve.threads)
        .thread_name(|number| format!("answer-{number}"))
        // The request's own channel closes, which answers it with 500.
        .panic_handler(|_| tracing::error!("a request panicked; this is a bug"))
        .build()
        .context("cannot start the threads that compute answers")?;
    let app = App::new(config, Arc::clone(&shelf), Arc::clone(&health), metrics, pool);
    let server = Server::start(&config.http.listen, Arc::new(app))?;
    tracing::info!("answering on http://{}/", server.address);
    let mut follower = Follower::new(config, from, shelf, Arc::clone(&health));
    let pause = Duration::from_millis(config.serve.poll_ms);
    while !stop.load(Ordering::Relaxed) {
        follower.look();
        let mut left = pause;
        while !left.is_zero() && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(left.min(TICK));
            left = left.saturating_sub(TICK);
        }
    }
    health.set_ready(false);
    health.set_phase("stopping");
    server.stop()
}
