//! Access tokens: JWTs in the profile of RFC 9068, signed with Ed25519, valid for ten minutes.
//!
//! A key becomes known to verifiers before it signs, and stays known until the last token it signed has expired: nobody notices
//! a change of keys.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::crypto;

/// How long an access token is valid.
pub const LIFETIME_SECONDS: i64 = 600;
/// Clocks of instances may differ by so much.
const LEEWAY_SECONDS: u64 = 5;
/// RFC 9068, 2.1: tells an access token from every other JWT that we or others sign.
const TYPE: &str = "at+jwt";

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed it: our own address.
    pub iss: String,
    /// For whom it is.
    pub aud: String,
    /// Who holds it.
    pub sub: String,
    /// In which session it was given out.
    pub sid: String,
    /// The tenant that is worked in, if one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<String>,
    /// What it may be used for, separated by blanks; nothing: everything that its holder may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Its own id.
    pub jti: String,
    /// Seconds since 1970 at which it was given out.
    pub iat: i64,
    /// And at which it ends.
    pub exp: i64,
    /// When its holder last showed who they are.
    pub auth_time: i64,
    /// By what (RFC 8176): `pwd`, `otp`, `mfa`, …
    pub amr: Vec<String>,
}

/// A private key and its public half.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    public: Vec<u8>,
    pkcs8: Vec<u8>,
    encoding: EncodingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// These bytes are no private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidKey;

impl std::fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this is no Ed25519 key in PKCS #8")
    }
}

impl std::error::Error for InvalidKey {}

impl SigningKey {
    /// A new one.
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    #[must_use]
    pub fn generate() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random bytes");
        Self::from_pkcs8(document.as_ref()).expect("a key that was just made")
    }

    /// From what [`SigningKey::pkcs8`] gave.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, InvalidKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| InvalidKey)?;
        let public = pair.public_key().as_ref().to_vec();
        let encoding = EncodingKey::from_ed_der(pkcs8);
        Ok(Self { kid: thumbprint(&public), public, pkcs8: pkcs8.to_vec(), encoding })
    }

    /// The private key: to be wrapped before it is kept anywhere.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Its name: the thumbprint of the public half (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half, 32 bytes.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }
}

/// RFC 7638 over the members that RFC 8037 requires, in this order.
fn thumbprint(public: &[u8]) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(public));
    URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes()))
}

/// One key that signs, and all those whose signatures count.
#[derive(Debug, Clone)]
pub struct Keys {
    issuer: String,
    audience: String,
    signing: SigningKey,
    verifying: BTreeMap<String, (Vec<u8>, DecodingKey)>,
}

/// Why a token is not accepted. Callers are told one thing, whichever it was; this is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is no JWT, or not one of ours.
    Malformed,
    /// It has another form: `alg`, `typ`, or a key that we do not know.
    Foreign,
    /// The signature is wrong.
    Forged,
    /// It was ours, and is over.
    Expired,
    /// It is for somebody else.
    Misdirected,
}

impl Keys {
    /// With one key that signs; `others` are public keys whose signatures count, too: the one that comes next, and those
    /// that were before.
    #[must_use]
    pub fn new(issuer: &str, audience: &str, signing: SigningKey, others: impl IntoIterator<Item = Vec<u8>>) -> Self {
        crypto::install();
        let public = std::iter::once(signing.public.clone()).chain(others);
        let verifying = public.map(|public| {
            let key = DecodingKey::from_ed_der(&public);
            (thumbprint(&public), (public, key))
        });
        Self { issuer: issuer.to_owned(), audience: audience.to_owned(), verifying: verifying.collect(), signing }
    }

    /// The name of the key that signs.
    #[must_use]
    pub fn signs(&self) -> &str {
        &self.signing.kid
    }

