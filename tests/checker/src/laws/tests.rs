//! Each law catches its own violation: good evidence is spoiled in one way at a time.

#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use serde_json::json;

use crate::log::shard;
use crate::{Asked, Effect, Evidence, Message, Outcome, Performed, Queued, check};

/// A message with one event per type.
fn message(sequence: u64, stream: &str, id: &str, version: u64, types: &[&str]) -> Message {
    let parts: Vec<&str> = stream.split('/').collect();
    let [tenant, category, subject] = parts[..] else { panic!("not a stream: {stream}") };
    let events: Vec<_> = types
        .iter()
        .enumerate()
        .map(|(index, kind)| {
            json!({
                "specversion": "1.0", "id": format!("{id}.{index}"), "source": format!("/{tenant}/{category}"),
                "type": kind, "subject": subject, "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json",
                "dataschema": format!("urn:airstream:schema:{kind}:1"), "tenantid": tenant,
                "streamversion": version + index as u64, "commitid": id, "correlationid": id, "causationid": id,
                "actor": "ann", "command": "do", "commandhash": "00",
                "data": { "command_id": "q3", "category": "till", "id": "a" }
            })
        })
        .collect();
    Message {
        sequence,
        subject: format!("ev.{}.{tenant}.{category}.{subject}", shard(stream)),
        guarded: true,
        payload: serde_json::to_vec(&events).unwrap(),
    }
}

fn asked(id: &str, outcome: Outcome) -> Asked {
    Asked { stream: "t/till/a".to_owned(), command: "do".to_owned(), command_id: id.to_owned(), outcome }
}

fn accepted(position: u64, version: u64, events: &[&str]) -> Outcome {
    Outcome::Accepted { position, version, events: events.iter().map(|kind| (*kind).to_owned()).collect() }
}

fn queued(id: &str, place: u64) -> Queued {
    Queued { stream: "t/till/a".to_owned(), command_id: id.to_owned(), place, leaves_a_trace: true }
}

fn effect(name: &str) -> Effect {
    let (consumer, stream) = ("bell".to_owned(), "t/till/a".to_owned());
    Effect { consumer, stream, name: name.to_owned(), state: "done".to_owned() }
}

fn performed(name: &str, key: &str) -> Performed {
    let (consumer, stream) = ("bell".to_owned(), "t/till/a".to_owned());
    Performed { consumer, stream, name: name.to_owned(), key: key.to_owned() }
}

fn good() -> Evidence {
    Evidence {
        log: vec![
            message(1, "t/till/a", "c1", 1, &["till.taken", "till.given"]),
            message(2, "t/till/b", "c1", 1, &["till.taken"]),
            message(3, "t/till/a", "q1", 3, &["till.taken"]),
            message(4, "t/inbox/i", "i", 1, &["inbox.command_rejected"]),
            message(5, "t/till/a", "q2", 4, &["till.taken"]),
            message(6, "t/run/r", "c5", 1, &["run.started", "run.completed"]),
            Message { sequence: 7, subject: "ev.x".to_owned(), guarded: false, payload: b"foreign".to_vec() },
        ],
        asked: vec![
            asked("c1", Outcome::Unknown),
            asked("c1", accepted(1, 2, &["till.taken", "till.given"])),
            asked("c1", Outcome::NotNow { code: "busy".to_owned() }),
            asked("c1", accepted(1, 2, &["till.taken", "till.given"])),
            asked("c2", Outcome::Refused { code: "too_few".to_owned() }),
            asked("c3", Outcome::NothingToDo),
            asked("c4", Outcome::Unknown),
        ],
        queued: vec![queued("q1", 0), queued("q2", 1), queued("q3", 2)],
        effects: vec![effect("ring"), effect("knock")],
        performed: vec![performed("ring", "k1"), performed("ring", "k1"), performed("knock", "k2")],
        ..Evidence::default()
    }
}

/// Spoils good evidence; exactly the named law complains.
#[track_caller]
fn caught(law: &str, spoil: impl FnOnce(&mut Evidence)) {
    let mut evidence = good();
    spoil(&mut evidence);
    let found = check(&evidence);
    assert!(!found.is_empty(), "nobody noticed");
    assert!(found.iter().all(|violation| violation.law == law), "{found:#?}");
}

#[test]
fn good_evidence_has_no_violations() {
    assert_eq!(check(&good()), []);
}

#[test]
fn a_hole_in_the_positions_is_caught() {
    caught("positions have no hole", |evidence| drop(evidence.log.remove(5)));
    caught("positions have no hole", |evidence| evidence.log[6].sequence = 6);
}

#[test]
fn a_hole_in_the_versions_is_caught() {
    caught("versions have no hole", |evidence| evidence.log[4] = message(5, "t/till/a", "q2", 5, &["till.taken"]));
    caught("versions have no hole", |evidence| evidence.log[1] = message(2, "t/till/b", "c1", 2, &["till.taken"]));
}

