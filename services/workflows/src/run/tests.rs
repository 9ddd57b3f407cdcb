//! Stories of runs; `laws` has what holds for all of them.

use chrono::TimeDelta;
use events::run::{Completed, Failed, StepRetryScheduled, StepScheduled};
use kernel::scenario::{Given, assert_laws, assert_survives_storage, given};
use kernel::{CommandId, CommandSet, Stamp, StreamName};
use serde_json::json;

use super::*;
use crate::definition::compile;

mod laws;

fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-20T09:00:00Z".parse().expect("a moment");
    start + TimeDelta::seconds(seconds)
}

fn stamp(principal: &str, seconds: i64) -> Stamp {
    Stamp {
        at: at(seconds),
        id: CommandId::new("c-1").expect("a command id"),
        stream: StreamName::new("dev", "run", "run_1").expect("a stream"),
        principal: PrincipalId::new(principal).expect("a principal"),
    }
}

/// A command as a principal sends it, some seconds after the start of the story.
fn by(principal: &str, seconds: i64, name: &str, body: Value) -> Command {
    let parsed = Command::parse(name, body.to_string().as_bytes(), &stamp(principal, seconds));
    parsed.unwrap_or_else(|problem| panic!("{name} {body}: {problem}"))
}

fn send(seconds: i64, name: &str, body: Value) -> Command {
    by("worker", seconds, name, body)
}

fn resolved(document: &Value) -> ResolvedDefinition {
    let definition = compile(document, "wf").unwrap_or_else(|errors| panic!("{errors:?}"));
    ResolvedDefinition { version: 1, hash: definition.hash(), definition: definition.into() }
}

fn start(document: &Value, input: Value) -> Command {
    let mut command = send(0, "start", json!({ "workflow": "wf", "input": input }));
    if let Command::Start { definition, .. } = &mut command {
        *definition = Some(resolved(document));
    }
    command
}

fn started(document: &Value, input: Value) -> Event {
    let ResolvedDefinition { version, hash, definition } = resolved(document);
    let workflow = "wf".to_owned();
    Started { workflow, definition_version: version, definition_hash: hash, definition, input: input.into() }.into()
}

fn scheduled(step: &str, attempt: u32, kind: Kind, name: &str) -> StepScheduled {
    StepScheduled { step: step.into(), attempt, kind, name: name.into(), due_at: None, deadline: None }
}

fn task(step: &str, attempt: u32, name: &str) -> Event {
    scheduled(step, attempt, Kind::Task, name).into()
}

fn completed(step: &str, attempt: u32, output: Value) -> Event {
    StepCompleted { step: step.into(), attempt, output: output.into(), output_of: None }.into()
}

fn handed_on(step: &str, output_of: Source) -> Event {
    StepCompleted { step: step.into(), attempt: 1, output: Arc::default(), output_of: Some(output_of) }.into()
}

fn claimed(step: &str, attempt: u32, worker: &str, deadline: Timestamp) -> Event {
    StepStarted { step: step.into(), attempt, worker: worker.into(), deadline }.into()
}

fn error(kind: &str, retryable: bool) -> StepError {
    StepError { kind: kind.into(), message: "no".into(), retryable, no_effect: false }
}

fn failed(step: &str, attempt: u32, error: StepError) -> Event {
    StepFailed { step: step.into(), attempt, error }.into()
}

fn ended(output: Value) -> Event {
    Completed { output: output.into() }.into()
}

fn fail(seconds: i64, attempt: u32) -> Command {
    let error = json!({ "type": "down", "message": "no" });
    send(seconds, "fail-step", json!({ "step": "1", "attempt": attempt, "error": error }))
}

fn complete(seconds: i64, step: &str, attempt: u32, output: Value) -> Command {
    send(seconds, "complete-step", json!({ "step": step, "attempt": attempt, "output": output }))
}

fn claim_by(worker: &str, seconds: i64, attempt: u32) -> Command {
    send(seconds, "start-step", json!({ "step": "1", "attempt": attempt, "worker": worker }))
}

fn alarm(seconds: i64, name: &str, attempt: u32) -> Command {
    by("airstream", seconds, name, json!({ "step": "1", "attempt": attempt }))
}

fn cancel() -> Command {
    send(0, "cancel", json!({ "reason": "enough" }))
}

/// One task with one retry and ten seconds of time.
fn one_task() -> Value {
    json!({ "steps": [{ "id": 1, "name": "work", "timeout": 10 }], "max_retries": 1 })
}

