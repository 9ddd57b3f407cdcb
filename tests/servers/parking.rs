//! Poison in the log: parked with what follows on its stream, visible, released in order after the fix, or skipped.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kernel::{FactError, Position, StreamName, TenantId};
use nats::JetStreamLog;
use projections::{CommitFacts, Phase, ProjectError, Projector, lot, rebuild, roll_back, verify};
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

    /// One more commit of a stream, after the one at this version.
    async fn append(&self, stream: &StreamName, version: u64) {
        let page = self.log.read_stream(stream, Position::START, runtime::Freshness::Leader).await.unwrap();
        let last = page.commits.last().unwrap().position;
        self.log.append(log::commit(stream, "one-more", version, last)).await.unwrap();
    }

    async fn parked(&self) -> Vec<lot::ParkedRow> {
        let wanted = lot::Wanted { with_skipped: true, ..lot::Wanted::default() };
        lot::list(self.servers.database.pool(), wanted, 100).await.unwrap()
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
    assert_eq!(lot::retry(pool, Some(&story.tenant), &parked[0].id).await.unwrap(), 3);
    eventually("it was tried again", async || story.parked().await[0].tries == 2).await;
    assert_eq!(versions(pool, &bad).await, [1]);

    set_broken(&bad, false);
    assert_eq!(lot::retry(pool, Some(&story.tenant), &parked[0].id).await.unwrap(), 3);
    eventually("it has caught up in order", async || versions(pool, &bad).await == [1, 2, 3, 4]).await;
    assert!(story.parked().await.is_empty());
    let last =
        story.log.read_stream(&bad, Position::START, runtime::Freshness::Leader).await.unwrap().commits[3].position;
    story.log.append(log::commit(&bad, "later", 4, last)).await.unwrap();
    eventually("it flows again", async || versions(pool, &bad).await.last() == Some(&5)).await;
    assert_eq!(lot::retry(pool, Some(&story.tenant), "coins_v1@999").await.unwrap(), 0, "released what is not there");
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
    assert!(lot::skip(pool, Some(&story.tenant), &cause.id, "a test wrote it").await.unwrap());
    eventually("what waited behind it is handled", async || versions(pool, &stream).await == [1]).await;
    let foreign = story.parked().await.into_iter().find(|row| row.subject.contains("not.one")).unwrap();
    assert!(lot::skip(pool, None, &foreign.id, "nobody's").await.unwrap(), "an operator could not get rid of it");
    let rows = story.parked().await;
    let skipped = rows.iter().find(|row| row.id == cause.id).unwrap();
    assert!(skipped.state == "skipped" && skipped.reason.contains("a test wrote it"), "{skipped:?}");
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_while_a_rebuild_runs_is_in_the_new_rows_and_going_back_parks_it_again() {
    let story = begin().await;
    let (good, bad) = (fresh_stream("till"), fresh_stream("till"));
    set_broken(&bad, true);
    story.write(&bad, 4).await;
    story.write(&good, 2).await;
    let (pool, database) = (story.servers.database.pool(), &story.servers.database);
    eventually("three commits are parked", async || story.parked().await.len() == 3).await;
    eventually("the good stream is there", async || versions(pool, &good).await == [1, 2]).await;

    // While both are compared, a person has mended it and has it tried again.
    let runtime = tokio::runtime::Handle::current();
    let release = || async {
        set_broken(&bad, false);
        lot::retry_all(pool, Some(&story.tenant), Some("coins_v1")).await.unwrap();
        eventually("it is handled", async || versions(pool, &bad).await == [1, 2, 3, 4]).await;
    };
    let fold = rebuild::<Coins>(database, &story.log, |progress| {
        if progress.phase == Phase::Compare {
            tokio::task::block_in_place(|| runtime.block_on(release()));
        }
    });
    let fold = fold.await.unwrap();
    assert_eq!((fold.parked, fold.differences.len()), (3, 0), "as of the moment of the comparison");
    assert_eq!((versions(pool, &bad).await, versions(pool, &good).await), (vec![1, 2, 3, 4], vec![1, 2]));
    let fold = verify::<Coins>(database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty() && fold.parked == 0, "{fold:?}");

    // A rebuild while something is parked keeps rows without it; whoever goes back to them finds it parked again.
    let worse = fresh_stream("till");
    set_broken(&worse, true);
    story.write(&worse, 3).await;
    eventually("two are parked", async || story.parked().await.len() == 2).await;
    rebuild::<Coins>(database, &story.log, |_| {}).await.unwrap();
    set_broken(&worse, false);
    lot::retry_all(pool, None, None).await.unwrap();
    eventually("they are handled", async || versions(pool, &worse).await == [1, 2, 3]).await;
    assert!(story.parked().await.is_empty());

    // Nothing was written meanwhile: place and checkpoint are the same, only the parking lot is another.
    let back = roll_back::<Coins>(database).await.unwrap();
    assert_eq!(back.from, back.to);
    assert_eq!(versions(pool, &worse).await, [1]);
    let states: Vec<_> = story.parked().await.into_iter().map(|row| row.state).collect();
    assert_eq!(states, ["cause", "behind"]);
    story.append(&worse, 3).await;
    eventually("what comes later waits behind it", async || story.parked().await.len() == 3).await;
    lot::retry_all(pool, None, Some("coins_v1")).await.unwrap();
    eventually("everything is there, in order", async || versions(pool, &worse).await == [1, 2, 3, 4]).await;
    let fold = verify::<Coins>(database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty() && fold.parked == 0, "{fold:?}");
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lot_is_read_page_by_page_and_released_as_a_whole() {
    let story = begin().await;
    let streams: Vec<StreamName> = (0..3).map(|_| fresh_stream("till")).collect();
    for stream in &streams {
        set_broken(stream, true);
        story.write(stream, 4).await;
    }
    eventually("nine are parked", async || story.parked().await.len() == 9).await;
    let pool = story.servers.database.pool();
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let wanted = lot::Wanted { after: after.as_deref(), ..lot::Wanted::default() };
        let page = lot::list(pool, wanted, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        seen.extend(page.into_iter().map(|row| row.position.unwrap()));
    }
    assert!(seen.len() == 9 && seen.is_sorted(), "{seen:?}");
    let other = lot::Wanted { consumer: Some("runs_v1"), ..lot::Wanted::default() };
    assert!(lot::list(pool, other, 10).await.unwrap().is_empty());
    assert_eq!(lot::retry_all(pool, None, Some("runs_v1")).await.unwrap(), 0);

    // Released while nobody runs the consumer, it is handled by the next one who does.
    story.stop.cancel();
    for stream in &streams {
        set_broken(stream, false);
    }
    assert_eq!(lot::retry_all(pool, Some(&story.tenant), None).await.unwrap(), 9);
    let stop = CancellationToken::new();
    let (database, lease) = (story.servers.database.clone(), Lease::permanent("coins"));
    let options = consume::Options::default();
    tokio::spawn(projections::run::<Coins>(database, lease, Arc::clone(&story.log), options, stop.clone()));
    for stream in &streams {
        eventually("it is handled in order", async || versions(pool, stream).await == [1, 2, 3, 4]).await;
    }
    eventually("the lot is empty", async || story.parked().await.is_empty()).await;
    stop.cancel();
}
