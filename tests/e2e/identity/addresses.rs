//! Changing to another address.

use serde_json::{Value, json};
use stories::eventually;

use crate::people::{PASSWORD, People};
use crate::stack::Stack;

const NEW: &str = "ann@other.example";

async fn code(people: &People, count: usize) -> String {
    people.mailbox.wait_for(NEW, "Confirm your new e-mail address", count).await.pop().unwrap().word("aco_")
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_changes_to_an_address_that_they_can_read_and_the_old_one_hears_of_it() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let ask = |email: &str, password: Value| Some(json!({ "email": email, "password": password }));
    let without = ann.http.json("POST", "/v1/me/email", Some(json!({ "email": NEW })), 403).await;
    assert_eq!(without["code"], "reauthentication_required", "a stolen session is enough");
    let wrong = ann.http.json("POST", "/v1/me/email", ask(NEW, json!("guess")), 403).await;
    assert_eq!(wrong["code"], "wrong_password");
    people.post("/v1/auth/password/forgot", json!({ "email": ann.email }), 202).await;
    let reset = people.mailbox.letter(&ann.email, "Set a new password").await.word("apw_");

    ann.http.json("POST", "/v1/me/email", ask(NEW, json!(PASSWORD)), 202).await;
    people.mailbox.letter(&ann.email, "Your address is to change").await;
    let first = code(&people, 1).await;
    assert_eq!(ann.http.get("/v1/me").await["email"], json!(ann.email), "it has changed already");
    ann.http.json("POST", "/v1/me/email", ask(NEW, json!(PASSWORD)), 202).await;
    let second = code(&people, 2).await;
    people.post("/v1/auth/verify-email", json!({ "code": first }), 422).await;
    people.post("/v1/auth/verify-email", json!({ "code": second }), 200).await;
    people.post("/v1/auth/verify-email", json!({ "code": second }), 422).await;
    let me = ann.http.get("/v1/me").await;
    assert_eq!((me["email"].as_str(), &me["email_confirmed"]), (Some(NEW), &json!(true)));

    people.log_in(NEW).await;
    people.post("/v1/auth/login", json!({ "login": ann.email, "password": PASSWORD }), 401).await;
    // Whoever reads the mail of the old address opens nothing with it.
    people.post("/v1/auth/password/reset", json!({ "code": reset, "password": "a third caravan" }), 422).await;
    // Somebody else may have the old one now.
    let body = json!({ "email": ann.email, "password": PASSWORD });
    people.post("/v1/auth/register", body, 202).await;
    people.confirm(&ann.email).await;
    assert_ne!(people.log_in(&ann.email).await.id, ann.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_somebody_has_is_not_told_to_others_and_not_taken() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let (ann, bob) = (people.join("ann").await, people.join("bob").await);
    let ask = |email: &str| Some(json!({ "email": email, "password": PASSWORD }));
    let taken = ann.http.json("POST", "/v1/me/email", ask(&bob.email), 202).await;
    let free = ann.http.json("POST", "/v1/me/email", ask(NEW), 202).await;
    assert_eq!(taken, free);
    people.mailbox.letter(&bob.email, "You have an account already").await;
    // Somebody registers with it while the code is on its way.
    let late = code(&people, 1).await;
    people.post("/v1/auth/register", json!({ "email": NEW, "password": PASSWORD }), 202).await;
    let problem = people.post("/v1/auth/verify-email", json!({ "code": late }), 409).await;
    assert_eq!(problem["code"], "email_taken");
    people.confirm(NEW).await;
    assert_ne!(people.log_in(NEW).await.id, ann.id);
    assert_eq!(ann.http.get("/v1/me").await["email"], json!(ann.email));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_up_an_operators_address_runs_nothing_though_it_is_still_reserved_for_them() {
    let stack = Stack::up_with(&[], &[("AIRSTREAM__IDENTITY__OPERATORS", "ann@example.org")]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    assert_eq!(ann.http.get("/v1/whoami").await["operator"], true);
    let mut postgres = stack.postgres().await;
    let reserved = "SELECT digest FROM identity.handles WHERE kind = 'email' AND person = $1";
    let reserved: Vec<u8> = sqlx::query_scalar(reserved).bind(&ann.id).fetch_one(&mut postgres).await.unwrap();
    let ask = json!({ "email": NEW, "password": PASSWORD });
    ann.http.json("POST", "/v1/me/email", Some(ask), 202).await;
    people.post("/v1/auth/verify-email", json!({ "code": code(&people, 1).await }), 200).await;
    // As if the change had been written down, and come no further.
    let kept = "INSERT INTO identity.handles (kind, digest, person, held) VALUES ('email', $1, $2, true)";
    sqlx::query(kept).bind(&reserved).bind(&ann.id).execute(&mut postgres).await.unwrap();
    eventually("they are no operator", async || ann.http.get("/v1/whoami").await["operator"] == false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_interrupted_holds_no_name_for_ever() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let mut postgres = stack.postgres().await;
    // As if a change of profile had claimed a name a while ago and come no further.
    let edit = json!({ "username": "wanted" });
    ann.http.json("PATCH", "/v1/me", Some(edit), 200).await;
    ann.http.json("PATCH", "/v1/me", Some(json!({ "username": "ann" })), 200).await;
    let again = json!({ "email": "bob@example.org", "username": "wanted", "password": PASSWORD });
    people.post("/v1/auth/register", again, 202).await;
    let claimed = "UPDATE identity.handles SET person = $1, held = false, claimed_at = now() - interval '2 minutes'
                   WHERE kind = 'username' AND person <> $1";
    sqlx::query(claimed).bind(&ann.id).execute(&mut postgres).await.unwrap();
    let cy = json!({ "email": "cy@example.org", "username": "wanted", "password": PASSWORD });
    people.post("/v1/auth/register", cy, 202).await;
    people.confirm("cy@example.org").await;
    let cy = people.log_in("wanted").await;
    assert_eq!(cy.email, "cy@example.org");

    // And as if a change had been written down, and come no further: the name is theirs.
    let claimed = "UPDATE identity.handles SET held = false, claimed_at = now() - interval '2 minutes'
                   WHERE kind = 'username' AND person = $1";
    sqlx::query(claimed).bind(&cy.id).execute(&mut postgres).await.unwrap();
    let problem = ann.http.json("PATCH", "/v1/me", Some(json!({ "username": "Wanted" })), 409).await;
    assert_eq!(problem["code"], "username_taken");
    assert_eq!(people.log_in("wanted").await.id, cy.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_was_interrupted_says_so_and_leaves_neither_address_nor_name_to_nobody() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let mut postgres = stack.postgres().await;
    let ann = json!({ "email": "ann@example.org", "username": "ann", "password": PASSWORD });
    people.post("/v1/auth/register", ann, 202).await;
    // As if it had been interrupted after the event: nothing is held yet.
    let unheld = "UPDATE identity.handles SET held = false";
    sqlx::query(unheld).execute(&mut postgres).await.unwrap();
    people.confirm("ann@example.org").await;
    assert_eq!(people.log_in("ann").await.id, people.log_in("ann@example.org").await.id);
    // And whoever comes by another password.
    people.post("/v1/auth/password/forgot", json!({ "email": "ann@example.org" }), 202).await;
    let code = people.mailbox.letter("ann@example.org", "Set a new password").await.word("apw_");
    sqlx::query(unheld).execute(&mut postgres).await.unwrap();
    people.post("/v1/auth/password/reset", json!({ "code": code, "password": PASSWORD }), 200).await;
    assert_eq!(people.log_in("ann").await.id, people.log_in("ann@example.org").await.id);

    // As if another one had been interrupted before the event.
    let bob = json!({ "email": "bob@example.org", "password": PASSWORD });
    people.post("/v1/auth/register", bob.clone(), 202).await;
    people.mailbox.letter("bob@example.org", "Confirm your e-mail address").await;
    let orphan = "UPDATE identity.handles SET person = 'usr_interrupted', held = false, claimed_at = now()
                  WHERE person = (SELECT person FROM identity.handles ORDER BY claimed_at DESC LIMIT 1)";
    sqlx::query(orphan).execute(&mut postgres).await.unwrap();
    let problem = people.post("/v1/auth/register", bob.clone(), 429).await;
    assert_eq!(problem["code"], "busy", "a mail is promised that does not come: {problem}");
    let later =
        "UPDATE identity.handles SET claimed_at = now() - interval '2 minutes' WHERE person = 'usr_interrupted'";
    sqlx::query(later).execute(&mut postgres).await.unwrap();
    people.post("/v1/auth/register", bob, 202).await;
    let second = people.mailbox.wait_for("bob@example.org", "Confirm your e-mail address", 2).await.pop().unwrap();
    people.post("/v1/auth/verify-email", json!({ "code": second.word("aco_") }), 200).await;
    people.log_in("bob@example.org").await;
}
