//! Rows of runs and steps: read by their keys, written many at once, column by column.

use std::borrow::Cow;
use std::sync::Arc;

use kernel::Timestamp;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::columns::{Behind, RunColumns, StepColumns};
use crate::copy::copy;

// Key by key through the index, whatever the planner believes: it meets these tables empty and has no statistics while
// they grow fastest. A plan made then that reads a whole table for every batch would be kept.
pub(crate) const LOAD_RUNS: &str = "
    SELECT workflow_id, definition_version, status, input, output, error, current_step, started_by, started_at,
           finished_at, version, started_position, position, number
    FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (tenant_id, run_id, number)
    CROSS JOIN LATERAL (
        SELECT * FROM runs WHERE runs.tenant_id = wanted.tenant_id AND runs.run_id = wanted.run_id OFFSET 0
    ) AS row";
pub(crate) const LOAD_STEPS: &str = "
    SELECT step_id, ordinal, name, kind, status, attempt, worker, output, error, due_at, deadline, scheduled_at,
           started_at, finished_at, number
    FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (tenant_id, run_id, number)
    CROSS JOIN LATERAL (
        SELECT * FROM steps WHERE steps.tenant_id = wanted.tenant_id AND steps.run_id = wanted.run_id OFFSET 0
    ) AS row";
pub(crate) const STORE_RUNS: &str = "
    INSERT INTO runs (tenant_id, run_id, workflow_id, definition_version, status, input, output, error, current_step,
                      started_by, started_at, finished_at, version, started_position, position)
    SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::jsonb[], $7::jsonb[],
                         $8::jsonb[], $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::bigint[],
                         $14::bigint[], $15::bigint[])
    ON CONFLICT (tenant_id, run_id) DO UPDATE SET
        status = EXCLUDED.status, output = EXCLUDED.output, error = EXCLUDED.error,
        current_step = EXCLUDED.current_step, finished_at = EXCLUDED.finished_at, version = EXCLUDED.version,
        position = EXCLUDED.position";
pub(crate) const STORE_STEPS: &str = "
    INSERT INTO steps (tenant_id, run_id, step_id, ordinal, name, kind, status, attempt, worker, output, error, due_at,
                       deadline, scheduled_at, started_at, finished_at)
    SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::int[],
                         $9::text[], $10::jsonb[], $11::jsonb[], $12::timestamptz[], $13::timestamptz[],
                         $14::timestamptz[], $15::timestamptz[], $16::timestamptz[])
    ON CONFLICT (tenant_id, run_id, step_id) DO UPDATE SET
        status = EXCLUDED.status, attempt = EXCLUDED.attempt, worker = EXCLUDED.worker, output = EXCLUDED.output,
        error = EXCLUDED.error, due_at = EXCLUDED.due_at, deadline = EXCLUDED.deadline,
        scheduled_at = EXCLUDED.scheduled_at, started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at";

const COPY_RUNS: &str = "runs (tenant_id, run_id, workflow_id, definition_version, status, input, output, error, \
    current_step, started_by, started_at, finished_at, version, started_position, position)";
const COPY_STEPS: &str = "steps (tenant_id, run_id, step_id, ordinal, name, kind, status, attempt, worker, output, error, \
    due_at, deadline, scheduled_at, started_at, finished_at)";

/// One row; the field names are the columns'. The key is kept apart.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) workflow_id: String,
    pub(super) definition_version: i32,
    pub(super) status: Cow<'static, str>,
    pub(super) input: Option<Arc<Value>>,
    pub(super) output: Option<Arc<Value>>,
    pub(super) error: Option<Arc<Value>>,
    pub(super) current_step: Option<String>,
    pub(super) started_by: String,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) version: i64,
    pub(super) started_position: i64,
    pub(super) position: i64,
}

/// One row; the field names are the columns'. The key's first two parts are kept apart.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) step_id: String,
    pub(super) ordinal: i32,
    pub(super) name: String,
    pub(super) kind: Cow<'static, str>,
    pub(super) status: Cow<'static, str>,
    pub(super) attempt: i32,
    pub(super) worker: Option<String>,
    pub(super) output: Option<Arc<Value>>,
    pub(super) error: Option<Arc<Value>>,
    pub(super) due_at: Option<Timestamp>,
    pub(super) deadline: Option<Timestamp>,
    pub(super) scheduled_at: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    /// Whether it has to be written.
    pub(super) touched: bool,
}

/// A row, and which of the wanted runs it belongs to, from 1.
pub(super) type Found<T> = (i64, T);

pub(super) async fn load_runs(
    tenants: &[&str],
    ids: &[&str],
    tables: &mut PgConnection,
) -> Result<Vec<Found<Run>>, sqlx::Error> {
    let rows: Vec<Behind<RunColumns, i64>> =
        sqlx::query_as(LOAD_RUNS).bind(tenants).bind(ids).fetch_all(tables).await?;
    let run = |row: RunColumns| Run {
        workflow_id: row.0,
        definition_version: row.1,
        status: row.2.into(),
        input: row.3.map(Arc::new),
        output: row.4.map(Arc::new),
        error: row.5.map(Arc::new),
        current_step: row.6,
        started_by: row.7,
        started_at: row.8,
        finished_at: row.9,
        version: row.10,
        started_position: row.11,
        position: row.12,
    };
    Ok(rows.into_iter().map(|Behind(row, number)| (number, run(row))).collect())
}

