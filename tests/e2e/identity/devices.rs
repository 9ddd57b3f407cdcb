//! Devices without a keyboard, and tokens as OAuth clients ask for them.

use serde_json::{Value, json};

use crate::people::{PASSWORD, People, Person};
use crate::stack::{Http, Stack};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn form(http: &Http, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let body: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", value.replace(':', "%3A"))).collect();
    let request = http.request("POST", path).header("content-type", "application/x-www-form-urlencoded");
    let response = request.body(body.join("&")).send().await.unwrap();
    let status = response.status().as_u16();
    if path.ends_with("token") {
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
}

async fn ask(people: &People, device: &Value) -> (u16, Value) {
    let code = device["device_code"].as_str().unwrap();
    form(&people.http, "/v1/auth/token", &[("grant_type", GRANT), ("device_code", code), ("client_id", "tests")]).await
}

async fn error(people: &People, device: &Value) -> String {
    let (status, answer) = ask(people, device).await;
    assert_eq!(status, 400, "{answer}");
    answer["error"].as_str().unwrap().to_owned()
}

/// As if the device had waited as long as it is told to.
async fn a_while_later(stack: &Stack) {
    let waited = "UPDATE identity.devices SET polled_at = polled_at - interval '1 minute'";
    sqlx::query(waited).execute(&mut stack.postgres().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_signed_in_by_a_code_that_its_owner_types() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let device = people.post("/v1/auth/device", json!({ "client_name": "a fridge" }), 200).await;
    let user_code = device["user_code"].as_str().unwrap();
    let uri = device["verification_uri"].as_str().unwrap();
    assert_eq!(device["verification_uri_complete"], format!("{uri}?user_code={user_code}"));
    assert!(people.http.client.get(uri).send().await.unwrap().text().await.unwrap().contains("<form id=\"who\">"));
    assert_eq!(error(&people, &device).await, "authorization_pending");
    assert_eq!(error(&people, &device).await, "slow_down");
    a_while_later(&stack).await;
    assert_eq!(error(&people, &device).await, "authorization_pending");

    // Its owner looks before they decide, and types as people do.
    let typed = user_code.to_lowercase().replace('-', "");
    let shown = ann.http.get(&format!("/v1/auth/device/{typed}")).await;
    assert_eq!((&shown["client_name"], &shown["address"]), (&json!("a fridge"), &json!("127.0.0.1")));
    for wrong in ["BCDF-GHJK", "x", ""] {
        let body = Some(json!({ "user_code": wrong }));
        assert_eq!(ann.http.json("POST", "/v1/auth/device/approve", body, 422).await["code"], "invalid_code");
    }
    people.http.json("POST", "/v1/auth/device/approve", Some(json!({ "user_code": typed })), 401).await;
    ann.http.json("POST", "/v1/auth/device/approve", Some(json!({ "user_code": typed })), 204).await;
    ann.http.json("POST", "/v1/auth/device/approve", Some(json!({ "user_code": typed })), 204).await;
    let (status, answer) = ask(&people, &device).await;
    assert_eq!(status, 200, "{answer}");
    let fridge = Person::of(&people.http, &answer);
    assert_eq!(fridge.http.get("/v1/me").await["id"], json!(ann.id));
    assert_eq!(error(&people, &device).await, "invalid_grant", "a code signs in twice");
    let listed = fridge.http.get("/v1/me/sessions").await;
    let current = listed["items"].as_array().unwrap().iter().find(|item| item["current"] == true).unwrap();
    assert_eq!(current["amr"], json!(["device", "pwd"]));

    // It goes on, and leaves, as OAuth clients do.
    let grant = [("grant_type", "refresh_token"), ("refresh_token", fridge.refresh_token.as_str())];
    let (status, refreshed) = form(&people.http, "/v1/auth/token", &grant).await;
    assert_eq!(status, 200, "{refreshed}");
    let next = refreshed["refresh_token"].as_str().unwrap();
    let (status, _) = form(&people.http, "/v1/auth/logout", &[("token", next), ("token_type_hint", "x")]).await;
    assert_eq!(status, 200);
    fridge.http.json("GET", "/v1/me", None, 401).await;
    let grant = [("grant_type", "refresh_token"), ("refresh_token", next)];
    let (status, over) = form(&people.http, "/v1/auth/token", &grant).await;
    assert_eq!((status, over["error"].as_str()), (400, Some("invalid_grant")));
    ann.http.get("/v1/me").await;
    // By the access token as well; and what is no token ends nothing.
    let token = ann.http.token.clone().unwrap();
    assert_eq!(form(&people.http, "/v1/auth/logout", &[("token", "nonsense")]).await.0, 200);
    assert_eq!(form(&people.http, "/v1/auth/logout", &[("token", &token)]).await.0, 200);
    ann.http.json("GET", "/v1/me", None, 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_turned_away_or_too_late_or_approved_by_a_stolen_password_stays_outside() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let begin = async || people.post("/v1/auth/device", json!({}), 200).await;
    let decide = async |device: &Value, how: &str, expected: u16| {
        let body = Some(json!({ "user_code": device["user_code"] }));
        ann.http.json("POST", &format!("/v1/auth/device/{how}"), body, expected).await
    };
    let denied = begin().await;
    decide(&denied, "deny", 204).await;
    assert_eq!(error(&people, &denied).await, "access_denied");
    decide(&denied, "approve", 422).await;

    let late = begin().await;
    let expired = "UPDATE identity.devices SET expires_at = now() WHERE approved IS NULL";
    sqlx::query(expired).execute(&mut stack.postgres().await).await.unwrap();
    decide(&late, "approve", 422).await;
    assert_eq!(error(&people, &late).await, "expired_token");

    let stolen = begin().await;
    decide(&stolen, "approve", 204).await;
    let change = json!({ "current": PASSWORD, "new": "staple my caravan twice" });
    ann.http.json("POST", "/v1/me/password", Some(change), 204).await;
    assert_eq!(error(&people, &stolen).await, "access_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_let_in_and_has_not_come_is_turned_away_with_all_other_sessions() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let approved = async || {
        let device = people.post("/v1/auth/device", json!({}), 200).await;
        let body = Some(json!({ "user_code": device["user_code"] }));
        ann.http.json("POST", "/v1/auth/device/approve", body, 204).await;
        device
    };
    let device = approved().await;
    ann.http.json("DELETE", "/v1/me/sessions", None, 200).await;
    assert_eq!(error(&people, &device).await, "access_denied");

    // Whoever had that session may have let it in.
    people.log_in("ann").await;
    let device = approved().await;
    let listed = ann.http.get("/v1/me/sessions").await;
    let other = listed["items"].as_array().unwrap().iter().find(|item| item["current"] == false).unwrap();
    let path = format!("/v1/me/sessions/{}", other["id"].as_str().unwrap());
    ann.http.json("DELETE", &path, None, 204).await;
    assert_eq!(error(&people, &device).await, "access_denied");
    assert_eq!(ann.http.get("/v1/me/sessions").await["items"].as_array().unwrap().len(), 1);

    // Who leaves takes nothing back.
    let other = people.log_in("ann").await;
    let device = approved().await;
    people.post("/v1/auth/logout", json!({ "refresh_token": other.refresh_token }), 204).await;
    assert_eq!(ask(&people, &device).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_left_open_lets_no_device_in() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let earlier = "UPDATE identity.sessions SET auth_time = now() - interval '11 minutes'";
    sqlx::query(earlier).execute(&mut stack.postgres().await).await.unwrap();
    let next = people.post("/v1/auth/refresh", json!({ "refresh_token": ann.refresh_token }), 200).await;
    let ann = Person::of(&people.http, &next);
    let device = people.post("/v1/auth/device", json!({}), 200).await;
    let approve = async |password: Value, expected: u16| {
        let body = Some(json!({ "user_code": device["user_code"], "password": password }));
        ann.http.json("POST", "/v1/auth/device/approve", body, expected).await
    };
    assert_eq!(approve(Value::Null, 403).await["code"], "reauthentication_required");
    assert_eq!(approve(json!("guess"), 403).await["code"], "wrong_password");
    assert_eq!(error(&people, &device).await, "authorization_pending");
    approve(json!(PASSWORD), 204).await;
    a_while_later(&stack).await;
    assert_eq!(ask(&people, &device).await.0, 200);
    // Turning away needs no proof.
    let device = people.post("/v1/auth/device", json!({}), 200).await;
    let body = Some(json!({ "user_code": device["user_code"] }));
    ann.http.json("POST", "/v1/auth/device/deny", body, 204).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grant_is_refused_as_oauth_says_it() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[], "invalid_request"),
        (&[("grant_type", "password"), ("username", "ann")], "unsupported_grant_type"),
        (&[("grant_type", "")], "unsupported_grant_type"),
        (&[("grant_type", "refresh_token")], "invalid_request"),
        (&[("grant_type", "refresh_token"), ("grant_type", "refresh_token")], "invalid_request"),
        (&[("grant_type", "refresh_token"), ("refresh_token", "art_AAAA")], "invalid_grant"),
        (&[("grant_type", GRANT)], "invalid_request"),
        (&[("grant_type", GRANT), ("device_code", "adc_none")], "invalid_grant"),
    ];
    for (fields, expected) in cases {
        let (status, answer) = form(&people.http, "/v1/auth/token", fields).await;
        assert_eq!((status, answer["error"].as_str()), (400, Some(expected)), "{fields:?}");
    }
    let server = people.http.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(server["grant_types_supported"], json!(["refresh_token", GRANT]));
    for endpoint in ["token_endpoint", "device_authorization_endpoint", "revocation_endpoint"] {
        let url = server[endpoint].as_str().unwrap();
        let answer = people.http.client.post(url).header("content-type", "application/x-www-form-urlencoded");
        assert_ne!(answer.send().await.unwrap().status().as_u16(), 404, "{endpoint}");
    }
    for name in ["", "\u{7}", &"x".repeat(101)] {
        people.post("/v1/auth/device", json!({ "client_name": name }), 422).await;
    }
}
