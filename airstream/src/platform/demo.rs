//! `up --demo`: workers for the four tasks of the example workflow, inside this process. They do what they say, on the
//! run's input, with plain files as results. They use the same door as workers outside.

mod report;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kernel::{CommandId, PrincipalId, Problem, StreamName, TenantId};
use runtime::{Commands, Request};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use workflows::work::{Asking, Task, WorkDoor};

use crate::config::Config;

const TASKS: [&str; 4] = ["validate_input", "process_data", "generate_report", "send_notification"];

/// Starts a worker per task.
pub(super) fn start(
    door: WorkDoor,
    commands: Arc<dyn Commands>,
    tenant: TenantId,
    config: &Config,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let folder = config.stack.data_dir.clone().unwrap_or_else(std::env::temp_dir).join("demo");
    for name in TASKS {
        let worker = Worker {
            door: door.clone(),
            commands: Arc::clone(&commands),
            tenant: tenant.clone(),
            principal: PrincipalId::new("demo")?,
            folder: folder.clone(),
        };
        tasks.spawn(worker.run(name, stop.clone()));
    }
    Ok(())
}

struct Worker {
    door: WorkDoor,
    commands: Arc<dyn Commands>,
    tenant: TenantId,
    principal: PrincipalId,
    folder: PathBuf,
}

impl Worker {
    async fn run(self, name: &'static str, stop: CancellationToken) {
        let asking = Asking { worker: Some(format!("demo-{name}")), wait_ms: Some(5_000) };
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = self.door.next(&self.tenant, &self.principal, name, &asking) => next,
            };
            match next {
                Ok(Some(task)) => self.work(&task).await,
                Ok(None) => {}
                Err(problem) => {
                    tracing::warn!(name, %problem, "a demo worker has to wait");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(500)) => {}
                    }
                }
            }
        }
    }

    async fn work(&self, task: &Task) {
        let (command, mut body) = match perform(task, &self.folder).await {
            Ok(output) => ("complete-step", json!({ "output": output })),
            Err(error) => ("fail-step", json!({ "error": error })),
        };
        body["step"] = json!(task.step);
        body["attempt"] = json!(task.attempt);
        if let Err(problem) = self.report(task, command, &body).await {
            tracing::warn!(run = task.run, step = task.step, %problem, "a demo worker's report was not taken");
        }
    }

    /// Tells the run, until it has heard.
    async fn report(&self, task: &Task, command: &str, body: &Value) -> Result<(), Problem> {
        let stream = StreamName::new(self.tenant.as_str(), events::run::CATEGORY, &task.run)?;
        let id = CommandId::new(&format!("{}/{}/{command}", task.idempotency_key, task.attempt))?;
        let request = Request::new(stream, command, body.to_string(), self.principal.clone()).with_id(id);
        for _ in 0..20 {
            match self.commands.execute(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(problem) if problem.is_transient() => tokio::time::sleep(Duration::from_millis(250)).await,
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::unavailable("the run could not be told; its deadline will notice", 0))
    }
}

/// Does a task. An error is a value for `fail-step`.
async fn perform(task: &Task, folder: &Path) -> Result<Value, Value> {
    let wrong =
        |message: String| json!({ "type": "invalid_input", "message": message, "retryable": false, "no_effect": true });
    let disk = |error: std::io::Error| json!({ "type": "disk", "message": error.to_string() });
    match task.name.as_str() {
        "validate_input" => {
            let text = task.input.get("csv").and_then(Value::as_str);
            let text = text.ok_or_else(|| wrong("the input has no `csv`: a text with usage records".to_owned()))?;
            let records = usage::read(text).map_err(wrong)?;
            Ok(json!({ "records": records.len(), "columns": usage::COLUMNS }))
        }
        "process_data" => {
            let text = task.input.get("csv").and_then(Value::as_str).unwrap_or_default();
            Ok(usage::aggregate(&usage::read(text).map_err(wrong)?))
        }
        "generate_report" => {
            let file = folder.join("reports").join(format!("{}.md", task.run));
            let text = report::render(&task.run, &task.previous).map_err(wrong)?;
            write(&file, &text).await.map_err(disk)?;
            Ok(json!({ "file": file, "bytes": text.len(), "summary": report::summary(&task.previous) }))
        }
        "send_notification" => {
            let to = task.input.get("notify").and_then(Value::as_str).unwrap_or("ops@example.com");
            // One message per run, however often the step is tried: the file's name is the key.
            let file = folder.join("outbox").join(format!("{}.eml", task.run));
            write(&file, &report::message(&task.run, to, &task.previous)).await.map_err(disk)?;
            Ok(json!({ "notified": to, "file": file }))
        }
        other => Err(wrong(format!("no demo worker does `{other}`"))),
    }
}

/// Writes a file as a whole or not at all.
async fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(folder).await?;
    let unfinished = file.with_extension("tmp");
    tokio::fs::write(&unfinished, text).await?;
    tokio::fs::rename(&unfinished, file).await
}
