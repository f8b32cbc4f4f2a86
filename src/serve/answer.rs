//! A request to one version becomes its answer. Pure: the same request to the same version gives
//! the same bytes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Version;
use super::problem::Problem;
use super::request::{Embed, Fields, ItemId, Retrieve, Score, Similar};
use millrace_events::{Batch, Events};
use millrace_retrieval::{Allowed, Hit, Search};

/// What every answer says, and its own content.
#[derive(Serialize)]
struct Answer<'v, T> {
    version: &'v str,
    /// How far in the log the version knows histories.
    offsets: Known<'v>,
    #[serde(flatten)]
    content: T,
}

/// The next offset of each partition after those that a version knows.
#[derive(Serialize)]
struct Known<'v> {
    topic: &'v str,
    next: BTreeMap<i32, i64>,
}

/// The items for one query.
#[derive(Serialize)]
struct Found<'v> {
    items: Vec<FoundItem<'v>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold: Option<&'v Cold<'v>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explained<'v>>,
}

#[derive(Serialize)]
struct FoundItem<'v> {
    id: &'v str,
    score: f32,
    /// `dot / temperature`.
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_q: Option<f32>,
}

/// Why an answer is less of one for this query than others get.
#[derive(Serialize)]
struct Cold<'v> {
    /// Fields that were not given.
    missing: Vec<String>,
    /// Features whose ids nobody has learned of.
    unknown: Vec<&'v str>,
    /// No history of it is held, though the tower reads one.
    no_history: bool,
}

/// What a score can be computed again from.
#[derive(Serialize)]
struct Explained<'v> {
    /// Oldest first; an item that is no longer held has no name any more.
    history: Vec<Option<&'v str>>,
    vector: &'v [f32],
    temperature: f32,
    popularity: f32,
}

/// A query, as a version sees it.
struct Seen<'v> {
    vector: Vec<f32>,
    /// Oldest first.
    history: &'v [u64],
    cold: Option<Cold<'v>>,
}

/// The vector of the query with these fields.
fn encode<'v>(version: &'v Version, fields: &Fields) -> Result<Seen<'v>, Problem> {
    let text = serde_json::to_vec(fields).map_err(ours)?;
    let mut events = Events::new(version.features.len(), 0);
    let missing = version.mapping.query(&text, &mut events).map_err(|error| {
        let field = error.field().map_or_else(|| "query".to_owned(), |f| format!("query.{f}"));
        Problem::field(field, error.to_string())
    })?;
    let query = events.query_ids[0];
    let batch = Batch::new(events, version.offsets.clone());
    let side = &version.queries;
    let vector = side.embed(&batch);
    let history = side.history(query);
    let unknown = side.model.encoder.query.unknown(&batch.events.query, 0, &side.model.tables);
    let no_history = side.keeps_histories() && history.is_empty();
    let cold = !missing.is_empty() || !unknown.is_empty() || no_history;
    let cold = cold.then(|| Cold {
        missing,
        unknown: unknown.iter().map(|&at| &*version.features[at]).collect(),
        no_history,
    });
    Ok(Seen { vector, history, cold })
}

/// The bytes of an answer.
fn answer<T: Serialize>(version: &Version, content: T) -> Result<Vec<u8>, Problem> {
    let answer = Answer { version: &version.id, offsets: known(version), content };
    serde_json::to_vec(&answer).map_err(ours)
}

fn known(version: &Version) -> Known<'_> {
    Known { topic: version.offsets.topic(), next: version.offsets.iter().collect() }
}

fn ours(error: impl std::fmt::Display) -> Problem {
    Problem::ours(error.to_string())
}

/// What all queries of a request share.
struct Choice {
    k: usize,
    popularity: f32,
    excluded: Vec<u32>,
    allowed: Option<Allowed>,
}

/// `POST /v1/retrieve`
pub(super) fn retrieve(version: &Version, request: &Retrieve) -> Result<Vec<u8>, Problem> {
    let numbers = |ids: &[ItemId]| -> Vec<u32> {
        ids.iter().filter_map(|ItemId(id)| version.number(id)).collect()
    };
    let included = request.include.as_ref();
    let choice = Choice {
        k: request.k()?,
        popularity: request.popularity.unwrap_or(version.popularity),
        excluded: numbers(&request.exclude),
        allowed: included.map(|ids| version.index.allow(numbers(ids))),
    };
    if let Some(query) = &request.query {
        let seen = encode(version, query)?;
        return answer(version, found(version, &seen, request, &choice)?);
    }
    let queries = request.queries.as_deref().unwrap_or_default();
    let seen = queries
        .iter()
        .enumerate()
        .map(|(at, query)| encode(version, query).map_err(|problem| problem.of_query(at)));
    let seen: Vec<Seen<'_>> = seen.collect::<Result<_, _>>()?;
    let found = seen.iter().map(|seen| found(version, seen, request, &choice));
    let found: Vec<Found<'_>> = found.collect::<Result<_, _>>()?;
    answer(version, BTreeMap::from([("answers", found)]))
}

