//! What is left, collected with plain clients, and the verdict.

use std::collections::BTreeSet;
use std::process::Command;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use checker::{Effect, Evidence, Message, Performed, Value};
use futures::StreamExt;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::drive::Driven;
use crate::world::{TOKEN, World};

/// Every broken promise.
pub(crate) async fn judge(world: &World, driven: &Driven) -> Vec<String> {
    let mut found = driven.callers.ledger.findings();
    let evidence = collect(world, driven).await;
    eprintln!(
        "{} commits, {} tries, {} queued, {} effects, {} requests",
        evidence.log.len(),
        evidence.asked.len(),
        evidence.queued.len(),
        evidence.effects.len(),
        evidence.performed.len()
    );
    found.extend(checker::check(&evidence).iter().map(ToString::to_string));
    found.extend(checker::check_world(&evidence).iter().map(ToString::to_string));
    found.extend(verified(world));
    found.extend(processes(world));
    found
}

async fn collect(world: &World, driven: &Driven) -> Evidence {
    let mut postgres = PgConnection::connect(&world.stack.postgres().url).await.unwrap();
    let (asked, queued) = driven.callers.ledger.pages();
    let mut evidence =
        Evidence { log: log(driven).await, asked, queued, open_runs: BTreeSet::new(), ..Evidence::default() };
    for table in checker::TABLES {
        let sql = AssertSqlSafe(format!("SELECT to_jsonb(r) FROM {table} r"));
        let rows: Vec<Value> = sqlx::query_scalar(sql).fetch_all(&mut postgres).await.unwrap();
        evidence.rows.insert((*table).to_owned(), rows);
    }
    let sql = "SELECT consumer, tenant_id || '/' || category || '/' || stream_id, name, state FROM airstream.effects";
    let effects: Vec<(String, String, String, String)> = sqlx::query_as(sql).fetch_all(&mut postgres).await.unwrap();
    let effect = |(consumer, stream, name, state)| Effect { consumer, stream, name, state };
    evidence.effects = effects.into_iter().map(effect).collect();
    // The key is the step's, whatever the attempt.
    let performed = |(key, run): (String, String)| Performed {
        consumer: "workflow-steps".to_owned(),
        stream: format!("dev/run/{run}"),
        name: "call".to_owned(),
        key,
    };
    evidence.performed = driven.hook.requests().into_iter().map(performed).collect();
    evidence
}

async fn log(driven: &Driven) -> Vec<Message> {
    let jetstream = &driven.callers.inside;
    let stream = jetstream.get_stream("EVENTS").await.unwrap();
    let last = stream.cached_info().state.last_sequence;
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        deliver_policy: DeliverPolicy::All,
        memory_storage: true,
        ..pull::Config::default()
    };
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let mut log = Vec::new();
    while log.last().is_none_or(|message: &Message| message.sequence < last) {
        let message = messages.next().await.unwrap().unwrap();
        let headers = message.headers.as_ref();
        log.push(Message {
            sequence: message.info().unwrap().stream_sequence,
            subject: message.subject.to_string(),
            guarded: headers.is_some_and(|map| map.get("Nats-Expected-Last-Subject-Sequence").is_some()),
            payload: message.payload.to_vec(),
        });
    }
    log
}

/// The platform's own comparison of rows and log.
fn verified(world: &World) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airstream"));
    command.args(["--url", &world.airstreams[0].url, "projections", "verify"]).env("AIRSTREAM_TOKEN", TOKEN);
    let output = command.current_dir(world.folder()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (!output.status.success()).then(|| format!("`airstream projections verify` ended with {}: {said}", output.status))
}

/// Processes end when they are told to, or because a server is not there when they start. They never panic.
fn processes(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for airstream in &world.airstreams {
        let log = std::fs::read_to_string(&airstream.log).unwrap_or_default();
        let name = airstream.log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for line in log.lines().filter(|line| line.contains("panicked")) {
            found.push(format!("{name} panicked: {line}"));
        }
        let crashed = |end: &&String| end.contains("signal");
        for end in airstream.unexpected_ends().iter().filter(crashed) {
            found.push(format!("{name} ended by itself with {end}"));
        }
    }
    found
}
