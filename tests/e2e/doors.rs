//! What the doors take from whoever stands in front of them, and what they keep.

use kernel::Fingerprint;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::people::{PASSWORD, People};
use crate::stack::{Http, Stack};

#[tokio::test(flavor = "multi_thread")]
async fn two_tokens_in_one_request_are_one_too_many() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let token = HeaderValue::try_from(format!("Bearer {}", http.token.as_ref().unwrap())).unwrap();
    for other in [token.clone(), HeaderValue::from_static("Bearer x"), HeaderValue::from_static("")] {
        for two in [[&token, &other], [&other, &token]] {
            let mut headers = HeaderMap::new();
            for value in two {
                headers.append(AUTHORIZATION, value.clone());
            }
            let anonymous = Http { token: None, ..http.clone() };
            let answer = anonymous.request("GET", "/v1/workflows").headers(headers).send().await.unwrap();
            let (status, problem) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
            assert_eq!((status, &problem["code"]), (400, &json!("malformed")), "{problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_request_does_not_let_anybody_try_out_its_password() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let body = json!({ "email": "ann@example.org", "username": "ann", "password": PASSWORD }).to_string();
    let request = people.http.request("POST", "/v1/auth/register").header("idempotency-key", "first");
    let request = request.header("content-type", "application/json").body(body.clone());
    assert_eq!(request.send().await.unwrap().status().as_u16(), 202);
    let kept = "SELECT encode(digest, 'hex'), request FROM airstream.idempotency_keys";
    let kept: Vec<(String, String)> = sqlx::query_as(kept).fetch_all(&mut stack.postgres().await).await.unwrap();
    let [(key, request)] = kept.as_slice() else { panic!("{kept:?}") };
    // Whoever has the table guesses passwords with this.
    let guess = Fingerprint::of("POST /v1/auth/register", body.as_bytes());
    assert!(!request.contains(guess.as_str()), "{request}");
    assert_eq!((key.len(), request.len()), (64, 64), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_on_the_bus_hears_when_to_come_back_at_each_of_its_doors() {
    let stack = Stack::up_with(&[], &[("AIRSTREAM__LIMITS__USER__WRITE", "5/36000")]);
    let nats = stack.nats().await;
    let ask = async |subject: &str, body: Value| {
        let reply = nats.request(subject.to_owned(), body.to_string().into()).await.unwrap();
        serde_json::from_slice::<Value>(&reply.payload).unwrap()
    };
    let definition = json!({ "steps": [{ "id": "end", "kind": "pass", "output": 1 }] });
    // At once one less than in the long run.
    for n in 0..4 {
        let answer = ask(&format!("cmd.dev.dev.workflow.w{n}.define"), definition.clone()).await;
        assert_eq!(answer["version"], 1, "{answer}");
    }
    for subject in ["cmd.dev.dev.workflow.w5.define", "work.dev.dev.pack"] {
        let problem = ask(subject, definition.clone()).await;
        assert_eq!((&problem["status"], &problem["code"]), (&json!(429), &json!("rate_limited")), "{problem}");
        let again = problem["retry_after_ms"].as_u64().unwrap();
        assert!((7_000_000..=7_200_000).contains(&again), "one of five in ten hours comes after two: {problem}");
    }
    let queued =
        async_nats::jetstream::new(nats.clone()).publish("queue.dev.dev.workflow.w6.define", "{}".into()).await;
    let error = queued.unwrap().await.unwrap_err().to_string();
    assert!(error.contains("Too many requests"), "{error}");
    // HTTP is no other budget.
    let http = stack.http();
    let document = json!({ "workflow_id": "w7", "steps": [{ "id": 1, "name": "a" }] });
    assert_eq!(http.json("PUT", "/v1/workflows/w7", Some(document), 429).await["code"], "rate_limited");
    let defined = http.get("/v1/workflows").await;
    assert!(defined["items"].as_array().unwrap().iter().all(|item| item["id"] != "w5" && item["id"] != "w6"));
}
