//! Poison in the log: parked with what follows on its stream, visible, released in order after the fix, or skipped.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kernel::{FactError, Position, StreamName, TenantId};
use nats::JetStreamLog;
use projections::{CommitFacts, ProjectError, Projector, status};
use runtime::contract::{fresh_stream, log};
use runtime::lease::Lease;
use runtime::{Log, consume};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use stories::{Servers, eventually};
use tokio_util::sync::CancellationToken;

/// Counts coins per till, and cannot stand tills that are out of order. Statics, because projectors have no state: the
/// tests of this file each use their own.
static BROKEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);

struct Coins;

fn is_broken(stream: &StreamName) -> bool {
    BROKEN.lock().unwrap().as_ref().is_some_and(|broken| broken.contains(stream.id.as_str()))
}

fn set_broken(stream: &StreamName, broken: bool) {
    let mut set = BROKEN.lock().unwrap();
    let set = set.get_or_insert_default();
    if broken {
        set.insert(stream.id.to_string())
    } else {
        set.remove(stream.id.as_str())
    };
}

#[async_trait]
impl Projector for Coins {
    const NAME: &'static str = "coins";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = &["till"];
    const TABLES: &'static [&'static str] = &["coins"];

    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        for facts in commits {
            if is_broken(facts.stream) && facts.commit.version_after() >= 2 {
                return Err(FactError::UnknownType("till.out_of_order".into()).into());
            }
            let sql =
                "INSERT INTO coins VALUES ($1, $2) ON CONFLICT (till) DO UPDATE SET versions = coins.versions || $2";
            let version = vec![facts.commit.version_after() as i64];
            sqlx::query(sql).bind(facts.stream.id.as_str()).bind(version).execute(&mut *tables).await?;
        }
        Ok(())
    }
}

async fn versions(pool: &PgPool, stream: &StreamName) -> Vec<i64> {
    let sql = "SELECT versions FROM coins_v1.coins WHERE till = $1";
    sqlx::query_scalar(sql).bind(stream.id.as_str()).fetch_optional(pool).await.unwrap().unwrap_or_default()
}

struct Story {
    servers: Servers,
    log: Arc<dyn Log>,
    stop: CancellationToken,
    tenant: TenantId,
}

async fn begin() -> Story {
    let servers = Servers::with_topology().await.unwrap();
    let ddl = "CREATE SCHEMA coins_v1; CREATE TABLE coins_v1.coins (till text PRIMARY KEY, versions bigint[] NOT NULL)";
    sqlx::raw_sql(AssertSqlSafe(ddl.to_owned())).execute(servers.database.pool()).await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let stop = CancellationToken::new();
    let options = consume::Options { heartbeat: Duration::from_millis(50), ..consume::Options::default() };
    let (database, lease) = (servers.database.clone(), Lease::permanent("coins"));
    tokio::spawn(projections::run::<Coins>(database, lease, Arc::clone(&log), options, stop.clone()));
    Story { servers, log, stop, tenant: TenantId::new("contract").unwrap() }
}

impl Story {
    async fn write(&self, stream: &StreamName, commits: u64) {
        let mut last = Position::START;
        for version in 0..commits {
            last = self.log.append(log::commit(stream, &format!("v{version}"), version, last)).await.unwrap();
        }
    }

    async fn parked(&self) -> Vec<status::ParkedRow> {
        status::parked(self.servers.database.pool(), None, true, 100).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_parked_the_others_go_on_and_after_the_fix_it_catches_up_in_order() {
    let story = begin().await;
    let (good, bad) = (fresh_stream("till"), fresh_stream("till"));
    set_broken(&bad, true);
    story.write(&bad, 4).await;
    story.write(&good, 4).await;
    let pool = story.servers.database.pool();
    eventually("the good stream is there", async || versions(pool, &good).await == [1, 2, 3, 4]).await;
    let parked = story.parked().await;
    let states: Vec<_> = parked.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(states, ["cause", "behind", "behind"], "{parked:?}");
    assert!(parked[0].reason.contains("till.out_of_order"));
    assert_eq!(versions(pool, &bad).await, [1]);

    // Released too early it fails again, and stays, with one more try on record.
    assert!(status::retry(pool, Some(&story.tenant), &parked[0].id).await.unwrap());
    eventually("it was tried again", async || story.parked().await[0].tries == 2).await;
    assert_eq!(versions(pool, &bad).await, [1]);

    set_broken(&bad, false);
    assert!(status::retry(pool, Some(&story.tenant), &parked[0].id).await.unwrap());
    eventually("it has caught up in order", async || versions(pool, &bad).await == [1, 2, 3, 4]).await;
    assert!(story.parked().await.is_empty());
    let last =
        story.log.read_stream(&bad, Position::START, runtime::Freshness::Leader).await.unwrap().commits[3].position;
    story.log.append(log::commit(&bad, "later", 4, last)).await.unwrap();
    eventually("it flows again", async || versions(pool, &bad).await.last() == Some(&5)).await;
    assert!(!status::retry(pool, Some(&story.tenant), "coins_v1@999").await.unwrap(), "released what is not there");
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_can_read_is_skipped_with_a_reason_and_what_waits_behind_it_goes_on() {
    let story = begin().await;
    let stream = fresh_stream("till");
    let subject = nats::subjects::commit(&stream);
    let jetstream = story.servers.nats.jetstream();
    // Under a guard, as a faulty writer of ours would write it.
    let spoil = async |subject: String, body: &'static str| {
        let mut guard = async_nats::HeaderMap::new();
        guard.insert("Nats-Expected-Last-Subject-Sequence", "0");
        jetstream.publish_with_headers(subject, guard, body.into()).await.unwrap().await.unwrap();
    };
    spoil(subject.clone(), "this is not a commit").await;
    spoil("ev.not.one.of.ours.at.all".to_owned(), "{}").await;
    let last = Position::at(1);
    story.log.append(log::commit(&stream, "after", 0, last)).await.unwrap();
    // The third commit waits behind the first; the second stands under a subject that is nobody's, and is seen all the same.
    eventually("three commits are parked", async || story.parked().await.len() == 3).await;
    let pool = story.servers.database.pool();
    let cause = story.parked().await.into_iter().find(|row| row.subject == subject && row.state == "cause").unwrap();
    assert!(status::skip(pool, Some(&story.tenant), &cause.id, "a test wrote it").await.unwrap());
    eventually("what waited behind it is handled", async || versions(pool, &stream).await == [1]).await;
    let foreign = story.parked().await.into_iter().find(|row| row.subject.contains("not.one")).unwrap();
    assert!(status::skip(pool, None, &foreign.id, "nobody's").await.unwrap(), "an operator could not get rid of it");
    let rows = story.parked().await;
    let skipped = rows.iter().find(|row| row.id == cause.id).unwrap();
    assert!(skipped.state == "skipped" && skipped.reason.contains("a test wrote it"), "{skipped:?}");
    story.stop.cancel();
}
