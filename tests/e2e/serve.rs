//! `serve` and `migrate` against servers that are somebody else's.

use serde_json::json;

use crate::serving::Shared;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_external_servers_and_either_may_go() {
    let shared = Shared::new(5_000).await;
    let (first, second) = (shared.serve("first").await, shared.serve("second").await);
    let (one, other) = (first.http.clone(), second.http.clone());
    one.define("wf", json!([{ "id": "nap", "wait": 0.2 }, { "id": "end", "kind": "pass", "output": "done" }])).await;
    for n in 0..6 {
        let http = if n % 2 == 0 { &one } else { &other };
        http.start("wf", &format!("r{n}"), json!(n)).await;
    }
    // Whichever of them owns projections and reactor: the other one takes over.
    drop(first);
    for n in 6..12 {
        other.start("wf", &format!("r{n}"), json!(n)).await;
    }
    for n in 0..12 {
        assert_eq!(other.run_in(&format!("r{n}"), &["completed", "failed"]).await["output"], "done");
    }
    // A user whom the server lets publish anywhere still cannot be somebody else.
    let servers = &shared.servers;
    let options = async_nats::ConnectOptions::with_user_and_password(
        servers.credentials.user.clone(),
        servers.credentials.password.clone(),
    );
    let nats = options.connect(&servers.nats_url).await.unwrap();
    for (subject, code) in [
        ("cmd.stranger.ann.run.x.cancel", "unknown_tenant"),
        ("cmd.dev.airstream.run.r1.time-out-step", "reserved_principal"),
        ("work.stranger.ann.x", "unknown_tenant"),
    ] {
        let asked: Vec<&str> = subject.split('.').collect();
        let inbox = format!("_INBOX.{}.{}.x", asked[1], asked[2]);
        let request = async_nats::Request::new().inbox(inbox).payload("{}".into());
        let reply = nats.send_request(subject, request).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(problem["code"], code, "{subject}: {problem}");
    }
    for name in ["commits", "workflows", "runs"] {
        let path = format!("/v1/projections/{name}/verify");
        let said = other.request("POST", &path).send().await.unwrap().text().await.unwrap();
        assert!(said.contains(r#""differences":[]"#), "{name}: {said}");
    }
    drop(second);
}
