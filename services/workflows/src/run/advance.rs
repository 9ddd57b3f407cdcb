//! What follows from a result: the next step, another attempt, or the end of the run.

use std::sync::Arc;

use events::run::{Completed, Event, Failed, Source, StepCompleted, StepError, StepRetryScheduled, StepScheduled};
use events::workflow::{Definition, Step, StepKind, Wait};
use kernel::Timestamp;
use serde_json::Value;

use super::backoff::pause_ms;
use crate::seconds::later;

/// A value on its way from one step to the next, and where it stands in the log.
pub(super) struct Carried {
    pub(super) source: Source,
    pub(super) value: Arc<Value>,
}

/// Goes on with the step at `next`. `pass` steps are done on the way; the first other one is scheduled; behind the last
/// one the run is completed.
pub(super) fn advance(
    definition: &Definition,
    next: usize,
    mut carried: Carried,
    at: Timestamp,
    events: &mut Vec<Event>,
) {
    for step in definition.steps.get(next..).unwrap_or_default() {
        events.push(scheduled(step, 1, at).into());
        let StepKind::Pass(pass) = &step.kind else { return };
        let completed = |output: Arc<Value>, output_of: Option<Source>| {
            Event::from(StepCompleted { step: step.id.clone(), attempt: 1, output, output_of })
        };
        match &pass.output {
            Some(output) => {
                carried.value = Arc::new(output.clone());
                events.push(completed(carried.value.clone(), None));
            }
            None => events.push(completed(Arc::default(), Some(carried.source))),
        }
        carried.source = Source::Step(step.id.clone());
    }
    events.push(Completed { output: carried.value }.into());
}

/// An attempt of a step may begin.
pub(super) fn scheduled(step: &Step, attempt: u32, at: Timestamp) -> StepScheduled {
    let due_at = match &step.kind {
        StepKind::Wait(Wait::ForMs(ms)) => Some(later(at, *ms)),
        StepKind::Wait(Wait::Until(moment)) => Some(*moment),
        StepKind::Task(_) | StepKind::Http(_) | StepKind::Pass(_) => None,
    };
    // The clock of a task starts with its worker's claim.
    let deadline = match &step.kind {
        StepKind::Http(http) => Some(later(at, http.timeout_ms)),
        StepKind::Task(_) | StepKind::Wait(_) | StepKind::Pass(_) => None,
    };
    StepScheduled { step: step.id.clone(), attempt, kind: step.kind(), name: step.name.clone(), due_at, deadline }
}

/// Another attempt, or the end of the run.
pub(super) fn after_failure(
    step: &Step,
    attempt: u32,
    error: StepError,
    retry_after_ms: Option<u64>,
    run: &str,
    at: Timestamp,
    events: &mut Vec<Event>,
) {
    let event = match step.retry() {
        Some(retry) if error.retryable && attempt <= retry.max => {
            let delay_ms = pause_ms(retry, run, &step.id, attempt).max(retry_after_ms.unwrap_or(0));
            let due_at = later(at, delay_ms);
            StepRetryScheduled { step: step.id.clone(), attempt: attempt.saturating_add(1), due_at, delay_ms }.into()
        }
        _ => Failed { step: step.id.clone(), error }.into(),
    };
    events.push(event);
}
