//! A request to one version becomes its answer. Pure: the same request to the same version gives
//! the same bytes.

use serde::Serialize;
use utoipa::ToSchema;

use super::Version;
use super::attributes::Said;
use super::parameters::Similar;
use super::problem::Problem;
use super::query::{Cold, Seen, View, see};
use super::request::{Embed, Fields, ItemId, Retrieve, Score};
use super::standing::Known;
use millrace_events::Offsets;
use millrace_retrieval::{Allowed, Hit, Search};

/// What every answer says, and its own content.
#[derive(Serialize, ToSchema)]
pub(super) struct Answer<'v, T> {
    /// The arm that answered, where there are arms.
    #[serde(skip_serializing_if = "Option::is_none")]
    arm: Option<&'v str>,
    /// The version that answered.
    version: &'v str,
    /// How far in the log histories were read.
    offsets: Known<'v>,
    #[serde(flatten)]
    content: T,
}

/// What `POST /v1/retrieve` finds.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Retrieved<'v> {
    /// For `query`.
    One(Found<'v>),
    /// For `queries`, one for each.
    Several {
        /// In the order of the queries.
        answers: Vec<Found<'v>>,
    },
}

/// What `POST /v1/retrieve` answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes; `App::retrieve` puts the second together")]
pub(super) enum RetrieveAnswer<'v> {
    /// All of it from one version.
    One(Answer<'v, Retrieved<'v>>),
    /// For `queries`, where there are arms: each of them from its own.
    ByArm {
        /// In the order of the queries.
        answers: Vec<Answer<'v, Found<'v>>>,
    },
}

/// The items for one query.
#[derive(Serialize, ToSchema)]
pub(super) struct Found<'v> {
    /// Best first.
    items: Vec<FoundItem<'v>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold: Option<&'v Cold<'v>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explained<'v>>,
}

#[derive(Serialize, ToSchema)]
struct FoundItem<'v> {
    id: &'v str,
    /// `dot / temperature + popularity * log_q`.
    score: f32,
    /// `dot / temperature`.
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_q: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Said<'v>>,
}

/// What a score can be computed again from.
#[derive(Serialize, ToSchema)]
struct Explained<'v> {
    /// Oldest first; an item that is no longer held has no name any more.
    history: Vec<Option<&'v str>>,
    vector: &'v [f32],
    temperature: f32,
    popularity: f32,
}

/// The bytes of an answer whose histories were read up to `offsets`.
fn answer<T: Serialize>(
    View { version, arm, .. }: View<'_>,
    offsets: &Offsets,
    content: T,
) -> Result<Vec<u8>, Problem> {
    let answer = Answer { arm, version: &version.id, offsets: Known::of(offsets), content };
    serde_json::to_vec(&answer).map_err(ours)
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
    /// Places of the attributes that items have.
    attributes: Option<Vec<usize>>,
}

/// What the queries of a request may be answered with.
fn choice(view: View<'_>, request: &Retrieve) -> Result<Choice, Problem> {
    let version = view.version;
    let numbers = |ids: &[ItemId]| -> Vec<u32> {
        ids.iter().filter_map(|ItemId(id)| version.number(id)).collect()
    };
    let included = request.include.as_ref().map(|ids| numbers(ids));
    let (features, attributes) = (&version.item_features, &version.attributes);
    let filtered = features.chosen(&request.filter, attributes, version.items())?;
    let allowed = match (included, filtered) {
        (Some(mut ids), Some(chosen)) => {
            ids.retain(|number| chosen.binary_search(number).is_ok());
            Some(ids)
        }
        (ids, chosen) => ids.or(chosen),
    };
    Ok(Choice {
        k: request.k()?,
        popularity: request.popularity.unwrap_or(version.popularity),
        excluded: [&numbers(&request.exclude)[..], &view.withdrawn.of(version)].concat(),
        allowed: allowed.map(|numbers| version.index.allow(numbers)),
        attributes: attributes.asked(request.attributes.as_ref())?,
    })
}

