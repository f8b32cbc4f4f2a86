//! The bodies of requests, checked.
//!
//! serde says what is wrong with a body and where; what it cannot know is checked here.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::problem::Problem;

/// Most items of one answer.
const K_MAX: u64 = 1000;
/// Items of an answer whose request does not say.
pub(super) const K: u64 = 10;
/// Most queries of one request: they are answered by one thread.
const QUERIES_MAX: usize = 64;
/// Most ids in one list: checking them takes about as long as a search.
const IDS_MAX: usize = 10_000;
/// Most features and attributes of one filter: each is a pass over what the others leave.
const FILTERS_MAX: usize = 16;
/// Weights of log q that mean something.
const POPULARITY_MAX: f32 = 100.0;

/// The fields of a query, as the log has them.
pub(super) type Fields = Map<String, Value>;

/// What a request says about who is to answer it.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'r> {
    pub(super) arm: Option<&'r str>,
    pub(super) version: Option<&'r str>,
    pub(super) query: Option<&'r Fields>,
}

/// An item's id: a string, or an integer, which is its digits.
#[derive(Debug, PartialEq)]
pub(super) struct ItemId(pub(super) String);

impl<'de> Deserialize<'de> for ItemId {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        match Value::deserialize(json)? {
            Value::String(id) => Ok(Self(id)),
            Value::Number(id) if id.is_i64() || id.is_u64() => Ok(Self(id.to_string())),
            _ => Err(D::Error::custom("an item's id is a string or an integer")),
        }
    }
}

impl PartialSchema for ItemId {
    fn schema() -> RefOr<Schema> {
        let one = |kind| ObjectBuilder::new().schema_type(kind);
        OneOfBuilder::new().item(one(Type::String)).item(one(Type::Integer)).into()
    }
}

impl ToSchema for ItemId {}

/// What a feature or an attribute of an item must be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// One of these ids.
    OneOf(Vec<String>),
    /// A number from one to the other, both included.
    Within(f32, f32),
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        const FORMS: &str = "a filter is an id, a list of ids, or {\"min\": .., \"max\": ..}";
        let wrong = || D::Error::custom(FORMS);
        match Value::deserialize(json)? {
            Value::Array(ids) => {
                let id = |id| ItemId::deserialize(id).map(|ItemId(id)| id);
                let ids: Result<Vec<String>, serde_json::Error> = ids.into_iter().map(id).collect();
                ids.map(Self::OneOf).map_err(|_| wrong())
            }
            Value::Object(mut range) => {
                let mut end = |name, open: f32| match range.remove(name) {
                    None => Ok(open),
                    Some(end) => f32::deserialize(end).map_err(|_| wrong()),
                };
                let (min, max) = (end("min", f32::NEG_INFINITY)?, end("max", f32::INFINITY)?);
                let ends = min.is_finite() || max.is_finite();
                if range.is_empty() && ends { Ok(Self::Within(min, max)) } else { Err(wrong()) }
            }
            one => match ItemId::deserialize(one) {
                Ok(ItemId(id)) => Ok(Self::OneOf(vec![id])),
                Err(_) => Err(wrong()),
            },
        }
    }
}

impl PartialSchema for Condition {
    fn schema() -> RefOr<Schema> {
        let number = || ObjectBuilder::new().schema_type(Type::Number);
        let ids = ArrayBuilder::new().items(ItemId::schema());
        let range = ObjectBuilder::new()
            .property("min", number())
            .property("max", number())
            .min_properties(Some(1))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        OneOfBuilder::new().item(ItemId::schema()).item(ids).item(range).into()
    }
}

impl ToSchema for Condition {}

/// Which attributes an answer is to have.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "true, or a list of names")]
pub(super) enum Asked {
    /// All of them, or none.
    All(bool),
    /// Those of these names.
    Named(Vec<String>),
}

/// A query's fields.
pub(super) struct Query;

/// Conditions by feature or attribute.
pub(super) struct Filter;

impl PartialSchema for Query {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().description(Some("The query's fields, as the log has them.")).into()
    }
}

impl ToSchema for Query {}

impl PartialSchema for Filter {
    fn schema() -> RefOr<Schema> {
        let any = Condition::schema();
        ObjectBuilder::new().additional_properties(Some(any)).into()
    }
}

impl ToSchema for Filter {}

