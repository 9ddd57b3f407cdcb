//! Rebuild and verify: the log folded once more equals the live rows, also while new commits arrive.

use std::sync::Arc;
use std::time::Duration;

use kernel::{PrincipalId, StreamName, TenantId};
use nats::JetStreamLog;
use projections::commits::PgCommitIndex;
use projections::runs::{self, Runs};
use projections::workflows::Workflows;
use projections::{Projector, rebuild, verify, wait_until};
use runtime::lease::Lease;
use runtime::{Commands, CommitIndex, Executor, Log, Options, Registry, Request, consume};
use serde_json::json;
use stories::Servers;
use tokio_util::sync::CancellationToken;

struct Story {
    servers: Servers,
    log: Arc<dyn Log>,
    executor: Executor,
    stop: CancellationToken,
}

async fn begin() -> Story {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&servers.database, log.identity().await.unwrap()));
    let registry = Registry::new()
        .with::<workflows::definition::Workflow>()
        .with_prepared::<workflows::run::Run>(workflows::start::Resolve);
    let executor = Executor::start(Arc::clone(&log), index, registry, Options::default());
    let stop = CancellationToken::new();
    let spawn = (servers.database.clone(), Arc::clone(&log), stop.clone());
    let (database, read, until) = spawn.clone();
    tokio::spawn(projections::run::<Runs>(
        database,
        Lease::permanent("runs"),
        read,
        consume::Options::default(),
        until,
    ));
    let (database, read, until) = spawn;
    tokio::spawn(projections::run::<Workflows>(
        database,
        Lease::permanent("workflows"),
        read,
        consume::Options::default(),
        until,
    ));
    let story = Story { servers, log, executor, stop };
    let steps = json!([{ "id": 1, "name": "one" }, { "id": "w", "wait": 60 }, { "id": 2, "name": "two" }]);
    story.ask("workflow", "wf", "define", json!({ "steps": steps })).await;
    story
}

impl Story {
    async fn ask(&self, category: &str, id: &str, command: &str, body: serde_json::Value) {
        let stream = StreamName::new("t", category, id).unwrap();
        let request = Request::new(stream, command, body.to_string(), PrincipalId::new("p").unwrap());
        self.executor.execute(request).await.unwrap();
    }

    async fn runs(&self, range: std::ops::Range<u32>) {
        for n in range {
            let run = format!("run-{n}");
            self.ask("run", &run, "start", json!({ "workflow": "wf", "input": { "n": n } })).await;
            if n % 2 == 0 {
                self.ask("run", &run, "complete-step", json!({ "step": "1", "attempt": 1, "output": n })).await;
            }
            if n % 3 == 0 {
                self.ask("run", &run, "cancel", json!({ "reason": "enough" })).await;
            }
        }
    }

    async fn caught_up<P: Projector>(&self) {
        let head = self.log.head().await.unwrap();
        wait_until::<P>(self.servers.database.pool(), head, Duration::from_secs(20)).await.expect("it catches up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_equal_the_fold_of_the_log_and_a_changed_row_is_found() {
    let story = begin().await;
    story.runs(0..20).await;
    story.caught_up::<Runs>().await;
    let fold = verify::<Runs>(&story.servers.database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty() && fold.rows == 20 * 4, "{fold:?}");
    assert!(verify::<Workflows>(&story.servers.database, &story.log, |_| {}).await.unwrap().differences.is_empty());

    let tamper = "UPDATE runs_v1.runs SET status = 'completed' WHERE run_id = 'run-1'";
    sqlx::query(tamper).execute(story.servers.database.pool()).await.unwrap();
    let fold = verify::<Runs>(&story.servers.database, &story.log, |_| {}).await.unwrap();
    let [difference] = fold.differences.as_slice() else { panic!("{fold:?}") };
    assert_eq!((difference.table.as_str(), difference.only_live, difference.only_log), ("runs", 1, 1));

    // A rebuild mends it, tells of it, and leaves nothing behind.
    assert_eq!(rebuild::<Runs>(&story.servers.database, &story.log, |_| {}).await.unwrap().differences.len(), 1);
    let fold = verify::<Runs>(&story.servers.database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty(), "{fold:?}");
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_beside_a_writing_projection_loses_nothing() {
    let story = Arc::new(begin().await);
    story.runs(0..30).await;
    let writer = Arc::clone(&story);
    let writing = tokio::spawn(async move { writer.runs(30..150).await });
    // While it writes, and not after: a later rebuild would mend what an earlier one lost.
    let mut rebuilds = 0;
    while !writing.is_finished() && rebuilds < 3 {
        rebuild::<Runs>(&story.servers.database, &story.log, |_| {}).await.unwrap();
        rebuilds += 1;
    }
    assert!(rebuilds > 0, "the writer was done before the first rebuild");
    writing.await.unwrap();
    story.caught_up::<Runs>().await;
    let fold = verify::<Runs>(&story.servers.database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty() && fold.rows == 150 * 4, "{fold:?}");
    let run = runs::get(story.servers.database.pool(), &TenantId::new("t").unwrap(), "run-149").await.unwrap();
    assert_eq!(run.unwrap().status, "running");
    story.stop.cancel();
}
