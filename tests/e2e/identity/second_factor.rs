//! A second factor: an authenticator, and what replaces it when it is lost.

use serde_json::{Value, json};

use crate::people::{PASSWORD, People, Person};
use crate::stack::Stack;

/// What an authenticator does with what it reads from the picture.
struct Authenticator(ring::hmac::Key);

impl Authenticator {
    fn new(uri: &str) -> Self {
        let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
        let bits: String =
            secret.bytes().map(|c| format!("{:05b}", if c < b'A' { c - b'2' + 26 } else { c - b'A' })).collect();
        let bytes: Vec<u8> = (0..bits.len() / 8).map(|n| u8::from_str_radix(&bits[n * 8..][..8], 2).unwrap()).collect();
        Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &bytes))
    }

    /// The code of so many steps from now.
    fn code(&self, away: i64) -> String {
        let now = u64::try_from(runtime::clock::now().timestamp()).unwrap();
        let step = i64::try_from(now / 30).unwrap() + away;
        let tag = ring::hmac::sign(&self.0, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[19] & 15);
        let word = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", word % 1_000_000)
    }
}

/// As if half a minute had gone by since the last code: the next one may be the same as the one before.
async fn half_a_minute_later(stack: &Stack) {
    let earlier = "UPDATE identity.credentials SET totp_step = totp_step - 5";
    sqlx::query(earlier).execute(&mut stack.postgres().await).await.unwrap();
}

async fn log_in(people: &People, more: Value, expected: u16) -> Value {
    let mut body = json!({ "login": "ann", "password": PASSWORD });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    people.post("/v1/auth/login", body, expected).await
}

async fn enable(ann: &Person) -> (Authenticator, Vec<String>) {
    let setup = ann.http.json("POST", "/v1/auth/totp/setup", Some(json!({ "password": PASSWORD })), 200).await;
    let uri = setup["otpauth_uri"].as_str().unwrap();
    assert!(uri.starts_with("otpauth://totp/Airstream:ann%40example.org?secret="), "{uri}");
    assert!(uri.contains(setup["secret"].as_str().unwrap()));
    let authenticator = Authenticator::new(uri);
    let wrong = ann.http.json("POST", "/v1/auth/totp/enable", Some(json!({ "code": "000 00" })), 422).await;
    assert_eq!(wrong["code"], "invalid_second_factor");
    let code = json!({ "code": authenticator.code(0) });
    let enabled = ann.http.json("POST", "/v1/auth/totp/enable", Some(code), 200).await;
    let codes: Vec<String> = serde_json::from_value(enabled["recovery_codes"].clone()).unwrap();
    assert_eq!(codes.len(), 10);
    (authenticator, codes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_asked_for_after_the_password_and_no_code_works_twice() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let none = ann.http.json("POST", "/v1/auth/totp/enable", Some(json!({ "code": "123456" })), 409).await;
    assert_eq!(none["code"], "totp_not_set_up");
    let (authenticator, _) = enable(&ann).await;
    assert_eq!(ann.http.get("/v1/me").await["totp"], true);
    people.mailbox.letter(&ann.email, "Two-factor authentication is on").await;
    assert_eq!(
        ann.http.json("POST", "/v1/auth/totp/setup", Some(json!({ "password": PASSWORD })), 409).await["code"],
        "totp_enabled",
        "a second authenticator takes the place of the first"
    );

    assert_eq!(log_in(&people, json!({}), 401).await["code"], "second_factor_required");
    let wrong = people.post("/v1/auth/login", json!({ "login": "ann", "password": "guess" }), 401).await;
    assert_eq!(wrong["code"], "invalid_credentials", "a second factor is told of before the password is right");
    half_a_minute_later(&stack).await;
    let code = authenticator.code(0);
    let answer = log_in(&people, json!({ "totp": code }), 200).await;
    let replayed = log_in(&people, json!({ "totp": code }), 401).await;
    assert_eq!(replayed["code"], "invalid_second_factor");
    let signed_in = Person::of(&people.http, &answer);
    let listed = signed_in.http.get("/v1/me/sessions").await;
    let current = listed["items"].as_array().unwrap().iter().find(|item| item["current"] == true).unwrap();
    assert_eq!(current["amr"], json!(["pwd", "otp", "mfa"]));

    // Another password is no way around it.
    people.post("/v1/auth/password/forgot", json!({ "email": ann.email }), 202).await;
    let reset = people.mailbox.letter(&ann.email, "Set a new password").await.word("apw_");
    people.post("/v1/auth/password/reset", json!({ "code": reset, "password": PASSWORD }), 200).await;
    assert_eq!(log_in(&people, json!({}), 401).await["code"], "second_factor_required");
    // Codes are not guessed.
    let mut last = Value::Null;
    for n in 0..12 {
        let body = json!({ "login": "ann", "password": PASSWORD, "totp": format!("{n:06}") });
        let request = people.http.request("POST", "/v1/auth/login").header("content-type", "application/json");
        last = request.body(body.to_string()).send().await.unwrap().json().await.unwrap();
    }
    assert_eq!(last["code"], "too_many_tries");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_lets_in_once_and_turns_the_lost_authenticator_off() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let (authenticator, codes) = enable(&ann).await;
    let typed = codes[0].to_uppercase().replace('-', " ");
    let answer = log_in(&people, json!({ "recovery_code": typed }), 200).await;
    assert_eq!(log_in(&people, json!({ "recovery_code": codes[0] }), 401).await["code"], "invalid_second_factor");
    assert!(people.mailbox.letter(&ann.email, "A recovery code was used").await.text.contains("9 are left"));

    // New ones replace the old ones, for whoever has the authenticator.
    half_a_minute_later(&stack).await;
    let code = json!({ "code": authenticator.code(0) });
    let renewed = ann.http.json("POST", "/v1/auth/totp/recovery-codes", Some(code.clone()), 200).await;
    let renewed: Vec<String> = serde_json::from_value(renewed["recovery_codes"].clone()).unwrap();
    ann.http.json("POST", "/v1/auth/totp/recovery-codes", Some(code), 422).await;
    log_in(&people, json!({ "recovery_code": codes[1] }), 401).await;

    let ann = Person::of(&people.http, &answer);
    let disable = |password: &str, code: &str| Some(json!({ "password": password, "code": code }));
    let path = "/v1/auth/totp/disable";
    ann.http.json("POST", path, Some(json!({ "code": renewed[0] })), 403).await;
    ann.http.json("POST", path, disable("guess", &renewed[0]), 403).await;
    ann.http.json("POST", path, disable(PASSWORD, "000000"), 422).await;
    ann.http.json("POST", path, disable(PASSWORD, &renewed[0]), 204).await;
    assert_eq!(ann.http.get("/v1/me").await["totp"], false);
    people.mailbox.letter(&ann.email, "Two-factor authentication is off").await;
    people.log_in("ann").await;
    // And begins anew with another secret.
    half_a_minute_later(&stack).await;
    let (again, _) = enable(&ann).await;
    assert_ne!(again.code(7), authenticator.code(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_sets_up_an_authenticator_without_the_password_however_young_it_is() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let problem = ann.http.json("POST", "/v1/auth/totp/setup", Some(json!({})), 403).await;
    assert_eq!(problem["code"], "reauthentication_required");
    ann.http.json("POST", "/v1/auth/totp/setup", Some(json!({ "password": "guess" })), 403).await;
    ann.http.json("POST", "/v1/auth/totp/setup", Some(json!({ "password": PASSWORD })), 200).await;
}
