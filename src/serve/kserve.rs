//! KServe V2, which Triton's clients and others speak, over the same handler as `/v1/retrieve`.
//!
//! The model `millrace` has one input, `query`: texts, each the JSON object of a query's fields.
//! Its outputs are `id` and `score`, `[queries, items]`, best first. JSON alone; tensors in binary
//! are an extension that this does not have.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::answer;
use super::http::{App, bytes};
use super::problem::{Problem, Refused};
use super::request::{Retrieve, Wanted, parse};

/// The name of the only model.
const MODEL: &str = "millrace";
/// Fills up the row of a query that has fewer items than another of the request.
const NO_SCORE: f32 = f32::MIN;

/// `POST /v2/models/{model}/infer`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Infer {
    /// Comes back in the answer.
    id: Option<String>,
    /// Fields of `/v1/retrieve` beside its queries: `k`, `popularity`, `exclude_seen`, `arm`.
    #[serde(default)]
    #[schema(value_type = Parameters)]
    parameters: Map<String, Value>,
    #[schema(min_items = 1, max_items = 1)]
    inputs: Vec<Input>,
    /// Those wanted; absent: both.
    outputs: Option<Vec<Output>>,
}

/// What of `/v1/retrieve` fits a protocol of tensors.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes; `Retrieve` reads them")]
struct Parameters {
    #[schema(minimum = 1, maximum = 1000)]
    k: Option<u64>,
    #[schema(minimum = -100, maximum = 100)]
    popularity: Option<f32>,
    exclude_seen: Option<bool>,
    arm: Option<String>,
}

/// A tensor that comes in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// `query`
    #[schema(pattern = "^query$")]
    name: String,
    /// `[queries]` or `[queries, 1]`.
    #[schema(min_items = 1, max_items = 2)]
    shape: Vec<u64>,
    /// `BYTES`
    #[schema(pattern = "^BYTES$")]
    datatype: String,
    /// JSON objects, as texts.
    #[schema(min_items = 1, max_items = 64)]
    data: Vec<String>,
    #[serde(default, rename = "parameters")]
    #[schema(value_type = Option<Object>)]
    _parameters: Map<String, Value>,
}

/// A tensor that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Output {
    /// `id` or `score`.
    #[schema(pattern = "^(id|score)$")]
    name: String,
    #[serde(default, rename = "parameters")]
    #[schema(value_type = Option<Object>)]
    _parameters: Map<String, Value>,
}

/// What an inference answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Inferred {
    model_name: &'static str,
    /// The version that answered.
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<Tensor>,
}

/// A tensor that goes out: `[queries, items]`.
#[derive(Serialize, ToSchema)]
struct Tensor {
    name: &'static str,
    datatype: &'static str,
    shape: [usize; 2],
    data: Data,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Data {
    Ids(Vec<String>),
    Scores(Vec<f32>),
}

/// The answer to an inference.
pub(super) fn infer(
    app: &App,
    model: &str,
    version: Option<String>,
    (body, place): (&[u8], &mut usize),
) -> Result<Vec<u8>, Problem> {
    if model != MODEL {
        return Err(Problem::no_model(model, MODEL));
    }
    let Infer { id, parameters, inputs, outputs } = parse(body)?;
    let request = request(parameters, inputs, version)?;
    let wanted = |name: &str| {
        outputs.as_ref().is_none_or(|outputs| outputs.iter().any(|output| output.name == name))
    };
    if let Some(at) = outputs.iter().flatten().position(|o| !["id", "score"].contains(&&*o.name)) {
        return Err(Problem::field(format!("outputs[{at}].name"), "there are `id` and `score`"));
    }
    let (arm, version) = app.chosen(one_arm(app, &request)?, place)?;
    let rows = answer::ranked(arm.view(&version), &request)?;
    let items = rows.iter().map(Vec::len).max().unwrap_or_default();
    let shape = [rows.len(), items];
    let (mut ids, mut scores) = (Vec::new(), Vec::new());
    for row in &rows {
        ids.extend(row.iter().map(|(id, _)| (*id).to_owned()));
        scores.extend(row.iter().map(|(_, score)| *score));
        ids.resize(ids.len() + items - row.len(), String::new());
        scores.resize(ids.len(), NO_SCORE);
    }
    let mut outputs = Vec::new();
    if wanted("id") {
        outputs.push(Tensor { name: "id", datatype: "BYTES", shape, data: Data::Ids(ids) });
    }
    if wanted("score") {
        outputs.push(Tensor { name: "score", datatype: "FP32", shape, data: Data::Scores(scores) });
    }
    bytes(&Inferred { model_name: MODEL, model_version: version.id.clone(), id, outputs })
}

/// Who is to answer all queries of `request`: its answer has room for one version.
fn one_arm<'r>(app: &App, request: &'r Retrieve) -> Result<Wanted<'r>, Problem> {
    let mut queries = request.queries.iter().flatten();
    let wanted = Wanted { query: queries.next(), ..request.wanted() };
    let place = app.arms.place(wanted)?;
    for query in queries {
        if app.arms.place(Wanted { query: Some(query), ..wanted })? != place {
            let detail = "the queries belong to several arms; send one at a time, or name one in \
                          parameters.arm";
            return Err(Problem::field("inputs[0].data", detail));
        }
    }
    Ok(wanted)
}

