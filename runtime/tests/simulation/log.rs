//! The log and the index as one instance sees them: through its gate, over a network that loses, repeats and delays.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use kernel::{CommandId, Position, StreamName};
use runtime::{Append, AppendError, CommitIndex, Filter, Freshness, Log, LogError, Lookup, Page, Reader, Recorded};

use crate::faults::{Fault, Mutation};
use crate::gate::{Gate, step};
use crate::world::World;

pub(crate) struct SimLog(pub(crate) Arc<Gate>);

fn failed(attempt: &'static str) -> LogError {
    LogError { attempt, reason: "the network is down".to_owned() }
}

/// The server's side of an append.
async fn write(world: &World, mut commit: Append) -> Result<Position, AppendError> {
    match world.mutation {
        Mutation::ForgetfulLog if !world.healed() && world.below(20) == 0 => {
            return Ok(world.log.head().await.unwrap().next());
        }
        Mutation::LogWithoutGuard => commit.expected = last(world, &commit.stream).await,
        _ => {}
    }
    let (stream, id, expected) = (commit.stream.clone(), commit.id.clone(), commit.expected);
    let result = world.log.append(commit).await;
    world.note(format_args!("   log: {stream} {id} after {expected}: {result:?}"));
    result
}

async fn last(world: &World, stream: &StreamName) -> Position {
    let mut after = Position::START;
    loop {
        let page = world.log.read_stream(stream, after, Freshness::Leader).await.unwrap();
        after = page.commits.last().map_or(after, |recorded| recorded.position);
        if !page.more {
            return after;
        }
    }
}

#[async_trait]
impl Log for SimLog {
    async fn append(&self, commit: Append) -> Result<Position, AppendError> {
        let gate = &self.0;
        let world = &gate.world;
        step!(gate, "appends {} to {}", commit.id, commit.stream);
        if world.strikes(Fault::LostRequest) {
            return Err(AppendError::Unavailable("the network is down".to_owned()));
        }
        if world.strikes(Fault::InFlight) {
            return Err(AppendError::Conflict);
        }
        let ambiguous = Err(AppendError::Ambiguous("no answer in time".to_owned()));
        if world.strikes(Fault::LateWrite) {
            let (late, patience) = (world.between_ms(5, 3_000), world.between_ms(1, 500));
            world.state().late_writes += 1;
            let world = Arc::clone(world);
            // The network's task, not the instance's: it goes on when the instance is dead.
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                let _ = write(&world, commit).await;
                world.state().late_writes -= 1;
            });
            tokio::time::sleep(patience).await;
            step!(gate, "gives up an append");
            return ambiguous;
        }
        let result = write(world, commit).await;
        step!(gate, "hears of its append");
        if world.strikes(Fault::LostReply) { ambiguous } else { result }
    }

    async fn read_stream(&self, stream: &StreamName, after: Position, fresh: Freshness) -> Result<Page, LogError> {
        let gate = &self.0;
        step!(gate, "reads {stream} after {after} from {fresh:?}");
        if gate.world.strikes(Fault::FailedRead) {
            return Err(failed("read a stream"));
        }
        let mut page = gate.world.log.read_stream(stream, after, fresh).await?;
        if fresh == Freshness::Any && gate.world.strikes(Fault::StaleRead) {
            // A replica has a prefix of the log: mostly all but the newest, now and then nearly nothing.
            let head = gate.world.log.head().await?.sequence();
            let behind = if gate.world.below(3) == 0 { head } else { 8 };
            let newest = head.saturating_sub(gate.world.below(behind + 1));
            let before = page.commits.len();
            page.commits.retain(|recorded| recorded.position.sequence() <= newest);
            page.more &= page.commits.len() == before;
        }
        step!(gate, "has read {} commits", page.commits.len());
        Ok(page)
    }

    async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        let gate = &self.0;
        step!(gate, "reads {position}");
        if gate.world.strikes(Fault::FailedRead) {
            return Err(failed("read a commit"));
        }
        gate.world.log.at(position).await
    }

    async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError> {
        let gate = &self.0;
        step!(gate, "walks from {after}");
        if gate.world.strikes(Fault::FailedRead) {
            return Err(failed("walk along the log"));
        }
        let reader = gate.world.log.read(after, filter).await?;
        Ok(Reader { waiting: reader.waiting, commits: deliveries(Arc::clone(gate), reader, after) })
    }

    async fn identity(&self) -> Result<String, LogError> {
        step!(self.0, "asks which log it is");
        self.0.world.log.identity().await
    }

    async fn head(&self) -> Result<Position, LogError> {
        let gate = &self.0;
        step!(gate, "asks for the head");
        if gate.world.strikes(Fault::FailedRead) {
            return Err(failed("ask for the head"));
        }
        gate.world.log.head().await
    }
}

type Delivered = Result<Recorded, LogError>;

/// What arrives of a walk: now and then it ends, repeats a message, or leaves one out.
fn deliveries(gate: Arc<Gate>, reader: Reader, after: Position) -> futures::stream::BoxStream<'static, Delivered> {
    let state = (gate, reader.commits, None::<Delivered>, after);
    let stream = futures::stream::unfold(state, async |(gate, mut commits, mut again, mut numbered)| {
        if let Some(repeated) = again.take() {
            return Some((repeated, (gate, commits, None, numbered)));
        }
        let mut item = commits.next().await?;
        let position = item.as_ref().map_or(Position::START, |recorded| recorded.position);
        step!(gate, "gets {position}");
        if gate.world.strikes(Fault::BrokenRead) {
            match gate.world.below(4) {
                0 => return None,
                1 => item = Err(failed("walk along the log")),
                2 => again = Some(item.clone()),
                _ => item = commits.next().await?,
            }
        }
        if gate.world.mutation == Mutation::HiddenHoles
            && let Ok(recorded) = &mut item
        {
            if !gate.world.healed() && gate.world.below(20) == 0 {
                let position = recorded.position;
                *recorded = commits.next().await?.ok()?;
                recorded.position = position;
            }
            numbered = numbered.next();
            recorded.position = numbered;
        }
        Some((item, (gate, commits, again, numbered)))
    });
    stream.boxed()
}

pub(crate) struct SimIndex(pub(crate) Arc<Gate>);

#[async_trait]
impl CommitIndex for SimIndex {
    async fn find(&self, stream: &StreamName, id: &CommandId) -> Result<Lookup, LogError> {
        let gate = &self.0;
        step!(gate, "looks for {id} of {stream}");
        if gate.world.mutation == Mutation::LyingIndex {
            return Ok(Lookup::Absent { covers: Position::at(u64::MAX) });
        }
        if gate.world.strikes(Fault::StoreDown) {
            return Err(failed("look up a command id"));
        }
        let found = gate.world.index.find(stream, id).await?;
        step!(gate, "hears that it is {found:?}");
        Ok(found)
    }
}
