//! `airstream doctor`: what a start would use, what would be in its way, and what servers of others do not promise.

use embedded::{Finding, Status};
use nats::{Credentials, Signer};
use runtime::finding::Severity;
use serde_json::{Value, json};

use super::Context;
use crate::client::{Client, Target};
use crate::config::{self, Config, without_password};
use crate::failure::{Exit, Failure, Outcome};
use crate::state_file::Running;
use crate::{listen, paths, up};

/// The flags of `doctor`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_long_help = "Exit code 6 when something is worth a look. A `fail` would stop the start, a `warn` makes a promise weaker.\n\nExample:\n  airstream doctor --json"
)]
pub(crate) struct Arguments {}

pub(crate) async fn run(context: &Context<'_>, _arguments: &Arguments) -> Outcome {
    let console = context.console;
    let findings = look(context).await?;
    let worst = findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
    if console.is_json() {
        let items: Vec<Value> = findings.iter().map(document).collect();
        console.json(&json!({"status": word(worst), "items": items}))?;
    } else {
        for finding in &findings {
            console.line(&format!("{:4}  {:29}  {}", word(finding.status), finding.name, finding.detail))?;
            if !finding.hint.is_empty() {
                console.line(&format!("{:35}  -> {}", "", finding.hint))?;
            }
        }
    }
    if worst == Status::Ok { Ok(()) } else { Err(Failure::silent(Exit::Findings)) }
}

async fn look(context: &Context<'_>) -> Outcome<Vec<Finding>> {
    let loaded = match context.config(&[]) {
        Ok(loaded) => loaded,
        // Nothing else can be looked at: it would be the wrong thing.
        Err(failure) => {
            let detail = [&[failure.message], failure.details.as_slice()].concat().join("; ");
            let hint = failure.hint.unwrap_or_default();
            return Ok(vec![Finding { name: "configuration".to_owned(), status: Status::Fail, detail, hint }]);
        }
    };
    let config = loaded.config;
    let file = loaded.file.map_or_else(|| "defaults, no file".to_owned(), |path| path.display().to_string());
    let mut findings = vec![ok("configuration", file)];
    let data_dir = paths::data_dir(&config)?;
    let running = Running::alive(&data_dir)?;
    let mut servers = embedded::doctor(&up::stack_options(&config, false)?);
    if running.is_some() {
        // Our own stack holds its lock: that is as it should be.
        servers.retain(|finding| finding.name != "lock");
    }
    findings.extend(servers);
    findings.extend(external(&config).await);
    match running {
        None => findings.push(port(&config.http.bind)),
        Some(running) => findings.push(stack(&running, Client::new(Target::local(&data_dir))?.ready().await)),
    }
    Ok(findings)
}

/// What instances take besides their pool: a connection per owner of something.
const OWNERS: u32 = 8;

/// Servers that are somebody else's are asked themselves.
async fn external(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let nats = &config.nats;
    if !nats.url.is_empty() {
        findings.push(ok("nats.url", without_password(&nats.url)));
        let user = Credentials { user: nats.user.clone(), password: nats.password.clone() };
        let system = Credentials { user: nats.system_user.clone(), password: nats.system_password.clone() };
        let expected = nats::Expected { replicas: nats.replicas, durable: nats.require_durable };
        findings.extend(nats::examine(&nats.url, &user, &system, expected).await.into_iter().map(finding));
        findings.extend(doors(nats).await);
    }
    if !config.postgres.url.is_empty() {
        findings.push(ok("postgres.url", without_password(&config.postgres.url)));
        let needed = config.postgres.max_connections.saturating_add(OWNERS);
        findings.extend(projections::examine(&config.postgres.url, needed).await.into_iter().map(finding));
    }
    findings
}

/// Whether programs of tenants can come in, and are kept from the rest.
async fn doors(nats: &config::Nats) -> Vec<Finding> {
    let tenants = nats.tenants();
    let callout = tenants.as_ref().and_then(|tenants| tenants.callout.as_ref());
    let signer = callout.zip(tenants.as_ref()).map(|(callout, tenants)| Signer::new(&callout.seed, &tenants.account));
    let signer = match signer.transpose() {
        Ok(signer) => signer,
        Err(error) => {
            let (name, hint) = ("nats.callout".to_owned(), "`airstream config nats-key` makes a key".to_owned());
            return vec![Finding { name, status: Status::Fail, detail: error.to_string(), hint }];
        }
    };
    let callout = callout.map(|callout| &callout.login).zip(signer.as_ref());
    let door = tenants.as_ref().map(|tenants| &tenants.door);
    nats::examine_doors(&nats.url, door, callout).await.into_iter().map(finding).collect()
}

fn finding(found: runtime::finding::Finding) -> Finding {
    let status = match found.severity {
        Severity::Ok => Status::Ok,
        Severity::Warn => Status::Warn,
        Severity::Fail => Status::Fail,
    };
    Finding { name: found.code.to_owned(), status, detail: found.detail, hint: found.advice }
}

fn ok(name: &str, detail: String) -> Finding {
    Finding { name: name.to_owned(), status: Status::Ok, detail, hint: String::new() }
}

fn warn(name: &str, detail: String, hint: &str) -> Finding {
    Finding { name: name.to_owned(), status: Status::Warn, detail, hint: hint.to_owned() }
}

fn port(bind: &str) -> Finding {
    match listen::exactly(bind) {
        Ok(_) => ok("HTTP port", format!("{bind} is free")),
        Err(failure) => {
            warn("HTTP port", failure.message, "`up` takes the next free one; `serve` would refuse to start")
        }
    }
}

fn stack(running: &Running, ready: Option<bool>) -> Finding {
    let detail = format!("process {}, {}, since {}", running.pid, running.http, running.started_at);
    match ready {
        Some(true) => ok("stack", format!("{detail}, ready")),
        Some(false) => warn("stack", format!("{detail}, not ready"), "`airstream logs` may say why"),
        None => warn(
            "stack",
            format!("{detail}, does not answer"),
            "`airstream logs` may say why; `airstream down` stops it",
        ),
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "fail",
    }
}

/// For programs: words may be said otherwise some day, codes stay.
fn code(name: &str) -> String {
    name.to_lowercase().replace(' ', "_")
}

fn document(finding: &Finding) -> Value {
    json!({"code": code(&finding.name), "name": finding.name, "status": word(finding.status), "detail": finding.detail, "hint": finding.hint})
}
