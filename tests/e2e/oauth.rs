//! Signing in with an account elsewhere: at a certified OpenID provider in Google's place, and at something that behaves like
//! GitHub. And everything that must not lead into an account.

mod browser;
mod github;
mod provider;

use serde_json::{Value, json};

use crate::people::{PASSWORD, People, Person};
use crate::stack::Stack;
use browser::Browser;
use github::Github;
use provider::{Provider, SECRET};

/// The address at which the world would reach the stack; the browser of these stories knows where it really is.
const PUBLIC: &str = "http://localhost:4711";

/// A stack that knows both providers.
struct World {
    stack: Stack,
    people: People,
    google: Provider,
    github: Github,
}

impl World {
    async fn new() -> Self {
        let google = Provider::start(&format!("{PUBLIC}/v1/auth/oauth/google/callback"));
        let github = Github::start().await;
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let stack = Stack::up_with(
            &[],
            &[
                ("AIRSTREAM__IDENTITY__PUBLIC_URL", PUBLIC),
                ("AIRSTREAM__OAUTH__GOOGLE__CLIENT_ID", "air"),
                ("AIRSTREAM__OAUTH__GOOGLE__CLIENT_SECRET", SECRET),
                ("AIRSTREAM__OAUTH__GOOGLE__ISSUER", leak(google.issuer.clone())),
                ("AIRSTREAM__OAUTH__GITHUB__CLIENT_ID", "air"),
                ("AIRSTREAM__OAUTH__GITHUB__CLIENT_SECRET", SECRET),
                ("AIRSTREAM__OAUTH__GITHUB__AUTHORIZE_URL", leak(format!("{}/login/oauth/authorize", github.url))),
                ("AIRSTREAM__OAUTH__GITHUB__TOKEN_URL", leak(format!("{}/login/oauth/access_token", github.url))),
                ("AIRSTREAM__OAUTH__GITHUB__API_URL", leak(github.url.clone())),
            ],
        );
        let people = People::of(&stack);
        Self { stack, people, google, github }
    }

    fn browser(&self) -> Browser {
        Browser::new(PUBLIC, &self.people.http.url)
    }

    /// As far as the provider's answer: the address that it sends the browser back to.
    async fn come_back(&self, browser: &mut Browser, provider: &str, who: &str) -> String {
        let start = browser.get(&format!("{PUBLIC}/v1/auth/oauth/{provider}/start")).await;
        assert_eq!(start.status, 303, "{}", start.body);
        browser.through(&start.location(), who).await
    }

    /// All the way: what the callback answers.
    async fn arrive(&self, provider: &str, who: &str, expected: u16) -> Value {
        let mut browser = self.browser();
        let back = self.come_back(&mut browser, provider, who).await;
        browser.json(&back, expected).await
    }

    async fn sign_in(&self, provider: &str, who: &str) -> Person {
        Person::of(&self.people.http, &self.arrive(provider, who, 200).await)
    }

    /// Links an account elsewhere, in a browser: what the callback answers.
    async fn link(&self, person: &Person, provider: &str, who: &str, expected: u16) -> Value {
        let mut browser = self.browser();
        let there = browser.begin_link(person, provider).await;
        let back = browser.through(&there, who).await;
        browser.json(&back, expected).await
    }

