//! Each kind of poison, on real servers: what is wrong is set aside, everything else goes on, and after the fix nothing is
//! missing, doubled or out of order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kernel::{Envelope, FactError, Position, StreamName};
use nats::JetStreamLog;
use projections::commits::PgCommitIndex;
use projections::{CommitFacts, PgEffects, ProjectError, Projector, lot, rebuild, roll_back, verify};
use runtime::contract::executing::executor;
use runtime::contract::{fresh_stream, log};
use runtime::lease::Lease;
use runtime::react::{self, Reactor, Verdict};
use runtime::{CommitIndex, EffectRow, Log, Plan, consume};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use stories::{Servers, eventually};
use tokio_util::sync::CancellationToken;

/// What is wrong with a stream from its second commit on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Panics,
    BreaksAConstraint,
    CannotBeRead,
    TakesLong,
    TargetIsAway,
    TargetRefuses,
}

/// Statics, because projectors have no state; every test has streams of its own.
static WRONG: Mutex<BTreeMap<String, Wrong>> = Mutex::new(BTreeMap::new());
static DONE: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

fn break_down(stream: &StreamName, how: Wrong) {
    WRONG.lock().unwrap().insert(stream.id.to_string(), how);
}

fn mend(stream: &StreamName) {
    WRONG.lock().unwrap().remove(stream.id.as_str());
}

fn wrong(stream: &str, version: u64) -> Option<Wrong> {
    WRONG.lock().unwrap().get(stream).copied().filter(|_| version >= 2)
}

/// Every version of every till, once.
struct Tally;

#[async_trait]
impl Projector for Tally {
    const NAME: &'static str = "tally";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = &["till"];
    const TABLES: &'static [&'static str] = &["tally"];

    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        for facts in commits {
            let mut version = facts.commit.version_after() as i64;
            match wrong(facts.stream.id.as_str(), version as u64) {
                Some(Wrong::Panics) => panic!("the till fell down"),
                Some(Wrong::CannotBeRead) => return Err(FactError::UnknownType("till.burnt".into()).into()),
                Some(Wrong::BreaksAConstraint) => version = -version,
                Some(Wrong::TakesLong) => {
                    sqlx::query("SELECT pg_sleep(0.2)").execute(&mut *tables).await?;
                }
                _ => {}
            }
            let sql = "INSERT INTO tally (till, version) VALUES ($1, $2)";
            sqlx::query(sql).bind(facts.stream.id.as_str()).bind(version).execute(&mut *tables).await?;
        }
        Ok(())
    }
}

/// The order of insertion is kept, and a version that comes twice is refused.
const TALLY: &str = "CREATE SCHEMA tally_v1; CREATE TABLE tally_v1.tally (
    till text NOT NULL, version bigint NOT NULL CONSTRAINT versions_are_positive CHECK (version > 0),
    PRIMARY KEY (till, version))";

async fn versions(pool: &PgPool, stream: &StreamName) -> Vec<i64> {
    let sql = "SELECT version FROM tally_v1.tally WHERE till = $1 ORDER BY ctid";
    sqlx::query_scalar(sql).bind(stream.id.as_str()).fetch_all(pool).await.unwrap()
}

/// Rings once per event of a till.
struct Bell;

#[async_trait]
impl Reactor for Bell {
    const NAME: &'static str = "bell";
    const CATEGORIES: &'static [&'static str] = &["till"];

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        match wrong(&event.subject, event.streamversion) {
            Some(Wrong::Panics) => panic!("no plan"),
            Some(Wrong::CannotBeRead) => return Err(FactError::UnknownType("till.burnt".into())),
            _ => {}
        }
        Ok(vec![Plan::Do { name: event.streamversion.to_string(), due: None, request: json!({}) }])
    }

    async fn perform(&self, effect: &EffectRow) -> Verdict {
        let version = effect.name.parse().unwrap();
        match wrong(effect.stream.id.as_str(), version) {
            Some(Wrong::TargetIsAway) => Verdict::Retry { reason: "nobody answers".into(), after: None },
            Some(Wrong::TargetRefuses) => Verdict::Park { reason: "it says never".into() },
            _ => {
                *DONE.lock().unwrap().entry(format!("{}/{version}", effect.stream.id)).or_default() += 1;
                Verdict::Done { note: "rung".into(), report: None }
            }
        }
    }
}

fn rung(stream: &StreamName) -> Vec<u32> {
    let (done, id) = (DONE.lock().unwrap(), format!("{}/", stream.id));
    done.iter().filter(|(key, _)| key.starts_with(&id)).map(|(_, times)| *times).collect()
}

struct Story {
    servers: Servers,
    log: Arc<dyn Log>,
    stop: CancellationToken,
}

async fn begin() -> Story {
    let servers = Servers::with_topology().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(TALLY)).execute(servers.database.pool()).await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    Story { servers, log, stop: CancellationToken::new() }
}

