//! `/v1/auth/token`: tokens as OAuth clients ask for them (RFC 6749, RFC 8628).

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rest::{Fault, Fields, Origin, documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Tokens;
use super::secret;
use crate::accounts::{Accounts, Asked};

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(token))
}

/// RFC 8628, 3.4.
pub(super) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Whatever else a client sends is ignored (RFC 6749, 3.2).
#[derive(Deserialize, ToSchema)]
struct Grant {
    /// `refresh_token`, or `urn:ietf:params:oauth:grant-type:device_code`.
    #[schema(example = "refresh_token")]
    grant_type: String,
    #[schema(example = "art_AQGaofDD1H4rmgscLT5PWmsAAAAAAAAAAA")]
    refresh_token: Option<String>,
    #[schema(example = "adc_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX")]
    device_code: Option<String>,
}

/// Refused, as OAuth says it (RFC 6749, 5.2).
#[derive(Serialize, ToSchema)]
struct Refused {
    /// `authorization_pending`, `slow_down`, `expired_token`, `access_denied`, `invalid_grant`, `invalid_request` or
    /// `unsupported_grant_type`.
    #[schema(example = "authorization_pending")]
    error: &'static str,
    /// For whoever reads it.
    #[schema(example = "Nobody has decided yet; ask again in a while.")]
    error_description: &'static str,
}

fn refused(error: &'static str, error_description: &'static str) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (StatusCode::BAD_REQUEST, headers, Json(Refused { error, error_description })).into_response()
}

/// Gives out tokens, as OAuth does.
///
/// For a device that somebody has approved, or for a refresh token.
#[utoipa::path(post, path = "/v1/auth/token", tag = "auth", security(()),
    request_body(content = Grant, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Tokens), (status = 400, body = Refused), (status = 503, body = documents::Problem)))]
async fn token(State(accounts): State<Accounts>, origin: Origin, body: Fields) -> Result<Response, Fault> {
    let Ok(Grant { grant_type, refresh_token, device_code }) = body.read() else {
        return Ok(refused("invalid_request", "Send a form with `grant_type`, and each field once."));
    };
    match (grant_type.as_str(), device_code, refresh_token) {
        (DEVICE_CODE, Some(code), _) => Ok(match accounts.ask_device(&code, &origin).await? {
            Asked::LoggedIn(tokens) => secret(Tokens::from(*tokens)).into_response(),
            Asked::Pending => refused("authorization_pending", "Nobody has decided yet; ask again in a while."),
            Asked::SlowDown => refused("slow_down", "Ask five seconds less often from now on."),
            Asked::Expired => refused("expired_token", "Nobody has decided in time; begin again."),
            Asked::Denied => refused("access_denied", "The device was turned away."),
            Asked::Unknown => refused("invalid_grant", "This device code is none, or was used already."),
        }),
        ("refresh_token", _, Some(token)) => match accounts.refresh(&token, &origin).await {
            Ok(tokens) => Ok(secret(Tokens::from(tokens)).into_response()),
            Err(problem) if problem.status == 401 => {
                Ok(refused("invalid_grant", "The session of this token is over; sign in again."))
            }
            Err(problem) => Err(problem.into()),
        },
        (DEVICE_CODE, None, _) => Ok(refused("invalid_request", "Send `device_code` along.")),
        ("refresh_token", _, None) => Ok(refused("invalid_request", "Send `refresh_token` along.")),
        _ => Ok(refused("unsupported_grant_type", "Devices and refresh tokens are all there is.")),
    }
}
