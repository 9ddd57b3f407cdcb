//! What stands in front of every route: how often one may ask, what browsers are told, and what is too much.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::{Value, json};

use crate::stack::{Http, Stack};

fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The items of a list of structured fields, `"name";key=value`, by name.
fn items(response: &reqwest::Response, name: &str) -> BTreeMap<String, String> {
    let lines = response.headers().get_all(name).iter().map(|line| line.to_str().unwrap());
    let items = lines.flat_map(|line| line.split(',')).map(|item| item.trim().split_once(';').unwrap());
    items.map(|(name, rest)| (name.trim_matches('"').to_owned(), rest.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_hears_when_to_come_back() {
    let stack = Stack::up_with(&[], &[("AIRSTREAM__LIMITS__USER__READ", "5/36000")]);
    let http = stack.http();
    for left in (0..4).rev() {
        let response = http.request("GET", "/v1/workflows").send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{left} should be left");
        let policies = items(&response, "ratelimit-policy");
        assert_eq!(policies["user-read"], "q=5;w=36000");
        assert_eq!(policies["address-read"], "q=60000;w=60");
        assert_eq!(policies["tenant-read"], "q=120000;w=60");
        assert!(items(&response, "ratelimit")["user-read"].starts_with(&format!("r={left};t=")), "{response:?}");
    }
    let response = http.request("GET", "/v1/workflows").send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (429, "application/problem+json"));
    let again: u64 = header(&response, "retry-after").parse().unwrap();
    assert!((7_000..=7_200).contains(&again), "one of five in ten hours comes after two: {again}");
    assert_eq!(items(&response, "ratelimit")["user-read"], format!("r=0;t={again}"));
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "rate_limited", "{problem}");
    // Another class of routes is another budget, and probes count against none.
    http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    let probe = http.request("GET", "/readyz").send().await.unwrap();
    assert!(probe.status().is_success() && !probe.headers().contains_key("ratelimit"));
    let metrics = http.request("GET", "/metrics").send().await.unwrap();
    assert_eq!(metrics.status().as_u16(), 429, "a page of metrics is a page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_who_a_trusted_proxy_says_and_strangers_are_limited_by_address() {
    let trusting =
        [("AIRSTREAM__HTTP__TRUSTED_PROXIES", "127.0.0.0/8, ::1"), ("AIRSTREAM__LIMITS__ADDRESS__READ", "4/36000")];
    let stack = Stack::up_with(&[], &trusting);
    let strangers = Http { token: None, ..stack.http() };
    let ask = async |client: &str| {
        let request = strangers.request("GET", "/v1/workflows").header("x-forwarded-for", client);
        request.send().await.unwrap().status().as_u16()
    };
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(ask("198.51.100.7").await);
    }
    // Before anybody is asked who they are: guessing tokens is limited, too.
    assert_eq!(answers, [401, 401, 401, 429]);
    assert_eq!(ask("198.51.100.8").await, 401);
    assert_eq!(ask("203.0.113.1, 198.51.100.7").await, 429, "what a client puts in front changes nothing");
    drop(stack);

    let stack = Stack::up_with(&[], &trusting[1..]);
    let strangers = Http { token: None, ..stack.http() };
    let mut answers = Vec::new();
    for n in 0..4 {
        let request = strangers.request("GET", "/v1/workflows").header("x-forwarded-for", format!("198.51.100.{n}"));
        answers.push(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(answers, [401, 401, 401, 429], "somebody whom nobody trusts was believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_hear_who_may_use_the_api_and_that_nothing_is_to_be_kept() {
    let environment =
        [("AIRSTREAM__HTTP__CORS_ORIGINS", "https://app.example.org"), ("AIRSTREAM__HTTP__HSTS_SECONDS", "3600")];
    let stack = Stack::up_with(&[], &environment);
    let http = stack.http();
    let preflight = async |origin: &str| {
        let request = Http { token: None, ..http.clone() }.request("OPTIONS", "/v1/commands").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,idempotency-key").send().await.unwrap()
    };
    let allowed = preflight("https://app.example.org").await;
    assert_eq!(allowed.status().as_u16(), 200);
    assert_eq!(header(&allowed, "access-control-allow-origin"), "https://app.example.org");
    assert!(header(&allowed, "access-control-allow-methods").contains("POST"));
    let headers = header(&allowed, "access-control-allow-headers").to_owned();
    assert!(headers.contains("authorization") && headers.contains("idempotency-key"), "{headers}");
    assert!(!allowed.headers().contains_key("access-control-allow-credentials"));
    let foreign = preflight("https://evil.example.org").await;
    assert!(!foreign.headers().contains_key("access-control-allow-origin"), "{foreign:?}");

    for (method, path, status) in [("GET", "/v1/workflows", 200), ("GET", "/v1/nowhere", 404), ("PUT", "/livez", 405)] {
        let request = http.request(method, path).header("origin", "https://app.example.org");
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(header(&response, "access-control-allow-origin"), "https://app.example.org", "{path}");
        let exposed = header(&response, "access-control-expose-headers").to_owned();
        for name in ["x-request-id", "ratelimit", "ratelimit-policy", "retry-after", "airstream-repeated"] {
            assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{name} is not in {exposed}");
        }
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "referrer-policy"), "no-referrer");
        assert!(header(&response, "content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(header(&response, "cache-control"), "no-store");
        assert_eq!(header(&response, "strict-transport-security"), "max-age=3600; includeSubDomains");
    }
    // By default nobody is allowed, and nothing is said about HTTPS.
    drop(stack);
    let stack = Stack::up(&[]);
    let request = stack.http().request("GET", "/v1/workflows").header("origin", "https://app.example.org");
    let response = request.send().await.unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    assert!(!response.headers().contains_key("strict-transport-security"));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_compressed_and_streams_are_not() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let zipped = http.request("GET", "/openapi.json").header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!((header(&zipped, "content-encoding"), header(&zipped, "vary")), ("gzip", "accept-encoding"));
    let plain = http.request("GET", "/openapi.json").send().await.unwrap();
    assert_eq!(header(&plain, "content-encoding"), "");
    let (zipped, plain) = (zipped.bytes().await.unwrap(), plain.bytes().await.unwrap());
    assert!(zipped.starts_with(&[0x1f, 0x8b]) && zipped.len() * 4 < plain.len(), "{}", zipped.len());
    let request = http.request("GET", "/livez").header("accept-encoding", "gzip");
    assert_eq!(header(&request.send().await.unwrap(), "content-encoding"), "", "a few bytes are not worth it");

    let request = http.request("GET", "/v1/events?from=p1-0").header("accept", "text/event-stream");
    let stream = request.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!((header(&stream, "content-encoding"), header(&stream, "cache-control")), ("", "no-store"));
    // And it ends when the server stops, instead of holding it up.
    let mut body = stream.bytes_stream();
    assert!(body.next().await.unwrap().is_ok());
    let said = stack.run(&["down"]);
    assert_eq!(said.code, 0, "{}", said.err);
    while let Some(piece) = body.next().await {
        piece.expect("a stream that ends in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_or_not_meant_is_told_as_a_problem() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let long = format!("/v1/workflows?cursor={}", "x".repeat(9_000));
    assert_eq!(http.json("GET", &long, None, 414).await["code"], "uri_too_long");
    let request = http.request("GET", "/v1/workflows").header("x-nonsense", "x".repeat(40_000));
    let response = request.send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (431, "application/problem+json"));
    let head = http.request("HEAD", "/v1/workflows").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-type")), (200, "application/json"));
    assert!(head.text().await.unwrap().is_empty());
    let refused = Http { token: None, ..http.clone() }.request("HEAD", "/v1/workflows").send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    let wrong = http.request("DELETE", "/v1/workflows").send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), header(&wrong, "allow")), (405, "GET,HEAD"));
    for (kind, body, status, code) in [
        ("application/json", r#"{"category":"run","id":"x","command":"y","colour":"red"}"#, 422, "invalid"),
        ("application/json", r#"{"category""#, 400, "malformed"),
        ("application/json", r#"["run","x","y"]"#, 422, "invalid"),
        ("application/x-www-form-urlencoded", "category=run", 415, "unsupported_media_type"),
    ] {
        let request = http.request("POST", "/v1/commands").header("content-type", kind).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(header(&response, "content-type"), "application/problem+json");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
    }
    for path in ["/v1/workflows/%ff", "/v1/workflows/%00", "/v1/workflows/a%20b"] {
        assert_eq!(http.json("GET", path, None, 400).await["code"], "invalid_name", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_request_of_its_caller() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    let send = async |header: &str, key: &str, path: &str, body: Value| {
        let request = http.request("POST", path).header(header, key).header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let with_key = async |key: &str, path: &str, body: Value| send("idempotency-key", key, path, body).await;
    let runs = "/v1/workflows/w/runs";
    let (status, first) = with_key("k", runs, json!({ "input": 1, "run_id": "r" })).await;
    assert_eq!(status, 201, "{first}");
    let repeated = with_key("k", runs, json!({ "run_id": "r", "input": 1 })).await;
    assert_eq!(repeated, (201, first), "the order of a document's keys is nothing");
    for (path, body) in [
        (runs, json!({ "input": 2, "run_id": "r" })),
        (runs, json!({ "input": 1, "run_id": "other" })),
        ("/v1/workflows/runs/r/cancel", json!({ "input": 1, "run_id": "r" })),
        ("/v1/parked/retry", json!({ "all": true })),
    ] {
        let (status, problem) = with_key("k", path, body).await;
        assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")), "{path}: {problem}");
    }
    // What was refused has changed nothing: whoever mends the request may keep the key.
    assert_eq!(with_key("mend", runs, json!({ "run_id": "a b" })).await.0, 400);
    assert_eq!(with_key("mend", runs, json!({ "run_id": "ab" })).await.0, 201);
    // A command id belongs to a stream (ADR 0008): there it stands for one command, elsewhere for another.
    let with_id = async |path: &str, body: Value| send("airstream-command-id", "c", path, body).await;
    assert_eq!(with_id(runs, json!({ "run_id": "s" })).await.0, 201);
    assert_eq!(with_id(runs, json!({ "run_id": "t" })).await.0, 201);
    let (status, problem) = with_id("/v1/workflows/runs/s/cancel", json!({})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("command_id_reused")), "{problem}");
    assert_eq!(with_key("a b", runs, json!({})).await.1["code"], "invalid_name");

    // Postgres holds its table: keys are not looked up then, and commands still count once.
    let mut postgres = stack.postgres().await;
    let lock = "BEGIN; LOCK TABLE airstream.idempotency_keys IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut postgres).await.unwrap();
    let (status, first) = with_key("late", runs, json!({ "run_id": "u" })).await;
    assert_eq!(status, 201, "{first}");
    assert_eq!(with_key("late", runs, json!({ "run_id": "u" })).await, (201, first));
}
