//! How fast a long stream is folded, against parsing the same bytes into a tree.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use events::run::{Event, StepError, StepFailed, StepRetryScheduled, StepScheduled, StepStarted};
use events::workflow::Kind;
use kernel::{Decider, Draft, NewEvent, Position, StreamName};
use runtime::contract::{Coins, Till, TillEvent};
use runtime::{Recorded, clock};
use serde_json::{Value, json};
use workflows::run::Run;

use super::Common;
use super::histories;
use super::latency::milliseconds;
use super::report::{Measured, Reach};
use super::rounds::{self, Samples};
use crate::output::Console;

/// Events of the stream.
const EVENTS: usize = 10_000;

pub(super) fn measure(console: &Console, common: &Common) -> anyhow::Result<Vec<Measured>> {
    let events = common.size_or(EVENTS);
    Ok(vec![
        one::<Till>(console, common, "fold", &tills(events)?)?,
        // A real decider's own work comes on top of ours.
        one::<Run>(console, common, "fold runs", &runs(events)?)?,
    ])
}

fn one<D: Decider>(console: &Console, common: &Common, name: &str, history: &[Recorded]) -> anyhow::Result<Measured> {
    // Milliseconds each: many more rounds than where servers take part, and still no time at all.
    let turns = common.rounds * 10;
    let (mut ours, mut limit) = (Samples::default(), Samples::default());
    let bar = rounds::bar(console, name, turns);
    for round in 0..turns {
        for turn in [rounds::ours_first(round), !rounds::ours_first(round)] {
            let began = Instant::now();
            if turn {
                black_box(fold::<D>(history)?);
                ours.push(milliseconds(began.elapsed()));
            } else {
                for recorded in history {
                    black_box(serde_json::from_slice::<Value>(&recorded.payload)?);
                }
                limit.push(milliseconds(began.elapsed()));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let bytes: usize = history.iter().map(|recorded| recorded.payload.len()).sum();
    let detail = json!({ "commits": history.len(), "bytes": bytes });
    Ok(Measured::of_rounds(name, "ms", &ours, &limit, Reach::Times(1.5)).with(detail))
}

/// What the writer does with a stream that it does not have in memory.
fn fold<D: Decider>(history: &[Recorded]) -> anyhow::Result<D::State> {
    let (mut state, mut version) = (D::State::default(), 0);
    for recorded in history {
        let Some((_, commit)) = recorded.history().map_err(anyhow::Error::msg)? else { continue };
        ensure!(commit.first().streamversion == version + 1, "the sample history has a hole");
        for event in &commit.events {
            state = D::evolve(state, &event.decode()?);
        }
        version = commit.version_after();
    }
    Ok(state)
}

fn recorded(place: usize, draft: &Draft) -> Recorded {
    Recorded {
        position: Position::at(place as u64 + 1),
        stream: Some(draft.stream.clone()),
        subject: draft.stream.to_string(),
        recorded_at: draft.at,
        payload: draft.to_bytes().into(),
        remaining: 0,
        guarded: true,
    }
}

/// One small event per commit: the envelope weighs most.
fn tills(events: usize) -> anyhow::Result<Vec<Recorded>> {
    let stream = StreamName::new("dev", Till::CATEGORY, "one")?;
    let commits = (0..events).map(|number| {
        let event = TillEvent::Taken(Coins { coins: number as u64 });
        let draft =
            Draft { events: vec![NewEvent::of(&event)], ..histories::commit(&stream, "take", number as u64, &[])? };
        Ok(recorded(number, &draft))
    });
    commits.collect()
}

/// A run whose step fails and is tried again, for a very long time.
fn runs(events: usize) -> anyhow::Result<Vec<Recorded>> {
    let stream = StreamName::new("dev", Run::CATEGORY, "one")?;
    let (mut history, mut version) = (Vec::new(), 0);
    let step = || "fetch".to_owned();
    for (command, events) in histories::life(&histories::definition()?, 0).into_iter().take(1) {
        history.push(recorded(0, &histories::commit(&stream, command, version, &events)?));
        version += events.len() as u64;
    }
    for attempt in 1.. {
        if version >= events as u64 {
            break;
        }
        let message = "the other side did not answer in time; it may be busy".to_owned();
        let error = StepError { kind: "unavailable".to_owned(), message, retryable: true, no_effect: false };
        let started = StepStarted { step: step(), attempt, worker: "worker-1".to_owned(), deadline: clock::now() };
        let retry = StepRetryScheduled { step: step(), attempt: attempt + 1, due_at: clock::now(), delay_ms: 1_000 };
        let again = StepScheduled {
            step: step(),
            attempt: attempt + 1,
            kind: Kind::Task,
            name: "fetch_order".to_owned(),
            due_at: None,
            deadline: None,
        };
        for (command, events) in [
            ("start-step", vec![Event::StepStarted(started)]),
            (
                "fail-step",
                vec![Event::StepFailed(StepFailed { step: step(), attempt, error }), Event::StepRetryScheduled(retry)],
            ),
            ("retry-step", vec![Event::StepScheduled(again)]),
        ] {
            history.push(recorded(history.len(), &histories::commit(&stream, command, version, &events)?));
            version += events.len() as u64;
        }
    }
    Ok(history)
}