/// The request to retrieve that an inference stands for.
fn request(
    mut parameters: Map<String, Value>,
    inputs: Vec<Input>,
    version: Option<String>,
) -> Result<Retrieve, Problem> {
    let [input] = <[Input; 1]>::try_from(inputs)
        .map_err(|_| Problem::field("inputs", "there is one: `query`"))?;
    if input.name != "query" || input.datatype != "BYTES" {
        let detail = "is `query`, with datatype BYTES: texts, each the JSON of a query's fields";
        return Err(Problem::field("inputs[0]", detail));
    }
    let queries = u64::try_from(input.data.len()).unwrap_or(u64::MAX);
    if ![&[queries][..], &[queries, 1]].contains(&&input.shape[..]) {
        let detail = format!("is {:?}, and there are {queries} elements", input.shape);
        return Err(Problem::field("inputs[0].shape", detail));
    }
    for name in parameters.keys() {
        if !["k", "popularity", "exclude_seen", "arm"].contains(&&**name) {
            let detail = "there are `k`, `popularity`, `exclude_seen` and `arm`";
            return Err(Problem::field(format!("parameters.{name}"), detail));
        }
    }
    let mut fields = Vec::new();
    for (at, text) in input.data.iter().enumerate() {
        let query: Result<Map<String, Value>, _> = serde_json::from_str(text);
        let query = query.map_err(|error| {
            Problem::field(format!("inputs[0].data[{at}]"), format!("no JSON object: {error}"))
        })?;
        fields.push(query);
    }
    parameters.insert("queries".to_owned(), json!(fields));
    parameters.insert("version".to_owned(), json!(version));
    let request: Retrieve = parse(&bytes(&parameters)?)?;
    request.check()?;
    Ok(request)
}

/// What this server is.
#[utoipa::path(get, path = "/v2",
    responses((status = 200, description = "Name, version, extensions.", body = Object)))]
pub(super) async fn server() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    answer(&json!({ "name": MODEL, "version": version, "extensions": [] }))
}

/// Whether the process works.
#[utoipa::path(get, path = "/v2/health/live",
    responses((status = 200, description = "It does."), (status = 503, description = "No.")))]
pub(super) async fn live(State(app): State<Arc<App>>) -> StatusCode {
    app.board.health().livez().0
}

/// Whether it answers.
#[utoipa::path(get, path = "/v2/health/ready",
    responses((status = 200, description = "It does."), (status = 503, description = "Not yet.")))]
pub(super) async fn ready(State(app): State<Arc<App>>) -> StatusCode {
    app.board.health().readyz().0
}

/// The model's inputs and outputs, and the versions in memory.
#[utoipa::path(get, path = "/v2/models/{model}",
    params(("model" = String, Path, description = "`millrace`.")),
    responses((status = 200, description = "The model.", body = Object), Refused))]
pub(super) async fn model(State(app): State<Arc<App>>, Path(model): Path<String>) -> Response {
    if model != MODEL {
        return Problem::no_model(&model, MODEL).into_response();
    }
    answer(&json!({
        "name": MODEL,
        "versions": app.arms.iter().flat_map(|arm| arm.stock.shelf.row().ids()).collect::<Vec<_>>(),
        "platform": "millrace",
        "inputs": [tensor("query", "BYTES", &[-1])],
        "outputs": [tensor("id", "BYTES", &[-1, -1]), tensor("score", "FP32", &[-1, -1])],
    }))
}

/// Whether the model answers.
#[utoipa::path(get, path = "/v2/models/{model}/ready",
    params(("model" = String, Path, description = "`millrace`.")),
    responses((status = 200, description = "It does."), Refused))]
pub(super) async fn model_ready(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
) -> Response {
    if model != MODEL {
        return Problem::no_model(&model, MODEL).into_response();
    }
    match app.board.health().readyz() {
        (StatusCode::OK, _) => StatusCode::OK.into_response(),
        _ => Problem::no_version().into_response(),
    }
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> Value {
    json!({ "name": name, "datatype": datatype, "shape": shape })
}

fn answer(json: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], json.to_string()).into_response()
}
