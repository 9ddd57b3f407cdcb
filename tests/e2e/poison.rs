//! Poison as an operator sees it: parked, seen at every door, mended, released.

use serde_json::{Value, json};

use crate::stack::Stack;

async fn sql(stack: &Stack, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut stack.postgres().await).await.unwrap();
}

fn listed(stack: &Stack, arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = ["parked", "list", "--json"].into_iter().chain(arguments.iter().copied()).collect();
    stack.run(&arguments).json()["items"].as_array().unwrap().clone()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_seen_at_every_door_and_after_the_fix_rows_are_complete_and_in_order() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let steps = json!([{ "id": "a", "pass": true }, { "id": "b", "pass": true }]);
    for workflow in ["good", "bad"] {
        http.define(workflow, json!([{ "id": "a", "name": "one" }])).await;
    }
    // Somebody has put a constraint on a table that the projection does not know of.
    sql(&stack, "ALTER TABLE runs_v1.runs ADD CONSTRAINT nothing_bad CHECK (workflow_id <> 'bad')").await;
    for run in ["bad-1", "bad-2"] {
        http.start("bad", run, json!({ "steps": steps })).await;
        let cancel = format!("/v1/workflows/runs/{run}/cancel");
        http.json("POST", &cancel, Some(json!({ "reason": "enough" })), 200).await;
    }
    http.start("good", "good-1", json!({})).await;
    // The other stream goes on.
    http.run_in("good-1", &["running"]).await;

    until("both streams are parked", async || listed(&stack, &["--consumer", "runs_v1"]).len() >= 4).await;
    let parked = listed(&stack, &[]);
    let causes: Vec<&Value> = parked.iter().filter(|row| row["state"] == "cause").collect();
    assert!(causes.len() == 2 && causes[0]["reason"].as_str().unwrap().contains("nothing_bad"), "{causes:?}");
    assert!(listed(&stack, &["--consumer", "commits_v1"]).is_empty());
    // Page by page, over HTTP.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/v1/parked?limit=1{cursor}")).await;
        seen.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, parked);
    http.json("GET", "/v1/parked?limit=0", None, 400).await;
    let status = stack.run(&["projections", "status", "--json"]).json();
    let row = status["items"].as_array().unwrap().iter().find(|row| row["consumer"] == "runs_v1").unwrap();
    assert!(row["parked"] == parked.len() && row["parked_since"].is_string() && row["lag_events"] == 0, "{row}");
    until("metrics tell", async || {
        let text = http.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains("runs_v1"))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        value("airstream_consumer_parked_streams") == Some(2.0)
            && value("airstream_consumer_parked_seconds").is_some_and(|waiting| waiting > 0.0)
    })
    .await;
    assert_eq!(stack.run(&["projections", "verify", "runs"]).code, 6);
    // A rebuild leaves out what is parked, and finishes.
    assert_eq!(stack.run(&["projections", "rebuild", "runs"]).code, 0);
    let id = causes[0]["id"].as_str().unwrap();
    assert!(stack.run(&["parked", "show", id]).out.contains("nothing_bad"));
    assert_eq!(stack.run(&["parked", "show", "runs_v1@9999"]).code, 3);

    // One too early: it stays, with one more try. Then the fix, and everything at once.
    assert_eq!(stack.run(&["parked", "retry", id]).code, 0);
    until("it was tried", async || listed(&stack, &[]).iter().any(|row| row["id"] == id && row["tries"] == 2)).await;
    assert_eq!(stack.run(&["parked", "retry"]).code, 2);
    assert_eq!(stack.run(&["parked", "retry", id, "--all"]).code, 2);
    http.json("POST", "/v1/parked/retry", Some(json!({})), 422).await;
    sql(&stack, "ALTER TABLE runs_v1.runs DROP CONSTRAINT nothing_bad").await;
    let said = stack.run(&["parked", "retry", "--all", "--consumer", "runs_v1", "--json"]);
    assert_eq!((said.code, &said.json()["released"]), (0, &json!(parked.len())), "{}", said.err);
    until("nothing is parked", async || listed(&stack, &["--all"]).is_empty()).await;
    for run in ["bad-1", "bad-2"] {
        let run = http.run_in(run, &["cancelled"]).await;
        assert_eq!(run["steps"][0]["status"], "cancelled", "{run:#}");
    }
    assert_eq!(stack.run(&["projections", "verify"]).code, 0);
}
