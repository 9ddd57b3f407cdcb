//! Who did what, as a tenant's admins and as people themselves see it.

use serde_json::{Value, json};
use stories::eventually;

use crate::people::{PASSWORD, People, Person};
use crate::stack::Stack;

fn of<'a>(page: &'a Value, name: &str) -> Vec<&'a str> {
    page["items"].as_array().unwrap().iter().map(|item| item[name].as_str().unwrap()).collect()
}

impl Person {
    /// As `airstream` with their token.
    fn cli(&self, stack: &Stack, arguments: &[&str]) -> crate::stack::Said {
        let token = self.http.token.clone().unwrap();
        stack.command().env("AIRSTREAM_TOKEN", token).args(arguments).output().unwrap().into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_see_who_did_what_and_find_what_was_changed_by_hand() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let olga = people.join("olga").await;
    let acme = olga.create_tenant("Acme").await;
    let olga = olga.within(&acme).await;
    let bob = people.member(&olga, &acme, "bob", "member").await;
    assert_eq!(bob.http.json("GET", "/v1/audit", None, 403).await["code"], "role_too_low");
    let role = json!({ "role": "admin" });
    let path = format!("/v1/tenants/{acme}/members/{}", bob.id);
    let changed = olga.http.json("PATCH", &path, Some(role), 200).await;
    let position = changed["position"].as_str().unwrap();
    let page = olga.http.get(&format!("/v1/audit?at_least={position}")).await;
    let expected = ["tenant.role_changed", "tenant.member_joined", "tenant.member_invited", "tenant.created"];
    assert_eq!(of(&page, "action"), expected, "{page:#}");
    assert_eq!(
        of(&page, "what"),
        [
            "olga@example.org gave bob@example.org the role admin.",
            "bob@example.org joined as member.",
            "olga@example.org invited bob@example.org as member.",
            "olga@example.org made the tenant “Acme”.",
        ]
    );
    assert_eq!(page["items"][1]["actor_name"], "bob@example.org");
    // What a member does from now on about their account is there, and not from where.
    people.log_in("bob").await;
    eventually("the sign-in is seen", async || {
        let page = olga.http.get("/v1/audit?limit=1").await;
        of(&page, "what") == ["bob@example.org signed in by password."] && !page.to_string().contains("127.0.0.1")
    })
    .await;
    // Pages and filters.
    let first = olga.http.get("/v1/audit?limit=3").await;
    let rest = olga.http.get(&format!("/v1/audit?limit=3&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!([of(&first, "position"), of(&rest, "position")].concat().len(), 5);
    assert_eq!(rest["next_cursor"], Value::Null);
    let filtered = olga.http.get(&format!("/v1/audit?actor={}&action=tenant.member_joined", bob.id)).await;
    assert_eq!(of(&filtered, "subject"), [acme.as_str()]);
    let time = filtered["items"][0]["time"].as_str().unwrap();
    assert_eq!(of(&olga.http.get(&format!("/v1/audit?until={time}")).await, "action"), expected[2..]);
    assert_eq!(of(&olga.http.get(&format!("/v1/audit?since={time}&actor={}", olga.id)).await, "action"), expected[..1]);
    for bad in ["cursor=x", "since=yesterday", "limit=0", "actor=a%20b", "colour=red"] {
        olga.http.json("GET", &format!("/v1/audit?{bad}"), None, 400).await;
    }
    // Another tenant's admin sees another audit.
    let eve = people.join("eve").await;
    let evil = eve.create_tenant("Evil").await;
    let eve = eve.within(&evil).await;
    eventually("its making is seen", async || of(&eve.http.get("/v1/audit").await, "action") == ["tenant.created"])
        .await;

    let verified = olga.http.get("/v1/audit/verify").await;
    assert_eq!((&verified["intact"], &verified["entries"]), (&json!(true), &json!(5)), "{verified}");
    let said = olga.cli(&stack, &["audit", "verify", "--json"]);
    assert_eq!((said.code, said.json()["head"].clone()), (0, verified["head"].clone()), "{}", said.err);
    let listed = olga.cli(&stack, &["audit", "ls"]);
    assert!(
        listed.code == 0 && listed.out.contains("gave bob@example.org the role admin"),
        "{}{}",
        listed.out,
        listed.err
    );
    let last = "DELETE FROM audit_v1.entries WHERE position = (SELECT max(position) FROM audit_v1.entries WHERE tenant_id = $1)";
    sqlx::query(last).bind(&acme).execute(&mut stack.postgres().await).await.unwrap();
    let said = olga.cli(&stack, &["audit", "verify"]);
    assert!(said.code == 6 && said.err.contains("not there"), "{} {}", said.code, said.err);
    assert_eq!(eve.cli(&stack, &["audit", "verify"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_what_happened_to_their_own_account() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    people.join("bob").await;
    people.post("/v1/auth/login", json!({ "login": "ann", "password": "not it, sorry" }), 401).await;
    let other = people.post("/v1/auth/login", json!({ "login": "ann", "password": PASSWORD }), 200).await;
    let other = Person::of(&people.http, &other);
    assert_eq!(ann.http.json("DELETE", "/v1/me/sessions", None, 200).await["ended"], 1);
    let expected = [
        "person.sessions_ended",
        "person.session_opened",
        "person.session_opened",
        "person.email_confirmed",
        "person.registered",
    ];
    eventually("everything is seen", async || of(&ann.http.get("/v1/me/audit").await, "action") == expected).await;
    let page = ann.http.get("/v1/me/audit?limit=2").await;
    assert_eq!(of(&page, "what"), ["All sessions but one ended: revoked.", "You signed in by password."]);
    assert_eq!(page["items"][1]["address"], "127.0.0.1");
    let rest = ann.http.get(&format!("/v1/me/audit?cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!(of(&rest, "action"), expected[2..]);
    other.http.json("GET", "/v1/me/audit", None, 401).await;
    // The development token is nobody's.
    assert_eq!(stack.http().json("GET", "/v1/me/audit", None, 403).await["code"], "people_only");
}
