//! `/v1/instances`: which process does what.

use axum::Json;
use axum::extract::State;
use projections::Database;
use projections::leases::{InstanceRow, instances};
use rest::{Caller, Fault};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router(database: Database) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list)).with_state(database)
}

#[derive(Serialize, ToSchema)]
struct Instances {
    items: Vec<InstanceRow>,
}

/// Lists the processes that share the work, with what each of them does.
#[utoipa::path(get, path = "/v1/instances", tag = "operations", security(("token" = ["operate"])), responses((status = 200, body = Instances)))]
async fn list(State(database): State<Database>, caller: Caller) -> Result<Json<Instances>, Fault> {
    caller.require_operator()?;
    Ok(Json(Instances { items: instances(database.pool()).await? }))
}
