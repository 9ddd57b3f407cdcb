//! What a reactor remembers of effects, against what the record of effects says: in memory, effect by effect.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests report by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kernel::{Envelope, FactError, StreamName};
use runtime::consume;
use runtime::contract::executing::{ask, executor};
use runtime::contract::fresh_stream;
use runtime::lease::{self, Claim, Lease, LeaseStore};
use runtime::memory::{MemoryEffects, MemoryIndex, MemoryLeases, MemoryLog};
use runtime::react::{self, Reactor, Verdict};
use runtime::{Commands, CommitIndex, EffectRow, EffectState, EffectStore, Executor, Log, Plan, Settlement, clock};
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// An effect that was begun, until the test says how it ends.
struct Begun {
    row: EffectRow,
    ends: Option<oneshot::Sender<Verdict>>,
}

/// Calls somebody whenever coins are taken; on one stream always under the same name. How each call ends is up to the test.
#[derive(Clone, Default)]
struct Calls {
    outward: bool,
    begun: Arc<Mutex<Vec<Begun>>>,
}

#[async_trait]
impl Reactor for Calls {
    const NAME: &'static str = "calls";
    const CATEGORIES: &'static [&'static str] = &["till"];

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        let request = json!(event.streamversion);
        Ok(vec![Plan::Do { name: "call".to_owned(), due: None, request }])
    }

    fn is_outward(&self, _: &EffectRow) -> bool {
        self.outward
    }

    async fn perform(&self, row: &EffectRow) -> Verdict {
        let (ends, end) = oneshot::channel();
        self.begun.lock().unwrap().push(Begun { row: row.clone(), ends: Some(ends) });
        end.await.unwrap()
    }
}

impl Calls {
    /// What was begun, in order: the stream, the version of the event that called for it, and how often it had been tried.
    fn begun(&self) -> Vec<(String, String, u32)> {
        let begun = self.begun.lock().unwrap();
        begun.iter().map(|Begun { row, .. }| call(&row.stream, &row.request, row.attempts)).collect()
    }

    async fn until_begun(&self, how_many: usize) {
        let enough = async {
            while self.begun.lock().unwrap().len() < how_many {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), enough).await;
        waited.unwrap_or_else(|_| panic!("{how_many} calls should have been begun: {:?}", self.begun()));
    }

    /// Ends the how-manieth call.
    fn end(&self, call: usize, verdict: Verdict) {
        let ends = self.begun.lock().unwrap()[call].ends.take().expect("it ends once");
        ends.send(verdict).expect("it is waiting for its end");
    }
}

fn done() -> Verdict {
    Verdict::Done { note: "said".to_owned(), report: None }
}

fn again() -> Verdict {
    Verdict::Retry { reason: "nobody answered".to_owned(), after: Some(Duration::from_millis(1)) }
}

/// Longer than anything that a test has set going may take. Time is simulated: nobody waits, and nothing is left open.
async fn rest() {
    tokio::time::sleep(Duration::from_secs(30)).await;
}

struct World {
    calls: Calls,
    commands: Executor,
    log: Arc<dyn Log>,
    effects: Arc<MemoryEffects>,
    _simulated: clock::Simulation,
}

impl World {
    /// Runs `calls` under a lease.
    fn of(calls: &Calls, lease: Lease, concurrency: usize) -> Self {
        let simulated = clock::simulated(7);
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
        let index: Arc<dyn CommitIndex> = Arc::new(MemoryIndex::default());
        let (commands, effects) = (executor(&log, &index), Arc::new(MemoryEffects::default()));
        let options = react::Options { concurrency, consume: consume::Options::default(), ..react::Options::default() };
        tokio::spawn(react::run(
            calls.clone(),
            lease,
            Arc::clone(&log),
            Arc::clone(&effects) as Arc<dyn EffectStore>,
            Arc::new(commands.clone()),
            options,
            CancellationToken::new(),
        ));
        Self { calls: calls.clone(), commands, log, effects, _simulated: simulated }
    }

    async fn take(&self, stream: &StreamName) {
        self.commands.execute(ask(stream, "take", 1, None)).await.unwrap();
    }

    /// The one effect of a stream as it is recorded: the version of its event, how often it was put off, and its state.
    fn recorded(&self, stream: &StreamName) -> (String, u32, EffectState) {
        let mut effects = self.effects.effects(Calls::NAME);
        effects.retain(|(row, _)| row.stream == *stream);
        assert_eq!(effects.len(), 1, "{effects:?}");
        let (row, state) = effects.remove(0);
        (row.request.to_string(), row.attempts, state)
    }
}

fn call(stream: &StreamName, version: impl ToString, attempts: u32) -> (String, String, u32) {
    (stream.to_string(), version.to_string(), attempts)
}

#[tokio::test(start_paused = true)]
async fn of_two_calls_in_hand_only_the_newest_is_tried_again() {
    let (calls, stream) = (Calls::default(), fresh_stream("till"));
    let world = World::of(&calls, Lease::permanent("calls"), 4);
    for n in 1..=2 {
        world.take(&stream).await;
        calls.until_begun(n).await;
    }
    calls.end(0, again());
    rest().await;
    calls.end(1, again());
    calls.until_begun(3).await;
    calls.end(2, done());
    rest().await;
    assert_eq!(calls.begun()[2..], [call(&stream, 2, 1)], "the older call came back, or the newer was forgotten");
    assert_eq!(world.recorded(&stream), ("2".to_owned(), 1, EffectState::Done));
}

