//! What holds for every definition and every order of commands.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::any::{any_body, any_json};

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn any_step(id: &'static str) -> impl Strategy<Value = Value> {
    let retry = (0..3_u32, 0..3_u32).prop_map(|(max, delay)| json!({ "max": max, "delay": delay }));
    prop_oneof![
        3 => retry.clone().prop_map(move |retry| json!({ "id": id, "name": "work", "timeout": 5, "retry": retry })),
        1 => retry.prop_map(move |retry| {
            json!({ "id": id, "http": { "method": "GET", "url": "https://a" }, "timeout": 5, "retry": retry })
        }),
        1 => (0..20_u32).prop_map(move |seconds| json!({ "id": id, "wait": seconds })),
        1 => Just(json!({ "id": id, "kind": "pass" })),
        1 => any_json().prop_map(move |output| json!({ "id": id, "kind": "pass", "output": output })),
    ]
}

fn any_document() -> impl Strategy<Value = Value> {
    let steps = IDS.map(any_step);
    (steps, 1..=IDS.len()).prop_map(|(steps, count)| json!({ "steps": steps[..count] }))
}

/// A choice among everything that can be sent, and among whom and when.
type Choice = (usize, usize, u32, i64, usize, Value);

fn any_choice() -> impl Strategy<Value = Choice> {
    (0..9_usize, 0..6_usize, 0..4_u32, 0..40_i64, 0..3_usize, any_json())
}

/// Turns a choice into a command; most aim at the current attempt, so that runs get somewhere.
fn command(state: &State, document: &Value, now: i64, choice: &Choice) -> Command {
    let (what, step, attempt, _, who, value) = choice;
    let current = match state {
        State::Running(run) => run.current_step().map(|active| (active.step.id.clone(), active.attempt)),
        State::NotStarted | State::Finished(_) => None,
    };
    let (step, attempt) = match (current, attempt) {
        (Some(current), 0 | 1) => current,
        _ => (IDS.get(*step).unwrap_or(&"nowhere").to_string(), *attempt),
    };
    let principal = ["worker", "other", "airstream"][*who];
    let this = json!({ "step": step, "attempt": attempt });
    match what {
        0 => start(document, json!("in")),
        1 if *who == 0 => cancel(),
        1 => start(document, value.clone()),
        2 => by(principal, now, "start-step", this),
        3 | 4 => by(principal, now, "complete-step", json!({ "step": step, "attempt": attempt, "output": value })),
        5 => {
            let error = json!({ "type": "t", "message": "m", "retryable": *who != 1 });
            by(principal, now, "fail-step", json!({ "step": step, "attempt": attempt, "error": error }))
        }
        6 => by("airstream", now, "time-out-step", this),
        7 => by("airstream", now, "finish-wait", this),
        _ => by("airstream", now, "retry-step", this),
    }
}

/// What must be true of any state between two commits.
fn assert_consistent(state: &State) {
    let State::Running(run) = state else { return };
    let active: Vec<_> = run.steps.iter().filter(|(_, progress)| progress.phase.is_some()).collect();
    assert_eq!(active.len(), 1, "a run between two commits waits for exactly one step: {run:#?}");
    let current = run.current_step().expect("the active step is in the definition");
    assert!(current.attempt >= 1 && current.attempt <= 1 + current.step.retry().map_or(0, |retry| retry.max));
    let (index, _) = run.definition.step(&current.step.id).expect("the active step is in the definition");
    let done: BTreeSet<&str> = run.outputs().map(|(id, _)| id).collect();
    let before: BTreeSet<&str> = run.definition.steps[..index].iter().map(|step| step.id.as_str()).collect();
    assert_eq!(done, before, "exactly the steps before the current one are done");
    assert!(state.pending(&current.step.id, current.attempt).is_some());
    assert!(state.pending(&current.step.id, current.attempt + 1).is_none());
}

#[test]
fn a_value_as_deep_as_is_let_in_survives_storage() {
    let deep = (0..kernel::storable::MAX_DEPTH).fold(json!(0.1), |inner, _| json!([inner]));
    assert_eq!(kernel::storable::complaint_about(&deep), None);
    let document = json!({ "steps": [{ "id": "a", "name": "work" }, { "id": "b", "name": "work" }] });
    let events = [started(&document, deep.clone()), task("a", 1, "work"), completed("a", 1, deep)];
    assert_survives_storage(&events.iter().fold(State::default(), Run::evolve));
}

proptest! {
    #[test]
    fn no_order_of_commands_breaks_a_run(document in any_document(), choices in prop::collection::vec(any_choice(), 0..40)) {
        let mut state = State::default();
        let mut completed = BTreeSet::new();
        let mut now = 0;
        for choice in &choices {
            now += choice.3;
            let command = command(&state, &document, now, choice);
            let events = Run::decide(&state, command.clone()).unwrap_or_default();
            for event in &events {
                if let Event::StepCompleted(done) = event {
                    prop_assert!(completed.insert(done.step.clone()), "step {} was completed twice", done.step);
                }
            }
            prop_assert!(!state.is_finished() || events.is_empty(), "{events:?} after the end");
            // What follows is decided on a state that was written out and read back.
            state = assert_survives_storage(&assert_laws::<Run>(state, command));
            assert_consistent(&state);
        }
    }

    #[test]
    fn any_event_can_be_folded_anywhere(document in any_document(), picks in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
        let events = [
            started(&document, Value::Null), task("a", 2, "work"), task("nowhere", 1, "work"), claimed("b", 1, "w", at(1)),
            completed("c", 9, json!(1)), handed_on("a", Source::Step("nowhere".into())), failed("a", 1, error("t", true)),
            StepTimedOut { step: "b".into(), attempt: 1 }.into(), ended(Value::Null), Cancelled { reason: None }.into(),
            StepRetryScheduled { step: "a".into(), attempt: u32::MAX, due_at: at(0), delay_ms: u64::MAX }.into(),
        ];
        let state = picks.iter().fold(State::default(), |state, pick| Run::evolve(state, pick.get(&events)));
        assert_survives_storage(&state);
        for what in 0..9 {
            for step in 0..6 {
                let choice = (what, step, 2, 0, 2, Value::Null);
                let _ = Run::decide(&state, command(&state, &document, 50, &choice));
            }
        }
    }

    #[test]
    fn whatever_arrives_is_a_command_or_a_problem_of_the_callers(body in any_body()) {
        for spec in Command::SPECS {
            if let Err(problem) = Command::parse(spec.name, &body, &stamp("worker", 0)) {
                prop_assert!((400..500).contains(&problem.status), "{} {problem:?}", spec.name);
            }
        }
    }
}
