//! What steps call for in the world. Every effect is looked up in the run right before it is done: a run that has moved
//! on needs nothing any more, so effects that come again after a crash, a replay or a lost database do no harm.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::run::Event;
use events::workflow::{Kind, StepKind};
use kernel::{Envelope, FactError, Problem, StreamName, Timestamp};
use runtime::react::{Reactor, Report, Verdict};
use runtime::{EffectRow, Executor, Plan};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::http::{self, Outcome};
use crate::reach::Reach;
use crate::run::{Phase, Run, Work};

/// Hands a task to whoever will do it.
#[async_trait]
pub trait TaskQueue: Send + Sync + 'static {
    /// Offers a task. With the same key again it is offered once.
    ///
    /// # Errors
    /// A sentence about why it could not be offered now.
    async fn offer(&self, task: &Offer, key: &str) -> Result<(), String>;
}

/// A task that waits for a worker. Small on purpose: what the worker needs to know is read from the run when one comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Whose run.
    pub tenant: String,
    /// The name that workers ask for.
    pub name: String,
    /// The run.
    pub run: String,
    /// The step.
    pub step: String,
    /// The attempt.
    pub attempt: u32,
}

/// The reactor of runs.
pub struct Steps {
    executor: Executor,
    tasks: Arc<dyn TaskQueue>,
    client: http::Client,
}

impl Steps {
    /// Looks runs up in `executor`, offers tasks to `tasks`, and sends requests as far as `reach` goes.
    ///
    /// # Errors
    /// When no HTTP client can be made on this machine.
    pub fn new(executor: Executor, tasks: Arc<dyn TaskQueue>, reach: Reach) -> Result<Self, reqwest::Error> {
        Ok(Self { executor, tasks, client: http::Client::new(reach)? })
    }
}

/// What to do, as the record of effects keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    what: What,
    step: String,
    attempt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Offer,
    Request,
    FinishWait,
    TimeOut,
    Retry,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Request => "request",
            Self::FinishWait => "wait",
            Self::TimeOut => "deadline",
            Self::Retry => "retry",
        }
    }
}

fn plan(what: What, step: &str, attempt: u32, due: Option<Timestamp>) -> Plan {
    let request = json!(Asked { what, step: step.to_owned(), attempt });
    Plan::Do { name: format!("{step}/{attempt}/{}", what.name()), due, request }
}

fn cancel(what: What, step: &str, attempt: u32) -> Plan {
    Plan::Cancel { name: format!("{step}/{attempt}/{}", what.name()) }
}

#[async_trait]
impl Reactor for Steps {
    const NAME: &'static str = "workflow-steps";
    const CATEGORIES: &'static [&'static str] = &[events::run::CATEGORY];

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        let mut plans = plans(&event.decode()?);
        // An attempt that was given back is offered again: another effect, so it needs another name.
        for plan in &mut plans {
            if let Plan::Do { name, .. } = plan
                && event.type_name == "run.step_returned"
            {
                *name = format!("{name}/{}", event.streamversion);
            }
        }
        Ok(plans)
    }

    fn is_outward(&self, effect: &EffectRow) -> bool {
        effect.request.get("what").and_then(serde_json::Value::as_str) == Some("request")
    }

    async fn perform(&self, effect: &EffectRow) -> Verdict {
        let asked: Asked = match serde_json::from_value(effect.request.clone()) {
            Ok(asked) => asked,
            Err(error) => return Verdict::Park { reason: format!("the recorded effect makes no sense: {error}") },
        };
        let found = match self.executor.inspect::<Run>(&effect.stream).await {
            Ok(found) => found,
            Err(problem) => return unreadable(&problem),
        };
        let Some(work) = found.state.pending(&asked.step, asked.attempt) else {
            return Verdict::Done { note: "no longer wanted".to_owned(), report: None };
        };
        match asked.what {
            What::Offer => self.offer(effect, &asked, &work).await,
            What::Request => self.request(effect, &asked, &work).await,
            What::FinishWait => report(effect, "finish-wait", json!({ "step": asked.step, "attempt": asked.attempt })),
            What::TimeOut => report(effect, "time-out-step", json!({ "step": asked.step, "attempt": asked.attempt })),
            What::Retry => report(effect, "retry-step", json!({ "step": asked.step, "attempt": asked.attempt })),
        }
    }
}

