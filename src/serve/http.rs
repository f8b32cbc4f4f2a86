//! Routes, limits, and the threads between a socket and an answer.
//!
//! One thread talks to all connections and never computes. What a request asks for is computed on
//! threads of their own; a request beyond `serve.requests_max` is refused at once, so nothing
//! queues without a bound.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant as Moment, timeout_at};

use super::access::{Access, Keys};
use super::answer;
use super::metrics::{Route, ServeMetrics};
use super::problem::Problem;
use super::request::{Embed, Retrieve, Score, Similar, parse};
use super::shelf::{LATEST, Row, Shelf};
use super::version::Version;
use crate::config::Config;
use crate::telemetry::server::{self, Bounds};
use crate::telemetry::{Health, METRICS_TYPE};

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
const JSON: &str = "application/json";
const INDEX: &str = "millrace serve

POST /v1/retrieve                 the best items for a query
POST /v1/score                    scores of given items
POST /v1/embed                    a query's vector
GET  /v1/items/{id}               an item's vector
GET  /v1/items/{id}/similar       the items nearest to it
GET  /v1/versions                 what is in memory, and what answers
POST /v1/versions/{id}/activate   another version answers; `latest`: the newest, as it comes
GET  /metrics                     Prometheus text format
GET  /livez                       200 unless it has failed or is stuck (/healthz is the same)
GET  /readyz                      200 when answering, else what it waits for

docs/reference/serve.md
";

/// What requests share.
pub(super) struct App {
    shelf: Arc<Shelf>,
    health: Arc<Health>,
    metrics: Arc<ServeMetrics>,
    keys: Keys,
    pool: rayon::ThreadPool,
    permits: Arc<Semaphore>,
    requests_max: usize,
    body_bytes_max: usize,
    timeout_ms: u64,
    /// Requests to retrieve, for the sample.
    retrieved: AtomicU64,
}

