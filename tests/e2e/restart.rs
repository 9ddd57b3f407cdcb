//! Everything is killed somewhere, and goes on.

use serde_json::{Value, json};

use crate::stack::Stack;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_after_a_stop_and_after_a_kill_in_the_middle_of_a_step() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("wf", json!([{ "id": 1, "name": "one", "timeout": 60 }, { "id": 2, "name": "two", "timeout": 60 }]))
        .await;
    http.start("wf", "r1", json!({ "n": 1 })).await;
    // A worker has the first step in hand when the stack is stopped.
    let task = take(&stack, "one").await;
    assert_eq!((&task["run"], &task["attempt"], &task["input"]), (&json!("r1"), &json!(1), &json!({ "n": 1 })));
    let down = stack.run(&["down"]);
    assert_eq!(down.code, 0, "{}", down.err);
    assert_eq!(stack.run(&["status"]).code, 8);
    stack.start();
    report(&stack, &task, json!("first")).await;
    // And the second one when it is killed.
    let task = take(&stack, "two").await;
    assert_eq!(task["previous"], json!("first"));
    stack.kill();
    stack.start();
    report(&stack, &task, json!("second")).await;
    let run = stack.http().run_in("r1", &["completed"]).await;
    assert_eq!(run["output"], "second");
    // No attempt was burnt by all this, and rows equal the log.
    assert!(run["steps"].as_array().unwrap().iter().all(|step| step["attempt"] == 1), "{run:#}");
    assert_eq!(stack.run(&["projections", "verify"]).code, 0);
}

/// The next task of a name, as a worker asks for it.
async fn take(stack: &Stack, name: &str) -> Value {
    let nats = stack.nats().await;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let reply = nats.request(format!("work.dev.dev.{name}"), r#"{"wait_ms":3000}"#.into()).await.unwrap();
        let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
        if !reply["task"].is_null() {
            return reply["task"].clone();
        }
        assert!(std::time::Instant::now() < until, "no task `{name}`: {reply}");
    }
}

async fn report(stack: &Stack, task: &Value, output: Value) {
    let nats = stack.nats().await;
    let subject = format!("cmd.dev.dev.run.{}.complete-step", task["run"].as_str().unwrap());
    let body = json!({ "step": task["step"], "attempt": task["attempt"], "output": output });
    let reply = nats.request(subject, body.to_string().into()).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply["accepted"], true, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_on_time_also_when_the_stack_was_killed_meanwhile() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("waiting", json!([{ "id": "nap", "wait": 3 }, { "id": "end", "kind": "pass", "output": "awake" }]))
        .await;
    http.start("waiting", "w1", json!(null)).await;
    http.run_in("w1", &["running"]).await;
    stack.kill();
    stack.start();
    let run = stack.http().run_in("w1", &["completed"]).await;
    assert_eq!(run["output"], "awake");
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let waited = time(&run["finished_at"]) - time(&run["started_at"]);
    assert!(waited.num_milliseconds() >= 3_000, "the wait ended after {waited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_is_noticed_by_the_deadline_and_another_one_gets_the_step() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("wf", json!([{ "id": 1, "name": "fragile", "timeout": 0.5, "retry": { "delay": 0.1 } }])).await;
    http.start("wf", "r1", json!(null)).await;
    let lost = take(&stack, "fragile").await;
    let again = take(&stack, "fragile").await;
    assert_eq!((&lost["attempt"], &again["attempt"]), (&json!(1), &json!(2)));
    assert_eq!(lost["idempotency_key"], again["idempotency_key"], "two attempts must be able to act once");
    report(&stack, &again, json!("done")).await;
    assert_eq!(http.run_in("r1", &["completed", "failed"]).await["output"], "done");
    // The dead worker's late result changes nothing.
    let nats = stack.nats().await;
    let body = json!({ "step": "1", "attempt": 1, "output": "late" }).to_string();
    let reply = nats.request("cmd.dev.dev.run.r1.complete-step", body.into()).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply["status"], 409, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_went_away_while_it_waited_costs_no_attempt_and_no_time() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("wf", json!([{ "id": 1, "name": "lonely", "timeout": 60 }])).await;
    // It asks, and nobody listens for the answer by the time there is something to do.
    let gone = stack.nats().await;
    let asking = r#"{"worker":"gone","wait_ms":30000}"#;
    gone.publish_with_reply("work.dev.dev.lonely", gone.new_inbox(), asking.into()).await.unwrap();
    gone.flush().await.unwrap();
    http.start("wf", "r1", json!(null)).await;
    let task = take(&stack, "lonely").await;
    assert_eq!(task["attempt"], 1, "the absent worker took an attempt with it");
    report(&stack, &task, json!("done")).await;
    http.run_in("r1", &["completed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_worker_is_told_at_once_when_the_stack_stops() {
    let stack = Stack::up(&[]);
    let nats = stack.nats().await;
    let jetstream = stack.log().await;
    let asked = tokio::spawn(async move { nats.request("work.dev.dev.idle", r#"{"wait_ms":60000}"#.into()).await });
    // The door has its request in hand once it reads the queue on its behalf.
    let reads = async || jetstream.get_stream("TASKS").await.unwrap().cached_info().state.consumer_count == 1;
    stories::eventually("it waits", reads).await;
    let began = std::time::Instant::now();
    assert_eq!(stack.run(&["down"]).code, 0);
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "a waiting worker held the stop up");
    let reply: Value = serde_json::from_slice(&asked.await.unwrap().unwrap().payload).unwrap();
    assert_eq!(reply, json!({ "task": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_and_a_killed_postgres_come_back_and_nothing_is_lost() {
    let stack = Stack::up(&["--demo"]);
    let http = stack.http();
    let document: Value = serde_json::from_str(include_str!("../../examples/example-workflow.json")).unwrap();
    http.json("PUT", "/v1/workflows/wf_12345", Some(document), 200).await;
    let state: Value =
        serde_json::from_str(&std::fs::read_to_string(stack.data_dir().join("state.json")).unwrap()).unwrap();
    let input = json!({ "csv": include_str!("../../examples/usage.csv") });
    for (round, server) in ["nats", "postgres"].into_iter().enumerate() {
        for n in 0..10 {
            let run = format!("r{round}-{n}");
            if n == 5 {
                let pid = pid_of(&state, server);
                assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            }
            // A client that retries with the same key, as clients should.
            let body = json!({ "input": input, "run_id": run });
            stories::eventually("the run is accepted", async || {
                let request = http.request("POST", "/v1/workflows/wf_12345/runs").header("idempotency-key", &run);
                let sent = request.header("content-type", "application/json").body(body.to_string()).send().await;
                sent.is_ok_and(|response| response.status().as_u16() == 201)
            })
            .await;
        }
        for n in 0..10 {
            let run = http.run_in(&format!("r{round}-{n}"), &["completed", "failed"]).await;
            assert_eq!(run["status"], "completed", "{server}: {run:#}");
        }
    }
    let verified = stack.run(&["projections", "verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

fn pid_of(state: &Value, server: &str) -> String {
    let text = state.to_string();
    let found = state.pointer(&format!("/{server}/process/pid"));
    found.and_then(Value::as_u64).unwrap_or_else(|| panic!("no pid of {server} in {text}")).to_string()
}
