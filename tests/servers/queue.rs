//! The queue of commands: once, in order per stream, and refusals are written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway::decider::Inbox as InboxDecider;
use kernel::{PrincipalId, Problem, TenantId};
use nats::{JetStreamLog, WorkQueue, headers, topology};
use projections::commits::{Commits, PgCommitIndex};
use projections::inbox::{self, Inbox};
use rest::{Access, Signed};
use runtime::contract::Till;
use runtime::lease::Lease;
use runtime::{Commands, CommitIndex, Executor, Log, Options, Registry, consume};
use stories::{Servers, eventually};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Knows one tenant, and cannot tell so many times first.
#[derive(Default)]
struct Everybody(AtomicUsize);

#[async_trait]
impl Access for Everybody {
    async fn bearer(&self, _: &str) -> Result<Arc<Signed>, Problem> {
        unreachable!("nobody comes by HTTP")
    }

    async fn knows(&self, tenant: &TenantId) -> Result<bool, Problem> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(Problem::unavailable("The log cannot be read right now.", 1_000)),
            Err(_) => Ok(tenant.as_str() == "t"),
        }
    }

    fn lessened(&self) -> broadcast::Receiver<PrincipalId> {
        broadcast::channel(1).1
    }
}

struct Running {
    servers: Servers,
    executor: Executor,
    stop: CancellationToken,
}

async fn start() -> Running {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&servers.database, log.identity().await.unwrap()));
    let registry = Registry::new().with::<Till>().with::<InboxDecider>();
    let executor = Executor::start(Arc::clone(&log), index, registry, Options::default());
    let stop = CancellationToken::new();
    tokio::spawn(projections::run::<Inbox>(
        servers.database.clone(),
        Lease::permanent("inbox"),
        Arc::clone(&log),
        consume::Options::default(),
        stop.clone(),
    ));
    tokio::spawn(projections::run::<Commits>(
        servers.database.clone(),
        Lease::permanent("commits"),
        log,
        consume::Options::default(),
        stop.clone(),
    ));
    Running { servers, executor, stop }
}

impl Running {
    fn read(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        self.read_with(Everybody::default(), stop)
    }

    fn read_with(&self, access: Everybody, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let queue = WorkQueue::new(self.servers.nats.clone(), topology::COMMANDS);
        let commands: Arc<dyn Commands> = Arc::new(self.executor.clone());
        tokio::spawn(gateway::queue::run(queue, Lease::permanent("queue"), commands, Arc::new(access), stop.clone()))
    }

    async fn put(&self, subject: &str, body: &'static str, id: Option<&str>) {
        let mut map = async_nats::HeaderMap::new();
        if let Some(id) = id {
            map.insert(headers::COMMAND_ID, id);
        }
        let jetstream = self.servers.nats.jetstream();
        jetstream.publish_with_headers(subject.to_owned(), map, body.into()).await.unwrap().await.unwrap();
    }

