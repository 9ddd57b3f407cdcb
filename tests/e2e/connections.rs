//! Connections as somebody makes them who is slow, or one of too many, or late.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stack::{Http, Stack};

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection without a client that knows HTTP.
struct Raw(TcpStream);

impl Raw {
    async fn to(http: &Http) -> Self {
        Self(TcpStream::connect(http.url.strip_prefix("http://").unwrap()).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The head of the next answer, and its body.
    async fn answer(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(PATIENCE, self.0.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Asks for something on a connection that stays open.
    async fn get(&mut self, path: &str) -> (String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.answer().await
    }

    /// Whether the other side has hung up, after at most a moment.
    async fn is_cut(&mut self) -> bool {
        let mut rest = [0; 64];
        match tokio::time::timeout(Duration::from_millis(20), self.0.read(&mut rest)).await {
            Ok(read) => read.is_err() || read.is_ok_and(|count| count == 0),
            Err(_) => false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_a_head_byte_by_byte_is_cut_off() {
    let stack = Stack::up_with(&[], &[("AIRSTREAM__HTTP__HEADER_TIMEOUT_MS", "700")]);
    let http = stack.http();
    let mut slow = Raw::to(&http).await;
    slow.send("GET /livez HTTP/1.1\r\nhost: ").await;
    let until = Instant::now() + PATIENCE;
    while !slow.is_cut().await {
        assert!(Instant::now() < until, "a head may take for ever");
        // Once it is cut, a byte has nowhere to go; that it was cut is seen above.
        let _ = slow.0.write_all(b"x").await;
    }
    // One connection is good for many requests, and for none for a while only.
    let mut kept = Raw::to(&http).await;
    for _ in 0..3 {
        assert!(kept.get("/livez").await.0.starts_with("HTTP/1.1 200 "));
    }
    let until = Instant::now() + PATIENCE;
    while !kept.is_cut().await {
        assert!(Instant::now() < until, "an idle connection may stay for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_hears_so_and_the_others_go_on() {
    let stack = Stack::up_with(&[], &[("AIRSTREAM__HTTP__MAX_CONNECTIONS", "2")]);
    let http = stack.http();
    // Whatever asked before has let go of its connection when two can be had.
    let until = Instant::now() + PATIENCE;
    let (mut first, mut second) = loop {
        let mut both = (Raw::to(&http).await, Raw::to(&http).await);
        let found = [both.0.get("/livez").await.0, both.1.get("/livez").await.0];
        if found.iter().all(|head| head.starts_with("HTTP/1.1 200 ")) {
            break both;
        }
        assert!(Instant::now() < until, "{found:?}");
    };
    let mut third = Raw::to(&http).await;
    let (head, body) = third.get("/livez").await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
    assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["code"], "too_many_connections");
    assert!(first.get("/livez").await.0.starts_with("HTTP/1.1 200 "));
    drop(second);
    let until = Instant::now() + PATIENCE;
    loop {
        second = Raw::to(&http).await;
        if second.get("/livez").await.0.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(Instant::now() < until, "a place that was left is not free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_is_answered_while_the_door_closes_and_nobody_new_comes_in() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    let body = json!({ "run_id": "r" }).to_string();
    let mut asking = Raw::to(&http).await;
    let token = http.token.clone().unwrap();
    let head = format!(
        "POST /v1/workflows/w/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    asking.send(&head).await;
    // Now it is in hand: a route waits for its body.
    assert!(asking.answer().await.0.starts_with("HTTP/1.1 100 "));
    let mut idle = Raw::to(&http).await;
    assert!(idle.get("/livez").await.0.starts_with("HTTP/1.1 200 "));

    let down = stack.command().arg("down").stderr(std::process::Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(http.url.strip_prefix("http://").unwrap()).await.is_ok() {
        assert!(Instant::now() < until, "the door does not close");
    }
    while !idle.is_cut().await {
        assert!(Instant::now() < until, "somebody who asks nothing is waited for");
    }
    asking.send(&body).await;
    let (head, answer) = asking.answer().await;
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}{answer}");
    let said = down.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
