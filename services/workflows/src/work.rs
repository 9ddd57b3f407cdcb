//! Where workers ask for work, in any language, with nothing but a NATS request:
//!
//! ```text
//! request  work.<tenant>.<principal>.<task name>          {"worker":"…"?, "wait_ms":20000?}
//! reply    {"task":{"run","workflow","step","name","attempt","deadline","idempotency_key","input","previous","steps","params"}}
//!          {"task":null}                                   nobody needed it while we waited
//! report   cmd.<tenant>.<principal>.run.<run>.complete-step   {"step","attempt","output"}
//!          cmd.<tenant>.<principal>.run.<run>.fail-step       {"step","attempt","error":{"type","message",…}}
//! ```
//! Handing a task out is a commit on the run (`run.step_started`): exactly one worker gets an attempt, and from then on
//! its time runs. A worker that dies is noticed by the step's deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use events::workflow::StepKind;
use kernel::{PrincipalId, Problem, StreamName, TenantId, Timestamp};
use nats::{Delivery, Handle, Incoming, Reply, Unheard, WorkQueue};
use rest::Access;
use runtime::{Commands, Executor, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::reactor::{Offer, TaskQueue};
use crate::run::{Phase, Run};

/// The queue of tasks, on JetStream.
#[derive(Clone)]
pub struct Tasks(WorkQueue);

impl Tasks {
    /// On the stream `TASKS`.
    #[must_use]
    pub fn new(queue: WorkQueue) -> Self {
        Self(queue)
    }
}

#[async_trait]
impl TaskQueue for Tasks {
    async fn offer(&self, task: &Offer, key: &str) -> Result<(), String> {
        let payload = serde_json::to_vec(task).map_err(|error| error.to_string())?;
        let subject = nats::subjects::task(&task.tenant, &task.name);
        self.0.put(subject, key, payload.into()).await.map_err(|error| error.to_string())
    }
}

/// A task, as a worker gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The run: reports go to `cmd.<tenant>.<principal>.run.<run>.complete-step`.
    pub run: String,
    /// The workflow.
    pub workflow: String,
    /// The step's id.
    pub step: String,
    /// Its name.
    pub name: String,
    /// Which attempt: goes into the report.
    pub attempt: u32,
    /// When the attempt counts as timed out.
    pub deadline: Option<Timestamp>,
    /// The same for every attempt of this step: whatever the worker does outside, it should do once per key.
    pub idempotency_key: String,
    /// What the run was given.
    pub input: Value,
    /// What the step before returned.
    pub previous: Value,
    /// What all steps so far returned, by id.
    pub steps: Value,
    /// What the definition says for this step.
    pub params: Value,
}

/// What a worker may say when it asks.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asking {
    /// A name for itself, for people who look at the run; the principal when absent.
    pub worker: Option<String>,
    /// How long to wait for a task, at most 60,000; 20,000 when absent.
    pub wait_ms: Option<u64>,
}

/// The door for workers.
#[derive(Clone)]
pub struct WorkDoor {
    queue: WorkQueue,
    executor: Executor,
    commands: Arc<dyn Commands>,
    stop: CancellationToken,
}

impl WorkDoor {
    /// Takes tasks from `queue`, claims them through `commands`, and looks at runs through `executor`. After `stop` there is nothing for anybody: whoever waits
    /// is told so at once and asks another instance.
    #[must_use]
    pub fn new(queue: WorkQueue, executor: Executor, commands: Arc<dyn Commands>, stop: CancellationToken) -> Self {
        Self { queue, executor, commands, stop }
    }

