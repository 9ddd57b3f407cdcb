//! Every port's suite, on JetStream and Postgres.

use std::sync::Arc;

use kernel::Position;
use nats::JetStreamLog;
use projections::commits::{Commits, PgCommitIndex};
use projections::{PgEffects, run, wait_until};
use runtime::contract::{effects, executing, fresh_stream, index, log};
use runtime::{CommitIndex, Log, consume};
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
    tokio::spawn(run::<Commits>(servers.database.clone(), Arc::clone(&log), consume::Options::default(), stop.clone()));
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
    tokio::spawn(run::<Commits>(servers.database.clone(), log, consume::Options::default(), stop.clone()));
    let within = std::time::Duration::from_secs(20);
    wait_until::<Commits>(servers.database.pool(), position, within).await.expect("the index catches up");
    index::suite(&PgCommitIndex::new(&servers.database, identity), &stream, "known", position).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_effects() {
    let servers = Servers::fresh().await.unwrap();
    effects::suite(&PgEffects::new(servers.database)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_has_one_owner_and_the_next_one_takes_over() {
    use runtime::EffectStore;
    let servers = Servers::fresh().await.unwrap();
    let (one, other) = (PgEffects::new(servers.database.clone()), PgEffects::new(servers.database.clone()));
    assert!(one.begin("shared", "log_1").await.unwrap().is_some());
    assert!(other.begin("shared", "log_1").await.unwrap().is_none(), "two owners at once");
    drop(one);
    stories::eventually("the other one becomes owner", async || {
        other.begin("shared", "log_1").await.unwrap().is_some()
    })
    .await;
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
    let follow = |stop: &CancellationToken| {
        tokio::spawn(run::<Commits>(
            servers.database.clone(),
            Arc::clone(&log),
            consume::Options::default(),
            stop.clone(),
        ))
    };
    let within = std::time::Duration::from_secs(20);
    let stop = CancellationToken::new();
    let following = follow(&stop);
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
    let following = follow(&stop);
    let waited = wait_until::<Commits>(servers.database.pool(), newest, std::time::Duration::from_millis(700)).await;
    assert!(waited.is_err(), "commits of the new log were skipped or mixed with the old one's rows");
    stop.cancel();
    following.await.unwrap();
}
