//! `/v1/api-keys`: what programs sign in with.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kernel::{FieldError, Problem, TenantId};
use rest::{Chain, Fault, IdempotencyKey, Page, PageQuery, Payload, Query, Segment, Signed, SignedIn, documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::person;
use crate::accounts::{Accounts, KeyView, MAX_EXPIRES_DAYS, MAX_OVERLAP_SECONDS, MadeKey, NewKey};

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new().routes(routes!(list, make)).routes(routes!(show, revoke)).routes(routes!(rotate))
}

const EXPIRES_DAYS: u32 = 90;
const OVERLAP_SECONDS: u32 = 86_400;
const MAX_NAME_CHARS: usize = 100;
const MAX_SCOPES: usize = 50;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Make {
    /// What it is for: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", example = "nightly import")]
    name: String,
    /// What it may do: `<resource>:<read|write|admin|own>`, where `*` stands for every resource. No level above one's own.
    #[schema(min_items = 1, max_items = 50, example = json!(["runs:write", "events:read"]))]
    scopes: BTreeSet<String>,
    /// After how many days it expires: 1 to 365.
    #[schema(default = 90, minimum = 1, maximum = 365)]
    expires_in_days: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// For how many seconds the secret until now goes on: 0 to 604800.
    #[schema(default = 86400, maximum = 604_800)]
    overlap_seconds: Option<u32>,
    /// After how many days the new secret expires: 1 to 365.
    #[schema(default = 90, minimum = 1, maximum = 365)]
    expires_in_days: Option<u32>,
}

/// A key with its secret.
#[derive(Serialize, ToSchema)]
struct Secret {
    /// The key.
    #[schema(example = "key_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    id: String,
    /// Send it as `Authorization: Bearer …`. It is shown this once.
    #[schema(example = "ask_4fQ7hB2x0Zk1mN3pR5tV7wY9aC2eG4iK6oQ8sU0bD1fH3jLm0P9")]
    secret: String,
    /// When the secret expires.
    #[schema(example = "2027-02-18T09:00:00Z")]
    expires_at: String,
}

fn wrong(pointer: &str, detail: String) -> FieldError {
    FieldError { pointer: pointer.to_owned(), detail }
}

/// Days until a secret expires.
fn days(given: Option<u32>, errors: &mut Vec<FieldError>) -> u32 {
    let days = given.unwrap_or(EXPIRES_DAYS);
    if !(1..=MAX_EXPIRES_DAYS).contains(&days) {
        errors.push(wrong("/expires_in_days", format!("A key lasts 1 to {MAX_EXPIRES_DAYS} days.")));
    }
    days
}

/// Checks what a key is to be; no more than whoever makes it may do.
fn check(make: Make, maker: &Signed) -> Result<NewKey, Problem> {
    let mut errors = Vec::new();
    let name = make.name.trim().to_owned();
    if !(1..=MAX_NAME_CHARS).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        let detail = "A key's name has 1 to 100 characters, and no control characters.";
        errors.push(wrong("/name", detail.to_owned()));
    }
    if !(1..=MAX_SCOPES).contains(&make.scopes.len()) {
        errors.push(wrong("/scopes", format!("A key has 1 to {MAX_SCOPES} scopes.")));
    }
    for (n, scope) in make.scopes.iter().enumerate() {
        match rest::level_of(scope) {
            None => {
                let detail = format!(
                    "There is no such scope: one is `<resource>:<read|write|admin|own>`, where the resource is `*` or one of {}.",
                    rest::RESOURCES.join(", ")
                );
                errors.push(wrong(&format!("/scopes/{n}"), detail));
            }
            Some(level) if maker.level < Some(level) => {
                let detail = format!("`{scope}` is more than your own role includes.");
                return Err(Problem::new(403, "role_too_low", detail));
            }
            Some(_) => {}
        }
    }
    let expires_days = days(make.expires_in_days, &mut errors);
    match errors.is_empty() {
        true => Ok(NewKey { name, scopes: make.scopes, expires_days }),
        false => Err(Problem::invalid(errors)),
    }
}

