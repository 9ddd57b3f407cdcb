//! Streams of events stay open no longer than what they were opened with.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use serde_json::json;

use crate::people::People;
use crate::stack::{Http, Stack};

struct Tail(Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>>>>);

impl Tail {
    async fn open(http: &Http) -> Self {
        let answer = http.request("GET", "/v1/events").header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let mut tail = Self(Box::pin(answer.bytes_stream().map(|piece| piece.map(|piece| piece.to_vec()))));
        assert!(tail.next().await.is_some_and(|piece| piece.starts_with("id: ")), "the place to go on from");
        tail
    }

    async fn next(&mut self) -> Option<String> {
        let piece = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await.expect("an event, or an end");
        piece.map(|piece| String::from_utf8(piece.expect("an end in order")).unwrap())
    }

    /// Waits until it has told of something.
    async fn tells(&mut self, what: &str) {
        while !self.next().await.unwrap_or_else(|| panic!("it ended before it told of {what}")).contains(what) {}
    }

    /// Waits until it has ended.
    async fn ends(mut self) {
        let ended = async { while self.next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("an end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_with_the_session_the_membership_or_the_key_that_it_was_opened_with() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let olga = people.join("olga").await;
    let tenant = olga.create_tenant("Acme").await;
    let olga = olga.within(&tenant).await;
    let mut stays = Tail::open(&olga.http).await;

    let vera = people.member(&olga, &tenant, "vera", "viewer").await;
    let again = people.log_in("vera").await.within(&tenant).await;
    let (first, mut second) = (Tail::open(&vera.http).await, Tail::open(&again.http).await);
    people.post("/v1/auth/logout", json!({ "refresh_token": vera.refresh_token }), 204).await;
    first.ends().await;
    olga.http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    second.tells("workflow.defined").await;
    let member = format!("/v1/tenants/{tenant}/members/{}", vera.id);
    olga.http.json("DELETE", &member, None, 200).await;
    second.ends().await;

    let (id, program) = olga.make_key(&["events:read"]).await;
    let (older, path) = (Tail::open(&program).await, format!("/v1/api-keys/{id}"));
    let rotated = olga.http.json("POST", &format!("{path}/rotate"), Some(json!({ "overlap_seconds": 1 })), 200).await;
    let program = Http { token: Some(rotated["secret"].as_str().unwrap().to_owned()), ..program };
    let mut newer = Tail::open(&program).await;
    // It was opened for months, and its secret ends sooner now.
    older.ends().await;
    olga.http.define("x", json!([{ "id": 1, "name": "a" }])).await;
    newer.tells("workflow.defined").await;
    olga.http.json("DELETE", &path, None, 200).await;
    newer.ends().await;
    stays.tells("api-key.revoked").await;
}
