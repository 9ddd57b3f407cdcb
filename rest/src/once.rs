//! Idempotency keys: which command a request is, and the same names for whatever else it makes.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use kernel::CommandId;
use runtime::clock;

use crate::{Fault, Origin, Signed};

/// The command id that a caller chose: `Idempotency-Key` (a plain value or a structured-field string), or the bus's own
/// header.
pub struct IdempotencyKey(pub Option<CommandId>);

impl IdempotencyKey {
    /// Reads the headers.
    ///
    /// # Errors
    /// 400 `invalid_name` when it is none, or one of the platform's own.
    pub fn of(headers: &HeaderMap) -> Result<Option<CommandId>, Fault> {
        for name in ["idempotency-key", "airstream-command-id"] {
            let Some(value) = headers.get(name) else { continue };
            let text = value.to_str().unwrap_or_default().trim();
            let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
            return Ok(Some(CommandId::chosen(text)?));
        }
        Ok(None)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        Self::of(&parts.headers).map(Self)
    }
}

/// Whose idempotency keys a request's are: the caller's within its tenant; of somebody without a token, their address's.
#[must_use]
pub fn asker(parts: &Parts) -> String {
    let signed = parts.extensions.get::<Arc<Signed>>();
    let origin = parts.extensions.get::<Origin>();
    match (signed, origin) {
        (Some(signed), _) => match &signed.tenant {
            Some(tenant) => format!("{tenant}/{}", signed.principal),
            None => format!("/{}", signed.principal),
        },
        (None, Some(origin)) => format!("address/{}", origin.network()),
        (None, None) => "nobody".to_owned(),
    }
}

/// For a route that is more than one command: names for what it makes, which follow from caller, route and idempotency key.
/// Whoever repeats the request names the same things, so what has been done is found done. Without a key every name is new.
///
/// Under such a name everything must be done as a command with [`Once::command`] as its id, or be of no harm twice.
#[derive(Debug, Clone)]
pub struct Once {
    seed: Option<String>,
}

impl Once {
    /// An id, such as `inv_…`; `what` tells several of one request apart.
    #[must_use]
    pub fn id(&self, prefix: &str, what: &str) -> String {
        match &self.seed {
            Some(seed) => clock::derived_id(prefix, &format!("{seed}/{what}")),
            None => clock::fresh_id(prefix),
        }
    }

    /// The id of one of its commands; `what` tells them apart.
    ///
    /// # Errors
    /// None that can happen: every id that is made here is one.
    pub fn command(&self, what: &str) -> Result<CommandId, Fault> {
        Ok(CommandId::new(&self.id("cmd_", what))?)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let key = IdempotencyKey::of(&parts.headers)?;
        let seed = key.map(|key| format!("{}/{} {}/{key}", asker(parts), parts.method, parts.uri.path()));
        Ok(Self { seed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn once(path: &str, key: Option<&str>, address: &str) -> Once {
        let mut request = axum::http::Request::post(path);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        parts.extensions.insert(Origin::new(address.parse().expect("an address"), None));
        Once::from_request_parts(&mut parts, &()).await.expect("a key")
    }

    #[tokio::test]
    async fn whoever_repeats_a_request_names_the_same_things() {
        let first = once("/v1/invites", Some("k"), "192.0.2.1").await;
        let again = once("/v1/invites", Some("\"k\""), "192.0.2.1").await;
        assert_eq!(first.id("inv_", ""), again.id("inv_", ""));
        assert_eq!(first.command("a").expect("an id"), again.command("a").expect("an id"));
        assert_ne!(first.id("inv_", "a"), first.id("inv_", "b"));
        for (path, key, address) in
            [("/v1/invites", "other", "192.0.2.1"), ("/v1/others", "k", "192.0.2.1"), ("/v1/invites", "k", "192.0.2.2")]
        {
            assert_ne!(once(path, Some(key), address).await.id("inv_", ""), first.id("inv_", ""), "{path} {key}");
        }
        let without = once("/v1/invites", None, "192.0.2.1").await;
        assert_ne!(without.id("inv_", ""), without.id("inv_", ""));
    }
}
