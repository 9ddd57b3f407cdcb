//! Passwords: forgotten, set anew, changed.

use serde_json::json;

use crate::people::{PASSWORD, People};
use crate::stack::Stack;

const NEW: &str = "staple my caravan twice";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_forgot_a_password_sets_another_by_mail_and_all_sessions_end() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let known = people.post("/v1/auth/password/forgot", json!({ "email": "ANN@example.org" }), 202).await;
    let unknown = people.post("/v1/auth/password/forgot", json!({ "email": "nobody@example.org" }), 202).await;
    assert_eq!(known, unknown);
    let code = people.mailbox.letter(&ann.email, "Set a new password").await.word("apw_");
    assert!(people.mailbox.to("nobody@example.org").is_empty() && people.mailbox.to("ANN@example.org").is_empty());

    let reset = |code: &str, password: &str| json!({ "code": code, "password": password });
    for weak in ["short", "ann@example.org", "password1"] {
        let problem = people.post("/v1/auth/password/reset", reset(&code, weak), 422).await;
        assert_eq!(problem["code"], "weak_password", "{weak}");
    }
    // A code for something else is none, and one that is cut off neither.
    for wrong in [&code[..code.len() - 1], "apw_", "", &code.replace("apw_", "aco_")] {
        let problem = people.post("/v1/auth/password/reset", reset(wrong, NEW), 422).await;
        assert_eq!(problem["code"], "invalid_code", "{wrong}");
    }
    assert_eq!(people.post("/v1/auth/verify-email", json!({ "code": code }), 422).await["code"], "invalid_code");
    ann.http.get("/v1/me").await;

    people.post("/v1/auth/password/reset", reset(&code, NEW), 200).await;
    ann.http.json("GET", "/v1/me", None, 401).await;
    people.post("/v1/auth/refresh", json!({ "refresh_token": ann.refresh_token }), 401).await;
    people.post("/v1/auth/login", json!({ "login": "ann", "password": PASSWORD }), 401).await;
    people.post("/v1/auth/login", json!({ "login": "ann", "password": NEW }), 200).await;
    let again = people.post("/v1/auth/password/reset", reset(&code, "yet another caravan"), 422).await;
    assert_eq!(again["code"], "invalid_code");
    assert_eq!(people.mailbox.wait_for(&ann.email, "Your password was changed", 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_sets_one_password_however_many_use_it_and_whatever_got_lost() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let ask = json!({ "email": ann.email });
    people.post("/v1/auth/password/forgot", ask.clone(), 202).await;
    let code = people.mailbox.letter(&ann.email, "Set a new password").await.word("apw_");
    let tries = (0..4).map(|n| {
        let (http, code) = (people.http.clone(), code.clone());
        async move {
            let password = format!("caravan number {n} of four");
            let body = json!({ "code": code, "password": password }).to_string();
            let request = http.request("POST", "/v1/auth/password/reset").header("content-type", "application/json");
            (request.body(body).send().await.unwrap().status().as_u16(), password)
        }
    });
    let done = futures::future::join_all(tries).await;
    let set: Vec<&String> = done.iter().filter(|(status, _)| *status == 200).map(|(_, password)| password).collect();
    assert_eq!(set.len(), 1, "{done:?}");
    people.post("/v1/auth/login", json!({ "login": "ann", "password": set[0] }), 200).await;

    // The answer got lost before the code was spent: the same request comes to the same end, another one does not.
    people.post("/v1/auth/password/forgot", ask.clone(), 202).await;
    let code = people.mailbox.wait_for(&ann.email, "Set a new password", 2).await.pop().unwrap().word("apw_");
    let reset = json!({ "code": code, "password": NEW });
    people.post("/v1/auth/password/reset", reset.clone(), 200).await;
    let mut postgres = stack.postgres().await;
    let unspent = "UPDATE identity.codes SET used_at = NULL WHERE purpose = 'reset-password'";
    sqlx::query(unspent).execute(&mut postgres).await.unwrap();
    people.post("/v1/auth/password/reset", reset, 200).await;
    sqlx::query(unspent).execute(&mut postgres).await.unwrap();
    people.post("/v1/auth/password/reset", json!({ "code": code, "password": "a third caravan" }), 422).await;
    people.post("/v1/auth/login", json!({ "login": "ann", "password": NEW }), 200).await;

    // Too late.
    people.post("/v1/auth/password/forgot", ask, 202).await;
    let code = people.mailbox.wait_for(&ann.email, "Set a new password", 3).await.pop().unwrap().word("apw_");
    let late = "UPDATE identity.codes SET expires_at = now() WHERE used_at IS NULL";
    sqlx::query(late).execute(&mut postgres).await.unwrap();
    let problem = people.post("/v1/auth/password/reset", json!({ "code": code, "password": PASSWORD }), 422).await;
    assert_eq!(problem["code"], "invalid_code");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_confirmed_confirms_by_setting_another_password() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    people.register("ann").await;
    people.post("/v1/auth/password/forgot", json!({ "email": "ann@example.org" }), 202).await;
    let code = people.mailbox.letter("ann@example.org", "Set a new password").await.word("apw_");
    people.post("/v1/auth/password/reset", json!({ "code": code, "password": NEW }), 200).await;
    let answer = people.post("/v1/auth/login", json!({ "login": "ann", "password": NEW }), 200).await;
    assert_eq!(answer["user"]["email_confirmed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_knows_a_password_changes_it_and_stays_signed_in_alone() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let (ann, other) = (people.join("ann").await, people.log_in("ann").await);
    people.post("/v1/auth/password/forgot", json!({ "email": ann.email }), 202).await;
    let code = people.mailbox.letter(&ann.email, "Set a new password").await.word("apw_");
    let change = |current: &str, new: &str| Some(json!({ "current": current, "new": new }));
    let wrong = ann.http.json("POST", "/v1/me/password", change("guess", NEW), 403).await;
    assert_eq!(wrong["code"], "wrong_password");
    let weak = ann.http.json("POST", "/v1/me/password", change(PASSWORD, "ann12345"), 422).await;
    assert_eq!(weak["code"], "weak_password");
    other.http.get("/v1/me").await;

    ann.http.json("POST", "/v1/me/password", change(PASSWORD, NEW), 204).await;
    ann.http.get("/v1/me").await;
    people.post("/v1/auth/refresh", json!({ "refresh_token": ann.refresh_token }), 200).await;
    other.http.json("GET", "/v1/me", None, 401).await;
    people.post("/v1/auth/refresh", json!({ "refresh_token": other.refresh_token }), 401).await;
    // An answer that got lost: the same again is the same.
    ann.http.json("POST", "/v1/me/password", change(PASSWORD, NEW), 204).await;
    assert_eq!(people.mailbox.wait_for(&ann.email, "Your password was changed", 1).await.len(), 1);
    // What was mailed for the password of before sets none any more.
    people.post("/v1/auth/password/reset", json!({ "code": code, "password": "a third caravan" }), 422).await;
    people.post("/v1/auth/login", json!({ "login": "ann", "password": NEW }), 200).await;

    // Guessing is slow here as everywhere: five at once, and each of these is two, one that is called the old password and one
    // that is called the new one. A sixth and a seventh come free after half a minute each.
    let mut compared = 0;
    let mut last = 403;
    for n in 0..8 {
        let request = ann.http.request("POST", "/v1/me/password").header("content-type", "application/json");
        let body = change(&format!("guess {n}"), &format!("another caravan {n}")).unwrap().to_string();
        last = request.body(body).send().await.unwrap().status().as_u16();
        compared += u32::from(last == 403);
    }
    assert_eq!(last, 429);
    assert!(compared <= 3, "{compared} times two passwords were tried");
}
