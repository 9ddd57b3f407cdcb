//! What is no token of ours, and bodies that are none.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use crate::people::{PASSWORD, People};
use crate::stack::{Http, Stack};

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_believed_but_the_one_that_we_have_signed() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let token = ann.http.token.clone().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let read = |part: &str| serde_json::from_slice::<Value>(&BASE64.decode(part).unwrap()).unwrap();
    let (header, claims) = (read(parts[0]), read(parts[1]));
    assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("at+jwt")));
    let jwks = people.http.get("/.well-known/jwks.json").await;
    let key = &jwks["keys"][0];
    assert_eq!(header["kid"], key["kid"]);
    let public = BASE64.decode(key["x"].as_str().unwrap()).unwrap();
    let with = |base: &Value, changes: Value| {
        let mut changed = base.clone();
        changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        changed
    };
    let hmac = |header: &Value, key: &[u8]| {
        let input = format!("{}.{}", part(header), parts[1]);
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), input.as_bytes());
        format!("{input}.{}", BASE64.encode(tag))
    };
    let stranger = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let by_stranger = |header: &Value, claims: &Value| {
        let input = format!("{}.{}", part(header), part(claims));
        format!("{input}.{}", BASE64.encode(stranger.sign(input.as_bytes())))
    };
    let unsigned = |header: &Value, claims: &Value| format!("{}.{}.{}", part(header), part(claims), parts[2]);
    let mut tokens = vec![
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        parts[..2].join("."),
        format!("{token}.x"),
        format!("{}.{}.", parts[0], parts[1]),
        token.replace('.', "%2E"),
        format!("{}.{}.", part(&with(&header, json!({ "alg": "none" }))), parts[1]),
        format!("{}.{}.", part(&json!({ "alg": "none" })), parts[1]),
        hmac(&with(&header, json!({ "alg": "HS256" })), &public),
        hmac(&with(&header, json!({ "alg": "HS256" })), key["x"].as_str().unwrap().as_bytes()),
        hmac(&with(&header, json!({ "alg": "HS256" })), key.to_string().as_bytes()),
        by_stranger(&header, &claims),
        by_stranger(&with(&header, json!({ "kid": "other" })), &claims),
        by_stranger(&with(&header, json!({ "jwk": key, "jku": "https://evil.example/jwks.json" })), &claims),
        ann.refresh_token.clone(),
        "a".repeat(7_000),
    ];
    for changes in [
        json!({ "sub": "usr_other" }),
        json!({ "aud": "https://other.example" }),
        json!({ "iss": "https://evil.example" }),
        json!({ "exp": 9_999_999_999_i64 }),
        json!({ "tid": "airstream" }),
    ] {
        tokens.push(unsigned(&header, &with(&claims, changes)));
    }
    for forged in tokens {
        let http = Http { token: Some(forged.clone()), ..people.http.clone() };
        let problem = http.json("GET", "/v1/me", None, 401).await;
        assert_eq!(problem["code"], "unauthenticated", "{forged}");
    }
    ann.http.get("/v1/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_installation_and_one_that_has_ended_are_refused() {
    let shared = crate::serving::Shared::new(5_000).await;
    let serving = shared.serve("one").await;
    let people = People::at(&shared, &serving);
    let ann = people.join("ann").await;
    // The same key under another name, as a copy of the database would have it.
    let copy = [("AIRSTREAM__IDENTITY__PUBLIC_URL", "https://copy.example.org".to_owned())];
    let elsewhere = shared.serve_with("elsewhere", &copy).await;
    let stranger = Http { token: ann.http.token.clone(), ..elsewhere.http.clone() };
    assert_eq!(stranger.json("GET", "/v1/me", None, 401).await["code"], "unauthenticated");
    ann.http.get("/v1/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_comes_again_late_ends_its_session_for_both_holders() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let other = people.log_in("ann").await;
    let refresh = |token: &str| json!({ "refresh_token": token });
    let next = people.post("/v1/auth/refresh", refresh(&ann.refresh_token), 200).await;
    let late = "UPDATE identity.sessions SET rotated_at = now() - interval '11 s'";
    sqlx::query(late).execute(&mut stack.postgres().await).await.unwrap();
    let reused = people.post("/v1/auth/refresh", refresh(&ann.refresh_token), 401).await;
    assert_eq!(reused["code"], "session_over");
    people.post("/v1/auth/refresh", refresh(next["refresh_token"].as_str().unwrap()), 401).await;
    for token in [ann.http.token.clone().unwrap(), next["access_token"].as_str().unwrap().to_owned()] {
        let http = Http { token: Some(token), ..people.http.clone() };
        tokio::time::timeout(Duration::from_secs(20), async {
            while http.request("GET", "/v1/me").send().await.unwrap().status() != 401 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("an access token outlives its session");
    }
    other.http.get("/v1/me").await;
    for wrong in
        [format!("{}x", other.refresh_token), other.refresh_token.replace("art_", ""), "art_".into(), "".into()]
    {
        assert_eq!(people.post("/v1/auth/refresh", refresh(&wrong), 401).await["code"], "session_over", "{wrong}");
    }
    people.post("/v1/auth/refresh", refresh(&other.refresh_token), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_name_address_or_body_is_refused_and_says_why() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let register = |email: &str, username: &str, name: &str| json!({ "email": email, "username": username, "password": PASSWORD, "name": name });
    let long = "x".repeat(300);
    let (ok, anna) = ("ann@example.org", "anna");
    for (email, username, name, pointer) in [
        ("ann", anna, "", "/email"),
        ("ann@", anna, "", "/email"),
        ("ann@localhost", anna, "", "/email"),
        ("a b@example.org", anna, "", "/email"),
        ("ann@example.org\r\nBcc: eve@example.org", anna, "", "/email"),
        ("ánn@example.org", anna, "", "/email"),
        ("ann@exam\u{200b}ple.org\u{0}", anna, "", "/email"),
        (&format!("{long}@example.org"), anna, "", "/email"),
        (ok, "аnna", "", "/username"),
        (ok, "an\u{200d}na", "", "/username"),
        (ok, "anna@example.org", "", "/username"),
        (ok, "a", "", "/username"),
        (ok, "-anna", "", "/username"),
        (ok, "an..na", "", "/username"),
        (ok, &long, "", "/username"),
        (ok, "ａｎｎａ", "", "/username"),
        (ok, anna, &long, "/name"),
        (ok, anna, "Ann\u{0}", "/name"),
        (ok, anna, "Ann\u{1b}[31m", "/name"),
    ] {
        let problem = people.post("/v1/auth/register", register(email, username, name), 422).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{email:?} {username:?} {name:?}: {problem}");
    }
    assert!(people.mailbox.to(ok).is_empty());
    for body in [
        json!({ "email": ok, "password": PASSWORD, "admin": true }),
        json!({ "email": ok }),
        json!({ "email": [ok], "password": PASSWORD }),
        json!({ "email": ok, "password": 12_345_678 }),
        json!([]),
        json!({ "email": ok, "password": "x".repeat(2_000) }),
        json!({ "email": ok, "password": "" }),
    ] {
        people.post("/v1/auth/register", body, 422).await;
    }
    for body in [
        json!({ "login": "ann", "email": ok, "password": PASSWORD }),
        json!({ "password": PASSWORD }),
        json!({ "login": "ann" }),
        json!({ "login": "ann", "password": PASSWORD, "remember": true }),
    ] {
        people.post("/v1/auth/login", body, 422).await;
    }
    let plain = people.http.request("POST", "/v1/auth/login").header("content-type", "text/plain").body("{}");
    assert_eq!(plain.send().await.unwrap().status(), 415);
    let broken = people.http.request("POST", "/v1/auth/login").header("content-type", "application/json").body("{");
    assert_eq!(broken.send().await.unwrap().status(), 400);
    // A login that cannot be anybody's, and a password that cannot be right, are wrong like any others.
    for (login, password) in [("\u{0}", PASSWORD), ("ann", "\u{0}"), (&long, PASSWORD), ("ann", &"x".repeat(5_000))] {
        let wrong = people.post("/v1/auth/login", json!({ "login": login, "password": password }), 401).await;
        assert_eq!(wrong["code"], "invalid_credentials");
    }
    // One who looks like another is the same, or somebody else: never both.
    people.post("/v1/auth/register", register("info@Bücher.example", "Buch", ""), 202).await;
    people.confirm("info@Bücher.example").await;
    people.log_in("INFO@XN--BCHER-KVA.example").await;
}