impl Story {
    /// Streams in turn, so that every batch has something of each.
    async fn write(&self, streams: &[&StreamName], commits: u64) {
        let mut last = vec![Position::START; streams.len()];
        for version in 0..commits {
            for (stream, last) in streams.iter().zip(&mut last) {
                *last = self.log.append(log::commit(stream, &format!("v{version}"), version, *last)).await.unwrap();
            }
        }
    }

    fn tally(&self) {
        let (database, lease, options) = (self.servers.database.clone(), Lease::permanent("tally"), options());
        let stop = self.stop.clone();
        tokio::spawn(projections::run::<Tally>(database, lease, Arc::clone(&self.log), options, stop));
    }

    async fn bell(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let identity = self.log.identity().await.unwrap();
        let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&self.servers.database, identity));
        let commands = Arc::new(executor(&self.log, &index));
        let store = Arc::new(PgEffects::new(self.servers.database.clone()));
        let longest_retry = Duration::from_millis(20);
        let options = react::Options { longest_retry, consume: options(), ..react::Options::default() };
        let (lease, log) = (Lease::permanent("bell"), Arc::clone(&self.log));
        tokio::spawn(react::run(Bell, lease, log, store, commands, options, stop.clone()))
    }

    async fn parked(&self) -> Vec<lot::ParkedRow> {
        lot::list(self.servers.database.pool(), lot::Wanted::default(), 100).await.unwrap()
    }

    async fn effects(&self) -> Vec<(String, i32, String)> {
        let sql = "SELECT state, attempts, xmin::text FROM airstream.effects ORDER BY stream_id, name";
        sqlx::query_as(sql).fetch_all(self.servers.database.pool()).await.unwrap()
    }
}

