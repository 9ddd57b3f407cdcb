//! `/v1/parked`: what consumers have set aside, and what people decide about it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kernel::{Problem, TenantId};
use projections::Database;
use projections::lot::{self, ParkedRow};
use rest::{Caller, Fault, Page, PageQuery, Payload, Query, documents};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router(database: Database) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry)).routes(routes!(skip)).with_state(database)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Also those that were skipped.
    #[serde(default)]
    all: bool,
    /// Only this consumer's.
    consumer: Option<String>,
    /// Only the one with this id.
    id: Option<String>,
    /// Items per page: 1 to 500.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists what consumers have set aside: consumer after consumer, commits in the order of the log, then effects.
#[utoipa::path(get, path = "/v1/parked", tag = "operations", security(("token" = ["operations:read"])), params(Wanted),
    responses((status = 200, body = Page<ParkedRow>), (status = "4XX", body = documents::Problem)))]
async fn list(
    State(database): State<Database>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<ParkedRow>>, Fault> {
    let limit = PageQuery { limit: wanted.limit, cursor: None }.limit()?;
    let asked = lot::Wanted {
        tenant: scope(&caller),
        consumer: wanted.consumer.as_deref(),
        id: wanted.id.as_deref(),
        with_skipped: wanted.all,
        after: wanted.cursor.as_deref(),
    };
    if [asked.consumer, asked.id, asked.after].into_iter().flatten().any(|text| text.contains('\0')) {
        return Ok(Json(Page { items: Vec::new(), next_cursor: None }));
    }
    let rows = lot::list(database.pool(), asked, limit as i64 + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id.clone())))
}

/// What a caller may see and release: an operator everything, because some of it belongs to nobody; others their own.
fn scope(caller: &Caller) -> Option<&TenantId> {
    (!caller.operator).then_some(&caller.tenant)
}

/// Which parked thing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Its id, from the list.
    #[schema(example = "runs_v1@42")]
    id: String,
    /// Why it is left out; for `skip`.
    #[schema(example = "a test that nobody misses")]
    reason: Option<String>,
}

/// What is to be tried again: one thing, or everything.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WhichOrAll {
    /// Its id, from the list.
    #[schema(example = "runs_v1@42")]
    id: Option<String>,
    /// Everything that is parked, instead of one.
    #[serde(default)]
    #[schema(example = false)]
    all: bool,
    /// Of everything, only what this consumer has parked.
    #[schema(example = json!(null))]
    consumer: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Asked {
    /// What was named; null when it was everything.
    #[schema(example = "runs_v1@42")]
    id: Option<String>,
    /// What will happen now.
    #[schema(example = "retry")]
    asked: &'static str,
    /// How many commits and effects that concerns, those that wait behind the named one included.
    #[schema(example = 3)]
    released: u64,
}

fn nothing_parked(id: &str) -> Problem {
    let id: String = id.chars().filter(|c| !c.is_control()).take(200).collect();
    Problem::not_found(format!("Nothing is parked as `{id}`; `airstream parked list` shows what is."))
}

fn clean(text: String) -> Result<String, Fault> {
    if text.contains(char::is_control) { Err(nothing_parked(&text).into()) } else { Ok(text) }
}

/// Has a parked commit (and what waits behind it) or effect handled now, or everything.
#[utoipa::path(post, path = "/v1/parked/retry", tag = "operations", security(("token" = ["operations:admin"])), request_body = WhichOrAll,
    responses((status = 202, body = Asked), (status = "4XX", body = documents::Problem)))]
async fn retry(
    State(database): State<Database>,
    caller: Caller,
    body: Payload,
) -> Result<(StatusCode, Json<Asked>), Fault> {
    let (pool, scope) = (database.pool(), scope(&caller));
    let (id, released) = match body.read()? {
        WhichOrAll { id: Some(id), all: false, consumer: None } => {
            let id = clean(id)?;
            let released = lot::retry(pool, scope, &id).await?;
            if released == 0 {
                return Err(nothing_parked(&id).into());
            }
            (Some(id), released)
        }
        WhichOrAll { id: None, all: true, consumer } => {
            let consumer = consumer.map(clean).transpose()?;
            (None, lot::retry_all(pool, scope, consumer.as_deref()).await?)
        }
        _ => return Err(Problem::new(422, "invalid", "Name one thing by its `id`, or say `all`, not both.").into()),
    };
    Ok((StatusCode::ACCEPTED, Json(Asked { id, asked: "retry", released })))
}

/// Leaves a parked commit or effect out for good, with a reason, and releases what waits behind it.
#[utoipa::path(post, path = "/v1/parked/skip", tag = "operations", security(("token" = ["operations:admin"])), request_body = Which,
    responses((status = 202, body = Asked), (status = "4XX", body = documents::Problem)))]
async fn skip(
    State(database): State<Database>,
    caller: Caller,
    body: Payload,
) -> Result<(StatusCode, Json<Asked>), Fault> {
    let Which { id, reason } = body.read()?;
    let id = clean(id)?;
    let Some(reason) = reason.filter(|reason| !reason.trim().is_empty()) else {
        return Err(Problem::new(422, "invalid", "Say why in `reason`: others will ask.").into());
    };
    let reason = format!("{} (by {})", reason.replace(char::is_control, " "), caller.principal);
    if !lot::skip(database.pool(), scope(&caller), &id, &reason).await? {
        return Err(nothing_parked(&id).into());
    }
    Ok((StatusCode::ACCEPTED, Json(Asked { id: Some(id), asked: "skip", released: 1 })))
}
