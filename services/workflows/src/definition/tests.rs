use kernel::scenario::{assert_laws, assert_survives_storage, given};
use kernel::{CommandId, FieldError, Rejection as _, StreamName};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::any::any_body;

/// Exactly as people have it today.
const EXAMPLE: &str = r#"{"workflow_id":"wf_12345","steps":[{"id":1,"name":"validate_input","timeout":30},{"id":2,"name":"process_data","timeout":120},{"id":3,"name":"generate_report","timeout":60},{"id":4,"name":"send_notification","timeout":15}],"max_retries":3}"#;

fn stamp() -> Stamp {
    Stamp {
        at: "2026-11-20T09:00:00Z".parse().expect("a moment"),
        id: CommandId::new("c-1").expect("a command id"),
        stream: StreamName::new("dev", "workflow", "wf_12345").expect("a stream"),
        principal: kernel::PrincipalId::new("ada").expect("a principal"),
    }
}

fn define(body: &str) -> Command {
    Command::parse("define", body.as_bytes(), &stamp()).expect("a valid definition")
}

fn defined(version: u32, body: &str) -> Event {
    let Command::Define { document, definition, hash } = define(body) else { panic!("not a definition") };
    Defined { version, hash, document, definition }.into()
}

fn complaints(document: Value) -> Vec<(String, String)> {
    let errors = compile(&document, "wf_12345").expect_err("a definition that is not valid");
    errors.into_iter().map(|FieldError { pointer, detail }| (pointer, detail)).collect()
}

#[track_caller]
fn refused(step: Value, pointer: &str, detail: &str) {
    let found = complaints(json!({ "steps": [step] }));
    assert!(
        found.iter().any(|(at, what)| at == &format!("/steps/0{pointer}") && what.contains(detail)),
        "{step} was refused with {found:?}"
    );
}

fn step(step: Value) -> events::workflow::Step {
    let definition = compile(&json!({ "steps": [step] }), "wf_12345");
    definition.unwrap_or_else(|errors| panic!("{step} was refused: {errors:?}")).steps.remove(0)
}

const OTHER: &str = r#"{"steps":[{"id":"a","name":"other"}]}"#;
const RETIRE: Command = Command::Retire { reason: None };

#[test]
fn defining_the_same_twice_is_one_version() {
    let blanks = EXAMPLE.replace(',', " ,\n ");
    given::<Workflow>([])
        .when(define(EXAMPLE))
        .then([defined(1, EXAMPLE)])
        .when(define(EXAMPLE))
        .then_nothing()
        .when(define(&blanks))
        .then_nothing();
}

