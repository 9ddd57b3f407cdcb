//! `/v1/projections`: how far consumers are, and what operators may have done to projections.

mod folding;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use kernel::{Position, Problem};
use projections::status::ConsumerRow;
use projections::{Database, RolledBack, status};
use rest::{Fault, Segment, documents};
use runtime::Log;
use runtime::consume::HandleError;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::{Known, Operations};

#[derive(Clone)]
struct Routes {
    log: Arc<dyn Log>,
    database: Database,
    operations: Arc<dyn Operations>,
    stop: CancellationToken,
}

pub(crate) fn router(
    log: Arc<dyn Log>,
    database: Database,
    operations: Arc<dyn Operations>,
    stop: CancellationToken,
) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(consumers))
        .routes(routes!(rebuild))
        .routes(routes!(verify))
        .routes(routes!(rollback))
        .with_state(Routes { log, database, operations, stop })
}

#[derive(Serialize, ToSchema)]
struct Consumer {
    #[serde(flatten)]
    row: ConsumerRow,
    /// The projection's name, for `rebuild` and `verify`; null for reactors.
    #[schema(example = "runs")]
    projection: Option<&'static str>,
    /// Commits it has yet to see.
    #[schema(example = 0)]
    lag_events: u64,
}

#[derive(Serialize, ToSchema)]
struct Consumers {
    items: Vec<Consumer>,
    /// Always null: there are few, and all of them are on one page.
    #[schema(example = json!(null))]
    next_cursor: Option<String>,
    /// The log's newest position.
    #[schema(example = "p1-2a")]
    head: String,
}

/// Lists projections and reactors with their checkpoints, and with the rebuilds and verifications that are running.
#[utoipa::path(get, path = "/v1/projections", tag = "operations", security(("token" = ["operate"])), responses((status = 200, body = Consumers)))]
async fn consumers(State(routes): State<Routes>) -> Result<Json<Consumers>, Fault> {
    let rows = status::consumers(routes.database.pool()).await?;
    let head = routes.log.head().await.map_err(|error| {
        tracing::warn!(%error, "the log's head could not be read");
        Problem::unavailable("The log cannot be read right now.", 1_000)
    })?;
    let lag = |position: Position| head.sequence().saturating_sub(position.sequence());
    let known = routes.operations.projections();
    let named = |consumer: &str| known.iter().find(|known| known.consumer == consumer).map(|known| known.name);
    let consumer = |row: ConsumerRow| Consumer { projection: named(&row.consumer), lag_events: lag(row.position), row };
    let items = rows.into_iter().map(consumer).collect();
    Ok(Json(Consumers { items, next_cursor: None, head: head.to_string() }))
}

/// A projection by its name (then its newest version is meant) or by `<name>_v<version>`.
fn find(routes: &Routes, wanted: &str) -> Result<Known, Fault> {
    let known = routes.operations.projections();
    let by_name = known.iter().filter(|known| known.name == wanted).max_by_key(|known| known.version);
    let found = known.iter().find(|known| known.consumer == wanted).or(by_name);
    found.cloned().ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|known| known.name).collect();
        let wanted: String = wanted.chars().filter(|c| !c.is_control()).take(200).collect();
        let detail = format!("There is no projection `{wanted}`; there are: {}.", names.join(", "));
        Problem::new(404, "unknown_projection", detail).into()
    })
}

/// Fills a projection anew from the log, beside the live one, compares, and switches. Closing the connection stops it.
#[utoipa::path(post, path = "/v1/projections/{name}/rebuild", tag = "operations", security(("token" = ["operate"])), params(("name" = String, Path)),
    responses((status = 200, content_type = "application/x-ndjson", description = "progress, one JSON object per line; the last one has `result` or `problem`"),
        (status = 404, body = documents::Problem)))]
async fn rebuild(State(routes): State<Routes>, Segment(name): Segment) -> Result<Response, Fault> {
    let known = find(&routes, &name)?;
    Ok(folding::response(routes.operations, known, true, routes.stop))
}

/// Folds the log once more and compares it with the live rows. Closing the connection stops it.
#[utoipa::path(post, path = "/v1/projections/{name}/verify", tag = "operations", security(("token" = ["operate"])), params(("name" = String, Path)),
    responses((status = 200, content_type = "application/x-ndjson", description = "progress, one JSON object per line; the last one has `result` or `problem`"),
        (status = 404, body = documents::Problem)))]
async fn verify(State(routes): State<Routes>, Segment(name): Segment) -> Result<Response, Fault> {
    let known = find(&routes, &name)?;
    Ok(folding::response(routes.operations, known, false, routes.stop))
}

/// Brings back the rows that the last rebuild has switched out; they catch up from where they stand.
#[utoipa::path(post, path = "/v1/projections/{name}/rollback", tag = "operations", security(("token" = ["operate"])), params(("name" = String, Path)),
    responses((status = 200, body = RolledBack), (status = "4XX", body = documents::Problem)))]
async fn rollback(State(routes): State<Routes>, Segment(name): Segment) -> Result<Json<RolledBack>, Fault> {
    let known = find(&routes, &name)?;
    // To its end, also when the caller goes away in the middle.
    let going = tokio::spawn(async move { routes.operations.roll_back(&known).await });
    let broke = |_| Problem::new(500, "defect", "The rollback broke; it has been logged.");
    let refused = |error| match error {
        HandleError::Poison(reason) => Problem::new(409, "nothing_to_go_back_to", format!("{reason}.")),
        other => problem(&other),
    };
    Ok(Json(going.await.map_err(broke)?.map_err(refused)?))
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
