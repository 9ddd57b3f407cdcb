//! `/v1/audit`, and what `/v1/me` has to say about oneself: one's history, one's data, one's end.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use kernel::{Cursor, FieldError, Problem, Timestamp};
use projections::audit::{Verified, Wanted};
use rest::{Caller, Fault, IdempotencyKey, Origin, Page, PageQuery, Payload, Query, Segment, SignedIn, documents};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{nothing, person, proof, to_the_end};
use crate::password::Password;
use crate::privacy::{Erasing, ExportView, Farewell, Happened, Privacy, Seen};

/// The routes, to be mounted behind the gateway.
pub fn router(privacy: Privacy) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(audit))
        .routes(routes!(verify))
        .routes(routes!(history))
        .routes(routes!(request_export))
        .routes(routes!(show_export))
        .routes(routes!(download))
        .routes(routes!(erase))
        .route_layer(from_fn(to_the_end::changes))
        .with_state(privacy)
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only what this one did: the id of a person or a key.
    actor: Option<String>,
    /// Only this, such as `tenant.role_changed`.
    action: Option<String>,
    /// Only from then on (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Only before then (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Items per page: 1 to 500.
    #[param(default = 50)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// A position from an earlier answer: answer only once it is visible.
    at_least: Option<String>,
}

fn cursor(text: Option<&str>) -> Result<Option<Cursor>, Fault> {
    Ok(text.map(str::parse).transpose()?)
}

/// Lists who did what in the tenant, the newest first.
///
/// What members do about their accounts is in it as far as it concerns the tenant: that they signed in and how, never where
/// they were. Each row has a link in a chain of hashes: `hash = SHA-256(hash before ‖ SHA-256(canonical JSON of the row))`.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", security(("token" = ["audit:admin"])), params(AuditQuery),
    responses((status = 200, body = Page<Seen>)))]
async fn audit(
    State(privacy): State<Privacy>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<Seen>>, Fault> {
    let AuditQuery { actor, action, since, until, limit, cursor: at, at_least } = query;
    let limit = PageQuery { limit, cursor: None }.limit()?;
    for (name, text) in [("actor", &actor), ("action", &action)] {
        if let Some(text) = text {
            rest::name(name, text)?;
        }
    }
    let wanted = Wanted { actor, action, since, until, before: cursor(at.as_deref())? };
    privacy.audit_visible(at_least.as_deref()).await?;
    let rows = privacy.audit(&caller.tenant, &wanted, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.position.clone())))
}

/// Compares the tenant's audit with itself and with the log.
///
/// A row that somebody has changed, removed or added by hand is found, the last one as well. Whoever keeps `head` elsewhere can
/// tell later that nothing before it has changed, without believing us.
#[utoipa::path(get, path = "/v1/audit/verify", tag = "audit", security(("token" = ["audit:admin"])),
    responses((status = 200, body = Verified)))]
async fn verify(State(privacy): State<Privacy>, caller: Caller) -> Result<Json<Verified>, Fault> {
    Ok(Json(privacy.verify_audit(&caller.tenant).await?))
}

/// Lists what happened to one's own account, the newest first: sign-ins with address and device, passwords, second factors.
#[utoipa::path(get, path = "/v1/me/audit", tag = "me", security(("token" = ["me"])), params(PageQuery),
    responses((status = 200, body = Page<Happened>)))]
async fn history(
    State(privacy): State<Privacy>,
    signed: SignedIn,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Happened>>, Fault> {
    let (id, _) = person(&signed)?;
    let limit = query.limit()?;
    let rows = privacy.history(id, cursor(query.cursor.as_deref())?, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.position.clone())))
}

/// Asks for everything that is stored about oneself.
///
/// It takes a moment; a mail comes when the archive is there. It can be had for a week.
#[utoipa::path(post, path = "/v1/me/export", tag = "me", security(("token" = ["me"])),
    responses((status = 202, body = ExportView), (status = 429, body = documents::Problem)))]
async fn request_export(
    State(privacy): State<Privacy>,
    signed: SignedIn,
    IdempotencyKey(key): IdempotencyKey,
    body: Payload,
) -> Result<(StatusCode, Json<ExportView>), Fault> {
    let (id, _) = person(&signed)?;
    nothing(&body)?;
    Ok((StatusCode::ACCEPTED, Json(privacy.request_export(id, key).await?)))
}

/// Shows what became of an archive.
#[utoipa::path(get, path = "/v1/me/exports/{id}", tag = "me", security(("token" = ["me"])),
    params(("id" = String, Path)), responses((status = 200, body = ExportView), (status = 404, body = documents::Problem)))]
async fn show_export(
    State(privacy): State<Privacy>,
    signed: SignedIn,
    Segment(export): Segment,
) -> Result<Json<ExportView>, Fault> {
    let (id, _) = person(&signed)?;
    Ok(Json(privacy.export(id, &export).await?))
}

/// Downloads an archive: ZIP, with JSON inside and a README.
#[utoipa::path(get, path = "/v1/me/exports/{id}/download", tag = "me", security(("token" = ["me"])),
    params(("id" = String, Path)),
    responses((status = 200, content_type = "application/zip", body = Vec<u8>), (status = 404, body = documents::Problem)))]
async fn download(
    State(privacy): State<Privacy>,
    signed: SignedIn,
    Segment(export): Segment,
) -> Result<Response, Fault> {
    let (id, _) = person(&signed)?;
    let archive = privacy.download(id, &export).await?;
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "application/zip"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"airstream-data.zip\""),
        // Nobody in between keeps it longer than we do.
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, archive).into_response())
}

/// What it takes to be forgotten.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Erase {
    /// The password, unless one has signed in within the last ten minutes.
    #[schema(value_type = Option<String>, format = Password, example = "correct horse battery")]
    password: Option<Password>,
    /// `erase`, a blank, and one's own e-mail address.
    #[schema(example = "erase ann@example.org")]
    confirm: String,
}

/// Forgets whoever asks, for good.
///
/// All sessions end at once. The key of everything personal is destroyed, so it cannot be read any more in the log, in
/// backups, anywhere; rows are removed; memberships end, and a tenant in which nobody is left is closed. Refused with the list of
/// tenants in which others would be left without an owner: `last_owner`, where `errors` names them.
#[utoipa::path(post, path = "/v1/me/erase", tag = "me", security(("token" = ["me"])), request_body = Erase,
    responses((status = 200, body = Farewell), (status = 202, description = "It goes on", body = Farewell),
        (status = 403, body = documents::Problem), (status = 409, body = documents::Problem),
        (status = 422, body = documents::Problem)))]
async fn erase(
    State(privacy): State<Privacy>,
    signed: SignedIn,
    origin: Origin,
    body: Payload,
) -> Result<Response, Fault> {
    let (id, _) = person(&signed)?;
    let Erase { password, confirm } = body.read()?;
    match privacy.erase(id, proof(&signed, password)?, &confirm, &origin).await? {
        Erasing::Done(farewell) => {
            let status = if farewell.finished_at.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok((status, Json(farewell)).into_response())
        }
        Erasing::LastOwner(tenants) => {
            let detail =
                "Others would be left without an owner: make somebody else an owner of each, or remove the others.";
            let errors = tenants.into_iter().map(|(id, name)| FieldError {
                pointer: format!("/tenants/{id}"),
                detail: format!("You are the last owner of “{name}”."),
            });
            let problem = Problem { errors: errors.collect(), ..Problem::new(409, "last_owner", detail) };
            Err(problem.into())
        }
    }
}
