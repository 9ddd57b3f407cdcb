//! What must hold at the end: the checker's laws, and those that only this world can know.

use std::collections::BTreeMap;

use checker::{Effect, Evidence, Message};
use kernel::Position;
use runtime::{EffectState, Log, Recorded};

use crate::chaos::CONSUMERS;
use crate::domain::Fact;
use crate::rows::Row;
use crate::world::World;

/// The whole log.
pub(crate) async fn log(world: &World) -> Vec<Recorded> {
    let head = world.log.head().await.unwrap().sequence();
    let mut log = Vec::new();
    for sequence in 1..=head {
        log.extend(world.log.at(Position::at(sequence)).await.unwrap());
    }
    log
}

/// Every broken promise.
pub(crate) fn violations(world: &World, log: &[Recorded]) -> Vec<String> {
    let mut found: Vec<String> = checker::check(&evidence(world, log)).iter().map(ToString::to_string).collect();
    let doors = fold(log, &mut found);
    rows_equal_the_fold(world, &doors, &mut found);
    every_event_had_its_effects_once(world, log, &mut found);
    found.append(&mut world.state().complaints);
    found
}

fn evidence(world: &World, log: &[Recorded]) -> Evidence {
    let message = |recorded: &Recorded| {
        let stream = recorded.stream.as_ref();
        let subject = stream.map(|s| format!("ev.{}.{}.{}.{}", s.shard(), s.tenant, s.category, s.id));
        Message {
            sequence: recorded.position.sequence(),
            subject: subject.unwrap_or_default(),
            guarded: recorded.guarded,
            payload: recorded.payload.to_vec(),
        }
    };
    let effects = CONSUMERS.iter().flat_map(|consumer| world.effects.effects(consumer)).map(|(row, state)| Effect {
        consumer: row.consumer,
        stream: row.stream.to_string(),
        name: row.name,
        state: if state == EffectState::Done { "done" } else { "open" }.to_owned(),
    });
    let state = world.state();
    Evidence {
        log: log.iter().map(message).collect(),
        asked: state.asked.clone(),
        queued: state.queued.clone(),
        effects: effects.collect(),
        performed: state.performed.clone(),
        ..Evidence::default()
    }
}

/// Every event of a category, in order.
fn facts<'a>(log: &'a [Recorded], category: &'a str) -> impl Iterator<Item = (String, u64, Fact)> + 'a {
    let commits = log.iter().filter_map(|recorded| recorded.history().ok()?);
    commits.filter(move |(stream, _)| stream.category.as_str() == category).flat_map(|(stream, commit)| {
        let events: Vec<_> = commit
            .events
            .iter()
            .filter_map(|event| Some((stream.id.to_string(), event.streamversion, event.decode::<Fact>().ok()?)))
            .collect();
        events
    })
}

fn fold(log: &[Recorded], found: &mut Vec<String>) -> BTreeMap<String, Row> {
    let mut doors: BTreeMap<String, Row> = BTreeMap::new();
    for (id, version, fact) in facts(log, "door") {
        let row = doors.entry(format!("sim/door/{id}")).or_default();
        // What the decider never decides on the state that it was given: a decision on a stale state shows here.
        let (key, serial) = (fact.data["key"].as_u64().unwrap_or_default(), fact.data["serial"].as_u64());
        let sound = match fact.kind {
            "door.opened" => !row.open.contains_key(&key) && serial == Some(row.opened + 1),
            _ => row.open.get(&key).copied() == serial,
        };
        if !sound {
            found.push(format!("door {id}, version {version}: {fact:?} does not follow from {row:?}"));
        }
        row.apply(version, &fact);
    }
    doors
}

fn rows_equal_the_fold(world: &World, doors: &BTreeMap<String, Row>, found: &mut Vec<String>) {
    let rows = &world.rows.tables().doors;
    if rows != doors {
        found.push(format!("the rows are {rows:?}, and the log says {doors:?}"));
    }
}

/// Every opening was rung for and counted, once each; the alarm went off once, or not at all if the door was closed.
fn every_event_had_its_effects_once(world: &World, log: &[Recorded], found: &mut Vec<String>) {
    let mut reported: BTreeMap<(&str, String, u64), u64> = BTreeMap::new();
    for (id, _, fact) in facts(log, "chime").chain(facts(log, "counter")) {
        *reported.entry((fact.kind, id, fact.data["serial"].as_u64().unwrap_or_default())).or_default() += 1;
    }
    let closed: Vec<(String, Option<u64>)> = facts(log, "door")
        .filter(|(_, _, fact)| fact.kind == "door.closed")
        .map(|(id, _, fact)| (id, fact.data["serial"].as_u64()))
        .collect();
    for (id, _, fact) in facts(log, "door").filter(|(_, _, fact)| fact.kind == "door.opened") {
        let serial = fact.data["serial"].as_u64().unwrap_or_default();
        for (kind, may_be_missing) in [
            ("chime.rang", false),
            ("counter.counted", false),
            ("chime.alarmed", closed.contains(&(id.clone(), Some(serial)))),
        ] {
            match reported.remove(&(kind, id.clone(), serial)).unwrap_or(0) {
                1 => {}
                0 if may_be_missing => {}
                times => found.push(format!("opening {serial} of door {id}: `{kind}` is in the log {times} times")),
            }
        }
        let (stream, name) = (format!("sim/door/{id}"), format!("ring/{serial}"));
        if !world.state().performed.iter().any(|done| done.stream == stream && done.name == name) {
            found.push(format!("opening {serial} of door {id}: nobody rang"));
        }
    }
    found.extend(reported.keys().map(|report| format!("{report:?} is in the log, and nothing called for it")));
}
