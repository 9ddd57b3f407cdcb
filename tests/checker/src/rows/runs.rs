//! `runs`: runs of workflows and their steps.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Expected, Row, row};
use crate::log::{Commit, Event, History};

pub(super) const RUNS: &str = "runs_v1.runs";
pub(super) const STEPS: &str = "runs_v1.steps";

/// A run and its steps, in the order of its definition.
#[derive(Default)]
struct Run {
    run: Row,
    steps: Vec<Row>,
}

pub(super) fn fold(history: &History) -> [Expected; 2] {
    let mut runs: BTreeMap<&str, Run> = BTreeMap::new();
    for (commit, event) in history.events_of("run") {
        let run = runs.entry(&commit.stream).or_default();
        if event.kind == "run.started" {
            *run = started(commit, event);
        } else {
            run.event(event);
        }
        run.set([("version", json!(event.version)), ("position", json!(commit.position))]);
    }
    let (runs, steps): (Vec<Row>, Vec<Vec<Row>>) = runs.into_values().map(|run| (run.run, run.steps)).unzip();
    [
        Expected { table: RUNS, key: &["tenant_id", "run_id"], rows: runs },
        Expected {
            table: STEPS,
            key: &["tenant_id", "run_id", "step_id"],
            rows: steps.into_iter().flatten().collect(),
        },
    ]
}

fn started(commit: &Commit, event: &Event) -> Run {
    let data = |name: &str| event.data.get(name).cloned().unwrap_or_default();
    let steps = event.data["definition"]["steps"].as_array().cloned().unwrap_or_default();
    let pending = |(ordinal, step): (usize, &Value)| {
        // `{"task": {…}}`: the one key says what kind of step it is.
        let kind = step["kind"].as_object().and_then(|kind| kind.keys().next()).cloned().unwrap_or_default();
        row([
            ("tenant_id", json!(commit.tenant)),
            ("run_id", json!(commit.subject)),
            ("step_id", step["id"].clone()),
            ("ordinal", json!(ordinal)),
            ("name", step["name"].clone()),
            ("kind", json!(kind)),
            ("status", json!("pending")),
            ("attempt", json!(0)),
            ("worker", Value::Null),
            ("output", Value::Null),
            ("error", Value::Null),
            ("due_at", Value::Null),
            ("deadline", Value::Null),
            ("scheduled_at", Value::Null),
            ("started_at", Value::Null),
            ("finished_at", Value::Null),
        ])
    };
    let run = row([
        ("tenant_id", json!(commit.tenant)),
        ("run_id", json!(commit.subject)),
        ("workflow_id", data("workflow")),
        ("definition_version", data("definition_version")),
        ("status", json!("running")),
        ("input", data("input")),
        ("output", Value::Null),
        ("error", Value::Null),
        ("current_step", Value::Null),
        ("started_by", json!(event.actor)),
        ("started_at", json!(event.time)),
        ("finished_at", Value::Null),
        ("started_position", json!(commit.position)),
    ]);
    Run { run, steps: steps.iter().enumerate().map(pending).collect() }
}

impl Run {
    fn set<const N: usize>(&mut self, columns: [(&str, Value); N]) {
        self.run.extend(row(columns));
    }

    fn step(&mut self, id: &Value) -> Option<&mut Row> {
        self.steps.iter_mut().find(|step| step.get("step_id") == Some(id))
    }

    fn set_step<const N: usize>(&mut self, id: &Value, columns: [(&str, Value); N]) {
        if let Some(step) = self.step(id) {
            step.extend(row(columns));
        }
    }

    fn finish(&mut self, event: &Event, status: &str, output: Value, error: Value) {
        self.set([
            ("status", json!(status)),
            ("current_step", Value::Null),
            ("finished_at", json!(event.time)),
            ("output", output),
            ("error", error),
        ]);
    }

    /// Where a value stands that was handed on: `"input"`, or `{"step": id}`.
    fn handed_on(&self, source: &Value) -> Value {
        let from = match source.get("step") {
            Some(id) => {
                self.steps.iter().find(|step| step.get("step_id") == Some(id)).and_then(|step| step.get("output"))
            }
            None => self.run.get("input"),
        };
        from.cloned().unwrap_or_default()
    }

    fn event(&mut self, event: &Event) {
        let data = |name: &str| event.data.get(name).cloned().unwrap_or_default();
        let (step, at) = (data("step"), json!(event.time));
        match event.kind.as_str() {
            "run.step_scheduled" => {
                let status = if data("kind") == "wait" { "waiting" } else { "scheduled" };
                self.set_step(
                    &step,
                    [
                        ("status", json!(status)),
                        ("attempt", data("attempt")),
                        ("worker", Value::Null),
                        ("due_at", data("due_at")),
                        ("deadline", data("deadline")),
                        ("scheduled_at", at),
                        ("started_at", Value::Null),
                    ],
                );
                self.set([("current_step", step)]);
            }
            "run.step_started" => self.set_step(
                &step,
                [
                    ("status", json!("running")),
                    ("worker", data("worker")),
                    ("deadline", data("deadline")),
                    ("started_at", at),
                ],
            ),
            "run.step_returned" => self.set_step(
                &step,
                [
                    ("status", json!("scheduled")),
                    ("worker", Value::Null),
                    ("deadline", Value::Null),
                    ("started_at", Value::Null),
                ],
            ),
            "run.step_completed" => {
                let output = match data("output_of") {
                    Value::Null => data("output"),
                    source => self.handed_on(&source),
                };
                let columns = [
                    ("status", json!("completed")),
                    ("attempt", data("attempt")),
                    ("output", output),
                    ("finished_at", at),
                ];
                self.set_step(&step, columns);
            }
            "run.step_failed" => {
                self.set_step(&step, [("status", json!("failed")), ("error", data("error")), ("finished_at", at)]);
            }
            "run.step_timed_out" => {
                let error = json!({ "type": "timeout", "message": "no result before its deadline" });
                self.set_step(&step, [("status", json!("failed")), ("error", error), ("finished_at", at)]);
            }
            "run.step_retry_scheduled" => self.set_step(
                &step,
                [
                    ("status", json!("retrying")),
                    ("due_at", data("due_at")),
                    ("deadline", Value::Null),
                    ("finished_at", Value::Null),
                ],
            ),
            "run.completed" => self.finish(event, "completed", data("output"), Value::Null),
            "run.failed" => self.finish(event, "failed", Value::Null, data("error")),
            "run.cancelled" => {
                for step in &mut self.steps {
                    if !["completed", "failed"].map(|status| Some(json!(status))).contains(&step.get("status").cloned())
                    {
                        step.insert("status".to_owned(), json!("cancelled"));
                    }
                }
                let error = match data("reason") {
                    Value::Null => Value::Null,
                    reason => json!({ "type": "cancelled", "message": reason }),
                };
                self.finish(event, "cancelled", Value::Null, error);
            }
            _ => {}
        }
    }
}
