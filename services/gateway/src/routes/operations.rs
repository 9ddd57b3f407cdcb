//! `/v1/projections` and `/v1/parked`: what operators look at and what they may do about it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kernel::{Position, Problem, TenantId};
use projections::status::{ConsumerRow, ParkedRow};
use projections::{Database, status};
use rest::{Caller, Fault, Page, Payload, Query, Segment, documents};
use runtime::Log;
use runtime::consume::HandleError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Operations;

#[derive(Clone)]
struct Routes {
    log: Arc<dyn Log>,
    database: Database,
    operations: Arc<dyn Operations>,
}

pub(crate) fn router(log: Arc<dyn Log>, database: Database, operations: Arc<dyn Operations>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(consumers))
        .routes(routes!(rebuild))
        .routes(routes!(verify))
        .routes(routes!(parked))
        .routes(routes!(retry))
        .routes(routes!(skip))
        .with_state(Routes { log, database, operations })
}

#[derive(Serialize, ToSchema)]
struct Consumer {
    #[serde(flatten)]
    row: ConsumerRow,
    /// The projection's name, for `rebuild` and `verify`; null for reactors.
    projection: Option<&'static str>,
    /// Commits it has yet to see.
    lag_events: u64,
}

#[derive(Serialize, ToSchema)]
struct Consumers {
    items: Vec<Consumer>,
    /// The log's newest position.
    head: String,
}

/// Lists projections and reactors with their checkpoints.
#[utoipa::path(get, path = "/v1/projections", tag = "operations", responses((status = 200, body = Consumers)))]
async fn consumers(State(routes): State<Routes>, caller: Caller) -> Result<Json<Consumers>, Fault> {
    caller.require_operator()?;
    let rows = status::consumers(routes.database.pool()).await?;
    let head = routes.log.head().await.map_err(|error| {
        tracing::warn!(%error, "the log's head could not be read");
        Problem::unavailable("The log cannot be read right now.", 1_000)
    })?;
    let lag = |position: Position| head.sequence().saturating_sub(position.sequence());
    let known = routes.operations.projections();
    let named = |consumer: &str| known.iter().copied().find(|name| consumer.starts_with(&format!("{name}_v")));
    let consumer = |row: ConsumerRow| Consumer { projection: named(&row.consumer), lag_events: lag(row.position), row };
    let items = rows.into_iter().map(consumer).collect();
    Ok(Json(Consumers { items, head: head.to_string() }))
}

/// Fills a projection anew from the log, beside the live one, and switches.
#[utoipa::path(post, path = "/v1/projections/{name}/rebuild", tag = "operations", params(("name" = String, Path)),
    responses((status = 200, content_type = "application/x-ndjson", description = "progress, one JSON object per line; the last one has `result` or `problem`"),
        (status = 404, body = documents::Problem)))]
async fn rebuild(State(routes): State<Routes>, caller: Caller, Segment(name): Segment) -> Result<Response, Fault> {
    caller.require_operator()?;
    fold(routes, name, true)
}

/// Folds the log once more and compares it with the live rows.
#[utoipa::path(post, path = "/v1/projections/{name}/verify", tag = "operations", params(("name" = String, Path)),
    responses((status = 200, content_type = "application/x-ndjson", description = "progress, one JSON object per line; the last one has `result` or `problem`"),
        (status = 404, body = documents::Problem)))]
async fn verify(State(routes): State<Routes>, caller: Caller, Segment(name): Segment) -> Result<Response, Fault> {
    caller.require_operator()?;
    fold(routes, name, false)
}

