//! Tenants over HTTP: people make them, invite each other, change what they may do, and go.

use futures::future::join_all;
use serde_json::{Value, json};
use stories::eventually;

use crate::people::{Mailbox, People, Person};
use crate::serving::Shared;
use crate::stack::{Http, Stack};

impl Person {
    /// Makes a tenant: its id.
    pub(crate) async fn create_tenant(&self, name: &str) -> String {
        let made = self.http.json("POST", "/v1/tenants", Some(json!({ "name": name })), 201).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// Goes into a tenant.
    pub(crate) async fn within(&self, tenant: &str) -> Person {
        let chosen = self.http.json("POST", "/v1/auth/tenant", Some(json!({ "tenant": tenant })), 200).await;
        let token = chosen["access_token"].as_str().unwrap().to_owned();
        Person { http: Http { token: Some(token), ..self.http.clone() }, ..self.clone() }
    }

    /// Invites somebody to the tenant that is worked in: the invitation, and the code that came by mail.
    pub(crate) async fn invite(&self, mailbox: &Mailbox, tenant: &str, email: &str, role: &str) -> (String, String) {
        let before = mailbox.to(email).iter().filter(|letter| letter.subject.starts_with("You are invited")).count();
        let body = json!({ "email": email, "role": role });
        let path = format!("/v1/tenants/{tenant}/invites");
        let invited = self.http.json("POST", &path, Some(body), 201).await;
        let letter = mailbox.wait_for(email, "You are invited", before + 1).await.pop().unwrap();
        (invited["id"].as_str().unwrap().to_owned(), letter.word("aci_"))
    }

    /// Accepts an invitation, or hears why not.
    pub(crate) async fn accept(&self, code: &str, expected: u16) -> Value {
        self.http.json("POST", "/v1/invites/accept", Some(json!({ "code": code })), expected).await
    }
}

impl People {
    /// Somebody new, who joins a tenant in a role, and works in it.
    pub(crate) async fn member(&self, owner: &Person, tenant: &str, name: &str, role: &str) -> Person {
        let person = self.join(name).await;
        let (_, code) = owner.invite(&self.mailbox, tenant, &person.email, role).await;
        person.accept(&code, 200).await;
        person.within(tenant).await
    }
}

fn roles(members: &Value) -> Vec<(&str, &str)> {
    let items = members["items"].as_array().unwrap().iter();
    let mut roles: Vec<_> =
        items.map(|member| (member["person"].as_str().unwrap(), member["role"].as_str().unwrap())).collect();
    roles.sort_unstable();
    roles
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_makes_a_tenant_invites_others_and_they_see_each_other_as_far_as_they_may() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let olga = people.join("olga").await;
    olga.http.json("PATCH", "/v1/me", Some(json!({ "name": "Olga O." })), 200).await;
    // A key makes one tenant, however often.
    let create = async |name: &str| {
        let request = olga.http.request("POST", "/v1/tenants").header("idempotency-key", "first");
        let answer = request.json(&json!({ "name": name })).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, made) = create("Acme").await;
    assert_eq!((status, create("Acme").await), (201, (201, made.clone())), "{made}");
    assert_eq!(create("Other").await.1["code"], "idempotency_key_reused");
    let tenant = made["id"].as_str().unwrap().to_owned();
    assert!(tenant.starts_with("tnt_"), "{made}");
    let position = made["position"].as_str().unwrap();
    let mine = olga.http.get(&format!("/v1/tenants?at_least={position}")).await;
    assert_eq!((&mine["items"][0]["id"], &mine["items"][0]["role"]), (&json!(tenant), &json!("owner")), "{mine}");
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);

    // Without going there, it cannot be worked in, not even by its owner.
    let path = format!("/v1/tenants/{tenant}");
    assert_eq!(olga.http.json("GET", &path, None, 403).await["code"], "no_tenant");
    let olga = olga.within(&tenant).await;
    assert_eq!(olga.http.get(&path).await, json!({ "id": tenant, "name": "Acme", "members": 1 }));
    let vera = people.member(&olga, &tenant, "vera", "viewer").await;
    let letter = people.mailbox.letter("vera@example.org", "You are invited").await;
    assert!(
        letter.text.starts_with("Olga O. invites you to the tenant \"Acme\" on Airstream, as viewer."),
        "{letter:?}"
    );

