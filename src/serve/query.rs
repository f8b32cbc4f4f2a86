//! A request's queries, as one version sees them: their vectors, their histories, what is not known
//! of them.

use millrace_events::{Batch, Events, Offsets};
use serde::Serialize;
use utoipa::ToSchema;

use super::Version;
use super::problem::Problem;
use super::recent::Recent;
use super::request::Fields;
use super::withdrawn::Withdrawn;

/// One version, and what queries did behind it.
#[derive(Clone, Copy)]
pub(super) struct View<'v> {
    pub(super) version: &'v Version,
    pub(super) recent: &'v Recent,
    pub(super) withdrawn: &'v Withdrawn,
    /// Whose version it is; none: there are no arms.
    pub(super) arm: Option<&'v str>,
}

impl View<'_> {
    /// The number of the item `id`, if there is one and no catalogue has taken it out.
    pub(super) fn number(self, id: &str) -> Option<u32> {
        let number = self.version.number(id)?;
        self.withdrawn.of(self.version).binary_search(&number).is_err().then_some(number)
    }
}

/// A query, as a version sees it.
pub(super) struct Seen<'v> {
    /// Its vector, `[dim]`.
    pub(super) vector: Vec<f32>,
    /// Keys of its last items, oldest first.
    pub(super) history: Vec<u64>,
    pub(super) cold: Option<Cold<'v>>,
}

/// Why an answer is less of one for this query than others get.
#[derive(Serialize, ToSchema)]
pub(super) struct Cold<'v> {
    /// Fields that were not given.
    missing: Vec<String>,
    /// Features whose ids nobody has learned of.
    unknown: Vec<&'v str>,
    /// No history of it is held, though the tower reads one.
    no_history: bool,
}

/// The queries with these fields, and how far their histories were read. All as of one moment.
///
/// # Errors
/// The first query that holds what a field cannot hold, and its place.
pub(super) fn see<'v>(
    view: View<'v>,
    queries: &[Fields],
) -> Result<(Offsets, Vec<Seen<'v>>), (usize, Problem)> {
    let View { version, recent, .. } = view;
    let place = |(at, fields)| decode(version, fields).map_err(|problem| (at, problem));
    let decoded: Vec<(Batch, Vec<String>)> =
        queries.iter().enumerate().map(place).collect::<Result<_, _>>()?;
    let keys: Vec<u64> = decoded.iter().map(|(batch, _)| batch.events.query_ids[0]).collect();
    let known = recent.of(version, &keys);
    let seen = decoded.into_iter().enumerate();
    let seen = seen.map(|(at, (batch, missing))| {
        let history = version.queries.history(keys[at], known.after(at));
        encode(version, &batch, missing, history)
    });
    let seen = seen.collect();
    Ok((known.offsets, seen))
}

/// An event of the query with these fields, and the fields that it lacks.
fn decode(version: &Version, fields: &Fields) -> Result<(Batch, Vec<String>), Problem> {
    let text = serde_json::to_vec(fields).map_err(|error| Problem::ours(error.to_string()))?;
    let mut events = Events::new(version.features.len(), 0);
    let missing = version.mapping.query(&text, &mut events).map_err(|error| {
        let field = error.field().map_or_else(|| "query".to_owned(), |f| format!("query.{f}"));
        Problem::field(field, error.to_string())
    })?;
    Ok((Batch::new(events, version.offsets.clone()), missing))
}

fn encode<'v>(
    version: &'v Version,
    batch: &Batch,
    missing: Vec<String>,
    history: Vec<u64>,
) -> Seen<'v> {
    let side = &version.queries;
    let batch = &*side.completed(batch);
    // One by one: then a query's bits do not depend on those beside it.
    let histories = [history];
    let vector = side.embed(batch, &histories);
    let [history] = histories;
    let unknown = side.model.encoder.query.unknown(&batch.events.query, 0, &side.model.tables);
    let no_history = side.keeps_histories() && history.is_empty();
    let cold = !missing.is_empty() || !unknown.is_empty() || no_history;
    let cold = cold.then(|| Cold {
        missing,
        unknown: unknown.iter().map(|&at| &*version.features[at]).collect(),
        no_history,
    });
    Seen { vector, history, cold }
}