pub(super) async fn load_steps(
    tenants: &[&str],
    ids: &[&str],
    tables: &mut PgConnection,
) -> Result<Vec<Found<Step>>, sqlx::Error> {
    let rows: Vec<Behind<StepColumns, i64>> =
        sqlx::query_as(LOAD_STEPS).bind(tenants).bind(ids).fetch_all(tables).await?;
    let step = |row: StepColumns| Step {
        step_id: row.0,
        ordinal: row.1,
        name: row.2,
        kind: row.3.into(),
        status: row.4.into(),
        attempt: row.5,
        worker: row.6,
        output: row.7.map(Arc::new),
        error: row.8.map(Arc::new),
        due_at: row.9,
        deadline: row.10,
        scheduled_at: row.11,
        started_at: row.12,
        finished_at: row.13,
        touched: false,
    };
    Ok(rows.into_iter().map(|Behind(row, number)| (number, step(row))).collect())
}

/// A row and the two parts of its key that it does not hold itself.
pub(super) type Written<'a, T> = (&'a str, &'a str, &'a T);

fn column<'a, T, C>(rows: &[Written<'a, T>], of: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(|(_, _, row)| of(row)).collect()
}

fn json(value: &Option<Arc<Value>>) -> Option<Json<&Value>> {
    value.as_deref().map(Json)
}

pub(super) async fn store_runs(rows: &[Written<'_, Run>], tables: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(STORE_RUNS)
        .bind(rows.iter().map(|(tenant, _, _)| *tenant).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, run, _)| *run).collect::<Vec<_>>())
        .bind(column(rows, |row| row.workflow_id.as_str()))
        .bind(column(rows, |row| row.definition_version))
        .bind(column(rows, |row| row.status.as_ref()))
        .bind(column(rows, |row| json(&row.input)))
        .bind(column(rows, |row| json(&row.output)))
        .bind(column(rows, |row| json(&row.error)))
        .bind(column(rows, |row| row.current_step.as_deref()))
        .bind(column(rows, |row| row.started_by.as_str()))
        .bind(column(rows, |row| row.started_at))
        .bind(column(rows, |row| row.finished_at))
        .bind(column(rows, |row| row.version))
        .bind(column(rows, |row| row.started_position))
        .bind(column(rows, |row| row.position))
        .execute(tables)
        .await?;
    Ok(())
}

pub(super) async fn store_steps(rows: &[Written<'_, Step>], tables: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(STORE_STEPS)
        .bind(rows.iter().map(|(tenant, _, _)| *tenant).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, run, _)| *run).collect::<Vec<_>>())
        .bind(column(rows, |row| row.step_id.as_str()))
        .bind(column(rows, |row| row.ordinal))
        .bind(column(rows, |row| row.name.as_str()))
        .bind(column(rows, |row| row.kind.as_ref()))
        .bind(column(rows, |row| row.status.as_ref()))
        .bind(column(rows, |row| row.attempt))
        .bind(column(rows, |row| row.worker.as_deref()))
        .bind(column(rows, |row| json(&row.output)))
        .bind(column(rows, |row| json(&row.error)))
        .bind(column(rows, |row| row.due_at))
        .bind(column(rows, |row| row.deadline))
        .bind(column(rows, |row| row.scheduled_at))
        .bind(column(rows, |row| row.started_at))
        .bind(column(rows, |row| row.finished_at))
        .execute(tables)
        .await?;
    Ok(())
}

pub(super) async fn copy_runs(rows: &[Written<'_, Run>], tables: &mut PgConnection) -> Result<(), sqlx::Error> {
    copy(tables, COPY_RUNS, rows, |(tenant, id, run), row| {
        row.text(tenant).text(id).text(&run.workflow_id).number(run.definition_version);
        row.text(&run.status).maybe_json(run.input.as_deref()).maybe_json(run.output.as_deref());
        row.maybe_json(run.error.as_deref()).maybe_text(run.current_step.as_deref()).text(&run.started_by);
        row.time(run.started_at).maybe_time(run.finished_at);
        row.number(run.version).number(run.started_position).number(run.position);
    })
    .await
}

pub(super) async fn copy_steps(rows: &[Written<'_, Step>], tables: &mut PgConnection) -> Result<(), sqlx::Error> {
    copy(tables, COPY_STEPS, rows, |(tenant, run, step), row| {
        row.text(tenant).text(run).text(&step.step_id).number(step.ordinal).text(&step.name);
        row.text(&step.kind).text(&step.status).number(step.attempt).maybe_text(step.worker.as_deref());
        row.maybe_json(step.output.as_deref()).maybe_json(step.error.as_deref());
        row.maybe_time(step.due_at).maybe_time(step.deadline).maybe_time(step.scheduled_at);
        row.maybe_time(step.started_at).maybe_time(step.finished_at);
    })
    .await
}
