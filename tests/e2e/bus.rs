//! The bus doors with a stock NATS client.

use async_nats::HeaderMap;
use serde_json::{Value, json};

use crate::stack::Stack;

async fn ask(nats: &async_nats::Client, subject: &str, body: &str, id: Option<&str>) -> (u16, Value) {
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert("Airstream-Command-Id", id);
    }
    let reply = nats.request_with_headers(subject.to_owned(), headers, body.to_owned().into()).await.unwrap();
    let status = reply.headers.unwrap().get("Airstream-Status").unwrap().as_str().parse().unwrap();
    (status, serde_json::from_slice(&reply.payload).unwrap())
}

const EXAMPLE: &str = include_str!("../../examples/example-workflow.json");

#[tokio::test(flavor = "multi_thread")]
async fn the_example_workflow_runs_through_its_four_steps_and_every_door_shows_it() {
    let stack = Stack::up(&["--demo"]);
    let (nats, http) = (stack.nats().await, stack.http());
    let (status, defined) = ask(&nats, "cmd.dev.dev.workflow.wf_12345.define", EXAMPLE, Some("d1")).await;
    assert_eq!((status, &defined["accepted"], &defined["version"]), (200, &json!(true), &json!(1)), "{defined}");

    let input = json!({ "csv": include_str!("../../examples/usage.csv"), "notify": "ann@example.com" });
    let start = json!({ "workflow": "wf_12345", "input": input }).to_string();
    let first = ask(&nats, "cmd.dev.dev.run.run_1.start", &start, Some("s1")).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert!(first.1["position"].as_str().is_some_and(|position| position.starts_with("p1-")));
    assert_eq!(ask(&nats, "cmd.dev.dev.run.run_1.start", &start, Some("s1")).await, first, "another answer");

    let run = http.run_in("run_1", &["completed", "failed"]).await;
    assert_eq!(run["status"], "completed", "{run:#}");
    let text = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
    let steps = run["steps"].as_array().unwrap().iter().map(|step| (text(step, "name"), text(step, "status")));
    let names = ["validate_input", "process_data", "generate_report", "send_notification"];
    assert_eq!(steps.collect::<Vec<_>>(), names.map(|name| (name.to_owned(), "completed".to_owned())));
    // The results are real: the report's total is the sum of the records, the message is in the outbox.
    assert_eq!(run["steps"][1]["output"]["total_usd"], "4.714000000");
    let report = std::fs::read_to_string(run["steps"][2]["output"]["file"].as_str().unwrap()).unwrap();
    assert!(report.contains("| acme | llm_tokens | 50000 | 0.250000000 |"), "{report}");
    let message = std::fs::read_to_string(run["output"]["file"].as_str().unwrap()).unwrap();
    assert!(message.contains("To: ann@example.com"), "{message}");

    // Rows in Postgres, events in the log, and the command line say the same.
    let sql = "SELECT count(*) FROM runs_v1.steps WHERE run_id = 'run_1' AND status = 'completed'";
    let rows: i64 = sqlx::query_scalar(sql).fetch_one(&mut stack.postgres().await).await.unwrap();
    assert_eq!(rows, 4);
    let shown = stack.run(&["workflows", "runs", "show", "run_1"]);
    assert!(
        shown.code == 0 && shown.out.contains("completed") && shown.out.contains("send_notification"),
        "{}",
        shown.out
    );
    let tail = stack.run(&["events", "tail", "--since-start", "--count", "15", "--json"]);
    let types: Vec<Value> = tail.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(types.len(), 15, "{}{}", tail.out, tail.err);

    // A finished run takes no more, and the answer says so.
    let (status, problem) = ask(&nats, "cmd.dev.dev.run.run_1.cancel", "{}", None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("run_finished")));
    // The same id with another body is a mistake that is told.
    let other = start.replace("ann@", "bob@");
    let (status, problem) = ask(&nats, "cmd.dev.dev.run.run_1.start", &other, Some("s1")).await;
    assert_eq!((status, &problem["code"]), (422, &json!("command_id_reused")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_bad_input_is_refused_with_a_code_and_nothing_is_written() {
    let stack = Stack::up(&[]);
    let nats = stack.nats().await;
    let huge = format!("\"{}\"", "x".repeat(600 * 1024));
    let cases = [
        ("cmd.dev.dev.workflow.w.define", "{\"steps\":", 400, "malformed"),
        ("cmd.dev.dev.zebra.w.define", "{}", 404, "unknown_category"),
        ("cmd.dev.dev.workflow.w.paint", "{}", 404, "unknown_command"),
        ("cmd.dev.dev.workflow.w.define", "{\"steps\":4}", 422, "invalid"),
        (
            "cmd.dev.dev.workflow.w.define",
            "{\"steps\":[{\"id\":1,\"name\":\"a\"},{\"id\":1,\"name\":\"b\"}]}",
            422,
            "invalid",
        ),
        ("cmd.dev.dev.workflow.w.define", "{\"steps\":[{\"id\":1,\"name\":\"a\",\"timeout\":-1}]}", 422, "invalid"),
        ("cmd.dev.dev.workflow.w.define", huge.as_str(), 413, "too_large"),
        ("cmd.dev.dev.run.r.start", "{\"workflow\":\"nowhere\"}", 404, "unknown_workflow"),
        ("cmd.dev.dev.run.r.cancel", "{}", 404, "unknown_run"),
        ("cmd.dev.dev.run.r.time-out-step", "{}", 403, "internal_command"),
        ("cmd.dev.dev.workflow.w", "{}", 400, "invalid_subject"),
        ("cmd.dev.dev.workflow.w.x.define", "{}", 400, "invalid_subject"),
        ("cmd.dev.dev.workflow.w!.define", "{}", 400, "invalid_subject"),
    ];
    for (subject, body, status, code) in cases {
        let (got, problem) = ask(&nats, subject, body, None).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{subject}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{subject}: {problem}");
        assert_eq!(problem["type"], format!("urn:airstream:problem:{code}"));
    }
    let mut headers = HeaderMap::new();
    headers.insert("Airstream-Expected-Version", "many");
    let reply = nats.request_with_headers("cmd.dev.dev.workflow.w.retire", headers, "{}".into()).await.unwrap();
    let problem: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(problem["code"], "invalid_header");
    let log = stack.http().get("/v1/events").await;
    assert_eq!(log["items"], json!([]), "a refusal left something in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_program_reaches_its_own_doors_and_nothing_else() {
    let stack = Stack::up(&[]);
    let nats = stack.nats().await;
    let jetstream = async_nats::jetstream::new(nats.clone());
    for subject in [
        "ev.1.dev.run.x",
        "tasks.dev.x",
        "cmd.dev.somebody.run.x.cancel",
        "cmd.other.dev.run.x.cancel",
        "queue.other.dev.run.x.cancel",
        "feed.dev.run.run.started",
    ] {
        let published = async { jetstream.publish(subject, "{}".into()).await.ok()?.await.ok() };
        let outcome = tokio::time::timeout(std::time::Duration::from_millis(700), published).await;
        assert!(!matches!(outcome, Ok(Some(_))), "{subject} could be published");
    }
    assert!(jetstream.get_stream("EVENTS").await.is_err(), "the log could be seen");
    assert!(jetstream.delete_stream("COMMANDS").await.is_err(), "the queue could be deleted");
    // What it may do: publish to its queue, with nothing but what a stock client has for that.
    let ack = jetstream.publish("queue.dev.dev.run.nobody.cancel", "{}".into()).await.unwrap().await.unwrap();
    assert_eq!(ack.stream, "COMMANDS");
    let refused = async || stack.http().get("/v1/commands?rejected=true").await["items"].as_array().unwrap().len() == 1;
    stories::eventually("the refusal is listed", refused).await;
    let said = stack.run(&["commands", "list", "--rejected"]);
    assert!(said.code == 0 && said.out.contains("unknown_run"), "{}", said.out);
    let log = stack.log().await;
    assert_eq!(log.get_stream("EVENTS").await.unwrap().cached_info().state.messages, 1, "the refusal is an event");
    assert!(log.delete_stream("EVENTS").await.is_err(), "a reader could delete the log");
    assert!(log.publish("ev.1.dev.run.x", "{}".into()).await.unwrap().await.is_err(), "a reader could write");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_cannot_have_an_answer_written_anywhere_but_into_its_own_inbox() {
    let stack = Stack::up(&[]);
    let (nats, log) = (stack.nats().await, stack.log().await);
    let mut feed = nats.subscribe("feed.dev.>").await.unwrap();
    nats.flush().await.unwrap();
    ask(&nats, "cmd.dev.dev.workflow.wf_12345.define", EXAMPLE, None).await;
    // The server checks where one publishes, not where one wants the answer.
    let elsewhere = [
        "ev.12.dev.workflow.wf_12345",
        "queue.dev.other.run.x.cancel",
        "cmd.dev.other.workflow.wf_12345.retire",
        "tasks.dev.x",
        "feed.dev.run.run.started",
        "_INBOX.dev.other.x",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.ACK.COMMANDS.queued-commands.1.1.1.1.1",
    ];
    for reply in elsewhere {
        for asked in ["cmd.dev.dev.workflow.wf_12345.retire", "queue.dev.dev.run.r.cancel", "work.dev.dev.x"] {
            nats.publish_with_reply(asked, reply, r#"{"reason":5}"#.into()).await.unwrap();
        }
    }
    // Answered after all of those, and in the order of the log.
    let (status, answer) = ask(&nats, "cmd.dev.dev.workflow.wf_12345.define", EXAMPLE, None).await;
    assert_eq!((status, &answer["version"]), (200, &json!(1)), "{answer}");
    let (status, answer) = ask(&nats, "cmd.dev.dev.workflow.wf_12345.retire", "{}", None).await;
    assert_eq!((status, &answer["version"]), (200, &json!(2)), "{answer}");
    for wanted in ["feed.dev.workflow.workflow.defined", "feed.dev.workflow.workflow.retired"] {
        let heard = tokio::time::timeout(std::time::Duration::from_secs(10), futures::StreamExt::next(&mut feed)).await;
        assert_eq!(heard.unwrap().unwrap().subject.as_str(), wanted, "something else was on the feed");
    }
    let messages = async |stream| log.get_stream(stream).await.unwrap().cached_info().state.messages;
    assert_eq!((messages("EVENTS").await, messages("COMMANDS").await, messages("TASKS").await), (2, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_the_log_cannot_spoil_it() {
    let stack = Stack::up(&[]);
    let (nats, log) = (stack.nats().await, stack.log().await);
    ask(&nats, "cmd.dev.dev.workflow.wf_12345.define", EXAMPLE, None).await;
    // JetStream's own answers go where a reader says: they reach the log, and mean nothing there.
    let reader = log.client();
    for subject in ["$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.MSG.GET.EVENTS"] {
        let body = if subject.ends_with("GET.EVENTS") { r#"{"seq":1}"# } else { "" };
        reader.publish_with_reply(subject, "ev.12.dev.workflow.wf_12345", body.into()).await.unwrap();
    }
    let messages = async || log.get_stream("EVENTS").await.unwrap().cached_info().state.messages;
    stories::eventually("the server's answers are in the log", async || messages().await >= 3).await;
    let (status, answer) = ask(&nats, "cmd.dev.dev.workflow.wf_12345.define", EXAMPLE, None).await;
    assert_eq!((status, &answer["version"]), (200, &json!(1)), "the stream's history was spoilt: {answer}");
    let (status, answer) = ask(&nats, "cmd.dev.dev.workflow.wf_12345.retire", "{}", None).await;
    assert_eq!((status, &answer["version"]), (200, &json!(2)), "{answer}");
    // There may be no row at all yet.
    let http = stack.http();
    let retired = async || {
        let response = http.request("GET", "/v1/workflows/wf_12345").send().await.unwrap();
        let row: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        row["status"] == "retired"
    };
    stories::eventually("rows follow", retired).await;
    assert_eq!(http.get("/v1/parked").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_stored_is_refused_at_every_door() {
    let stack = Stack::up(&[]);
    let (nats, http) = (stack.nats().await, stack.http());
    http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    http.start("w", "r", json!(null)).await;
    let nul = "x\u{0}y";
    let cases = [
        ("run.n.start", json!({ "workflow": "w", "input": { "a": nul } })),
        ("run.n.start", json!({ "workflow": "w", "input": { nul: 1 } })),
        ("run.r.cancel", json!({ "reason": nul })),
        ("run.r.complete-step", json!({ "step": "1", "attempt": 1, "output": nul })),
        ("run.r.fail-step", json!({ "step": "1", "attempt": 1, "error": { "type": "t", "message": nul } })),
        ("workflow.v.define", json!({ "steps": [{ "id": 1, "kind": "pass", "output": nul }] })),
    ];
    for (subject, body) in cases {
        let (status, problem) = ask(&nats, &format!("cmd.dev.dev.{subject}"), &body.to_string(), None).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some("invalid")), "{subject}: {problem}");
    }
    let reply =
        nats.request("work.dev.dev.a", json!({ "worker": nul, "wait_ms": 50 }).to_string().into()).await.unwrap();
    let problem: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(problem["code"], "invalid", "{problem}");
    // A word for tracing that is none is left out, and stops nobody.
    let mut headers = HeaderMap::new();
    headers.insert("Airstream-Correlation-Id", "a\u{0}b");
    let reply = nats.request_with_headers("cmd.dev.dev.run.r.cancel", headers, "{}".into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(answer["accepted"], true, "{answer}");
    http.run_in("r", &["cancelled"]).await;
    for path in [
        "/v1/workflows/%00",
        "/v1/commands/%00",
        "/v1/workflows/runs/%ff",
        "/v1/workflows?cursor=%00",
        "/v1/events?from=p1-ffffffffffffffff",
    ] {
        let problem = http.json("GET", path, None, 400).await;
        assert!(problem["code"].is_string(), "{path}: {problem}");
    }
    assert_eq!(http.get("/v1/parked").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_in_over_http_lets_in_on_the_bus_and_the_feed_is_read_on_over_http() {
    let stack = Stack::up(&[]);
    let (status, http) = (stack.status(), stack.http());
    let token = status["token"].as_str().unwrap().to_owned();
    let inbox = "_INBOX.dev.dev".to_owned();
    assert!(stack.nats_as("anybody".to_owned(), format!("{token}x"), inbox.clone()).await.is_err());
    let nats = stack.nats_as("anybody".to_owned(), token, inbox).await.unwrap();
    let mut feed = nats.subscribe("feed.dev.workflow.>").await.unwrap();
    nats.flush().await.unwrap();
    let mut heard = Vec::new();
    for (command, body) in [("define", EXAMPLE), ("retire", "{}"), ("define", EXAMPLE)] {
        let (status, answer) = ask(&nats, &format!("cmd.dev.dev.workflow.wf_12345.{command}"), body, None).await;
        assert_eq!(status, 200, "{answer}");
        let message = tokio::time::timeout(std::time::Duration::from_secs(20), futures::StreamExt::next(&mut feed));
        let message = message.await.expect("an event in time").unwrap();
        let cursor = message.headers.unwrap().get("Airstream-Cursor").unwrap().to_string();
        heard.push((cursor, serde_json::from_slice::<Value>(&message.payload).unwrap()));
    }
    let page = http.get(&format!("/v1/events?from={}", heard[0].0)).await;
    let items = page["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{page}");
    for (item, (cursor, event)) in items.iter().zip(&heard[1..]) {
        assert_eq!((&item["cursor"], &item["event"]["id"]), (&json!(cursor), &event["id"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_id_from_many_clients_at_once_is_one_commit() {
    let stack = Stack::up(&[]);
    let nats = stack.nats().await;
    let asks = (0..100).map(|_| ask(&nats, "cmd.dev.dev.workflow.wf_12345.define", EXAMPLE, Some("once")));
    let answers = futures::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 200), "{answers:?}");
    let log = stack.http().get("/v1/events").await;
    assert_eq!(log["items"].as_array().unwrap().len(), 1);
}
