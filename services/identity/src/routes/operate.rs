//! `/v1/operate/signing-keys`: the keys of access tokens, for operators.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kernel::Timestamp;
use rest::{Fault, Page, documents};
use runtime::clock;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::Accounts;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(rotate))
}

/// A key of access tokens.
#[derive(Serialize, ToSchema)]
struct SigningKey {
    /// Its name, as in `kid`.
    #[schema(example = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    kid: String,
    /// `next`: known, and will sign; `signing`: signs; `retiring`: what it has signed counts for a while.
    #[schema(example = "signing")]
    state: &'static str,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// From when on it signs.
    #[schema(value_type = String, format = DateTime)]
    signs_from: Timestamp,
    /// Until when its signatures count; null: it has not been replaced.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

async fn keys(accounts: &Accounts) -> Result<Vec<SigningKey>, Fault> {
    let (rows, signs) = accounts.signing.list().await?;
    let keys = rows.into_iter().map(|row| {
        let state = match row.kid == signs {
            true => "signing",
            false if row.signs_from > clock::now() => "next",
            false => "retiring",
        };
        SigningKey { kid: row.kid, state, created_at: row.created_at, signs_from: row.signs_from, until: row.until }
    });
    Ok(keys.collect())
}

/// Lists the keys of access tokens whose signatures count.
#[utoipa::path(get, path = "/v1/operate/signing-keys", tag = "operations", security(("token" = ["operate"])),
    responses((status = 200, body = Page<SigningKey>), (status = 403, body = documents::Problem)))]
async fn list(State(accounts): State<Accounts>) -> Result<Json<Page<SigningKey>>, Fault> {
    Ok(Json(Page { items: keys(&accounts).await?, next_cursor: None }))
}

/// Makes another key of access tokens.
///
/// It is published at once and signs in five minutes, when everybody knows it. What those before it have signed counts until
/// all of it has expired.
#[utoipa::path(post, path = "/v1/operate/signing-keys/rotate", tag = "operations", security(("token" = ["operate"])),
    responses((status = 201, body = Page<SigningKey>), (status = 403, body = documents::Problem)))]
async fn rotate(State(accounts): State<Accounts>) -> Result<(StatusCode, Json<Page<SigningKey>>), Fault> {
    let kid = accounts.signing.rotate().await?;
    tracing::info!(kid, "there is another key of access tokens");
    Ok((StatusCode::CREATED, Json(Page { items: keys(&accounts).await?, next_cursor: None })))
}
