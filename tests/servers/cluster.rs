//! Three servers, three copies of the log: what holds on one server holds here, also while any one of them is killed or
//! paused. Elections take four to nine seconds; callers are to notice nothing but that.

#![allow(clippy::print_stderr, reason = "how long an election holds callers up is worth seeing")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embedded::{Child, Signal};
use futures::future::join_all;
use kernel::{Position, StreamName};
use nats::{Connection, JetStreamLog, topology};
use runtime::contract::executing::{ask, executor};
use runtime::contract::{executing, fresh_stream, log};
use runtime::memory::MemoryIndex;
use runtime::{Answer, Commands, CommitIndex, Executor, Freshness, Log};
use stories::{Servers, cluster, eventually};
use tokio_util::sync::CancellationToken;

use crate::door;

async fn with_streams(servers: Servers) -> Servers {
    topology::ensure(&servers.nats, 3).await.unwrap();
    servers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_with_three_copies() {
    let servers = with_streams(Servers::in_cluster().await.unwrap()).await;
    assert!(topology::inspect(&servers.nats, 3).await.unwrap().is_empty());
    log::suite(Arc::new(JetStreamLog::new(servers.nats.clone()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executing_with_three_copies() {
    let servers = with_streams(Servers::in_cluster().await.unwrap()).await;
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    executing::suite(log, Arc::new(MemoryIndex::default())).await;
}

/// What happened to callers that ask once and never again.
#[derive(Default)]
struct Heard {
    errors: std::sync::Mutex<Vec<String>>,
    answers: std::sync::Mutex<Vec<Answer>>,
    longest_ms: AtomicU64,
    count: AtomicU64,
}

impl Heard {
    fn note(&self, began: Instant, answer: Result<Answer, String>) {
        let took = began.elapsed().as_millis() as u64;
        self.longest_ms.fetch_max(took, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok(answer) => self.answers.lock().unwrap().push(answer),
            Err(error) => self.errors.lock().unwrap().push(format!("after {took} ms: {error}")),
        }
    }
}

struct Story {
    servers: Servers,
    log: Arc<dyn Log>,
    executor: Executor,
    tills: Arc<Vec<StreamName>>,
    heard: Arc<Heard>,
}

/// Which of the servers a name such as `airstream-4f0c-2` belongs to.
fn peer(server_name: &str) -> Child {
    let number = server_name.rsplit('-').next().and_then(|number| number.parse().ok());
    Child::NatsPeer(number.unwrap_or_else(|| panic!("`{server_name}` is none of ours")))
}

impl Story {
    async fn begin() -> Self {
        let servers = with_streams(Servers::alone_in_cluster().await.unwrap()).await;
        let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
        let index: Arc<dyn CommitIndex> = Arc::new(MemoryIndex::default());
        let executor = executor(&log, &index);
        let tills = Arc::new((0..48).map(|_| fresh_stream("till")).collect());
        Self { servers, log, executor, tills, heard: Arc::default() }
    }

    async fn info(&self) -> Option<async_nats::jetstream::stream::ClusterInfo> {
        let stream = self.servers.nats.jetstream().get_stream(topology::EVENTS).await.ok()?;
        stream.cached_info().cluster.clone()
    }

    async fn leader(&self) -> Option<Child> {
        Some(peer(&self.info().await?.leader?))
    }

    /// All three have everything, and our doors on each are open.
    async fn whole(&self) {
        eventually("the cluster is whole", async || {
            let Some(info) = self.info().await else { return false };
            let current = info.replicas.len() == 2 && info.replicas.iter().all(|replica| replica.current);
            info.leader.is_some() && current && self.servers.nats.doors_are_connected()
        })
        .await;
    }

    fn connected_to(&self) -> Child {
        peer(&self.servers.nats.client().server_info().server_name)
    }

    /// Callers in this process, each on tills of its own, one command after the other.
    fn ask_the_executor(&self, stop: &CancellationToken, begun: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
        let callers = (0..16).map(|caller| {
            let (executor, tills, heard) = (self.executor.clone(), Arc::clone(&self.tills), Arc::clone(&self.heard));
            let (stop, begun) = (stop.clone(), Arc::clone(begun));
            tokio::spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_millis(10));
                for turn in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    pace.tick().await;
                    let till = &tills[(caller + 16 * turn) % tills.len()];
                    let began = Instant::now();
                    // Without an id: nobody could ask again.
                    let answer = executor.execute(ask(till, "take", 1, None)).await;
                    heard.note(began, answer.map_err(|problem| problem.to_string()));
                    begun.store(true, Ordering::Relaxed);
                }
            })
        });
        callers.collect()
    }

    /// Stock clients, each connected to one server that stays.
    async fn ask_the_door(&self, victim: Child, stop: &CancellationToken) -> Vec<tokio::task::JoinHandle<()>> {
        let mut callers = Vec::new();
        for server in cluster().await.unwrap().nats().servers.iter().filter(|server| server.child != victim) {
            let client = door::caller(&server.url, &self.servers.credentials).await;
            for caller in 0..4 {
                let (client, tills, heard) = (client.clone(), Arc::clone(&self.tills), Arc::clone(&self.heard));
                let stop = stop.clone();
                callers.push(tokio::spawn(async move {
                    let mut pace = tokio::time::interval(Duration::from_millis(20));
                    for turn in caller.. {
                        if stop.is_cancelled() {
                            return;
                        }
                        pace.tick().await;
                        let began = Instant::now();
                        heard.note(began, door::ask(&client, &tills[turn * 7 % tills.len()]).await);
                    }
                }));
            }
        }
        callers
    }

    /// Something happens to one of the servers while callers ask. They must not hear of it.
    async fn under_load(&self, what: &str, victim: Child, happen: impl AsyncFnOnce()) {
        let (stop, begun) = (CancellationToken::new(), Arc::default());
        self.heard.longest_ms.store(0, Ordering::Relaxed);
        let mut callers = self.ask_the_door(victim, &stop).await;
        callers.extend(self.ask_the_executor(&stop, &begun));
        eventually("callers are answered", async || begun.load(Ordering::Relaxed)).await;
        let (led, connected) = (self.leader().await == Some(victim), self.connected_to() == victim);
        happen().await;
        eventually("there is a leader", async || self.leader().await.is_some()).await;
        let before = self.heard.count.load(Ordering::Relaxed);
        eventually("commands are answered again", async || self.heard.count.load(Ordering::Relaxed) > before + 500)
            .await;
        stop.cancel();
        join_all(callers).await;
        let longest = self.heard.longest_ms.load(Ordering::Relaxed);
        eprintln!("{what} {victim} (led the log: {led}, was ours: {connected}): longest answer {longest} ms");
        let errors = self.heard.errors.lock().unwrap().clone();
        assert!(errors.is_empty(), "{what} {victim} was seen by callers: {errors:#?}");
    }

    async fn kill(&self, victim: Child) {
        self.whole().await;
        let stack = cluster().await.unwrap().stack();
        let restarts = stack.restarts(victim);
        self.under_load("killed", victim, async || assert!(stack.kill_child(victim, Signal::SIGKILL).await)).await;
        eventually("it is back", async || stack.restarts(victim) > restarts).await;
    }

    async fn pause(&self, victim: Child) {
        self.whole().await;
        let stack = cluster().await.unwrap().stack();
        self.under_load("paused", victim, async || assert!(stack.kill_child(victim, Signal::SIGSTOP).await)).await;
        // It wakes up as one that believes to lead.
        self.under_load("woken", victim, async || assert!(stack.kill_child(victim, Signal::SIGCONT).await)).await;
    }

    /// Every answer is in the log, once, at the version it said; and nothing else is.
    async fn check(&self) {
        let answers = self.heard.answers.lock().unwrap().clone();
        let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for answer in &answers {
            told.entry(answer.stream.clone()).or_default().push(answer.version);
        }
        for till in &*self.tills {
            let (mut versions, mut after) = (Vec::new(), Position::START);
            loop {
                let page = self.log.read_stream(till, after, Freshness::Leader).await.unwrap();
                for read in &page.commits {
                    versions.push(read.commit().unwrap().version_after());
                    after = read.position;
                }
                if !page.more {
                    break;
                }
            }
            assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>(), "{till} has a hole");
            let mut told = told.remove(&till.to_string()).unwrap_or_default();
            told.sort_unstable();
            assert_eq!(told, versions, "what {till} has, and what its callers were told, differ");
        }
        eprintln!("{} commands were answered, all of them once", answers.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_may_be_killed_or_paused_and_callers_that_ask_once_see_no_error() {
    let story = Story::begin().await;
    let stop = CancellationToken::new();
    let serving = door::open(&story.servers.nats, &story.executor, &stop).await;
    let identity = story.log.identity().await.unwrap();
    // Whichever leads, whichever we are connected to, and whichever is left.
    let leader = story.leader().await.unwrap();
    story.kill(leader).await;
    let connected = story.connected_to();
    story.kill(connected).await;
    let all = [1, 2, 3].map(Child::NatsPeer);
    for left in all.into_iter().filter(|one| ![leader, connected].contains(one)) {
        story.kill(left).await;
    }
    story.pause(story.leader().await.unwrap()).await;
    story.pause(story.connected_to()).await;
    story.whole().await;
    story.check().await;
    assert_eq!(story.log.identity().await.unwrap(), identity, "a log changes its identity with its leader");
    stop.cancel();
    serving.await.unwrap();
    log::suite(Arc::clone(&story.log)).await;
    executing::suite(Arc::clone(&story.log), Arc::new(MemoryIndex::default())).await;
}

/// The reason for all the care: one server says that the guard is stale, three say that they have seen the id.
#[tokio::test(flavor = "multi_thread")]
async fn one_server_and_three_answer_a_repeat_differently_and_our_callers_cannot_tell() {
    let alone = Servers::with_topology().await.unwrap();
    let cluster = with_streams(Servers::in_cluster().await.unwrap()).await;
    let raw = async |connection: &Connection| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "same");
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        let send = || connection.client().request_with_headers("ev.0.raw", headers.clone(), "x".into());
        send().await.unwrap();
        let repeat = send().await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&repeat.payload).unwrap();
        (answer["error"]["err_code"].as_u64(), answer["duplicate"].as_bool().unwrap_or(false))
    };
    assert_eq!(raw(&alone.nats).await, (Some(10071), false));
    assert_eq!(raw(&cluster.nats).await, (None, true));
    for servers in [alone, cluster] {
        let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
        let index: Arc<dyn CommitIndex> = Arc::new(MemoryIndex::default());
        let till = fresh_stream("till");
        let (one, other) = (executor(&log, &index), executor(&log, &index));
        // The second one knows the stream as it was before, so it appends once more, with the same id and a stale guard.
        other.inspect::<runtime::contract::Till>(&till).await.unwrap();
        let first = one.execute(ask(&till, "take", 2, Some("same"))).await.unwrap();
        let again = other.execute(ask(&till, "take", 2, Some("same"))).await.unwrap();
        assert_eq!(Answer { repeated: false, ..again }, first);
        assert_eq!(one.inspect::<runtime::contract::Till>(&till).await.unwrap().version, 1);
    }
}