fn one_task_running() -> Given<Run> {
    given([started(&one_task(), Value::Null), task("1", 1, "work")])
}

/// The pause after a failed first attempt of `run_1`'s step `1`, as it was decided.
fn in_backoff() -> (Given<Run>, Timestamp) {
    let mut due = at(0);
    let given = one_task_running().when(fail(0, 1)).then_some(|events| match events {
        [Event::StepFailed(_), Event::StepRetryScheduled(StepRetryScheduled { attempt: 2, due_at, delay_ms, .. })] => {
            due = *due_at;
            (500..=1_000).contains(delay_ms) && *due_at == later(at(0), *delay_ms)
        }
        _ => false,
    });
    (given, due)
}

fn mission_example() -> Value {
    json!({ "workflow_id": "wf", "steps": [
        { "id": 1, "name": "validate_input", "timeout": 30 }, { "id": 2, "name": "process_data", "timeout": 120 },
        { "id": 3, "name": "generate_report", "timeout": 60 }, { "id": 4, "name": "send_notification", "timeout": 15 },
    ], "max_retries": 3 })
}

#[test]
fn the_example_runs_from_start_to_end_with_one_commit_per_step() {
    let (example, input) = (mission_example(), json!({ "order": 42 }));
    let given = given::<Run>([])
        .when(start(&example, input.clone()))
        .then([started(&example, input), task("1", 1, "validate_input")])
        .when(claim_by("w-1", 1, 1))
        .then([claimed("1", 1, "w-1", at(31))])
        .when(complete(2, "1", 1, json!(1)))
        .then([completed("1", 1, json!(1)), task("2", 1, "process_data")])
        .when(complete(3, "2", 1, json!(2)))
        .then([completed("2", 1, json!(2)), task("3", 1, "generate_report")])
        .when(complete(4, "3", 1, json!(3)))
        .then([completed("3", 1, json!(3)), task("4", 1, "send_notification")])
        .when(complete(5, "4", 1, json!({ "sent": true })))
        .then([completed("4", 1, json!({ "sent": true })), ended(json!({ "sent": true }))]);
    assert!(given.state().is_finished());
}

#[test]
fn starting_twice_is_one_start_and_starting_something_else_is_refused() {
    let other = send(0, "start", json!({ "workflow": "wf", "input": 2 }));
    let version = send(0, "start", json!({ "workflow": "wf", "input": 1, "version": 7 }));
    let refused = || Rejection::AlreadyStarted { workflow: "wf".into() };
    given::<Run>([])
        .when(start(&one_task(), json!(1)))
        .then([started(&one_task(), json!(1)), task("1", 1, "work")])
        .when(start(&one_task(), json!(1)))
        .then_nothing()
        .when(other.clone())
        .then_rejected(refused())
        .when(version)
        .then_rejected(refused())
        .when(complete(1, "1", 1, Value::Null))
        .then([completed("1", 1, Value::Null), ended(Value::Null)])
        .when(start(&one_task(), json!(1)))
        .then_nothing()
        .when(other)
        .then_rejected(refused());
}

#[test]
fn without_a_definition_there_is_no_run() {
    given::<Run>([])
        .when(send(0, "start", json!({ "workflow": "wf" })))
        .then_rejected(Rejection::UnknownWorkflow { workflow: "wf".into() })
        .when(cancel())
        .then_rejected(Rejection::NotStarted)
        .when(complete(0, "1", 1, Value::Null))
        .then_rejected(Rejection::NotStarted);
}

#[test]
fn a_failed_attempt_is_retried_after_a_pause_and_then_succeeds() {
    let (given, due) = in_backoff();
    let early = Rejection::not_due(due, at(0));
    given
        .when(complete(0, "1", 2, Value::Null))
        .then_rejected(early.clone())
        .when(claim_by("w-1", 0, 2))
        .then_rejected(early)
        .when(alarm(1, "retry-step", 2))
        .then([task("1", 2, "work")])
        .when(alarm(1, "retry-step", 2))
        .then_nothing()
        .when(complete(2, "1", 2, json!("done")))
        .then([completed("1", 2, json!("done")), ended(json!("done"))]);
}

