//! The walls between tenants, and between those who may and those who may not: for every operation of the description, by
//! whoever should not get through.

mod operations;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use stories::eventually;

use self::operations::{ALL, Foreign, Operation};
use crate::people::{PASSWORD, People, Person};
use crate::stack::{Http, Stack};

/// Stands in every text that is about the first tenant, and nowhere else.
const MARK: &str = "zanzibar";

/// A tenant with somebody in each role, and with things.
struct Tenant {
    owner: Person,
    /// The owner again, having chosen no tenant.
    outside: Person,
    admin: Person,
    member: Person,
    viewer: Person,
    things: BTreeMap<&'static str, String>,
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

async fn furnish(stack: &Stack, people: &People) -> Tenant {
    let outside = people.join("olga").await;
    outside.http.json("PATCH", "/v1/me", Some(json!({ "name": format!("Olga {MARK}") })), 200).await;
    let tenant = outside.create_tenant(&format!("Acme {MARK}")).await;
    let other_session = people.log_in("olga").await;
    let sessions = other_session.http.get("/v1/me/sessions").await;
    let owner = other_session.within(&tenant).await;
    let admin = people.member(&owner, &tenant, "adam", "admin").await;
    let member = people.member(&owner, &tenant, "mona", "member").await;
    let viewer = people.member(&owner, &tenant, "vera", "viewer").await;
    let person = people.member(&owner, &tenant, "pit", "member").await.id;
    let (invite, code) = owner.invite(&people.mailbox, &tenant, &format!("{MARK}@example.org"), "viewer").await;
    let body = json!({ "name": format!("key of {MARK}"), "scopes": ["runs:read"] });
    let key = text(&owner.http.json("POST", "/v1/api-keys", Some(body), 201).await, "/id");
    owner.http.define("wf", json!([{ "id": 1, "name": format!("step-{MARK}") }])).await;
    let command = json!({ "category": "run", "id": "run-1", "command": "start", "command_id": "a-command",
        "body": { "workflow": "wf", "input": MARK } });
    let started = owner.http.json("POST", "/v1/commands", Some(command), 200).await;
    let position = text(&started, "/position");
    owner.http.get(&format!("/v1/workflows/runs/run-1?at_least={position}")).await;
    let event = text(&owner.http.get("/v1/events?type=run.started").await, "/items/0/cursor");
    let export = text(&owner.http.json("POST", "/v1/me/export", None, 202).await, "/id");
    let path = format!("/v1/me/exports/{export}");
    eventually("the archive is ready", async || owner.http.get(&path).await["state"] == "ready").await;
    let current = |session: &Value| session["current"] == true;
    let session = sessions["items"].as_array().unwrap().iter().find(|session| !current(session)).unwrap();
    // Nothing lies in the parking lot of a stack in order.
    let park = "INSERT INTO airstream.parked (consumer, position, tenant_id, subject, state, reason)
                VALUES ('nobody_v1', 7, $1, 'gone', 'cause', $2) RETURNING consumer || '@' || position";
    let parked: String = sqlx::query_scalar(park)
        .bind(&tenant)
        .bind(format!("a story of {MARK}"))
        .fetch_one(&mut stack.postgres().await)
        .await
        .unwrap();
    let device = people.post("/v1/auth/device", json!({ "client_name": "a device" }), 200).await;
    let things = BTreeMap::from([
        ("$password", PASSWORD.to_owned()),
        ("$device", text(&device, "/user_code")),
        ("$tenant", tenant),
        ("$person", person),
        ("$invite", invite),
        ("$code", code),
        ("$key", key),
        ("$workflow", "wf".to_owned()),
        ("$run", "run-1".to_owned()),
        ("$command", "a-command".to_owned()),
        ("$event", event),
        ("$export", export),
        ("$session", text(session, "/id")),
        ("$parked", parked),
    ]);
    Tenant { owner, outside, admin, member, viewer, things }
}

impl Tenant {
    /// The operation on this tenant's things, by whoever has that token: status and body.
    async fn ask(&self, http: &Http, operation: &Operation) -> (u16, String) {
        let real = |text: &str| self.things.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id));
        let mut request = http.request(operation.method, &real(operation.real));
        if !operation.body.is_empty() {
            request = request.header("content-type", "application/json").body(real(operation.body));
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// As [`Tenant::ask`], by whoever must be refused: with this code and without a word about the tenant.
    async fn refused(&self, http: &Http, operation: &Operation, status: u16, code: &str) {
        let (got, body) = self.ask(http, operation).await;
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        let what = format!("{} {}: {body}", operation.method, operation.path);
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{what}");
        assert!(!body.contains(MARK), "{what}");
    }

    /// Everything that its owner sees of it.
    async fn seen(&self, scopes: &Scopes) -> BTreeMap<&'static str, String> {
        let mut seen = BTreeMap::new();
        for operation in ALL.iter().filter(|operation| operation.method == "GET") {
            if scopes[&(operation.method, operation.path)].contains(':') {
                let (status, body) = self.ask(&self.owner.http, operation).await;
                assert_eq!(status, 200, "{}: {body}", operation.path);
                seen.insert(operation.path, body);
            }
        }
        seen
    }
}

