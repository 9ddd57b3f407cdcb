//! Streams are created, compared, and never changed behind an operator's back.

use async_nats::jetstream::stream::Config;
use nats::topology::{self, EVENTS, Severity};
use stories::Servers;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_everything_as_it_should_be() {
    let servers = Servers::fresh().await.unwrap();
    assert!(topology::ensure(&servers.nats, 1).await.unwrap().is_empty());
    assert!(topology::ensure(&servers.nats, 1).await.unwrap().is_empty());
    assert!(topology::inspect(&servers.nats, 1).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_could_forget_stops_the_start_and_stays_as_it_is() {
    let servers = Servers::fresh().await.unwrap();
    let wanted = topology::streams(1).remove(0);
    let forgetful = Config { max_age: std::time::Duration::from_secs(3_600), ..wanted };
    servers.nats.jetstream().create_stream(forgetful).await.unwrap();
    let error = topology::ensure(&servers.nats, 1).await.expect_err("an unsafe stream was accepted");
    assert!(error.to_string().contains("max_age"), "{error}");
    let found = servers.nats.jetstream().get_stream(EVENTS).await.unwrap();
    assert_eq!(found.cached_info().config.max_age.as_secs(), 3_600, "somebody's setting was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_harmless_difference_is_told_and_accepted() {
    let servers = Servers::fresh().await.unwrap();
    let wanted = topology::streams(1).remove(0);
    let other = Config { duplicate_window: std::time::Duration::from_secs(60), ..wanted };
    servers.nats.jetstream().create_stream(other).await.unwrap();
    let drift = topology::ensure(&servers.nats, 1).await.unwrap();
    assert_eq!(
        drift.iter().map(|drift| (drift.setting, drift.severity)).collect::<Vec<_>>(),
        [("duplicate_window", Severity::Notable)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_takes_no_delete_no_purge_and_no_roll_up() {
    let servers = Servers::with_topology().await.unwrap();
    let jetstream = servers.nats.jetstream();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Rollup", "all");
    let rolled = jetstream.publish_with_headers("ev.0.t.c.i", headers, "x".into()).await.unwrap().await;
    assert!(rolled.is_err(), "a roll-up header was accepted");
    jetstream.publish("ev.0.t.c.i", "x".into()).await.unwrap().await.unwrap();
    let stream = jetstream.get_stream(EVENTS).await.unwrap();
    assert!(stream.delete_message(1).await.is_err(), "a commit could be deleted");
    assert!(stream.purge().await.is_err(), "the log could be purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_refuses_and_says_so() {
    use runtime::contract::executing::{ask, executor};
    use runtime::{Commands, CommitIndex, Log};
    use std::sync::Arc;
    let servers = Servers::with_topology().await.unwrap();
    let full = Config { max_messages: 1, ..topology::streams(1).remove(0) };
    servers.nats.jetstream().update_stream(full).await.unwrap();
    let log: Arc<dyn Log> = Arc::new(nats::JetStreamLog::new(servers.nats.clone()));
    let index: Arc<dyn CommitIndex> = Arc::new(runtime::memory::MemoryIndex::default());
    let executor = executor(&log, &index);
    let till = runtime::contract::fresh_stream("till");
    executor.execute(ask(&till, "take", 1, None)).await.unwrap();
    let problem = executor.execute(ask(&till, "take", 1, None)).await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_ref()), (507, "log_refused"), "{problem}");
    assert!(servers.nats.trouble().is_some(), "readyz would not tell");
}
