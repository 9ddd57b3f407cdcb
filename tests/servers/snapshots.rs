//! Snapshots of streams in Postgres: the contract, and what only a real database can do to them.

use std::sync::Arc;

use nats::JetStreamLog;
use projections::PgSnapshots;
use projections::commits::PgCommitIndex;
use runtime::contract::executing::{ask, executor_with_snapshots};
use runtime::contract::{Till, executing, fresh_stream, snapshots};
use runtime::{Commands, CommitIndex, Log, Snapshot, SnapshotCache, SnapshotKey, Snapshots};
use sqlx::{Connection, PgConnection};
use stories::{Servers, eventually};

async fn ports(servers: &Servers) -> (Arc<dyn Log>, Arc<dyn CommitIndex>, Arc<dyn Snapshots>) {
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let index = Arc::new(PgCommitIndex::new(&servers.database, log.identity().await.unwrap()));
    (log, index, Arc::new(PgSnapshots::new(&servers.database)))
}

async fn count(servers: &Servers) -> i64 {
    let count = "SELECT count(*) FROM airstream.snapshots";
    sqlx::query_scalar(count).fetch_one(servers.database.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshots() {
    let servers = Servers::fresh().await.unwrap();
    snapshots::suite(&PgSnapshots::new(&servers.database)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executing_with_snapshots() {
    let servers = Servers::with_topology().await.unwrap();
    let (log, index, store) = ports(&servers).await;
    executing::suite_with_snapshots(log, index, store).await;
    assert!(count(&servers).await > 0, "the suite ran without any");
}

#[tokio::test(flavor = "multi_thread")]
async fn using_snapshots() {
    let servers = Servers::with_topology().await.unwrap();
    let (log, index, store) = ports(&servers).await;
    snapshots::using(log, index, store).await;
}

/// Longer than a page of the log, or nobody would ask for its snapshot.
const LONG: u64 = 520;

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_on_while_the_table_is_emptied_locked_or_gone() {
    let servers = Servers::with_topology().await.unwrap();
    let (log, index, store) = ports(&servers).await;
    let identity = log.identity().await.unwrap();
    let cold = || {
        let cache = SnapshotCache::new(Arc::clone(&store), identity.clone(), "code".to_owned(), 100);
        executor_with_snapshots(&log, &index, Some(cache))
    };
    let (stream, executor) = (fresh_stream("till"), cold());
    for n in 0..LONG {
        executor.execute(ask(&stream, "take", 1, Some(&format!("c{n}")))).await.unwrap();
        if n % 50 == 0 {
            sqlx::query("TRUNCATE airstream.snapshots").execute(servers.database.pool()).await.unwrap();
        }
    }
    let check = async |what: &str| {
        let executor = cold();
        let seen = executor.inspect::<Till>(&stream).await.unwrap_or_else(|problem| panic!("{what}: {problem}"));
        assert_eq!((seen.state, seen.version), (LONG, LONG), "{what}");
        assert!(executor.execute(ask(&stream, "take", 1, Some("c3"))).await.unwrap().repeated, "{what}");
    };
    check("emptied").await;
    eventually("whoever folded it all keeps a snapshot", async || count(&servers).await == 1).await;
    check("kept").await;

    let mut blocker = PgConnection::connect(&servers.postgres_url).await.unwrap();
    let mut transaction = blocker.begin().await.unwrap();
    sqlx::query("LOCK TABLE airstream.snapshots IN ACCESS EXCLUSIVE MODE").execute(&mut *transaction).await.unwrap();
    check("locked").await;
    transaction.rollback().await.unwrap();

    sqlx::query("DROP TABLE airstream.snapshots").execute(servers.database.pool()).await.unwrap();
    check("gone").await;
    servers.database.close().await;
    check("without a database").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_of_the_code_keep_one_each_and_what_is_old_is_swept_out() {
    let servers = Servers::fresh().await.unwrap();
    let key = |fold: &str| SnapshotKey { stream: fresh_stream("till"), log: "log_1".to_owned(), fold: fold.to_owned() };
    let snapshot = Snapshot { version: 1, position: kernel::Position::at(1), body: "1".into() };
    let before = PgSnapshots::new(&servers.database);
    let keep = async |fold: &str, age: &str| {
        let key = key(fold);
        before.store(&key, &snapshot).await.unwrap();
        let age_it = "UPDATE airstream.snapshots SET stored_at = now() - $1::text::interval WHERE stream_id = $2";
        let pool = servers.database.pool();
        sqlx::query(age_it).bind(age).bind(key.stream.id.as_str()).execute(pool).await.unwrap();
        key
    };
    let (ours, ours_forgotten) = (keep("new", "29 days").await, keep("new", "31 days").await);
    let (running, gone) = (keep("old", "1 hour").await, keep("old", "2 days").await);
    // The first store of a process sweeps.
    let store = PgSnapshots::new(&servers.database);
    store.store(&key("new"), &snapshot).await.unwrap();
    for (key, stays) in [(ours, true), (ours_forgotten, false), (running, true), (gone, false)] {
        assert_eq!(store.load(&key).await.unwrap().is_some(), stays, "{key:?}");
    }
}
