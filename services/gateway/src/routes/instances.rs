//! `/v1/instances`: which process does what.

use axum::Json;
use axum::extract::State;
use projections::Database;
use projections::leases::{InstanceRow, instances};
use rest::{Fault, Page};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router(database: Database) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list)).with_state(database)
}

/// Lists the processes that share the work, with what each of them does.
#[utoipa::path(get, path = "/v1/instances", tag = "operations", security(("token" = ["operate"])), responses((status = 200, body = Page<InstanceRow>)))]
async fn list(State(database): State<Database>) -> Result<Json<Page<InstanceRow>>, Fault> {
    Ok(Json(Page { items: instances(database.pool()).await?, next_cursor: None }))
}
