//! Every port's suite, on JetStream and Postgres.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kernel::Position;
use nats::JetStreamLog;
use projections::commits::{Commits, PgCommitIndex};
use projections::identity::PgKeyring;
use projections::{Database, PgEffects, PgLeases, Projection, run, wait_until};
use runtime::consume::{HandleError, Handler};
use runtime::contract::{effects, executing, fresh_stream, index, leases, log};
use runtime::lease::{Claim, Lease, LeaseStore, Turn};
use runtime::{CommitIndex, Log, StoreError, consume};
use stories::Servers;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn the_log() {
    let servers = Servers::with_topology().await.unwrap();
    log::suite(Arc::new(JetStreamLog::new(servers.nats))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executing_while_the_index_reads_along() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let stop = CancellationToken::new();
    follow(&servers, &log, &stop);
    let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&servers.database, log.identity().await.unwrap()));
    executing::suite(log, index).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn executing_while_the_index_stands_still() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats));
    let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&servers.database, log.identity().await.unwrap()));
    executing::suite(log, index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let stream = fresh_stream("till");
    let position = log.append(log::commit(&stream, "known", 0, Position::START)).await.unwrap();
    let stop = CancellationToken::new();
    let identity = log.identity().await.unwrap();
    follow(&servers, &log, &stop);
    let within = Duration::from_secs(20);
    wait_until::<Commits>(servers.database.pool(), position, within).await.expect("the index catches up");
    index::suite(&PgCommitIndex::new(&servers.database, identity), &stream, "known", position).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_subjects() {
    let servers = Servers::with_topology().await.unwrap();
    vault::contract::suite(&PgKeyring::new(&servers.database)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_effects() {
    let servers = Servers::fresh().await.unwrap();
    effects::suite(&PgEffects::new(servers.database)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_leases() {
    let servers = Servers::fresh().await.unwrap();
    leases::suite(&Instances { database: servers.database, sessions: Mutex::default() }).await;
}

/// Each instance has a session of its own, as each process has.
struct Instances {
    database: Database,
    sessions: Mutex<HashMap<String, Arc<PgLeases>>>,
}

impl Instances {
    fn of(&self, instance: &str) -> Arc<PgLeases> {
        let mut sessions = self.sessions.lock().unwrap();
        Arc::clone(
            sessions.entry(instance.to_owned()).or_insert_with(|| Arc::new(PgLeases::new(self.database.clone()))),
        )
    }
}

#[async_trait]
impl LeaseStore for Instances {
    async fn turn(&self, claim: &Claim) -> Result<Turn, StoreError> {
        self.of(&claim.instance).turn(claim).await
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        self.of(instance).leave(instance).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_leases_of_the_dead() {
    let servers = Servers::fresh().await.unwrap();
    let claim = |instance: &str| Claim {
        instance: instance.to_owned(),
        wants: vec!["reactor/one".to_owned()],
        lasting: Duration::from_secs(3_600),
    };
    let (one, other) = (PgLeases::new(servers.database.clone()), PgLeases::new(servers.database.clone()));
    let before = one.turn(&claim("one")).await.unwrap().held["reactor/one"];
    assert!(other.turn(&claim("other")).await.unwrap().held.is_empty(), "two owners at once");
    // Its connection is gone, as when the process is killed.
    drop(one);
    stories::eventually("the other one becomes owner", async || {
        other.turn(&claim("other")).await.unwrap().held.get("reactor/one").is_some_and(|epoch| *epoch > before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_was_paused_cannot_write_when_another_has_its_lease() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let identity = log.identity().await.unwrap();
    let stream = fresh_stream("till");
    let first = log.append(log::commit(&stream, "x", 0, Position::START)).await.unwrap();
    let recorded = log.at(first).await.unwrap().unwrap();
    let mut paused = Projection::<Commits>::new(servers.database.clone());
    paused.begin(&identity, 1).await.unwrap();
    let mut next = Projection::<Commits>::new(servers.database.clone());
    next.begin(&identity, 2).await.unwrap();
    let refused = paused.handle(Position::START, first, &[&recorded], &[]).await;
    assert!(matches!(&refused, Err(HandleError::Lost(said)) if said.contains("newer lease")), "{refused:?}");
    next.handle(Position::START, first, &[&recorded], &[]).await.expect("the owner can");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_paused_in_the_middle_of_a_transaction_does_not_keep_the_next_owner_waiting() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let identity = log.identity().await.unwrap();
    let mut first = Projection::<Commits>::new(servers.database.clone());
    first.begin(&identity, 1).await.unwrap();
    // What a paused process leaves: a transaction that has the checkpoint and says nothing more.
    let mut paused = servers.database.pool().begin().await.unwrap();
    let hold = "SELECT position FROM airstream.checkpoints WHERE consumer = 'commits_v1' FOR UPDATE";
    sqlx::query(hold).execute(&mut *paused).await.unwrap();
    let mut next = Projection::<Commits>::new(servers.database.clone());
    let begun = tokio::time::timeout(Duration::from_secs(30), next.begin(&identity, 2)).await;
    begun.expect("the next owner waits for one that is paused").unwrap();
}

fn follow(servers: &Servers, log: &Arc<dyn Log>, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let (database, log, lease) = (servers.database.clone(), Arc::clone(log), Lease::permanent("commits"));
    tokio::spawn(run::<Commits>(database, lease, log, consume::Options::default(), stop.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_one_log_is_not_used_on_another() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let before = log.identity().await.unwrap();
    assert_eq!(log.identity().await.unwrap(), before, "a log's identity changes under way");
    let write = async || {
        let stream = fresh_stream("till");
        log.append(log::commit(&stream, "x", 0, Position::START)).await.unwrap()
    };
    let position = write().await;
    let within = Duration::from_secs(20);
    let stop = CancellationToken::new();
    let following = follow(&servers, &log, &stop);
    wait_until::<Commits>(servers.database.pool(), position, within).await.expect("it follows its log");
    stop.cancel();
    following.await.unwrap();

    // The log is lost and made anew while the database is kept; it grows past the old checkpoint.
    servers.nats.jetstream().delete_stream(nats::topology::EVENTS).await.unwrap();
    nats::topology::ensure(&servers.nats, 1).await.unwrap();
    assert_ne!(log.identity().await.unwrap(), before);
    write().await;
    let newest = write().await;
    let stop = CancellationToken::new();
    let following = follow(&servers, &log, &stop);
    let waited = wait_until::<Commits>(servers.database.pool(), newest, Duration::from_millis(700)).await;
    assert!(waited.is_err(), "commits of the new log were skipped or mixed with the old one's rows");
    stop.cancel();
    following.await.unwrap();
}
