//! From the moment a command should be sent until its row can be read in Postgres, under a steady load.
//!
//! The load is open: commands are due by the clock, whatever became of those before, and each is timed from when it was
//! due. A platform that stalls for a second is charged for every command that was due in that second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::{Client, HeaderMap};
use kernel::Position;
use nats::headers;
use projections::Projector as _;
use projections::runs::Runs;
use runtime::{Answer, clock};
use serde_json::json;
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::Common;
use super::latency::milliseconds;
use super::place::{self, Place};
use super::project::raw_connection;
use super::report::{Measured, Reach};
use super::rounds::Samples;
use super::rows::schema;
use crate::output::Console;
use crate::platform::{self, Platform, Secrets};
use crate::roles::Roles;

/// The flags of `e2e`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Commands per second
    #[arg(long, value_name = "N", default_value_t = RATE, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

const RATE: u32 = 1_000;
/// The share of the time at the beginning that is not counted: the first commands meet code that never ran.
const WARM_UP: f64 = 0.1;
/// How often the checkpoint is looked at: what is reported is too high by this at most.
const LOOK: Duration = Duration::from_millis(1);
/// After the last command.
const PATIENCE: Duration = Duration::from_secs(30);
const WORKFLOW: &str = "bench";

impl Arguments {
    pub(super) fn usual(common: Common) -> Self {
        Self { common, rate: RATE }
    }
}

/// A command that was accepted.
struct Accepted {
    due: Instant,
    answered: Instant,
    position: Position,
    counts: bool,
}

pub(super) async fn measure(console: &Console, place: &Place, arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let mut config = place.config.clone();
    config.http.bind = "127.0.0.1:0".to_owned();
    place::widen(&mut config.limits);
    let master = vault::MasterKey::parse(&vault::MasterKey::generate())?;
    let secrets = Secrets { token: String::new(), master: Some(master) };
    let platform = Platform::start(&config, &place.addresses, Roles::all(), false, &secrets, &|_| {}).await?;
    let found = under_load(console, place, arguments).await;
    platform.stop().await;
    found
}

async fn under_load(console: &Console, place: &Place, arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let development = &place.config.development;
    let caller = caller(place).await?;
    let to = format!("cmd.{}.{}", development.tenant, development.principal);
    // One step that is done at once: a run is one command, one commit and two rows, and nobody else works on it.
    let define = format!("{to}.workflow.{WORKFLOW}.define");
    ask(&caller, define, json!({ "steps": [{ "id": "end", "kind": "pass", "output": "done" }] }).to_string()).await?;

    let (seconds, rate) = (arguments.common.seconds, f64::from(arguments.rate));
    let count = (seconds * rate).ceil().max(1.0) as u32;
    let bar = console.bar("e2e");
    bar.set_length(u64::from(count));
    let (accepted, arriving) = mpsc::channel(65_536);
    let watching = tokio::spawn(watch(raw_connection(place).await?, arriving));
    let (began, caller) = (Instant::now(), Arc::new(caller));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..count {
        let due = began + Duration::from_secs_f64(f64::from(number) / rate);
        tokio::time::sleep_until(due.into()).await;
        let (caller, accepted, subject) =
            (Arc::clone(&caller), accepted.clone(), format!("{to}.run.{}.start", clock::fresh_id("run_")));
        let counts = f64::from(number) >= f64::from(count) * WARM_UP;
        calls.spawn(async move {
            let answer =
                ask(&caller, subject, json!({ "workflow": WORKFLOW, "input": { "n": number } }).to_string()).await?;
            accepted.send(Accepted { due, answered: Instant::now(), position: answer.position, counts }).await?;
            anyhow::Ok(())
        });
        bar.inc(1);
        while let Some(done) = calls.try_join_next() {
            done??;
        }
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    drop(accepted);
    let (answered, visible) = watching.await??;
    bar.finish_and_clear();
    let detail = json!({
        "commands": visible.len(),
        "offered_per_second": arguments.rate,
        "p999_ms": visible.quantile(0.999),
        "max_ms": visible.quantile(1.0),
        "answer_p50_ms": answered.quantile(0.5),
        "answer_p99_ms": answered.quantile(0.99),
        "resolution_ms": milliseconds(LOOK),
    });
    let reach = if arguments.rate == RATE { Reach::AtMost(25.0) } else { Reach::Told };
    Ok(vec![
        Measured::alone("e2e p50", "ms", visible.quantile(0.5), Reach::Told),
        Measured::alone("e2e p99", "ms", visible.quantile(0.99), reach).with(detail),
    ])
}

/// Looks at the projection's checkpoint all the time: rows and checkpoint move in one transaction, so a command whose
/// position it has reached can be read.
async fn watch(
    mut connection: PgConnection,
    mut arriving: mpsc::Receiver<Accepted>,
) -> anyhow::Result<(Samples, Samples)> {
    let (mut answered, mut visible, mut waiting) = (Samples::default(), Samples::default(), Vec::<Accepted>::new());
    let mut last_news = Instant::now();
    loop {
        let before = (arriving.len(), waiting.len());
        while let Ok(accepted) = arriving.try_recv() {
            waiting.push(accepted);
        }
        if waiting.is_empty() && arriving.is_closed() && arriving.is_empty() {
            return Ok((answered, visible));
        }
        let reached: Option<i64> = sqlx::query_scalar("SELECT position FROM airstream.checkpoints WHERE consumer = $1")
            .bind(schema::<Runs>())
            .fetch_optional(&mut connection)
            .await?;
        let (now, reached) = (Instant::now(), reached.unwrap_or_default().unsigned_abs());
        waiting.retain(|accepted| {
            let seen = accepted.position.sequence() <= reached;
            if seen && accepted.counts {
                answered.push(milliseconds(accepted.answered - accepted.due));
                visible.push(milliseconds(now - accepted.due));
            }
            !seen
        });
        if before != (arriving.len(), waiting.len()) || waiting.is_empty() {
            last_news = now;
        }
        ensure!(last_news.elapsed() < PATIENCE, "{} commands did not become visible in {}", waiting.len(), Runs::NAME);
        tokio::time::sleep(LOOK).await;
    }
}

/// A program outside, as the platform sees it.
pub(super) async fn caller(place: &Place) -> anyhow::Result<Client> {
    let addresses = &place.addresses;
    let (user, password) = match &addresses.tenants {
        Some(tenants) => (tenants.door.user.clone(), tenants.door.password.clone()),
        None => (addresses.nats_user.clone(), addresses.nats_password.clone()),
    };
    let options = async_nats::ConnectOptions::with_user_and_password(user, password)
        .custom_inbox_prefix(platform::inbox(&place.config))
        .subscription_capacity(64 * 1024);
    options.connect(&place.addresses.nats_url).await.context("NATS is needed for measuring")
}

/// Asks and waits.
pub(super) async fn ask(caller: &Client, subject: String, body: String) -> anyhow::Result<Answer> {
    let mut map = HeaderMap::new();
    map.insert(headers::COMMAND_ID, clock::fresh_id("cmd_"));
    let reply = caller.request_with_headers(subject, map, body.into()).await.context("a command was not answered")?;
    if let Ok(answer) = serde_json::from_slice(&reply.payload) {
        return Ok(answer);
    }
    bail!("a command was refused: {}", String::from_utf8_lossy(&reply.payload))
}
