//! The contract of command execution, on any log and any index: what callers are promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::join_all;
use kernel::{CommandId, Position, PrincipalId, Problem, StreamName};
use serde_json::json;

use super::small_pages::SmallPages;
use super::stale::a_stale_memory_does_not_refuse_what_was_accepted;
use super::{Ledger, Till, fresh_stream};
use crate::{
    Answer, Append, AppendError, Commands, CommitIndex, Executor, Filter, Freshness, Log, LogError, Options, Page,
    Reader, Recorded, Registry, Request, SnapshotCache, Snapshots,
};

/// An executor of the sample domain.
#[must_use]
pub fn executor(log: &Arc<dyn Log>, index: &Arc<dyn CommitIndex>) -> Executor {
    executor_with_snapshots(log, index, None)
}

/// An executor of the sample domain that may keep snapshots of tills.
#[must_use]
pub fn executor_with_snapshots(
    log: &Arc<dyn Log>,
    index: &Arc<dyn CommitIndex>,
    snapshots: Option<SnapshotCache>,
) -> Executor {
    let registry = Registry::new().with::<Till>().with::<Ledger>().with_snapshots::<Till>();
    let (log, index) = (Arc::clone(log), Arc::clone(index));
    Executor::start_with_snapshots(log, index, registry, snapshots, Options::default())
}

/// A command to a till.
#[must_use]
pub fn ask(stream: &StreamName, command: &str, coins: u64, id: Option<&str>) -> Request {
    let body = json!({ "coins": coins }).to_string();
    let request = Request::new(stream.clone(), command, body, PrincipalId::new("ann").unwrap());
    Request { id: id.map(|id| CommandId::new(id).unwrap()), ..request }
}

pub(super) async fn refused(executor: &Executor, request: Request) -> Problem {
    executor.execute(request).await.expect_err("it should have been refused")
}

#[derive(Clone)]
struct World {
    log: Arc<dyn Log>,
    index: Arc<dyn CommitIndex>,
    /// A store, and the identity of the log.
    snapshots: Option<(Arc<dyn Snapshots>, String)>,
}

impl World {
    fn executor(&self) -> Executor {
        let cache = self.snapshots.as_ref().map(|(store, log)| {
            SnapshotCache::new(Arc::clone(store), log.clone(), "the code of this test".to_owned(), 3)
        });
        executor_with_snapshots(&self.log, &self.index, cache)
    }
}

/// Runs the whole suite.
pub async fn suite(log: Arc<dyn Log>, index: Arc<dyn CommitIndex>) {
    run(World { log, index, snapshots: None }).await;
}

/// Runs the whole suite with a snapshot after every third commit.
pub async fn suite_with_snapshots(log: Arc<dyn Log>, index: Arc<dyn CommitIndex>, store: Arc<dyn Snapshots>) {
    let snapshots = Some((store, log.identity().await.unwrap()));
    run(World { log: Arc::new(SmallPages(log)), index, snapshots }).await;
}

async fn run(world: World) {
    the_same_id_gives_the_same_answer_for_ever(&world).await;
    the_same_id_at_once_from_two_writers_is_one_commit(&world).await;
    an_id_used_for_something_else_is_refused(&world).await;
    an_id_is_remembered_beyond_the_recent_commits(&world).await;
    what_a_stream_once_was_can_be_asked(&world).await;
    refusals_say_why(&world).await;
    two_writers_lose_nothing_and_double_nothing(&world).await;
    a_stale_memory_does_not_refuse_what_was_accepted(&world.log, &world.index).await;
    a_lost_reply_is_found_in_the_log(&world).await;
    a_defect_hurts_only_its_caller(&world).await;
    closing_answers_what_was_taken(&world).await;
}

async fn the_same_id_gives_the_same_answer_for_ever(world: &World) {
    let (stream, one) = (fresh_stream("till"), world.executor());
    let first = one.execute(ask(&stream, "take", 5, Some("t1"))).await.unwrap();
    assert_eq!((first.version, first.events.len(), first.repeated), (1, 1, false));
    let again = one.execute(ask(&stream, "take", 5, Some("t1"))).await.unwrap();
    assert!(again.repeated);
    assert_eq!(Answer { repeated: false, ..again }, first, "a repeat was answered differently");
    // After a restart nothing is remembered but the log.
    let other = world.executor();
    let again = other.execute(ask(&stream, "take", 5, Some("t1"))).await.unwrap();
    assert_eq!(Answer { repeated: false, ..again }, first);
    assert_eq!(other.inspect::<Till>(&stream).await.unwrap().state, 5, "a repeat had a second effect");
    // On another stream it is another command.
    assert!(!other.execute(ask(&fresh_stream("till"), "take", 5, Some("t1"))).await.unwrap().repeated);
}

