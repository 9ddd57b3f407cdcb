//! The HTTP door.

use futures::StreamExt;
use serde_json::{Value, json};

use crate::stack::{Http, Stack};

/// What anybody may ask. A route that is not here asks who it is.
const OPEN: &[&str] = &[
    "/livez",
    "/readyz",
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource",
    "/v1/auth/register",
    "/v1/auth/verify-email",
    "/v1/auth/verify-email/resend",
    "/v1/auth/login",
    "/v1/auth/refresh",
    "/v1/auth/logout",
    "/v1/auth/password/forgot",
    "/v1/auth/password/reset",
    "/v1/auth/device",
    "/v1/auth/token",
    "/device",
    "/v1/auth/oauth",
    "/v1/auth/oauth/continue",
    "/v1/auth/oauth/{provider}/start",
    "/v1/auth/oauth/{provider}/callback",
    "/v1/auth/password/forgot",
    "/v1/auth/password/reset",
    "/v1/auth/device",
    "/v1/auth/token",
    "/device",
    // Only a development stack has these.
    "/mailbox",
    "/mailbox/{name}",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_route_is_open_but_those_that_are_meant_to_be() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let description = http.get("/openapi.json").await;
    let (strangers, wrong) =
        (Http { token: None, ..http.clone() }, Http { token: Some("guess".into()), ..http.clone() });
    let mut seen = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            seen += 1;
            let open = OPEN.contains(&path.as_str());
            assert_eq!(operation["security"] == json!([{}]), open, "{method} {path}: {}", operation["security"]);
            let real = path.replace("{user_code}", "BCDF-GHJK").replace("{provider}", "github");
            let real = real.replace("{id}", "x").replace("{name}", "runs");
            for door in [&strangers, &wrong].into_iter().filter(|_| !open) {
                let problem = door.json(&method.to_uppercase(), &real, None, 401).await;
                assert_eq!(problem["code"], "unauthenticated", "{method} {path}");
            }
        }
    }
    assert!(seen >= 30, "the description lists only {seen} routes");
    for path in ["/metrics", "/v1/nowhere"] {
        strangers.json("GET", path, None, 401).await;
    }
    assert_eq!(http.json("GET", "/v1/nowhere", None, 404).await["code"], "unknown_route");
    assert_eq!(http.json("DELETE", "/v1/workflows", None, 405).await["code"], "method_not_allowed");
    let metrics = http.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("airstream_consumer_checkpoint_sequence"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_over_http_are_the_same_commands() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let body = json!({ "category": "workflow", "id": "w", "command": "define", "body": { "steps": [{ "id": 1, "name": "a" }] } });
    let send = async |key: &str, body: &Value| {
        let request = http.request("POST", "/v1/commands").header("idempotency-key", key);
        let response = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        let repeated = response.headers().contains_key("airstream-repeated");
        let status = response.status().as_u16();
        (status, serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap(), repeated)
    };
    let (status, first, repeated) = send("\"k 1\"".replace(' ', "-").as_str(), &body).await;
    assert_eq!((status, repeated), (200, false), "{first}");
    assert_eq!(send("k-1", &body).await, (200, first.clone(), true), "the quoted key is the same key");
    let (status, problem, _) = send("k-1", &json!({ "category": "workflow", "id": "w", "command": "retire" })).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("idempotency_key_reused")));

    // Read your own write, by its position.
    let position = first["position"].as_str().unwrap();
    let shown = http.get(&format!("/v1/workflows/w?at_least={position}")).await;
    assert_eq!((&shown["version"], &shown["document"]["steps"][0]["name"]), (&json!(1), &json!("a")));
    let never = http.json("GET", "/v1/workflows/w?at_least=p1-ffff", None, 400).await;
    assert_eq!(never["code"], "invalid_position", "nobody waits for what was never given out");
    // Rows that are late, because somebody holds their table.
    let mut postgres = stack.postgres().await;
    let lock = "BEGIN; LOCK TABLE workflows_v1.workflows IN EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut postgres).await.unwrap();
    let other = json!({ "steps": [{ "id": 1, "name": "b" }] });
    let later = http.json("PUT", "/v1/workflows/other", Some(other), 200).await;
    let path = format!("/v1/workflows/other?at_least={}", later["position"].as_str().unwrap());
    assert_eq!(http.json("GET", &path, None, 504).await["code"], "not_yet_visible");
    sqlx::raw_sql("ROLLBACK").execute(&mut postgres).await.unwrap();
    assert_eq!(http.get(&path).await["document"]["steps"][0]["name"], "b");
    let found = http.get("/v1/commands/k-1").await;
    assert_eq!(found["commits"][0]["types"], json!(["workflow.defined"]));

    // A run started without an id gets one that follows from the key.
    let start = async |expected: u16| {
        let request = http.request("POST", "/v1/workflows/w/runs").header("idempotency-key", "go");
        let response =
            request.header("content-type", "application/json").body(r#"{"input":[1.5,"x"]}"#).send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
        response.json::<Value>().await.unwrap()
    };
    let started = start(201).await;
    assert_eq!(start(201).await, started);
    let run = http.run_in(started["run_id"].as_str().unwrap(), &["running"]).await;
    assert_eq!(run["input"], json!([1.5, "x"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_problem_documents() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let cases = [
        ("GET", "/v1/workflows?limit=0", "", 400, "invalid_query"),
        ("GET", "/v1/workflows?limit=many", "", 400, "invalid_query"),
        ("GET", "/v1/workflows?colour=red", "", 400, "invalid_query"),
        ("GET", "/v1/workflows/runs?cursor=42", "", 400, "invalid_position"),
        ("GET", "/v1/workflows/runs?status=asleep", "", 400, "invalid_query"),
        ("GET", "/v1/workflows/runs/none", "", 404, "unknown_run"),
        ("GET", "/v1/events?from=yesterday", "", 400, "invalid_position"),
        ("GET", "/v1/events?stream=x", "", 400, "invalid_query"),
        ("GET", "/v1/events/p1-ff", "", 404, "not_found"),
        ("POST", "/v1/commands", "{", 400, "malformed"),
        ("POST", "/v1/commands", r#"{"category":"run"}"#, 422, "invalid"),
        ("POST", "/v1/commands", r#"{"category":"a b","id":"x","command":"y"}"#, 400, "invalid_name"),
        ("PUT", "/v1/workflows/a.b", "{}", 400, "invalid_name"),
        ("PUT", "/v1/workflows/w", r#"{"workflow_id":"other","steps":[{"id":1,"name":"a"}]}"#, 422, "invalid"),
        ("POST", "/v1/workflows/w/runs", "{}", 404, "unknown_workflow"),
        ("POST", "/v1/projections/nothing/rebuild", "", 404, "unknown_projection"),
        ("POST", "/v1/parked/retry", r#"{"id":"runs_v1@7"}"#, 404, "not_found"),
    ];
    for (method, path, body, status, code) in cases {
        let mut request = http.request(method, path);
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.unwrap();
        let (got, kind) = (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap().to_owned());
        assert!(response.headers().contains_key("x-request-id"));
        let problem: Value = response.json().await.unwrap();
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{method} {path}: {problem}");
        assert_eq!(kind, "application/problem+json");
    }
    let request = http.request("POST", "/v1/commands").header("content-type", "text/plain").body("{}");
    assert_eq!(request.send().await.unwrap().status().as_u16(), 415);
    let huge = "x".repeat(2 * 1024 * 1024);
    let request = http.request("POST", "/v1/commands").header("content-type", "application/json").body(huge);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 413);
}

/// The next event of a stream: its id and its type.
async fn next(
    stream: &mut (impl futures::Stream<Item = reqwest::Result<impl AsRef<[u8]>>> + Unpin),
    text: &mut String,
) -> (String, String) {
    loop {
        if let Some((frame, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            let found = (field("id:"), field("event:"));
            *text = rest.to_owned();
            if !found.1.is_empty() {
                return found;
            }
            continue;
        }
        let chunk =
            tokio::time::timeout(std::time::Duration::from_secs(20), stream.next()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(chunk.unwrap().unwrap().as_ref()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_resumes_where_it_left_off_also_inside_a_commit() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    http.start("w", "r", json!(null)).await;
    let open = async |id: &str, query: &str| {
        let request = http.request("GET", &format!("/v1/events{query}")).header("accept", "text/event-stream");
        let request = if id.is_empty() { request } else { request.header("last-event-id", id) };
        request.send().await.unwrap().bytes_stream()
    };
    let (mut stream, mut text) = (open("", "?from=p1-0").await, String::new());
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(next(&mut stream, &mut text).await);
    }
    let types: Vec<&str> = seen.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(types, ["workflow.defined", "run.started", "run.step_scheduled"]);
    drop(stream);
    // Cut after the first of the commit's two events: the second comes, the first does not come again.
    let (mut stream, mut text) = (open(&seen[1].0, "").await, String::new());
    assert_eq!(next(&mut stream, &mut text).await, seen[2]);
    // And what happens from now on.
    http.json("POST", "/v1/workflows/runs/r/cancel", Some(json!({})), 200).await;
    assert_eq!(next(&mut stream, &mut text).await.1, "run.cancelled");
    let (mut stream, mut text) = (open("", "?last=2&type=run.cancelled,run.started").await, String::new());
    assert_eq!(next(&mut stream, &mut text).await.1, "run.started");

    let page = http.get("/v1/events?limit=2").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let rest = http.get(&format!("/v1/events?cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    assert_eq!(rest["next_cursor"], Value::Null);
    let one = http.get(&format!("/v1/events/{}", seen[1].0)).await;
    assert_eq!(one["items"][0]["event"]["type"], "run.started");
}
