//! The server: limits, and the threads between a socket and an answer.
//!
//! One thread talks to all connections and never computes. What a request asks for is computed on
//! threads of their own; a request beyond `serve.requests_max` is refused at once, so nothing
//! queues without a bound.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use super::access::Keys;
use super::answer;
use super::metrics::ServeMetrics;
use super::problem::Problem;
use super::query::View;
use super::recent::Recent;
use super::request::{Embed, Pin, Retrieve, Score, Similar, parse};
use super::shelf::{LATEST, Row, Shelf};
use super::standing::{Standing, State};
use super::version::Version;
use super::withdrawn::Withdrawn;
use crate::config::{Config, ServeConfig};
use crate::telemetry::server::{self, Bounds};
use crate::telemetry::{self, Board};

/// How long requests that are being worked on hold up the end.
const DRAIN: Duration = Duration::from_secs(5);
/// A proxy gives up a connection that is idle for 60 s. It must be the first to do so, or a request
/// meets a closed port.
const HEADER: Duration = Duration::from_secs(65);
/// So seldom that nobody notices the new connection; one that does not read its answers keeps its
/// place no longer.
const LIFETIME: Duration = Duration::from_secs(600);
/// Places for probes, Prometheus and people.
const CONNECTIONS_SPARE: usize = 64;
const HEADER_BYTES: usize = 16 << 10;
/// Every so-many-th request to retrieve is answered exactly as well: a scan of a million items in
/// `f32` takes fifteen milliseconds.
const RECALL_EVERY: u64 = 1000;

/// What answers are made of.
#[derive(Clone)]
pub(super) struct Stock {
    pub(super) shelf: Arc<Shelf>,
    pub(super) recent: Arc<Recent>,
    pub(super) standing: Arc<Standing>,
    pub(super) withdrawn: Arc<Withdrawn>,
}

impl Stock {
    /// Nothing yet.
    pub(super) fn new(config: &ServeConfig) -> Self {
        let state = if config.follow { State::Waiting } else { State::Off };
        Self {
            shelf: Arc::new(Shelf::new(config.keep_versions)),
            recent: Arc::new(Recent::new(config.follow_bytes_max)),
            standing: Arc::new(Standing::new(state)),
            withdrawn: Arc::default(),
        }
    }
}

/// What requests share.
pub(super) struct App {
    pub(super) stock: Stock,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<ServeMetrics>,
    pub(super) keys: Keys,
    pub(super) pool: rayon::ThreadPool,
    pub(super) permits: Arc<Semaphore>,
    pub(super) requests_max: usize,
    pub(super) body_bytes_max: usize,
    pub(super) timeout_ms: u64,
    /// Requests to retrieve, for the sample.
    retrieved: AtomicU64,
}

impl App {
    pub(super) fn new(
        config: &Config,
        stock: Stock,
        board: Arc<Board>,
        metrics: Arc<ServeMetrics>,
        pool: rayon::ThreadPool,
    ) -> Self {
        let serve = &config.serve;
        let keys = Keys::new(&serve.keys);
        let permits = Arc::new(Semaphore::new(serve.requests_max));
        let (requests_max, body_bytes_max) = (serve.requests_max, serve.body_bytes_max);
        let (timeout_ms, retrieved) = (serve.timeout_ms, AtomicU64::new(0));
        Self {
            stock,
            board,
            metrics,
            keys,
            pool,
            permits,
            requests_max,
            body_bytes_max,
            timeout_ms,
            retrieved,
        }
    }

    /// Twice as many connections as requests that are worked on: those beyond are told at once that
    /// it is busy.
    fn bounds(&self) -> Bounds {
        Bounds {
            connections: 2 * self.requests_max + CONNECTIONS_SPARE,
            header: HEADER,
            header_bytes: HEADER_BYTES,
            body_bytes: self.body_bytes_max as u64,
            too_large: |most| Problem::large(most).into_response(),
            lifetime: LIFETIME,
            grace: DRAIN,
        }
    }

