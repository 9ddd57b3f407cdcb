//! `Idempotency-Key`: the same key of the same caller stands for the same request. That a repeated request does nothing twice
//! is the log's doing, since the key becomes the command's id; here it is told when a key is used for something else, on every
//! route and before anything happens.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kernel::{Fingerprint, Problem};
use projections::idempotency::{IdempotencyKeys, Used};
use rest::{Fault, IdempotencyKey, Payload, asker};
use sha2::{Digest, Sha256};

/// Whoever waits for Postgres waits so long. Without an answer the request goes on: the log still does nothing twice.
const PATIENCE: Duration = Duration::from_millis(500);

/// The layer.
pub(crate) async fn told(State(keys): State<IdempotencyKeys>, request: Request, next: Next) -> Response {
    if request.method().is_safe() || !request.headers().contains_key("idempotency-key") {
        return next.run(request).await;
    }
    match checked(&keys, request, next).await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    }
}

async fn checked(keys: &IdempotencyKeys, request: Request, next: Next) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    let Some(key) = IdempotencyKey::of(&parts.headers)? else {
        return Ok(next.run(Request::from_parts(parts, body)).await);
    };
    let digest = Sha256::digest(format!("{}\0{key}", asker(&parts)));
    let what = format!("{} {}", parts.method, parts.uri);
    let body = Payload::whole(Request::from_parts(parts.clone(), body)).await?;
    let fingerprint = Fingerprint::of(&what, &body);

    let used = match tokio::time::timeout(PATIENCE, keys.use_for(&digest, fingerprint.as_str())).await {
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
        let forgotten = tokio::time::timeout(PATIENCE, keys.forget(&digest, fingerprint.as_str())).await;
        tracing::trace!(?forgotten, "a key of a refused request");
    }
    Ok(response)
}
