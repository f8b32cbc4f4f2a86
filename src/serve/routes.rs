//! What can be asked, where, and by whom. docs/reference/serve.md is the page for people,
//! [`super::openapi`] the one for programs; a test holds all three.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::oneshot;
use tokio::time::{Instant as Moment, timeout_at};

use super::access::Access;
use super::answer::{Answer, Embedded, ItemAnswer, RetrieveAnswer, Scores, SimilarItems};
use super::http::App;
use super::kserve;
use super::metrics::Route;
use super::parameters::{OfArm, Pin, Similar};
use super::problem::{Problem, Refused};
use super::request::{Embed, Retrieve, Score};
use crate::telemetry::{METRICS_TYPE, json, page};

const JSON: &str = "application/json";
const INDEX: &str = "millrace serve

POST /v1/retrieve                 the best items for a query
POST /v1/score                    scores of given items
POST /v1/embed                    a query's vector
GET  /v1/items/{id}               an item's vector
GET  /v1/items/{id}/similar       the items nearest to it
GET  /v1/versions                 what is in memory, and what answers
POST /v1/versions/{id}/activate   another version answers; `latest`: the newest, as it comes
POST /v2/models/millrace/infer    KServe V2, over /v1/retrieve
GET  /openapi.json                all of this for programs
GET  /                            in a browser: how it goes, as curves, and a form to try it
GET  /metrics                     Prometheus text format
GET  /livez                       200 unless it has failed or is stuck (/healthz is the same)
GET  /readyz                      200 when answering, else what it waits for

docs/reference/serve.md
";

/// What the server shares with each request.
type Shared = State<Arc<App>>;

/// All routes.
pub(super) fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|head: HeaderMap| async move { page(&head, INDEX) }))
        .route("/status.json", get(status))
        .route("/curves.json", get(curves))
        .route("/v1/retrieve", post(retrieve))
        .route("/v1/score", post(score))
        .route("/v1/embed", post(embed))
        .route("/v1/items/{id}", get(item))
        .route("/v1/items/{id}/similar", get(similar))
        .route("/v1/versions", get(versions))
        .route("/v1/versions/{id}/activate", post(activate))
        .route("/v2", get(kserve::server))
        .route("/v2/health/live", get(kserve::live))
        .route("/v2/health/ready", get(kserve::ready))
        .route("/v2/models/{model}", get(kserve::model))
        .route("/v2/models/{model}/ready", get(kserve::model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer_pinned))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .fallback(|| async { Problem::no_route() })
        .method_not_allowed_fallback(|| async { Problem::no_method() })
        .with_state(app)
}

/// The best items for a query, or for several.
#[utoipa::path(post, path = "/v1/retrieve", request_body = Retrieve, security((), ("key" = [])),
    responses(
        (status = 200, description = "The items.", body = RetrieveAnswer<'static>),
        Refused
    ))]
pub(super) async fn retrieve(State(app): Shared, request: Request) -> Response {
    work(app, Route::Retrieve, Access::Read, request, App::retrieve).await
}

/// Scores of given items for a query.
#[utoipa::path(post, path = "/v1/score", request_body = Score, security((), ("key" = [])),
    responses(
        (status = 200, description = "The scores.", body = Answer<'static, Scores<'static>>),
        Refused
    ))]
pub(super) async fn score(State(app): Shared, request: Request) -> Response {
    work(app, Route::Score, Access::Read, request, App::score).await
}

/// A query's vector.
#[utoipa::path(post, path = "/v1/embed", request_body = Embed, security((), ("key" = [])),
    responses(
        (status = 200, description = "The vector.", body = Answer<'static, Embedded<'static>>),
        Refused
    ))]
pub(super) async fn embed(State(app): Shared, request: Request) -> Response {
    work(app, Route::Embed, Access::Read, request, App::embed).await
}

/// An item's vector.
#[utoipa::path(get, path = "/v1/items/{id}", security((), ("key" = [])),
    params(("id" = String, Path, description = "The item's id."), Pin),
    responses(
        (status = 200, description = "The item.", body = Answer<'static, ItemAnswer<'static>>),
        Refused
    ))]
pub(super) async fn item(State(app): Shared, Path(id): Path<String>, request: Request) -> Response {
    let parameters = parameters(&request);
    work(app, Route::Item, Access::Read, request, move |app, _, place| {
        app.item(&id, &Pin::parse(&parameters)?, place)
    })
    .await
}

/// The items nearest to an item.
#[utoipa::path(get, path = "/v1/items/{id}/similar", security((), ("key" = [])),
    params(("id" = String, Path, description = "The item's id."), Similar, Pin),
    responses(
        (status = 200, description = "The items.", body = Answer<'static, SimilarItems<'static>>),
        Refused
    ))]
pub(super) async fn similar(
    State(app): Shared,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let parameters = parameters(&request);
    work(app, Route::Similar, Access::Read, request, move |app, _, place| {
        app.similar(&id, &Similar::parse(&parameters)?, place)
    })
    .await
}

/// The versions in memory, and how histories stand.
#[utoipa::path(get, path = "/v1/versions", security((), ("key" = [])), params(OfArm),
    responses(
        (status = 200, description = "The versions.", body = super::listing::Listed<'static>),
        Refused
    ))]
pub(super) async fn versions(State(app): Shared, request: Request) -> Response {
    let parameters = parameters(&request);
    work(app, Route::Versions, Access::Read, request, move |app, _, place| {
        app.versions(&OfArm::parse(&parameters)?, place)
    })
    .await
}