    /// The next task of a name, claimed for the asker; `None` when none came in time.
    ///
    /// # Errors
    /// 503 when the queue or the log cannot be reached.
    pub async fn next(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        name: &str,
        asking: &Asking,
    ) -> Result<Option<Task>, Problem> {
        let wait = Duration::from_millis(asking.wait_ms.unwrap_or(20_000).min(60_000));
        let until = Instant::now() + wait;
        let subject = nats::subjects::task(tenant.as_str(), name);
        // A name is 1 to 96 characters without `=`, so no two pairs share a consumer.
        let consumer = format!("{tenant}={name}");
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let taken = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                taken = self.queue.next(&consumer, &subject, left) => taken,
            };
            let delivery = match taken {
                Ok(Some(delivery)) => delivery,
                Ok(None) => return Ok(None),
                Err(error) => {
                    tracing::warn!(%error, "workers cannot be served");
                    return Err(Problem::unavailable("The queue of tasks cannot be reached right now.", 1_000));
                }
            };
            match self.claim(tenant, principal, asking, &delivery).await {
                Ok(task) => {
                    // Claimed, or not wanted any more: either way this offer is spent.
                    if let Err(error) = delivery.done().await {
                        tracing::debug!(%error, "an offer will come again and be recognised as spent");
                    }
                    if task.is_some() {
                        return Ok(task);
                    }
                }
                Err(problem) => {
                    delivery.return_after(Duration::from_millis(500)).await;
                    return Err(problem);
                }
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// Answers requests on `work.>`.
    #[must_use]
    pub fn handle(self, access: Arc<dyn Access>) -> Handle {
        Arc::new(move |message| {
            let (door, access) = (self.clone(), Arc::clone(&access));
            Box::pin(async move {
                match door.answer(&*access, &message).await {
                    Ok(None) => Reply::of(204, &json!({ "task": null }), false),
                    Ok(Some((task, worker))) => {
                        let unheard = door.clone().give_back(&message, &task, worker);
                        Reply { unheard, ..Reply::of(200, &json!({ "task": task }), false) }
                    }
                    Err(problem) => Reply::problem(&problem),
                }
            })
        })
    }

    /// A worker that went away while it waited must not take the attempt, and minutes of its deadline, with it.
    fn give_back(self, message: &Incoming, task: &Task, worker: String) -> Option<Unheard> {
        let tenant = message.subject().split('.').nth(1)?;
        let stream = StreamName::new(tenant, events::run::CATEGORY, &task.run).ok()?;
        let (step, attempt) = (task.step.clone(), task.attempt);
        Some(Box::new(move || Box::pin(async move { self.take_back(stream, &step, attempt, &worker).await })))
    }

    async fn take_back(self, stream: StreamName, step: &str, attempt: u32, worker: &str) {
        let body = json!({ "step": step, "attempt": attempt, "worker": worker }).to_string();
        match self.commands.execute(Request::internal(stream, "return-step", body)).await {
            Ok(answer) => tracing::debug!(stream = answer.stream, "a worker was gone; its task is offered again"),
            // Its deadline will do the same, later.
            Err(problem) => tracing::warn!(%problem, "a task that nobody heard of could not be given back"),
        }
    }

    async fn answer(&self, access: &dyn Access, message: &Incoming) -> Result<Option<(Task, String)>, Problem> {
        let tokens: Vec<&str> = message.subject().split('.').collect();
        let [_, tenant, principal, name] = tokens.as_slice() else {
            let detail = "Ask on work.<tenant>.<principal>.<task name>.";
            return Err(Problem::new(400, "invalid_subject", detail));
        };
        let (tenant, principal) = (TenantId::new(tenant)?, PrincipalId::new(principal)?);
        kernel::Token::parse("the task name", name)?;
        if !access.knows(&tenant).await? {
            return Err(Problem::new(404, "unknown_tenant", format!("There is no tenant `{tenant}`.")));
        }
        let asking: Asking = kernel::object(message.payload())?;
        if asking.worker.as_ref().is_some_and(|worker| worker.is_empty() || worker.chars().any(char::is_control)) {
            let detail = "a name without control characters.".to_owned();
            return Err(Problem::invalid(vec![kernel::FieldError { pointer: "/worker".to_owned(), detail }]));
        }
        let worker = asking.worker.clone().unwrap_or_else(|| principal.to_string());
        Ok(self.next(&tenant, &principal, name, &asking).await?.map(|task| (task, worker)))
    }

    async fn claim(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        asking: &Asking,
        delivery: &Delivery,
    ) -> Result<Option<Task>, Problem> {
        let Ok(offer) = serde_json::from_slice::<Offer>(delivery.payload()) else {
            tracing::error!(subject = delivery.subject(), "an offer cannot be read; it is dropped");
            return Ok(None);
        };
        let stream = StreamName::new(tenant.as_str(), events::run::CATEGORY, &offer.run)?;
        let worker = asking.worker.clone().unwrap_or_else(|| principal.to_string());
        let body = json!({ "step": offer.step, "attempt": offer.attempt, "worker": worker });
        let request = Request::new(stream.clone(), "start-step", body.to_string(), principal.clone());
        match self.commands.execute(request).await {
            // Claimed before, by this very name: another process of the same worker may have it. One attempt, one process.
            Ok(answer) if answer.events.is_empty() => return Ok(None),
            Ok(_) => {}
            Err(problem) if problem.is_transient() || problem.status >= 500 => return Err(problem),
            // Cancelled, timed out or taken meanwhile.
            Err(problem) => {
                tracing::debug!(stream = %stream, code = %problem.code, "an offer is spent");
                return Ok(None);
            }
        }
        let found = match self.executor.inspect::<Run>(&stream).await {
            Ok(found) => found,
            // The claim stands, and its worker will not hear of it.
            Err(problem) => {
                self.clone().take_back(stream, &offer.step, offer.attempt, &worker).await;
                return Err(problem);
            }
        };
        let Some(work) = found.state.pending(&offer.step, offer.attempt) else { return Ok(None) };
        let deadline = match &work.phase {
            Phase::Started { deadline, .. } => Some(*deadline),
            _ => None,
        };
        let params = match &work.step.kind {
            StepKind::Task(task) => task.params.clone(),
            _ => Value::Null,
        };
        Ok(Some(Task {
            idempotency_key: format!("{}/{}", offer.run, offer.step),
            run: offer.run,
            workflow: work.workflow,
            step: offer.step,
            name: work.step.name,
            attempt: offer.attempt,
            deadline,
            input: (*work.input).clone(),
            previous: (*work.previous).clone(),
            steps: json!(work.outputs),
            params,
        }))
    }
}
