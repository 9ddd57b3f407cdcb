//! `/v1/auth/password` and `/v1/me/password`: another password.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rest::{Fault, Origin, Payload, SignedIn, documents};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Next, invalid};
use super::person;
use crate::accounts::Accounts;
use crate::names::Email;
use crate::password::Password;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(forgot)).routes(routes!(reset)).routes(routes!(change))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Forgot {
    #[schema(format = "email", max_length = 254, example = "ann@example.org")]
    email: String,
}

/// Asks for another password.
///
/// The answer is the same whether or not the address has an account. The mail has a code that works once, for half an hour.
#[utoipa::path(post, path = "/v1/auth/password/forgot", tag = "auth", security(()), request_body = Forgot,
    responses((status = 202, body = Next), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn forgot(
    State(accounts): State<Accounts>,
    origin: Origin,
    body: Payload,
) -> Result<(StatusCode, Json<Next>), Fault> {
    let Forgot { email } = body.read()?;
    let email = Email::parse(&email).map_err(|error| invalid("/email", error))?;
    accounts.forgot_password(&email, &origin).await?;
    let detail = "If this address has an account, a mail with a code is on its way.";
    Ok((StatusCode::ACCEPTED, Json(Next { status: "look_into_mail", detail })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reset {
    /// As the mail says it.
    #[schema(example = "apw_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX")]
    code: String,
    /// The new one.
    #[schema(value_type = String, min_length = 8, max_length = 1024, format = Password, example = "correct horse battery")]
    password: Password,
}

/// Sets another password by a code.
///
/// All sessions end. It does not sign in: a second factor is still asked for at the next login.
#[utoipa::path(post, path = "/v1/auth/password/reset", tag = "auth", security(()), request_body = Reset,
    responses((status = 200, body = Next), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn reset(State(accounts): State<Accounts>, origin: Origin, body: Payload) -> Result<Json<Next>, Fault> {
    let Reset { code, password } = body.read()?;
    accounts.reset_password(&code, password, &origin).await?;
    Ok(Json(Next { status: "done", detail: "The password is set, and all sessions have ended: log in." }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    /// The one of now.
    #[schema(value_type = String, format = Password, example = "correct horse battery")]
    current: Password,
    /// The new one.
    #[schema(value_type = String, min_length = 8, max_length = 1024, format = Password, example = "staple my caravan twice")]
    new: Password,
}

/// Changes one's own password.
///
/// The session that asks goes on; all others end.
#[utoipa::path(post, path = "/v1/me/password", tag = "me", security(("token" = ["me"])), request_body = Change,
    responses((status = 204), (status = 403, body = documents::Problem), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn change(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<StatusCode, Fault> {
    let (id, session) = person(&signed)?;
    let Change { current, new } = body.read()?;
    accounts.change_password(id, session, current, new, &origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
