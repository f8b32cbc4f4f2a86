//! The schemas of a registry: asked for by id on a thread of their own, and kept.
//!
//! A registry that does not answer is asked again until it does, and nobody's records are rejected
//! meanwhile; one that answers that it knows no such schema is believed for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use hyper::StatusCode;
use serde::Deserialize;

use super::request::Client;
use crate::config::{Config, RecordFormat};
use crate::stream::decode::{DecodeError, Schema, Text};
use crate::stream::refusal::{REFUSED_AT_START_MAX, REFUSED_MAX};

/// Schemas that are kept: a topic has dozens. Beyond it all are asked for anew.
const KNOWN_MAX: usize = 1000;
/// Questions that wait for the thread; whoever still lacks an answer asks again.
const WANTED_MAX: usize = 64;
/// Between two tries at a registry that is away: at first, and after many.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// A registry of several nodes may learn of a schema a moment after its first record was written.
const SETTLES: Duration = Duration::from_secs(1);
/// For so long an id that it does not know is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// Schemas that one may refer to, directly or not: protects from a circle.
const REFERENCES_MAX: usize = 100;

/// What is known of the registry's schemas.
#[derive(Debug)]
pub(in crate::stream) struct Registry {
    shared: Arc<Shared>,
    /// Closed with the last reader: then the thread ends.
    wanted: Sender<u32>,
}

#[derive(Debug, Default)]
struct Shared {
    known: RwLock<HashMap<u32, Known>>,
    standing: Mutex<Standing>,
}

#[derive(Clone, Debug)]
enum Known {
    Usable(Arc<Schema>),
    /// For this reason its records are rejected, until then.
    Not(DecodeError, Instant),
}

/// How the registry stands.
#[derive(Debug, Default)]
struct Standing {
    answered: bool,
    away: Option<Away>,
}

#[derive(Debug)]
struct Away {
    why: String,
    /// It answers, and what it says takes a person.
    refuses: bool,
    since: Instant,
}

impl Registry {
    /// As `config` has it. Nobody is asked for anything yet.
    ///
    /// # Errors
    /// It names none, or no thread can be had.
    pub(super) fn open(config: &Config) -> anyhow::Result<Registry> {
        let (sender, wanted) = crossbeam_channel::bounded(WANTED_MAX);
        let shared = Arc::new(Shared::default());
        let asker = Asker {
            client: Client::new(&config.registry)?,
            url: config.registry.url.clone(),
            format: config.kafka.format,
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("schemas".into())
            .spawn(move || asker.serve(&wanted))
            .context("no thread for schemas")?;
        Ok(Registry { shared, wanted: sender })
    }

    /// Schema `id`, or why its records are rejected. None: it is not known yet, and asked for.
    pub(super) fn get(&self, id: u32) -> Option<Result<Arc<Schema>, DecodeError>> {
        let known = self.shared.get(id);
        if known.is_none() {
            // A full queue takes the question the next time.
            self.wanted.try_send(id).ok();
        }
        known
    }

    /// Why it gives nothing.
    pub(super) fn away(&self) -> Option<String> {
        self.shared.standing().away.as_ref().map(|away| away.why.clone())
    }

    /// As [`Registry::away`], once it has refused us for longer than a restart takes.
    pub(super) fn refused(&self) -> Option<String> {
        let standing = self.shared.standing();
        let borne = if standing.answered { REFUSED_MAX } else { REFUSED_AT_START_MAX };
        let away = standing.away.as_ref().filter(|away| away.refuses)?;
        (away.since.elapsed() >= borne).then(|| away.why.clone())
    }
}

impl Shared {
    fn get(&self, id: u32) -> Option<Result<Arc<Schema>, DecodeError>> {
        match self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id)? {
            Known::Usable(schema) => Some(Ok(Arc::clone(schema))),
            Known::Not(error, until) => (Instant::now() < *until).then(|| Err(error.clone())),
        }
    }