fn fold(routes: Routes, name: String, switch: bool) -> Result<Response, Fault> {
    let known = routes.operations.projections();
    let Some(name) = known.iter().find(|known| **known == name).copied() else {
        let detail = format!("There is no projection `{name}`; there are: {}.", known.join(", "));
        return Err(Problem::new(404, "unknown_projection", detail).into());
    };
    let (progress, mut news) = mpsc::channel(16);
    let (lines, body) = mpsc::channel::<Value>(16);
    // The fold goes on when the caller goes away: a rebuild that was asked for is wanted.
    tokio::spawn(async move {
        let operations = Arc::clone(&routes.operations);
        let folding = tokio::spawn(async move { operations.fold(name, switch, progress).await });
        while let Some(news) = news.recv().await {
            let _ = lines.send(json!({ "done": news.done, "total": news.total })).await;
        }
        let last = match folding.await {
            Ok(Ok(fold)) => json!({ "result": fold }),
            Ok(Err(error)) => json!({ "problem": problem(&error) }),
            Err(error) => {
                tracing::error!(%error, name, "a fold ended without a result");
                json!({ "problem": Problem::new(500, "defect", "The fold broke; it has been logged.") })
            }
        };
        let _ = lines.send(last).await;
    });
    let lines = ReceiverStream::new(body).map(|line| Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn problem(error: &HandleError) -> Problem {
    match error {
        HandleError::Transient(reason) => Problem::unavailable(format!("It could not be done now: {reason}."), 1_000),
        HandleError::Lost(reason) => Problem::new(409, "busy_elsewhere", format!("{reason}.")),
        HandleError::Poison(reason) => {
            let detail = format!(
                "The log has a commit that this projection cannot read: {reason}. The live rows are untouched."
            );
            Problem::new(422, "unreadable_commit", detail)
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WantedParked {
    /// Also those that were skipped.
    #[serde(default)]
    all: bool,
}

/// Lists what consumers have set aside.
#[utoipa::path(get, path = "/v1/parked", tag = "operations", params(WantedParked),
    responses((status = 200, body = Page<ParkedRow>)))]
async fn parked(
    State(routes): State<Routes>,
    caller: Caller,
    Query(wanted): Query<WantedParked>,
) -> Result<Json<Page<ParkedRow>>, Fault> {
    let items = status::parked(routes.database.pool(), scope(&caller), wanted.all, 500).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

/// Which parked thing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Its id, from the list.
    #[schema(example = "runs_v1@42")]
    id: String,
    /// Why it is left out; for `skip`.
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Asked {
    id: String,
    /// What will happen now.
    asked: &'static str,
}

/// What a caller may see and release: an operator everything, because some of it belongs to nobody; others their own.
fn scope(caller: &Caller) -> Option<&TenantId> {
    (!caller.operator).then_some(&caller.tenant)
}

fn nothing_parked(id: &str) -> Problem {
    let id: String = id.chars().filter(|c| !c.is_control()).take(200).collect();
    Problem::not_found(format!("Nothing is parked as `{id}`; `airstream parked list` shows what is."))
}

/// Reads which parked thing a request is about.
fn which(body: &Payload) -> Result<Which, Fault> {
    let which: Which = body.read()?;
    if which.id.contains(char::is_control) {
        return Err(nothing_parked(&which.id).into());
    }
    Ok(which)
}

/// Has a parked commit (and what waits behind it) or effect handled now.
#[utoipa::path(post, path = "/v1/parked/retry", tag = "operations", request_body = Which,
    responses((status = 202, body = Asked), (status = 404, body = documents::Problem)))]
async fn retry(State(routes): State<Routes>, caller: Caller, body: Payload) -> Result<Response, Fault> {
    let which = which(&body)?;
    let found = status::retry(routes.database.pool(), scope(&caller), &which.id).await?;
    asked(found, which.id, "retry")
}

/// Leaves a parked commit or effect out for good, with a reason, and releases what waits behind it.
#[utoipa::path(post, path = "/v1/parked/skip", tag = "operations", request_body = Which,
    responses((status = 202, body = Asked), (status = "4XX", body = documents::Problem)))]
async fn skip(State(routes): State<Routes>, caller: Caller, body: Payload) -> Result<Response, Fault> {
    let which = which(&body)?;
    let Some(reason) = which.reason.filter(|reason| !reason.trim().is_empty()) else {
        return Err(Problem::new(422, "invalid", "Say why in `reason`: others will ask.").into());
    };
    let reason = format!("{} (by {})", reason.replace(char::is_control, " "), caller.principal);
    let found = status::skip(routes.database.pool(), scope(&caller), &which.id, &reason).await?;
    asked(found, which.id, "skip")
}

fn asked(found: bool, id: String, asked: &'static str) -> Result<Response, Fault> {
    if !found {
        return Err(nothing_parked(&id).into());
    }
    Ok((axum::http::StatusCode::ACCEPTED, Json(Asked { id, asked })).into_response())
}