fn options() -> consume::Options {
    consume::Options { heartbeat: Duration::from_millis(50), ..consume::Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_poisons_of_one_batch_are_each_found_named_and_handled_in_order_after_the_fix() {
    let story = begin().await;
    let streams: Vec<StreamName> = (0..12).map(|_| fresh_stream("till")).collect();
    let all: Vec<&StreamName> = streams.iter().collect();
    for (stream, how) in streams.iter().zip([Wrong::Panics, Wrong::BreaksAConstraint, Wrong::CannotBeRead]) {
        break_down(stream, how);
    }
    // In the log before the projection begins: so it is one batch.
    story.write(&all, 4).await;
    story.tally();
    let pool = story.servers.database.pool();
    eventually("everything else is there", async || versions(pool, &streams[11]).await == [1, 2, 3, 4]).await;
    eventually("what is wrong is parked", async || story.parked().await.len() == 3 * 3).await;
    for stream in &streams[3..] {
        assert_eq!(versions(pool, stream).await, [1, 2, 3, 4]);
    }
    let causes: Vec<_> = story.parked().await.into_iter().filter(|row| row.state == "cause").collect();
    for (said, stream) in ["the till fell down", "versions_are_positive", "till.burnt"].iter().zip(&streams) {
        let found = causes.iter().find(|row| row.subject.ends_with(stream.id.as_str())).unwrap();
        assert!(found.reason.contains(said), "{found:?}");
        assert_eq!(versions(pool, stream).await, [1]);
    }
    // Both folds leave out what is parked, and say so.
    let fold = verify::<Tally>(&story.servers.database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty() && fold.parked == 9, "{fold:?}");

    // Not mended but released: it is parked again. One that is mended is not held up by the others.
    mend(&streams[1]);
    assert_eq!(lot::retry_all(pool, None, Some("tally_v1")).await.unwrap(), 9);
    eventually("the mended one is there", async || versions(pool, &streams[1]).await == [1, 2, 3, 4]).await;
    eventually("the others were tried again", async || {
        let causes: Vec<_> = story.parked().await.into_iter().filter(|row| row.state == "cause").collect();
        causes.len() == 2 && causes.iter().all(|row| row.tries == 2)
    })
    .await;
    mend(&streams[0]);
    mend(&streams[2]);
    lot::retry_all(pool, None, None).await.unwrap();
    eventually("nothing is parked any more", async || story.parked().await.is_empty()).await;
    for stream in &streams {
        assert_eq!(versions(pool, stream).await, [1, 2, 3, 4]);
    }
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_names_the_commit_that_it_cannot_read_and_leaves_the_live_rows_alone() {
    let story = begin().await;
    let (good, bad) = (fresh_stream("till"), fresh_stream("till"));
    story.write(&[&good, &bad], 3).await;
    story.tally();
    let (pool, database) = (story.servers.database.pool(), &story.servers.database);
    eventually("everything is there", async || versions(pool, &bad).await == [1, 2, 3]).await;
    // What the live projection could read once, the mended code cannot any more.
    for (how, said) in [(Wrong::Panics, "panicked"), (Wrong::BreaksAConstraint, "versions_are_positive")] {
        break_down(&bad, how);
        let error = rebuild::<Tally>(database, &story.log, |_| {}).await.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("p1-4") && error.contains(bad.id.as_str()), "{error}");
    }
    mend(&bad);
    assert_eq!(versions(pool, &bad).await, [1, 2, 3]);
    let fold = verify::<Tally>(database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty() && fold.rows == 6, "{fold:?}");
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_statements_neither_parks_nor_stops_what_takes_longer() {
    let story = begin().await;
    let pool = story.servers.database.pool();
    let limit =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''50ms''', current_database()); END $$";
    sqlx::raw_sql(limit).execute(pool).await.unwrap();
    let stream = fresh_stream("till");
    break_down(&stream, Wrong::TakesLong);
    story.write(&[&stream], 3).await;
    story.tally();
    eventually("it is there", async || versions(pool, &stream).await == [1, 2, 3]).await;
    assert!(story.parked().await.is_empty());
    story.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_fails_is_parked_and_after_the_fix_its_effects_are_done_once() {
    let story = begin().await;
    let streams = [fresh_stream("till"), fresh_stream("till"), fresh_stream("till")];
    break_down(&streams[0], Wrong::Panics);
    break_down(&streams[1], Wrong::CannotBeRead);
    story.write(&streams.each_ref(), 3).await;
    let running = story.bell(&story.stop).await;
    eventually("the third is done", async || rung(&streams[2]) == [1, 1, 1]).await;
    eventually("two and two are parked", async || story.parked().await.len() == 4).await;
    assert_eq!((rung(&streams[0]), rung(&streams[1])), (vec![1], vec![1]));
    mend(&streams[0]);
    mend(&streams[1]);
    assert_eq!(lot::retry_all(story.servers.database.pool(), None, Some("bell")).await.unwrap(), 4);
    for stream in &streams {
        eventually("every effect is done once", async || rung(stream) == [1, 1, 1]).await;
    }
    assert!(story.parked().await.is_empty());
    story.stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_is_tried_again_for_as_long_as_it_takes_and_holds_nobody_up() {
    let story = begin().await;
    let streams = [fresh_stream("till"), fresh_stream("till"), fresh_stream("till")];
    let [away, refusing, good] = &streams;
    break_down(away, Wrong::TargetIsAway);
    break_down(refusing, Wrong::TargetRefuses);
    let stop = CancellationToken::new();
    let running = story.bell(&stop).await;
    story.write(&streams.each_ref(), 2).await;
    eventually("the others are done", async || rung(good) == [1, 1] && rung(away) == [1] && rung(refusing) == [1])
        .await;
    let tries = async || {
        let sql = "SELECT attempts FROM airstream.effects WHERE stream_id = $1 AND name = '2' AND state = 'scheduled'";
        let found: Option<i32> =
            sqlx::query_scalar(sql).bind(away.id.as_str()).fetch_optional(story.servers.database.pool()).await.unwrap();
        found.expect("an effect whose target is away stays scheduled")
    };
    eventually("it was tried again and again", async || tries().await >= 8).await;
    // Also across a restart.
    stop.cancel();
    running.await.unwrap();
    let before = tries().await;
    let running = story.bell(&story.stop).await;
    eventually("it is tried on", async || tries().await > before).await;
    // What only a person can help with is in the lot; what is away is not.
    let parked = story.parked().await;
    assert!(parked.len() == 1 && parked[0].kind == "effect" && parked[0].reason.contains("never"), "{parked:?}");
    mend(away);
    mend(refusing);
    eventually("it is done once it answers", async || rung(away) == [1, 1]).await;
    assert_eq!(lot::retry(story.servers.database.pool(), None, &parked[0].id).await.unwrap(), 1);
    eventually("and the other one after a word", async || rung(refusing) == [1, 1]).await;
    eventually("all is settled", async || story.effects().await.iter().all(|(state, ..)| state == "done")).await;
    story.stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_and_the_way_back_do_nothing_to_the_world() {
    let story = begin().await;
    let stream = fresh_stream("till");
    story.write(&[&stream], 5).await;
    story.tally();
    let running = story.bell(&story.stop).await;
    let (pool, database) = (story.servers.database.pool(), &story.servers.database);
    eventually("rows are there", async || versions(pool, &stream).await == [1, 2, 3, 4, 5]).await;
    eventually("effects are settled", async || {
        let effects = story.effects().await;
        effects.len() == 5 && effects.iter().all(|(state, ..)| state == "done")
    })
    .await;
    let before = story.effects().await;
    rebuild::<Tally>(database, &story.log, |_| {}).await.unwrap();
    roll_back::<Tally>(database).await.unwrap();
    verify::<Tally>(database, &story.log, |_| {}).await.unwrap();
    // Whatever comes afterwards comes after anything that those had set off.
    let next = fresh_stream("till");
    story.write(&[&next], 1).await;
    eventually("the next one is rung", async || rung(&next) == [1]).await;
    assert_eq!(rung(&stream), [1, 1, 1, 1, 1]);
    let after = story.effects().await;
    assert!(after.len() == 6 && before.iter().all(|row| after.contains(row)), "{before:?} {after:?}");
    story.stop.cancel();
    running.await.unwrap();
}
