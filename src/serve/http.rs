//! The server: limits, and the threads between a socket and an answer.
//!
//! One thread talks to all connections and never computes. What a request asks for is computed on
//! threads of their own; a request beyond `serve.requests_max` is refused at once, so nothing
//! queues without a bound.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use super::access::Keys;
use super::answer;
use super::arms::{Arm, Arms};
use super::listing;
use super::parameters::{OfArm, Pin, Similar};
use super::problem::Problem;
use super::request::{Embed, Fields, Retrieve, Score, Wanted, parse};
use super::shelf::{LATEST, Row};
use super::version::Version;
use crate::config::Config;
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

/// What requests share.
pub(super) struct App {
    pub(super) arms: Arc<Arms>,
    pub(super) board: Arc<Board>,
    pub(super) keys: Keys,
    pub(super) pool: rayon::ThreadPool,
    pub(super) permits: Arc<Semaphore>,
    pub(super) requests_max: usize,
    pub(super) body_bytes_max: usize,
    pub(super) timeout_ms: u64,
}

impl App {
    pub(super) fn new(
        config: &Config,
        arms: Arc<Arms>,
        board: Arc<Board>,
        pool: rayon::ThreadPool,
    ) -> Self {
        let serve = &config.serve;
        let keys = Keys::new(&serve.keys);
        let permits = Arc::new(Semaphore::new(serve.requests_max));
        let (requests_max, body_bytes_max) = (serve.requests_max, serve.body_bytes_max);
        let timeout_ms = serve.timeout_ms;
        Self { arms, board, keys, pool, permits, requests_max, body_bytes_max, timeout_ms }
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

    /// The arm and the version that are to answer. `place` becomes that of the arm.
    pub(super) fn chosen(
        &self,
        wanted: Wanted<'_>,
        place: &mut usize,
    ) -> Result<(&Arm, Arc<Version>), Problem> {
        *place = self.arms.place(wanted)?;
        Ok((self.arms.at(*place), self.arms.version(*place, wanted.version)?))
    }

    pub(super) fn retrieve(&self, body: &[u8], place: &mut usize) -> Result<Vec<u8>, Problem> {
        let mut request: Retrieve = parse(body)?;
        request.check()?;
        match request.queries.take() {
            Some(queries) if self.arms.are_several() && !request.names_arm() => {
                self.retrieve_by_arm(request, queries, place)
            }
            queries => {
                request.queries = queries;
                self.retrieve_from_one(&request, place)
            }
        }
    }

    fn retrieve_from_one(&self, request: &Retrieve, place: &mut usize) -> Result<Vec<u8>, Problem> {
        let (arm, version) = self.chosen(request.wanted(), place)?;
        let view = arm.view(&version);
        let answer = answer::retrieve(view, request)?;
        let asked = (request.k()?, request.popularity.unwrap_or(version.popularity));
        arm.samples.count(&version, asked, || answer::first_vector(view, request));
        Ok(answer)
    }

    /// Each query is answered as if it had come alone, by its own arm.
    fn retrieve_by_arm(
        &self,
        mut request: Retrieve,
        queries: Vec<Fields>,
        place: &mut usize,
    ) -> Result<Vec<u8>, Problem> {
        let mut answers = Vec::with_capacity(queries.len());
        for (at, query) in queries.into_iter().enumerate() {
            request.query = Some(query);
            let answer = self.retrieve_from_one(&request, place);
            answers.push(answer.map_err(|problem| problem.of_query(at))?);
        }
        Ok([b"{\"answers\":[", &answers.join(&b","[..])[..], b"]}"].concat())
    }

    pub(super) fn score(&self, body: &[u8], place: &mut usize) -> Result<Vec<u8>, Problem> {
        let request: Score = parse(body)?;
        request.check()?;
        let (arm, version) = self.chosen(request.wanted(), place)?;
        answer::score(arm.view(&version), &request)
    }

    pub(super) fn embed(&self, body: &[u8], place: &mut usize) -> Result<Vec<u8>, Problem> {
        let request: Embed = parse(body)?;
        let (arm, version) = self.chosen(request.wanted(), place)?;
        answer::embed(arm.view(&version), &request)
    }

    pub(super) fn item(&self, id: &str, pin: &Pin, place: &mut usize) -> Result<Vec<u8>, Problem> {
        let (arm, version) = self.chosen(pin.wanted(), place)?;
        answer::item(arm.view(&version), id)
    }

    pub(super) fn similar(
        &self,
        id: &str,
        request: &Similar,
        place: &mut usize,
    ) -> Result<Vec<u8>, Problem> {
        let (arm, version) = self.chosen(request.pin.wanted(), place)?;
        answer::similar(arm.view(&version), id, request)
    }

    pub(super) fn versions(&self, arm: &OfArm, place: &mut usize) -> Result<Vec<u8>, Problem> {
        *place = self.arms.place(arm.wanted())?;
        let arm = self.arms.at(*place);
        let row = arm.stock.shelf.row();
        bytes(&listing::listed(&row, arm, &self.arms))
    }

    pub(super) fn activate(
        &self,
        id: &str,
        arm: &OfArm,
        place: &mut usize,
    ) -> Result<Vec<u8>, Problem> {
        let version = Some(id).filter(|id| *id != LATEST);
        if arm.arm.is_none() && version.is_none() && self.arms.are_several() {
            return Err(Problem::field("arm", "is missing: whose newest version is to answer?"));
        }
        *place = self.arms.place(Wanted { version, ..arm.wanted() })?;
        let arm = self.arms.at(*place);
        let shelf = &arm.stock.shelf;
        let row: Arc<Row> = Arc::clone(&shelf.row());
        if row.versions.is_empty() {
            return Err(Problem::no_version());
        }
        let active = shelf.activate(id).ok_or_else(|| Problem::gone(id, row.ids()))?;
        let held = id != LATEST;
        tracing::info!(arm = arm.name(), version = active, held, "a request chose what answers");
        bytes(&listing::Activated { arm: arm.name(), version: &active, held })
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
