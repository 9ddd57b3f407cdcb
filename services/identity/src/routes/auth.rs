//! `/v1/auth`: registering, signing in, going on, signing out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kernel::{FieldError, Problem};
use rest::{Fault, Fields, IdempotencyKey, Origin, Payload, SignedIn, documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Secret, person, secret};
use crate::accounts::{Accounts, Credential, LoggedIn, Me, Registration};
use crate::names::{Email, Invalid, Login, Username};
use crate::password::Password;
use crate::token::LIFETIME_SECONDS;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(verify_email))
        .routes(routes!(resend))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(choose_tenant))
}

/// A part of a body that is not what it should be.
pub(super) fn invalid(pointer: &str, invalid: Invalid) -> Problem {
    Problem::invalid(vec![FieldError { pointer: pointer.to_owned(), detail: invalid.0.to_owned() }])
}

/// Longest name of a person, in characters.
pub(super) const MAX_NAME_CHARS: usize = 100;

pub(super) fn check_name(name: Option<&str>) -> Result<(), Problem> {
    let fits = |name: &str| name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
    match name.is_none_or(fits) {
        true => Ok(()),
        false => Err(invalid("/name", Invalid("A name has at most 100 characters, and no control characters."))),
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Register {
    #[schema(format = "email", max_length = 254, example = "ann@example.org")]
    email: String,
    /// A name to log in by: 3 to 32 ASCII letters, digits, and single `.`, `-`, `_` between them.
    #[schema(min_length = 3, max_length = 32, pattern = "^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$", example = "ann")]
    username: Option<String>,
    /// At least 8 characters, and nothing that everybody tries first.
    #[schema(value_type = String, min_length = 8, max_length = 1024, format = Password, example = "correct horse battery")]
    password: Password,
    /// What they are called.
    #[schema(max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", example = "Ann Bee")]
    name: Option<String>,
}

/// What happens next.
#[derive(Serialize, ToSchema)]
pub(super) struct Next {
    /// `confirm_email`, `look_into_mail` or `done`.
    #[schema(example = "confirm_email")]
    pub(super) status: &'static str,
    /// A sentence for people.
    #[schema(example = "Look into your mail: it says how to go on.")]
    pub(super) detail: &'static str,
}

/// Registers a person.
///
/// The answer is the same whether or not the address has an account: its owner learns by mail which of both it was. If somebody
/// has registered with the address before and not confirmed it, the mail has a code to choose the password anew.
#[utoipa::path(post, path = "/v1/auth/register", tag = "auth", security(()), request_body = Register,
    responses((status = 202, body = Next), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn register(
    State(accounts): State<Accounts>,
    origin: Origin,
    IdempotencyKey(key): IdempotencyKey,
    body: Payload,
) -> Result<(StatusCode, Json<Next>), Fault> {
    let Register { email, username, password, name } = body.read()?;
    check_name(name.as_deref())?;
    let wanted = Registration {
        email: Email::parse(&email).map_err(|error| invalid("/email", error))?,
        username: match username {
            Some(text) => Some(Username::parse(&text).map_err(|error| invalid("/username", error))?),
            None => None,
        },
        password,
        name,
        key,
    };
    accounts.register(wanted, &origin).await?;
    let detail = "Look into your mail: it says how to go on.";
    Ok((StatusCode::ACCEPTED, Json(Next { status: "confirm_email", detail })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Code {
    /// As the mail says it.
    #[schema(example = "aco_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX")]
    code: String,
}

/// Confirms an e-mail address.
#[utoipa::path(post, path = "/v1/auth/verify-email", tag = "auth", security(()), request_body = Code,
    responses((status = 200, body = Next), (status = 422, body = documents::Problem)))]
async fn verify_email(State(accounts): State<Accounts>, origin: Origin, body: Payload) -> Result<Json<Next>, Fault> {
    let Code { code } = body.read()?;
    accounts.confirm_email(&code, &origin).await?;
    Ok(Json(Next { status: "done", detail: "The address is confirmed: log in." }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Address {
    #[schema(format = "email", max_length = 254, example = "ann@example.org")]
    email: String,
}

/// Sends another mail to an address that nobody has confirmed yet.
///
/// Its code is one for `POST /v1/auth/password/reset`, which confirms the address as well; the code of the first mail does not
/// work any more. Whoever reads the mail may be somebody else than who registered and chose the password.
#[utoipa::path(post, path = "/v1/auth/verify-email/resend", tag = "auth", security(()), request_body = Address,
    responses((status = 202, body = Next), (status = 422, body = documents::Problem)))]
async fn resend(
    State(accounts): State<Accounts>,
    origin: Origin,
    body: Payload,
) -> Result<(StatusCode, Json<Next>), Fault> {
    let Address { email } = body.read()?;
    let email = Email::parse(&email).map_err(|error| invalid("/email", error))?;
    accounts.resend_confirmation(&email, &origin).await?;
    let detail = "If this address waits for a confirmation, a mail is on its way.";
    Ok((StatusCode::ACCEPTED, Json(Next { status: "confirm_email", detail })))
}

/// Who, by any of three names, and how they show it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "login": "ann@example.org", "password": "correct horse battery" }))]
struct LogIn {
    /// E-mail address or username.
    #[schema(example = "ann@example.org")]
    login: Option<String>,
    /// The same under another name.
    email: Option<String>,
    /// The same under another name.
    username: Option<String>,
    #[schema(value_type = String, format = Password, example = "correct horse battery")]
    password: Password,
    /// The code of the authenticator, where one is asked for.
    totp: Option<String>,
    /// A recovery code in its place.
    recovery_code: Option<String>,
    /// The tenant to work in; without it, the only one that they belong to.
    tenant: Option<String>,
}

/// Somebody is signed in.
#[derive(Serialize, ToSchema)]
pub(super) struct Tokens {
    /// Send it as `Authorization: Bearer …`.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2ln")]
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds that the access token lasts.
    #[schema(example = 600)]
    expires_in: i64,
    /// For the next tokens; works once.
    #[schema(example = "art_AQGaofDD1H4rmgscLT5PWmsAAAAAAAAAAA")]
    refresh_token: String,
    /// The tenant that is worked in.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    tenant: Option<String>,
    user: Me,
}

impl From<LoggedIn> for Tokens {
    fn from(logged_in: LoggedIn) -> Self {
        let LoggedIn { access_token, refresh_token, expires_in, tenant, user } = logged_in;
        Self { access_token, token_type: "Bearer", expires_in, refresh_token, tenant, user }
    }
}

/// Signs in.
///
/// A wrong login and a wrong password have one answer: 401 `invalid_credentials`. 401 `second_factor_required` comes after
/// the right password only.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", security(()), request_body = LogIn,
    responses((status = 200, body = Tokens), (status = 401, body = documents::Problem), (status = 403, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn login(State(accounts): State<Accounts>, origin: Origin, body: Payload) -> Result<Secret<Tokens>, Fault> {
    let LogIn { login, email, username, password, totp, recovery_code, tenant } = body.read()?;
    let mut given = [login, email, username].into_iter().flatten();
    let (Some(text), None) = (given.next(), given.next()) else {
        let detail = "Say who you are once: `login` (e-mail address or username), or `email`, or `username`.";
        return Err(
            Problem::invalid(vec![FieldError { pointer: "/login".to_owned(), detail: detail.to_owned() }]).into()
        );
    };
    // Whatever cannot be anybody's login is a wrong one.
    let login = Login::parse(&text).ok();
    let credential = Credential { login, password, totp, recovery: recovery_code, tenant };
    Ok(secret(accounts.log_in(credential, &origin).await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefreshToken {
    #[schema(example = "art_AQGaofDD1H4rmgscLT5PWmsAAAAAAAAAAA")]
    refresh_token: String,
}

/// Gives out the next tokens.
///
/// Each refresh token works once; the one before it gets the same answer for ten seconds more, in case an answer was lost.
/// Later it ends the session: somebody has what is not theirs.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", security(()), request_body = RefreshToken,
    responses((status = 200, body = Tokens), (status = 401, body = documents::Problem)))]
async fn refresh(State(accounts): State<Accounts>, origin: Origin, body: Payload) -> Result<Secret<Tokens>, Fault> {
    let RefreshToken { refresh_token } = body.read()?;
    Ok(secret(accounts.refresh(&refresh_token, &origin).await?.into()))
}

/// A refresh token, or what OAuth calls a token: of either kind.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({ "refresh_token": "art_AQGaofDD1H4rmgscLT5PWmsAAAAAAAAAAA" }))]
struct LogOut {
    #[schema(example = "art_AQGaofDD1H4rmgscLT5PWmsAAAAAAAAAAA")]
    refresh_token: Option<String>,
    /// The same under the name that OAuth has for it; an access token will do.
    token: Option<String>,
}

/// Ends a session.
///
/// Also as a form, as OAuth revokes tokens (RFC 7009). A token that is none ends nothing, and nobody is told.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", security(()),
    request_body(content((LogOut = "application/json"), (LogOut = "application/x-www-form-urlencoded"))),
    responses((status = 204), (status = 422, body = documents::Problem)))]
async fn logout(State(accounts): State<Accounts>, body: Fields) -> Result<StatusCode, Fault> {
    let LogOut { refresh_token, token } = body.read()?;
    let Some(token) = refresh_token.or(token) else {
        return Err(invalid("/refresh_token", Invalid("Say which token.")).into());
    };
    accounts.log_out(&token).await?;
    // RFC 7009, 2.2 says 200, and nothing to read.
    Ok(if body.is_form() { StatusCode::OK } else { StatusCode::NO_CONTENT })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChooseTenant {
    /// The tenant to work in; null: none.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    tenant: Option<String>,
}

/// An access token for another tenant.
#[derive(Serialize, ToSchema)]
struct AccessToken {
    /// Send it as `Authorization: Bearer …`.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2ln")]
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds that it lasts.
    #[schema(example = 600)]
    expires_in: i64,
    /// The tenant that is worked in.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    tenant: Option<String>,
}

/// Chooses the tenant to work in.
///
/// Earlier access tokens of the session go on in their tenant until they end.
#[utoipa::path(post, path = "/v1/auth/tenant", tag = "auth", security(("token" = ["me"])), request_body = ChooseTenant,
    responses((status = 200, body = AccessToken), (status = 403, body = documents::Problem)))]
async fn choose_tenant(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    body: Payload,
) -> Result<Json<AccessToken>, Fault> {
    let (id, session) = person(&signed)?;
    let ChooseTenant { tenant } = body.read()?;
    let access_token = accounts.choose_tenant(id, session, tenant.as_deref()).await?;
    Ok(Json(AccessToken { access_token, token_type: "Bearer", expires_in: LIFETIME_SECONDS, tenant }))
}
