//! Invitations: `/v1/tenants/{tenant}/invites` for whoever invites, `/v1/invites` for whoever is invited.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use rest::{Chain, Fault, IdempotencyKey, Origin, Page, Payload, Query, Segment, Segments, SignedIn, documents};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::invalid;
use super::tenants::RoleName;
use super::{FreshPage, inside, person};
use crate::accounts::{Accounts, InviteView, Invited};
use crate::names::Email;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new()
        .routes(routes!(list, invite))
        .routes(routes!(revoke))
        .routes(routes!(accept))
        .routes(routes!(decline))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Invite {
    /// Who: with or without an account.
    #[schema(format = "email", max_length = 254, example = "bob@example.org")]
    email: String,
    /// In which role; none above one's own.
    role: RoleName,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Code {
    /// As the mail says it.
    #[schema(example = "aci_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX")]
    code: String,
}

/// Lists the open invitations of the tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/invites", tag = "tenants", security(("token" = ["tenant:admin"])),
    params(("tenant" = String, Path), FreshPage),
    responses((status = 200, body = Page<InviteView>), (status = 403, body = documents::Problem)))]
async fn list(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(tenant): Segment,
    Query(query): Query<FreshPage>,
) -> Result<Json<Page<InviteView>>, Fault> {
    let tenant = inside(&signed, &tenant)?;
    let (limit, after) = query.read()?;
    accounts.visible(query.at_least.as_deref()).await?;
    let rows = accounts.invites_of(tenant, after, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id.clone())))
}

/// Invites somebody by mail. An earlier invitation to the same address is replaced.
///
/// They accept within a week, with the code in the mail and an account with that address.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/invites", tag = "tenants", security(("token" = ["tenant:admin"])),
    params(("tenant" = String, Path)), request_body = Invite,
    responses((status = 201, body = documents::Answer), (status = 403, body = documents::Problem), (status = 409, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn invite(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(tenant): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (tenant, (by, _)) = (inside(&signed, &tenant)?, person(&signed)?);
    let Invite { email, role } = body.read()?;
    let email = Email::parse(&email).map_err(|error| invalid("/email", error))?;
    let Invited { invite, answer } = accounts.invite(tenant, by, &email, role.into(), key, chain).await?;
    Ok(rest::answer(StatusCode::CREATED, &answer, &[("id", &invite)]))
}

/// Takes an invitation back.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/invites/{invite}", tag = "tenants",
    security(("token" = ["tenant:admin"])), params(("tenant" = String, Path), ("invite" = String, Path)),
    responses((status = 200, body = documents::Answer), (status = 403, body = documents::Problem), (status = 404, body = documents::Problem)))]
async fn revoke(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segments(tenant, invite): Segments,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
) -> Result<Response, Fault> {
    let (tenant, (by, _)) = (inside(&signed, &tenant)?, person(&signed)?);
    let answer = accounts.revoke_invite(tenant, by, &invite, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}

/// Accepts an invitation, signed in with the address that it went to. It works once.
#[utoipa::path(post, path = "/v1/invites/accept", tag = "tenants", security(("token" = ["me"])), request_body = Code,
    responses((status = 200, body = documents::Answer), (status = 403, body = documents::Problem), (status = 404, body = documents::Problem), (status = 410, body = documents::Problem)))]
async fn accept(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (person, _) = person(&signed)?;
    let Code { code } = body.read()?;
    let (tenant, answer) = accounts.accept_invite(person, &code, key, &origin, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[("tenant", tenant.as_str())]))
}

/// Declines an invitation, signed in with the address that it went to.
#[utoipa::path(post, path = "/v1/invites/decline", tag = "tenants", security(("token" = ["me"])), request_body = Code,
    responses((status = 200, body = documents::Answer), (status = 403, body = documents::Problem), (status = 404, body = documents::Problem)))]
async fn decline(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (person, _) = person(&signed)?;
    let Code { code } = body.read()?;
    let answer = accounts.decline_invite(person, &code, key, &origin, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}