/// Makes a version answer and holds it; `latest`: the newest, as it comes.
#[utoipa::path(post, path = "/v1/versions/{id}/activate", security((), ("key" = [])),
    params(("id" = String, Path, description = "A version's id, or `latest`."), OfArm),
    responses(
        (status = 200, description = "It answers.", body = super::listing::Activated<'static>),
        Refused
    ))]
pub(super) async fn activate(
    State(app): Shared,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let parameters = parameters(&request);
    work(app, Route::Activate, Access::Admin, request, move |app, _, place| {
        app.activate(&id, &OfArm::parse(&parameters)?, place)
    })
    .await
}

/// The best items, as a KServe V2 inference.
#[utoipa::path(post, path = "/v2/models/{model}/infer", request_body = kserve::Infer,
    security((), ("key" = [])),
    params(("model" = String, Path, description = "`millrace`.")),
    responses(
        (status = 200, description = "The items.", body = kserve::Inferred),
        Refused
    ))]
pub(super) async fn infer(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    work(app, Route::Infer, Access::Read, request, move |app, body, place| {
        kserve::infer(app, &model, None, (body, place))
    })
    .await
}

/// The same, of a version that is named.
#[utoipa::path(post, path = "/v2/models/{model}/versions/{version}/infer",
    request_body = kserve::Infer, security((), ("key" = [])),
    params(("model" = String, Path, description = "`millrace`."),
        ("version" = String, Path, description = "A version in memory.")),
    responses(
        (status = 200, description = "The items.", body = kserve::Inferred),
        Refused
    ))]
pub(super) async fn infer_pinned(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    work(app, Route::Infer, Access::Read, request, move |app, body, place| {
        kserve::infer(app, &model, Some(version), (body, place))
    })
    .await
}

/// The state for the page. It quotes the log, so it takes a key where there are keys.
async fn status(State(app): Shared, head: HeaderMap) -> Response {
    match app.keys.check(&head, Access::Read) {
        Ok(()) => json(app.board.status()),
        Err(problem) => problem.into_response(),
    }
}

async fn curves(State(app): Shared, RawQuery(parameters): RawQuery) -> Response {
    json(app.board.points(&parameters.unwrap_or_default()))
}

async fn metrics(State(app): Shared) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], app.board.render()).into_response()
}

async fn livez(State(app): Shared) -> impl IntoResponse {
    app.board.health().livez()
}

async fn readyz(State(app): Shared) -> impl IntoResponse {
    app.board.health().readyz()
}

/// What stands behind the `?` of its address.
fn parameters(request: &Request) -> String {
    request.uri().query().unwrap_or_default().to_owned()
}

/// What a request asks for, given its body; it says the place of the arm that answers.
trait Task: FnOnce(&App, &[u8], &mut usize) -> Result<Vec<u8>, Problem> + Send + 'static {}

impl<F> Task for F where
    F: FnOnce(&App, &[u8], &mut usize) -> Result<Vec<u8>, Problem> + Send + 'static
{
}

/// One request from its head to its answer, within all limits.
async fn work(
    app: Arc<App>,
    route: Route,
    access: Access,
    request: Request,
    task: impl Task,
) -> Response {
    let began = Instant::now();
    // What is refused before its arm is known counts for the first.
    let (answer, place) =
        answered(&app, access, request, task).await.unwrap_or_else(|problem| (Err(problem), 0));
    let response = match answer {
        Ok(bytes) => ([(CONTENT_TYPE, JSON)], bytes).into_response(),
        Err(problem) => problem.into_response(),
    };
    let status = response.status().as_u16();
    app.arms.at(place).metrics.answered(route, status, began.elapsed().as_secs_f64());
    response
}

/// The answer, and the place of its arm.
async fn answered(
    app: &Arc<App>,
    access: Access,
    request: Request,
    task: impl Task,
) -> Result<(Result<Vec<u8>, Problem>, usize), Problem> {
    app.keys.check(request.headers(), access)?;
    let permit = Arc::clone(&app.permits).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy(app.requests_max))?;
    let deadline = Moment::now() + Duration::from_millis(app.timeout_ms);
    let body = body(app, request.into_body(), deadline).await?;
    let (sender, receiver) = oneshot::channel();
    let own = Arc::clone(app);
    app.pool.spawn_fifo(move || {
        // Nobody waits any more for what comes too late.
        if !sender.is_closed() {
            let mut place = 0;
            let answer = task(&own, &body, &mut place);
            drop(sender.send((answer, place)));
        }
        // Only now: what was given up on has its place until it ends.
        drop(permit);
    });
    match timeout_at(deadline, receiver).await {
        Ok(Ok(answered)) => Ok(answered),
        Ok(Err(_)) => Err(Problem::ours("the request failed; the log says more")),
        Err(_) => Err(Problem::late(app.timeout_ms)),
    }
}

/// The whole body, if it comes in time and is not too large.
async fn body(app: &App, body: Body, deadline: Moment) -> Result<Bytes, Problem> {
    let read = timeout_at(deadline, to_bytes(body, app.body_bytes_max)).await;
    let read = read.map_err(|_| Problem::slow(app.timeout_ms))?;
    read.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        match cause.to_string() {
            reason if reason.contains("length limit") => Problem::large(app.body_bytes_max as u64),
            reason => Problem::broken(format!("the body breaks off: {reason}")),
        }
    })
}
