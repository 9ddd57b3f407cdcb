//! Whose an account is that somebody has registered: theirs who read the mail.

use serde_json::{Value, json};
use sqlx::Connection as _;
use stories::eventually;

use crate::people::{PASSWORD, People};
use crate::stack::Stack;

const VERA: &str = "vera@example.org";
const EVES: &str = "a password that eve knows";
const CONFIRM: &str = "Confirm your e-mail address";

/// Registers with a key, from an address.
async fn register(people: &People, password: &str, key: &str, from: &str) -> Value {
    let request = people.http.request("POST", "/v1/auth/register").header("idempotency-key", key);
    let request = request.header("x-forwarded-for", from).json(&json!({ "email": VERA, "password": password }));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202, "{password} {key}");
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_registers_with_the_address_of_somebody_else_gets_no_way_into_their_account() {
    let stack = Stack::up_with(&[], &[("AIRSTREAM__HTTP__TRUSTED_PROXIES", "127.0.0.0/8")]);
    let people = People::of(&stack);
    let (eve, vera) = ("203.0.113.7", "198.51.100.1");
    let answer = register(&people, EVES, "k", eve).await;
    let first = people.mailbox.letter(VERA, CONFIRM).await.word("aco_");
    // An answer that got lost: the same once more is the same, and one mail.
    assert_eq!(register(&people, EVES, "k", eve).await, answer);

    // Vera happens to use the same key.
    assert_eq!(register(&people, PASSWORD, "k", vera).await, answer);
    let code = people.mailbox.letter(VERA, "Choose a password").await.word("apw_");
    let confirm = json!({ "code": first });
    assert_eq!(people.post("/v1/auth/verify-email", confirm.clone(), 422).await["code"], "invalid_code");
    // Whatever Eve does now, no code comes that confirms her password.
    register(&people, EVES, "k", eve).await;
    register(&people, EVES, "another", eve).await;
    people.post("/v1/auth/verify-email/resend", json!({ "email": VERA }), 202).await;
    people.mailbox.wait_for(VERA, "Choose a password", 3).await;
    assert_eq!(people.mailbox.wait_for(VERA, CONFIRM, 1).await.len(), 1);
    people.post("/v1/auth/verify-email", confirm, 422).await;

    people.post("/v1/auth/password/reset", json!({ "code": code, "password": PASSWORD }), 200).await;
    people.post("/v1/auth/login", json!({ "login": VERA, "password": EVES }), 401).await;
    assert_eq!(people.log_in(VERA).await.email, VERA);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_the_code_again_or_for_another_password_makes_the_first_code_worthless() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    for (name, path, subject) in [
        ("ann", "/v1/auth/verify-email/resend", "Choose a password"),
        ("bob", "/v1/auth/password/forgot", "Set a new password"),
    ] {
        people.register(name).await;
        let email = format!("{name}@example.org");
        let first = people.mailbox.letter(&email, CONFIRM).await.word("aco_");
        people.post(path, json!({ "email": email }), 202).await;
        let code = people.mailbox.letter(&email, subject).await.word("apw_");
        people.post("/v1/auth/verify-email", json!({ "code": first }), 422).await;
        people.post("/v1/auth/password/reset", json!({ "code": code, "password": PASSWORD }), 200).await;
        people.log_in(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_while_they_register_has_registered() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let operator = stack.http();
    let (mut holder, mut watcher) = (stack.postgres().await, stack.postgres().await);
    // Between two steps: the address is claimed, and nothing is written down.
    let mut held = holder.begin().await.unwrap();
    sqlx::query("LOCK TABLE identity.credentials IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let caller = tokio::spawn({
        let people = people.clone();
        async move { people.register("ann").await }
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'identity.credentials'::regclass";
    eventually("the registration waits in the middle", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watcher).await.unwrap() == 1
    })
    .await;
    caller.abort();
    eventually("nobody asks anything any more, but this", async || {
        let page = operator.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
        page.lines().any(|line| line == "airstream_door_depth{door=\"http\"} 1")
    })
    .await;
    held.rollback().await.unwrap();
    people.confirm("ann@example.org").await;
    people.log_in("ann").await;
}
