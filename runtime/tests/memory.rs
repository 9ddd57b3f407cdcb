//! The memory adapters pass every suite; and the machines that only need ports are tested on them.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests report by panicking")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kernel::{Decider, Envelope, FactError, Position, Problem};
use runtime::consume::{self, Begin, HandleError, Handler, Released};
use runtime::contract::executing::{ask, executor};
use runtime::contract::{
    Ledger, Till, TillCommand, TillEvent, effects, executing, fresh_stream, index, leases, log, snapshots,
};
use runtime::lease::{self, Claim, Lease, LeaseStore, Turn};
use runtime::memory::{MemoryEffects, MemoryIndex, MemoryLeases, MemoryLog, MemorySnapshots};
use runtime::react::{self, Reactor, Verdict};
use runtime::route::Router;
use runtime::{
    Answer, Commands, CommitIndex, EffectRow, EffectState, EffectStore, Log, Parked, Plan, Recorded, Request,
    StoreError, forward,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_log() {
    log::suite(Arc::new(MemoryLog::new())).await;
}

#[tokio::test]
async fn the_record_of_effects() {
    effects::suite(&MemoryEffects::default()).await;
}

#[tokio::test]
async fn the_record_of_leases() {
    leases::suite(&MemoryLeases::default()).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_hangs_knows_that_its_lease_is_over_before_anybody_else_has_it() {
    let store = Arc::new(MemoryLeases::default());
    let begin = |instance: &str| {
        let stop = CancellationToken::new();
        let options = lease::Options { lasting: Duration::from_secs(5) };
        let wants = vec!["consumer/one".to_owned()];
        let (leases, keeping) = lease::keep(Arc::clone(&store) as _, instance.into(), wants, options, stop.clone());
        (leases.lease("consumer/one"), tokio::spawn(keeping), stop)
    };
    let (mut first, keeper, _stop) = begin("first");
    let term = first.begun().await;
    let (mut second, _, stop) = begin("second");
    // The keeper of the first stands still, as the whole process would.
    keeper.abort();
    tokio::select! {
        biased;
        () = first.ended(&term) => {}
        _ = second.begun() => panic!("two instances hold one lease"),
    }
    assert_eq!(first.term(), None);
    let next = second.begun().await;
    assert!(next.epoch > term.epoch, "the store could not tell the two apart");
    // Said good-bye, a lease is free at once; a dead holder's, too.
    stop.cancel();
    let (mut third, keeper, _stop) = begin("third");
    let before = tokio::time::Instant::now();
    let term = third.begun().await;
    assert!(before.elapsed() <= Duration::from_secs(1) && term.epoch > next.epoch);
    keeper.abort();
    store.bury("third");
    let (mut fourth, _, _stop) = begin("fourth");
    fourth.begun().await;
    assert!(before.elapsed() <= Duration::from_secs(2), "nobody has to wait for the dead");
}

/// A record of leases that answers only when it is told to.
struct Slow {
    inner: MemoryLeases,
    go: tokio::sync::Semaphore,
}

#[async_trait]
impl LeaseStore for Slow {
    async fn turn(&self, claim: &Claim) -> Result<Turn, StoreError> {
        self.go.acquire().await.unwrap().forget();
        // A store that is generous: it prolongs what nobody else has wanted meanwhile.
        self.inner.turn(&Claim { lasting: Duration::from_secs(3_600), ..claim.clone() }).await
    }

    async fn leave(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_and_is_prolonged_after_all_is_another_term() {
    let store = Arc::new(Slow { inner: MemoryLeases::default(), go: tokio::sync::Semaphore::new(1) });
    let options = lease::Options { lasting: Duration::from_secs(5) };
    let wants = vec!["consumer/one".to_owned()];
    let (leases, keeping) =
        lease::keep(Arc::clone(&store) as _, "one".into(), wants, options, CancellationToken::new());
    tokio::spawn(keeping);
    let mut lease = leases.lease("consumer/one");
    let first = lease.begun().await;
    // Nobody looks while it runs out, as nobody does in a process that is busy or paused.
    tokio::time::sleep(Duration::from_millis(6_500)).await;
    store.go.add_permits(1);
    let second = lease.begun().await;
    assert_eq!(first.epoch, second.epoch, "the store gave it to nobody else");
    assert!(lease.lasts(&second) && !lease.lasts(&first), "what was begun before is taken for ours");
    let ended = tokio::time::timeout(Duration::from_secs(1), lease.ended(&first)).await;
    ended.expect("whoever waits for its end hears of it");
}

/// The other instances, of which none answers.
struct Silent {
    perhaps_taken: bool,
}

#[async_trait]
impl forward::Peers for Silent {
    async fn ask(&self, _: &str, _: &Request) -> Result<Result<Answer, Problem>, forward::Unreachable> {
        Err(forward::Unreachable { reason: "it does not answer".to_owned(), perhaps_taken: self.perhaps_taken })
    }
}

#[tokio::test]
async fn a_no_is_not_certain_while_another_instance_may_be_at_it() {
    let store = Arc::new(MemoryLeases::default());
    let keep = |instance: &str, wants: Vec<String>| {
        let options = lease::Options { lasting: Duration::from_secs(5) };
        let (leases, keeping) =
            lease::keep(Arc::clone(&store) as _, instance.into(), wants, options, CancellationToken::new());
        tokio::spawn(keeping);
        leases
    };
    let _holder = keep("holder", forward::shard_leases().collect());
    let leases = keep("me", Vec::new());
    eventually("the holder is known", async || leases.holder(&forward::shard_lease(0)).is_some()).await;
    let (log, index): (Arc<dyn Log>, Arc<dyn CommitIndex>) =
        (Arc::new(MemoryLog::new()), Arc::new(MemoryIndex::default()));
    let stream = fresh_stream("till");
    for (perhaps_taken, code) in [(false, "too_few"), (true, "outcome_unknown")] {
        let routed = forward::Routed::new(executor(&log, &index), leases.clone(), Arc::new(Silent { perhaps_taken }));
        // What is written here is certain, whoever else tries; what is refused here may be written there.
        assert!(routed.execute(ask(&stream, "take", 5, None)).await.is_ok());
        let problem = routed.execute(ask(&stream, "give", 50, Some("g"))).await.unwrap_err();
        assert_eq!(problem.code, code);
    }
}

#[tokio::test]
async fn the_index() {
    let memory = Arc::new(MemoryLog::new());
    let stream = fresh_stream("till");
    let position = memory.append(log::commit(&stream, "known", 0, Position::START)).await.unwrap();
    let found = MemoryIndex::default();
    found.catch_up(&*memory).await.unwrap();
    index::suite(&found, &stream, "known", position).await;
}

#[tokio::test]
async fn executing_with_an_index_that_lags() {
    executing::suite(Arc::new(MemoryLog::new()), Arc::new(MemoryIndex::default())).await;
}

#[tokio::test]
async fn the_snapshots() {
    snapshots::suite(&MemorySnapshots::default()).await;
}

#[tokio::test]
async fn executing_with_snapshots() {
    let store = Arc::new(MemorySnapshots::default());
    executing::suite_with_snapshots(Arc::new(MemoryLog::new()), Arc::new(MemoryIndex::default()), store.clone()).await;
    assert!(!store.is_empty(), "the suite ran without any");
}

#[tokio::test]
async fn using_snapshots() {
    let store = Arc::new(MemorySnapshots::default());
    snapshots::using(Arc::new(MemoryLog::new()), Arc::new(MemoryIndex::default()), store).await;
}

/// A log that takes nothing until it is told to.
struct Stuck {
    inner: MemoryLog,
    go: tokio::sync::Semaphore,
    reads: AtomicUsize,
}

impl Stuck {
    fn new() -> Self {
        Self { inner: MemoryLog::new(), go: tokio::sync::Semaphore::new(0), reads: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Log for Stuck {
    async fn append(&self, commit: runtime::Append) -> Result<Position, runtime::AppendError> {
        let _go = self.go.acquire().await;
        self.inner.append(commit).await
    }

    async fn read_stream(
        &self,
        stream: &kernel::StreamName,
        after: Position,
        fresh: runtime::Freshness,
    ) -> Result<runtime::Page, runtime::LogError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        self.inner.read_stream(stream, after, fresh).await
    }

    async fn at(&self, position: Position) -> Result<Option<Recorded>, runtime::LogError> {
        self.inner.at(position).await
    }

    async fn read(&self, after: Position, filter: &runtime::Filter) -> Result<runtime::Reader, runtime::LogError> {
        self.inner.read(after, filter).await
    }

    async fn identity(&self) -> Result<String, runtime::LogError> {
        self.inner.identity().await
    }

    async fn head(&self) -> Result<Position, runtime::LogError> {
        self.inner.head().await
    }
}

#[tokio::test]
async fn a_full_shard_answers_at_once_and_says_when_to_come_back() {
    let stuck = Arc::new(Stuck::new());
    let log: Arc<dyn Log> = Arc::clone(&stuck) as Arc<dyn Log>;
    let options = runtime::Options { queue_per_shard: 2, ..runtime::Options::default() };
    let registry = runtime::Registry::new().with::<Till>();
    let executor = runtime::Executor::start(log, Arc::new(MemoryIndex::default()), registry, options);
    let stream = fresh_stream("till");
    // Two are being worked on, two wait at the door, and there is no room for the rest.
    let asks: Vec<_> = (0..10)
        .map(|n| {
            let (executor, request) = (executor.clone(), ask(&stream, "take", 1, Some(&format!("b{n}"))));
            tokio::spawn(async move { executor.execute(request).await })
        })
        .collect();
    eventually("somebody was told", async || asks.iter().any(tokio::task::JoinHandle::is_finished)).await;
    stuck.go.add_permits(1);
    let (mut accepted, mut busy) = (0, 0);
    for ask in asks {
        match ask.await.unwrap() {
            Ok(_) => accepted += 1,
            Err(problem) => {
                assert_eq!((problem.status, problem.code.as_ref()), (429, "busy"));
                assert!(problem.retry_after_ms.is_some());
                busy += 1;
            }
        }
    }
    assert!(accepted >= 2 && busy >= 1, "{accepted} accepted, {busy} told to come back");
    // Whoever was told comes back with the same id, and it counts once.
    for n in 0..10 {
        executor.execute(ask(&stream, "take", 1, Some(&format!("b{n}")))).await.unwrap();
    }
    assert_eq!(executor.inspect::<Till>(&stream).await.unwrap().state, 10);
}

#[tokio::test]
async fn many_who_look_at_one_stream_at_once_share_a_look() {
    let stuck = Arc::new(Stuck::new());
    stuck.go.add_permits(1_000);
    let log: Arc<dyn Log> = Arc::clone(&stuck) as Arc<dyn Log>;
    let registry = runtime::Registry::new().with::<Till>();
    let options = runtime::Options::default();
    let executor = runtime::Executor::start(log, Arc::new(MemoryIndex::default()), registry, options);
    let stream = fresh_stream("till");
    executor.execute(ask(&stream, "take", 7, None)).await.unwrap();
    let before = stuck.reads.load(Ordering::Relaxed);
    let looks = futures::future::join_all((0..100).map(|_| executor.inspect::<Till>(&stream))).await;
    assert!(looks.iter().all(|found| found.as_ref().is_ok_and(|found| found.state == 7 && found.version == 1)));
    let reads = stuck.reads.load(Ordering::Relaxed) - before;
    assert!(reads <= 5, "a hundred looks at the same time cost {reads} reads, one after the other");
}

/// A till whose state is as large as its coins are many.
struct Pile;

impl Decider for Pile {
    const CATEGORY: &'static str = "pile";
    type Command = TillCommand;
    type Event = TillEvent;
    type State = Vec<String>;
    type Rejection = kernel::NoRejection;

    fn decide(_: &Vec<String>, command: TillCommand) -> Result<Vec<TillEvent>, kernel::NoRejection> {
        Ok(match command {
            TillCommand::Take(coins) => vec![TillEvent::Taken(coins)],
            _ => Vec::new(),
        })
    }

    fn evolve(mut coins: Vec<String>, event: &TillEvent) -> Vec<String> {
        if let TillEvent::Taken(more) = event {
            coins.extend((0..more.coins).map(|n| n.to_string()));
        }
        coins
    }
}

#[tokio::test]
async fn writers_remember_by_the_weight_of_states_not_of_histories() {
    let counting = Arc::new(Stuck::new());
    counting.go.add_permits(10_000);
    let log: Arc<dyn Log> = Arc::clone(&counting) as Arc<dyn Log>;
    let registry = runtime::Registry::new().with::<Till>().with::<Pile>().with_snapshots::<Pile>();
    let options = runtime::Options { cache_bytes_per_shard: 32 * 1024, ..runtime::Options::default() };
    let executor = runtime::Executor::start(log, Arc::new(MemoryIndex::default()), registry, options);
    let take = async |stream: &kernel::StreamName, coins: u64| {
        let before = counting.reads.load(Ordering::Relaxed);
        executor.execute(ask(stream, "take", coins, None)).await.unwrap();
        counting.reads.load(Ordering::Relaxed) - before
    };
    // A hundred kilobytes of history and more, which come to one number.
    let long = fresh_stream("till");
    for _ in 0..300 {
        take(&long, 1).await;
    }
    let (light, heavy) = (fresh_stream("pile"), fresh_stream("pile"));
    for (pile, coins) in [(&light, 10), (&heavy, 10_000)] {
        take(pile, coins).await;
    }
    assert_eq!(take(&long, 1).await, 0, "a long history was too much, however small the state");
    assert_eq!(take(&light, 1).await, 0, "a small pile has no room");
    assert_ne!(take(&heavy, 1).await, 0, "a short history was remembered, however large the state");
}

#[tokio::test]
async fn a_log_that_does_not_answer_is_told_apart_from_one_that_refuses() {
    let stuck = Arc::new(Stuck::new());
    let log: Arc<dyn Log> = Arc::clone(&stuck) as Arc<dyn Log>;
    let options = runtime::Options { deadline: Duration::from_millis(30), ..runtime::Options::default() };
    let registry = runtime::Registry::new().with::<Till>();
    let executor = runtime::Executor::start(log, Arc::new(MemoryIndex::default()), registry, options);
    let stream = fresh_stream("till");
    let problem = executor.execute(ask(&stream, "take", 1, Some("late"))).await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_ref()), (503, "outcome_unknown"));
    assert!(problem.detail.contains("same command id"), "{problem}");
    // It was written in the end, and the same id finds it.
    stuck.go.add_permits(1);
    eventually("the answer is known", async || {
        executor.execute(ask(&stream, "take", 1, Some("late"))).await.is_ok_and(|answer| answer.repeated)
    })
    .await;
}

#[tokio::test]
async fn a_message_that_no_writer_wrote_spoils_no_history() {
    let memory = Arc::new(MemoryLog::new());
    let (log, index) = (Arc::clone(&memory) as Arc<dyn Log>, Arc::new(MemoryIndex::default()) as Arc<dyn CommitIndex>);
    let (stream, other) = (fresh_stream("till"), fresh_stream("till"));
    let first = executor(&log, &index);
    first.execute(ask(&stream, "take", 3, Some("a"))).await.unwrap();
    let copied = log.at(Position::at(1)).await.unwrap().unwrap().payload;
    memory.append_foreign(&stream, bytes::Bytes::from_static(b"{\"stream\":\"COMMANDS\",\"seq\":1}"));
    memory.append_foreign(&other, copied.clone());
    memory.append(runtime::Append { payload: copied, ..log::commit(&other, "a", 0, Position::at(3)) }).await.unwrap();
    for executor in [first, executor(&log, &index)] {
        let version = executor.inspect::<Till>(&stream).await.unwrap().version;
        let answer = executor.execute(ask(&stream, "take", 1, None)).await.unwrap();
        assert_eq!(answer.version, version + 1);
        assert!(executor.execute(ask(&stream, "take", 3, Some("a"))).await.unwrap().repeated);
        assert!(!executor.execute(ask(&other, "take", 1, None)).await.unwrap().repeated);
    }
    let seen = executor(&log, &index).inspect::<Till>(&other).await.unwrap();
    assert_eq!((seen.state, seen.version), (2, 2), "another stream's commit was counted here");
}

#[tokio::test]
async fn a_history_that_cannot_be_read_refuses_every_command_and_says_where() {
    let memory = Arc::new(MemoryLog::new());
    let stream = fresh_stream("till");
    memory.append_raw(&stream, b"this is not a commit");
    let executor =
        executor(&(Arc::clone(&memory) as Arc<dyn Log>), &(Arc::new(MemoryIndex::default()) as Arc<dyn CommitIndex>));
    let problem = executor.execute(ask(&stream, "take", 1, None)).await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_ref()), (500, "unreadable_history"));
    assert!(problem.detail.contains("p1-1"), "{problem}");
    executor.execute(ask(&fresh_stream("till"), "take", 1, None)).await.expect("other streams are not concerned");
}

/// A consumer that notes what it handles and cannot stand certain positions.
#[derive(Clone, Default)]
struct Picky {
    seen: Arc<Mutex<Vec<u64>>>,
    parked: Arc<Mutex<Vec<(u64, bool)>>>,
    poison: Arc<Mutex<HashSet<u64>>>,
    released: Arc<Mutex<Vec<Released>>>,
    stumbles: Arc<AtomicUsize>,
    handed_over: Arc<AtomicUsize>,
}

#[async_trait]
impl Handler for Picky {
    fn name(&self) -> String {
        "picky".into()
    }

    async fn begin(&mut self, _: &str, _: u64) -> Result<Begin, HandleError> {
        Ok(Begin::default())
    }

    async fn handle(
        &mut self,
        _: Position,
        _: Position,
        commits: &[&Recorded],
        parked: &[Parked],
    ) -> Result<(), HandleError> {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
        if self.stumbles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
            return Err(HandleError::Transient("the database is away".into()));
        }
        for commit in commits {
            let at = commit.position.sequence();
            assert!(at != 13, "thirteen is a panic");
            if self.poison.lock().unwrap().contains(&at) {
                return Err(HandleError::Poison("cannot stand it".into()));
            }
        }
        self.seen.lock().unwrap().extend(commits.iter().map(|commit| commit.position.sequence()));
        let state = |parked: &Parked| (parked.position.sequence(), parked.state == runtime::ParkedState::Cause);
        self.parked.lock().unwrap().extend(parked.iter().map(state));
        Ok(())
    }

    async fn released(&mut self) -> Result<Vec<Released>, HandleError> {
        Ok(std::mem::take(&mut *self.released.lock().unwrap()))
    }

    async fn handle_released(&mut self, commit: &Recorded) -> Result<(), HandleError> {
        self.seen.lock().unwrap().push(commit.position.sequence());
        Ok(())
    }

    async fn park_again(&mut self, _: Position, _: &str) -> Result<(), HandleError> {
        Ok(())
    }
}

#[tokio::test]
async fn poison_is_parked_with_what_follows_it_and_the_rest_goes_on() {
    let memory = Arc::new(MemoryLog::new());
    let streams = [fresh_stream("till"), fresh_stream("till"), fresh_stream("till")];
    let mut last = [Position::START; 3];
    // Positions 1, 4, 7 … belong to the first stream, 2, 5, 8 … to the second, 3, 6, 9 … to the third.
    for n in 0..30_usize {
        let commit = log::commit(&streams[n % 3], &format!("c{n}"), n as u64 / 3, last[n % 3]);
        last[n % 3] = memory.append(commit).await.unwrap();
    }
    let picky = Picky::default();
    picky.poison.lock().unwrap().insert(5);
    picky.stumbles.store(2, Ordering::Relaxed);
    let stop = CancellationToken::new();
    let options = consume::Options { heartbeat: Duration::from_millis(5), ..consume::Options::default() };
    let running =
        tokio::spawn(consume::run(picky.clone(), Lease::permanent("picky"), memory.clone(), options, stop.clone()));

    // 13 panics (first stream), 5 is poison (second stream); the third is whole.
    eventually("everything is handled or parked", async || {
        picky.seen.lock().unwrap().len() + picky.parked.lock().unwrap().len() == 30
    })
    .await;
    let seen = picky.seen.lock().unwrap().clone();
    assert_eq!(seen, [1, 2, 3, 4, 6, 7, 9, 10, 12, 15, 18, 21, 24, 27, 30]);
    let causes: Vec<u64> = picky.parked.lock().unwrap().iter().filter(|(_, cause)| *cause).map(|(at, _)| *at).collect();
    assert_eq!(causes, [5, 13]);

    // After the fix the second stream is released, in order, and new commits flow again.
    picky.poison.lock().unwrap().clear();
    let positions: Vec<Position> = (0..9).map(|n| Position::at(5 + 3 * n)).collect();
    let subject = streams[1].to_string();
    picky.released.lock().unwrap().push(Released { subject, positions });
    eventually("the released stream is handled", async || picky.seen.lock().unwrap().len() == 15 + 9).await;
    assert_eq!(picky.seen.lock().unwrap()[15..], [5, 8, 11, 14, 17, 20, 23, 26, 29]);
    memory.append(log::commit(&streams[1], "new", 10, last[1])).await.unwrap();
    eventually("the stream flows again", async || picky.seen.lock().unwrap().last() == Some(&31)).await;
    stop.cancel();
    running.await.unwrap();
}

/// A reactor that gives change: for every coin taken it reports `give`.
struct Change {
    performed: Arc<Mutex<Vec<String>>>,
    failures: Arc<AtomicUsize>,
}

#[async_trait]
impl Reactor for Change {
    const NAME: &'static str = "change";
    const CATEGORIES: &'static [&'static str] = &["till"];

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        let taken = event.type_name == "till.taken";
        let name = event.id.to_string();
        Ok(taken.then(|| Plan::Do { name, due: None, request: json!({}) }).into_iter().collect())
    }

    async fn perform(&self, effect: &EffectRow) -> Verdict {
        self.performed.lock().unwrap().push(effect.idempotency_key());
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
            return Verdict::Retry { reason: "the bank is closed".into(), after: Some(Duration::from_millis(5)) };
        }
        let report = react::Report { to: effect.stream.clone(), command: "give", body: json!({ "coins": 1 }) };
        Verdict::Done { note: "paid".into(), report: Some(report) }
    }
}

