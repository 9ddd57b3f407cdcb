//! A small history with every kind of row, and what a wrong row looks like.

#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use serde_json::{Value, json};

use crate::log::shard;
use crate::{Evidence, Message, check};

const AT: &str = "2026-01-01T00:00:00Z";

fn message(sequence: u64, stream: &str, version: u64, events: &[(&str, Value)]) -> Message {
    let parts: Vec<&str> = stream.split('/').collect();
    let [tenant, category, subject] = parts[..] else { panic!("not a stream: {stream}") };
    let id = format!("c{sequence}");
    let events: Vec<_> = events
        .iter()
        .enumerate()
        .map(|(index, (kind, data))| {
            json!({
                "specversion": "1.0", "id": format!("{id}.{index}"), "source": format!("/{tenant}/{category}"),
                "type": kind, "subject": subject, "time": AT, "datacontenttype": "application/json",
                "dataschema": format!("urn:airstream:schema:{kind}:1"), "tenantid": tenant,
                "streamversion": version + index as u64, "commitid": id, "correlationid": id, "causationid": id,
                "actor": "ann", "command": "do", "commandhash": "00", "data": data
            })
        })
        .collect();
    let subject = format!("ev.{}.{tenant}.{category}.{subject}", shard(stream));
    Message { sequence, subject, guarded: true, payload: serde_json::to_vec(&events).unwrap() }
}

