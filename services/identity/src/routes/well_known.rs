//! `/.well-known`: what others need to believe our tokens, and to find out how to get one.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::Accounts;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(jwks)).routes(routes!(authorization_server)).routes(routes!(protected_resource))
}

/// Verifiers may keep this for as long as a new key waits before it signs.
const CACHED: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "public, max-age=300")];

type Document = ([(HeaderName, &'static str); 1], Json<Value>);

/// The keys that sign access tokens (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()), responses((status = 200, body = Value)))]
async fn jwks(State(accounts): State<Accounts>) -> Document {
    (CACHED, Json(accounts.signing.keys().jwks()))
}

/// How to get a token here (RFC 8414).
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server", tag = "auth", security(()),
    responses((status = 200, body = Value)))]
async fn authorization_server(State(accounts): State<Accounts>) -> Document {
    let issuer = &accounts.signing.names().issuer;
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "token_endpoint": format!("{issuer}/v1/auth/token"),
        "device_authorization_endpoint": format!("{issuer}/v1/auth/device"),
        "revocation_endpoint": format!("{issuer}/v1/auth/logout"),
        "response_types_supported": [],
        "grant_types_supported": ["refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "service_documentation": format!("{issuer}/docs"),
    });
    (CACHED, Json(document))
}

/// Whose tokens are taken here (RFC 9728).
#[utoipa::path(get, path = "/.well-known/oauth-protected-resource", tag = "auth", security(()),
    responses((status = 200, body = Value)))]
async fn protected_resource(State(accounts): State<Accounts>) -> Document {
    let names = accounts.signing.names();
    let document = json!({
        "resource": names.audience,
        "authorization_servers": [names.issuer],
        "jwks_uri": format!("{}/.well-known/jwks.json", names.issuer),
        "bearer_methods_supported": ["header"],
        "resource_documentation": format!("{}/docs", names.issuer),
    });
    (CACHED, Json(document))
}
