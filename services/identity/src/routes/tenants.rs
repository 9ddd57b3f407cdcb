//! `/v1/tenants`: making tenants, and who belongs to them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use events::tenant::Role;
use projections::tenants::MembershipRow;
use rest::{Chain, Fault, IdempotencyKey, Page, Payload, Query, Segment, Segments, SignedIn, documents};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{FreshPage, inside, person};
use crate::accounts::{Accounts, MemberView, TenantView};

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, rename))
        .routes(routes!(leave))
        .routes(routes!(members))
        .routes(routes!(change_role, remove))
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// What people call it: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", example = "Acme")]
    name: String,
}

/// What a member may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RoleName {
    /// Looks.
    Viewer,
    /// Works.
    Member,
    /// Invites, gives roles below owner, makes keys.
    Admin,
    /// Everything, and the tenant itself.
    Owner,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Member => Self::Member,
            RoleName::Admin => Self::Admin,
            RoleName::Owner => Self::Owner,
        }
    }
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRole {
    role: RoleName,
}

/// Lists the tenants that one belongs to.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", security(("token" = ["me"])), params(FreshPage),
    responses((status = 200, body = Page<MembershipRow>)))]
async fn list(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Query(query): Query<FreshPage>,
) -> Result<Json<Page<MembershipRow>>, Fault> {
    let (person, _) = person(&signed)?;
    let (limit, after) = query.read()?;
    accounts.visible(query.at_least.as_deref()).await?;
    let rows = accounts.tenants_of(person, after, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id.clone())))
}

/// Makes a tenant; whoever asks owns it.
///
/// `POST /v1/auth/tenant` then gives a token for it. The same `Idempotency-Key` again gives the same tenant.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", security(("token" = ["me"])), request_body = Named,
    responses((status = 201, body = documents::Answer), (status = 422, body = documents::Problem)))]
async fn create(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (person, _) = person(&signed)?;
    let Named { name } = body.read()?;
    let (tenant, answer) = accounts.create_tenant(person, &name, key, chain).await?;
    Ok(rest::answer(StatusCode::CREATED, &answer, &[("id", tenant.as_str())]))
}

/// Shows the tenant that one works in.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants", security(("token" = ["tenant:read"])),
    params(("tenant" = String, Path)),
    responses((status = 200, body = TenantView), (status = 403, body = documents::Problem)))]
async fn show(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(tenant): Segment,
) -> Result<Json<TenantView>, Fault> {
    let tenant = inside(&signed, &tenant)?;
    Ok(Json(accounts.tenant_view(tenant).await?))
}

/// Renames the tenant.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", tag = "tenants", security(("token" = ["tenant:admin"])),
    params(("tenant" = String, Path)), request_body = Named,
    responses((status = 200, body = documents::Answer), (status = 403, body = documents::Problem), (status = 422, body = documents::Problem)))]
async fn rename(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(tenant): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (tenant, (person, _)) = (inside(&signed, &tenant)?, person(&signed)?);
    let named: Named = body.read()?;
    let answer = accounts.change_tenant(tenant, "rename", &json!(named), person, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}

/// Leaves a tenant, whichever one works in. Its last owner cannot.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/leave", tag = "tenants", security(("token" = ["me"])),
    params(("tenant" = String, Path)),
    responses((status = 200, body = documents::Answer), (status = 403, body = documents::Problem), (status = 409, body = documents::Problem)))]
async fn leave(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(tenant): Segment,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (person, _) = person(&signed)?;
    super::nothing(&body)?;
    let answer = accounts.leave_tenant(&tenant, person, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}

/// Lists the members of the tenant. Admins see addresses, too.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/members", tag = "tenants", security(("token" = ["tenant:read"])),
    params(("tenant" = String, Path), FreshPage),
    responses((status = 200, body = Page<MemberView>), (status = 403, body = documents::Problem)))]
async fn members(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segment(tenant): Segment,
    Query(query): Query<FreshPage>,
) -> Result<Json<Page<MemberView>>, Fault> {
    let tenant = inside(&signed, &tenant)?;
    let (limit, after) = query.read()?;
    accounts.visible(query.at_least.as_deref()).await?;
    let addresses = signed.0.check("tenant:admin").is_ok();
    let rows = accounts.members(tenant, addresses, after, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.person.clone())))
}

/// Gives a member another role: none above one's own, and none to somebody above.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/members/{person}", tag = "tenants",
    security(("token" = ["tenant:admin"])), params(("tenant" = String, Path), ("person" = String, Path)),
    request_body = NewRole,
    responses((status = 200, body = documents::Answer), (status = 403, body = documents::Problem), (status = 404, body = documents::Problem), (status = 409, body = documents::Problem)))]
async fn change_role(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segments(tenant, member): Segments,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
    body: Payload,
) -> Result<Response, Fault> {
    let (tenant, (by, _)) = (inside(&signed, &tenant)?, person(&signed)?);
    let NewRole { role } = body.read()?;
    let change = json!({ "person": member, "role": role });
    let answer = accounts.change_tenant(tenant, "change-role", &change, by, key, chain).await?;
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}

/// Ends somebody's membership.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/members/{person}", tag = "tenants",
    security(("token" = ["tenant:admin"])), params(("tenant" = String, Path), ("person" = String, Path)),
    responses((status = 200, body = documents::Answer), (status = 403, body = documents::Problem), (status = 404, body = documents::Problem), (status = 409, body = documents::Problem)))]
async fn remove(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    Segments(tenant, member): Segments,
    IdempotencyKey(key): IdempotencyKey,
    chain: Chain,
) -> Result<Response, Fault> {
    let (tenant, (by, _)) = (inside(&signed, &tenant)?, person(&signed)?);
    let change: Value = json!({ "person": member });
    let answer = accounts.change_tenant(tenant, "remove", &change, by, key, chain).await?;
    if answer.events.is_empty() {
        return Err(kernel::Problem::new(404, "unknown_member", "There is no such member.").into());
    }
    Ok(rest::answer(StatusCode::OK, &answer, &[]))
}