#[tokio::test]
async fn an_effect_is_recorded_done_and_reported_once_however_often_its_event_comes() {
    let memory: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let index: Arc<dyn CommitIndex> = Arc::new(MemoryIndex::default());
    let commands = executor(&memory, &index);
    let stream = fresh_stream("till");
    for n in 0..5 {
        commands.execute(ask(&stream, "take", 2, Some(&format!("t{n}")))).await.unwrap();
    }
    let performed = Arc::new(Mutex::new(Vec::new()));
    // The second store has never heard of the first: the whole log comes again, as after losing the database.
    for round in 0..2 {
        let store = Arc::new(MemoryEffects::default());
        let stop = CancellationToken::new();
        let change = Change { performed: Arc::clone(&performed), failures: Arc::new(AtomicUsize::new(2)) };
        let running = tokio::spawn(react::run(
            change,
            Lease::permanent("change"),
            Arc::clone(&memory),
            Arc::clone(&store) as Arc<dyn EffectStore>,
            Arc::new(commands.clone()),
            react::Options::default(),
            stop.clone(),
        ));
        eventually("every effect is done", async || {
            let effects = store.effects("change");
            effects.len() == 5 && effects.iter().all(|(_, state)| *state == EffectState::Done)
        })
        .await;
        stop.cancel();
        running.await.unwrap();
        assert_eq!(commands.inspect::<Till>(&stream).await.unwrap().state, 5, "round {round}: change was given twice");
    }
    let performed = performed.lock().unwrap();
    assert_eq!(performed.len(), 2 * (5 + 2));
    assert_eq!(performed.iter().collect::<HashSet<_>>().len(), 5, "a key differs between tries");
}

