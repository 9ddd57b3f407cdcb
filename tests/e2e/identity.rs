//! People: they register, sign in and out, and see what goes on in their name.

mod addresses;
mod crowds;
mod devices;
mod dump;
mod passwords;
mod registering;
mod second_factor;
mod signing;
mod tokens;

use serde_json::{Value, json};
use stories::eventually;

use crate::people::{PASSWORD, People, Person};
use crate::serving::Shared;
use crate::stack::{Http, Stack};

#[tokio::test(flavor = "multi_thread")]
async fn somebody_registers_confirms_and_signs_in_by_either_name() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let body = json!({ "email": "Ann.Bee@Example.org", "username": "Ann", "password": PASSWORD, "name": "Ann Bee" });
    people.post("/v1/auth/register", body, 202).await;
    let early = people.post("/v1/auth/login", json!({ "login": "ann", "password": PASSWORD }), 403).await;
    assert_eq!(early["code"], "email_not_confirmed");
    people.confirm("Ann.Bee@Example.org").await;

    let mut ids = Vec::new();
    for (key, login) in [
        ("login", "ann.bee@example.org"),
        ("login", "ANN"),
        ("email", "Ann.Bee@EXAMPLE.ORG"),
        ("username", "ann"),
        ("login", " ann "),
    ] {
        let answer = people.post("/v1/auth/login", json!({ key: login, "password": PASSWORD }), 200).await;
        ids.push(Person::of(&people.http, &answer).id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one person has several ids");

    let ann = people.log_in("ann").await;
    let me = ann.http.get("/v1/me").await;
    let expected = json!({
        "id": ann.id, "email": "Ann.Bee@Example.org", "email_confirmed": true, "username": "Ann", "name": "Ann Bee",
        "locale": null, "has_password": true, "totp": false, "linked": [],
    });
    assert_eq!(me, expected);
    let edit = json!({ "username": "ann-bee", "name": "", "locale": "de-AT" });
    let me = ann.http.json("PATCH", "/v1/me", Some(edit), 200).await;
    assert_eq!((&me["username"], &me["name"], &me["locale"]), (&json!("ann-bee"), &Value::Null, &json!("de-AT")));
    people.log_in("ann-bee").await;
    people.post("/v1/auth/login", json!({ "login": "ann", "password": PASSWORD }), 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_by_refreshing_and_ends_by_its_owner() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let other = people.log_in("ann@example.org").await;
    let listed = ann.http.get("/v1/me/sessions").await;
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{listed}");
    let current: Vec<&Value> = items.iter().filter(|item| item["current"] == true).collect();
    assert_eq!((current.len(), current[0]["address"].as_str()), (1, Some("127.0.0.1")), "{listed}");

    let refreshed = people.post("/v1/auth/refresh", json!({ "refresh_token": ann.refresh_token }), 200).await;
    let next = Person::of(&people.http, &refreshed);
    assert_ne!(next.refresh_token, ann.refresh_token);
    assert_eq!(next.http.get("/v1/me").await["id"], json!(ann.id));
    // An answer that got lost is given again.
    let again = people.post("/v1/auth/refresh", json!({ "refresh_token": ann.refresh_token }), 200).await;
    assert_eq!(again["refresh_token"], json!(next.refresh_token));

    let id = current[0]["id"].as_str().unwrap();
    other.http.json("DELETE", &format!("/v1/me/sessions/{id}"), None, 204).await;
    for token in [&ann, &next] {
        assert_eq!(token.http.json("GET", "/v1/me", None, 401).await["code"], "unauthenticated");
        let over = people.post("/v1/auth/refresh", json!({ "refresh_token": token.refresh_token }), 401).await;
        assert_eq!(over["code"], "session_over");
    }
    other.http.json("DELETE", &format!("/v1/me/sessions/{id}"), None, 404).await;

    let third = people.log_in("ann").await;
    assert_eq!(third.http.json("DELETE", "/v1/me/sessions", None, 200).await["ended"], 1);
    other.http.json("GET", "/v1/me", None, 401).await;
    people.post("/v1/auth/logout", json!({ "refresh_token": third.refresh_token }), 204).await;
    third.http.json("GET", "/v1/me", None, 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_on_one_instance_is_over_on_all() {
    let shared = Shared::new(5_000).await;
    let (first, second) = (shared.serve("first").await, shared.serve("second").await);
    let (here, there) = (People::at(&shared, &first), People::at(&shared, &second));
    let ann = here.join("ann").await;
    // The second one signs with the same keys, and remembers from now on that the session goes on.
    let elsewhere = Http { token: ann.http.token.clone(), ..there.http.clone() };
    assert_eq!(elsewhere.get("/v1/me").await["email"], json!(ann.email));
    let refreshed = there.post("/v1/auth/refresh", json!({ "refresh_token": ann.refresh_token }), 200).await;
    assert_eq!(Person::of(&there.http, &refreshed).http.get("/v1/me").await["id"], json!(ann.id));
    here.post("/v1/auth/logout", json!({ "refresh_token": ann.refresh_token }), 204).await;
    // Not at once, but as soon as the log has been heard: long before what is remembered is forgotten by itself.
    eventually("the other instance has heard of it", async || {
        elsewhere.request("GET", "/v1/me").send().await.unwrap().status() == 401
    })
    .await;
    ann.http.json("GET", "/v1/me", None, 401).await;
}
