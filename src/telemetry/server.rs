//! HTTP/1 for a router, with bounds on all that a stranger decides: how many connections there are,
//! how long one takes for its request, how long it stays, how much it sends.
//!
//! Must never know: what the routes are about.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Bounds on what others send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at a time; those beyond wait in the kernel's backlog, unanswered.
    pub(crate) connections: usize,
    /// From a connection's begin, or from its last answer, to the end of a request's header.
    pub(crate) header: Duration,
    /// Bytes of a request's header; 8 KiB at least, which hyper asks for.
    pub(crate) header_bytes: usize,
    /// Bytes of a request's body.
    pub(crate) body_bytes: u64,
    /// Says to a request that its body has more than those.
    pub(crate) too_large: fn(u64) -> Response,
    /// A connection takes no further request after this long.
    pub(crate) lifetime: Duration,
    /// What is in progress when a connection is to end has this long.
    pub(crate) grace: Duration,
}

/// A listener that was out of descriptors tries again after this long.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves `router` until `shutdown` resolves, and then what is in progress for the time of grace.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    shutdown: impl Future<Output = ()> + Send,
) {
    let limit = usize::try_from(bounds.body_bytes).unwrap_or(usize::MAX);
    let bounded = from_fn(move |request, next| refuse_large(bounds, request, next));
    let router = router.layer(DefaultBodyLimit::max(limit)).layer(bounded);
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = async {
            // A slot first: what is not accepted costs this process nothing.
            let slot = Arc::clone(&slots).acquire_owned().await.expect("nobody closes it");
            (slot, accept(&listener).await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (slot, stream) = accepted => {
                let ended = stopped.clone();
                connections.spawn(connection(stream, router.clone(), bounds, ended, slot));
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop((listener, stopping));
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(bounds.grace, rest).await.is_err() {
        tracing::debug!("closed the port on connections that were still open");
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // A connection that went before it was taken, or no descriptor is left.
            Err(error) => {
                tracing::debug!(%error, "no connection was accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, which holds `_slot` while it is there. `ended` closes when the server
/// ends.
async fn connection(
    stream: TcpStream,
    router: Router,
    bounds: Bounds,
    mut ended: watch::Receiver<()>,
    _slot: OwnedSemaphorePermit,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header)
        .max_buf_size(bounds.header_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    tokio::select! {
        served = served.as_mut() => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
            return;
        }
        _ = ended.changed() => {}
        () = sleep(bounds.lifetime) => {}
    }
    served.as_mut().graceful_shutdown();
    if timeout(bounds.grace, served).await.is_err() {
        tracing::debug!("closed a connection that did not end");
    }
}

/// Refuses a request that announces a body above the bound. One that announces nothing is cut off
/// by whoever reads it, or not read at all.
async fn refuse_large(
    bounds: Bounds,
    request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    if request.body().size_hint().lower() > bounds.body_bytes {
        let close = [(header::CONNECTION, "close")];
        return Ok((close, (bounds.too_large)(bounds.body_bytes)).into_response());
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Instant;

    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use tokio::sync::oneshot;

    use super::*;

    /// Nothing that a test waits for takes longer, even on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Bounds that no test meets, but for the one that it sets.
    const WIDE: Bounds = Bounds {
        connections: 100,
        header: PATIENCE,
        header_bytes: 8 << 10,
        body_bytes: 1 << 10,
        too_large: |bytes| (StatusCode::PAYLOAD_TOO_LARGE, format!("{bytes}\n")).into_response(),
        lifetime: PATIENCE,
        grace: Duration::from_secs(1),
    };

    struct Server {
        address: SocketAddr,
        _stop: oneshot::Sender<()>,
    }

    impl Server {
        fn start(bounds: Bounds) -> Server {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a free port");
            socket.set_nonblocking(true).expect("tokio asks for this");
            let address = socket.local_addr().expect("bound");
            let (_stop, stopped) = oneshot::channel::<()>();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async move {
                    let listener = TcpListener::from_std(socket).expect("a socket");
                    let routes = Router::new()
                        .route("/", get(|| async { "here" }))
                        .route("/text", post(|text: String| async move { text }))
                        .route("/large", get(|| async { "x".repeat(64 << 20) }));
                    serve(listener, routes, bounds, async { stopped.await.unwrap_or_default() })
                        .await;
                });
            });
            Server { address, _stop }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.address).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream
        }
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

    /// What comes until the server closes the connection.
    fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            // Closed with some of our bytes unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error} after {} bytes", bytes.len()),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The answer to one request on a connection that stays.
    fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(GET).expect("send");
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        String::from_utf8(answer).expect("text")
    }

    #[test]
    fn a_header_that_does_not_end_closes_its_connection() {
        let header = Duration::from_millis(300);
        let server = Server::start(Bounds { header, ..WIDE });
        let mut slow = server.connect();
        slow.write_all(b"GET / HT").expect("send");
        let began = Instant::now();
        rest(&mut slow);
        assert!(began.elapsed() >= header / 2, "closed after {:?}", began.elapsed());
        // Bytes that trickle in make it no longer: the whole header has this long.
        let mut trickle = server.connect();
        let began = Instant::now();
        while trickle.write_all(b"G").is_ok() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() < PATIENCE, "it is never closed");
        // Nor does one that asked before, and now says nothing.
        let mut silent = server.connect();
        assert!(ask(&mut silent).starts_with("HTTP/1.1 200"));
        rest(&mut silent);
    }

    #[test]
    fn connections_beyond_the_bound_wait_until_one_ends() {
        let server = Server::start(Bounds { connections: 3, ..WIDE });
        let mut held: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
        held.iter_mut().for_each(|stream| assert!(ask(stream).starts_with("HTTP/1.1 200")));
        let mut fourth = server.connect();
        fourth.write_all(GET).expect("the kernel takes it");
        fourth.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let error = fourth.read(&mut [0]).expect_err("nobody reads it yet");
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        drop(held.pop());
        fourth.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut begin = [0; 12];
        fourth.read_exact(&mut begin).expect("its turn has come");
        assert_eq!(&begin, b"HTTP/1.1 200");
    }

    #[test]
    fn a_header_or_a_body_that_is_too_large_is_refused() {
        let server = Server::start(WIDE);
        let mut stream = server.connect();
        let long = "x".repeat(2 * WIDE.header_bytes);
        // The server may close before all of it is sent.
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n").as_bytes()).ok();
        let answer = rest(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");

        let mut stream = server.connect();
        let head = "POST /text HTTP/1.1\r\nHost: test\r\n";
        write!(stream, "{head}Content-Length: 1000000000000\r\n\r\n").expect("send");
        let answer = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("1024\n"), "{answer}");

        // In pieces, with no length announced.
        let mut stream = server.connect();
        write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n").expect("send");
        let piece = format!("400\r\n{}\r\n", "x".repeat(0x400));
        let began = Instant::now();
        while stream.write_all(piece.as_bytes()).is_ok() {
            assert!(began.elapsed() < PATIENCE, "it takes all there is");
        }

        let mut stream = server.connect();
        write!(stream, "{head}Connection: close\r\nContent-Length: 4\r\n\r\nword").expect("send");
        let answer = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("word"), "{answer}");
    }

    #[test]
    fn a_connection_that_does_not_read_its_answer_is_closed() {
        let lifetime = Duration::from_millis(200);
        let bounds = Bounds { connections: 1, lifetime, ..WIDE };
        let server = Server::start(bounds);
        let mut deaf = server.connect();
        deaf.write_all(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n").expect("send");
        // The only slot is free again.
        let mut next = server.connect();
        assert!(ask(&mut next).starts_with("HTTP/1.1 200"));
        assert!(rest(&mut deaf).len() < 64 << 20);
    }
}
