//! Many at once, and many tries.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::people::{PASSWORD, People};
use crate::stack::{Http, Stack};

/// Whoever asks says where they come from.
const PROXY: (&str, &str) = ("AIRSTREAM__HTTP__TRUSTED_PROXIES", "127.0.0.0/8");

async fn send(http: &Http, path: &str, body: Value, from: Option<&str>) -> (u16, Value) {
    let mut request = http.request("POST", path).header("content-type", "application/json");
    if let Some(address) = from {
        request = request.header("x-forwarded-for", address);
    }
    let response = request.body(body.to_string()).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_register_with_one_address_or_name_at_once_one_has_it() {
    let stack = Stack::up_with(&[], &[PROXY]);
    let people = People::of(&stack);
    // Each from an address of their own; whoever is told to come back does.
    let register = async |n: usize, body: Value| {
        let until = Instant::now() + Duration::from_secs(60);
        let from = format!("203.0.113.{n}");
        loop {
            match send(&people.http, "/v1/auth/register", body.clone(), Some(&from)).await {
                (202, answer) => return answer,
                (429 | 503, _) if Instant::now() < until => tokio::time::sleep(Duration::from_secs(1)).await,
                (status, answer) => panic!("{status}: {answer}"),
            }
        }
    };
    let one_address = |n| json!({ "email": "ann@example.org", "username": format!("ann{n}"), "password": PASSWORD });
    let answers = join_all((0..64).map(|n| register(n, one_address(n)))).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "the answers tell who was first");
    let one_name = |n| json!({ "email": format!("bob{n}@example.org"), "username": "bob", "password": PASSWORD });
    join_all((0..64).map(|n| register(n, one_name(n)))).await;

    let mut postgres = stack.postgres().await;
    let count = async |kind: &str, postgres: &mut sqlx::PgConnection| -> i64 {
        let held = "SELECT count(*) FROM identity.handles WHERE kind = $1 AND held";
        sqlx::query_scalar(held).bind(kind).fetch_one(postgres).await.unwrap()
    };
    // Ann once, and everybody called bob by their own address.
    assert_eq!(count("email", &mut postgres).await, 1 + 64);
    // Nobody can tell which of them reads the mail; whoever does chooses the password.
    let code = people.mailbox.letter("ann@example.org", "Choose a password").await.word("apw_");
    people.post("/v1/auth/password/reset", json!({ "code": code, "password": PASSWORD }), 200).await;
    people.log_in("ann@example.org").await;
    // One of them has the name, the others hear that somebody else has it.
    let mut winners = Vec::new();
    for n in 0..64 {
        let email = format!("bob{n}@example.org");
        let letter = people.mailbox.letter(&email, "Confirm your e-mail address").await;
        if !letter.text.contains("belongs to somebody else") {
            winners.push(email);
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    people.confirm(&winners[0]).await;
    assert_eq!(people.log_in("bob").await.email, winners[0]);
    let bobs = "SELECT count(*) FROM identity.handles WHERE kind = 'username' AND NOT held";
    assert_eq!(sqlx::query_scalar::<_, i64>(bobs).fetch_one(&mut postgres).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_logins_at_once_are_answered_or_told_to_come_back() {
    let stack = Stack::up_with(&[], &[PROXY]);
    let people = People::of(&stack);
    people.join("ann").await;
    let logins = (0..64).map(|n| {
        let (http, from) = (people.http.clone(), format!("203.0.113.{n}"));
        let password = if n % 2 == 0 { PASSWORD } else { "guess" };
        async move { send(&http, "/v1/auth/login", json!({ "login": "ann", "password": password }), Some(&from)).await }
    });
    let answers = join_all(logins).await;
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!(count(200) + count(401) + count(429), 64, "{answers:?}");
    assert!(count(200) > 0 && count(401) > 0, "{answers:?}");
    people.http.get("/livez").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_tells_whether_there_is_an_account() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    people.join("ann").await;
    people.register("unconfirmed").await;
    let log_in =
        async |login: &str| people.post("/v1/auth/login", json!({ "login": login, "password": "a guess" }), 401).await;
    let strip = |mut problem: Value| {
        problem.as_object_mut().unwrap().remove("request_id");
        problem
    };
    let wrong = strip(log_in("ann").await);
    assert_eq!(wrong["code"], "invalid_credentials");
    for login in ["ann@example.org", "nobody", "nobody@example.org", "unconfirmed", "no login at all", "", "usr_nobody"]
    {
        assert_eq!(strip(log_in(login).await), wrong, "{login:?}");
    }
    for path in ["/v1/auth/verify-email/resend", "/v1/auth/password/forgot"] {
        let mut answers = Vec::new();
        for email in ["ann@example.org", "unconfirmed@example.org", "nobody@example.org"] {
            answers.push(people.post(path, json!({ "email": email }), 202).await);
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{path}: {answers:?}");
    }
    let register = |email: &str| json!({ "email": email, "password": PASSWORD });
    let known = people.post("/v1/auth/register", register("ann@example.org"), 202).await;
    assert_eq!(known, people.post("/v1/auth/register", register("new@example.org"), 202).await);
    people.mailbox.letter("ann@example.org", "You have an account already").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_for_the_guesser_and_going_on_with_a_session_changes_nothing_about_it() {
    let stack = Stack::up_with(&[], &[PROXY]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    people.join("bob").await;
    let guess = async |login: &str, password: &str, from: &str| {
        send(&people.http, "/v1/auth/login", json!({ "login": login, "password": password }), Some(from)).await
    };
    for _ in 0..5 {
        assert_eq!(guess("ann", "guess", "203.0.113.7").await.0, 401);
    }
    let (status, problem) = guess("ann", PASSWORD, "203.0.113.7").await;
    assert_eq!((status, problem["code"].as_str()), (429, Some("too_many_tries")), "{problem}");
    assert!(problem["retry_after_ms"].as_u64().unwrap() > 1_000, "{problem}");
    // Neither is she locked out elsewhere, nor are others here.
    assert_eq!(guess("ann", PASSWORD, "198.51.100.1").await.0, 200);
    assert_eq!(guess("bob", PASSWORD, "203.0.113.7").await.0, 200);
    let refreshed = json!({ "refresh_token": ann.refresh_token });
    assert_eq!(send(&people.http, "/v1/auth/refresh", refreshed, Some("203.0.113.7")).await.0, 200);
    assert_eq!(guess("ann", PASSWORD, "203.0.113.7").await.0, 429, "a refresh has forgiven the guesses");
    // From everywhere at once: then for everybody.
    let mut refused = 0;
    for n in 0..40 {
        refused += u32::from(guess("ann", "guess", &format!("192.0.2.{n}")).await.0 == 429);
    }
    assert!(refused > 0, "one account is guessed from everywhere");
    // Nobody is told whether there is such an account.
    for _ in 0..5 {
        assert_eq!(guess("nobody", "guess", "203.0.113.7").await.0, 401);
    }
    assert_eq!(guess("nobody", "guess", "203.0.113.7").await.1["code"], "too_many_tries");
    // Whoever reads her mail comes in at once.
    people.post("/v1/auth/password/forgot", json!({ "email": ann.email }), 202).await;
    let code = people.mailbox.letter(&ann.email, "Set a new password").await.word("apw_");
    let reset = json!({ "code": code, "password": "staple my caravan twice" });
    assert_eq!(send(&people.http, "/v1/auth/password/reset", reset, Some("203.0.113.7")).await.0, 200);
    assert_eq!(guess("ann", "staple my caravan twice", "203.0.113.7").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_make_us_send_to_an_address_keeps_no_mail_from_its_owner_and_tells_nobody_of_it() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let bob = people.join("bob").await;
    let olga = people.join("olga").await;
    let tenant = olga.create_tenant("Acme").await;
    let olga = olga.within(&tenant).await;
    let register = json!({ "email": bob.email, "password": PASSWORD });
    for _ in 0..7 {
        people.post("/v1/auth/register", register.clone(), 202).await;
    }
    let told = people.mailbox.wait_for(&bob.email, "You have an account already", 5).await;
    people.post("/v1/auth/password/forgot", json!({ "email": bob.email }), 202).await;
    people.mailbox.letter(&bob.email, "Set a new password").await;
    let now = people.mailbox.wait_for(&bob.email, "You have an account already", 5).await;
    assert_eq!((told.len(), now.len()), (5, 5), "nobody is mailed without end");

    // Whether an invitation goes out says nothing about who asked for what, nor whether there is an account.
    let mut answers = Vec::new();
    for email in [bob.email.as_str(), "nobody@example.org"] {
        for _ in 0..6 {
            people.post("/v1/auth/password/forgot", json!({ "email": email }), 202).await;
        }
        let path = format!("/v1/tenants/{tenant}/invites");
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let body = json!({ "email": email, "role": "viewer" });
            let answer = olga.http.request("POST", &path).json(&body).send().await.unwrap();
            statuses.push(answer.status().as_u16());
        }
        answers.push(statuses);
    }
    assert_eq!(answers, [[201, 201, 201, 201, 201, 429], [201, 201, 201, 201, 201, 429]]);
}
