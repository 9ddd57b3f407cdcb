//! A log full of runs, as a busy day leaves it.

use std::sync::Arc;

use anyhow::Context as _;
use events::run::{Completed, Event, Started, StepCompleted, StepScheduled, StepStarted};
use events::workflow::{Definition, Kind};
use futures::StreamExt as _;
use kernel::{CommandId, Draft, EventSet, Fingerprint, NewEvent, Position, PrincipalId, StreamName};
use runtime::{Filter, Log, Recorded, clock};
use serde_json::json;

use super::place::Place;
use super::raw::{self, Message};

/// Runs under way at once: so many different rows before the same one is written again.
const AT_ONCE: usize = 400;
/// Messages of one raw batch: the most that the server takes.
const BATCH: usize = 1_000;

/// A workflow of two tasks.
pub(super) fn definition() -> anyhow::Result<Arc<Definition>> {
    let document = json!({ "steps": [
        { "id": "fetch", "name": "fetch_order", "timeout": 60 },
        { "id": "ship", "name": "ship_order", "timeout": 60 },
    ]});
    let compiled = workflows::definition::compile(&document, "orders");
    compiled.map(Arc::new).map_err(|errors| anyhow::anyhow!("the sample definition is not valid: {errors:?}"))
}

/// A commit of a run.
pub(super) fn commit(stream: &StreamName, command: &str, before: u64, events: &[Event]) -> anyhow::Result<Draft> {
    let id = CommandId::new(&clock::fresh_id("cmd_"))?;
    Ok(Draft {
        stream: stream.clone(),
        command: command.to_owned(),
        fingerprint: Fingerprint::of(command, b"{}"),
        version_before: before,
        at: clock::now(),
        actor: PrincipalId::new("bench")?,
        correlation: id.as_str().to_owned(),
        causation: id.as_str().to_owned(),
        traceparent: None,
        events: events.iter().map(NewEvent::of).collect(),
        id,
    })
}

/// What happens to a run of two tasks, commit by commit, each with its command.
pub(super) fn life(definition: &Arc<Definition>, number: usize) -> [(&'static str, Vec<Event>); 5] {
    let input =
        Arc::new(json!({ "order": number, "customer": format!("customer-{}", number % 997), "items": [1, 2, 3] }));
    let output = Arc::new(json!({ "ok": true, "order": number }));
    let started = Started {
        workflow: definition.workflow_id.clone(),
        definition_version: 1,
        definition_hash: definition.hash(),
        definition: Arc::clone(definition),
        input,
    };
    let scheduled = |step: &str, name: &str| {
        Event::StepScheduled(StepScheduled {
            step: step.to_owned(),
            attempt: 1,
            kind: Kind::Task,
            name: name.to_owned(),
            due_at: None,
            deadline: None,
        })
    };
    let claimed = |step: &str| {
        let worker = format!("worker-{}", number % 16);
        Event::StepStarted(StepStarted { step: step.to_owned(), attempt: 1, worker, deadline: clock::now() })
    };
    let done = |step: &str| {
        let output = Arc::clone(&output);
        Event::StepCompleted(StepCompleted { step: step.to_owned(), attempt: 1, output, output_of: None })
    };
    [
        ("start", vec![Event::Started(started), scheduled("fetch", "fetch_order")]),
        ("start-step", vec![claimed("fetch")]),
        ("complete-step", vec![done("fetch"), scheduled("ship", "ship_order")]),
        ("start-step", vec![claimed("ship")]),
        ("complete-step", vec![done("ship"), Event::Completed(Completed { output: Arc::clone(&output) })]),
    ]
}

/// Writes at least so many commits and gives the head: many runs side by side, each from its start to its end.
pub(super) async fn write(place: &Place, commits: usize) -> anyhow::Result<Position> {
    let (connection, definition) = (place.connection().await?, definition()?);
    let runs = commits.div_ceil(5).max(1);
    for first in (0..runs).step_by(AT_ONCE) {
        let mut lives: Vec<_> = (first..runs.min(first + AT_ONCE))
            .map(|number| {
                let stream = StreamName::new("dev", events::run::CATEGORY, &format!("run_{number:08}"))?;
                anyhow::Ok((stream, life(&definition, number), 0_u64, 0_u64))
            })
            .collect::<anyhow::Result<_>>()?;
        for turn in 0..5 {
            for group in lives.chunks_mut(BATCH) {
                let messages = group.iter().map(|(stream, life, version, last)| {
                    let (command, events) = &life[turn];
                    let types = events.iter().map(EventSet::type_name).collect::<Vec<_>>().join(",");
                    let payload = commit(stream, command, *version, events)?.to_bytes().into();
                    Ok(Message::new(stream.clone(), payload, types).after(*last))
                });
                let mut messages = messages.collect::<anyhow::Result<Vec<_>>>()?;
                raw::publish_batch(connection.client(), &mut messages).await?;
                for ((_, life, version, last), message) in group.iter_mut().zip(&messages) {
                    *version += life[turn].1.len() as u64;
                    *last = message.last;
                }
            }
        }
    }
    let log = place.log().await?;
    Ok(log.head().await?)
}

/// Every commit up to a position.
pub(super) async fn read(log: &Arc<dyn Log>, head: Position) -> anyhow::Result<Vec<Recorded>> {
    let mut reader = log.read(Position::START, &Filter::default()).await?.commits;
    let mut found: Vec<Recorded> = Vec::new();
    while found.last().is_none_or(|recorded| recorded.position < head) {
        found.push(reader.next().await.context("the log ended")??);
    }
    Ok(found)
}