#[test]
fn a_run_fails_when_its_last_attempt_has_failed() {
    in_backoff()
        .0
        .when(alarm(1, "retry-step", 2))
        .then([task("1", 2, "work")])
        .when(fail(2, 2))
        .then([failed("1", 2, error("down", true)), Failed { step: "1".into(), error: error("down", true) }.into()])
        .when(fail(2, 2))
        .then_nothing()
        .when(complete(3, "1", 2, Value::Null))
        .then_rejected(Rejection::AlreadyFinished { outcome: Outcome::Failed });
}

#[test]
fn an_error_that_no_retry_can_help_fails_the_run_at_once() {
    let report = json!({ "type": "invalid", "message": "no", "retryable": false });
    let error = error("invalid", false);
    one_task_running()
        .when(send(0, "fail-step", json!({ "step": "1", "attempt": 1, "error": report })))
        .then([failed("1", 1, error.clone()), Failed { step: "1".into(), error }.into()]);
}

#[test]
fn who_asks_for_a_longer_pause_gets_it() {
    let report = json!({ "type": "busy", "message": "no", "retry_after_seconds": 90.5 });
    one_task_running().when(send(0, "fail-step", json!({ "step": "1", "attempt": 1, "error": report }))).then([
        failed("1", 1, error("busy", true)),
        StepRetryScheduled { step: "1".into(), attempt: 2, due_at: later(at(0), 90_500), delay_ms: 90_500 }.into(),
    ]);
}

#[test]
fn an_attempt_without_a_result_times_out_and_is_retried() {
    one_task_running()
        .when(alarm(100, "time-out-step", 1))
        .then_rejected(Rejection::NotScheduled { step: "1".into() })
        .when(claim_by("w-1", 0, 1))
        .then([claimed("1", 1, "w-1", at(10))])
        .when(alarm(5, "time-out-step", 1))
        .then_rejected(Rejection::NotDue { due_at: at(10), wait_ms: 5_000 })
        .when(alarm(10, "time-out-step", 1))
        .then_some(|events| matches!(events, [Event::StepTimedOut(_), Event::StepRetryScheduled(_)]))
        .when(alarm(10, "time-out-step", 1))
        .then_nothing()
        .when(complete(11, "1", 1, Value::Null))
        .then_rejected(Rejection::StaleAttempt { current: 2 });
}

#[test]
fn a_run_fails_when_its_last_attempt_has_timed_out() {
    let late = StepError {
        kind: "timeout".into(),
        message: "Attempt 2 brought no result within 10 s.".into(),
        retryable: true,
        no_effect: false,
    };
    in_backoff()
        .0
        .when(alarm(1, "retry-step", 2))
        .then([task("1", 2, "work")])
        .when(claim_by("w-1", 2, 2))
        .then([claimed("1", 2, "w-1", at(12))])
        .when(alarm(12, "time-out-step", 2))
        .then([StepTimedOut { step: "1".into(), attempt: 2 }.into(), Failed { step: "1".into(), error: late }.into()])
        .when(alarm(12, "time-out-step", 2))
        .then_nothing();
}

#[test]
fn exactly_one_worker_wins_a_claim() {
    one_task_running()
        .when(claim_by("w-1", 0, 1))
        .then([claimed("1", 1, "w-1", at(10))])
        .when(claim_by("w-1", 5, 1))
        .then_nothing()
        .when(claim_by("w-2", 5, 1))
        .then_rejected(Rejection::AlreadyClaimed { by: "w-1".into() })
        .when(claim_by("w-2", 5, 2))
        .then_rejected(Rejection::StaleAttempt { current: 1 });
}

#[test]
fn a_worker_without_a_name_is_the_principal_who_asks() {
    let command = by("ada", 0, "start-step", json!({ "step": "1", "attempt": 1 }));
    one_task_running().when(command).then([claimed("1", 1, "ada", at(10))]);
}

#[test]
fn a_result_counts_once_and_contradicting_it_is_refused() {
    let over = || Rejection::StepOver { step: "1".into() };
    let two = json!({ "steps": [{ "id": 1, "name": "a" }, { "id": 2, "name": "b" }] });
    given::<Run>([started(&two, Value::Null), task("1", 1, "a")])
        .when(complete(0, "1", 1, json!(1)))
        .then([completed("1", 1, json!(1)), task("2", 1, "b")])
        .when(complete(0, "1", 1, json!(1)))
        .then_nothing()
        .when(fail(0, 1))
        .then_rejected(over())
        .when(claim_by("w-1", 0, 1))
        .then_rejected(over())
        .when(complete(0, "1", 2, json!(1)))
        .then_rejected(Rejection::StaleAttempt { current: 1 });
}

