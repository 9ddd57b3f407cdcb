//! `/v1/commands`: the bus door over HTTP, and what became of commands.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kernel::{CommandId, Problem, StreamName};
use projections::commits::CommitRow;
use projections::inbox::RejectedRow;
use projections::{Database, commits, fresh, inbox};
use rest::{AtLeast, Caller, Chain, Fault, IdempotencyKey, Page, PageQuery, Payload, Query, Segment, documents};
use runtime::{Commands, Executor, Request};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Clone)]
struct Routes {
    executor: Arc<Executor>,
    commands: Arc<dyn Commands>,
    database: Database,
}

pub(crate) fn router(executor: Executor, commands: Arc<dyn Commands>, database: Database) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list, publish))
        .routes(routes!(show))
        .routes(routes!(catalogue))
        .with_state(Routes { executor: Arc::new(executor), commands, database })
}

/// A command for any stream.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Publish {
    /// The stream's category.
    #[schema(example = "workflow")]
    category: String,
    /// The stream within the category.
    #[schema(example = "wf_12345")]
    id: String,
    /// The command's name.
    #[schema(example = "define")]
    command: String,
    /// The command's body.
    #[schema(value_type = Object, example = json!({"steps": [{"id": 1, "name": "validate_input"}]}))]
    body: Option<Box<RawValue>>,
    /// Idempotency key; the header `Idempotency-Key` does the same.
    #[schema(example = "order-42")]
    command_id: Option<String>,
    /// Decide only if the stream has exactly this version.
    #[schema(example = json!(null))]
    expected_version: Option<u64>,
}

/// Publishes a command and waits for the answer.
#[utoipa::path(post, path = "/v1/commands", tag = "commands", security(("token" = ["commands:write"])), request_body = Publish,
    responses((status = 200, body = documents::Answer), (status = "4XX", body = documents::Problem), (status = "5XX", body = documents::Problem)))]
async fn publish(
    State(routes): State<Routes>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let publish: Publish = body.read()?;
    let stream = StreamName::new(caller.tenant.as_str(), &publish.category, &publish.id)?;
    let id = match (key, publish.command_id) {
        (Some(key), Some(other)) if key.as_str() != other => {
            let detail = "The header and the body name different command ids.";
            return Err(Problem::new(400, "ambiguous_command_id", detail).into());
        }
        (Some(key), _) => Some(key),
        (None, Some(text)) => Some(CommandId::chosen(&text)?),
        (None, None) => None,
    };
    let text = publish.body.map(|body| body.get().to_owned()).unwrap_or_default();
    let request = Request {
        id,
        expected_version: publish.expected_version,
        correlation: chain.correlation,
        traceparent: chain.traceparent,
        ..Request::new(stream, &publish.command, text, caller.principal)
    };
    let answer = routes.commands.execute(request).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// List queued commands that were refused, instead of accepted ones.
    #[serde(default)]
    rejected: bool,
    /// Items per page: 1 to 500.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// A position from an earlier answer: answer only once it is visible.
    at_least: Option<String>,
}

/// Lists commands, newest first: accepted ones, or queued ones that were refused.
#[utoipa::path(get, path = "/v1/commands", tag = "commands", security(("token" = ["commands:read"])), params(Wanted),
    responses((status = 200, body = Page<CommitRow>), (status = "4XX", body = documents::Problem)))]
async fn list(State(routes): State<Routes>, caller: Caller, Query(wanted): Query<Wanted>) -> Result<Response, Fault> {
    let page = PageQuery { limit: wanted.limit, cursor: wanted.cursor };
    let (limit, before, pool) = (page.limit()?, page.position()?, routes.database.pool());
    if wanted.rejected {
        fresh::<inbox::Inbox>(pool, wanted.at_least.as_deref()).await?;
        let rows = inbox::list(pool, &caller.tenant, before, limit as i64 + 1).await?;
        return Ok(Json(Page::of(rows, limit, |row| row.position.to_string())).into_response());
    }
    fresh::<commits::Commits>(pool, wanted.at_least.as_deref()).await?;
    let rows = commits::list(pool, &caller.tenant, before, limit as i64 + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.position.to_string())).into_response())
}

/// What became of a command id.
#[derive(Serialize, ToSchema)]
struct Fate {
    #[schema(example = "order-42")]
    command_id: String,
    /// Where it was accepted: one commit per stream that it was used on.
    commits: Vec<CommitRow>,
    /// Where it was refused, if it came through the queue.
    rejected: Vec<RejectedRow>,
}

/// Shows what became of a command.
#[utoipa::path(get, path = "/v1/commands/{id}", tag = "commands", security(("token" = ["commands:read"])), params(("id" = String, Path), AtLeast),
    responses((status = 200, body = Fate), (status = 404, body = documents::Problem)))]
async fn show(
    State(routes): State<Routes>,
    caller: Caller,
    Segment(id): Segment,
    Query(at_least): Query<AtLeast>,
) -> Result<Json<Fate>, Fault> {
    let pool = routes.database.pool();
    let at_least = at_least.at_least.as_deref();
    fresh::<commits::Commits>(pool, at_least).await?;
    fresh::<inbox::Inbox>(pool, at_least).await?;
    let commits = commits::by_id(pool, &caller.tenant, &id).await?;
    let rejected = inbox::by_command(pool, &caller.tenant, &id).await?;
    if commits.is_empty() && rejected.is_empty() {
        let detail = "No accepted command has this id, and no refused one from the queue (or it is not visible yet).";
        return Err(Problem::not_found(detail).into());
    }
    Ok(Json(Fate { command_id: id, commits, rejected }))
}

/// What may be sent where.
#[derive(Serialize, ToSchema)]
struct Catalogue {
    categories: Vec<CategoryEntry>,
}

#[derive(Serialize, ToSchema)]
struct CategoryEntry {
    #[schema(example = "run")]
    category: &'static str,
    commands: Vec<CommandEntry>,
}

#[derive(Serialize, ToSchema)]
struct CommandEntry {
    #[schema(example = "cancel")]
    name: &'static str,
    /// `public`, or `internal` for what only the platform itself sends.
    #[schema(example = "public")]
    access: &'static str,
    #[schema(example = "Ends a run that is not finished.")]
    about: &'static str,
}

/// Lists every category and its commands.
#[utoipa::path(get, path = "/v1/catalogue", tag = "commands", security(("token" = ["anybody"])), responses((status = 200, body = Catalogue)))]
async fn catalogue(State(routes): State<Routes>, _: Caller) -> Json<Catalogue> {
    let entry = |spec: &kernel::CommandSpec| CommandEntry {
        name: spec.name,
        access: if spec.access == kernel::Access::Public { "public" } else { "internal" },
        about: spec.about,
    };
    let categories = routes.executor.catalogue();
    let categories = categories
        .map(|(category, specs)| CategoryEntry { category, commands: specs.iter().map(entry).collect() })
        .collect();
    Json(Catalogue { categories })
}