fn good() -> Evidence {
    let definition = json!({ "workflow_id": "w", "name": "A title", "steps": [
        { "id": "1", "name": "greet", "kind": { "task": { "timeout_ms": 1000, "retry": { "factor": 2.0 } } } },
        { "id": "2", "name": "2", "kind": { "pass": {} } },
    ]});
    let started = json!({ "workflow": "w", "definition_version": 1, "definition_hash": "h", "definition": definition,
        "input": { "a": 1 } });
    let step = |attempt: u32, more: Value| {
        let mut data = json!({ "step": "1", "attempt": attempt });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    let log = vec![
        message(
            1,
            "t/workflow/w",
            1,
            &[(
                "workflow.defined",
                json!({ "version": 1, "hash": "h", "document": { "steps": [] }, "definition": definition }),
            )],
        ),
        message(
            2,
            "t/run/r",
            1,
            &[("run.started", started), ("run.step_scheduled", step(1, json!({ "kind": "task", "name": "greet" })))],
        ),
        message(3, "t/run/r", 3, &[("run.step_started", step(1, json!({ "worker": "x", "deadline": AT })))]),
        message(
            4,
            "t/run/r",
            4,
            &[
                ("run.step_timed_out", step(1, json!({}))),
                ("run.step_retry_scheduled", step(2, json!({ "due_at": AT, "delay_ms": 5 }))),
            ],
        ),
        message(5, "t/run/r", 6, &[("run.step_scheduled", step(2, json!({ "kind": "task", "name": "greet" })))]),
        message(
            6,
            "t/run/r",
            7,
            &[
                ("run.step_completed", step(2, json!({ "output": [1, 2] }))),
                ("run.step_completed", json!({ "step": "2", "attempt": 1, "output_of": { "step": "1" } })),
                ("run.completed", json!({ "output": [1, 2] })),
            ],
        ),
        message(7, "t/workflow/w", 2, &[("workflow.retired", json!({}))]),
        message(
            8,
            "t/inbox/q",
            1,
            &[(
                "inbox.command_rejected",
                json!({ "command_id": "x", "category": "run", "id": "g", "command": "cancel", "principal": "ann",
                "status": 404, "code": "unknown_run", "detail": "No.", "taken_at": AT }),
            )],
        ),
        message(9, "t/inbox/q", 2, &[("inbox.command_dismissed", json!({}))]),
    ];
    // As Postgres writes them.
    let at = "2026-01-01T00:00:00+00:00";
    let commit = |(sequence, category, id, version, types): (u64, &str, &str, u64, Value)| {
        json!({ "tenant_id": "t", "category": category, "stream_id": id, "commit_id": format!("c{sequence}"),
            "position": sequence, "version": version, "command": "do", "actor": "ann", "types": types, "decided_at": at })
    };
    let commits = [
        (1, "workflow", "w", 1, json!(["workflow.defined"])),
        (2, "run", "r", 2, json!(["run.started", "run.step_scheduled"])),
        (3, "run", "r", 3, json!(["run.step_started"])),
        (4, "run", "r", 5, json!(["run.step_timed_out", "run.step_retry_scheduled"])),
        (5, "run", "r", 6, json!(["run.step_scheduled"])),
        (6, "run", "r", 9, json!(["run.step_completed", "run.step_completed", "run.completed"])),
        (7, "workflow", "w", 2, json!(["workflow.retired"])),
        (8, "inbox", "q", 1, json!(["inbox.command_rejected"])),
        (9, "inbox", "q", 2, json!(["inbox.command_dismissed"])),
    ];
    let run = json!({ "tenant_id": "t", "run_id": "r", "workflow_id": "w", "definition_version": 1, "status": "completed",
        "input": { "a": 1 }, "output": [1, 2], "error": null, "current_step": null, "started_by": "ann", "started_at": at,
        "finished_at": at, "version": 9, "started_position": 2, "position": 6 });
    let one = json!({ "tenant_id": "t", "run_id": "r", "step_id": "1", "ordinal": 0, "name": "greet", "kind": "task",
        "status": "completed", "attempt": 2, "worker": null, "output": [1, 2],
        "error": { "type": "timeout", "message": "no result before its deadline" }, "due_at": null, "deadline": null,
        "scheduled_at": at, "started_at": null, "finished_at": at });
    let two = json!({ "tenant_id": "t", "run_id": "r", "step_id": "2", "ordinal": 1, "name": "2", "kind": "pass",
        "status": "completed", "attempt": 1, "worker": null, "output": [1, 2], "error": null, "due_at": null,
        "deadline": null, "scheduled_at": null, "started_at": null, "finished_at": at });
    let rejected = json!({ "tenant_id": "t", "inbox_id": "q", "command_id": "x", "category": "run", "stream_id": "g",
        "command": "cancel", "principal": "ann", "status": 404, "code": "unknown_run", "detail": "No.", "body": null,
        "taken_at": at, "dismissed": true, "position": 8 });
    let defined = json!({ "tenant_id": "t", "workflow_id": "w", "version": 1, "hash": "h", "document": { "steps": [] },
        "definition": definition, "defined_at": at, "defined_by": "ann" });
    let workflow = json!({ "tenant_id": "t", "workflow_id": "w", "latest_version": 1, "name": "A title",
        "status": "retired", "changed_at": at, "position": 7 });
    let rows = [
        ("commits_v1.commits", commits.map(commit).to_vec()),
        ("runs_v1.runs", vec![run]),
        ("runs_v1.steps", vec![one, two]),
        ("inbox_v1.rejected", vec![rejected]),
        ("workflows_v1.definitions", vec![defined]),
        ("workflows_v1.workflows", vec![workflow]),
    ];
    let rows = rows.into_iter().map(|(table, rows)| (table.to_owned(), rows)).collect();
    Evidence { log, rows, ..Evidence::default() }
}

#[test]
fn rows_that_equal_the_fold_are_good() {
    assert_eq!(check(&good()), []);
    assert_eq!(good().rows.len(), crate::TABLES.len(), "a table has no test");
}

/// Whatever a column says, another value in it is caught, in every table.
#[test]
fn a_wrong_column_is_caught_wherever_it_is() {
    let tables: Vec<String> = good().rows.into_keys().collect();
    for table in tables {
        let columns: Vec<String> = good().rows[&table][0].as_object().unwrap().keys().cloned().collect();
        for column in columns {
            let mut evidence = good();
            evidence.rows.get_mut(&table).unwrap()[0][&column] = json!("something else");
            let found = check(&evidence);
            assert!(!found.is_empty(), "`{table}`.`{column}` can say anything");
            assert!(found.iter().all(|violation| violation.law == super::LAW), "{found:#?}");
        }
    }
}

#[test]
fn a_row_that_is_missing_doubled_or_made_up_is_caught() {
    let tables: Vec<String> = good().rows.into_keys().collect();
    for table in tables {
        let mut missing = good();
        missing.rows.get_mut(&table).unwrap().pop();
        assert_eq!(check(&missing).len(), 1, "`{table}` may lose a row");
        let mut doubled = good();
        let rows = doubled.rows.get_mut(&table).unwrap();
        rows.push(rows[0].clone());
        assert_eq!(check(&doubled).len(), 1, "`{table}` may have a row twice");
        let mut made_up = good();
        let rows = made_up.rows.get_mut(&table).unwrap();
        rows.push(rows[0].clone());
        rows.last_mut().unwrap()["tenant_id"] = json!("somebody");
        assert_eq!(check(&made_up).len(), 1, "`{table}` may have rows from nowhere");
    }
    let mut unknown = good();
    unknown.rows.insert("dreams".to_owned(), Vec::new());
    assert_eq!(check(&unknown).len(), 1);
}