#[test]
fn steps_that_are_unknown_or_not_reached_take_no_results() {
    let two = json!({ "steps": [{ "id": 1, "name": "a" }, { "id": 2, "name": "b" }] });
    given::<Run>([started(&two, Value::Null), task("1", 1, "a")])
        .when(complete(0, "9", 1, Value::Null))
        .then_rejected(Rejection::UnknownStep { step: "9".into() })
        .when(complete(0, "2", 1, Value::Null))
        .then_rejected(Rejection::NotScheduled { step: "2".into() });
}

#[test]
fn cancelling_ends_a_run_where_it_stands() {
    let over = || Rejection::AlreadyFinished { outcome: Outcome::Cancelled };
    let given = one_task_running()
        .when(cancel())
        .then([Cancelled { reason: Some("enough".into()) }.into()])
        .when(cancel())
        .then_nothing()
        .when(complete(1, "1", 1, Value::Null))
        .then_rejected(over())
        .when(alarm(99, "time-out-step", 1))
        .then_rejected(over());
    assert_eq!(given.state().pending("1", 1), None);
    given_completed().when(cancel()).then_rejected(Rejection::AlreadyFinished { outcome: Outcome::Completed });
}

fn given_completed() -> Given<Run> {
    one_task_running().when(complete(1, "1", 1, Value::Null)).then([completed("1", 1, Value::Null), ended(Value::Null)])
}

#[test]
fn pass_steps_are_done_in_the_commit_that_leads_to_them() {
    let passes = json!({ "steps": [
        { "id": "a", "kind": "pass" }, { "id": "b", "kind": "pass", "output": { "b": 1 } }, { "id": "1", "name": "work" },
        { "id": "c", "kind": "pass" }, { "id": "d", "kind": "pass" },
    ] });
    let pass = |id: &str| Event::from(scheduled(id, 1, Kind::Pass, id));
    let given = given::<Run>([]).when(start(&passes, json!("in"))).then([
        started(&passes, json!("in")),
        pass("a"),
        handed_on("a", Source::Input),
        pass("b"),
        completed("b", 1, json!({ "b": 1 })),
        task("1", 1, "work"),
    ]);
    let work = given.state().pending("1", 1).expect("the task is wanted");
    assert_eq!((&*work.previous, &*work.outputs["a"]), (&json!({ "b": 1 }), &json!("in")));
    given.when(complete(0, "a", 1, json!("forged"))).then_nothing().when(complete(0, "1", 1, json!("out"))).then([
        completed("1", 1, json!("out")),
        pass("c"),
        handed_on("c", Source::Step("1".into())),
        pass("d"),
        handed_on("d", Source::Step("c".into())),
        ended(json!("out")),
    ]);
}

#[test]
fn a_wait_ends_when_it_is_due_and_hands_on_what_it_got() {
    let waits = json!({ "steps": [{ "id": 1, "wait": 60 }, { "id": 2, "name": "after" }] });
    let wait = StepScheduled { due_at: Some(at(60)), ..scheduled("1", 1, Kind::Wait, "1") };
    let given = given::<Run>([]).when(start(&waits, json!("in"))).then([started(&waits, json!("in")), wait.into()]);
    let alarm_set = given.state().pending("1", 1).and_then(|work| work.phase.alarm());
    assert_eq!(alarm_set, Some(Alarm { at: at(60), command: "finish-wait" }));
    given
        .when(complete(5, "1", 1, json!("forged")))
        .then_rejected(Rejection::WrongKind { step: "1".into(), kind: Kind::Wait })
        .when(alarm(5, "finish-wait", 1))
        .then_rejected(Rejection::NotDue { due_at: at(60), wait_ms: 55_000 })
        .when(alarm(60, "finish-wait", 1))
        .then([handed_on("1", Source::Input), task("2", 1, "after")])
        .when(alarm(60, "finish-wait", 1))
        .then_nothing();
}

