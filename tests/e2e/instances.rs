//! Several processes share the work: evenly, in turn, and without a gap that a caller would notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stories::eventually;

use crate::serving::{Serving, Shared, leases};
use crate::stack::Http;

fn shards(leases: &[String]) -> usize {
    leases.iter().filter(|name| name.starts_with("shard/")).count()
}

async fn nap(http: &Http) {
    http.define("wf", json!([{ "id": "nap", "wait": 0.1 }, { "id": "end", "kind": "pass", "output": "done" }])).await;
}

async fn rows_are_as_the_log_says(http: &Http) {
    for name in ["commits", "workflows", "runs"] {
        let path = format!("/v1/projections/{name}/verify");
        let said = http.request("POST", &path).send().await.unwrap().text().await.unwrap();
        assert!(said.contains(r#""differences":[]"#), "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_paused_is_replaced_and_says_so_when_it_wakes() {
    let shared = Shared::new(1_000).await;
    let (one, other) = (shared.serve("one").await, shared.serve("other").await);
    let (me, you) = (one.instance(), other.instance());
    eventually("the shards are shared", async || {
        shards(&leases(&one.http, &me).await) == 8 && shards(&leases(&one.http, &you).await) == 8
    })
    .await;
    nap(&one.http).await;
    let reactor = "reactor/workflow-steps".to_owned();
    let (asleep, awake) = if leases(&one.http, &me).await.contains(&reactor) { (&one, &other) } else { (&other, &one) };
    for n in 0..8 {
        awake.http.start("wf", &format!("before{n}"), json!(n)).await;
    }
    let mut everything = [leases(&one.http, &me).await, leases(&one.http, &you).await].concat();
    everything.sort();
    asleep.signal("STOP");
    // Whatever shard they belong to, and whoever had the timers.
    for n in 0..8 {
        awake.http.start("wf", &format!("during{n}"), json!(n)).await;
    }
    for n in 0..8 {
        awake.http.run_in(&format!("during{n}"), &["completed"]).await;
        awake.http.run_in(&format!("before{n}"), &["completed"]).await;
    }
    eventually("the awake one has everything", async || {
        let mut held = leases(&awake.http, &awake.instance()).await;
        held.sort();
        held == everything
    })
    .await;

    asleep.signal("CONT");
    eventually("it says what happened to it", async || asleep.said("has not run").is_some()).await;
    eventually("it has its share again", async || shards(&leases(&awake.http, &asleep.instance()).await) == 8).await;
    for n in 0..8 {
        let http = if n % 2 == 0 { &one.http } else { &other.http };
        http.start("wf", &format!("after{n}"), json!(n)).await;
    }
    for n in 0..8 {
        one.http.run_in(&format!("after{n}"), &["completed"]).await;
    }
    rows_are_as_the_log_says(&other.http).await;
}

/// Sends a command until it is answered, as every client should: the same id, after a pause. Only what says "not now" may be
/// met on the way.
async fn until_answered(
    nats: &async_nats::Client,
    subject: &str,
    body: &Value,
    id: &str,
    detours: &AtomicU64,
) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Airstream-Command-Id", id);
        let request = async_nats::Request::new().headers(headers).payload(body.to_string().into());
        let said = match nats.send_request(subject.to_owned(), request).await {
            Ok(reply) => {
                let document: Value = serde_json::from_slice(&reply.payload).unwrap();
                if document["accepted"] == true {
                    return document;
                }
                assert!(matches!(document["status"].as_u64(), Some(429 | 503)), "{subject}: {document}");
                document.to_string()
            }
            Err(error) => error.to_string(),
        };
        detours.fetch_add(1, Ordering::Relaxed);
        assert!(Instant::now() < until, "{subject} was not answered: {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_is_no_error_to_a_client_that_asks_again() {
    let shared = Arc::new(Shared::new(2_000).await);
    let mut processes: Vec<Serving> = vec![shared.serve("one").await, shared.serve("other").await];
    nap(&processes[0].http).await;
    let credentials = &shared.servers.credentials;
    let options =
        async_nats::ConnectOptions::with_user_and_password(credentials.user.clone(), credentials.password.clone());
    let nats = options.custom_inbox_prefix("_INBOX.dev.dev").connect(&shared.servers.nats_url).await.unwrap();
    let (stop, detours) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (nats, stop, detours) = (nats.clone(), Arc::clone(&stop), Arc::clone(&detours));
            tokio::spawn(async move {
                let mut started: u64 = 0;
                while !stop.load(Ordering::Relaxed) {
                    let subject = format!("cmd.dev.dev.run.r{client}_{started}.start");
                    let body = json!({ "workflow": "wf", "input": started });
                    until_answered(&nats, &subject, &body, &format!("c{client}_{started}"), &detours).await;
                    started += 1;
                }
                started
            })
        })
        .collect();
    for round in 0..2 {
        for (index, process) in processes.iter_mut().enumerate() {
            let next = shared.serve(&format!("{round}{index}")).await;
            std::mem::replace(process, next).stop();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = 0;
    for (client, running) in clients.into_iter().enumerate() {
        let started = running.await.unwrap();
        all += started;
        for n in 0..started {
            processes[0].http.run_in(&format!("r{client}_{n}"), &["completed"]).await;
        }
    }
    assert!(all >= 8, "{all} runs, and {} detours", detours.load(Ordering::Relaxed));
    rows_are_as_the_log_says(&processes[1].http).await;
}