impl App {
    pub(super) fn new(
        config: &Config,
        shelf: Arc<Shelf>,
        health: Arc<Health>,
        metrics: Arc<ServeMetrics>,
        pool: rayon::ThreadPool,
    ) -> Self {
        let serve = &config.serve;
        let keys = Keys::new(&serve.keys);
        let permits = Arc::new(Semaphore::new(serve.requests_max));
        let (requests_max, body_bytes_max) = (serve.requests_max, serve.body_bytes_max);
        let (timeout_ms, retrieved) = (serve.timeout_ms, AtomicU64::new(0));
        Self {
            shelf,
            health,
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
    fn version(&self, named: Option<&str>) -> Result<Arc<Version>, Problem> {
        let row = self.shelf.row();
        let Some(active) = &row.active else { return Err(Problem::no_version()) };
        let Some(id) = named else { return Ok(Arc::clone(active)) };
        row.get(id).cloned().ok_or_else(|| Problem::gone(id, row.ids()))
    }

    fn retrieve(&self, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let request: Retrieve = parse(body)?;
        request.check()?;
        let version = self.version(request.version.as_deref())?;
        let answer = answer::retrieve(&version, &request)?;
        if self.retrieved.fetch_add(1, Ordering::Relaxed).is_multiple_of(RECALL_EVERY)
            && let Some(recall) = answer::recall(&version, &request)
        {
            self.metrics.recall(recall);
        }
        Ok(answer)
    }

    fn score(&self, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let request: Score = parse(body)?;
        request.check()?;
        answer::score(&*self.version(request.version.as_deref())?, &request)
    }

    fn embed(&self, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let request: Embed = parse(body)?;
        answer::embed(&*self.version(request.version.as_deref())?, &request)
    }

    fn versions(&self) -> Result<Vec<u8>, Problem> {
        let row = self.shelf.row();
        let versions = row.versions.iter();
        let versions: Vec<_> =
            versions.map(|version| answer::described(version, row.is_active(version))).collect();
        let listed = serde_json::json!({ "held": row.held, "versions": versions });
        Ok(listed.to_string().into_bytes())
    }

    fn activate(&self, id: &str) -> Result<Vec<u8>, Problem> {
        let row: Arc<Row> = Arc::clone(&self.shelf.row());
        if row.versions.is_empty() {
            return Err(Problem::no_version());
        }
        let active = self.shelf.activate(id).ok_or_else(|| Problem::gone(id, row.ids()))?;
        tracing::info!(version = active, held = id != LATEST, "a request chose what answers");
        Ok(serde_json::json!({ "version": active, "held": id != LATEST }).to_string().into_bytes())
    }
}

/// All routes.
fn routes(app: Arc<App>) -> Router {
    /// A route whose body says all.
    macro_rules! body {
        ($route:expr, $answer:ident) => {
            post(|State(app): State<Arc<App>>, request: Request| {
                work(app, $route, Access::Read, request, |app, body| app.$answer(body))
            })
        };
    }
    let similar = |State(app): State<Arc<App>>, Path(id): Path<String>, request: Request| {
        let parameters = request.uri().query().unwrap_or_default().to_owned();
        work(app, Route::Similar, Access::Read, request, move |app, _| {
            answer::similar(&*app.version(None)?, &id, &Similar::parse(&parameters)?)
        })
    };
    let item = |State(app): State<Arc<App>>, Path(id): Path<String>, request: Request| {
        work(app, Route::Item, Access::Read, request, move |app, _| {
            answer::item(&*app.version(None)?, &id)
        })
    };
    let versions = |State(app): State<Arc<App>>, request: Request| {
        work(app, Route::Versions, Access::Read, request, |app, _| app.versions())
    };
    let activate = |State(app): State<Arc<App>>, Path(id): Path<String>, request: Request| {
        work(app, Route::Activate, Access::Admin, request, move |app, _| app.activate(&id))
    };
    let metrics = |State(app): State<Arc<App>>| async move {
        ([(CONTENT_TYPE, METRICS_TYPE)], app.metrics.render(&app.shelf.row()))
    };
    let livez = |State(app): State<Arc<App>>| async move { app.health.livez() };
    let readyz = |State(app): State<Arc<App>>| async move { app.health.readyz() };
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/v1/retrieve", body!(Route::Retrieve, retrieve))
        .route("/v1/score", body!(Route::Score, score))
        .route("/v1/embed", body!(Route::Embed, embed))
        .route("/v1/items/{id}", get(item))
        .route("/v1/items/{id}/similar", get(similar))
        .route("/v1/versions", get(versions))
        .route("/v1/versions/{id}/activate", post(activate))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .fallback(|| async { Problem::no_route() })
        .method_not_allowed_fallback(|| async { Problem::no_method() })
        .with_state(app)
}

/// One request from its head to its answer, within all limits.
async fn work(
    app: Arc<App>,
    route: Route,
    access: Access,
    request: Request,
    task: impl FnOnce(&App, &[u8]) -> Result<Vec<u8>, Problem> + Send + 'static,
) -> Response {
    let began = Instant::now();
    let answer = answered(&app, access, request, task).await;
    let response = match answer {
        Ok(bytes) => ([(CONTENT_TYPE, JSON)], bytes).into_response(),
        Err(problem) => problem.into_response(),
    };
    let status = response.status().as_u16();
    app.metrics.answered(route, status, began.elapsed().as_secs_f64());
    response
}

async fn answered(
    app: &Arc<App>,
    access: Access,
    request: Request,
    task: impl FnOnce(&App, &[u8]) -> Result<Vec<u8>, Problem> + Send + 'static,
) -> Result<Vec<u8>, Problem> {
    app.keys.check(request.headers(), access)?;
    let permit = Arc::clone(&app.permits).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy(app.requests_max))?;
    let deadline = Moment::now() + Duration::from_millis(app.timeout_ms);
    let body = body(app, request.into_body(), deadline).await?;
    let (sender, receiver) = oneshot::channel();
    let own = Arc::clone(app);
    app.pool.spawn_fifo(move || {
        // Nobody waits any more for what comes too late.
        if !sender.is_closed() {
            drop(sender.send(task(&own, &body)));
        }
        // Only now: what was given up on has its place until it ends.
        drop(permit);
    });
    match timeout_at(deadline, receiver).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(Problem::ours("the request failed; the log says more")),
        Err(_) => Err(Problem::late(app.timeout_ms)),
    }
}

/// The whole body, if it comes in time and is not too large.
async fn body(app: &App, body: Body, deadline: Moment) -> Result<Bytes, Problem> {
    let read = timeout_at(deadline, to_bytes(body, app.body_bytes_max)).await;
    let read = read.map_err(|_| Problem::slow(app.timeout_ms))?;
    read.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        match cause.to_string() {
            reason if reason.contains("length limit") => Problem::large(app.body_bytes_max as u64),
            reason => Problem::broken(format!("the body breaks off: {reason}")),
        }
    })
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
    pub(super) fn start(listen: &str, app: Arc<App>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(listen));
        let listener = listener
            .with_context(|| format!("cannot listen on {listen}; set another http.listen"))?;
        let address = listener.local_addr()?;
        let (shutdown, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.unwrap_or_default() };
        let bounds = app.bounds();
        let served = server::serve(listener, routes(app), bounds, stopped);
        let thread = std::thread::Builder::new().name("http".into());
        let thread = thread.spawn(move || runtime.block_on(served))?;
        Ok(Self { shutdown, thread, address })
    }

    /// Takes no more connections, and waits for the requests that are being worked on.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        drop(self.shutdown);
        self.thread.join().map_err(|_| anyhow!("the HTTP thread panicked"))
    }
}
