//! What an ID token must say to be believed (OpenID Connect Core 1.0, 3.1.3.7).

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::keys::Key;
use crate::crypto;

/// Longest token that is looked at.
const MOST_BYTES: usize = 16 * 1024;
/// Clocks may differ by so much.
const LEEWAY_SECONDS: i64 = 60;
/// How old a token may be: it was made for the code that has just been exchanged.
const OLDEST_SECONDS: i64 = 3_600;

/// What is asked of a token.
pub(super) struct Expected<'a> {
    /// Who signs.
    pub(super) issuer: &'a str,
    /// For whom: us.
    pub(super) audience: &'a str,
    /// For which departure.
    pub(super) nonce: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// What a token says, once it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) subject: String,
    pub(super) email: Option<String>,
    pub(super) email_verified: bool,
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nonce: Option<String>,
    email: Option<String>,
    email_verified: Option<Value>,
    name: Option<String>,
}

/// The name of the key that a token says it is signed with; only if it is signed in a way that is allowed at all.
pub(super) fn key_of(token: &str) -> Result<String, &'static str> {
    if token.len() > MOST_BYTES {
        return Err("it is too long");
    }
    // An algorithm that the library does not know, `none` above all, is no header to it.
    let header = decode_header(token).map_err(|_| "it has no header that can be read")?;
    if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
        return Err("it is signed in another way");
    }
    if header.crit.is_some() {
        return Err("it asks for something that we do not know");
    }
    header.kid.ok_or("it does not name its key")
}

/// Reads a token that was signed with this key.
pub(super) fn verify(token: &str, key: &Key, expected: &Expected<'_>) -> Result<Said, &'static str> {
    crypto::install();
    key_of(token)?;
    // The key's own algorithm, whatever the token says. Times and names are compared below, with our clock.
    let mut validation = Validation::new(key.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let decoded = decode::<Claims>(token, &key.key, &validation).map_err(|_| "its signature or its form is wrong")?;
    let claims = decoded.claims;
    if !is_issuer(&claims.iss, expected.issuer) {
        return Err("somebody else signed it");
    }
    let audience = audience(&claims.aud).ok_or("it does not say for whom it is")?;
    if !audience.contains(&expected.audience) {
        return Err("it is for somebody else");
    }
    let party = claims.azp.as_deref();
    if party.is_some_and(|party| party != expected.audience) || (audience.len() > 1 && party.is_none()) {
        return Err("it was given to somebody else");
    }
    let (now, leeway) = (expected.now as f64, LEEWAY_SECONDS as f64);
    if claims.exp <= now - leeway {
        return Err("it has expired");
    }
    if claims.iat > now + leeway || claims.iat < now - OLDEST_SECONDS as f64 {
        return Err("it was not made just now");
    }
    if claims.nonce.as_deref() != Some(expected.nonce) {
        return Err("it is for another departure");
    }
    // At most 255 ASCII characters, says the standard.
    if claims.sub.is_empty() || claims.sub.len() > 255 || !claims.sub.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its subject is none");
    }
    Ok(Said {
        subject: claims.sub,
        email: claims.email,
        email_verified: claims.email_verified.is_some_and(|verified| verified == true || verified == "true"),
        name: claims.name,
    })
}

/// Google has signed with and without a scheme.
fn is_issuer(said: &str, expected: &str) -> bool {
    said == expected || (expected == "https://accounts.google.com" && said == "accounts.google.com")
}

fn audience(aud: &Value) -> Option<Vec<&str>> {
    match aud {
        Value::String(one) => Some(vec![one]),
        Value::Array(several) => several.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
