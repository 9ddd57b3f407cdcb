//! Rows of runs and steps, and how events change them.

use std::collections::{BTreeMap, BTreeSet};

use events::run::{Event, Source};
use events::workflow::Kind;
use kernel::{Envelope, Timestamp};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::Key;
use crate::copy::copy;
use crate::projector::CommitFacts;

pub(crate) const LOAD_RUNS: &str = "
    SELECT to_jsonb(row) FROM runs row
    JOIN UNNEST($1::text[], $2::text[]) AS wanted (tenant_id, run_id) USING (tenant_id, run_id)";
pub(crate) const LOAD_STEPS: &str = "
    SELECT to_jsonb(row) FROM steps row
    JOIN UNNEST($1::text[], $2::text[]) AS wanted (tenant_id, run_id) USING (tenant_id, run_id)";
pub(crate) const STORE_RUNS: &str = "
    INSERT INTO runs SELECT (jsonb_populate_record(NULL::runs, row)).* FROM UNNEST($1::jsonb[]) AS row
    ON CONFLICT (tenant_id, run_id) DO UPDATE SET
        status = EXCLUDED.status, output = EXCLUDED.output, error = EXCLUDED.error,
        current_step = EXCLUDED.current_step, finished_at = EXCLUDED.finished_at, version = EXCLUDED.version,
        position = EXCLUDED.position";
pub(crate) const STORE_STEPS: &str = "
    INSERT INTO steps SELECT (jsonb_populate_record(NULL::steps, row)).* FROM UNNEST($1::jsonb[]) AS row
    ON CONFLICT (tenant_id, run_id, step_id) DO UPDATE SET
        status = EXCLUDED.status, attempt = EXCLUDED.attempt, worker = EXCLUDED.worker, output = EXCLUDED.output,
        error = EXCLUDED.error, due_at = EXCLUDED.due_at, deadline = EXCLUDED.deadline,
        scheduled_at = EXCLUDED.scheduled_at, started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at";

const COPY_RUNS: &str = "runs (tenant_id, run_id, workflow_id, definition_version, status, input, output, error, \
    current_step, started_by, started_at, finished_at, version, started_position, position)";
const COPY_STEPS: &str = "steps (tenant_id, run_id, step_id, ordinal, name, kind, status, attempt, worker, output, error, \
    due_at, deadline, scheduled_at, started_at, finished_at)";

/// One row; the field names are the columns'.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Run {
    tenant_id: String,
    run_id: String,
    workflow_id: String,
    definition_version: i32,
    status: String,
    input: Option<Value>,
    output: Option<Value>,
    error: Option<Value>,
    current_step: Option<String>,
    started_by: String,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    version: i64,
    started_position: i64,
    position: i64,
}

/// One row; the field names are the columns'.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Step {
    tenant_id: String,
    run_id: String,
    step_id: String,
    ordinal: i32,
    name: String,
    kind: String,
    status: String,
    attempt: i32,
    worker: Option<String>,
    output: Option<Value>,
    error: Option<Value>,
    due_at: Option<Timestamp>,
    deadline: Option<Timestamp>,
    scheduled_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

/// The rows that a batch touches.
pub(super) struct Fold {
    runs: BTreeMap<Key, Run>,
    steps: BTreeMap<Key, BTreeMap<String, Step>>,
    /// Steps that changed: only these are written.
    touched: BTreeSet<(Key, String)>,
}

fn some(value: &Value) -> Option<Value> {
    (!value.is_null()).then(|| value.clone())
}