/// `POST /v1/retrieve`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retrieve {
    /// The query's fields, as the log has them. Either this or `queries`.
    #[schema(value_type = Option<Query>)]
    pub(super) query: Option<Fields>,
    /// Several queries: the answer has one entry for each.
    #[schema(value_type = Option<Vec<Query>>, min_items = 1, max_items = 64)]
    pub(super) queries: Option<Vec<Fields>>,
    /// Items wanted.
    #[serde(default = "default_k")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    k: u64,
    /// Weight of log q in the score; absent: the version's.
    #[schema(minimum = -100, maximum = 100)]
    pub(super) popularity: Option<f32>,
    /// Ids to leave out.
    #[serde(default)]
    #[schema(max_items = 10_000)]
    pub(super) exclude: Vec<ItemId>,
    /// Leaves out the items of the query's history; absent: as the version's config says.
    pub(super) exclude_seen: Option<bool>,
    /// Ids to choose from; absent: everything.
    #[schema(max_items = 10_000)]
    pub(super) include: Option<Vec<ItemId>>,
    /// What items must be, by the name of an item's feature or attribute; all of it holds.
    #[serde(default)]
    #[schema(value_type = Filter)]
    pub(super) filter: BTreeMap<String, Condition>,
    /// Attributes that each item is to have in the answer: `true`, or their names.
    pub(super) attributes: Option<Asked>,
    /// A version in memory; absent: the one that answers.
    pub(super) version: Option<String>,
    /// One of `serve.arms`; absent: the query's.
    pub(super) arm: Option<String>,
    /// Adds what the scores can be computed again from.
    #[serde(default)]
    pub(super) explain: bool,
}

/// `POST /v1/score`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Score {
    /// The query's fields, as the log has them.
    #[schema(value_type = Query)]
    pub(super) query: Fields,
    /// Ids of the items.
    #[schema(max_items = 10_000)]
    pub(super) items: Vec<ItemId>,
    /// Weight of log q in the score; absent: the version's.
    #[schema(minimum = -100, maximum = 100)]
    pub(super) popularity: Option<f32>,
    /// Attributes that each item is to have in the answer: `true`, or their names.
    pub(super) attributes: Option<Asked>,
    /// A version in memory; absent: the one that answers.
    pub(super) version: Option<String>,
    /// One of `serve.arms`; absent: the query's.
    pub(super) arm: Option<String>,
}

/// `POST /v1/embed`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Embed {
    /// The query's fields, as the log has them.
    #[schema(value_type = Query)]
    pub(super) query: Fields,
    /// A version in memory; absent: the one that answers.
    pub(super) version: Option<String>,
    /// One of `serve.arms`; absent: the query's.
    pub(super) arm: Option<String>,
}

fn default_k() -> u64 {
    K
}

/// The JSON in `body`.
///
/// # Errors
/// The first thing that is wrong with it, and the path of its field.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| Problem::field(error.path().to_string(), error.inner().to_string()))?;
    json.end().map_err(|error| Problem::field("", format!("after the object: {error}")))?;
    Ok(parsed)
}

impl Retrieve {
    /// Items wanted.
    pub(super) fn k(&self) -> Result<usize, Problem> {
        k(self.k)
    }

    /// Checks what serde cannot.
    pub(super) fn check(&self) -> Result<(), Problem> {
        match (&self.query, &self.queries) {
            (Some(_), None) => {}
            (None, Some(queries)) if queries.is_empty() => {
                return Err(Problem::field("queries", "there is no query in it"));
            }
            (None, Some(queries)) if queries.len() > QUERIES_MAX => {
                let detail = format!("has {} queries; at most {QUERIES_MAX}", queries.len());
                return Err(Problem::field("queries", detail));
            }
            (None, Some(_)) => {}
            (Some(_), Some(_)) => {
                return Err(Problem::field("queries", "stands beside `query`; give one of them"));
            }
            (None, None) => {
                return Err(Problem::field("query", "is missing: an object of the log's fields"));
            }
        }
        self.k()?;
        popularity(self.popularity)?;
        let listed = self.filter.values().map(|condition| match condition {
            Condition::OneOf(ids) => ids.len(),
            Condition::Within(..) => 0,
        });
        if self.filter.len() > FILTERS_MAX || listed.sum::<usize>() > IDS_MAX {
            let detail = format!("at most {FILTERS_MAX} conditions and {IDS_MAX} ids");
            return Err(Problem::field("filter", detail));
        }
        ids("exclude", &self.exclude)?;
        ids("include", self.include.as_deref().unwrap_or_default())
    }
}

impl Score {
    /// Checks what serde cannot.
    pub(super) fn check(&self) -> Result<(), Problem> {
        popularity(self.popularity)?;
        ids("items", &self.items)
    }
}

impl Retrieve {
    /// Who is to answer.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let (arm, version) = (self.arm.as_deref(), self.version.as_deref());
        Wanted { arm, version, query: self.query.as_ref() }
    }

    /// Whether it says so itself, whatever its queries are.
    pub(super) fn names_arm(&self) -> bool {
        self.arm.is_some() || self.version.is_some()
    }
}

impl Score {
    /// Who is to answer.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let (arm, version) = (self.arm.as_deref(), self.version.as_deref());
        Wanted { arm, version, query: Some(&self.query) }
    }
}

impl Embed {
    /// Who is to answer.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let (arm, version) = (self.arm.as_deref(), self.version.as_deref());
        Wanted { arm, version, query: Some(&self.query) }
    }
}