/// What an event of a run calls for.
fn plans(event: &Event) -> Vec<Plan> {
    match event {
        Event::StepScheduled(scheduled) => {
            let (step, attempt) = (scheduled.step.as_str(), scheduled.attempt);
            match scheduled.kind {
                Kind::Task => vec![plan(What::Offer, step, attempt, None)],
                Kind::Http => {
                    let late = scheduled.deadline.map(|deadline| plan(What::TimeOut, step, attempt, Some(deadline)));
                    [plan(What::Request, step, attempt, None)].into_iter().chain(late).collect()
                }
                Kind::Wait => vec![plan(What::FinishWait, step, attempt, scheduled.due_at)],
                Kind::Pass => Vec::new(),
            }
        }
        Event::StepStarted(started) => {
            vec![plan(What::TimeOut, &started.step, started.attempt, Some(started.deadline))]
        }
        Event::StepReturned(returned) => {
            let (step, attempt) = (returned.step.as_str(), returned.attempt);
            vec![cancel(What::TimeOut, step, attempt), plan(What::Offer, step, attempt, None)]
        }
        Event::StepCompleted(done) => vec![cancel(What::TimeOut, &done.step, done.attempt)],
        Event::StepFailed(failed) => vec![cancel(What::TimeOut, &failed.step, failed.attempt)],
        Event::StepRetryScheduled(retry) => {
            // The event names the coming attempt; the alarm belongs to the one that ended.
            vec![plan(What::Retry, &retry.step, retry.attempt, Some(retry.due_at))]
        }
        Event::Started(_) | Event::StepTimedOut(_) | Event::Completed(_) | Event::Failed(_) | Event::Cancelled(_) => {
            Vec::new()
        }
    }
}

fn report(effect: &EffectRow, command: &'static str, body: serde_json::Value) -> Verdict {
    let report = Report { to: effect.stream.clone(), command, body };
    Verdict::Done { note: "its time came".to_owned(), report: Some(report) }
}

fn unreadable(problem: &Problem) -> Verdict {
    if problem.is_transient() {
        Verdict::Retry { reason: problem.to_string(), after: problem.retry_after_ms.map(Duration::from_millis) }
    } else {
        Verdict::Park { reason: problem.to_string() }
    }
}

impl Steps {
    async fn offer(&self, effect: &EffectRow, asked: &Asked, work: &Work) -> Verdict {
        if !matches!(work.phase, Phase::Scheduled { .. }) {
            return Verdict::Done { note: "a worker has it already".to_owned(), report: None };
        }
        let offer = Offer {
            tenant: effect.stream.tenant.to_string(),
            name: work.step.name.clone(),
            run: effect.stream.id.to_string(),
            step: asked.step.clone(),
            attempt: asked.attempt,
        };
        match self.tasks.offer(&offer, &effect.idempotency_key()).await {
            Ok(()) => Verdict::Done { note: format!("offered to workers of `{}`", offer.name), report: None },
            Err(reason) => Verdict::Retry { reason, after: None },
        }
    }

    async fn request(&self, effect: &EffectRow, asked: &Asked, work: &Work) -> Verdict {
        let StepKind::Http(request) = &work.step.kind else {
            return Verdict::Park { reason: "the step is not an HTTP request".to_owned() };
        };
        let remaining = match &work.phase {
            Phase::Scheduled { deadline: Some(deadline), .. } => {
                (*deadline - runtime::clock::now()).to_std().unwrap_or_default()
            }
            _ => Duration::from_millis(request.timeout_ms),
        };
        let (step, attempt) = (&asked.step, asked.attempt);
        // The same for every attempt of the step: an attempt that timed out may have had its effect.
        let key = runtime::clock::derived_id("fx_", &format!("{}/{step}", effect.stream));
        let (note, command, body) = match self.client.send(request, work, &key, remaining).await {
            Outcome::Answered { output, status } => {
                let body = json!({ "step": step, "attempt": attempt, "output": output });
                (format!("answered {status}"), "complete-step", body)
            }
            Outcome::Failed(error) => {
                let note = format!("{}: {}", error.kind, error.message);
                let body = json!({ "step": step, "attempt": attempt, "error": error });
                (note, "fail-step", body)
            }
        };
        let to: StreamName = effect.stream.clone();
        Verdict::Done { note, report: Some(Report { to, command, body }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::run::{StepRetryScheduled, StepStarted};

    #[test]
    fn a_claimed_task_gets_a_deadline_and_a_result_takes_it_away() {
        let deadline = Timestamp::UNIX_EPOCH;
        let started = StepStarted { step: "1".into(), attempt: 2, worker: "w".into(), deadline };
        let [Plan::Do { name, due, .. }] = &plans(&started.into())[..] else { panic!("one plan") };
        assert_eq!((name.as_str(), *due), ("1/2/deadline", Some(deadline)));
        let done = events::run::StepCompleted { step: "1".into(), attempt: 2, output: Arc::default(), output_of: None };
        assert_eq!(plans(&done.into()), [Plan::Cancel { name: "1/2/deadline".into() }]);
    }

    #[test]
    fn a_pause_before_an_attempt_is_a_timer_named_after_that_attempt() {
        let retry = StepRetryScheduled { step: "a".into(), attempt: 3, due_at: Timestamp::UNIX_EPOCH, delay_ms: 5 };
        let [Plan::Do { name, .. }] = &plans(&retry.into())[..] else { panic!("one plan") };
        assert_eq!(name, "a/3/retry");
    }
}