type Scopes = BTreeMap<(&'static str, &'static str), String>;

/// The scope of every operation in the list, which is to have all that are in the description.
fn compare(description: &Value) -> Scopes {
    let mut described = BTreeMap::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] != json!([{}]) {
                let scope = text(operation, "/security/0/token/0");
                let known = ["anybody", "me", "operate"].contains(&scope.as_str()) || rest::level_of(&scope).is_some();
                assert!(known, "{method} {path}: no key can be given `{scope}`; see rest/src/scope.rs");
                described.insert((method.to_uppercase(), path.clone()), scope);
            }
        }
    }
    let name = |operation: &Operation| (operation.method.to_owned(), operation.path.to_owned());
    let listed: BTreeSet<(String, String)> = ALL.iter().map(name).collect();
    assert_eq!(listed.len(), ALL.len(), "an operation is listed twice");
    let missing: Vec<_> = described.keys().filter(|key| !listed.contains(*key)).collect();
    assert!(missing.is_empty(), "put these into tests/e2e/walls/operations.rs: {missing:?}");
    let gone: Vec<_> = listed.iter().filter(|key| !described.contains_key(*key)).collect();
    assert!(gone.is_empty(), "these are not in the description any more: {gone:?}");
    ALL.iter().map(|operation| ((operation.method, operation.path), described[&name(operation)].clone())).collect()
}

/// A key of the owner's that may do everything but what this scope is for.
async fn key_without(owner: &Person, scope: &str) -> Http {
    let (resource, level) = scope.split_once(':').unwrap();
    let mut scopes: Vec<String> =
        rest::RESOURCES.iter().filter(|other| **other != resource).map(|other| format!("{other}:own")).collect();
    let below = ["read", "write", "admin", "own"].into_iter().take_while(|other| *other != level).last();
    scopes.extend(below.map(|below| format!("{resource}:{below}")));
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    owner.make_key(&scopes).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_through_a_wall_on_any_route() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let scopes = compare(&people.http.get("/openapi.json").await);
    let scope = |operation: &Operation| scopes[&(operation.method, operation.path)].as_str();
    let acme = furnish(&stack, &people).await;
    let stranger = people.join("bella").await;
    let own = stranger.create_tenant("Bella's").await;
    let stranger = stranger.within(&own).await;

    // Without credentials, and with some that are nobody's.
    let wrong = Http { token: Some("guess".to_owned()), ..people.http.clone() };
    for operation in ALL {
        acme.refused(&people.http, operation, 401, "unauthenticated").await;
        acme.refused(&wrong, operation, 401, "unauthenticated").await;
    }

    // The owner of another tenant, who knows every id.
    let before = acme.seen(&scopes).await;
    assert!(
        before.values().filter(|body| body.contains(MARK)).count() >= 10,
        "there is not much to be seen: {before:#?}"
    );
    for operation in ALL {
        let what = format!("{} {}", operation.method, operation.path);
        let (status, body) = acme.ask(&stranger.http, operation).await;
        assert!(!body.contains(MARK), "{what}: {body}");
        match operation.foreign {
            Foreign::Own => assert_eq!(status, operation.status, "{what}: {body}"),
            Foreign::Refused(code) => {
                let problem: Value = serde_json::from_str(&body).unwrap_or_default();
                // Whoever does not say that it is about themselves is asked what they mean.
                let refused = matches!(status, 403 | 404) || (status, code) == (422, "not_confirmed");
                assert!(refused, "{what}: {status} {body}");
                assert_eq!(problem["code"], code, "{what}: {body}");
            }
        }
    }
    assert_eq!(acme.seen(&scopes).await, before, "something of the tenant has changed");

    // A role too low; who has no tenant at all; keys for other things.
    let (_, everything) = acme.owner.make_key(&["*:own"]).await;
    for operation in ALL {
        let scope = scope(operation);
        let below = match scope.rsplit_once(':').map(|(_, level)| level) {
            Some("own") => Some(&acme.admin),
            Some("admin") => Some(&acme.member),
            Some("write") => Some(&acme.viewer),
            _ => None,
        };
        if let Some(below) = below {
            acme.refused(&below.http, operation, 403, "role_too_low").await;
        }
        match scope {
            "anybody" => {}
            "me" => acme.refused(&everything, operation, 403, "people_only").await,
            "operate" => {
                acme.refused(&everything, operation, 403, "not_an_operator").await;
                acme.refused(&acme.owner.http, operation, 403, "not_an_operator").await;
            }
            _ => {
                acme.refused(&acme.outside.http, operation, 403, "no_tenant").await;
                let key = key_without(&acme.owner, scope).await;
                acme.refused(&key, operation, 403, "insufficient_scope").await;
            }
        }
    }

    // And all of it was about something: to its own owner every operation answers.
    for operation in ALL {
        let (status, body) = acme.ask(&acme.owner.http, operation).await;
        assert_eq!(status, operation.status, "{} {}: {body}", operation.method, operation.path);
    }
}
