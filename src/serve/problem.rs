//! What went wrong with a request, as RFC 9457 wants it said.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::response::Response as Described;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// Seconds after which a refused client may ask again: by then a burst is over.
const RETRY_S: &str = "1";

/// A request that gets no answer, and why.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// Path of the field that is wrong: `query.age`, `queries[2].k`.
    field: Option<String>,
    /// The versions that there are.
    versions: Option<Vec<String>>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None, versions: None }
    }

    /// A field that cannot be used.
    pub(super) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let field = Some(field.into()).filter(|field: &String| !matches!(&**field, "" | "." | "?"));
        Self { field, ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// A version that is not in memory, or no longer.
    pub(super) fn gone(id: &str, there: Vec<String>) -> Self {
        let detail = format!("version {id} is not in memory; `versions` lists what is");
        let field = Some("version".to_owned());
        Self { field, versions: Some(there), ..Self::new(StatusCode::GONE, detail) }
    }

    /// Nothing to answer with yet.
    pub(super) fn no_version() -> Self {
        let detail = "no version is loaded yet; /readyz says what is waited for";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// More requests at once than `most`.
    pub(super) fn busy(most: usize) -> Self {
        let detail = format!("{most} requests are being worked on, which is serve.requests_max");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// An answer that is not there in time.
    pub(super) fn late(ms: u64) -> Self {
        let detail = format!("no answer within {ms} ms (serve.timeout_ms)");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// A body that does not come.
    pub(super) fn slow(ms: u64) -> Self {
        let detail = format!("the body did not come within {ms} ms (serve.timeout_ms)");
        Self::new(StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// A body that is too large.
    pub(super) fn large(most: u64) -> Self {
        let detail = format!("the body has more than {most} bytes (serve.body_bytes_max)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// A body that breaks off.
    pub(super) fn broken(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// No key, or a wrong one.
    pub(super) fn no_key() -> Self {
        let detail = "send a key of serve.keys: Authorization: Bearer KEY";
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// A key that may not do this.
    pub(super) fn not_admin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "this takes a key of serve.keys.admin")
    }

    /// No such item.
    pub(super) fn no_item(id: &str, version: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("version {version} has no item {id:?}"))
    }

    /// No such model.
    pub(super) fn no_model(name: &str, there: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no model {name:?}; there is `{there}`"))
    }

    /// No such route.
    pub(super) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such route; / lists them")
    }

    /// A route, but another method.
    pub(super) fn no_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this route takes another method; / lists them")
    }

    /// A fault of ours.
    pub(super) fn ours(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The same, of the query at this place among several.
    pub(super) fn of_query(mut self, at: usize) -> Self {
        let inner = self.field.as_deref().unwrap_or_default().trim_start_matches("query");
        self.field = Some(format!("queries[{at}]{inner}"));
        self
    }

    pub(super) fn body(&self) -> Value {
        let body = ProblemBody {
            kind: "about:blank",
            title: self.status.canonical_reason(),
            status: self.status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
            versions: self.versions.as_deref(),
        };
        serde_json::to_value(body).expect("names and texts are JSON")
    }
}

/// The body of a refusal (RFC 9457).
#[derive(Serialize, ToSchema)]
pub(super) struct ProblemBody<'p> {
    #[serde(rename = "type")]
    kind: &'p str,
    title: Option<&'p str>,
    status: u16,
    /// What is wrong, and what to do.
    detail: &'p str,
    /// Path of the field that is wrong: `query.age`, `queries[2].k`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'p str>,
    /// The versions in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<&'p [String]>,
}

/// Every refusal, for the description of the routes.
pub(super) struct Refused;

/// Status and reason of each.
const REFUSALS: [(&str, &str); 11] = [
    ("400", "No JSON, a wrong type or value: `field` is its path."),
    ("401", "No key, or a wrong one."),
    ("403", "The key may only read."),
    ("404", "No such item, model or route."),
    ("405", "Another method."),
    ("408", "The body did not come within serve.timeout_ms."),
    ("410", "The version is not in memory; `versions` are."),
    ("413", "The body is larger than serve.body_bytes_max."),
    ("431", "The head is too large."),
    ("500", "A fault of ours; the log says more."),
    ("503", "No version yet, too many requests at once, or no answer in time."),
];

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let body = Ref::from_schema_name("ProblemBody");
        let content = || ContentBuilder::new().schema(Some(body.clone())).build();
        let response = |(status, why): (&str, &str)| {
            let described = ResponseBuilder::new().description(why);
            let described = described.content("application/problem+json", content()).build();
            (status.to_owned(), described.into())
        };
        REFUSALS.into_iter().map(response).collect()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.body().to_string();
        let kind = [(CONTENT_TYPE, "application/problem+json")];
        match self.status {
            status @ StatusCode::SERVICE_UNAVAILABLE => {
                (status, kind, [(RETRY_AFTER, RETRY_S)], body).into_response()
            }
            status @ StatusCode::UNAUTHORIZED => {
                (status, kind, [(WWW_AUTHENTICATE, "Bearer")], body).into_response()
            }
            status => (status, kind, body).into_response(),
        }
    }
}
