//! Keys of access tokens: they change, and nobody notices.

use serde_json::json;

use crate::people::People;
use crate::stack::Stack;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_the_signing_key_and_tokens_go_on() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let refused = ann.http.json("POST", "/v1/operate/signing-keys/rotate", None, 403).await;
    assert_eq!(refused["code"], "not_an_operator");
    let operator = stack.http();
    let before = operator.get("/v1/operate/signing-keys").await;
    assert_eq!((before["items"].as_array().unwrap().len(), &before["items"][0]["state"]), (1, &json!("signing")));
    let after = operator.json("POST", "/v1/operate/signing-keys/rotate", None, 201).await;
    let items = after["items"].as_array().unwrap();
    let states: Vec<&str> = items.iter().map(|item| item["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["signing", "next"], "a key signs before anybody knows it");
    assert!(items[0]["until"].is_string() && items[1]["until"].is_null());

    // Published at once; the old one signs for a while yet.
    let jwks = people.http.get("/.well-known/jwks.json").await;
    let known: Vec<&str> = jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert!(items.iter().all(|item| known.contains(&item["kid"].as_str().unwrap())), "{known:?}");
    ann.http.get("/v1/me").await;
    people.log_in("ann").await.http.get("/v1/me").await;

    // Five minutes later, for whoever starts then.
    let later = "UPDATE identity.signing_keys SET signs_from = signs_from - interval '301 s'";
    sqlx::query(later).execute(&mut stack.postgres().await).await.unwrap();
    stack.run(&["down"]);
    stack.start();
    let operator = stack.http();
    let items = operator.get("/v1/operate/signing-keys").await["items"].clone();
    let states: Vec<&str> = items.as_array().unwrap().iter().map(|item| item["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["retiring", "signing"]);
    let people = People::of(&stack);
    people.log_in("ann").await.http.get("/v1/me").await;
}