#[test]
fn a_spelt_out_default_is_the_same_content() {
    given::<Workflow>([defined(1, r#"{"steps":[{"id":1,"name":"a"}]}"#)])
        .when(define(
            r#"{"max_retries":3,"steps":[{"id":"1","name":"a","kind":"task","timeout":30.0,"retry":{"delay":1}}]}"#,
        ))
        .then_nothing();
}

#[test]
fn changed_content_is_the_next_version_and_the_versions_before_can_still_be_run() {
    let given = given::<Workflow>([defined(1, EXAMPLE)]).when(define(OTHER)).then([defined(2, OTHER)]);
    let state = given.state();
    assert_eq!(found(state, None).version, 2);
    assert_eq!(found(state, Some(1)).definition.steps.len(), 4);
    assert_eq!(resolve(state, Some(3)), Err(Rejection::UnknownVersion { wanted: 3, latest: 2 }));
}

fn found(state: &State, wanted: Option<u32>) -> ResolvedDefinition {
    match resolve(state, wanted) {
        Ok(Wanted::Found(found)) => found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_of_long_ago_are_left_to_the_log() {
    let given =
        given::<Workflow>((1..=20).map(|version| defined(version, if version % 2 == 0 { EXAMPLE } else { OTHER })));
    let given = given.when(define(OTHER)).then([defined(21, OTHER)]);
    let state = given.state();
    assert_eq!(found(state, None).version, 21);
    assert_eq!(found(state, Some(14)).version, 14);
    assert_eq!(resolve(state, Some(13)), Ok(Wanted::Older(13)));
    assert_eq!(resolve(state, Some(0)), Err(Rejection::UnknownVersion { wanted: 0, latest: 21 }));
    assert_eq!(resolve(state, Some(22)), Err(Rejection::UnknownVersion { wanted: 22, latest: 21 }));
}

#[test]
fn a_retired_workflow_takes_no_runs_until_it_is_defined_again_with_the_next_version() {
    let retired = given::<Workflow>([defined(1, EXAMPLE)])
        .when(RETIRE)
        .then([Retired { reason: None }.into()])
        .when(RETIRE)
        .then_nothing();
    assert_eq!(resolve(retired.state(), None), Err(Rejection::Retired));
    let revived = retired.when(define(EXAMPLE)).then([defined(2, EXAMPLE)]);
    assert_eq!(found(revived.state(), None).version, 2);
}

#[test]
fn what_was_never_defined_can_be_neither_retired_nor_run() {
    given::<Workflow>([]).when(RETIRE).then_rejected(Rejection::UnknownWorkflow);
    let refused = resolve(&State::NotDefined, None).expect_err("nothing to run");
    assert_eq!((refused.status(), refused.code()), (404, "unknown_workflow"));
}

#[test]
fn the_short_form_is_valid_as_it_stands() {
    let Command::Define { document, definition, hash } = define(EXAMPLE) else { panic!("not a definition") };
    assert_eq!(*document, serde_json::from_str::<Value>(EXAMPLE).expect("JSON"));
    let steps: Vec<_> = definition.steps.iter().map(|s| (s.id.as_str(), s.name.as_str(), s.timeout_ms())).collect();
    assert_eq!(
        steps,
        [
            ("1", "validate_input", Some(30_000)),
            ("2", "process_data", Some(120_000)),
            ("3", "generate_report", Some(60_000)),
            ("4", "send_notification", Some(15_000)),
        ]
    );
    assert!(definition.steps.iter().all(|step| step.retry().is_some_and(|retry| retry.max == 3)));
    // Part of the log's format: a change here makes a new version of every workflow that is posted again.
    assert_eq!(hash, "80efd9ee24238a6eb1db868f2ef82c6beb91e0d79d3bf158486ecaeaaf4eca40");
}

#[test]
fn the_extended_form_says_more_per_step() {
    use events::workflow::{Method, StepKind, Wait};
    let call = step(json!({ "id": "call", "timeout": 2.5, "http": {
        "method": "POST", "url": "https://example.com:8443/a?b=c", "headers": { "X-A": "b" }, "body": null } }));
    let StepKind::Http(http) = call.kind else { panic!("not http") };
    assert_eq!((http.method, http.timeout_ms, http.max_response_bytes), (Method::Post, 2_500, 64 * 1024));
    assert_eq!((http.body, http.headers.get("x-a").map(String::as_str)), (Some(Value::Null), Some("b")));

    assert_eq!(step(json!({ "id": 1, "wait": 0.25 })).kind, StepKind::Wait(Wait::ForMs(250)));
    assert_eq!(step(json!({ "id": 1, "wait": { "seconds": 2 } })).kind, StepKind::Wait(Wait::ForMs(2_000)));
    let until = step(json!({ "id": 1, "kind": "wait", "wait": { "until": "2027-01-01T01:00:00+01:00" } }));
    assert_eq!(until.kind, StepKind::Wait(Wait::Until("2027-01-01T00:00:00Z".parse().expect("a moment"))));

    let task = step(json!({ "id": 1, "name": "t", "params": [1], "retry": { "max": 0, "delay": 90, "factor": 1.5 } }));
    let StepKind::Task(task) = task.kind else { panic!("not a task") };
    assert_eq!(task.params, json!([1]));
    assert_eq!((task.retry.max, task.retry.delay_ms, task.retry.max_delay_ms), (0, 90_000, 90_000));
}

#[test]
fn every_mistake_is_named_with_its_place_and_all_at_once() {
    let found = complaints(json!({
        "workflow_id": "other", "max_retries": -1, "labels": { "a/b": 1 }, "stpes": [],
        "steps": [
            { "id": 1, "name": "a", "timeout": -5 },
            { "id": "1", "name": "has space" },
            7,
            { "name": "b", "kind": "nonsense" },
        ],
    }));
    let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
    assert_eq!(
        places,
        [
            "/stpes",
            "/workflow_id",
            "/labels/a~1b",
            "/max_retries",
            "/steps/0/timeout",
            "/steps/1/name",
            "/steps/1/id",
            "/steps/2",
            "/steps/3",
            "/steps/3/kind",
        ],
        "{found:#?}"
    );
    assert_eq!(found[0].1, "is not a known field; did you mean `steps`?");
}

#[test]
fn a_wrong_step_is_refused_where_it_is_wrong() {
    refused(json!({ "id": 1, "name": "a", "timout": 1 }), "/timout", "did you mean `timeout`?");
    refused(json!({ "id": 1, "name": "a", "compensate": {} }), "/compensate", "not supported yet");
    refused(json!({ "id": 1, "kind": "map" }), "/kind", "not supported yet");
    refused(json!({ "id": 1, "name": "a", "timeout": "30" }), "/timeout", "number of seconds");
    refused(json!({ "id": 1, "name": "a", "timeout": 0 }), "/timeout", "number of seconds");
    refused(json!({ "id": 1, "name": "a", "timeout": 2_592_001 }), "/timeout", "2592000");
    refused(json!({ "id": 1, "name": "a.b" }), "/name", "what workers listen for");
    refused(json!({ "id": 1 }), "", "`name` is missing");
    refused(json!({ "name": "a" }), "", "`id` is missing");
    refused(json!({ "id": 1.5, "name": "a" }), "/id", "whole number");
    refused(json!({ "id": "a b", "name": "a" }), "/id", "whole number");
    refused(json!({ "id": 1, "wait": 1, "timeout": 1 }), "/timeout", "has no `timeout`");
    refused(json!({ "id": 1, "wait": {} }), "/wait", "either");
    refused(json!({ "id": 1, "wait": { "until": "tomorrow" } }), "/wait/until", "RFC 3339");
    for until in ["10000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59"] {
        refused(json!({ "id": 1, "wait": { "until": until } }), "/wait/until", "RFC 3339");
    }
    refused(json!({ "id": 1, "name": "a", "retry": { "max": 101 } }), "/retry/max", "from 0 to 100");
    refused(json!({ "id": 1, "name": "a", "retry": { "factor": 0.5 } }), "/retry/factor", "from 1");
    refused(json!({ "id": 1, "name": "a", "retry": { "delay": 5, "max_delay": 1 } }), "/retry/max_delay", "shorter");
    refused(json!({ "id": 1, "name": "a", "output": 1 }), "/output", "has no `output`");
    refused(json!({ "id": 1, "http": { "method": "get", "url": "https://a" } }), "/http/method", "GET");
    refused(json!({ "id": 1, "http": { "url": "https://a" } }), "/http", "`method` is missing");
    for url in ["ftp://a", "http://", "https://a b", "//a", "https://u:p@a", "https://a:b", "https://[::1", "https://ä"]
    {
        refused(json!({ "id": 1, "http": { "method": "GET", "url": url } }), "/http/url", "");
    }
    for header in [json!({ "a b": "c" }), json!({ "a": "b\r\nc: d" }), json!({ "Host": "a" }), json!({ "a": 1 })] {
        let at = format!("/http/headers/{}", header.as_object().and_then(|h| h.keys().next()).expect("one header"));
        refused(json!({ "id": 1, "http": { "method": "GET", "url": "https://a", "headers": header } }), &at, "");
    }
}

#[test]
fn a_definition_has_limits() {
    let problem = |body: &[u8]| Command::parse("define", body, &stamp()).expect_err("over a limit");
    assert_eq!(problem(&vec![b' '; MAX_DOCUMENT_BYTES + 1]).status, 413);
    assert_eq!(problem(b"{").status, 400);
    assert_eq!(problem("[".repeat(10_000).as_bytes()).status, 400);
    assert_eq!(problem(br#"{"steps":[]}"#).status, 422);
    let growing = format!(r#"{{"steps":[{{"id":1,"name":"a","params":[{}1]}}]}}"#, "1e15,".repeat(40_000));
    assert_eq!(problem(growing.as_bytes()).status, 413);

    let tasks =
        |count: usize| json!({ "steps": (0..count).map(|id| json!({ "id": id, "name": "a" })).collect::<Vec<_>>() });
    assert!(compile(&tasks(MAX_STEPS), "wf").is_ok());
    assert!(compile(&tasks(MAX_STEPS + 1), "wf").is_err());
    let passes =
        |count: usize| json!({ "steps": (0..count).map(|id| json!({ "id": id, "kind": "pass" })).collect::<Vec<_>>() });
    assert!(compile(&passes(100), "wf").is_ok());
    assert!(compile(&passes(101), "wf").is_err());
    assert!(compile(&json!({ "name": "x".repeat(201), "steps": [{ "id": 1, "name": "a" }] }), "wf").is_err());

    let many: serde_json::Map<String, Value> = (0..5_000).map(|n| (format!("field-{n}"), Value::Null)).collect();
    assert_eq!(complaints(Value::Object(many)).len(), 101);
}

#[test]
fn what_could_not_be_read_from_the_log_is_not_let_in() {
    let nested = |levels: usize| {
        let value = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"steps":[{{"id":1,"name":"a","params":{value}}}, {{"id":2,"kind":"pass","output":{value}}}]}}"#)
    };
    let deepest = nested(kernel::storable::MAX_DEPTH - 3);
    given::<Workflow>([]).when(define(&deepest)).then([defined(1, &deepest)]);
    let hidden = r#"{"steps":[{"id":1,"name":"a","params":{"a":1,"$serde_json::private::RawValue":"x"}}]}"#;
    for body in [nested(kernel::storable::MAX_DEPTH - 2).as_str(), &nested(124), hidden] {
        let problem = Command::parse("define", body.as_bytes(), &stamp()).expect_err("unreadable later");
        assert_eq!(problem.status, 422, "{problem}");
    }
    assert_eq!(Command::parse("define", nested(126).as_bytes(), &stamp()).err().map(|p| p.status), Some(400));
}

proptest! {
    #[test]
    fn whatever_arrives_is_a_command_or_a_problem_of_the_callers(body in any_body()) {
        for spec in Command::SPECS {
            if let Err(problem) = Command::parse(spec.name, &body, &stamp()) {
                prop_assert!((400..500).contains(&problem.status), "{problem:?}");
                prop_assert!(problem.errors.iter().all(|error| error.pointer.is_empty() || error.pointer.starts_with('/')));
            }
        }
        prop_assert_eq!(Command::parse("nonsense", &body, &stamp()).err().map(|problem| problem.status), Some(404));
    }

    #[test]
    fn the_laws_hold_for_any_sequence(choices in prop::collection::vec(0..4_usize, 0..24)) {
        let nulls = r#"{"steps":[{"id":1,"kind":"pass"},{"id":2,"kind":"pass","output":null},
            {"id":3,"http":{"method":"POST","url":"https://a","body":null}},{"id":4,"wait":{"until":"2026-11-20T09:00:00.5Z"}}]}"#;
        let commands = [define(EXAMPLE), define(OTHER), define(nulls), RETIRE];
        let mut state = State::default();
        for choice in choices {
            state = assert_survives_storage(&assert_laws::<Workflow>(state, commands[choice].clone()));
            if let State::Defined(versions) | State::Retired(versions) = &state {
                let latest = *versions.last_key_value().expect("never empty").0;
                prop_assert!(versions.keys().copied().eq(latest.saturating_sub(KEPT_VERSIONS as u32 - 1).max(1)..=latest));
            }
        }
    }
}