    fn learn(&self, id: u32, known: Known) {
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(id, known);
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the schemas of a topic are, by one that its values name.
///
/// # Errors
/// The registry does not answer, or refuses us; it has no such schema, or one of no format of ours.
pub(super) fn format_of(config: &Config, id: u32) -> anyhow::Result<RecordFormat> {
    let url = config.registry.url.clone();
    let client = Client::new(&config.registry)?;
    let asker =
        Asker { client, url: url.clone(), format: RecordFormat::Json, shared: Arc::default() };
    let path = format!("/schemas/ids/{id}");
    match asker.ask(&path).with_context(|| format!("the schema registry {url}"))? {
        Answer::Unknown => bail!(
            "the schema registry {url} has no schema {id}, by which records were written: is it \
             the registry of their producer?"
        ),
        Answer::Found(stored) => match stored.schema_type.as_str() {
            "AVRO" => Ok(RecordFormat::Avro),
            "PROTOBUF" => Ok(RecordFormat::Protobuf),
            "JSON" => Ok(RecordFormat::JsonSchema),
            other => bail!("schema {id} of {url} is of {other}, which is not read here"),
        },
    }
}

/// The thread that asks.
struct Asker {
    client: Client,
    url: String,
    format: RecordFormat,
    shared: Arc<Shared>,
}

/// What came of a question.
enum Answer {
    Found(Stored),
    /// There is no such thing.
    Unknown,
}

/// A schema as the registry gives it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    schema: String,
    #[serde(default = "avro")]
    schema_type: String,
    #[serde(default)]
    references: Vec<Reference>,
}

/// Avro is what it means where it names no type.
fn avro() -> String {
    "AVRO".to_owned()
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

/// The registry says no, and will until somebody acts.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl Asker {
    fn serve(&self, wanted: &Receiver<u32>) {
        while let Ok(id) = wanted.recv() {
            let mut pause = PAUSE_MIN;
            while self.shared.get(id).is_none() {
                match self.schema(id, wanted) {
                    Ok(known) => {
                        self.shared.learn(id, known);
                        self.answers();
                    }
                    Err(error) => {
                        self.is_away(id, &error);
                        if !rest(pause, wanted) {
                            return;
                        }
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
            }
        }
    }

    fn answers(&self) {
        let mut standing = self.shared.standing();
        standing.answered = true;
        if let Some(away) = standing.away.take() {
            let seconds = away.since.elapsed().as_secs();
            tracing::info!("the schema registry answers again, after {seconds} s");
        }
    }

    fn is_away(&self, id: u32, error: &anyhow::Error) {
        let (why, refuses) = (format!("{error:#}"), error.is::<Refused>());
        let mut standing = self.shared.standing();
        let before = standing.away.take();
        let known = before.as_ref().is_some_and(|before| before.refuses == refuses);
        let since = before.filter(|_| known).map_or_else(Instant::now, |before| before.since);
        if !known {
            tracing::warn!(
                "the schema registry {} gives no schema {id}, and its records wait: {why}",
                self.url
            );
        }
        standing.away = Some(Away { why, refuses, since });
    }

    /// What the registry knows of schema `id`.
    ///
    /// # Errors
    /// It does not answer, or refuses to.
    fn schema(&self, id: u32, wanted: &Receiver<u32>) -> anyhow::Result<Known> {
        let not = |error| Ok(Known::Not(error, Instant::now() + UNKNOWN_FOR));
        let path = format!("/schemas/ids/{id}");
        let mut answer = self.ask(&path)?;
        if matches!(answer, Answer::Unknown) && rest(SETTLES, wanted) {
            answer = self.ask(&path)?;
        }
        let Answer::Found(stored) = answer else { return not(DecodeError::UnknownSchema { id }) };
        let protobuf = self.format == RecordFormat::Protobuf;
        let name = if protobuf { "PROTOBUF" } else { "AVRO" };
        if stored.schema_type != name {
            let reason = format!("it is of {}, and kafka.format of {name}", stored.schema_type);
            return not(DecodeError::BadSchema { id, reason });
        }
        let compiled = match self.references(&stored.references)? {
            Err(reason) => Err(reason),
            Ok(references) => {
                let text = Text { text: stored.schema, references };
                if protobuf { Schema::protobuf(&text) } else { Schema::avro(&text) }
            }
        };
        match compiled {
            Ok(schema) => {
                tracing::info!("schema {id} is read from the registry");
                Ok(Known::Usable(Arc::new(schema)))
            }
            Err(reason) => not(DecodeError::BadSchema { id, reason }),
        }
    }

    /// The texts that a schema refers to, and those that they refer to.
    fn references(
        &self,
        first: &[Reference],
    ) -> anyhow::Result<Result<Vec<(String, String)>, String>> {
        let mut texts = BTreeMap::new();
        let key = |r: &Reference| (r.name.clone(), r.subject.clone(), r.version);
        let mut open: Vec<_> = first.iter().map(key).collect();
        while let Some((name, subject, version)) = open.pop() {
            if texts.contains_key(&name) {
                continue;
            }
            if texts.len() == REFERENCES_MAX {
                return Ok(Err(format!("it refers to more than {REFERENCES_MAX} others")));
            }
            let subject = escaped(&subject);
            match self.ask(&format!("/subjects/{subject}/versions/{version}"))? {
                Answer::Unknown => {
                    return Ok(Err(format!("it refers to `{name}`, which the registry lacks")));
                }
                Answer::Found(stored) => {
                    open.extend(stored.references.iter().map(key));
                    texts.insert(name, stored.schema);
                }
            }
        }
        Ok(Ok(texts.into_iter().collect()))
    }

    fn ask(&self, path: &str) -> anyhow::Result<Answer> {
        let (status, body) = self.client.get(path)?;
        let said = || String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
        match status {
            StatusCode::OK => {
                let stored = serde_json::from_slice(&body);
                let stored = stored.map_err(|error| {
                    anyhow!(Refused(format!("{} answers with no schema: {error}", self.url)))
                });
                stored.map(Answer::Found)
            }
            StatusCode::NOT_FOUND if is_no_schema(&body) => Ok(Answer::Unknown),
            StatusCode::NOT_FOUND => bail!(Refused(format!(
                "{} has no {path} (404): is registry.url right? Apicurio's ends in \
                 /apis/ccompat/v7",
                self.url
            ))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => bail!(Refused(format!(
                "it refuses us ({status}): are registry.user and registry.password right, and may \
                 that user read schemas? It says: {}",
                said()
            ))),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                bail!("it answers {status}: {}", said())
            }
            status if status.is_client_error() || status.is_redirection() => {
                bail!(Refused(format!("it answers {status} to {path}: {}", said())))
            }
            status => bail!("it answers {status}: {}", said()),
        }
    }
}

/// Whether an answer of 404 says that there is no such schema, subject or version, and not that the
/// address is wrong.
fn is_no_schema(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Said {
        error_code: u32,
    }
    serde_json::from_slice(body)
        .is_ok_and(|Said { error_code }| (40401..=40403).contains(&error_code))
}

/// A subject as a part of a path.
fn escaped(subject: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let part = |byte: u8| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    subject.bytes().map(part).collect()
}

/// Waits for `pause`. False: nobody wants anything any more.
fn rest(pause: Duration, wanted: &Receiver<u32>) -> bool {
    let until = Instant::now() + pause;
    loop {
        match wanted.recv_timeout(until.saturating_duration_since(Instant::now())) {
            // Whoever asked asks again.
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests;