/// `POST /v1/retrieve`
pub(super) fn retrieve(view: View<'_>, request: &Retrieve) -> Result<Vec<u8>, Problem> {
    let version = view.version;
    let choice = choice(view, request)?;
    if let Some(query) = &request.query {
        let (offsets, seen) = one(view, query)?;
        let found = found(version, &seen, request, &choice)?;
        return answer(view, &offsets, Retrieved::One(found));
    }
    let (offsets, seen) = several(view, request)?;
    let found = seen.iter().map(|seen| found(version, seen, request, &choice));
    let answers = found.collect::<Result<_, _>>()?;
    answer(view, &offsets, Retrieved::Several { answers })
}

/// Ids and scores of the best items for each of a request's `queries`.
pub(super) fn ranked<'v>(
    view: View<'v>,
    request: &Retrieve,
) -> Result<Vec<Vec<(&'v str, f32)>>, Problem> {
    let choice = choice(view, request)?;
    let (_, seen) = several(view, request)?;
    let ranked = seen.iter().map(|seen| {
        let hits = search(view.version, seen, request, &choice)?;
        Ok(hits.iter().map(|hit| (view.version.name(hit.item), hit.score)).collect())
    });
    ranked.collect()
}

fn several<'v>(view: View<'v>, request: &Retrieve) -> Result<(Offsets, Vec<Seen<'v>>), Problem> {
    let queries = request.queries.as_deref().unwrap_or_default();
    see(view, queries).map_err(|(at, problem)| problem.of_query(at))
}

/// A single query.
fn one<'v>(view: View<'v>, fields: &Fields) -> Result<(Offsets, Seen<'v>), Problem> {
    let seen = see(view, std::slice::from_ref(fields));
    let (offsets, mut seen) = seen.map_err(|(_, problem)| problem)?;
    Ok((offsets, seen.pop().expect("one for each query")))
}

impl Choice {
    fn search<'s>(&'s self, query: &'s [f32], excluded: &'s [u32]) -> Search<'s> {
        let Self { k, popularity, ref allowed, .. } = *self;
        Search { query, k, popularity, excluded, allowed: allowed.as_ref() }
    }
}

/// The best items for one query.
fn search(
    version: &Version,
    seen: &Seen<'_>,
    request: &Retrieve,
    choice: &Choice,
) -> Result<Vec<Hit>, Problem> {
    let mut excluded = choice.excluded.clone();
    if request.exclude_seen.unwrap_or(version.config.retrieval.exclude_seen) {
        excluded.extend(seen.history.iter().filter_map(|&key| version.number_of_key(key)));
    }
    version.index.search(&choice.search(&seen.vector, &excluded)).map_err(ours)
}

/// The items for one query.
fn found<'v>(
    version: &'v Version,
    seen: &'v Seen<'_>,
    request: &Retrieve,
    choice: &Choice,
) -> Result<Found<'v>, Problem> {
    let index = &version.index;
    let alone = Search { popularity: 0.0, ..choice.search(&seen.vector, &[]) };
    let item = |hit: &Hit| FoundItem {
        id: version.name(hit.item),
        score: hit.score,
        affinity: request.explain.then(|| index.hit(&alone, hit.item).score),
        log_q: request.explain.then(|| index.log_q(hit.item)),
        attributes: said(version, choice.attributes.as_deref(), hit.item),
    };
    let items = search(version, seen, request, choice)?.iter().map(item).collect();
    let name = |&key: &u64| version.number_of_key(key).map(|number| version.name(number));
    let explain = request.explain.then(|| Explained {
        history: seen.history.iter().map(name).collect(),
        vector: &seen.vector,
        temperature: version.temperature,
        popularity: choice.popularity,
    });
    Ok(Found { items, cold: seen.cold.as_ref(), explain })
}

/// What the attributes at `places` say of an item; none: nobody asked.
fn said<'v>(version: &'v Version, places: Option<&[usize]>, item: u32) -> Option<Said<'v>> {
    places.map(|places| version.attributes.of(places, item))
}

/// An item that was asked for, and its score; none: there is no such item.
#[derive(Serialize, ToSchema)]
struct Scored<'r> {
    id: &'r str,
    #[schema(required)]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Said<'r>>,
}

