//! Answers: the best items of one version for a query, over HTTP.
//!
//! ```text
//! directory of checkpoints -> follower thread -> shelf of versions (one pointer)
//! topic of interactions ----> reader thread ---> what queries did since
//! topic of a catalogue -----> its thread ------> items that were taken out since
//!                                                       |
//!            HTTP thread -> threads that compute -------+
//! ```
//!
//! A [`Version`] is one checkpoint, whole: query tower, tables, histories, item vectors, log q,
//! temperature. It never changes once it is on the shelf, and a request takes one from there once,
//! so no answer mixes two. The follower builds the next version beside the one that answers, and
//! goes on when the directory or the trainer is away. What queries did behind a version's offsets
//! is read from the topic and kept beside all versions; without Kafka answers go on with what was
//! read.
//!
//! With `[[serve.arms]]` there is one of each for each arm, and a query's id says which answers.
//!
//! Must never know: how a version was trained. It writes nothing.

mod access;
mod answer;
mod arms;
mod attributes;
mod curves;
mod features;
mod follow;
mod http;
mod kserve;
mod listing;
mod metrics;
mod openapi;
mod parameters;
mod problem;
mod query;
mod reader;
mod recall;
mod recent;
mod request;
mod routes;
mod shelf;
mod standing;
mod version;
mod withdrawn;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rayon::ThreadPool;

use crate::allocator;
use crate::config::{ArmConfig, Config};
use crate::priority::{self, Priority};
use crate::telemetry::{Board, Health, Role};

use arms::{Arm, Arms};
use follow::Follower;
use http::{App, Server};
use metrics::ServeMetrics;
use reader::{Reader, Reading};
use withdrawn::Withdrawals;

pub use version::Version;

/// What versions took stays with the program as long as they are no further apart than this.
const MEMORY_KEPT: Duration = Duration::from_secs(60);
/// How long the stop flag may go unseen.
const TICK: Duration = Duration::from_millis(50);

/// Answers on `http.listen` until `stop` is set, with the versions of `arms`, one at least: a
/// directory of checkpoints each, which is followed, or one checkpoint.
///
/// # Errors
/// An address that cannot be listened on, or threads that cannot be had. A directory without a
/// good checkpoint is none: it is waited for.
pub fn run(config: &Config, arms: &[ArmConfig], stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let mut serving = Serving::start(config, arms, stop)?;
    let pause = Duration::from_millis(config.serve.poll_ms);
    while !stop.load(Ordering::Relaxed) {
        serving.look();
        let mut left = pause;
        while !left.is_zero() && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(left.min(TICK));
            left = left.saturating_sub(TICK);
        }
    }
    serving.end()
}

/// A server that answers, as long as it is told to look for newer versions.
pub struct Serving {
    health: Arc<Health>,
    server: Server,
    readings: Vec<Reading>,
    /// One an arm.
    followers: Vec<Follower>,
    /// Versions are made on these: requests that are answered meanwhile go first.
    loading: ThreadPool,
    /// When the last version was made, if its memory has not been given back.
    made: Option<Instant>,
}

impl Serving {
    /// Listens on `http.listen`; until [`look`](Self::look) finds a version, answers are refusals.
    ///
    /// # Errors
    /// As of [`run`].
    pub fn start(
        config: &Config,
        arms: &[ArmConfig],
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Serving> {
        allocator::keep();
        let health = Arc::new(Health::new());
        health.set_phase("waiting for a checkpoint");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.serve.threads)
            .thread_name(|number| format!("answer-{number}"))
            // The request's own channel closes, which answers it with 500.
            .panic_handler(|_| tracing::error!("a request panicked; this is a bug"))
            .build()
            .context("cannot start the threads that compute answers")?;
        let from = arms;
        let arms = Arms::new(&config.serve, from).context("cannot start the threads of arms")?;
        let arms = Arc::new(arms);
        let board = Arc::new(board(&health, &arms));
        let app = Arc::new(App::new(config, Arc::clone(&arms), board, pool));
        let router = routes::routes(Arc::clone(&app)).merge(openapi::route(Arc::clone(&app)));
        let server = Server::start(&config.http.listen, &app, router)?;
        tracing::info!("answering on http://{}/", server.address);
        let mut readings = Vec::new();
        for arm in arms.iter().filter(|_| config.serve.follow) {
            readings.push(read(config, arm, stop)?);
        }
        let each = arms.iter().zip(from);
        let followers = each.map(|(arm, from)| {
            Follower::new(config, from.from.clone().into(), (arm.name(), &arm.stock.shelf))
        });
        let followers = followers.collect();
        let loading = priority::pool(0, "load", Priority::Low)?;
        Ok(Serving { health, server, readings, followers, loading, made: None })
    }

    /// Looks for newer versions, and loads them.
    pub fn look(&mut self) {
        let (followers, made) = (&mut self.followers, &mut self.made);
        self.loading.install(|| {
            for follower in followers {
                if follower.look() {
                    *made = Some(Instant::now());
                }
            }
            if made.take_if(|made| made.elapsed() > MEMORY_KEPT).is_some() {
                allocator::give_back();
            }
        });
        if self.followers.iter().all(Follower::answers) {
            self.health.set_ready(true);
        }
        self.health.set_waits_for(self.followers.iter().find_map(Follower::waits_for));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Takes no more requests, and waits for those that are being worked on.
    ///
    /// # Errors
    /// A thread that panicked.
    pub fn end(self) -> anyhow::Result<()> {
        self.health.set_ready(false);
        self.health.set_phase("stopping");
        let stopped = self.server.stop();
        self.readings.into_iter().for_each(Reading::join);
        stopped
    }
}

/// Starts what reads topics behind the versions of an arm.
fn read(config: &Config, arm: &Arm, stop: &Arc<AtomicBool>) -> anyhow::Result<Reading> {
    let stock = arm.stock.clone();
    let (shelf, withdrawn) = (Arc::clone(&stock.shelf), Arc::clone(&stock.withdrawn));
    let started = Reader::new(config, stock, Arc::clone(&arm.metrics)).start(Arc::clone(stop));
    let withdrawals = Withdrawals::new(config, shelf, withdrawn).start(Arc::clone(stop));
    withdrawals.context("cannot start the thread that reads catalogues")?;
    started.context("cannot start the thread that reads histories")
}

/// What the page shows.
fn board(health: &Arc<Health>, arms: &Arc<Arms>) -> Board {
    let (registry, arms) = (arms.registry(), Arc::clone(arms));
    let refresh = move || {
        for arm in arms.iter() {
            arm.stock.standing.measure(&arm.metrics);
            arm.metrics.refresh(&arm.stock.shelf);
        }
    };
    // Beyond this machine it takes a key to look in.
    Board::new(Role::Serve, Arc::clone(health), registry, ServeMetrics::CURVES, true, refresh)
}
