//! A rebuild as an operator sees it: from a second terminal, killed, given up, taken back.

use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::stack::Stack;

/// Every row of the second schema takes a while to check; the live rows are not checked again.
const SLOW: &str = "ALTER TABLE commits_v1.commits ADD CONSTRAINT slow CHECK (pg_sleep(0.2) IS NOT NULL) NOT VALID";

async fn written(commits: usize) -> Stack {
    let stack = Stack::up(&[]);
    let http = stack.http();
    for n in 0..commits {
        http.define(&format!("wf-{n}"), json!([{ "id": 1, "name": "one" }])).await;
    }
    assert_eq!(stack.run(&["projections", "verify", "commits"]).code, 0);
    stack
}

async fn sql(stack: &Stack, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut stack.postgres().await).await.unwrap();
}

async fn leftovers(stack: &Stack) -> i64 {
    let count = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '_(next|check|gone)$'";
    sqlx::query_scalar(count).fetch_one(&mut stack.postgres().await).await.unwrap()
}

fn rebuild(stack: &Stack) -> Child {
    let mut command = stack.command();
    command.args(["projections", "rebuild", "commits"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The rebuild that `projections status` shows.
fn shown(stack: &Stack) -> Value {
    let found = stack.run(&["projections", "status", "--json"]).json();
    let rows = found["items"].as_array().unwrap().iter();
    rows.filter(|row| row["consumer"] == "commits_v1").map(|row| row["fold"].clone()).next().unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_seen_from_elsewhere_refused_twice_given_up_with_ctrl_c_and_survives_a_kill() {
    let stack = written(25).await;
    sql(&stack, SLOW).await;
    // Given up with Ctrl-C: the server stops as well, and drops what it has made.
    let mut child = rebuild(&stack);
    until("it is shown", async || shown(&stack)["running"] == true).await;
    let said = stack.run(&["projections", "status"]);
    assert!(said.err.contains("commits_v1: rebuild, fold: "), "{}", said.err);
    let said = stack.run(&["projections", "rebuild", "commits"]);
    assert!(said.code == 5 && said.err.contains("already"), "{} {}", said.code, said.err);
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success() && !child.wait().unwrap().success());
    until("it is not shown any more", async || shown(&stack).is_null()).await;
    until("nothing is left of it", async || leftovers(&stack).await == 0).await;

    // Killed in the middle: what is left of it is shown as such, and the next one begins cleanly.
    let mut child = rebuild(&stack);
    until("it runs again", async || shown(&stack)["running"] == true).await;
    stack.kill();
    assert!(!child.wait().unwrap().success());
    stack.start();
    assert_eq!((shown(&stack)["running"].clone(), leftovers(&stack).await), (json!(false), 1));
    assert!(stack.run(&["projections", "status"]).err.contains("was killed"));
    sql(&stack, "ALTER TABLE commits_v1.commits DROP CONSTRAINT slow").await;
    let said = stack.run(&["projections", "rebuild", "commits", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let fold = &said.json()["items"][0];
    assert_eq!((&fold["rows"], &fold["differences"]), (&json!(25), &json!([])), "{fold}");
    assert!(fold["held_ms"].as_f64().unwrap() > 0.0);
    assert!(shown(&stack).is_null() && leftovers(&stack).await == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_taken_back_and_the_old_rows_catch_up() {
    let stack = written(3).await;
    let refused = stack.run(&["projections", "rollback", "commits"]);
    assert!(refused.code == 5 && refused.err.contains("not been rebuilt"), "{} {}", refused.code, refused.err);
    assert_eq!(stack.run(&["projections", "rebuild", "commits_v1"]).code, 0);
    assert!(stack.run(&["projections", "status"]).err.contains("kept for `rollback`"));
    let http = stack.http();
    http.define("later", json!([{ "id": 1, "name": "one" }])).await;
    assert_eq!(stack.run(&["projections", "verify", "commits"]).code, 0);
    let back = stack.run(&["projections", "rollback", "commits", "--json"]);
    assert_eq!(back.code, 0, "{}", back.err);
    assert_eq!((&back.json()["from"], &back.json()["to"]), (&json!("p1-4"), &json!("p1-3")));
    // Without another commit.
    until("it has caught up", async || {
        stack.run(&["projections", "status", "--json"]).json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["consumer"] != "commits_v1" || row["lag_events"] == 0)
    })
    .await;
    assert_eq!(stack.run(&["projections", "verify", "commits"]).code, 0);
    assert_eq!(stack.run(&["projections", "rebuild", "nobody"]).code, 3);
}