/// What `POST /v1/score` answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Scores<'v> {
    /// In the order asked for.
    items: Vec<Scored<'v>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold: Option<Cold<'v>>,
}

/// `POST /v1/score`
pub(super) fn score(view: View<'_>, request: &Score) -> Result<Vec<u8>, Problem> {
    let version = view.version;
    let (offsets, seen) = one(view, &request.query)?;
    let popularity = request.popularity.unwrap_or(version.popularity);
    let search = Search { query: &seen.vector, k: 0, popularity, excluded: &[], allowed: None };
    let places = version.attributes.asked(request.attributes.as_ref())?;
    let items = request.items.iter().map(|ItemId(id)| {
        let number = view.number(id);
        let score = number.map(|number| version.index.hit(&search, number).score);
        let attributes = number.and_then(|number| said(version, places.as_deref(), number));
        Scored { id, score, attributes }
    });
    let items = items.collect();
    answer(view, &offsets, Scores { items, cold: seen.cold })
}

/// What `POST /v1/embed` answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Embedded<'v> {
    /// `[dim]`, of length 1.
    vector: Vec<f32>,
    /// Divides the dot products.
    temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold: Option<Cold<'v>>,
}

/// `POST /v1/embed`
pub(super) fn embed(view: View<'_>, request: &Embed) -> Result<Vec<u8>, Problem> {
    let version = view.version;
    let (offsets, Seen { vector, cold, .. }) = one(view, &request.query)?;
    answer(view, &offsets, Embedded { vector, temperature: version.temperature, cold })
}

/// What `GET /v1/items/{id}` answers.
#[derive(Serialize, ToSchema)]
pub(super) struct ItemAnswer<'v> {
    id: &'v str,
    log_q: f32,
    vector: Vec<f32>,
    /// What is said of it.
    #[schema(value_type = Object)]
    attributes: Said<'v>,
}

/// `GET /v1/items/{id}`
pub(super) fn item(view: View<'_>, id: &str) -> Result<Vec<u8>, Problem> {
    let version = view.version;
    let number = view.number(id).ok_or_else(|| Problem::no_item(id, &version.id))?;
    let index = &version.index;
    let (log_q, vector) = (index.log_q(number), index.vector(number));
    let attributes = version.attributes.of(&version.attributes.all(), number);
    answer(view, &version.offsets, ItemAnswer { id, log_q, vector, attributes })
}

/// What `GET /v1/items/{id}/similar` answers.
#[derive(Serialize, ToSchema)]
pub(super) struct SimilarItems<'v> {
    id: &'v str,
    /// Nearest first.
    items: Vec<SimilarItem<'v>>,
}

#[derive(Serialize, ToSchema)]
struct SimilarItem<'v> {
    id: &'v str,
    cosine: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Said<'v>>,
}

/// `GET /v1/items/{id}/similar`
pub(super) fn similar(view: View<'_>, id: &str, request: &Similar) -> Result<Vec<u8>, Problem> {
    let version = view.version;
    let number = view.number(id).ok_or_else(|| Problem::no_item(id, &version.id))?;
    let search = Search {
        query: &version.index.vector(number),
        k: request.k,
        popularity: 0.0,
        excluded: &[&[number][..], &view.withdrawn.of(version)].concat(),
        allowed: None,
    };
    let hits = version.index.search(&search).map_err(ours)?;
    let places = request.attributes.then(|| version.attributes.all());
    // Both vectors are of length 1: their dot product is a cosine.
    let item = |hit: &Hit| SimilarItem {
        id: version.name(hit.item),
        cosine: hit.score * version.temperature,
        attributes: said(version, places.as_deref(), hit.item),
    };
    answer(view, &version.offsets, SimilarItems { id, items: hits.iter().map(item).collect() })
}

/// The vector of a request's first query, `[dim]`.
pub(super) fn first_vector(view: View<'_>, request: &Retrieve) -> Option<Vec<f32>> {
    let first = request.queries.as_ref().and_then(|queries| queries.first());
    let (_, seen) = one(view, request.query.as_ref().or(first)?).ok()?;
    Some(seen.vector)
}
