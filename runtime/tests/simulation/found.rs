//! What the simulation has found, each as a small story: a seed tells another history after the next change, a story stays.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use kernel::{Position, StreamName};
use runtime::consume::{self, Begin, HandleError, Handler, Released};
use runtime::contract::executing::ask;
use runtime::contract::log::commit;
use runtime::contract::{Till, fresh_stream};
use runtime::lease::Lease;
use runtime::memory::{MemoryIndex, MemoryLog};
use runtime::{
    Append, AppendError, Commands, Executor, Filter, Freshness, Log, LogError, Options, Page, Parked, Reader, Recorded,
    Registry,
};
use tokio_util::sync::CancellationToken;

/// A log that fails in one way, when told to.
#[derive(Default)]
struct Faulty {
    inner: MemoryLog,
    /// Takes the next append, and loses its answer.
    loses_reply: AtomicBool,
    /// Cannot read what stands at a position.
    reads_fail: AtomicBool,
    /// Replicas have nothing after this position; 0 means that they have everything.
    replicas_end: AtomicU32,
    /// Hands out these positions first, in one go, whatever the log has.
    hands_out: Mutex<Vec<u64>>,
    /// Refuses so many appends because of another one, which cannot be read yet.
    in_flight: AtomicU32,
}

#[async_trait]
impl Log for Faulty {
    async fn append(&self, commit: Append) -> Result<Position, AppendError> {
        if self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(AppendError::Conflict);
        }
        let position = self.inner.append(commit).await?;
        if self.loses_reply.swap(false, Ordering::Relaxed) {
            self.reads_fail.store(true, Ordering::Relaxed);
            return Err(AppendError::Ambiguous("no answer in time".to_owned()));
        }
        Ok(position)
    }

    async fn read_stream(&self, stream: &StreamName, after: Position, fresh: Freshness) -> Result<Page, LogError> {
        let mut page = self.inner.read_stream(stream, after, fresh).await?;
        let end = u64::from(self.replicas_end.load(Ordering::Relaxed));
        if fresh == Freshness::Any && end > 0 {
            let before = page.commits.len();
            page.commits.retain(|recorded| recorded.position.sequence() <= end);
            page.more &= page.commits.len() == before;
        }
        Ok(page)
    }

    async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        if self.reads_fail.load(Ordering::Relaxed) {
            return Err(LogError { attempt: "read a commit", reason: "the network is down".to_owned() });
        }
        self.inner.at(position).await
    }

    async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError> {
        let mut first = Vec::new();
        let hands_out = std::mem::take(&mut *self.hands_out.lock().unwrap());
        for position in hands_out {
            first.extend(self.inner.at(Position::at(position)).await?.map(Ok));
        }
        let reader = self.inner.read(after, filter).await?;
        if first.is_empty() {
            return Ok(reader);
        }
        let broken = futures::stream::iter(first).chain(futures::stream::pending());
        Ok(Reader { waiting: reader.waiting, commits: broken.boxed() })
    }

    async fn identity(&self) -> Result<String, LogError> {
        self.inner.identity().await
    }

    async fn head(&self) -> Result<Position, LogError> {
        self.inner.head().await
    }
}

fn executor(log: &Arc<Faulty>, options: Options) -> Executor {
    let index = Arc::new(MemoryIndex::default());
    Executor::start(Arc::clone(log) as Arc<dyn Log>, index, Registry::new().with::<Till>(), options)
}

/// Seed 735: memory had forgotten the id, the index did not reach it yet, and the replica that was searched for it was
/// behind. The command was decided once more.
#[tokio::test]
async fn an_old_command_id_is_found_although_the_replica_is_behind() {
    let log = Arc::new(Faulty::default());
    let executor = executor(&log, Options { ids_per_stream: 3, ..Options::default() });
    let stream = fresh_stream("till");
    for n in 0..4 {
        executor.execute(ask(&stream, "take", 1, Some(&format!("m{n}")))).await.unwrap();
    }
    let first = executor.execute(ask(&stream, "take", 1, Some("first"))).await.unwrap();
    for n in 0..9 {
        executor.execute(ask(&stream, "take", 1, Some(&format!("n{n}")))).await.unwrap();
    }
    for end in [0, 9, 4] {
        log.replicas_end.store(end, Ordering::Relaxed);
        let again = executor.execute(ask(&stream, "take", 1, Some("first"))).await.unwrap();
        assert!(again.repeated, "the replica ended at {end}");
        assert_eq!(again.position, first.position);
    }
}

/// Seed 116: the append was taken and its answer lost; the commit was found again, but not read. The caller was told that
/// nothing had been written.
#[tokio::test]
async fn nobody_is_told_that_nothing_was_written_when_it_may_have_been() {
    let log = Arc::new(Faulty::default());
    let executor = executor(&log, Options::default());
    let stream = fresh_stream("till");
    log.loses_reply.store(true, Ordering::Relaxed);
    let problem = executor.execute(ask(&stream, "take", 1, Some("a"))).await.unwrap_err();
    assert_eq!(problem.code, "outcome_unknown", "{problem}");
    log.reads_fail.store(false, Ordering::Relaxed);
    assert_eq!(executor.execute(ask(&stream, "take", 1, Some("a"))).await.unwrap().version, 1);
}

