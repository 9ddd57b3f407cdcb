//! `/v1/workflows`: definitions and runs over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kernel::{CommandId, Problem, StreamId, StreamName};
use projections::runs::{RunRow, Runs, StepRow, Wanted};
use projections::workflows::{WorkflowRow, Workflows};
use projections::{Database, fresh, runs, workflows};
use rest::{AtLeast, Caller, Chain, Fault, IdempotencyKey, Page, PageQuery, Payload, Query, Segment, documents};
use runtime::{Answer, Commands, Request, clock};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the routes need.
#[derive(Clone)]
pub struct Routes {
    commands: Arc<dyn Commands>,
    database: Database,
}

/// The routes, to be mounted behind authentication.
pub fn router(commands: Arc<dyn Commands>, database: Database) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_workflows))
        .routes(routes!(get_workflow, define_workflow))
        .routes(routes!(retire_workflow))
        .routes(routes!(start_run))
        .routes(routes!(list_runs))
        .routes(routes!(get_run))
        .routes(routes!(cancel_run))
        .with_state(Routes { commands, database })
}

fn stream(caller: &Caller, category: &str, id: &str) -> Result<StreamName, Fault> {
    Ok(StreamName::new(caller.tenant.as_str(), category, id)?)
}

impl Routes {
    async fn execute(
        &self,
        to: StreamName,
        command: &str,
        body: impl Into<axum::body::Bytes>,
        caller: Caller,
        key: Option<CommandId>,
        chain: Chain,
    ) -> Result<Answer, Fault> {
        let request = Request {
            id: key,
            correlation: chain.correlation,
            traceparent: chain.traceparent,
            ..Request::new(to, command, body, caller.principal)
        };
        Ok(self.commands.execute(request).await?)
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WantedWorkflows {
    /// Items per page: 1 to 500.
    #[param(default = 50)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// A position from an earlier answer: answer only once it is visible.
    at_least: Option<String>,
}

/// Lists workflows with their newest definitions.
#[utoipa::path(get, path = "/v1/workflows", tag = "workflows", security(("token" = ["workflows:read"])), params(WantedWorkflows),
    responses((status = 200, body = Page<WorkflowRow>), (status = "4XX", body = documents::Problem)))]
async fn list_workflows(
    State(routes): State<Routes>,
    caller: Caller,
    Query(query): Query<WantedWorkflows>,
) -> Result<Json<Page<WorkflowRow>>, Fault> {
    fresh::<Workflows>(routes.database.pool(), query.at_least.as_deref()).await?;
    let limit = PageQuery { limit: query.limit, cursor: None }.limit()?;
    let after = query.cursor.unwrap_or_default();
    if !after.is_empty() {
        rest::name("cursor", &after)?;
    }
    let rows = workflows::list(routes.database.pool(), &caller.tenant, &after, limit as i64 + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.workflow_id.clone())))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Version {
    /// Which definition; the newest when absent.
    version: Option<i32>,
    /// A position from an earlier answer: answer only once it is visible.
    at_least: Option<String>,
}

/// Shows a workflow.
#[utoipa::path(get, path = "/v1/workflows/{id}", tag = "workflows", security(("token" = ["workflows:read"])), params(("id" = String, Path), Version),
    responses((status = 200, body = WorkflowRow), (status = 404, body = documents::Problem)))]
async fn get_workflow(
    State(routes): State<Routes>,
    caller: Caller,
    Segment(id): Segment,
    Query(query): Query<Version>,
) -> Result<Json<WorkflowRow>, Fault> {
    fresh::<Workflows>(routes.database.pool(), query.at_least.as_deref()).await?;
    let row = workflows::get(routes.database.pool(), &caller.tenant, &id, query.version).await?;
    row.map(Json).ok_or_else(|| {
        Problem::new(404, "unknown_workflow", format!("There is no workflow `{id}` (in that version).")).into()
    })
}

/// Defines a workflow: the document is the definition. The same document again changes nothing.
#[utoipa::path(put, path = "/v1/workflows/{id}", tag = "workflows", security(("token" = ["workflows:write"])), params(("id" = String, Path)),
    request_body(content = Value, description = "the definition", example = json!({"workflow_id":"wf_12345",
        "steps":[{"id":1,"name":"validate_input","timeout":30},{"id":2,"name":"process_data","timeout":120}],"max_retries":3})),
    responses((status = 200, body = documents::Answer), (status = 422, body = documents::Problem)))]
async fn define_workflow(
    State(routes): State<Routes>,
    caller: Caller,
    Segment(id): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    Payload(body): Payload,
) -> Result<Response, Fault> {
    let to = stream(&caller, events::workflow::CATEGORY, &id)?;
    let answer = routes.execute(to, "define", body, caller, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}

/// Retires a workflow: nobody can start it until it is defined again.
#[utoipa::path(post, path = "/v1/workflows/{id}/retire", tag = "workflows", security(("token" = ["workflows:write"])), params(("id" = String, Path)),
    request_body(content = Value, example = json!({"reason":"replaced by wf_12346"})),
    responses((status = 200, body = documents::Answer), (status = 404, body = documents::Problem)))]
