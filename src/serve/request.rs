//! The bodies of requests, checked.
//!
//! serde says what is wrong with a body and where; what it cannot know is checked here.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::problem::Problem;

/// Most items of one answer.
const K_MAX: u64 = 1000;
/// Items of an answer whose request does not say.
const K: u64 = 10;
/// Most queries of one request: they are answered by one thread.
const QUERIES_MAX: usize = 64;
/// Most ids in one list: checking them takes about as long as a search.
const IDS_MAX: usize = 10_000;
/// Weights of log q that mean something.
const POPULARITY_MAX: f32 = 100.0;

/// The fields of a query, as the log has them.
pub(super) type Fields = Map<String, Value>;

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

/// `POST /v1/retrieve`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retrieve {
    pub(super) query: Option<Fields>,
    pub(super) queries: Option<Vec<Fields>>,
    #[serde(default = "default_k")]
    k: u64,
    pub(super) popularity: Option<f32>,
    #[serde(default)]
    pub(super) exclude: Vec<ItemId>,
    #[serde(default)]
    pub(super) exclude_seen: bool,
    /// What to choose from; absent: everything.
    pub(super) include: Option<Vec<ItemId>>,
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) explain: bool,
}

/// `POST /v1/score`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Score {
    pub(super) query: Fields,
    pub(super) items: Vec<ItemId>,
    pub(super) popularity: Option<f32>,
    pub(super) version: Option<String>,
}

/// `POST /v1/embed`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Embed {
    pub(super) query: Fields,
    pub(super) version: Option<String>,
}

/// The parameters of `GET /v1/items/{id}/similar`.
#[derive(Debug, PartialEq)]
pub(super) struct Similar {
    pub(super) k: usize,
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

impl Similar {
    /// The parameters in the part of an address behind its `?`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut wanted = K;
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("k", value)) => {
                    wanted = value.parse().map_err(|_| {
                        Problem::field("k", "must be a whole number from 1 to 1000")
                    })?;
                }
                _ => {
                    let name = pair.split('=').next().unwrap_or_default();
                    return Err(Problem::field(name, "unknown parameter; there is `k`"));
                }
            }
        }
        Ok(Self { k: k(wanted)? })
    }
}

fn k(k: u64) -> Result<usize, Problem> {
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
            (r#"{"query": {}, "kk": 3}"#, "kk", "unknown field"),
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
        let least: Retrieve = parse(br#"{"query": {}}"#).expect("right");
        assert_eq!((least.k().expect("ten"), least.explain), (10, false));
        assert_eq!(Similar::parse("k=3").expect("right"), Similar { k: 3 });
        assert_eq!(Similar::parse("").expect("right"), Similar { k: 10 });
        for wrong in ["k=0", "k=a", "q=3", "k"] {
            assert!(Similar::parse(wrong).is_err(), "{wrong}");
        }
    }
}
