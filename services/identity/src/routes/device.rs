//! `/v1/auth/device`: signing in a device that has no keyboard (RFC 8628).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rest::{Fault, Fields, Holder, Origin, Payload, Segment, SignedIn, documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::invalid;
use super::{Secret, people_only, secret};
use crate::accounts::{Accounts, Asking, Deciding, Waiting};
use crate::names::Invalid;
use crate::password::Password;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(begin)).routes(routes!(show)).routes(routes!(approve)).routes(routes!(deny))
}

#[derive(Deserialize, ToSchema)]
struct Begin {
    /// What the device calls itself, so that its owner recognises it.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$",
        example = "airstream on ann-laptop"
    )]
    client_name: Option<String>,
    /// The same under the name that OAuth has for it.
    #[schema(example = "airstream")]
    client_id: Option<String>,
}

/// Two codes: one for the device, one for whoever it belongs to.
#[derive(Serialize, ToSchema)]
struct Device {
    /// The device asks `POST /v1/auth/token` with it.
    #[schema(example = "adc_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX")]
    device_code: String,
    /// Its owner types it.
    #[schema(example = "WDJB-MJHT")]
    user_code: String,
    /// Where.
    #[schema(example = "https://air.example/device")]
    verification_uri: String,
    /// The same, with the code typed already.
    #[schema(example = "https://air.example/device?user_code=WDJB-MJHT")]
    verification_uri_complete: String,
    /// Seconds that both last.
    #[schema(example = 900)]
    expires_in: i32,
    /// Seconds from one question of the device to the next.
    #[schema(example = 5)]
    interval: i32,
}

/// Begins to sign in a device.
///
/// It shows `user_code` and `verification_uri`, and asks `POST /v1/auth/token` until somebody has decided.
#[utoipa::path(post, path = "/v1/auth/device", tag = "auth", security(()),
    request_body(content((Begin = "application/json"), (Begin = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = Device), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn begin(State(accounts): State<Accounts>, origin: Origin, body: Fields) -> Result<Secret<Device>, Fault> {
    let Begin { client_name, client_id } = body.read()?;
    let name = client_name.or(client_id).unwrap_or_else(|| "a device without a name".to_owned());
    if name.chars().count() > 100 || name.trim().is_empty() || name.chars().any(char::is_control) {
        let rule = Invalid("What a device calls itself has at most 100 characters, and no control characters.");
        return Err(invalid("/client_name", rule).into());
    }
    let Asking { device_code, user_code, expires_in, interval } = accounts.begin_device(name.trim(), &origin).await?;
    let verification_uri = format!("{}/device", accounts.signing.names().issuer);
    Ok(secret(Device {
        verification_uri_complete: format!("{verification_uri}?user_code={user_code}"),
        verification_uri,
        device_code,
        user_code,
        expires_in,
        interval,
    }))
}

/// Shows which device waits under a code.
///
/// Whoever is to decide looks first: a code that somebody else has sent lets somebody else in.
#[utoipa::path(get, path = "/v1/auth/device/{user_code}", tag = "auth", security(("token" = ["me"])),
    params(("user_code" = String, Path, example = "WDJB-MJHT")),
    responses((status = 200, body = Waiting), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn show(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    Segment(code): Segment,
) -> Result<Json<Waiting>, Fault> {
    let (id, _) = super::person(&signed)?;
    Ok(Json(accounts.waiting_device(id, &code, &origin).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Decide {
    /// As the device shows it.
    #[schema(example = "WDJB-MJHT")]
    user_code: String,
    /// To let a device in: needed by who signed in more than ten minutes ago.
    #[schema(value_type = Option<String>, format = Password, example = "correct horse battery")]
    password: Option<Password>,
}

/// Signs a device in, as oneself.
///
/// Its session works in the tenant of the one in which it was approved. Until the device has come, ending all other sessions,
/// ending one that is not one's own, and another password turn it away.
#[utoipa::path(post, path = "/v1/auth/device/approve", tag = "auth", security(("token" = ["me"])), request_body = Decide,
    responses((status = 204), (status = 403, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn approve(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<StatusCode, Fault> {
    decide(&accounts, &signed, &origin, &body, true).await
}

/// Turns a device away.
#[utoipa::path(post, path = "/v1/auth/device/deny", tag = "auth", security(("token" = ["me"])), request_body = Decide,
    responses((status = 204), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn deny(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<StatusCode, Fault> {
    decide(&accounts, &signed, &origin, &body, false).await
}

async fn decide(
    accounts: &Accounts,
    signed: &SignedIn,
    origin: &Origin,
    body: &Payload,
    approved: bool,
) -> Result<StatusCode, Fault> {
    let Decide { user_code, password } = body.read()?;
    let Holder::Person { auth_time, amr, .. } = &signed.0.holder else { return Err(people_only().into()) };
    let deciding = Deciding {
        person: signed.0.principal.as_str(),
        amr,
        auth_time: *auth_time,
        password,
        tenant: signed.0.tenant.as_ref().map(ToString::to_string),
        approved,
    };
    accounts.decide_device(&user_code, deciding, origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