async fn the_same_id_at_once_from_two_writers_is_one_commit(world: &World) {
    // Neither knows of the other: only the log can tell them, and logs tell it in different ways.
    let writers = [world.executor(), world.executor()];
    for round in 0..10 {
        let stream = fresh_stream("till");
        if round % 2 == 1 {
            writers[0].execute(ask(&stream, "take", 1, None)).await.unwrap();
        }
        let asks = writers.iter().map(|writer| writer.execute(ask(&stream, "take", 5, Some("same"))));
        let answers = join_all(asks).await.into_iter().map(|answer| Answer { repeated: false, ..answer.unwrap() });
        let answers: Vec<Answer> = answers.collect();
        assert_eq!(answers[0], answers[1], "two writers answer one command differently");
        let found = writers[1].inspect::<Till>(&stream).await.unwrap();
        assert_eq!((found.state, found.version), (5 + round % 2, 1 + round % 2), "it counted twice");
    }
}

async fn what_a_stream_once_was_can_be_asked(world: &World) {
    let (stream, executor) = (fresh_stream("till"), world.executor());
    for _ in 0..10 {
        executor.execute(ask(&stream, "take", 3, None)).await.unwrap();
    }
    let beyond = |coins| move |state: &u64| (*state > coins).then_some(*state);
    assert_eq!(executor.recall::<Till, _>(&stream, beyond(11)).await.unwrap(), Some(12));
    assert_eq!(executor.recall::<Till, _>(&stream, beyond(29)).await.unwrap(), Some(30), "the newest is history, too");
    assert_eq!(executor.recall::<Till, _>(&stream, beyond(30)).await.unwrap(), None);
    assert_eq!(executor.recall::<Till, _>(&fresh_stream("till"), beyond(0)).await.unwrap(), None);
}

async fn an_id_used_for_something_else_is_refused(world: &World) {
    let (stream, executor) = (fresh_stream("till"), world.executor());
    executor.execute(ask(&stream, "take", 5, Some("x"))).await.unwrap();
    let problem = refused(&executor, ask(&stream, "take", 6, Some("x"))).await;
    assert_eq!((problem.status, problem.code.as_ref()), (422, "command_id_reused"));
}

async fn an_id_is_remembered_beyond_the_recent_commits(world: &World) {
    let (stream, one) = (fresh_stream("till"), world.executor());
    let first = one.execute(ask(&stream, "take", 1, Some("first"))).await.unwrap();
    for n in 0..200 {
        one.execute(ask(&stream, "take", 1, Some(&format!("n{n}")))).await.unwrap();
    }
    for executor in [one, world.executor()] {
        // The index has not necessarily read any of this: then the log decides.
        let again = executor.execute(ask(&stream, "take", 1, Some("first"))).await.unwrap();
        assert_eq!(Answer { repeated: false, ..again }, first);
        assert_eq!(executor.inspect::<Till>(&stream).await.unwrap().state, 201);
    }
}

async fn refusals_say_why(world: &World) {
    let (stream, executor) = (fresh_stream("till"), world.executor());
    let code = |problem: Problem| (problem.status, problem.code.into_owned());
    let few = refused(&executor, ask(&stream, "give", 1, None)).await;
    assert_eq!(few.detail, "Only 0 coins are left.");
    assert_eq!(code(few), (409, "too_few".into()));
    assert_eq!(code(refused(&executor, ask(&stream, "fly", 1, None)).await), (404, "unknown_command".into()));
    assert_eq!(
        code(refused(&executor, ask(&fresh_stream("moon"), "take", 1, None)).await),
        (404, "unknown_category".into())
    );
    assert_eq!(code(refused(&executor, ask(&stream, "audit", 1, None)).await), (403, "internal_command".into()));
    let garbled = Request { body: "{".into(), ..ask(&stream, "take", 1, None) };
    assert_eq!(code(refused(&executor, garbled).await), (400, "malformed".into()));
    let late = Request { expected_version: Some(3), ..ask(&stream, "take", 1, None) };
    assert_eq!(code(refused(&executor, late).await), (409, "version_conflict".into()));
    let huge = Request { body: vec![b' '; 600 * 1024].into(), ..ask(&stream, "take", 1, None) };
    assert_eq!(code(refused(&executor, huge).await), (413, "too_large".into()));
    // Nothing of all that was written, and a refusal may be asked again.
    assert_eq!(executor.inspect::<Till>(&stream).await.unwrap().version, 0);
    executor.execute(ask(&stream, "take", 1, Some("r"))).await.unwrap();
    let nothing = executor.execute(ask(&stream, "look", 0, None)).await.unwrap();
    assert_eq!((nothing.events.len(), nothing.version), (0, 1));
    executor.execute(Request::internal(stream, "audit", "")).await.unwrap();
}