    /// The version that a request names, or the one that answers.
    pub(super) fn version(&self, named: Option<&str>) -> Result<Arc<Version>, Problem> {
        let row = self.stock.shelf.row();
        let Some(active) = &row.active else { return Err(Problem::no_version()) };
        let Some(id) = named else { return Ok(Arc::clone(active)) };
        row.get(id).cloned().ok_or_else(|| Problem::gone(id, row.ids()))
    }

    pub(super) fn view<'v>(&'v self, version: &'v Version) -> View<'v> {
        let Stock { recent, withdrawn, .. } = &self.stock;
        View { version, recent, withdrawn }
    }

    pub(super) fn retrieve(&self, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let request: Retrieve = parse(body)?;
        request.check()?;
        let version = self.version(request.version.as_deref())?;
        let view = self.view(&version);
        let answer = answer::retrieve(view, &request)?;
        if self.retrieved.fetch_add(1, Ordering::Relaxed).is_multiple_of(RECALL_EVERY)
            && let Some(recall) = answer::recall(view, &request)
        {
            self.metrics.recall(recall);
        }
        Ok(answer)
    }

    pub(super) fn score(&self, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let request: Score = parse(body)?;
        request.check()?;
        let version = self.version(request.version.as_deref())?;
        answer::score(self.view(&version), &request)
    }

    pub(super) fn embed(&self, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let request: Embed = parse(body)?;
        let version = self.version(request.version.as_deref())?;
        answer::embed(self.view(&version), &request)
    }

    pub(super) fn item(&self, id: &str, pin: &Pin) -> Result<Vec<u8>, Problem> {
        let version = self.version(pin.version.as_deref())?;
        answer::item(self.view(&version), id)
    }

    pub(super) fn similar(&self, id: &str, request: &Similar) -> Result<Vec<u8>, Problem> {
        let version = self.version(request.version.as_deref())?;
        answer::similar(self.view(&version), id, request)
    }

    pub(super) fn versions(&self) -> Result<Vec<u8>, Problem> {
        let row = self.stock.shelf.row();
        bytes(&answer::listed(&row, self.stock.standing.described()))
    }

    pub(super) fn activate(&self, id: &str) -> Result<Vec<u8>, Problem> {
        let row: Arc<Row> = Arc::clone(&self.stock.shelf.row());
        if row.versions.is_empty() {
            return Err(Problem::no_version());
        }
        let active = self.stock.shelf.activate(id);
        let active = active.ok_or_else(|| Problem::gone(id, row.ids()))?;
        tracing::info!(version = active, held = id != LATEST, "a request chose what answers");
        bytes(&answer::Activated { version: &active, held: id != LATEST })
    }
}

/// An answer's JSON.
pub(super) fn bytes(answer: &impl serde::Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(answer).map_err(|error| Problem::ours(error.to_string()))
}

/// The running server.
pub(super) struct Server {
    shutdown: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    /// Where it listens; the port is the real one if the config said 0.
    pub(super) address: SocketAddr,
}

impl Server {
    /// Listens on `listen`, and answers on a thread of its own.
    pub(super) fn start(listen: &str, app: &App, router: Router) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(listen));
        let listener = listener
            .with_context(|| format!("cannot listen on {listen}; set another http.listen"))?;
        let address = listener.local_addr()?;
        let (shutdown, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.unwrap_or_default() };
        let bounds = app.bounds();
        let board = Arc::clone(&app.board);
        let served = server::serve(listener, router, bounds, stopped);
        let thread = std::thread::Builder::new().name("http".into());
        let thread = thread.spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = served => {}
                    () = telemetry::sample(&board) => {}
                }
            });
        })?;
        Ok(Self { shutdown, thread, address })
    }

    /// Takes no more connections, and waits for the requests that are being worked on.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        drop(self.shutdown);
        self.thread.join().map_err(|_| anyhow!("the HTTP thread panicked"))
    }
}
