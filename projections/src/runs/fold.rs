//! How events change the rows of one run.

use std::sync::Arc;

use events::run::{Event, Source, Started};
use events::workflow::Kind;
use kernel::{Envelope, Timestamp};
use serde_json::{Value, json};

use super::rows::{Run, Step};

/// A run with its steps, as far as they exist.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) run: Option<Run>,
    pub(super) steps: Vec<Step>,
}

fn some(value: &Arc<Value>) -> Option<Arc<Value>> {
    (!value.is_null()).then(|| Arc::clone(value))
}

impl Rows {
    pub(super) fn event(&mut self, event: Event, envelope: &Envelope<'_>, position: i64) {
        let at = envelope.time;
        match event {
            Event::Started(started) => self.started(started, envelope, position),
            Event::StepScheduled(scheduled) => {
                let status = if scheduled.kind == Kind::Wait { "waiting" } else { "scheduled" };
                self.step(&scheduled.step, |step| {
                    step.status = status.into();
                    step.attempt = number(scheduled.attempt);
                    step.worker = None;
                    step.due_at = scheduled.due_at;
                    step.deadline = scheduled.deadline;
                    step.scheduled_at = Some(at);
                    step.started_at = None;
                });
                self.run(|run| run.current_step = Some(scheduled.step.clone()));
            }
            Event::StepStarted(started) => self.step(&started.step, |step| {
                step.status = "running".into();
                step.worker = Some(started.worker.clone());
                step.deadline = Some(started.deadline);
                step.started_at = Some(at);
            }),
            Event::StepReturned(returned) => self.step(&returned.step, |step| {
                step.status = "scheduled".into();
                step.worker = None;
                step.deadline = None;
                step.started_at = None;
            }),
            Event::StepCompleted(completed) => {
                let output = match &completed.output_of {
                    None => some(&completed.output),
                    Some(Source::Input) => self.run.as_ref().and_then(|run| run.input.clone()),
                    Some(Source::Step(id)) => {
                        self.steps.iter().find(|step| step.step_id == *id).and_then(|step| step.output.clone())
                    }
                };
                self.step(&completed.step, |step| {
                    step.status = "completed".into();
                    step.attempt = number(completed.attempt);
                    step.output = output;
                    step.finished_at = Some(at);
                });
            }
            Event::StepFailed(failed) => self.step(&failed.step, |step| {
                step.status = "failed".into();
                step.error = Some(Arc::new(json!(failed.error)));
                step.finished_at = Some(at);
            }),
            Event::StepTimedOut(late) => self.step(&late.step, |step| {
                step.status = "failed".into();
                step.error = Some(Arc::new(json!({ "type": "timeout", "message": "no result before its deadline" })));
                step.finished_at = Some(at);
            }),
            Event::StepRetryScheduled(retry) => self.step(&retry.step, |step| {
                step.status = "retrying".into();
                step.due_at = Some(retry.due_at);
                step.deadline = None;
                step.finished_at = None;
            }),
            Event::Completed(completed) => {
                self.finish("completed", at, |run| run.output = some(&completed.output));
            }
            Event::Failed(failed) => self.finish("failed", at, |run| run.error = Some(Arc::new(json!(failed.error)))),
            Event::Cancelled(cancelled) => {
                for step in &mut self.steps {
                    if !matches!(step.status.as_ref(), "completed" | "failed") {
                        step.status = "cancelled".into();
                        step.touched = true;
                    }
                }
                let reason = cancelled.reason.map(|reason| Arc::new(json!({ "type": "cancelled", "message": reason })));
                self.finish("cancelled", at, |run| run.error = reason);
            }
        }
        let version = i64::try_from(envelope.streamversion).unwrap_or(i64::MAX);
        self.run(|run| {
            run.version = version;
            run.position = position;
        });
    }

    fn started(&mut self, started: Started, envelope: &Envelope<'_>, position: i64) {
        let steps = started.definition.steps.iter().enumerate();
        self.steps = steps
            .map(|(ordinal, step)| Step {
                step_id: step.id.clone(),
                ordinal: i32::try_from(ordinal).unwrap_or(i32::MAX),
                name: step.name.clone(),
                kind: step.kind().as_str().into(),
                status: "pending".into(),
                attempt: 0,
                worker: None,
                output: None,
                error: None,
                due_at: None,
                deadline: None,
                scheduled_at: None,
                started_at: None,
                finished_at: None,
                touched: true,
            })
            .collect();
        self.run = Some(Run {
            workflow_id: started.workflow,
            definition_version: number(started.definition_version),
            status: "running".into(),
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
        });
    }

    fn finish(&mut self, status: &'static str, at: Timestamp, change: impl FnOnce(&mut Run)) {
        self.run(|run| {
            run.status = status.into();
            run.current_step = None;
            run.finished_at = Some(at);
            change(run);
        });
    }

    fn run(&mut self, change: impl FnOnce(&mut Run)) {
        if let Some(run) = &mut self.run {
            change(run);
        }
    }

    fn step(&mut self, id: &str, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.step_id == id) {
            change(step);
            step.touched = true;
        }
    }
}

fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
