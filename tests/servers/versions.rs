//! A projector's next version fills itself beside the one that is served.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kernel::Position;
use nats::JetStreamLog;
use projections::{CommitFacts, ProjectError, Projector, rebuild, status, verify, wait_until};
use runtime::contract::{fresh_stream, log};
use runtime::lease::Lease;
use runtime::{Log, consume};
use sqlx::{AssertSqlSafe, PgConnection};
use stories::Servers;
use tokio_util::sync::CancellationToken;

/// The same statement for both versions; what differs is the table it finds.
struct Tills<const VERSION: u32>;

#[async_trait]
impl<const V: u32> Projector for Tills<V> {
    const NAME: &'static str = "tills";
    const VERSION: u32 = V;
    const CATEGORIES: &'static [&'static str] = &["till"];
    const TABLES: &'static [&'static str] = &["tills"];

    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        for facts in commits {
            let sql =
                "INSERT INTO tills (till) VALUES ($1) ON CONFLICT (till) DO UPDATE SET commits = tills.commits + 1";
            sqlx::query(sql).bind(facts.stream.id.as_str()).execute(&mut *tables).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_fills_itself_while_the_old_one_is_served_and_each_is_rebuilt_by_itself() {
    let servers = Servers::with_topology().await.unwrap();
    let ddl = "CREATE SCHEMA tills_v1; CREATE TABLE tills_v1.tills (till text PRIMARY KEY, commits int NOT NULL DEFAULT 1);
        CREATE SCHEMA tills_v2;
        CREATE TABLE tills_v2.tills (till text PRIMARY KEY, commits bigint NOT NULL DEFAULT 1, version int NOT NULL DEFAULT 2)";
    sqlx::raw_sql(AssertSqlSafe(ddl)).execute(servers.database.pool()).await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let stop = CancellationToken::new();
    let (database, within) = (&servers.database, Duration::from_secs(20));
    let start = |one: bool| {
        let (database, log, options, stop) =
            (database.clone(), Arc::clone(&log), consume::Options::default(), stop.clone());
        match one {
            true => tokio::spawn(projections::run::<Tills<1>>(database, Lease::permanent("1"), log, options, stop)),
            false => tokio::spawn(projections::run::<Tills<2>>(database, Lease::permanent("2"), log, options, stop)),
        }
    };
    let stream = fresh_stream("till");
    let mut last = Position::START;
    let mut write = async |version: u64| {
        last = log.append(log::commit(&stream, &format!("v{version}"), version, last)).await.unwrap();
        last
    };
    start(true);
    for version in 0..20 {
        write(version).await;
    }
    wait_until::<Tills<1>>(database.pool(), Position::at(20), within).await.expect("the old one is there");
    start(false);
    let head = write(20).await;
    wait_until::<Tills<1>>(database.pool(), head, within).await.expect("the old one goes on");
    wait_until::<Tills<2>>(database.pool(), head, within).await.expect("the new one fills itself");
    for fold in [
        verify::<Tills<1>>(database, &log, |_| {}).await.unwrap(),
        verify::<Tills<2>>(database, &log, |_| {}).await.unwrap(),
        rebuild::<Tills<2>>(database, &log, |_| {}).await.unwrap(),
    ] {
        assert!(fold.differences.is_empty() && fold.rows == 1, "{fold:?}");
    }
    let rows = status::consumers(database.pool()).await.unwrap();
    let kept: Vec<_> = rows.iter().map(|row| (row.consumer.as_str(), row.kept.is_some())).collect();
    assert_eq!(kept, [("tills_v1", false), ("tills_v2", true)]);
    let counted: (i32, i64) = sqlx::query_as("SELECT a.commits, b.commits FROM tills_v1.tills a, tills_v2.tills b")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(counted, (21, 21));
    stop.cancel();
}
