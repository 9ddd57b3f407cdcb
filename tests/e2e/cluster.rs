//! Three NATS servers, as a person starts them.

use serde_json::{Value, json};

use crate::stack::Stack;

fn pids(stack: &Stack) -> Vec<u64> {
    let text = std::fs::read_to_string(stack.data_dir().join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    let peers = state["nats"]["peers"].as_array().unwrap().clone();
    peers.iter().filter_map(|peer| peer["process"]["pid"].as_u64()).collect()
}

fn finding(stack: &Stack, name: &str) -> Value {
    let document = stack.run(&["doctor", "--json"]).json();
    let items = document["items"].as_array().unwrap().clone();
    items.into_iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_a_cluster_is_killed_and_whoever_asks_over_http_gets_an_answer() {
    let mut stack = Stack::up(&["--cluster", "3"]);
    assert_eq!(stack.status()["nats_servers"].as_array().unwrap().len(), 3);
    let http = stack.http();
    http.define("wf", json!([{ "id": "end", "kind": "pass", "output": "done" }])).await;
    let jetstream = stack.log().await;
    let info = jetstream.get_stream("EVENTS").await.unwrap().cached_info().clone();
    assert_eq!(info.config.num_replicas, 3);
    let leader = info.cluster.unwrap().leader.unwrap();
    let number: usize = leader.rsplit('-').next().unwrap().parse().unwrap();
    let before = pids(&stack);
    let killed = std::process::Command::new("kill").args(["-9", &before[number - 1].to_string()]).status().unwrap();
    assert!(killed.success());
    // Each asked once: `start` fails on any other answer than 201.
    let asked = (0..20).map(|n| {
        let http = http.clone();
        async move { http.start("wf", &format!("r{n}"), json!(n)).await }
    });
    futures::future::join_all(asked).await;
    for n in 0..20 {
        assert_eq!(http.run_in(&format!("r{n}"), &["completed", "failed"]).await["output"], "done");
    }
    stories::eventually("the killed server is back and healthy", async || {
        let healthy = (1..=3).all(|number| finding(&stack, &format!("nats-{number}"))["status"] == "ok");
        healthy && pids(&stack).len() == 3 && pids(&stack) != before
    })
    .await;
    assert_eq!(stack.run(&["down"]).code, 0);

    // It goes on as a cluster without being told, and not as anything else.
    let refused = stack.run(&["up", "--detach", "--port", "0", "--cluster", "1"]);
    assert!(refused.code != 0 && refused.err.contains("a cluster of 3 NATS servers"), "{}", refused.err);
    stack.flags = Vec::new();
    stack.start();
    assert_eq!(stack.http().run_in("r7", &["completed"]).await["output"], "done");
    assert_eq!(stack.run(&["projections", "verify"]).code, 0);
    assert!(stack.run(&["logs", "nats"]).out.contains("nats-3"));
}
