//! `/v1/me`: what concerns whoever asks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kernel::Timestamp;
use rest::{Fault, Holder, Level, Origin, Page, Payload, Segment, SignedIn, documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Next, check_name, invalid};
use super::{person, proof};
use crate::accounts::{Accounts, Me, ProfileEdit, SessionView};
use crate::names::{Email, Invalid, Username};
use crate::password::Password;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new()
        .routes(routes!(show, edit))
        .routes(routes!(change_email))
        .routes(routes!(sessions, revoke_all))
        .routes(routes!(revoke))
        .routes(routes!(who_am_i))
}

/// Shows one's own profile.
#[utoipa::path(get, path = "/v1/me", tag = "me", security(("token" = ["me"])), responses((status = 200, body = Me)))]
async fn show(State(accounts): State<Accounts>, signed: SignedIn) -> Result<Json<Me>, Fault> {
    let (id, _) = person(&signed)?;
    Ok(Json(accounts.profile(id).await?))
}

/// What is to be changed; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Edit {
    /// A name to log in by: 3 to 32 ASCII letters, digits, and single `.`, `-`, `_` between them.
    #[schema(min_length = 3, max_length = 32, pattern = "^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$", example = "ann")]
    username: Option<String>,
    /// What they are called; an empty text takes it away.
    #[schema(max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", example = "Ann Bee")]
    name: Option<String>,
    /// Their language (BCP 47), such as `en` or `de-AT`; an empty text takes it away.
    #[schema(max_length = 35, pattern = "^([A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*)?$", example = "en")]
    locale: Option<String>,
}

fn is_locale(text: &str) -> bool {
    let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.is_empty() || (text.len() <= 35 && text.split('-').all(part))
}

/// Changes one's own profile.
#[utoipa::path(patch, path = "/v1/me", tag = "me", security(("token" = ["me"])), request_body = Edit,
    responses((status = 200, body = Me), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem)))]
async fn edit(State(accounts): State<Accounts>, signed: SignedIn, body: Payload) -> Result<Json<Me>, Fault> {
    let (id, _) = person(&signed)?;
    let Edit { username, name, locale } = body.read()?;
    check_name(name.as_deref())?;
    if !locale.as_deref().is_none_or(is_locale) {
        return Err(invalid("/locale", Invalid("This is not a language tag, such as `en` or `de-AT`.")).into());
    }
    let username = match username {
        Some(text) => Some(Username::parse(&text).map_err(|error| invalid("/username", error))?),
        None => None,
    };
    Ok(Json(accounts.edit(id, ProfileEdit { username, name, locale }).await?))
}

/// Another address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeEmail {
    #[schema(format = "email", max_length = 254, example = "ann@example.com")]
    email: String,
    /// The password of now; who has none needs to have signed in within ten minutes.
    #[schema(value_type = Option<String>, format = Password, example = "correct horse battery")]
    password: Option<Password>,
}

/// Begins to change one's own address.
///
/// A code is sent to the new one; `POST /v1/auth/verify-email` with it makes the change. The old one hears of it at once.
#[utoipa::path(post, path = "/v1/me/email", tag = "me", security(("token" = ["me"])), request_body = ChangeEmail,
    responses((status = 202, body = Next), (status = 403, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn change_email(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<(StatusCode, Json<Next>), Fault> {
    let (id, _) = person(&signed)?;
    let ChangeEmail { email, password } = body.read()?;
    let email = Email::parse(&email).map_err(|error| invalid("/email", error))?;
    accounts.change_email(id, &email, proof(&signed, password)?, &origin).await?;
    let detail = "Look into the mail of the new address: it says how to go on.";
    Ok((StatusCode::ACCEPTED, Json(Next { status: "confirm_email", detail })))
}

/// Lists the sessions that go on, the newest first.
#[utoipa::path(get, path = "/v1/me/sessions", tag = "me", security(("token" = ["me"])),
    responses((status = 200, body = Page<SessionView>)))]
async fn sessions(State(accounts): State<Accounts>, signed: SignedIn) -> Result<Json<Page<SessionView>>, Fault> {
    let (id, session) = person(&signed)?;
    let items = accounts.sessions_of(id, session).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

/// How many sessions have ended.
#[derive(Serialize, ToSchema)]
struct Ended {
    /// How many.
    #[schema(example = 2)]
    ended: usize,
}

/// Ends all other sessions.
#[utoipa::path(delete, path = "/v1/me/sessions", tag = "me", security(("token" = ["me"])),
    responses((status = 200, body = Ended)))]
async fn revoke_all(State(accounts): State<Accounts>, signed: SignedIn) -> Result<Json<Ended>, Fault> {
    let (id, session) = person(&signed)?;
    Ok(Json(Ended { ended: accounts.revoke_all(id, Some(session)).await? }))
}

/// Ends a session, one's own or another.
#[utoipa::path(delete, path = "/v1/me/sessions/{id}", tag = "me", security(("token" = ["me"])),
    params(("id" = String, Path)), responses((status = 204), (status = 404, body = documents::Problem)))]
async fn revoke(State(accounts): State<Accounts>, signed: SignedIn, Segment(id): Segment) -> Result<StatusCode, Fault> {
    let (me, _) = person(&signed)?;
    accounts.revoke(me, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whoever asks.
#[derive(Serialize, ToSchema)]
struct Whoami {
    /// A person, a program's key, or a development stack's own.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    principal: String,
    /// `person`, `program` or `development`.
    #[schema(example = "person")]
    kind: &'static str,
    /// The tenant that is worked in.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    tenant: Option<String>,
    /// What may be done there: `read`, `write`, `admin` or `own`; each includes the ones before.
    #[schema(example = "own")]
    level: Option<&'static str>,
    /// Scopes that narrow it; null: everything that the level allows.
    #[schema(example = json!(null))]
    scopes: Option<Vec<String>>,
    /// Whether the caller runs the platform.
    operator: bool,
    /// When the token ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Of a person: their address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ann@example.org")]
    email: Option<String>,
    /// And the name to log in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ann")]
    username: Option<String>,
    /// And what they are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Ann Bee")]
    name: Option<String>,
}

/// Shows whom the server takes the caller for, and what it may do.
#[utoipa::path(get, path = "/v1/whoami", tag = "me", security(("token" = ["anybody"])),
    responses((status = 200, body = Whoami)))]
async fn who_am_i(State(accounts): State<Accounts>, SignedIn(signed): SignedIn) -> Result<Json<Whoami>, Fault> {
    let (kind, me) = match &signed.holder {
        Holder::Person { .. } => ("person", Some(accounts.profile(signed.principal.as_str()).await?)),
        Holder::Program => ("program", None),
        Holder::Development => ("development", None),
    };
    let (email, username, name) = me.map(|me| (me.email, me.username, me.name)).unwrap_or_default();
    Ok(Json(Whoami {
        principal: signed.principal.to_string(),
        kind,
        tenant: signed.tenant.as_ref().map(ToString::to_string),
        level: signed.level.map(Level::as_str),
        scopes: signed.scopes.as_ref().map(|scopes| scopes.iter().cloned().collect()),
        operator: signed.operator,
        expires_at: signed.expires_at,
        email,
        username,
        name,
    }))
}