/// Whose keys these are.
fn tenant(signed: &SignedIn) -> Result<TenantId, Fault> {
    Ok(signed.0.caller()?.tenant)
}

fn shown(status: StatusCode, made: &MadeKey) -> Response {
    let MadeKey { key, secret, expires_at, answer } = made;
    let expires_at = expires_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let mut response =
        rest::answer(status, answer, &[("id", key), ("secret", secret.reveal()), ("expires_at", &expires_at)]);
    response.headers_mut().insert(axum::http::header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
}

/// Lists the tenant's keys that have not been revoked.
#[utoipa::path(get, path = "/v1/api-keys", tag = "api-keys", security(("token" = ["keys:admin"])), params(PageQuery),
    responses((status = 200, body = Page<KeyView>)))]
async fn list(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<KeyView>>, Fault> {
    let limit = query.limit()?;
    let after = super::after(query.cursor.as_deref())?;
    let rows = accounts.keys_of(&tenant(&signed)?, after, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id.clone())))
}

/// Makes a key for a program. Its secret is in this answer, and nowhere else.
///
/// It acts for whoever makes it, as far as they may, and ends when they leave. The same `Idempotency-Key` again, within a day,
/// gives the same key with its secret, should this answer be lost.
#[utoipa::path(post, path = "/v1/api-keys", tag = "api-keys", security(("token" = ["keys:admin"])), request_body = Make,
    responses((status = 201, body = Secret), (status = 403, body = documents::Problem), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem)))]
async fn make(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    // A key that makes keys would outlive its own end.
    let (tenant, (person, _)) = (tenant(&signed)?, person(&signed)?);
    let wanted = check(body.read()?, &signed.0)?;
    let made = accounts.make_key(&tenant, person, wanted, key, chain).await?;
    Ok(shown(StatusCode::CREATED, &made))
}

/// Shows a key.
#[utoipa::path(get, path = "/v1/api-keys/{id}", tag = "api-keys", security(("token" = ["keys:admin"])),
    params(("id" = String, Path)), responses((status = 200, body = KeyView), (status = 404, body = documents::Problem)))]
async fn show(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(id): Segment,
) -> Result<Json<KeyView>, Fault> {
    Ok(Json(accounts.key_of(&tenant(&signed)?, &id).await?))
}

/// Gives one's own key a new secret; the one until now goes on for a while.
#[utoipa::path(post, path = "/v1/api-keys/{id}/rotate", tag = "api-keys", security(("token" = ["keys:admin"])),
    params(("id" = String, Path)), request_body = Rotate,
    responses((status = 200, body = Secret), (status = 403, body = documents::Problem), (status = 404, body = documents::Problem), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem)))]
async fn rotate(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(id): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (tenant, (person, _)) = (tenant(&signed)?, person(&signed)?);
    let Rotate { overlap_seconds, expires_in_days } = body.read()?;
    let mut errors = Vec::new();
    let days = days(expires_in_days, &mut errors);
    let overlap = overlap_seconds.unwrap_or(OVERLAP_SECONDS);
    if overlap > MAX_OVERLAP_SECONDS {
        errors.push(wrong("/overlap_seconds", format!("At most {MAX_OVERLAP_SECONDS}, a week.")));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors).into());
    }
    let made = accounts.rotate_key(&tenant, person, &id, (days, overlap), key, chain).await?;
    Ok(shown(StatusCode::OK, &made))
}

/// Revokes a key, at once and for good.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "api-keys", security(("token" = ["keys:admin"])),
    params(("id" = String, Path)), responses((status = 200, body = documents::Answer), (status = 404, body = documents::Problem)))]
async fn revoke(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(id): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
) -> Result<Response, Fault> {
    let by = signed.0.principal.as_str();
    let answer = accounts.revoke_key(&tenant(&signed)?, by, &id, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}
