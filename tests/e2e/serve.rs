//! `serve` and `migrate` against servers that are somebody else's.

use std::process::{Child, Stdio};

use serde_json::json;
use stories::Servers;

use crate::stack::{Http, Stack};

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_external_servers_and_either_may_go() {
    let servers = Servers::fresh().await.unwrap();
    let stack = Stack::stopped();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let environment = [
        ("AIRSTREAM__NATS__URL", servers.nats_url.clone()),
        ("AIRSTREAM__NATS__USER", servers.credentials.user.clone()),
        ("AIRSTREAM__NATS__PASSWORD", servers.credentials.password.clone()),
        ("AIRSTREAM__POSTGRES__URL", servers.postgres_url.clone()),
        ("AIRSTREAM__DEVELOPMENT__TOKEN", "a-token-for-tests".to_owned()),
    ];
    let migrated = stack.command().envs(environment.clone()).args(["migrate", "--status"]).output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));

    let serve = || {
        let port = free_port();
        let mut command = stack.command();
        command.envs(environment.clone()).env("AIRSTREAM__HTTP__BIND", format!("127.0.0.1:{port}"));
        let child = command.arg("serve").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (client, url) = (reqwest::Client::new(), format!("http://127.0.0.1:{port}"));
        (Serving(child), Http { client, url, token: Some("a-token-for-tests".into()) })
    };
    let ready = async |http: &Http| {
        let probe =
            async || http.request("GET", "/readyz").send().await.is_ok_and(|answer| answer.status().is_success());
        stories::eventually("it is ready", probe).await;
    };
    let ((first, one), (second, other)) = (serve(), serve());
    ready(&one).await;
    ready(&other).await;
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
        let reply = nats.request(subject, "{}".into()).await.unwrap();
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
