//! API keys over HTTP: what programs come in with, for as long as whoever made them is there.

use std::time::Duration;

use serde_json::{Value, json};
use stories::eventually;

use crate::people::{People, Person};
use crate::serving::Shared;
use crate::stack::{Http, Stack};

impl Person {
    /// Makes a key in the tenant that is worked in: its id, and the door for a program that has it.
    pub(crate) async fn make_key(&self, scopes: &[&str]) -> (String, Http) {
        let body = json!({ "name": "a program", "scopes": scopes });
        let made = self.http.json("POST", "/v1/api-keys", Some(body), 201).await;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("id"), Http { token: Some(text("secret")), ..self.http.clone() })
    }
}

async fn owner(people: &People) -> (String, Person) {
    let olga = people.join("olga").await;
    let tenant = olga.create_tenant("Acme").await;
    let olga = olga.within(&tenant).await;
    (tenant, olga)
}

async fn status(http: &Http, method: &str, path: &str) -> u16 {
    http.request(method, path).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_what_its_scopes_and_its_maker_allow_and_is_shown_once() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let (tenant, olga) = owner(&people).await;
    let make = async |body: &Value| {
        let request = olga.http.request("POST", "/v1/api-keys").header("idempotency-key", "one");
        let answer = request.json(body).send().await.unwrap();
        let uncached = answer.headers().get("cache-control").is_some_and(|value| value == "no-store");
        (answer.status().as_u16(), uncached, answer.json::<Value>().await.unwrap())
    };
    let body = json!({ "name": "import", "scopes": ["runs:write", "workflows:read"], "expires_in_days": 30 });
    let (code, uncached, made) = make(&body).await;
    assert_eq!((code, uncached), (201, true), "{made}");
    // An answer that got lost is given again; another request under the same key is not.
    assert_eq!(make(&body).await.2, made);
    let other = json!({ "name": "import", "scopes": ["runs:read"] });
    assert_eq!((make(&other).await.0, make(&other).await.2["code"].clone()), (422, json!("idempotency_key_reused")));

    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert!(id.starts_with("key_") && secret.starts_with("ask_") && secret.len() == 53, "{made}");
    let program = Http { token: Some(secret.to_owned()), ..people.http.clone() };
    program.get("/v1/workflows").await;
    let refused = program.json("GET", "/v1/events", None, 403).await;
    assert_eq!(refused["code"], "insufficient_scope");
    assert_eq!(program.json("GET", "/v1/me", None, 403).await["code"], "people_only");
    assert_eq!(program.json("GET", "/v1/workflows/runs/none", None, 404).await["code"], "unknown_run");
    for wrong in [&secret[..52], &format!("{secret}x"), "ask_", "ask_0"] {
        let http = Http { token: Some(wrong.to_owned()), ..people.http.clone() };
        assert_eq!(http.json("GET", "/v1/workflows", None, 401).await["code"], "unauthenticated");
    }

    let shown = olga.http.get(&format!("/v1/api-keys/{id}")).await;
    assert_eq!((&shown["name"], &shown["prefix"]), (&json!("import"), &json!(secret[..12])), "{shown}");
    assert_eq!((&shown["owner"], &shown["scopes"]), (&json!(olga.id), &body["scopes"]));
    assert!(!shown.to_string().contains(secret));
    eventually("the last use is shown", async || {
        olga.http.get(&format!("/v1/api-keys/{id}")).await["last_used_at"].is_string()
    })
    .await;
    // Nor is it anywhere else.
    let events = olga.http.get("/v1/events?category=api-key").await;
    assert!(events.to_string().contains("api-key.issued") && !events.to_string().contains(secret), "{events}");
    let rows: Vec<String> = sqlx::query_scalar("SELECT secret::text FROM identity.api_key_secrets AS secret")
        .fetch_all(&mut stack.postgres().await)
        .await
        .unwrap();
    assert!(rows.len() == 1 && !rows[0].contains(secret), "{rows:?}");

    // Its maker's role is its limit, as it is now.
    let adam = people.member(&olga, &tenant, "adam", "admin").await;
    let (_, strong) = adam.make_key(&["*:admin"]).await;
    strong.get("/v1/api-keys").await;
    let member = format!("/v1/tenants/{tenant}/members/{}", adam.id);
    olga.http.json("PATCH", &member, Some(json!({ "role": "viewer" })), 200).await;
    assert_eq!(strong.json("GET", "/v1/api-keys", None, 403).await["code"], "role_too_low");
    strong.get("/v1/workflows").await;
    // A key makes no keys: it would outlive its own end.
    let (_, keys) = olga.make_key(&["keys:admin"]).await;
    let more = json!({ "name": "more", "scopes": ["keys:admin"] });
    assert_eq!(keys.json("POST", "/v1/api-keys", Some(more), 403).await["code"], "people_only");

    for (body, code) in [
        (json!({ "name": "x", "scopes": [] }), "invalid"),
        (json!({ "name": "x", "scopes": ["rnus:read"] }), "invalid"),
        (json!({ "name": "x", "scopes": ["me"] }), "invalid"),
        (json!({ "name": "", "scopes": ["runs:read"] }), "invalid"),
        (json!({ "name": "x", "scopes": ["runs:read"], "expires_in_days": 366 }), "invalid"),
        (json!({ "name": "x", "scopes": ["runs:read"], "expires_in_days": 0 }), "invalid"),
        (json!({ "name": "x", "scopes": ["runs:read"], "forever": true }), "invalid"),
    ] {
        let problem = olga.http.json("POST", "/v1/api-keys", Some(body.clone()), 422).await;
        assert_eq!(problem["code"], code, "{body}: {problem}");
    }
    let berta = people.member(&olga, &tenant, "berta", "admin").await;
    let above = json!({ "name": "x", "scopes": ["tenant:own"] });
    assert_eq!(berta.http.json("POST", "/v1/api-keys", Some(above), 403).await["code"], "role_too_low");
    let rotate = berta.http.json("POST", &format!("/v1/api-keys/{id}/rotate"), Some(json!({})), 403).await;
    assert_eq!(rotate["code"], "not_your_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_has_two_secrets_for_a_while_and_a_revoked_one_none() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let (_, olga) = owner(&people).await;
    let (id, first) = olga.make_key(&["workflows:read"]).await;
    let rotate = async |overlap: u32| {
        let body = json!({ "overlap_seconds": overlap });
        let made = olga.http.json("POST", &format!("/v1/api-keys/{id}/rotate"), Some(body), 200).await;
        Http { token: Some(made["secret"].as_str().unwrap().to_owned()), ..first.clone() }
    };
    let second = rotate(3_600).await;
    for http in [&first, &second] {
        http.get("/v1/workflows").await;
    }
    let shown = olga.http.get(&format!("/v1/api-keys/{id}")).await;
    let prefix = &second.token.as_ref().unwrap()[..12];
    assert!(shown["older_until"].is_string() && shown["prefix"] == prefix, "{shown}");
    // With no overlap whatever came before ends at once, also the one whose overlap was longer.
    let third = rotate(0).await;
    assert_eq!(
        (status(&first, "GET", "/v1/workflows").await, status(&second, "GET", "/v1/workflows").await),
        (401, 401)
    );
    third.get("/v1/workflows").await;
    assert!(olga.http.get(&format!("/v1/api-keys/{id}")).await["older_until"].is_null());
    let fourth = rotate(1).await;
    third.get("/v1/workflows").await;
    eventually("the overlap is over", async || status(&third, "GET", "/v1/workflows").await == 401).await;
    fourth.get("/v1/workflows").await;
    let long = json!({ "overlap_seconds": 604_801 });
    olga.http.json("POST", &format!("/v1/api-keys/{id}/rotate"), Some(long), 422).await;

    let path = format!("/v1/api-keys/{id}");
    olga.http.json("DELETE", &path, None, 200).await;
    assert_eq!(status(&fourth, "GET", "/v1/workflows").await, 401);
    assert_eq!(olga.http.json("GET", &path, None, 404).await["code"], "unknown_key");
    assert_eq!(olga.http.json("POST", &format!("{path}/rotate"), Some(json!({})), 404).await["code"], "unknown_key");
    assert!(olga.http.get("/v1/api-keys").await["items"].as_array().unwrap().is_empty());
    let events = olga.http.get("/v1/events?category=api-key").await.to_string();
    let count = |name: &str| events.matches(&format!("\"{name}\"")).count();
    assert_eq!((count("api-key.issued"), count("api-key.rotated"), count("api-key.revoked")), (1, 3, 1), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_somebody_leaves_their_keys_end_everywhere_and_the_log_says_so() {
    let shared = Shared::new(5_000).await;
    let (first, second) = (shared.serve("first").await, shared.serve("second").await);
    let (here, there) = (People::at(&shared, &first), People::at(&shared, &second));
    let (tenant, olga) = owner(&here).await;
    let mona = here.member(&olga, &tenant, "mona", "admin").await;
    let (id, program) = mona.make_key(&["workflows:read"]).await;
    let (_, kept) = olga.make_key(&["workflows:read"]).await;
    let elsewhere = |http: &Http| Http { token: http.token.clone(), ..there.http.clone() };
    let (program_there, kept_there) = (elsewhere(&program), elsewhere(&kept));
    for http in [&program, &program_there, &kept_there] {
        http.get("/v1/workflows").await;
    }
    // Whoever foresees how the platform names its commands keeps nothing from being written down by using the name first.
    let rotate = async |command: String| {
        let request =
            mona.http.request("POST", &format!("/v1/api-keys/{id}/rotate")).header("idempotency-key", command);
        request.json(&json!({ "overlap_seconds": 3_600 })).send().await.unwrap().status().as_u16()
    };
    assert_eq!(rotate(format!("{id}.owner-left")).await, 200);
    assert_eq!(rotate(format!("airstream.owner-left.{id}")).await, 400);
    olga.http.json("DELETE", &format!("/v1/tenants/{tenant}/members/{}", mona.id), None, 200).await;
    assert_eq!(status(&program, "GET", "/v1/workflows").await, 401);
    let asked = std::time::Instant::now();
    eventually("the other instance has heard of it", async || {
        status(&program_there, "GET", "/v1/workflows").await == 401
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(20), "it was forgotten, not heard of");
    eventually("the log says so", async || {
        let events = olga.http.get("/v1/events?category=api-key&type=api-key.revoked").await.to_string();
        events.contains("owner_left") && events.contains(&id)
    })
    .await;
    // Who comes back does not bring the key back.
    let (_, code) = olga.invite(&here.mailbox, &tenant, &mona.email, "admin").await;
    here.log_in("mona").await.accept(&code, 200).await;
    assert_eq!(status(&program, "GET", "/v1/workflows").await, 401);
    kept_there.get("/v1/workflows").await;
    let keys = olga.http.get("/v1/api-keys").await;
    assert_eq!(keys["items"].as_array().unwrap().len(), 1, "{keys}");
}
