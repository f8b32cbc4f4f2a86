//! The outside world on one tokio thread: signals and HTTP.
//!
//! Owns the runtime, the listener and the stop flag's setting by SIGTERM and SIGINT. The flag is
//! all that the rest of the program sees of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::telemetry::Board;

/// The running edge. Dropping it closes the port.
pub struct Edge {
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The address of HTTP, if there is a server (the port is the real one if the config said 0).
    pub address: Option<SocketAddr>,
}

impl Edge {
    /// Shows a board on an address (empty: no server) and turns SIGTERM and SIGINT into `stop`; a
    /// second signal ends the process at once.
    ///
    /// # Errors
    /// An address that cannot be bound.
    pub fn start(http: Option<(&str, Arc<Board>)>, stop: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = match &http {
            None | Some(("", _)) => None,
            Some((listen, _)) => Some(
                runtime.block_on(tokio::net::TcpListener::bind(listen)).with_context(|| {
                    format!("cannot listen on {listen}; set another http.listen, or \"\" for none")
                })?,
            ),
        };
        let address = listener.as_ref().map(tokio::net::TcpListener::local_addr).transpose()?;
        let board = http.map(|(_, board)| board);
        let says = match board {
            Some(_) => "stopping; what is trained gets a last checkpoint",
            None => "stopping",
        };
        let (shutdown, closed) = oneshot::channel();
        let thread = std::thread::Builder::new().name("edge".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::spawn(watch_signals(stop, says));
                let closed = async move { closed.await.unwrap_or_default() };
                match listener.zip(board) {
                    None => closed.await,
                    Some((listener, board)) => {
                        crate::telemetry::serve(listener, board, closed).await;
                    }
                }
            });
        })?;
        Ok(Self { shutdown: Some(shutdown), thread: Some(thread), address })
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

/// `says` is what a signal leads to.
async fn watch_signals(stop: Arc<AtomicBool>, says: &str) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot watch signals: SIGTERM will not take a last checkpoint");
        return;
    };
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if stop.swap(true, Ordering::Relaxed) {
            tracing::warn!("second {name}: stopping at once");
            std::process::exit(1);
        }
        tracing::info!("{name}: {says}");
    }
}