    /// How many people there are.
    async fn people_registered(&self) -> i64 {
        let mut postgres = self.stack.postgres().await;
        let counted = sqlx::query_scalar("SELECT count(*) FROM identity.credentials").fetch_one(&mut postgres);
        counted.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_comes_from_google_and_is_the_same_person_ever_after() {
    let world = World::new().await;
    let offered = world.people.http.get("/v1/auth/oauth").await;
    assert_eq!(offered["providers"], json!(["google", "github"]));
    let ann = world.sign_in("google", "ann").await;
    let me = ann.http.get("/v1/me").await;
    let expected = json!({
        "id": ann.id, "email": "ann@example.org", "email_confirmed": true, "username": null, "name": "Ann Bee",
        "locale": null, "has_password": false, "totp": false, "linked": ["google"],
    });
    assert_eq!(me, expected);
    assert_eq!(ann.http.get("/v1/me/sessions").await["items"][0]["amr"], json!(["google"]));
    assert_eq!(world.sign_in("google", "ann").await.id, ann.id);
    // Who changes their address there stays who they are.
    world.google.lie(json!({ "claims": { "email": "new@example.org", "name": "Ann Cee" } })).await;
    let again = world.sign_in("google", "ann").await;
    assert_eq!((again.id.as_str(), again.email.as_str()), (ann.id.as_str(), "ann@example.org"));
    // It is the only way in, for now.
    let last = ann.http.json("DELETE", "/v1/me/links/google", None, 409).await;
    assert_eq!(last["code"], "last_way_in");
    assert_eq!(world.people_registered().await, 1);
    for (path, code) in [("gitlab/start", "unknown_provider"), ("gitlab/callback", "unknown_provider")] {
        let unknown = world.people.http.json("GET", &format!("/v1/auth/oauth/{path}"), None, 404).await;
        assert_eq!(unknown["code"], code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_comes_back_twice_late_or_elsewhere_lets_anybody_in() {
    let world = World::new().await;
    let code_of = |problem: &Value| problem["code"].as_str().unwrap_or_default().to_owned();
    let mut browser = world.browser();
    let back = world.come_back(&mut browser, "google", "ann").await;
    // Somebody who has seen the address, and whose browser did not begin this.
    assert_eq!(code_of(&world.browser().json(&back, 422).await), "invalid_state");
    // The other provider's door, and another state under the same cookie.
    let elsewhere = back.replace("/google/", "/github/");
    let state = browser::parameter(&back, "state");
    let other_state = back.replace(&state, &format!("{}AAAA", &state[..state.len() - 4]));
    assert_eq!(code_of(&browser.json(&other_state, 422).await), "invalid_state");
    // None of that has hurt whoever began it.
    browser.json(&back, 200).await;
    assert_eq!(code_of(&browser.json(&back, 422).await), "invalid_state", "the same state a second time");
    let back = world.come_back(&mut browser, "google", "ann").await;
    let elsewhere_now = back.replace("/google/", "/github/");
    assert_ne!(elsewhere, elsewhere_now);
    assert_eq!(code_of(&browser.json(&elsewhere_now, 422).await), "invalid_state");
    assert_eq!(code_of(&browser.json(&back, 422).await), "invalid_state", "it was spent at the other door");

    // A code that was used, and one that was given for another departure: the provider refuses both.
    let mut first = world.browser();
    let used = world.come_back(&mut first, "google", "ann").await;
    first.json(&used, 200).await;
    let mut second = world.browser();
    let fresh = world.come_back(&mut second, "google", "bob").await;
    let (used, code) = (browser::parameter(&used, "code"), browser::parameter(&fresh, "code"));
    assert_eq!(code_of(&second.json(&fresh.replace(&code, &used), 422).await), "provider_refused");
    let mut eve = world.browser();
    let own = world.come_back(&mut eve, "google", "eve").await;
    let own_code = browser::parameter(&own, "code");
    assert_eq!(code_of(&eve.json(&own.replace(&own_code, &code), 422).await), "provider_refused", "PKCE");

    // Too late.
    let mut late = world.browser();
    let back = world.come_back(&mut late, "google", "ann").await;
    let mut postgres = world.stack.postgres().await;
    sqlx::query("UPDATE identity.codes SET expires_at = now()").execute(&mut postgres).await.unwrap();
    assert_eq!(code_of(&late.json(&back, 422).await), "invalid_state");
    // What is no return at all.
    for query in ["", "?state=", "?state=x&code=y", "?code=y", "?error=access_denied", "?state=%00%FF&code=%0A"] {
        let path = format!("/v1/auth/oauth/google/callback{query}");
        let answer = world.people.http.request("GET", &path).send().await.unwrap();
        assert!((400..500).contains(&answer.status().as_u16()), "{query}: {}", answer.status());
    }
    // Somebody who changed their mind.
    let denied = world.arrive("google", "nobody", 403).await;
    assert_eq!(code_of(&denied), "provider_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_believed_that_is_not_from_there_for_us_and_for_now() {
    let world = World::new().await;
    let lies = [
        json!({ "claims": { "nonce": "another" } }),
        json!({ "claims": { "nonce": null } }),
        json!({ "claims": { "aud": "somebody-else" } }),
        json!({ "claims": { "aud": ["air", "somebody-else"] } }),
        json!({ "claims": { "azp": "somebody-else" } }),
        json!({ "claims": { "iss": "https://accounts.google.com" } }),
        json!({ "claims": { "exp": 1_700_000_000 } }),
        json!({ "claims": { "iat": 1_700_000_000 } }),
        json!({ "claims": { "sub": "" } }),
        json!({ "sign": "none" }),
        json!({ "sign": "hs256" }),
        json!({ "sign": "hs256-pem" }),
        json!({ "sign": "other" }),
        json!({ "header": { "kid": "k2" } }),
        json!({ "header": { "alg": "RS512" } }),
        json!({ "header": { "crit": ["exp"] } }),
        json!({ "without_id_token": true }),
    ];
    for lie in lies {
        world.google.lie(lie.clone()).await;
        let refused = world.arrive("google", "ann", 422).await;
        assert_eq!(refused["code"], "provider_refused", "{lie}: {refused}");
    }
    for (lie, status) in [
        (json!({ "status": 500 }), 503),
        (json!({ "status": 429 }), 503),
        (json!({ "status": 302 }), 503),
        (json!({ "huge": true }), 503),
        (json!({ "status": 418 }), 422),
    ] {
        world.google.lie(lie.clone()).await;
        let refused = world.arrive("google", "ann", status).await;
        assert!(["provider_unavailable", "provider_refused"].contains(&refused["code"].as_str().unwrap()), "{lie}");
    }
    assert_eq!(world.people_registered().await, 0, "a lie made an account");
    world.google.lie(json!({ "claims": { "aud": ["air", "somebody-else"], "azp": "air" } })).await;
    world.sign_in("google", "ann").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_alone_leads_into_nobodys_account() {
    let world = World::new().await;
    // Ann was here first, with a password.
    let ann = world.people.join("ann").await;
    for provider in ["google", "github"] {
        let refused = world.arrive(provider, "ann", 409).await;
        assert_eq!(refused["code"], "account_exists", "{refused}");
    }
    // Somebody has registered with Bob's address and waits for him to confirm it by coming from Google.
    world.people.register("bob").await;
    let refused = world.arrive("google", "bob", 409).await;
    assert_eq!(refused["code"], "account_exists");
    let early = json!({ "login": "bob", "password": PASSWORD });
    assert_eq!(world.people.post("/v1/auth/login", early, 403).await["code"], "email_not_confirmed");
    // An account there with somebody's address, which nobody has confirmed there.
    for (who, claims) in [
        ("ann", json!({ "email_verified": false })),
        ("eve", json!({ "email": "new@example.org", "email_verified": null })),
        ("eve", json!({ "email": "new@example.org", "email_verified": "no" })),
        ("eve", json!({ "email": null })),
        ("eve", json!({ "email": "not an address", "email_verified": true })),
    ] {
        world.google.lie(json!({ "claims": claims })).await;
        assert_eq!(world.arrive("google", who, 403).await["code"], "email_not_verified", "{claims}");
    }
    assert_eq!(world.people_registered().await, 2);
    assert_eq!(ann.http.get("/v1/me").await["linked"], json!([]));

    // From inside, Ann may link it; and from then on come in by it, whatever address she has there.
    world.google.lie(json!({ "claims": { "email": "elsewhere@example.org" } })).await;
    let linked = world.link(&ann, "google", "ann", 200).await;
    assert_eq!((&linked["id"], &linked["linked"]), (&json!(ann.id), &json!(["google"])));
    assert_eq!(world.sign_in("google", "ann").await.id, ann.id);
    world.people.mailbox.letter("ann@example.org", "Your Google account can be used").await;
    world.link(&ann, "google", "ann", 200).await;
    // Nobody else links what is hers, and she links no second one beside it.
    let eve = world.people.join("eve").await;
    assert_eq!(world.link(&eve, "google", "ann", 409).await["code"], "linked_to_another");
    assert_eq!(world.link(&ann, "google", "eve", 409).await["code"], "linked_elsewhere");
    world.link(&eve, "google", "eve", 200).await;
    // Unlinked, it lets nobody in; and her address is hers still.
    ann.http.json("DELETE", "/v1/me/links/google", None, 200).await;
    world.people.mailbox.letter("ann@example.org", "Your Google account cannot be used").await;
    world.google.lie(json!({})).await;
    assert_eq!(world.arrive("google", "ann", 409).await["code"], "account_exists");
    assert_eq!(ann.http.json("DELETE", "/v1/me/links/google", None, 404).await["code"], "not_linked");
    assert_eq!(world.link(&eve, "google", "ann", 409).await["code"], "linked_elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn linking_needs_the_session_and_the_browser_that_began_it() {
    let world = World::new().await;
    let (ann, eve) = (world.people.join("ann").await, world.people.join("eve").await);
    let path = "/v1/me/links/google";
    let nothing = || Some(json!({}));
    world.people.http.json("POST", path, nothing(), 401).await;
    let program = world.stack.http();
    assert_eq!(program.json("POST", path, nothing(), 403).await["code"], "people_only");
    // A session that was left open is not enough for another way in.
    let left_open = world.people.log_in("ann").await;
    let mut postgres = world.stack.postgres().await;
    let an_hour_ago = "UPDATE identity.sessions SET auth_time = now() - interval '1 hour'
        WHERE created_at = (SELECT max(created_at) FROM identity.sessions)";
    sqlx::query(an_hour_ago).execute(&mut postgres).await.unwrap();
    let refreshed = json!({ "refresh_token": left_open.refresh_token });
    let left_open = Person::of(&world.people.http, &world.people.post("/v1/auth/refresh", refreshed, 200).await);
    assert_eq!(left_open.http.json("POST", path, nothing(), 403).await["code"], "reauthentication_required");
    let guess = Some(json!({ "password": "correct horse" }));
    assert_eq!(left_open.http.json("POST", path, guess, 403).await["code"], "wrong_password");
    left_open.http.json("POST", path, Some(json!({ "password": PASSWORD })), 200).await;
    // Eve begins, and has Ann's browser come back: it has no cookie, or another one.
    let mut eves = world.browser();
    let there = eves.begin_link(&eve, "google").await;
    let mut anns = world.browser();
    anns.begin_link(&ann, "google").await;
    let back = anns.through(&there, "ann").await;
    assert_eq!(anns.json(&back, 422).await["code"], "invalid_state");
    // Ann begins, and signs out before she comes back.
    let there = anns.begin_link(&ann, "google").await;
    let back = anns.through(&there, "ann").await;
    world.people.post("/v1/auth/logout", json!({ "refresh_token": ann.refresh_token }), 204).await;
    assert_eq!(anns.json(&back, 401).await["code"], "session_over");
    for person in [&world.people.log_in("ann").await, &eve] {
        assert_eq!(person.http.get("/v1/me").await["linked"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_comes_from_github_by_number_and_by_a_confirmed_address_only() {
    let world = World::new().await;
    let github = &world.github;
    let verified = json!([
        { "email": "old@example.org", "primary": false, "verified": true, "visibility": null },
        { "email": "zoe@example.org", "primary": true, "verified": true, "visibility": "private" },
    ]);
    for addresses in [
        json!([]),
        json!([{ "email": "zoe@example.org", "primary": true, "verified": false, "visibility": null }]),
        json!([{ "email": "zoe@example.org", "primary": false, "verified": true, "visibility": null }]),
    ] {
        github.user(
            "zoe",
            json!({ "id": 583_231, "login": "zoe", "name": null, "email": "zoe@example.org" }),
            addresses,
        );
        assert_eq!(world.arrive("github", "zoe", 403).await["code"], "email_not_verified");
    }
    github.user("zoe", json!({ "id": 583_231, "login": "zoe", "name": null, "email": null }), verified.clone());
    let zoe = world.sign_in("github", "zoe").await;
    let me = zoe.http.get("/v1/me").await;
    assert_eq!(
        (&me["email"], &me["name"], &me["linked"]),
        (&json!("zoe@example.org"), &json!("zoe"), &json!(["github"]))
    );
    // She takes another name there; somebody else takes hers, and an address that was hers.
    github.user("zoe", json!({ "id": 583_231, "login": "zoe2", "name": "Zoe", "email": null }), json!([]));
    assert_eq!(world.sign_in("github", "zoe").await.id, zoe.id);
    github.user("imp", json!({ "id": 99, "login": "zoe", "name": "Zoe", "email": null }), verified);
    assert_eq!(world.arrive("github", "imp", 409).await["code"], "account_exists");
    // It says its errors under status 200.
    let mut browser = world.browser();
    let back = world.come_back(&mut browser, "github", "zoe").await;
    let code = browser::parameter(&back, "code");
    assert_eq!(browser.json(&back.replace(&code, "another"), 422).await["code"], "provider_refused");
    github.breaks("user", 503);
    assert_eq!(world.arrive("github", "zoe", 503).await["code"], "provider_unavailable");
    github.breaks("user", 401);
    assert_eq!(world.arrive("github", "zoe", 422).await["code"], "provider_refused");
    github.breaks("token", 302);
    assert_eq!(world.arrive("github", "zoe", 503).await["code"], "provider_unavailable");
    assert_eq!(world.people_registered().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_asked_for_however_somebody_comes() {
    let world = World::new().await;
    let ann = world.sign_in("google", "ann").await;
    let mut postgres = world.stack.postgres().await;
    let enabled = "UPDATE identity.credentials SET totp_enabled = true,
        totp_secret = '{ \"v\": 1, \"sub\": \"usr_1\", \"nonce\": \"n\", \"ct\": \"c\" }'";
    sqlx::query(enabled).execute(&mut postgres).await.unwrap();
    let asked = world.arrive("google", "ann", 202).await;
    assert_eq!(asked["status"], "second_factor_required");
    assert!(asked.get("access_token").is_none(), "{asked}");
    let go_on = async |continuation: &str, expected: u16| {
        world.people.post("/v1/auth/oauth/continue", json!({ "continuation": continuation }), expected).await
    };
    let continuation = asked["continuation"].as_str().unwrap();
    assert_eq!(go_on(continuation, 401).await["code"], "second_factor_required");
    assert_eq!(go_on("aoc_made-up", 422).await["code"], "invalid_code");
    // Ending all sessions ends what is about to become one.
    let ended = world.arrive("google", "ann", 202).await["continuation"].as_str().unwrap().to_owned();
    ann.http.json("DELETE", "/v1/me/sessions", None, 200).await;
    assert_eq!(go_on(&ended, 422).await["code"], "invalid_code");
    let asked = world.arrive("google", "ann", 202).await;
    let continuation = asked["continuation"].as_str().unwrap();
    // As long as it has led nowhere, it works.
    sqlx::query("UPDATE identity.credentials SET totp_enabled = false").execute(&mut postgres).await.unwrap();
    assert_eq!(go_on(continuation, 200).await["user"]["id"], json!(ann.id));
    assert_eq!(go_on(continuation, 422).await["code"], "invalid_code", "a second time");
}
