use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use proptest::prelude::*;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;
const EXPECTED: Expected<'_> =
    Expected { issuer: "https://accounts.google.com", audience: "us", nonce: "nonce-1", now: NOW };

/// A provider that signs whatever it is told to.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key"))
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn key(&self) -> Key {
        let (x, y) = self.public()[1..].split_at(32);
        let key = DecodingKey::from_ec_components(&URL_SAFE_NO_PAD.encode(x), &URL_SAFE_NO_PAD.encode(y));
        Key { algorithm: Algorithm::ES256, key: key.expect("a key") }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verify(&self, claims: &Value) -> Result<Said, &'static str> {
        verify(&self.token(&header(), claims), &self.key(), &EXPECTED)
    }
}

fn message(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn header() -> Value {
    json!({ "alg": "ES256", "typ": "JWT", "kid": "k1" })
}

fn claims() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": "us", "azp": "us", "sub": "110169484474386276334",
        "exp": NOW + 3_599, "iat": NOW, "nonce": "nonce-1",
        "email": "ann@example.org", "email_verified": true, "name": "Ann Bee", "hd": "example.org", "at_hash": "x",
    })
}

/// The claims with one of them another one; null: without it.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
        value => claims[name] = value,
    }
    claims
}

#[test]
fn a_token_that_is_ours_is_believed() {
    let issuer = Issuer::new();
    let said = issuer.verify(&claims()).expect("it is good");
    assert_eq!(said.subject, "110169484474386276334");
    assert_eq!((said.email.as_deref(), said.email_verified), (Some("ann@example.org"), true));
    assert_eq!(key_of(&issuer.token(&header(), &claims())).as_deref(), Ok("k1"));
    for (name, value) in [
        ("iss", json!("accounts.google.com")),
        ("aud", json!(["us", "others"])),
        ("azp", Value::Null),
        ("exp", json!(NOW - 59)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("iat", json!(NOW + 60)),
        ("email", Value::Null),
    ] {
        assert!(issuer.verify(&with(name, value.clone())).is_ok(), "{name}: {value}");
    }
}

#[test]
fn an_address_counts_as_verified_only_if_that_is_said() {
    let issuer = Issuer::new();
    for (value, verified) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!("TRUE"), false),
        (json!(1), false),
        (json!([true]), false),
        (Value::Null, false),
    ] {
        let said = issuer.verify(&with("email_verified", value.clone())).expect("the token is good");
        assert_eq!(said.email_verified, verified, "{value}");
    }
}

#[test]
fn a_token_of_somebody_else_for_somebody_else_or_of_another_time_is_not() {
    let issuer = Issuer::new();
    for (name, value) in [
        ("iss", json!("https://evil.example")),
        ("iss", json!("https://accounts.google.com/")),
        ("iss", Value::Null),
        ("aud", json!("somebody-else")),
        ("aud", json!([])),
        ("aud", json!(["somebody-else"])),
        ("aud", json!(["us", 1])),
        ("aud", json!({ "us": "us" })),
        ("aud", Value::Null),
        ("azp", json!("somebody-else")),
        ("exp", json!(NOW - 60)),
        ("exp", json!("never")),
        ("exp", Value::Null),
        ("iat", json!(NOW + 61)),
        ("iat", json!(NOW - 3_601)),
        ("iat", Value::Null),
        ("nonce", json!("nonce-2")),
        ("nonce", json!("")),
        ("nonce", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!("a b")),
        ("sub", json!("x".repeat(256))),
        ("sub", Value::Null),
    ] {
        assert!(issuer.verify(&with(name, value.clone())).is_err(), "{name}: {value}");
    }
    let mut many = with("aud", json!(["us", "others"]));
    many.as_object_mut().expect("an object").remove("azp");
    assert!(issuer.verify(&many).is_err(), "several audiences, and nobody says to whom it was given");
}

#[test]
fn no_other_signature_counts() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let good = issuer.token(&header(), &claims());
    assert!(verify(&good, &issuer.key(), &EXPECTED).is_ok());
    assert!(verify(&good, &other.key(), &EXPECTED).is_err());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (_, body) = signed.split_once('.').expect("three parts");
    // Another body under the same signature, none at all, and no algorithm.
    let changed = message(&header(), &with("sub", json!("1")));
    let none = json!({ "alg": "none", "kid": "k1" });
    for forged in [
        format!("{changed}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
        format!("{}.", message(&none, &claims())),
        format!("{}.{signature}", message(&none, &claims())),
        format!("{}.{signature}", message(&json!({ "alg": "None", "kid": "k1" }), &claims())),
        format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode(json!({ "kid": "k1" }).to_string())),
    ] {
        assert!(verify(&forged, &issuer.key(), &EXPECTED).is_err(), "{forged}");
    }
    // The public key, which everybody has, taken for a shared secret.
    for secret in [issuer.public(), URL_SAFE_NO_PAD.encode(issuer.public()).as_bytes()] {
        let swapped = message(&json!({ "alg": "HS256", "kid": "k1" }), &claims());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), swapped.as_bytes());
        let forged = format!("{swapped}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert!(verify(&forged, &issuer.key(), &EXPECTED).is_err());
    }
    // Signed well, but said to be signed otherwise.
    for alg in ["RS256", "EdDSA", "ES384", "PS256", "HS256"] {
        let header = json!({ "alg": alg, "kid": "k1" });
        assert!(verify(&issuer.token(&header, &claims()), &issuer.key(), &EXPECTED).is_err(), "{alg}");
    }
    let critical = json!({ "alg": "ES256", "kid": "k1", "crit": ["b64"], "b64": false });
    assert!(verify(&issuer.token(&critical, &claims()), &issuer.key(), &EXPECTED).is_err());
    assert!(verify(&issuer.token(&json!({ "alg": "ES256" }), &claims()), &issuer.key(), &EXPECTED).is_err());
    let long = with("name", json!("x".repeat(MOST_BYTES)));
    assert!(issuer.verify(&long).is_err());
}

proptest! {
    #[test]
    fn whatever_comes_nothing_breaks(text in ".{0,80}", claim in ".{0,20}", number in any::<f64>()) {
        let issuer = Issuer::new();
        prop_assert!(verify(&text, &issuer.key(), &EXPECTED).is_err());
        let header = json!({ "alg": claim, "kid": claim, "crit": number });
        prop_assert!(verify(&issuer.token(&header, &claims()), &issuer.key(), &EXPECTED).is_err());
        for name in ["iss", "aud", "nonce"] {
            prop_assert!(issuer.verify(&with(name, json!([number, claim]))).is_err());
        }
    }
}
