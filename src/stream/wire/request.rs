//! One question to the registry over HTTP, with a bound on its time and on its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::RegistryConfig;

/// Schemas are kilobytes; what is larger is none.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Where the address names no port.
const PORT: u16 = 80;

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Client {
    host: String,
    path: String,
    login: Option<String>,
    timeout: Duration,
}

impl Client {
    /// As `config` has it.
    ///
    /// # Errors
    /// It names no address of ours.
    pub(super) fn new(config: &RegistryConfig) -> anyhow::Result<Client> {
        let (host, path) =
            config.address().map_err(|reason| anyhow::anyhow!("registry.url: {reason}"))?;
        let login = format!("{}:{}", config.user, config.password);
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        Ok(Client {
            host: host.to_owned(),
            path: path.to_owned(),
            login: (!config.user.is_empty()).then(|| format!("Basic {login}")),
            timeout: Duration::from_millis(config.timeout_ms),
        })
    }

    /// What is answered to `GET path`.
    ///
    /// # Errors
    /// There is no answer, or none in time.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let answer = tokio::time::timeout(self.timeout, self.answer(path)).await;
            answer.with_context(|| format!("no answer within {} ms", self.timeout.as_millis()))?
        });
        // A name server that does not answer would hold us for longer.
        runtime.shutdown_background();
        answer
    }

    async fn answer(&self, path: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let named = self.host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if named { self.host.clone() } else { format!("{}:{PORT}", self.host) };
        let socket = TcpStream::connect(&address).await;
        let socket = socket.with_context(|| format!("no connection to {address}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let request = Request::get(format!("{}{path}", self.path))
            .header(HOST, &self.host)
            .header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
        let request = match &self.login {
            None => request,
            Some(login) => request.header(AUTHORIZATION, login),
        };
        let request = request.body(String::new())?;
        let exchange = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let (mut body, mut bytes) = (pin!(answer.into_body()), Vec::new());
            while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
                bytes.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
                anyhow::ensure!(bytes.len() <= BODY_BYTES_MAX, "an answer of megabytes");
            }
            Ok((status, bytes))
        };
        // The connection has to be driven for the exchange to go on; its own end says nothing more.
        let driven = async {
            match connection.await {
                Ok(()) => std::future::pending().await,
                Err(error) => Err(error.into()),
            }
        };
        tokio::select! {
            biased;
            answer = exchange => answer,
            failed = driven => failed,
        }
    }
}