/// Items wanted, if so many may be.
pub(super) fn k(k: u64) -> Result<usize, Problem> {
    let most = usize::try_from(k).ok().filter(|_| (1..=K_MAX).contains(&k));
    most.ok_or_else(|| Problem::field("k", format!("is {k}; must be from 1 to {K_MAX}")))
}

fn popularity(weight: Option<f32>) -> Result<(), Problem> {
    match weight {
        Some(weight) if weight.is_nan() || weight.abs() > POPULARITY_MAX => {
            let detail = format!("is {weight}; must be within {POPULARITY_MAX} either way");
            Err(Problem::field("popularity", detail))
        }
        _ => Ok(()),
    }
}

fn ids(field: &str, ids: &[ItemId]) -> Result<(), Problem> {
    if ids.len() > IDS_MAX {
        let detail = format!("has {} ids; at most {IDS_MAX}", ids.len());
        return Err(Problem::field(field, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field and the detail of the problem with a body.
    fn wrong(body: &str) -> (String, String) {
        let checked = parse::<Retrieve>(body.as_bytes()).and_then(|request| request.check());
        let body = checked.expect_err(body).body();
        assert_eq!(body["status"], 400);
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (text("field"), text("detail"))
    }

    #[test]
    fn a_wrong_body_is_told_with_the_path_of_its_field() {
        for (body, field, detail) in [
            ("", "", "EOF"),
            ("{", "", "EOF"),
            ("[]", "", "invalid"),
            ("{\"query\": {}} x", "", "after the object"),
            ("{}", "query", "is missing"),
            (r#"{"query": 7}"#, "query", "expected a map"),
            (r#"{"query": {}, "k": 0}"#, "k", "is 0"),
            (r#"{"query": {}, "k": 1001}"#, "k", "is 1001"),
            (r#"{"query": {}, "k": -1}"#, "k", "expected u64"),
            (r#"{"query": {}, "k": "ten"}"#, "k", "expected u64"),
            (r#"{"query": {}, "k": 1.5}"#, "k", "expected u64"),
            (r#"{"query": {}, "popularity": 1e9}"#, "popularity", "within 100"),
            (r#"{"query": {}, "exclude": ["a", {}]}"#, "exclude[1]", "a string or an integer"),
            (r#"{"query": {}, "filter": {"a": 1.5}}"#, "filter.a", "a filter is"),
            (r#"{"query": {}, "filter": {"a": {"least": 1}}}"#, "filter.a", "a filter is"),
            (r#"{"query": {}, "filter": {"a": {}}}"#, "filter.a", "a filter is"),
            (r#"{"query": {}, "kk": 3}"#, "kk", "unknown field"),
            (r#"{"query": {}, "attributes": "title"}"#, "attributes", "true, or a list of names"),
            (r#"{"queries": [{}, 3]}"#, "queries[1]", "expected a map"),
            (r#"{"queries": []}"#, "queries", "no query"),
            (r#"{"query": {}, "queries": [{}]}"#, "queries", "one of them"),
        ] {
            let (found_field, found_detail) = wrong(body);
            assert_eq!(found_field, field, "{body}: {found_detail}");
            assert!(found_detail.contains(detail), "{body}: {found_detail}");
        }
        let many = format!(r#"{{"queries": [{}]}}"#, vec!["{}"; 65].join(","));
        assert_eq!(wrong(&many).0, "queries");
        let many = format!(r#"{{"query": {{}}, "exclude": [{}]}}"#, vec!["1"; 10_001].join(","));
        assert_eq!(wrong(&many).0, "exclude");
    }

    #[test]
    fn a_right_body_says_all_there_is_to_say() {
        let body = r#"{"query": {"user": 3}, "k": 5, "popularity": 0.5, "exclude": ["a", 858],
            "exclude_seen": true, "include": [1], "version": "v", "explain": true}"#;
        let request: Retrieve = parse(body.as_bytes()).expect("right");
        request.check().expect("right");
        assert_eq!(request.k().expect("right"), 5);
        assert_eq!(request.exclude, [ItemId("a".into()), ItemId("858".into())]);
        let filtered = br#"{"query": {}, "filter": {"c": ["x", 3], "p": {"max": 2.5}, "d": 7}}"#;
        let filtered: Retrieve = parse(filtered).expect("right");
        let one_of = |ids: &[&str]| Condition::OneOf(ids.iter().map(|&id| id.into()).collect());
        assert_eq!(filtered.filter["c"], one_of(&["x", "3"]));
        assert_eq!(filtered.filter["d"], one_of(&["7"]));
        assert_eq!(filtered.filter["p"], Condition::Within(f32::NEG_INFINITY, 2.5));
        let least: Retrieve = parse(br#"{"query": {}}"#).expect("right");
        assert_eq!((least.k().expect("ten"), least.explain), (10, false));
    }
}
