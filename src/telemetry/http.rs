//! Metrics, health and the page over HTTP.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::get;
use tokio::net::TcpListener;

use super::board::{Board, json, page};
use super::curves::EVERY as SAMPLE_EVERY;
use super::server::{self, Bounds};

/// How long open connections may hold up the end of [`serve`]. Longer eats into the ten seconds
/// that a stopping trainer has for its last checkpoint; shorter cuts off a scrape under load.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// For a few Prometheus servers, probes and people: 64 connections of 16 KiB and a scrape's text
/// each are some 10 MB. A header comes in one packet, so 5 s are patience; a connection that is
/// kept for the next scrape, 15 s later, is made anew. No route takes a body.
const BOUNDS: Bounds = Bounds {
    connections: 64,
    header: Duration::from_secs(5),
    header_bytes: 16 << 10,
    body_bytes: 0,
    too_large: |_| (StatusCode::PAYLOAD_TOO_LARGE, "too large\n").into_response(),
    lifetime: Duration::from_secs(60),
    grace: SHUTDOWN_GRACE,
};

/// Content type of the Prometheus text format, as Prometheus asks for it.
pub(crate) const METRICS_TYPE: &str = "text/plain; version=0.0.4";
const INDEX: &str = "millrace

/         in a browser: how it goes, as curves
/metrics  Prometheus text format
/livez    200 unless it has failed or is stuck (/healthz is the same)
/readyz   200 when training, else what it waits for
";

/// Serves `/metrics`, `/healthz`, `/readyz` and the page until `shutdown` resolves, then waits at
/// most `SHUTDOWN_GRACE` for open requests. What `board` refreshes runs on the HTTP thread, so it
/// must not block.
pub async fn serve(
    listener: TcpListener,
    board: Arc<Board>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let served = server::serve(listener, routes(Arc::clone(&board)), BOUNDS, shutdown);
    tokio::select! {
        () = served => {}
        () = sample(&board) => {}
    }
}

/// Takes the curves' points, without an end.
pub(crate) async fn sample(board: &Board) {
    loop {
        board.sample();
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}

type Shared = State<Arc<Board>>;

fn routes(board: Arc<Board>) -> Router {
    let metrics =
        |State(board): Shared| async move { ([(CONTENT_TYPE, METRICS_TYPE)], board.render()) };
    let livez = |State(board): Shared| async move { board.health().livez() };
    let readyz = |State(board): Shared| async move { board.health().readyz() };
    let points = |State(board): Shared, RawQuery(parameters): RawQuery| async move {
        json(board.points(&parameters.unwrap_or_default()))
    };
    Router::new()
        .route("/", get(|head: HeaderMap| async move { page(&head, INDEX) }))
        .route("/status.json", get(|State(board): Shared| async move { json(board.status()) }))
        .route("/curves.json", get(points))
        .route("/metrics", get(metrics))
        .route("/healthz", get(livez))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(board)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use tokio::sync::oneshot;

    use super::super::{Health, Registry, Role};
    use super::*;

    /// A server on a free port, in a thread of its own, as the trainer runs it.
    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        thread: std::thread::JoinHandle<()>,
    }

    impl Server {
        fn start(health: &Arc<Health>) -> Server {
            let health = Arc::clone(health);
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a free port");
            socket.set_nonblocking(true).expect("tokio asks for this");
            let address = socket.local_addr().expect("bound");
            let (stop, stopped) = oneshot::channel::<()>();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async move {
                    let listener = TcpListener::from_std(socket).expect("a socket");
                    let registry = Registry::new();
                    let scrapes = registry.counter("scrapes_total", "Scrapes.");
                    let refresh = move || scrapes.inc();
                    let board = Board::new(Role::Train, health, registry, &[], true, refresh);
                    let shutdown = async { stopped.await.unwrap_or_default() };
                    serve(listener, Arc::new(board), shutdown).await;
                });
            });
            Server { address, stop, thread }
        }

        fn get(&self, path: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.address).expect("connect");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                .expect("send");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("read");
            let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
            (status, answer)
        }

        fn stop(self) {
            self.stop.send(()).expect("the server still runs");
            self.thread.join().expect("no panic");
        }
    }

    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").expect("headers end").1
    }

    #[test]
    fn health_tells_what_it_waits_for_and_why_it_failed() {
        let health = Arc::new(Health::new());
        let server = Server::start(&health);
        let (status, answer) = server.get("/readyz");
        assert_eq!((status, body(&answer)), (503, "starting: the process\n"));
        health.set_phase("restoring the checkpoint");
        let (status, answer) = server.get("/readyz");
        assert_eq!((status, body(&answer)), (503, "starting: restoring the checkpoint\n"));
        health.set_ready(true);
        assert_eq!(server.get("/readyz").0, 200);
        health.set_waits_for(Some("the brokers: none answers".to_owned()));
        let (status, answer) = server.get("/readyz");
        assert_eq!((status, body(&answer)), (503, "waits for the brokers: none answers\n"));
        assert_eq!(server.get("/livez").0, 200, "a restart would not help");
        health.set_waits_for(None);
        assert_eq!(server.get("/readyz").0, 200);
        let (status, answer) = server.get("/healthz");
        assert_eq!((status, body(&answer)), (200, "ok\n"));
        let stuck = Arc::new(AtomicBool::new(true));
        let watched = Arc::clone(&stuck);
        health.watch(move || watched.load(Ordering::Relaxed).then(|| "a step".to_owned()));
        let (status, answer) = server.get("/livez");
        assert_eq!((status, body(&answer)), (503, "stuck: a step\n"));
        assert_eq!(server.get("/readyz").0, 200, "until somebody restarts it, it may go on");
        stuck.store(false, Ordering::Relaxed);
        assert_eq!(server.get("/livez").0, 200);
        health.fail("the disk is full".to_owned());
        health.fail("the source stopped".to_owned());
        let (status, answer) = server.get("/healthz");
        assert_eq!((status, body(&answer)), (503, "failed: the disk is full\n"));
        assert_eq!(server.get("/readyz").0, 503, "a failed process takes no work");
        server.stop();
    }

    #[test]
    fn every_scrape_is_rendered_anew() {
        let server = Server::start(&Arc::new(Health::new()));
        let scrape = || {
            let (status, answer) = server.get("/metrics");
            assert!(
                status == 200 && answer.contains("content-type: text/plain; version=0.0.4\r\n")
            );
            let count =
                answer.lines().find_map(|line| line.strip_prefix("millrace_scrapes_total "));
            count.expect("the series").parse::<u64>().expect("a number")
        };
        assert!(scrape() < scrape());
        let (status, answer) = server.get("/");
        assert_eq!(status, 200);
        assert!(body(&answer).contains("/metrics"), "a browser gets the page");
        let status: serde_json::Value =
            serde_json::from_str(body(&server.get("/status.json").1)).expect("JSON");
        assert_eq!(status["role"], "train");
        assert_eq!(server.get("/curves.json?span=day&after=5").0, 200);
        assert_eq!(server.get("/nowhere").0, 404);
        server.stop();
    }

    #[test]
    fn an_open_connection_does_not_hold_up_the_end() {
        let server = Server::start(&Arc::new(Health::new()));
        // Half a request: hyper waits for the rest of it, graceful shutdown or not.
        let mut slow = TcpStream::connect(server.address).expect("connect");
        slow.write_all(b"GET /metrics HT").expect("send");
        assert_eq!(server.get("/healthz").0, 200);
        let began = Instant::now();
        server.stop();
        assert!(began.elapsed() < SHUTDOWN_GRACE * 4, "took {:?}", began.elapsed());
    }
}