    /// Who signs.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// For whom.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Signs.
    ///
    /// # Panics
    /// Never: the claims are plain JSON and the key was checked.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        let header =
            Header { typ: Some(TYPE.to_owned()), kid: Some(self.signing.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        encode(&header, claims, &self.signing.encoding).expect("plain claims and a sound key")
    }

    /// Reads a token that one of our keys has signed for us, and that is not over.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn verify(&self, token: &str) -> Result<Claims, Refused> {
        use jsonwebtoken::errors::ErrorKind;

        let header = decode_header(token).map_err(|_| Refused::Malformed)?;
        let typed = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE));
        // Nothing of the header chooses how it is verified: it has to fit.
        if header.alg != Algorithm::EdDSA || !typed {
            return Err(Refused::Foreign);
        }
        let (_, key) = header.kid.and_then(|kid| self.verifying.get(&kid)).ok_or(Refused::Foreign)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS;
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        decode(token, key, &validation).map(|data| data.claims).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Refused::Expired,
            ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => Refused::Misdirected,
            ErrorKind::InvalidSignature => Refused::Forged,
            _ => Refused::Malformed,
        })
    }

    /// What verifiers elsewhere need (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        let keys = self.verifying.iter().map(|(kid, (public, _))| {
            let x = URL_SAFE_NO_PAD.encode(public);
            json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x })
        });
        json!({ "keys": keys.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> i64 {
        i64::try_from(jsonwebtoken::get_current_timestamp()).expect("our times")
    }

    fn claims() -> Claims {
        Claims {
            iss: "https://air.example".into(),
            aud: "https://air.example/v1".into(),
            sub: "usr_1".into(),
            sid: "ses_1".into(),
            tid: Some("tnt_1".into()),
            scope: None,
            jti: "tok_1".into(),
            iat: now(),
            exp: now() + LIFETIME_SECONDS,
            auth_time: now(),
            amr: vec!["pwd".into()],
        }
    }

    fn keys_of(signing: SigningKey, others: &[&SigningKey]) -> Keys {
        let others = others.iter().map(|key| key.public.clone());
        Keys::new("https://air.example", "https://air.example/v1", signing, others)
    }

    fn keys() -> Keys {
        keys_of(SigningKey::generate(), &[])
    }

    /// A token with another header and body, and whatever signature.
    fn token(header: &serde_json::Value, body: &str, signature: &[u8]) -> String {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn what_we_sign_we_read() {
        let keys = keys();
        let token = keys.sign(&claims());
        assert_eq!(keys.verify(&token), Ok(claims()));
        assert_eq!(keys.verify(&format!("{token}.x")), Err(Refused::Malformed));
        assert!(keys.verify(&format!(" {token}")).is_err());
        for part in 0..3 {
            let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
            parts[part].pop();
            assert!(keys.verify(&parts.join(".")).is_err(), "without the end of part {part}");
        }
        for text in ["", "a", "a.b", "a.b.c", "..", "ask_123"] {
            assert_eq!(keys.verify(text), Err(Refused::Malformed), "{text:?}");
        }
    }

    #[test]
    fn no_other_algorithm_is_believed() {
        let keys = keys();
        let signed = keys.sign(&claims());
        let body = signed.split('.').nth(1).expect("a body").to_owned();
        let kid = keys.signing.kid.clone();
        let header = |alg: &str| json!({ "alg": alg, "typ": TYPE, "kid": kid });
        for alg in ["none", "None", "NONE", "HS256", "HS512", "RS256", "ES256", "PS256", "x", ""] {
            assert!(keys.verify(&token(&header(alg), &body, b"")).is_err(), "{alg}");
        }
        // The public key as a shared secret: the classic.
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, keys.signing.public());
        let signing_input = format!("{}.{body}", URL_SAFE_NO_PAD.encode(header("HS256").to_string()));
        let tag = ring::hmac::sign(&secret, signing_input.as_bytes());
        assert_eq!(keys.verify(&token(&header("HS256"), &body, tag.as_ref())), Err(Refused::Foreign));
    }

    #[test]
    fn a_signature_by_somebody_else_counts_for_nothing() {
        let (keys, other) = (keys(), keys());
        assert_eq!(keys.verify(&other.sign(&claims())), Err(Refused::Foreign), "an unknown key");
        // Under the name of our key.
        let signed = other.sign(&claims());
        let body = signed.split('.').nth(1).expect("a body");
        let header = json!({ "alg": "EdDSA", "typ": TYPE, "kid": keys.signing.kid });
        let signature = URL_SAFE_NO_PAD.decode(signed.rsplit('.').next().expect("a signature")).expect("base64");
        assert_eq!(keys.verify(&token(&header, body, &signature)), Err(Refused::Forged));
    }

    #[test]
    fn a_token_for_another_purpose_is_refused() {
        let keys = keys();
        let sign = |change: fn(&mut Claims)| {
            let mut claims = claims();
            change(&mut claims);
            keys.verify(&keys.sign(&claims))
        };
        assert_eq!(sign(|claims| claims.exp = now() - 10), Err(Refused::Expired));
        assert!(sign(|claims| claims.exp = now() - 2).is_ok(), "clocks differ a little");
        assert_eq!(sign(|claims| claims.aud = "https://other.example".into()), Err(Refused::Misdirected));
        assert_eq!(sign(|claims| claims.iss = "https://evil.example".into()), Err(Refused::Misdirected));
        // An ID token, or anything else that this key may once sign.
        let header = Header { kid: Some(keys.signing.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        let untyped = encode(&header, &claims(), &keys.signing.encoding).expect("a token");
        assert_eq!(keys.verify(&untyped), Err(Refused::Foreign));
    }

    #[test]
    fn keys_change_without_anybody_noticing() {
        let (first, second) = (SigningKey::generate(), SigningKey::generate());
        let before = keys_of(first.clone(), &[&second]);
        let after = keys_of(second.clone(), &[&first]);
        let (old, new) = (before.sign(&claims()), after.sign(&claims()));
        for keys in [&before, &after] {
            assert!(keys.verify(&old).is_ok() && keys.verify(&new).is_ok());
            assert_eq!(keys.jwks()["keys"].as_array().map(Vec::len), Some(2));
        }
        let later = keys_of(second, &[]);
        assert_eq!(later.verify(&old), Err(Refused::Foreign));
        assert!(later.verify(&new).is_ok());
    }

    #[test]
    fn a_key_is_named_after_its_public_half() {
        // The key and the thumbprint of RFC 8037, appendix A.
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").expect("base64");
        assert_eq!(thumbprint(&public), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let key = SigningKey::generate();
        let again = SigningKey::from_pkcs8(key.pkcs8()).expect("its own form");
        assert_eq!((again.kid(), again.public()), (key.kid(), key.public()));
        assert_eq!(SigningKey::from_pkcs8(b"secret").err(), Some(InvalidKey));
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.kid()));
    }
}
