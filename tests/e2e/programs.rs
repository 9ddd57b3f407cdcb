//! Programs of tenants on the bus: they come in with the keys that people make for them, and leave when those end.

use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectError, ConnectOptions};
use serde_json::{Value, json};
use stories::eventually;

use crate::people::{People, Person};
use crate::stack::{Http, Stack};

/// A stock client with a credential, and what it was told.
struct Program {
    client: Client,
    told: Arc<Mutex<Vec<String>>>,
    /// `<tenant>.<principal>`, as the platform itself says it.
    who: String,
}

impl Program {
    async fn connect(stack: &Stack, token: &str) -> Result<Self, ConnectError> {
        let me = Http { token: Some(token.to_owned()), ..stack.http() }.get("/v1/whoami").await;
        let who = format!("{}.{}", me["tenant"].as_str().unwrap(), me["principal"].as_str().unwrap());
        Self::connect_as(stack, token, who).await
    }

    async fn connect_as(stack: &Stack, token: &str, who: String) -> Result<Self, ConnectError> {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let hear = Arc::clone(&told);
        let options = ConnectOptions::with_token(token.to_owned())
            .custom_inbox_prefix(format!("_INBOX.{who}"))
            .event_callback(move |event| {
                hear.lock().unwrap().push(event.to_string().to_lowercase());
                async {}
            });
        let url = stack.status()["nats"]["url"].as_str().unwrap().to_owned();
        Ok(Self { client: options.connect(url).await?, told, who })
    }

    async fn define(&self) -> Value {
        let body = json!({ "steps": [{ "id": "end", "kind": "pass", "output": 1 }] }).to_string();
        let subject = format!("cmd.{}.workflow.w.define", self.who);
        let reply = self.client.request(subject, body.into()).await.unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    }

    async fn is_told(&self, what: &str) {
        let told = || self.told.lock().unwrap().iter().any(|told| told.contains(what));
        eventually(&format!("{} is told: {what}", self.who), async || told()).await;
    }
}

/// A tenant of this person, and the person at work in it.
async fn tenant_of(person: &Person, name: &str) -> (String, Http) {
    let made = person.http.json("POST", "/v1/tenants", Some(json!({ "name": name })), 201).await;
    let tenant = made["id"].as_str().unwrap().to_owned();
    let http = at_work(person, &tenant).await;
    (tenant, http)
}

async fn at_work(person: &Person, tenant: &str) -> Http {
    let token = person.http.json("POST", "/v1/auth/tenant", Some(json!({ "tenant": tenant })), 200).await;
    Http { token: Some(token["access_token"].as_str().unwrap().to_owned()), ..person.http.clone() }
}

/// A key's id and its secret.
async fn key(http: &Http, scopes: &[&str]) -> (String, String) {
    let made = http.json("POST", "/v1/api-keys", Some(json!({ "name": "a program", "scopes": scopes })), 201).await;
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lets_a_program_of_its_tenant_in_until_it_is_revoked() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let (ann, bob) = (people.join("ann").await, people.join("bob").await);
    let (acme, at_acme) = tenant_of(&ann, "Acme").await;
    let (_, at_bravo) = tenant_of(&bob, "Bravo").await;
    let all = ["commands:write", "work:write", "events:read"];
    let (id, secret) = key(&at_acme, &all).await;
    let (_, others) = key(&at_bravo, &all).await;
    let (one, other) =
        (Program::connect(&stack, &secret).await.unwrap(), Program::connect(&stack, &others).await.unwrap());
    assert_eq!(one.who, format!("{acme}.{id}"));

    let mut feed = one.client.subscribe(format!("feed.{acme}.>")).await.unwrap();
    one.client.flush().await.unwrap();
    // The same name in another tenant is another thing.
    assert_eq!(other.define().await["version"], 1);
    assert_eq!(one.define().await["version"], 1);
    loop {
        let message = tokio::time::timeout(std::time::Duration::from_secs(20), futures::StreamExt::next(&mut feed));
        let event: Value = serde_json::from_slice(&message.await.expect("an event in time").unwrap().payload).unwrap();
        assert_eq!(event["tenantid"], acme.as_str(), "another tenant's event: {event}");
        if event["type"] == "workflow.defined" {
            assert_eq!(event["actor"], id.as_str(), "{event}");
            break;
        }
    }
    for subject in [format!("cmd.{}.workflow.w.retire", other.who), format!("cmd.{acme}.{}.workflow.w.retire", ann.id)]
    {
        one.client.publish(subject.clone(), "{}".into()).await.unwrap();
        one.is_told(&format!("permissions violation for publish to \"{subject}\"")).await;
    }
    one.client.subscribe(format!("feed.{}.>", other.who.split('.').next().unwrap())).await.unwrap();
    one.is_told("permissions violation for subscription").await;

    at_acme.json("DELETE", &format!("/v1/api-keys/{id}"), None, 200).await;
    one.is_told("disconnected").await;
    assert!(Program::connect_as(&stack, &secret, one.who.clone()).await.is_err(), "a revoked key was let in");
    assert_eq!(other.define().await["accepted"], true);
    assert!(!other.told.lock().unwrap().iter().any(|told| told.contains("disconnected")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_hear_says_nothing() {
    let stack = Stack::up(&[]);
    let ann = People::of(&stack).join("ann").await;
    let (_, at_acme) = tenant_of(&ann, "Acme").await;
    let (_, secret) = key(&at_acme, &["events:read"]).await;
    let program = Program::connect(&stack, &secret).await.unwrap();
    program.client.publish(format!("cmd.{}.workflow.w.define", program.who), "{}".into()).await.unwrap();
    program.is_told("permissions violation for publish").await;
    let (_, secret) = key(&at_acme, &["keys:read"]).await;
    let me = Http { token: Some(secret.clone()), ..stack.http() }.get("/v1/whoami").await;
    let who = format!("{}.{}", me["tenant"].as_str().unwrap(), me["principal"].as_str().unwrap());
    assert!(Program::connect_as(&stack, &secret, who).await.is_err(), "a key without a scope for the bus was let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_on_the_bus_leaves_it_with_the_session() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    // Without a tenant there is nothing to say.
    let nowhere = ann.http.token.clone().unwrap();
    assert!(Program::connect_as(&stack, &nowhere, format!("x.{}", ann.id)).await.is_err());
    let (acme, at_acme) = tenant_of(&ann, "Acme").await;
    let program = Program::connect(&stack, at_acme.token.as_ref().unwrap()).await.unwrap();
    assert_eq!(program.who, format!("{acme}.{}", ann.id));
    assert_eq!(program.define().await["accepted"], true);
    people.post("/v1/auth/logout", json!({ "refresh_token": ann.refresh_token }), 204).await;
    program.is_told("disconnected").await;
    let token = at_acme.token.as_ref().unwrap();
    assert!(
        Program::connect_as(&stack, token, program.who.clone()).await.is_err(),
        "a session that is over was let in"
    );
}