impl Fold {
    pub(super) async fn load<'a>(
        commits: impl IntoIterator<Item = &'a CommitFacts<'a>>,
        tables: &mut PgConnection,
    ) -> Result<Self, sqlx::Error> {
        let mut fold = Self { runs: BTreeMap::new(), steps: BTreeMap::new(), touched: BTreeSet::new() };
        let keys: BTreeSet<Key> = commits.into_iter().map(super::key).collect();
        if keys.is_empty() {
            return Ok(fold);
        }
        let (tenants, ids): (Vec<String>, Vec<String>) = keys.into_iter().unzip();
        let runs: Vec<sqlx::types::Json<Run>> =
            sqlx::query_scalar(LOAD_RUNS).bind(&tenants).bind(&ids).fetch_all(&mut *tables).await?;
        let steps: Vec<sqlx::types::Json<Step>> =
            sqlx::query_scalar(LOAD_STEPS).bind(&tenants).bind(&ids).fetch_all(tables).await?;
        for sqlx::types::Json(run) in runs {
            fold.runs.insert((run.tenant_id.clone(), run.run_id.clone()), run);
        }
        for sqlx::types::Json(step) in steps {
            let key = (step.tenant_id.clone(), step.run_id.clone());
            fold.steps.entry(key).or_default().insert(step.step_id.clone(), step);
        }
        Ok(fold)
    }

    /// Copies out what belongs to runs that the tables do not know.
    pub(super) async fn copy_out(
        &mut self,
        fresh: &BTreeSet<Key>,
        tables: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        let (mut runs, mut steps) = (Vec::new(), Vec::new());
        for key in fresh {
            runs.extend(self.runs.remove(key));
            steps.extend(self.steps.remove(key).into_iter().flat_map(BTreeMap::into_values));
        }
        self.touched.retain(|(key, _)| !fresh.contains(key));
        copy(tables, COPY_RUNS, runs, |run: &Run, row| {
            row.text(&run.tenant_id).text(&run.run_id).text(&run.workflow_id).number(run.definition_version);
            row.text(&run.status).maybe_json(run.input.as_ref()).maybe_json(run.output.as_ref());
            row.maybe_json(run.error.as_ref()).maybe_text(run.current_step.as_deref()).text(&run.started_by);
            row.time(run.started_at).maybe_time(run.finished_at);
            row.number(run.version).number(run.started_position).number(run.position);
        })
        .await?;
        copy(tables, COPY_STEPS, steps, |step: &Step, row| {
            row.text(&step.tenant_id).text(&step.run_id).text(&step.step_id).number(step.ordinal).text(&step.name);
            row.text(&step.kind).text(&step.status).number(step.attempt).maybe_text(step.worker.as_deref());
            row.maybe_json(step.output.as_ref()).maybe_json(step.error.as_ref());
            row.maybe_time(step.due_at).maybe_time(step.deadline).maybe_time(step.scheduled_at);
            row.maybe_time(step.started_at).maybe_time(step.finished_at);
        })
        .await
    }

    pub(super) async fn store(self, tables: &mut PgConnection) -> Result<(), sqlx::Error> {
        let runs: Vec<Value> = self.runs.values().map(|run| json!(run)).collect();
        if !runs.is_empty() {
            sqlx::query(STORE_RUNS).bind(runs).execute(&mut *tables).await?;
        }
        let steps: Vec<Value> = self
            .touched
            .iter()
            .filter_map(|(key, step)| self.steps.get(key)?.get(step))
            .map(|step| json!(step))
            .collect();
        if !steps.is_empty() {
            sqlx::query(STORE_STEPS).bind(steps).execute(tables).await?;
        }
        Ok(())
    }

    pub(super) fn event(&mut self, key: &Key, event: Event, envelope: &Envelope<'_>, position: i64) {
        let at = envelope.time;
        match event {
            Event::Started(started) => self.started(key, started, envelope, position),
            Event::StepScheduled(scheduled) => {
                let status = if scheduled.kind == Kind::Wait { "waiting" } else { "scheduled" };
                self.step(key, &scheduled.step, |step| {
                    step.status = status.to_owned();
                    step.attempt = number(scheduled.attempt);
                    step.worker = None;
                    step.due_at = scheduled.due_at;
                    step.deadline = scheduled.deadline;
                    step.scheduled_at = Some(at);
                    step.started_at = None;
                });
                self.run(key, |run| run.current_step = Some(scheduled.step.clone()));
            }
            Event::StepStarted(started) => self.step(key, &started.step, |step| {
                step.status = "running".to_owned();
                step.worker = Some(started.worker.clone());
                step.deadline = Some(started.deadline);
                step.started_at = Some(at);
            }),
            Event::StepReturned(returned) => self.step(key, &returned.step, |step| {
                step.status = "scheduled".to_owned();
                step.worker = None;
                step.deadline = None;
                step.started_at = None;
            }),
            Event::StepCompleted(completed) => {
                let output = match &completed.output_of {
                    None => some(&completed.output),
                    Some(Source::Input) => self.runs.get(key).and_then(|run| run.input.clone()),
                    Some(Source::Step(id)) => self.steps.get(key).and_then(|steps| steps.get(id)?.output.clone()),
                };
                self.step(key, &completed.step, |step| {
                    step.status = "completed".to_owned();
                    step.attempt = number(completed.attempt);
                    step.output = output;
                    step.finished_at = Some(at);
                });
            }
            Event::StepFailed(failed) => self.step(key, &failed.step, |step| {
                step.status = "failed".to_owned();
                step.error = Some(json!(failed.error));
                step.finished_at = Some(at);
            }),
            Event::StepTimedOut(late) => self.step(key, &late.step, |step| {
                step.status = "failed".to_owned();
                step.error = Some(json!({ "type": "timeout", "message": "no result before its deadline" }));
                step.finished_at = Some(at);
            }),
            Event::StepRetryScheduled(retry) => self.step(key, &retry.step, |step| {
                step.status = "retrying".to_owned();
                step.due_at = Some(retry.due_at);
                step.deadline = None;
                step.finished_at = None;
            }),
            Event::Completed(completed) => {
                self.finish(key, "completed", at, |run| run.output = some(&completed.output));
            }
            Event::Failed(failed) => self.finish(key, "failed", at, |run| run.error = Some(json!(failed.error))),
            Event::Cancelled(cancelled) => {
                let open: Vec<String> = self
                    .steps
                    .get(key)
                    .into_iter()
                    .flat_map(BTreeMap::values)
                    .filter(|step| !matches!(step.status.as_str(), "completed" | "failed"))
                    .map(|step| step.step_id.clone())
                    .collect();
                for id in open {
                    self.step(key, &id, |step| step.status = "cancelled".to_owned());
                }
                let reason = cancelled.reason.map(|reason| json!({ "type": "cancelled", "message": reason }));
                self.finish(key, "cancelled", at, |run| run.error = reason);
            }
        }
        let version = i64::try_from(envelope.streamversion).unwrap_or(i64::MAX);
        self.run(key, |run| {
            run.version = version;
            run.position = position;
        });
    }

    fn started(&mut self, key: &Key, started: events::run::Started, envelope: &Envelope<'_>, position: i64) {
        let (tenant_id, run_id) = key.clone();
        for (ordinal, step) in started.definition.steps.iter().enumerate() {
            let row = Step {
                tenant_id: tenant_id.clone(),
                run_id: run_id.clone(),
                step_id: step.id.clone(),
                ordinal: i32::try_from(ordinal).unwrap_or(i32::MAX),
                name: step.name.clone(),
                kind: step.kind().as_str().to_owned(),
                status: "pending".to_owned(),
                attempt: 0,
                worker: None,
                output: None,
                error: None,
                due_at: None,
                deadline: None,
                scheduled_at: None,
                started_at: None,
                finished_at: None,
            };
            self.touched.insert((key.clone(), step.id.clone()));
            self.steps.entry(key.clone()).or_default().insert(step.id.clone(), row);
        }
        let run = Run {
            tenant_id,
            run_id,
            workflow_id: started.workflow,
            definition_version: number(started.definition_version),
            status: "running".to_owned(),
            input: some(&started.input),
            output: None,
            error: None,
            current_step: None,
            started_by: envelope.actor.to_string(),
            started_at: envelope.time,
            finished_at: None,
            version: 0,
            started_position: position,
            position,
        };
        self.runs.insert(key.clone(), run);
    }

    fn finish(&mut self, key: &Key, status: &str, at: Timestamp, change: impl FnOnce(&mut Run)) {
        self.run(key, |run| {
            run.status = status.to_owned();
            run.current_step = None;
            run.finished_at = Some(at);
            change(run);
        });
    }

    fn run(&mut self, key: &Key, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.get_mut(key) {
            change(run);
        }
    }

    fn step(&mut self, key: &Key, id: &str, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.get_mut(key).and_then(|steps| steps.get_mut(id)) {
            change(step);
            self.touched.insert((key.clone(), id.to_owned()));
        }
    }
}

fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