#[test]
fn an_envelope_that_disagrees_with_its_subject_is_caught() {
    const LAW: &str = "the envelope agrees with its subject";
    let text = |evidence: &Evidence| String::from_utf8(evidence.log[1].payload.clone()).unwrap();
    for (from, to) in [
        ("\"subject\":\"b\"", "\"subject\":\"c\""),
        ("\"source\":\"/t/till\"", "\"source\":\"/t/run\""),
        ("\"tenantid\":\"t\"", "\"tenantid\":\"u\""),
        ("\"id\":\"c1.0\"", "\"id\":\"c1.1\""),
        ("till.taken:1", "till.given:1"),
        ("\"commandhash\":\"00\"", "\"commandhash\":\"\""),
        ("2026-01-01T", "2026-01-01 at "),
    ] {
        caught(LAW, |evidence| {
            assert!(text(evidence).contains(from), "{}", text(evidence));
            evidence.log[1].payload = text(evidence).replace(from, to).into_bytes();
        });
    }
    caught(LAW, |evidence| evidence.log[1].subject = "ev.99.t.till.b".to_owned());
    caught(LAW, |evidence| evidence.log[1].payload = b"[]".to_vec());
    caught(LAW, |evidence| evidence.log[6].guarded = true);
}

#[test]
fn a_command_that_counts_twice_is_caught() {
    caught("a command counts once", |evidence| {
        evidence.log.push(message(8, "t/till/b", "c1", 2, &["till.taken"]));
    });
}

#[test]
fn an_accepted_command_that_is_lost_is_caught() {
    caught("what was accepted is in the log", |evidence| {
        evidence.asked.push(asked("c9", accepted(8, 5, &["till.taken"])));
    });
}

#[test]
fn an_answer_that_is_not_true_is_caught() {
    const LAW: &str = "an answer is true";
    for wrong in [
        accepted(2, 2, &["till.taken", "till.given"]),
        accepted(1, 1, &["till.taken", "till.given"]),
        accepted(1, 2, &["till.taken"]),
    ] {
        caught(LAW, |evidence| {
            evidence.asked.retain(|asked| asked.command_id != "c1");
            evidence.asked.push(asked("c1", wrong));
        });
    }
    for no in [
        Outcome::Refused { code: "too_few".to_owned() },
        Outcome::NothingToDo,
        Outcome::NotNow { code: "unavailable".to_owned() },
    ] {
        caught(LAW, |evidence| evidence.asked.push(asked("q1", no)));
    }
    caught(LAW, |evidence| evidence.asked.iter_mut().for_each(|asked| asked.command = "other".to_owned()));
}

#[test]
fn an_outcome_that_was_unknown_may_be_either() {
    let mut evidence = good();
    evidence.asked.push(asked("q1", Outcome::Unknown));
    evidence.asked.push(asked("q9", Outcome::Unknown));
    assert_eq!(check(&evidence), []);
}

#[test]
fn two_different_answers_are_caught() {
    caught("a command id has one answer", |evidence| evidence.asked.push(asked("c1", Outcome::NothingToDo)));
    caught("a command id has one answer", |evidence| evidence.asked.push(asked("c2", Outcome::NothingToDo)));
}

#[test]
fn queued_commands_out_of_order_are_caught() {
    caught("queued commands keep their order", |evidence| evidence.queued[0].place = 9);
}

#[test]
fn a_queued_command_without_a_trace_or_with_two_is_caught() {
    caught("queued commands are executed", |evidence| evidence.queued.push(queued("q4", 3)));
    caught("a queued command has one outcome", |evidence| {
        evidence.log.push(message(8, "t/till/a", "q3", 5, &["till.taken"]));
    });
    let mut evidence = good();
    evidence.queued.push(Queued { leaves_a_trace: false, ..queued("q4", 3) });
    assert_eq!(check(&evidence), []);
}

#[test]
fn effects_that_are_recorded_twice_or_from_nowhere_are_caught() {
    caught("an effect is recorded once", |evidence| evidence.effects.push(effect("ring")));
    caught("an effect comes from the log", |evidence| evidence.effects[0].stream = "t/till/zzz".to_owned());
}

#[test]
fn a_key_that_changes_or_is_shared_is_caught() {
    caught("an effect has one key", |evidence| evidence.performed.push(performed("ring", "k3")));
    caught("an effect has one key", |evidence| evidence.performed.push(performed("third", "k1")));
}

#[test]
fn a_run_that_is_stuck_or_goes_on_after_its_end_is_caught() {
    let open = message(8, "t/run/s", "c1", 1, &["run.started"]);
    caught("no run is stuck", |evidence| evidence.log.push(open.clone()));
    caught("a run ends once", |evidence| evidence.log.push(message(8, "t/run/r", "c6", 3, &["run.cancelled"])));
    let mut evidence = good();
    evidence.log.push(open);
    evidence.open_runs.insert("t/run/s".to_owned());
    assert_eq!(check(&evidence), []);
}

/// The figures of the documents: whoever reads them must find the same shard.
#[test]
fn the_shard_is_the_documented_one() {
    assert_eq!(["dev/workflow/wf_12345", "dev/workflow/a", "dev/workflow/b"].map(shard), [12, 8, 1]);
}
