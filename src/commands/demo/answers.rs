//! The demo's own model answers: for a moment, or for as long as the page is looked at.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::config::{ArmConfig, Config};
use crate::serve::{self, Serving};

/// It loads 2,000 items in a moment, and answers in less.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What a user is recommended, and what it did last.
#[derive(Debug)]
pub(super) struct UserAnswer {
    pub(super) user: String,
    pub(super) history: Vec<String>,
    pub(super) items: Vec<String>,
}

/// The config of a server on `listen` that answers from `config`'s checkpoints alone: the demo's
/// stream has ended.
fn serving(config: &Config, listen: &str) -> Config {
    let mut config = config.clone();
    listen.clone_into(&mut config.http.listen);
    config.serve.follow = false;
    config
}

/// Serves the newest checkpoint of `config` for a moment and asks it what to show these users.
///
/// # Errors
/// No port or no answer: both are bugs.
pub(super) fn ask(config: &Config, users: &[&str]) -> anyhow::Result<Vec<UserAnswer>> {
    let config = serving(config, "127.0.0.1:0");
    let arm = ArmConfig::only(&*config.checkpoint.directory);
    let mut serving = Serving::start(&config, &[arm], &Arc::default())?;
    serving.look();
    let address = serving.address();
    let answers = users.iter().map(|user| answer(address, user)).collect();
    serving.end()?;
    answers
}

/// Keeps the page up on `listen` until `stop` is set.
///
/// # Errors
/// An address that cannot be listened on.
pub(super) fn keep(config: &Config, listen: &str, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let config = serving(config, listen);
    let arm = ArmConfig::only(&*config.checkpoint.directory);
    serve::run(&config, &[arm], stop)
}

fn answer(address: SocketAddr, user: &str) -> anyhow::Result<UserAnswer> {
    let body = json!({ "query": { "user": user }, "k": 5, "explain": true }).to_string();
    let answer = post(address, "/v1/retrieve", &body)?;
    let ids = |list: &Value, id: fn(&Value) -> &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|entry| id(entry).as_str().map(str::to_owned)).collect()
    };
    let items = ids(&answer["items"], |item| &item["id"]);
    ensure!(!items.is_empty(), "no items in {answer}");
    let history = ids(&answer["explain"]["history"], |name| name);
    Ok(UserAnswer { user: user.to_owned(), history, items })
}

/// The JSON that `address` answers.
fn post(address: SocketAddr, path: &str, body: &str) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect(address).context("the demo's own server is not there")?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: demo\r\nConnection: close");
    write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(serde_json::from_str(body)?),
        _ => bail!("the demo's own server answers: {answer}"),
    }
}