async fn retire_workflow(
    State(routes): State<Routes>,
    caller: Caller,
    Segment(id): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    Payload(body): Payload,
) -> Result<Response, Fault> {
    let to = stream(&caller, events::workflow::CATEGORY, &id)?;
    let answer = routes.execute(to, "retire", body, caller, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}

/// What a run is started with.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct StartRun {
    /// Given to the steps; any JSON.
    #[schema(value_type = Object, example = json!({"order": 42}))]
    input: Option<Box<RawValue>>,
    /// The run's id, chosen by you; made from the idempotency key, or fresh, when absent.
    #[schema(example = "run_5")]
    run_id: Option<String>,
    /// Which definition; the newest when absent.
    #[schema(example = json!(null))]
    version: Option<u32>,
}

/// Starts a run.
#[utoipa::path(post, path = "/v1/workflows/{id}/runs", tag = "runs", security(("token" = ["runs:write"])), params(("id" = String, Path)), request_body = StartRun,
    responses((status = 201, body = documents::Answer), (status = "4XX", body = documents::Problem)))]
async fn start_run(
    State(routes): State<Routes>,
    caller: Caller,
    Segment(id): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let start: StartRun = body.read()?;
    let run = match (&start.run_id, &key) {
        (Some(run), _) => StreamId::new(run)?,
        // A retry must name the same run, or the key would protect nothing.
        (None, Some(key)) => StreamId::new(&clock::derived_id("run_", &format!("{}/{key}", caller.tenant)))?,
        (None, None) => StreamId::new(&clock::fresh_id("run_"))?,
    };
    let mut command = serde_json::Map::from_iter([("workflow".to_owned(), Value::from(id))]);
    if let Some(version) = start.version {
        command.insert("version".to_owned(), version.into());
    }
    if let Some(input) = start.input {
        let input = serde_json::from_str(input.get()).map_err(|error| Problem::malformed(error.to_string()))?;
        command.insert("input".to_owned(), input);
    }
    let to = stream(&caller, events::run::CATEGORY, run.as_str())?;
    let answer = routes.execute(to, "start", Value::Object(command).to_string(), caller, key, chain).await?;
    Ok(rest::answer(StatusCode::CREATED, &answer, &[("run_id", run.as_str())]))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WantedRuns {
    /// Only of this workflow.
    workflow: Option<String>,
    /// Only in this status: `running`, `completed`, `failed` or `cancelled`.
    status: Option<String>,
    /// Items per page: 1 to 500.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// A position from an earlier answer: answer only once it is visible.
    at_least: Option<String>,
}

/// Lists runs, newest first.
#[utoipa::path(get, path = "/v1/workflows/runs", tag = "runs", security(("token" = ["runs:read"])), params(WantedRuns),
    responses((status = 200, body = Page<RunRow>), (status = "4XX", body = documents::Problem)))]
async fn list_runs(
    State(routes): State<Routes>,
    caller: Caller,
    Query(query): Query<WantedRuns>,
) -> Result<Json<Page<RunRow>>, Fault> {
    if let Some(status) = &query.status
        && !["running", "completed", "failed", "cancelled"].contains(&status.as_str())
    {
        let detail = "`status` is one of running, completed, failed, cancelled.";
        return Err(Problem::new(400, "invalid_query", detail).into());
    }
    if let Some(workflow) = &query.workflow {
        rest::name("workflow", workflow)?;
    }
    fresh::<Runs>(routes.database.pool(), query.at_least.as_deref()).await?;
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let limit = page.limit()?;
    let wanted = Wanted {
        tenant: &caller.tenant,
        workflow: query.workflow.as_deref(),
        status: query.status.as_deref(),
        before: page.position()?,
        limit: limit as i64 + 1,
    };
    let rows = runs::list(routes.database.pool(), &wanted).await?;
    Ok(Json(Page::of(rows, limit, |row| row.started_position.to_string())))
}

/// A run with its steps.
#[derive(serde::Serialize, utoipa::ToSchema)]
struct RunWithSteps {
    #[serde(flatten)]
    run: RunRow,
    /// Its steps, in order.
    steps: Vec<StepRow>,
}

/// Shows a run and its steps.
#[utoipa::path(get, path = "/v1/workflows/runs/{id}", tag = "runs", security(("token" = ["runs:read"])), params(("id" = String, Path), AtLeast),
    responses((status = 200, body = RunWithSteps), (status = 404, body = documents::Problem)))]
async fn get_run(
    State(routes): State<Routes>,
    caller: Caller,
    Segment(id): Segment,
    Query(at_least): Query<AtLeast>,
) -> Result<Json<RunWithSteps>, Fault> {
    fresh::<Runs>(routes.database.pool(), at_least.at_least.as_deref()).await?;
    let unknown = || Problem::new(404, "unknown_run", format!("There is no run `{id}`, or it is not visible yet."));
    let run = runs::get(routes.database.pool(), &caller.tenant, &id).await?.ok_or_else(unknown)?;
    let steps = runs::steps(routes.database.pool(), &caller.tenant, &id).await?;
    Ok(Json(RunWithSteps { run, steps }))
}

/// Cancels a run. Cancelling a cancelled run changes nothing.
#[utoipa::path(post, path = "/v1/workflows/runs/{id}/cancel", tag = "runs", security(("token" = ["runs:write"])), params(("id" = String, Path)),
    request_body(content = Value, example = json!({"reason":"no longer needed"})),
    responses((status = 200, body = documents::Answer), (status = "4XX", body = documents::Problem)))]
async fn cancel_run(
    State(routes): State<Routes>,
    caller: Caller,
    Segment(id): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    Payload(body): Payload,
) -> Result<Response, Fault> {
    let to = stream(&caller, events::run::CATEGORY, &id)?;
    let answer = routes.execute(to, "cancel", body, caller, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}
