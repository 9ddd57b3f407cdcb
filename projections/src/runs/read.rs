//! Queries over runs.

use kernel::{Position, TenantId, Timestamp};
use serde_json::Value;
use sqlx::PgPool;

use super::Wanted;
use super::columns::{Behind, RunColumns, StepColumns};
use crate::{Failure, machinery};

/// A run as people see it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct RunRow {
    /// Its id.
    #[schema(example = "run_5")]
    pub run_id: String,
    /// The workflow.
    #[schema(example = "wf_12345")]
    pub workflow_id: String,
    /// Version of the definition it follows.
    pub definition_version: i32,
    /// `running`, `completed`, `failed` or `cancelled`.
    #[schema(example = "running")]
    pub status: String,
    /// What it was given.
    #[schema(example = json!({"order": 42}))]
    pub input: Option<Value>,
    /// What it came to.
    #[schema(example = json!(null))]
    pub output: Option<Value>,
    /// Why it failed or was cancelled.
    #[schema(example = json!(null))]
    pub error: Option<Value>,
    /// The step it is at.
    #[schema(example = "1")]
    pub current_step: Option<String>,
    /// Who started it.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub started_by: String,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime, example = json!(null))]
    pub finished_at: Option<Timestamp>,
    /// Version of its stream.
    #[schema(example = 2)]
    pub version: i64,
    /// Where its first event stands.
    #[schema(value_type = String, example = "p1-2a")]
    pub started_position: Position,
    /// Where its newest event stands.
    #[schema(value_type = String, example = "p1-2a")]
    pub position: Position,
}

impl From<Behind<RunColumns, String>> for RunRow {
    fn from(Behind(columns, run_id): Behind<RunColumns, String>) -> Self {
        Self {
            run_id,
            workflow_id: columns.0,
            definition_version: columns.1,
            status: columns.2,
            input: columns.3,
            output: columns.4,
            error: columns.5,
            current_step: columns.6,
            started_by: columns.7,
            started_at: columns.8,
            finished_at: columns.9,
            version: columns.10,
            started_position: machinery::position(columns.11),
            position: machinery::position(columns.12),
        }
    }
}

/// A step as people see it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct StepRow {
    /// Its id within the definition.
    #[schema(example = "1")]
    pub step_id: String,
    /// Its place, from 0.
    #[schema(example = 0)]
    pub ordinal: i32,
    /// Its name.
    #[schema(example = "validate_input")]
    pub name: String,
    /// `task`, `http`, `wait` or `pass`.
    #[schema(example = "task")]
    pub kind: String,
    /// `pending`, `scheduled`, `running`, `waiting`, `retrying`, `completed`, `failed` or `cancelled`.
    #[schema(example = "running")]
    pub status: String,
    /// The newest attempt; 0 before the first.
    #[schema(example = 1)]
    pub attempt: i32,
    /// Who works or worked on it.
    #[schema(example = "worker-1")]
    pub worker: Option<String>,
    /// What it came to.
    #[schema(example = json!(null))]
    pub output: Option<Value>,
    /// Why its newest failure.
    #[schema(example = json!(null))]
    pub error: Option<Value>,
    /// When a wait or a pause ends.
    #[schema(value_type = Option<String>, format = DateTime, example = json!(null))]
    pub due_at: Option<Timestamp>,
    /// When the attempt counts as timed out.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Timestamp>,
    /// When the newest attempt could begin.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub scheduled_at: Option<Timestamp>,
    /// When the newest attempt was claimed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime, example = json!(null))]
    pub finished_at: Option<Timestamp>,
}

impl From<StepColumns> for StepRow {
    fn from(columns: StepColumns) -> Self {
        Self {
            step_id: columns.0,
            ordinal: columns.1,
            name: columns.2,
            kind: columns.3,
            status: columns.4,
            attempt: columns.5,
            worker: columns.6,
            output: columns.7,
            error: columns.8,
            due_at: columns.9,
            deadline: columns.10,
            scheduled_at: columns.11,
            started_at: columns.12,
            finished_at: columns.13,
        }
    }
}

pub(crate) const GET: &str = "
    SELECT workflow_id, definition_version, status, input, output, error, current_step, started_by, started_at,
           finished_at, version, started_position, position, run_id
    FROM runs_v1.runs WHERE tenant_id = $1 AND run_id = $2";
pub(crate) const LIST: &str = "
    SELECT workflow_id, definition_version, status, input, output, error, current_step, started_by, started_at,
           finished_at, version, started_position, position, run_id
    FROM runs_v1.runs
    WHERE tenant_id = $1 AND started_position < $2 AND ($3::text IS NULL OR workflow_id = $3)
        AND ($4::text IS NULL OR status = $4)
    ORDER BY started_position DESC LIMIT $5";
pub(crate) const STEPS: &str = "
    SELECT step_id, ordinal, name, kind, status, attempt, worker, output, error, due_at, deadline, scheduled_at,
           started_at, finished_at
    FROM runs_v1.steps WHERE tenant_id = $1 AND run_id = $2 ORDER BY ordinal";

/// One run.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn get(pool: &PgPool, tenant: &TenantId, run: &str) -> Result<Option<RunRow>, Failure> {
    let row: Option<Behind<RunColumns, String>> = sqlx::query_as(GET)
        .bind(tenant.as_str())
        .bind(run)
        .fetch_optional(pool)
        .await
        .map_err(Failure::attempting("read a run"))?;
    Ok(row.map(Into::into))
}

/// A run's steps, in order.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn steps(pool: &PgPool, tenant: &TenantId, run: &str) -> Result<Vec<StepRow>, Failure> {
    let rows: Vec<StepColumns> = sqlx::query_as(STEPS)
        .bind(tenant.as_str())
        .bind(run)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("read a run's steps"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Runs, newest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn list(pool: &PgPool, wanted: &Wanted<'_>) -> Result<Vec<RunRow>, Failure> {
    let rows: Vec<Behind<RunColumns, String>> = sqlx::query_as(LIST)
        .bind(wanted.tenant.as_str())
        .bind(wanted.before.map_or(i64::MAX, machinery::number))
        .bind(wanted.workflow)
        .bind(wanted.status)
        .bind(wanted.limit)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("list runs"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}