/// Notes what it is handed.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<u64>>>);

#[async_trait]
impl Handler for Notes {
    fn name(&self) -> String {
        "notes".to_owned()
    }

    async fn begin(&mut self, _: &str, _: u64) -> Result<Begin, HandleError> {
        let checkpoint = self.0.lock().unwrap().last().copied().map_or(Position::START, Position::at);
        Ok(Begin { checkpoint, ..Begin::default() })
    }

    async fn handle(
        &mut self,
        _: Position,
        _: Position,
        commits: &[&Recorded],
        _: &[Parked],
    ) -> Result<(), HandleError> {
        self.0.lock().unwrap().extend(commits.iter().map(|commit| commit.position.sequence()));
        Ok(())
    }

    async fn released(&mut self) -> Result<Vec<Released>, HandleError> {
        Ok(Vec::new())
    }

    async fn handle_released(&mut self, _: &Recorded) -> Result<(), HandleError> {
        Ok(())
    }

    async fn park_again(&mut self, _: Position, _: &str) -> Result<(), HandleError> {
        Ok(())
    }
}

/// Seed 4: continuity was checked where a batch began, and not inside it.
#[tokio::test(start_paused = true)]
async fn a_hole_or_a_repeat_inside_a_batch_is_noticed() {
    for broken in [vec![1, 2, 4, 5], vec![1, 2, 2, 3], vec![1, 3, 2]] {
        let log = Arc::new(Faulty { hands_out: Mutex::new(broken.clone()), ..Faulty::default() });
        let stream = fresh_stream("till");
        let mut last = Position::START;
        for n in 0..5 {
            last = log.inner.append(commit(&stream, &format!("c{n}"), n, last)).await.unwrap();
        }
        let (notes, stop) = (Notes::default(), CancellationToken::new());
        let (lease, options) = (Lease::permanent("projection/notes"), consume::Options::default());
        let running = tokio::spawn(consume::run(notes.clone(), lease, log as Arc<dyn Log>, options, stop.clone()));
        let all = async {
            while notes.0.lock().unwrap().len() < 5 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("the walk goes on after a broken read");
        assert_eq!(*notes.0.lock().unwrap(), [1, 2, 3, 4, 5], "the log handed out {broken:?}");
        stop.cancel();
        running.await.unwrap();
    }
}

/// The newest message was lost on the way, and nothing came after it that would have shown the hole.
#[tokio::test(start_paused = true)]
async fn a_walk_that_has_lost_the_newest_message_notices_by_itself() {
    let log = Arc::new(Faulty { hands_out: Mutex::new(vec![1, 2, 3, 4]), ..Faulty::default() });
    let stream = fresh_stream("till");
    let mut last = Position::START;
    for n in 0..5 {
        last = log.inner.append(commit(&stream, &format!("c{n}"), n, last)).await.unwrap();
    }
    let notes = Notes::default();
    let (lease, options, stop) =
        (Lease::permanent("projection/notes"), consume::Options::default(), CancellationToken::new());
    let running = tokio::spawn(consume::run(notes.clone(), lease, log as Arc<dyn Log>, options, stop.clone()));
    let all = async {
        while notes.0.lock().unwrap().len() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it asks the log whether there is more");
    assert_eq!(*notes.0.lock().unwrap(), [1, 2, 3, 4, 5]);
    stop.cancel();
    running.await.unwrap();
}

/// Three replicas refuse a commit while another one under the same guard is in flight, and until that one has landed there
/// is nothing to be read. A command that lost its tries to one slow append was told that others keep changing its stream.
#[tokio::test(start_paused = true)]
async fn a_conflict_with_what_cannot_be_read_yet_is_waited_for() {
    let log = Arc::new(Faulty::default());
    let options = Options { conflict_retries: 2, ..Options::default() };
    let (executor, stream, began) =
        (executor(&log, options.clone()), fresh_stream("till"), tokio::time::Instant::now());
    log.in_flight.store(20, Ordering::Relaxed);
    let answer = executor.execute(ask(&stream, "take", 1, Some("a"))).await.unwrap();
    assert_eq!((answer.version, answer.repeated), (1, false));
    assert!(began.elapsed() >= Duration::from_millis(100), "twenty tries without a pause: {:?}", began.elapsed());
    // It may never land, and the caller does not wait for ever.
    log.in_flight.store(u32::MAX, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    let problem = executor.execute(ask(&stream, "take", 1, Some("b"))).await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_ref()), (409, "contended"), "{problem}");
    assert!(began.elapsed() <= options.deadline, "{:?}", began.elapsed());
    let tries = u32::MAX - log.in_flight.load(Ordering::Relaxed);
    assert!(tries < 200, "{tries} tries in {:?}", began.elapsed());
}
