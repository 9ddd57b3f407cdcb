//! `/v1/auth/totp`: a second factor.

use axum::extract::State;
use axum::http::StatusCode;
use rest::{Fault, Origin, Payload, SignedIn, documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Secret, person, proof, secret};
use crate::accounts::Accounts;
use crate::password::Password;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new()
        .routes(routes!(set_up))
        .routes(routes!(enable))
        .routes(routes!(disable))
        .routes(routes!(recovery_codes))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetUp {
    /// Who has none needs to have signed in within ten minutes.
    #[schema(value_type = Option<String>, format = Password, example = "correct horse battery")]
    password: Option<Password>,
}

/// An authenticator that is being set up.
#[derive(Serialize, ToSchema)]
struct Setup {
    /// To be typed into an authenticator.
    #[schema(example = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")]
    secret: String,
    /// To be shown as a QR code.
    #[schema(
        example = "otpauth://totp/Airstream:ann%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Airstream&algorithm=SHA1&digits=6&period=30"
    )]
    otpauth_uri: String,
}

/// Begins to set up an authenticator.
///
/// Nothing is asked for until `POST /v1/auth/totp/enable` has had a code of it. Beginning again makes another secret.
#[utoipa::path(post, path = "/v1/auth/totp/setup", tag = "auth", security(("token" = ["me"])), request_body = SetUp,
    responses((status = 200, body = Setup), (status = 403, body = documents::Problem), (status = 409, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn set_up(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<Secret<Setup>, Fault> {
    let (id, _) = person(&signed)?;
    let SetUp { password } = body.read()?;
    let setup = accounts.set_up_totp(id, proof(&signed, password)?, &origin).await?;
    Ok(secret(Setup { secret: setup.secret, otpauth_uri: setup.uri }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Code {
    /// As the authenticator shows it.
    #[schema(pattern = "^[0-9]{6}$", example = "081804")]
    code: String,
}

/// What lets its owner in when the authenticator is lost. They are shown once.
#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    /// Each works once, in place of a code of the authenticator.
    #[schema(example = json!(["k7mqa-x2bfe", "c4n3d-qwz6m"]))]
    recovery_codes: Vec<String>,
}

/// Asks for codes of the authenticator from now on.
#[utoipa::path(post, path = "/v1/auth/totp/enable", tag = "auth", security(("token" = ["me"])), request_body = Code,
    responses((status = 200, body = RecoveryCodes), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn enable(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<Secret<RecoveryCodes>, Fault> {
    let (id, _) = person(&signed)?;
    let Code { code } = body.read()?;
    Ok(secret(RecoveryCodes { recovery_codes: accounts.enable_totp(id, &code, &origin).await? }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Disable {
    /// Who has none needs to have signed in within ten minutes.
    #[schema(value_type = Option<String>, format = Password, example = "correct horse battery")]
    password: Option<Password>,
    /// As the authenticator shows it, or a recovery code.
    #[schema(example = "081804")]
    code: String,
}

/// Asks for no second factor from now on.
#[utoipa::path(post, path = "/v1/auth/totp/disable", tag = "auth", security(("token" = ["me"])), request_body = Disable,
    responses((status = 204), (status = 403, body = documents::Problem), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn disable(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<StatusCode, Fault> {
    let (id, _) = person(&signed)?;
    let Disable { password, code } = body.read()?;
    accounts.disable_totp(id, proof(&signed, password)?, &code, &origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives out other recovery codes.
#[utoipa::path(post, path = "/v1/auth/totp/recovery-codes", tag = "auth", security(("token" = ["me"])), request_body = Code,
    responses((status = 200, body = RecoveryCodes), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn recovery_codes(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<Secret<RecoveryCodes>, Fault> {
    let (id, _) = person(&signed)?;
    let Code { code } = body.read()?;
    Ok(secret(RecoveryCodes { recovery_codes: accounts.renew_recovery_codes(id, &code, &origin).await? }))
}