    let renamed = olga.http.json("PATCH", &path, Some(json!({ "name": " Acme & Co " })), 200).await;
    let at_least = renamed["position"].as_str().unwrap();
    let seen = vera.http.get(&format!("{path}/members?at_least={at_least}")).await;
    assert_eq!(roles(&seen).len(), 2, "{seen}");
    let of = |members: &Value, id: &str| {
        members["items"].as_array().unwrap().iter().find(|member| member["person"] == id).unwrap().clone()
    };
    assert_eq!((&of(&seen, &olga.id)["name"], &of(&seen, &olga.id)["email"]), (&json!("Olga O."), &Value::Null));
    let seen = olga.http.get(&format!("{path}/members?limit=1")).await;
    let rest = olga.http.get(&format!("{path}/members?cursor={}", seen["next_cursor"].as_str().unwrap())).await;
    assert_eq!((seen["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()), (1, 1));
    let all = olga.http.get(&format!("{path}/members")).await;
    assert_eq!(of(&all, &vera.id)["email"], "vera@example.org");
    assert_eq!(vera.http.get("/v1/tenants").await["items"][0]["name"], "Acme & Co");

    // Whoever signs in and has one tenant works in it.
    let vera = people.log_in("vera").await;
    assert_eq!(vera.http.get(&path).await["members"], 2);
    for (name, code) in [("", "invalid"), ("a\nb", "invalid")] {
        assert_eq!(olga.http.json("PATCH", &path, Some(json!({ "name": name })), 422).await["code"], code);
    }
    assert_eq!(stack.run(&["projections", "verify", "tenants"]).code, 0);
    assert_eq!(stack.run(&["projections", "rebuild", "tenants"]).code, 0);
    assert_eq!(roles(&olga.http.get(&format!("{path}/members")).await), roles(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_for_one_address_works_once_and_can_be_taken_back() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let olga = people.join("olga").await;
    let tenant = olga.create_tenant("Acme").await;
    let olga = olga.within(&tenant).await;
    let path = format!("/v1/tenants/{tenant}/invites");

    // Nobody has this address yet. A second invitation replaces the first.
    let (_, first) = olga.invite(&people.mailbox, &tenant, "bob@example.org", "viewer").await;
    let (_, second) = olga.invite(&people.mailbox, &tenant, "Bob@Example.org", "member").await;
    assert_ne!(first, second);
    let open = olga.http.get(&path).await;
    let shown: Vec<_> =
        open["items"].as_array().unwrap().iter().map(|item| (item["email"].clone(), item["role"].clone())).collect();
    assert_eq!(shown, [(json!("Bob@Example.org"), json!("member"))], "{open}");
    let (eve, bob) = (people.join("eve").await, people.join("bob").await);
    assert_eq!(eve.accept(&second, 403).await["code"], "another_address");
    assert_eq!(bob.accept(&first, 404).await["code"], "unknown_invite");
    assert_eq!(bob.accept("aci_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 404).await["code"], "unknown_invite");

    // However many accept at once, one joins; and again it changes nothing.
    let many = (0..8).map(|_| bob.http.request("POST", "/v1/invites/accept").json(&json!({ "code": second })).send());
    for answer in join_all(many).await {
        assert_eq!(answer.unwrap().status().as_u16(), 200);
    }
    let events = olga.http.get("/v1/events?type=tenant.member_joined").await;
    let joined = events.to_string().matches("\"tenant.member_joined\"").count();
    assert_eq!(joined, 1, "{events}");
    let twice = olga.http.json("POST", &path, Some(json!({ "email": bob.email, "role": "admin" })), 409).await;
    assert_eq!(twice["code"], "already_a_member");

    // Taken back, declined, expired: three ways in which it does not count any more.
    let (invite, code) = olga.invite(&people.mailbox, &tenant, &eve.email, "owner").await;
    olga.http.json("DELETE", &format!("{path}/{invite}"), None, 200).await;
    assert_eq!(eve.accept(&code, 404).await["code"], "unknown_invite");
    assert_eq!(olga.http.json("DELETE", &format!("{path}/{invite}"), None, 404).await["code"], "unknown_invite");
    let (_, code) = olga.invite(&people.mailbox, &tenant, &eve.email, "viewer").await;
    let decline = json!({ "code": code });
    assert_eq!(
        bob.http.json("POST", "/v1/invites/decline", Some(decline.clone()), 403).await["code"],
        "another_address"
    );
    eve.http.json("POST", "/v1/invites/decline", Some(decline), 200).await;
    assert_eq!(eve.accept(&code, 404).await["code"], "unknown_invite");

    // Nobody gives what they do not have.
    let adam = people.member(&olga, &tenant, "adam", "admin").await;
    let too_much = json!({ "email": eve.email, "role": "owner" });
    assert_eq!(adam.http.json("POST", &path, Some(too_much), 403).await["code"], "forbidden");
    for body in [json!({ "email": "nobody", "role": "member" }), json!({ "email": "a@example.org", "role": "king" })] {
        let status = olga.http.request("POST", &path).json(&body).send().await.unwrap().status().as_u16();
        assert!((400..500).contains(&status), "{body}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_who_go_at_the_same_time_leave_one_behind() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let olga = people.join("olga").await;
    let tenant = olga.create_tenant("Acme").await;
    let olga = olga.within(&tenant).await;
    let oscar = people.member(&olga, &tenant, "oscar", "owner").await;
    let path = format!("/v1/tenants/{tenant}");
    let member = |person: &Person| format!("{path}/members/{}", person.id);
    for round in 0..10 {
        let demote = |by: &Person, whom: &Person| {
            by.http.request("PATCH", &member(whom)).json(&json!({ "role": "viewer" })).send()
        };
        let (one, other) = match round % 2 {
            0 => tokio::join!(demote(&olga, &oscar), demote(&oscar, &olga)),
            _ => tokio::join!(demote(&olga, &olga), demote(&oscar, &oscar)),
        };
        let statuses = [one.unwrap().status().as_u16(), other.unwrap().status().as_u16()];
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "round {round}: {statuses:?}");
        let view = olga.http.get(&format!("{path}/members")).await;
        let owners = |view: &Value| roles(view).iter().filter(|(_, role)| *role == "owner").count();
        assert!(owners(&view) >= 1, "{view}");
        // Whoever is left makes the other one an owner again.
        let raise = async |by: &Person, whom: &Person| {
            let raised =
                by.http.request("PATCH", &member(whom)).json(&json!({ "role": "owner" })).send().await.unwrap();
            raised.status().as_u16() == 200
        };
        assert!(raise(&olga, &oscar).await || raise(&oscar, &olga).await, "nobody is an owner");
    }
    let leave = |person: &Person| person.http.request("POST", &format!("{path}/leave")).json(&json!({})).send();
    let (one, other) = tokio::join!(leave(&olga), leave(&oscar));
    let mut statuses = [one.unwrap().status().as_u16(), other.unwrap().status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);

    // Who has left learns nothing more, and whoever never was there learned nothing before.
    let (gone, left) = match leave(&olga).await.unwrap().status().as_u16() {
        401 => (&olga, &oscar),
        _ => (&oscar, &olga),
    };
    assert_eq!(gone.http.json("GET", &path, None, 401).await["code"], "unauthenticated");
    let gone = people.log_in(&gone.email).await;
    let mut answers = Vec::new();
    for tenant in [tenant.as_str(), "tnt_none"] {
        let none = gone.http.json("POST", &format!("/v1/tenants/{tenant}/leave"), Some(json!({})), 403).await;
        let chosen = gone.http.json("POST", "/v1/auth/tenant", Some(json!({ "tenant": tenant })), 403).await;
        answers.push((none, chosen));
    }
    assert_eq!(answers[0], answers[1], "whether there is such a tenant can be told");
    let last = left.http.json("DELETE", &member(left), None, 409).await;
    assert_eq!(last["code"], "last_owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_changes_on_one_instance_counts_on_the_other() {
    let shared = Shared::new(5_000).await;
    let (first, second) = (shared.serve("first").await, shared.serve("second").await);
    let (here, there) = (People::at(&shared, &first), People::at(&shared, &second));
    let olga = here.join("olga").await;
    let tenant = olga.create_tenant("Acme").await;
    let olga = olga.within(&tenant).await;
    let mona = here.member(&olga, &tenant, "mona", "member").await;
    let elsewhere = Http { token: mona.http.token.clone(), ..there.http.clone() };
    let define = async |expected: u16| {
        let document = json!({ "workflow_id": "w", "steps": [{ "id": 1, "name": "a" }] });
        let answer = elsewhere.request("PUT", "/v1/workflows/w").json(&document).send().await.unwrap();
        answer.status().as_u16() == expected
    };
    assert!(define(200).await, "a member may");
    let asked = std::time::Instant::now();
    let member = format!("/v1/tenants/{tenant}/members/{}", mona.id);
    olga.http.json("PATCH", &member, Some(json!({ "role": "viewer" })), 200).await;
    eventually("a viewer may not, on the other instance", async || define(403).await).await;
    olga.http.json("DELETE", &member, None, 200).await;
    eventually("who was removed is nobody there", async || define(401).await).await;
    // What is remembered lasts half a minute: this was heard, not forgotten.
    assert!(asked.elapsed() < std::time::Duration::from_secs(25));
}