    async fn left(&self) -> u64 {
        self.servers.nats.jetstream().get_stream(topology::COMMANDS).await.unwrap().cached_info().state.messages
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_while_nobody_read_is_executed_once_and_in_order() {
    let running = start().await;
    for n in 0..60 {
        let till = format!("till-{}", n % 3);
        // In this order the till never owes; in any other it would.
        let (command, body) = if (n / 3) % 2 == 0 { ("take", r#"{"coins":1}"#) } else { ("give", r#"{"coins":1}"#) };
        running.put(&format!("queue.t.p.till.{till}.{command}"), body, (n % 2 == 0).then_some(&format!("q{n}"))).await;
    }
    let stop = CancellationToken::new();
    let reader = running.read(&stop);
    eventually("the queue is empty", async || running.left().await == 0).await;
    stop.cancel();
    reader.await.unwrap();
    for n in 0..3 {
        let till = kernel::StreamName::new("t", "till", &format!("till-{n}")).unwrap();
        let found = running.executor.inspect::<Till>(&till).await.unwrap();
        assert_eq!((found.state, found.version), (0, 20), "till-{n}");
    }
    let refused = inbox::list(running.servers.database.pool(), &TenantId::new("t").unwrap(), None, 10).await.unwrap();
    assert!(refused.is_empty(), "something was executed out of order: {refused:?}");
    running.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_written_down_with_its_reason_and_the_queue_goes_on() {
    let running = start().await;
    let stop = CancellationToken::new();
    let reader = running.read(&stop);
    running.put("queue.t.p.till.empty.give", r#"{"coins":4}"#, Some("give-4")).await;
    running.put("queue.t.p.till.empty.fly", "{}", None).await;
    running.put("queue.t.p.till.empty.take", "{", None).await;
    running.put("queue.t.nonsense", "{}", None).await;
    running.put("queue.stranger.p.till.empty.take", "{}", None).await;
    running.put("queue.t.p.till.empty.take", r#"{"coins":1}"#, None).await;
    let tenant = TenantId::new("t").unwrap();
    eventually("four refusals are listed", async || {
        inbox::list(running.servers.database.pool(), &tenant, None, 10).await.unwrap().len() == 4
    })
    .await;
    let found = inbox::by_command(running.servers.database.pool(), &tenant, "give-4").await.unwrap();
    assert_eq!((found[0].code.as_str(), found[0].detail.as_str()), ("too_few", "Only 0 coins are left."));
    eventually("the queue is empty", async || running.left().await == 0).await;
    let till = kernel::StreamName::new("t", "till", "empty").unwrap();
    assert_eq!(running.executor.inspect::<Till>(&till).await.unwrap().state, 1);
    stop.cancel();
    reader.await.unwrap();
    running.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_while_nobody_can_tell_whether_its_tenant_exists() {
    let running = start().await;
    running.put("queue.t.p.till.kept.take", r#"{"coins":1}"#, None).await;
    running.put("queue.t.p.till.kept.fly", "{}", Some("refused")).await;
    running.put("queue.stranger.p.till.kept.take", "{}", None).await;
    let stop = CancellationToken::new();
    // Enough that each of the three is asked about in vain.
    let reader = running.read_with(Everybody(AtomicUsize::new(9)), &stop);
    eventually("the queue is empty", async || running.left().await == 0).await;
    let till = kernel::StreamName::new("t", "till", "kept").unwrap();
    assert_eq!(running.executor.inspect::<Till>(&till).await.unwrap().state, 1, "a command was dropped");
    let tenant = TenantId::new("t").unwrap();
    eventually("the refusal is listed", async || {
        inbox::by_command(running.servers.database.pool(), &tenant, "refused").await.unwrap().len() == 1
    })
    .await;
    stop.cancel();
    reader.await.unwrap();
    running.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_dies_with_messages_in_hand_loses_none_and_doubles_none() {
    let running = start().await;
    for n in 0..200 {
        running.put(&format!("queue.t.p.till.till-{}.take", n % 7), r#"{"coins":1}"#, None).await;
    }
    // Killed at some point in the middle, twice: aborted without any good-bye, with deliveries unacknowledged.
    for left in [150, 60] {
        let stop = CancellationToken::new();
        let reader = running.read(&stop);
        eventually("some are done", async || running.left().await <= left).await;
        reader.abort();
        let _ = reader.await;
    }
    let stop = CancellationToken::new();
    let reader = running.read(&stop);
    eventually("the queue is empty", async || running.left().await == 0).await;
    let mut sum = 0;
    for n in 0..7 {
        let till = kernel::StreamName::new("t", "till", &format!("till-{n}")).unwrap();
        sum += running.executor.inspect::<Till>(&till).await.unwrap().state;
    }
    assert_eq!(sum, 200);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), reader).await.unwrap().unwrap();
    running.stop.cancel();
}
