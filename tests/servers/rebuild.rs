//! Rebuild and verify: the log folded once more equals the live rows, also while new commits arrive.

use std::sync::Arc;
use std::time::Duration;

use kernel::{PrincipalId, StreamName, TenantId};
use nats::JetStreamLog;
use projections::commits::{Commits, PgCommitIndex};
use projections::runs::{self, Runs};
use projections::workflows::Workflows;
use projections::{Phase, Projector, rebuild, roll_back, status, verify, wait_until};
use runtime::lease::Lease;
use runtime::{Commands, CommitIndex, Executor, Log, Options, Registry, Request, consume};
use serde_json::json;
use stories::{Servers, eventually};
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
        .with_prepared::<workflows::run::Run>(workflows::start::Resolve::default());
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

/// Names and definitions of a schema's indexes, and whether its tables survive a crash.
async fn shape(story: &Story, schema: &str) -> Vec<(String, String, bool)> {
    let sql = "SELECT i.relname::text, replace(pg_get_indexdef(i.oid), n.nspname || '.', ''), t.relpersistence = 'p'
               FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
               JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = $1 ORDER BY 1";
    sqlx::query_as(sql).bind(schema).fetch_all(story.servers.database.pool()).await.unwrap()
}

async fn schemas(story: &Story) -> Vec<String> {
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'runs_v1%' ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(story.servers.database.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_loaded_as_the_live_projection_writes_them_and_indexes_keep_their_names() {
    let story = begin().await;
    let commits = (story.servers.database.clone(), Lease::permanent("commits"), Arc::clone(&story.log));
    let (database, lease, log) = commits;
    let commits = projections::run::<Commits>(database, lease, log, consume::Options::default(), story.stop.clone());
    tokio::spawn(commits);
    // Whatever COPY has a meaning for, in keys and in documents.
    let odd = json!({ "text": "a\tb\\c\nd\r\"e\" \\N \\. {f,g} ü", "none": null, "nested": [1, { "x": "\\" }] });
    let body = |n: u32| json!({ "workflow": "wf", "input": { "n": n, "odd": odd } });
    let run = async |n: u32| {
        let run = format!("run-{n}");
        story.ask("run", &run, "start", body(n)).await;
        if n.is_multiple_of(2) {
            story.ask("run", &run, "complete-step", json!({ "step": "1", "attempt": 1, "output": odd })).await;
        }
        if n.is_multiple_of(3) {
            story.ask("run", &run, "cancel", json!({ "reason": "enough\tof\\it" })).await;
        }
    };
    futures::future::join_all((0..400).map(run)).await;
    story.caught_up::<Runs>().await;
    story.caught_up::<Commits>().await;
    let before = (shape(&story, "runs_v1").await, shape(&story, "commits_v1").await);
    let (database, log) = (&story.servers.database, &story.log);
    for (rows, fold) in [
        (400 * 4, rebuild::<Runs>(database, log, |_| {}).await.unwrap()),
        (1 + 400 + 200 + 134, rebuild::<Commits>(database, log, |_| {}).await.unwrap()),
    ] {
        assert!(fold.differences.is_empty() && fold.rows == rows, "{fold:?}");
    }
    assert_eq!(before, (shape(&story, "runs_v1").await, shape(&story, "commits_v1").await));
    assert!(before.0.iter().all(|(.., survives)| *survives) && before.0.len() == 4, "{before:?}");
    assert_eq!(schemas(&story).await, ["runs_v1", "runs_v1_old"]);
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_projection_goes_on_while_it_is_compared_and_a_second_fold_is_refused() {
    let story = begin().await;
    story.runs(0..10).await;
    story.caught_up::<Runs>().await;
    let (database, log, runtime) = (&story.servers.database, &story.log, tokio::runtime::Handle::current());
    let compared = std::sync::atomic::AtomicU32::new(0);
    let meanwhile = || async {
        let second = verify::<Runs>(database, log, |_| {}).await.unwrap_err();
        assert!(second.to_string().contains("already"), "{second}");
        let rows = status::consumers(database.pool()).await.unwrap();
        let fold = rows.into_iter().find(|row| row.consumer == "runs_v1").unwrap().fold.unwrap();
        assert!(fold.running && fold.phase == "compare" && fold.done == fold.total, "{fold:?}");
        // The snapshot is open and the comparison has begun: what is written now is handled all the same.
        story.runs(10..20).await;
        story.caught_up::<Runs>().await;
    };
    let progress = |progress: projections::Progress| {
        if progress.phase == Phase::Compare {
            compared.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::block_in_place(|| runtime.block_on(meanwhile()));
        }
    };
    let fold = rebuild::<Runs>(database, log, progress).await.unwrap();
    assert_eq!(compared.into_inner(), 1);
    assert!(fold.differences.is_empty() && fold.rows == 10 * 4, "as of the snapshot: {fold:?}");
    let fold = verify::<Runs>(database, log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty() && fold.rows == 20 * 4, "{fold:?}");
    let fold = status::consumers(database.pool()).await.unwrap().into_iter().find_map(|row| row.fold);
    assert!(fold.is_none(), "nothing runs any more: {fold:?}");
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_loses_nothing_and_doubles_nothing() {
    let story = begin().await;
    story.runs(0..10).await;
    story.caught_up::<Runs>().await;
    let (database, log) = (&story.servers.database, &story.log);
    let refused = roll_back::<Runs>(database).await.unwrap_err();
    assert!(refused.to_string().contains("not been rebuilt"), "{refused}");
    rebuild::<Runs>(database, log, |_| {}).await.unwrap();
    // The new rows go on; the old ones stand where they were.
    story.runs(10..30).await;
    story.caught_up::<Runs>().await;
    let mark = "COMMENT ON TABLE runs_v1.runs IS 'the new ones'";
    sqlx::raw_sql(mark).execute(database.pool()).await.unwrap();
    for comment in [None, Some("the new ones")] {
        // Nobody writes: it is not the next commit that makes the projection notice.
        let back = roll_back::<Runs>(database).await.unwrap();
        assert!(back.to <= back.from, "{back:?}");
        story.caught_up::<Runs>().await;
        let fold = verify::<Runs>(database, log, |_| {}).await.unwrap();
        assert!(fold.differences.is_empty() && fold.rows == 30 * 4, "{fold:?}");
        let sql = "SELECT obj_description('runs_v1.runs'::regclass)";
        let found: Option<String> = sqlx::query_scalar(sql).fetch_one(database.pool()).await.unwrap();
        assert_eq!(found.as_deref(), comment);
    }
    // Rows of another shape are not brought back.
    sqlx::raw_sql("ALTER TABLE runs_v1.runs ADD COLUMN extra text").execute(database.pool()).await.unwrap();
    let refused = roll_back::<Runs>(database).await.unwrap_err();
    assert!(refused.to_string().contains("migration"), "{refused}");
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_that_nobody_waits_for_stops_in_the_middle_of_a_statement_and_leaves_nothing() {
    let story = begin().await;
    story.runs(0..5).await;
    story.caught_up::<Runs>().await;
    let (database, log) = (&story.servers.database, &story.log);
    // Each row of the second schema takes for ever to check; the live ones are not checked.
    let slow = "ALTER TABLE runs_v1.runs ADD CONSTRAINT slow CHECK (pg_sleep(600) IS NOT NULL) NOT VALID";
    sqlx::raw_sql(slow).execute(database.pool()).await.unwrap();
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    let stuck = async || sqlx::query_scalar::<_, i64>(sleeping).fetch_one(database.pool()).await.unwrap();
    tokio::select! {
        fold = rebuild::<Runs>(database, log, |_| {}) => panic!("it ended: {fold:?}"),
        () = eventually("it is in the middle of a statement", async || stuck().await == 1) => {}
    }
    eventually("its statement has ended", async || stuck().await == 0).await;
    eventually("what it made is gone", async || schemas(&story).await == ["runs_v1"]).await;
    sqlx::raw_sql("ALTER TABLE runs_v1.runs DROP CONSTRAINT slow").execute(database.pool()).await.unwrap();
    eventually("the next one may begin", async || rebuild::<Runs>(database, log, |_| {}).await.is_ok()).await;
    story.stop.cancel();
}