#[test]
fn only_the_platform_knows_the_result_of_its_own_request() {
    let http = json!({ "steps": [{ "id": 1, "http": { "method": "GET", "url": "https://a" }, "timeout": 5 }] });
    let call = StepScheduled { deadline: Some(at(5)), ..scheduled("1", 1, Kind::Http, "1") };
    let wrong = || Rejection::WrongKind { step: "1".into(), kind: Kind::Http };
    given::<Run>([])
        .when(start(&http, Value::Null))
        .then([started(&http, Value::Null), call.into()])
        .when(complete(1, "1", 1, json!("forged")))
        .then_rejected(wrong())
        .when(fail(1, 1))
        .then_rejected(wrong())
        .when(claim_by("w-1", 1, 1))
        .then_rejected(wrong())
        .when(by("airstream", 1, "complete-step", json!({ "step": "1", "attempt": 1, "output": { "status": 200 } })))
        .then([completed("1", 1, json!({ "status": 200 })), ended(json!({ "status": 200 }))]);
}

#[test]
fn a_request_without_an_answer_times_out_by_itself() {
    let http = json!({ "steps": [{ "id": 1, "http": { "method": "GET", "url": "https://a" }, "timeout": 5 }] });
    let call = StepScheduled { deadline: Some(at(5)), ..scheduled("1", 1, Kind::Http, "1") };
    given::<Run>([started(&http, Value::Null), call.into()])
        .when(alarm(5, "time-out-step", 1))
        .then_some(|events| matches!(events, [Event::StepTimedOut(_), Event::StepRetryScheduled(_)]));
}

#[test]
fn an_effect_is_pending_exactly_while_its_attempt_is_wanted() {
    let (given, due_at) = in_backoff();
    assert_eq!(given.state().pending("1", 1), None, "the failed attempt");
    assert_eq!(given.state().pending("1", 2).map(|work| work.phase), Some(Phase::Backoff { due_at }));
    assert_eq!(given.state().pending("2", 1), None, "an unknown step");
    let State::Running(run) = given.state() else { panic!("not running") };
    assert_eq!(run.current_step().map(|active| (active.step.name.as_str(), active.attempt)), Some(("work", 2)));
}

#[test]
fn what_is_too_large_or_misspelt_is_refused_when_it_is_read() {
    let status = |name: &str, body: Value| {
        Command::parse(name, body.to_string().as_bytes(), &stamp("w", 0)).err().map(|problem| problem.status)
    };
    let output = |bytes: usize| json!({ "step": "1", "attempt": 1, "output": "x".repeat(bytes) });
    assert_eq!(status("complete-step", output(MAX_OUTPUT_BYTES - 2)), None);
    assert_eq!(status("complete-step", output(MAX_OUTPUT_BYTES - 1)), Some(413));
    let input = |bytes: usize| json!({ "workflow": "wf", "input": "x".repeat(bytes) });
    assert_eq!(status("start", input(MAX_INPUT_BYTES - 2)), None);
    assert_eq!(status("start", input(3 * MAX_INPUT_BYTES)), Some(413));
    let deep = (0..65).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(status("start", json!({ "workflow": "wf", "input": deep })), Some(422));
    assert_eq!(status("start", json!({ "workflow": "wf", "input": deep[0] })), None);
    let hidden = r#"{"step":"1","attempt":1,"output":{"a":1,"$serde_json::private::RawValue":"x"}}"#;
    let parsed = Command::parse("complete-step", hidden.as_bytes(), &stamp("w", 0));
    assert_eq!(parsed.err().map(|problem| problem.status), Some(422));
    assert_eq!(status("start", json!({ "workflow": "a.b" })), Some(400));
    assert_eq!(status("complete-step", json!({ "step": "1", "attempt": 1, "ouput": 1 })), Some(422));
    let report = json!({ "type": "a", "message": "b", "retry_after_seconds": -1 });
    assert_eq!(status("fail-step", json!({ "step": "1", "attempt": 1, "error": report })), Some(422));
}

#[test]
fn a_claim_that_nobody_heard_of_is_given_back_once_and_another_worker_gets_the_same_attempt() {
    let give_back =
        |worker: &str| by("airstream", 1, "return-step", json!({ "step": "1", "attempt": 1, "worker": worker }));
    let returned = events::run::StepReturned { step: "1".into(), attempt: 1, worker: "a".into() };
    one_task_running()
        .when(claim_by("a", 0, 1))
        .then([claimed("1", 1, "a", at(10))])
        .when(give_back("somebody else"))
        .then_nothing()
        .when(give_back("a"))
        .then([returned.into()])
        .when(give_back("a"))
        .then_nothing()
        .when(claim_by("b", 5, 1))
        .then([claimed("1", 1, "b", at(15))])
        .when(give_back("a"))
        .then_nothing();
}
