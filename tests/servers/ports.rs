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
    let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&servers.database));
    executing::suite(log, index).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn executing_while_the_index_stands_still() {
    let servers = Servers::with_topology().await.unwrap();
    let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&servers.database));
    executing::suite(Arc::new(JetStreamLog::new(servers.nats)), index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let stream = fresh_stream("till");
    let position = log.append(log::commit(&stream, "known", 0, Position::START)).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(run::<Commits>(servers.database.clone(), log, consume::Options::default(), stop.clone()));
    let within = std::time::Duration::from_secs(20);
    wait_until::<Commits>(servers.database.pool(), position, within).await.expect("the index catches up");
    index::suite(&PgCommitIndex::new(&servers.database), &stream, "known", position).await;
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
    assert!(one.begin("shared").await.unwrap().is_some());
    assert!(other.begin("shared").await.unwrap().is_none(), "two owners at once");
    drop(one);
    stories::eventually("the other one becomes owner", async || other.begin("shared").await.unwrap().is_some()).await;
}