/// The items for one query.
fn found<'v>(
    version: &'v Version,
    seen: &'v Seen<'_>,
    request: &Retrieve,
    choice: &Choice,
) -> Result<Found<'v>, Problem> {
    let mut excluded = choice.excluded.clone();
    if request.exclude_seen {
        excluded.extend(seen.history.iter().filter_map(|&key| version.number_of_key(key)));
    }
    let search = Search {
        query: &seen.vector,
        k: choice.k,
        popularity: choice.popularity,
        excluded: &excluded,
        allowed: choice.allowed.as_ref(),
    };
    let index = &version.index;
    let alone = Search { popularity: 0.0, ..search };
    let item = |hit: &Hit| FoundItem {
        id: version.name(hit.item),
        score: hit.score,
        affinity: request.explain.then(|| index.hit(&alone, hit.item).score),
        log_q: request.explain.then(|| index.log_q(hit.item)),
    };
    let items = index.search(&search).map_err(ours)?.iter().map(item).collect();
    let name = |&key: &u64| version.number_of_key(key).map(|number| version.name(number));
    let explain = request.explain.then(|| Explained {
        history: seen.history.iter().map(name).collect(),
        vector: &seen.vector,
        temperature: version.temperature,
        popularity: choice.popularity,
    });
    Ok(Found { items, cold: seen.cold.as_ref(), explain })
}

/// An item that was asked for, and its score; none: there is no such item.
#[derive(Serialize)]
struct Scored<'r> {
    id: &'r str,
    score: Option<f32>,
}

#[derive(Serialize)]
struct Scores<'r, 'v> {
    items: Vec<Scored<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold: Option<Cold<'v>>,
}

/// `POST /v1/score`
pub(super) fn score(version: &Version, request: &Score) -> Result<Vec<u8>, Problem> {
    let seen = encode(version, &request.query)?;
    let popularity = request.popularity.unwrap_or(version.popularity);
    let search = Search { query: &seen.vector, k: 0, popularity, excluded: &[], allowed: None };
    let item = |ItemId(id): &'_ ItemId| {
        let number = version.number(id);
        number.map(|number| version.index.hit(&search, number).score)
    };
    let items = request.items.iter().map(|id| Scored { id: &id.0, score: item(id) });
    answer(version, Scores { items: items.collect(), cold: seen.cold })
}

#[derive(Serialize)]
struct Embedded<'v> {
    vector: Vec<f32>,
    temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold: Option<Cold<'v>>,
}

/// `POST /v1/embed`
pub(super) fn embed(version: &Version, request: &Embed) -> Result<Vec<u8>, Problem> {
    let Seen { vector, cold, .. } = encode(version, &request.query)?;
    answer(version, Embedded { vector, temperature: version.temperature, cold })
}

#[derive(Serialize)]
struct ItemAnswer<'v> {
    id: &'v str,
    log_q: f32,
    vector: &'v [f32],
}

/// `GET /v1/items/{id}`
pub(super) fn item(version: &Version, id: &str) -> Result<Vec<u8>, Problem> {
    let number = version.number(id).ok_or_else(|| Problem::no_item(id, &version.id))?;
    let index = &version.index;
    answer(version, ItemAnswer { id, log_q: index.log_q(number), vector: index.vector(number) })
}

#[derive(Serialize)]
struct SimilarItems<'v> {
    id: &'v str,
    items: Vec<SimilarItem<'v>>,
}

#[derive(Serialize)]
struct SimilarItem<'v> {
    id: &'v str,
    cosine: f32,
}

/// `GET /v1/items/{id}/similar`
pub(super) fn similar(version: &Version, id: &str, request: &Similar) -> Result<Vec<u8>, Problem> {
    let number = version.number(id).ok_or_else(|| Problem::no_item(id, &version.id))?;
    let search = Search {
        query: version.index.vector(number),
        k: request.k,
        popularity: 0.0,
        excluded: &[number],
        allowed: None,
    };
    let hits = version.index.search(&search).map_err(ours)?;
    // Both vectors are of length 1: their dot product is a cosine.
    let item = |hit: &Hit| SimilarItem {
        id: version.name(hit.item),
        cosine: hit.score * version.temperature,
    };
    answer(version, SimilarItems { id, items: hits.iter().map(item).collect() })
}

/// One entry of `GET /v1/versions`.
#[derive(Serialize)]
pub(super) struct Described<'v> {
    version: &'v str,
    run: &'v str,
    step: u64,
    event_time_ms: i64,
    offsets: Known<'v>,
    digest: &'v str,
    items: usize,
    exact: bool,
    index_bytes: usize,
    age_seconds: f64,
    active: bool,
}

/// `version`, which is the one that answers or not.
pub(super) fn described(version: &Version, active: bool) -> Described<'_> {
    Described {
        version: &version.id,
        run: &version.run,
        step: version.step,
        event_time_ms: version.event_time_ms,
        offsets: known(version),
        digest: &version.digest,
        items: version.items(),
        exact: version.index.is_exact(),
        index_bytes: version.index.bytes(),
        age_seconds: version.made.elapsed().unwrap_or_default().as_secs_f64(),
        active,
    }
}

/// Share of the exact answer to a request's first query that the index finds.
pub(super) fn recall(version: &Version, request: &Retrieve) -> Option<f64> {
    let first = request.queries.as_ref().and_then(|queries| queries.first());
    let seen = encode(version, request.query.as_ref().or(first)?).ok()?;
    let popularity = request.popularity.unwrap_or(version.popularity);
    let k = request.k().ok()?;
    let search = Search { query: &seen.vector, k, popularity, excluded: &[], allowed: None };
    let (found, exact) = (version.index.search(&search).ok()?, version.index.exact(&search).ok()?);
    let hits = exact.iter().filter(|hit| found.contains(hit)).count();
    Some(hits as f64 / exact.len().max(1) as f64)
}