#[tokio::test]
async fn a_process_hears_of_other_streams_and_counts_each_event_once() {
    let memory: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let index: Arc<dyn CommitIndex> = Arc::new(MemoryIndex::default());
    let commands = executor(&memory, &index);
    let till = fresh_stream("till");
    commands.execute(ask(&till, "take", 10, None)).await.unwrap();
    for _ in 0..3 {
        commands.execute(ask(&till, "give", 2, None)).await.unwrap();
    }
    let ledger = kernel::StreamName { category: kernel::Category::new("ledger").unwrap(), ..till };
    for _ in 0..2 {
        let store: Arc<dyn EffectStore> = Arc::new(MemoryEffects::default());
        let stop = CancellationToken::new();
        let sink: Arc<dyn Commands> = Arc::new(commands.clone());
        let (memory, router) = (Arc::clone(&memory), Router::<Ledger>::new());
        let (lease, options) = (Lease::permanent("ledger"), react::Options::default());
        let running = tokio::spawn(react::run(router, lease, memory, Arc::clone(&store), sink, options, stop.clone()));
        eventually("the ledger has heard of every coin", async || {
            let pending = store.pending("contract-ledger").await.unwrap();
            pending.is_empty() && commands.inspect::<Ledger>(&ledger).await.unwrap().state == 6
        })
        .await;
        stop.cancel();
        running.await.unwrap();
    }
    assert_eq!(commands.inspect::<Ledger>(&ledger).await.unwrap().version, 3);
}

#[tokio::test]
async fn what_a_poison_costs_grows_with_the_logarithm_of_its_batch() {
    let memory = Arc::new(MemoryLog::new());
    for n in 0..1_000 {
        memory.append(log::commit(&fresh_stream("till"), &format!("c{n}"), 0, Position::START)).await.unwrap();
    }
    let picky = Picky::default();
    picky.poison.lock().unwrap().extend([700, 13]);
    let stop = CancellationToken::new();
    let (lease, options) = (Lease::permanent("picky"), consume::Options::default());
    let running = tokio::spawn(consume::run(picky.clone(), lease, memory.clone(), options, stop.clone()));
    eventually("all are handled or parked", async || {
        picky.seen.lock().unwrap().len() == 998 && picky.parked.lock().unwrap().len() == 2
    })
    .await;
    // Halving finds one of a thousand in ten steps of two; alone it is tried three times, then parked.
    let (batch, alone, parked) = (1, 3, 1);
    let most = batch + 2 * (2 * 10 + alone + parked);
    let cost = picky.handed_over.load(Ordering::Relaxed);
    assert!(cost <= most, "{cost} transactions, at most {most} expected");
    stop.cancel();
    running.await.unwrap();
}
