//! `Idempotency-Key`: the same key of the same caller stands for the same request. That a repeated request does nothing twice
//! is the log's doing, since the key becomes the command's id; here it is told when a key is used for something else, on every
//! route and before anything happens. What is kept of a request says nothing without the master key: some have passwords.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kernel::{CommandId, Fingerprint, Problem};
use projections::idempotency::{IdempotencyKeys, Used};
use rest::{Fault, IdempotencyKey, Payload, asker};
use vault::Digester;

/// Whoever waits for Postgres waits so long. Without an answer the request goes on: the log still does nothing twice.
const PATIENCE: Duration = Duration::from_millis(500);

/// What keys stand for, and how it is written down.
#[derive(Clone)]
pub(crate) struct Keys {
    keys: IdempotencyKeys,
    digester: Digester,
}

impl Keys {
    pub(crate) fn new(keys: IdempotencyKeys, digester: Digester) -> Self {
        Self { keys, digester }
    }

    fn of_key(&self, asker: &str, key: &CommandId) -> Vec<u8> {
        self.digester.digest(format!("key\0{asker}\0{key}").as_bytes())
    }

    fn of_request(&self, what: &str, body: &[u8]) -> String {
        let fingerprint = Fingerprint::of(what, body);
        let digest = self.digester.digest(format!("request\0{}", fingerprint.as_str()).as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The layer.
pub(crate) async fn told(State(keys): State<Keys>, request: Request, next: Next) -> Response {
    if request.method().is_safe() || !request.headers().contains_key("idempotency-key") {
        return next.run(request).await;
    }
    match checked(&keys, request, next).await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    }
}

async fn checked(keys: &Keys, request: Request, next: Next) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    let Some(key) = IdempotencyKey::of(&parts.headers)? else {
        return Ok(next.run(Request::from_parts(parts, body)).await);
    };
    let digest = keys.of_key(&asker(&parts), &key);
    let what = format!("{} {}", parts.method, parts.uri);
    let body = Payload::whole(Request::from_parts(parts.clone(), body)).await?;
    let request = keys.of_request(&what, &body);

    let used = match tokio::time::timeout(PATIENCE, keys.keys.use_for(&digest, &request)).await {
        Ok(Ok(used)) => Some(used),
        Ok(Err(failure)) => {
            tracing::debug!(%failure, source = %failure.source, "an idempotency key could not be looked up");
            None
        }
        Err(_) => None,
    };
    if used == Some(Used::Otherwise) {
        let detail = format!("The key `{key}` stands for another request of yours (another route, or another body).");
        return Err(Problem::new(422, "idempotency_key_reused", detail).into());
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    // A refusal has changed nothing: whoever mends the request may keep the key.
    if used == Some(Used::First) && response.status().is_client_error() {
        let forgotten = tokio::time::timeout(PATIENCE, keys.keys.forget(&digest, &request)).await;
        tracing::trace!(?forgotten, "a key of a refused request");
    }
    Ok(response)
}