#[tokio::test(start_paused = true)]
async fn an_older_call_does_not_come_back_after_the_newest_is_done() {
    let (calls, stream) = (Calls::default(), fresh_stream("till"));
    let world = World::of(&calls, Lease::permanent("calls"), 4);
    for n in 1..=2 {
        world.take(&stream).await;
        calls.until_begun(n).await;
    }
    calls.end(1, done());
    rest().await;
    calls.end(0, again());
    rest().await;
    assert_eq!(calls.begun().len(), 2, "{:?}", calls.begun());
    assert_eq!(world.recorded(&stream), ("2".to_owned(), 0, EffectState::Done));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_permit_gives_way_to_a_newer_one() {
    let (calls, other, stream) =
        (Calls { outward: true, ..Calls::default() }, fresh_stream("till"), fresh_stream("till"));
    let world = World::of(&calls, Lease::permanent("calls"), 1);
    world.take(&other).await;
    calls.until_begun(1).await;
    // Due at once, and the only permit is taken.
    world.take(&stream).await;
    rest().await;
    world.take(&stream).await;
    rest().await;
    calls.end(0, done());
    calls.until_begun(2).await;
    calls.end(1, done());
    rest().await;
    assert_eq!(calls.begun(), [call(&other, 1, 0), call(&stream, 2, 0)]);
    assert_eq!(world.recorded(&stream), ("2".to_owned(), 0, EffectState::Done));
}

/// What another instance does with the first call while it is still in hand here.
async fn elsewhere(settled: EffectState, due: Option<Duration>) -> (World, StreamName, Arc<MemoryLeases>) {
    let leases = Arc::new(MemoryLeases::default());
    let wants = vec![react::lease::<Calls>()];
    let options = lease::Options::default();
    let claim = Claim { instance: "other".into(), wants: wants.clone(), lasting: options.lasting };
    let (kept, keeping) = lease::keep(Arc::clone(&leases) as _, "one".into(), wants, options, CancellationToken::new());
    let (calls, stream) = (Calls::default(), fresh_stream("till"));
    let mut lease = kept.lease(&react::lease::<Calls>());
    let world = World::of(&calls, lease.clone(), 4);
    tokio::spawn(keeping);
    world.take(&stream).await;
    calls.until_begun(1).await;

    let before = lease.begun().await;
    leases.bury("one");
    let epoch = leases.turn(&claim).await.unwrap().held[lease.name()];
    world.effects.begin(Calls::NAME, &world.log.identity().await.unwrap(), epoch).await.unwrap();
    let row = world.effects.pending(Calls::NAME).await.unwrap().remove(0);
    let due = due.map(|after| clock::now() + after);
    let note = "by another".to_owned();
    let settlement = Settlement { stream: row.stream, name: row.name, event: row.event, state: settled, due, note };
    world.effects.settle(Calls::NAME, epoch, &[settlement]).await.unwrap();
    lease.ended(&before).await;
    leases.leave("other").await.unwrap();
    let after = lease.begun().await;
    assert!(after.epoch > epoch, "it is ours again, in a newer term");
    rest().await;
    (world, stream, leases)
}

#[tokio::test(start_paused = true)]
async fn what_another_instance_has_parked_meanwhile_is_not_tried_again() {
    let (world, stream, _) = elsewhere(EffectState::Parked, None).await;
    world.calls.end(0, again());
    rest().await;
    assert_eq!(world.calls.begun().len(), 1, "the record has nothing to do: {:?}", world.calls.begun());
    assert_eq!(world.recorded(&stream), ("1".to_owned(), 0, EffectState::Parked));
    world.effects.revive(Calls::NAME, &stream, "call");
    world.calls.until_begun(2).await;
    world.calls.end(1, done());
    rest().await;
    assert_eq!(world.recorded(&stream).2, EffectState::Done);
}

#[tokio::test(start_paused = true)]
async fn what_is_revived_while_an_old_try_is_still_in_hand_is_done_once() {
    let (world, stream, _) = elsewhere(EffectState::Parked, None).await;
    world.effects.revive(Calls::NAME, &stream, "call");
    rest().await;
    world.calls.end(0, done());
    rest().await;
    assert_eq!(world.calls.begun().len(), 1, "two tries of one call at a time: {:?}", world.calls.begun());
    assert_eq!(world.recorded(&stream).2, EffectState::Done);
}

#[tokio::test(start_paused = true)]
async fn tries_of_another_instance_count() {
    let (world, stream, _) = elsewhere(EffectState::Scheduled, Some(Duration::from_millis(1))).await;
    assert_eq!(world.calls.begun().len(), 1, "it is still in hand");
    world.calls.end(0, again());
    world.calls.until_begun(2).await;
    assert_eq!(world.calls.begun()[1], call(&stream, 1, 2));
    world.calls.end(1, done());
    rest().await;
    assert_eq!(world.recorded(&stream), ("1".to_owned(), 2, EffectState::Done));
}