async fn two_writers_lose_nothing_and_double_nothing(world: &World) {
    let stream = fresh_stream("till");
    let writers = [world.executor(), world.executor()];
    let asks = (0..40).map(|n| {
        let (writer, stream) = (&writers[n % 2], &stream);
        async move {
            let id = format!("w{n}");
            loop {
                match writer.execute(ask(stream, "take", 1, Some(&id))).await {
                    Ok(answer) => return answer,
                    Err(problem) => assert_eq!(problem.code, "contended"),
                }
            }
        }
    });
    let mut versions: Vec<u64> = join_all(asks).await.into_iter().map(|answer| answer.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=40).collect::<Vec<_>>(), "versions have holes or doubles");
    // A writer whose memory is stale must not refuse because of it.
    writers[0].execute(ask(&stream, "give", 40, None)).await.unwrap();
    writers[1].execute(ask(&stream, "take", 3, None)).await.unwrap();
    writers[0].execute(ask(&stream, "give", 3, None)).await.unwrap();
    let problem = refused(&writers[1], ask(&stream, "give", 1, None)).await;
    assert_eq!(problem.code, "too_few", "decided on coins that are gone");
}

/// A log whose replies get lost: every second append is written and not confirmed, every third is not even written.
struct Lossy {
    inner: Arc<dyn Log>,
    appends: AtomicUsize,
}

#[async_trait]
impl Log for Lossy {
    async fn append(&self, commit: Append) -> Result<Position, AppendError> {
        let lost = || Err(AppendError::Ambiguous("the reply is lost".to_owned()));
        match self.appends.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => self.inner.append(commit).await,
            1 => self.inner.append(commit).await.and_then(|_| lost()),
            _ => lost(),
        }
    }

    async fn read_stream(&self, stream: &StreamName, after: Position, fresh: Freshness) -> Result<Page, LogError> {
        self.inner.read_stream(stream, after, fresh).await
    }

    async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        self.inner.at(position).await
    }

    async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError> {
        self.inner.read(after, filter).await
    }

    async fn identity(&self) -> Result<String, LogError> {
        self.inner.identity().await
    }

    async fn head(&self) -> Result<Position, LogError> {
        self.inner.head().await
    }
}

async fn a_lost_reply_is_found_in_the_log(world: &World) {
    let lossy: Arc<dyn Log> = Arc::new(Lossy { inner: Arc::clone(&world.log), appends: AtomicUsize::new(0) });
    let (stream, executor) = (fresh_stream("till"), World { log: lossy, ..world.clone() }.executor());
    for n in 0..12_u64 {
        // Without an id of the caller's, too: the executor made one and looks for it.
        let id = format!("l{n}");
        let answer = executor.execute(ask(&stream, "take", 1, (n % 2 == 0).then_some(id.as_str()))).await.unwrap();
        assert_eq!((answer.version, answer.repeated), (n + 1, false));
    }
    assert_eq!(executor.inspect::<Till>(&stream).await.unwrap().state, 12);
}

async fn a_defect_hurts_only_its_caller(world: &World) {
    let (stream, executor) = (fresh_stream("till"), world.executor());
    executor.execute(ask(&stream, "take", 2, None)).await.unwrap();
    let problem = refused(&executor, ask(&stream, "break", 0, None)).await;
    assert_eq!((problem.status, problem.code.as_ref()), (500, "defect"));
    assert_eq!(executor.execute(ask(&stream, "take", 1, None)).await.unwrap().version, 2);
}

async fn closing_answers_what_was_taken(world: &World) {
    let (stream, executor) = (fresh_stream("till"), world.executor());
    let asks: Vec<_> = (0..20)
        .map(|n| {
            let (executor, request) = (executor.clone(), ask(&stream, "take", 1, Some(&format!("c{n}"))));
            tokio::spawn(async move { executor.execute(request).await })
        })
        .collect();
    tokio::task::yield_now().await;
    executor.close().await;
    let mut accepted = 0;
    for ask in asks {
        match ask.await.unwrap() {
            Ok(_) => accepted += 1,
            Err(problem) => assert_eq!(problem.code, "unavailable"),
        }
    }
    let other = world.executor();
    assert_eq!(other.inspect::<Till>(&stream).await.unwrap().version, accepted, "an answer and the log differ");
}
