//! Long streams and their snapshots, from outside.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::stack::Stack;

/// Longer than a page of the log: shorter streams are never loaded from a snapshot.
const VERSIONS: usize = 520;

async fn define(nats: &async_nats::Client, n: usize) -> Value {
    let document = json!({ "steps": [{ "id": 1, "name": format!("task-{n}") }] });
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Airstream-Command-Id", format!("define-{n}"));
    let subject = "cmd.dev.dev.workflow.long.define";
    let reply = nats.request_with_headers(subject, headers, document.to_string().into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

/// How often something became of a snapshot, as `/metrics` tells.
async fn outcomes(stack: &Stack, outcome: &str) -> u64 {
    let answer = stack.http().request("GET", "/metrics").send().await.unwrap().error_for_status().unwrap();
    let text = answer.text().await.unwrap();
    let line = format!("airstream_snapshots_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_is_loaded_from_its_snapshot_after_a_kill() {
    let stack = Stack::up(&[]);
    let nats = stack.nats().await;
    // One after the other by the writer, whatever the order in which they arrive.
    for chunk in (0..VERSIONS).collect::<Vec<_>>().chunks(20) {
        for answer in join_all(chunk.iter().map(|n| define(&nats, *n))).await {
            assert_eq!(answer["accepted"], true, "{answer}");
        }
    }
    stories::eventually("a snapshot is stored", async || outcomes(&stack, "stored").await == 1).await;
    let first = define(&nats, 0).await;
    stack.kill();
    stack.start();

    // The kill took the servers with it. What Postgres lost in that is folded from the log, and kept again.
    let nats = stack.nats().await;
    assert_eq!(define(&nats, 0).await, first, "a command id was forgotten");
    let answer = define(&nats, VERSIONS).await;
    assert_eq!(answer["version"], json!(VERSIONS + 1), "{answer}");
    stories::eventually("there is a snapshot", async || {
        outcomes(&stack, "used").await == 1 || outcomes(&stack, "stored").await == 1
    })
    .await;
    assert_eq!(outcomes(&stack, "refused").await, 0);

    // In an orderly restart nothing is lost.
    assert_eq!(stack.run(&["down"]).code, 0);
    stack.start();
    let nats = stack.nats().await;
    assert_eq!(define(&nats, 0).await, first, "a command id was forgotten");
    assert_eq!(define(&nats, VERSIONS + 1).await["version"], json!(VERSIONS + 2));
    // On a busy machine Postgres may not answer as soon as it has started; then it is folded, and nobody waits.
    let loaded = outcomes(&stack, "used").await + outcomes(&stack, "unreachable").await;
    assert_eq!(loaded, 1, "nobody asked for the snapshot");
    assert_eq!(outcomes(&stack, "refused").await, 0);

    // Its state remembers a few versions only; the log remembers all.
    let http = stack.http();
    let start = json!({ "run_id": "of-old", "version": 3 });
    http.json("POST", "/v1/workflows/long/runs", Some(start), 201).await;
    assert_eq!(http.run_in("of-old", &["running"]).await["definition_version"], json!(3));
    let start = json!({ "run_id": "of-never", "version": VERSIONS + 3 });
    let problem = http.json("POST", "/v1/workflows/long/runs", Some(start), 404).await;
    assert_eq!(problem["code"], "unknown_version");
}
