//! `airstream status`: where the local stack is and how to get in. Scripts read its JSON.

use serde_json::{Value, json};

use super::Context;
use crate::client::{Client, Target};
use crate::failure::Outcome;
use crate::state_file::Running;

/// The flags of `status`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Exit code 8 when no stack is running.\n\nExamples:\n  \
    airstream status\n  \
    airstream status --json | jq -r .postgres")]
pub(crate) struct Arguments {}

pub(crate) async fn run(context: &Context<'_>, _arguments: &Arguments) -> Outcome {
    let data_dir = context.data_dir()?;
    let running = Running::required(&data_dir)?;
    let ready = Client::new(Target::local(&data_dir))?.ready().await;
    if context.console.is_json() {
        return context.console.json(&document(&running, ready));
    }
    let state = match ready {
        Some(true) => "ready",
        Some(false) => "not ready; `airstream logs` may say why",
        None => "does not answer; `airstream logs` may say why",
    };
    context.console.pairs(&[
        ("state", state.to_owned()),
        ("http", running.http.clone()),
        ("token", running.token.clone()),
        ("nats", running.nats.url.clone()),
        ("nats user", running.nats.user.clone()),
        ("nats password", running.nats.password.clone()),
        ("postgres", running.postgres.clone()),
        ("mailbox", running.mailbox.clone().unwrap_or_default()),
        ("tenant", running.tenant.clone()),
        ("principal", running.principal.clone()),
        ("process", running.pid.to_string()),
        ("started", running.started_at.clone()),
        ("version", running.version.clone()),
        ("data", running.data_dir.display().to_string()),
        ("logs", running.logs.display().to_string()),
    ])
}

/// What scripts get. Fields may be added, none may change.
pub(crate) fn document(running: &Running, ready: Option<bool>) -> Value {
    json!({
        "http": running.http,
        "nats": running.nats,
        "nats_servers": running.nats_servers,
        "postgres": running.postgres,
        "mailbox": running.mailbox,
        "tenant": running.tenant,
        "principal": running.principal,
        "token": running.token,
        "pid": running.pid,
        "version": running.version,
        "data_dir": running.data_dir,
        "logs": running.logs,
        "started_at": running.started_at,
        "ready": ready.unwrap_or(false),
    })
}
