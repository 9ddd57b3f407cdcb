//! `/livez` and `/readyz`: the two routes without a token.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use nats::Connection;
use projections::{Database, migration_state};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Clone)]
struct Routes {
    connection: Connection,
    database: Database,
}

pub(crate) fn router(connection: Connection, database: Database) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).with_state(Routes { connection, database })
}

/// The outcome of a probe.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok` or `failing`.
    #[schema(example = "ok")]
    status: &'static str,
    checks: Vec<Check>,
}

#[derive(Serialize, ToSchema)]
struct Check {
    #[schema(example = "postgres")]
    name: &'static str,
    #[schema(example = true)]
    ok: bool,
    /// What is wrong, for people; empty when nothing is.
    #[schema(example = "")]
    detail: String,
}

/// Says that the process answers. It depends on nothing else: restarting us does not mend NATS or Postgres.
#[utoipa::path(get, path = "/livez", tag = "health", security(()), responses((status = 200, body = Health)))]
async fn live() -> Json<Health> {
    Json(Health { status: "ok", checks: Vec::new() })
}

/// Says whether requests can be served.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn ready(State(routes): State<Routes>) -> (StatusCode, Json<Health>) {
    let connected = routes.connection.is_connected();
    let nats = Check {
        name: "nats",
        ok: connected,
        detail: if connected { String::new() } else { "not connected".to_owned() },
    };
    let migrations =
        tokio::time::timeout(std::time::Duration::from_secs(2), migration_state(routes.database.pool())).await;
    let (reachable, missing) = match migrations {
        Ok(Ok(states)) => (Ok(()), states.iter().filter(|state| !state.applied).count()),
        Ok(Err(error)) => (Err(error.to_string()), 0),
        Err(_) => (Err("no answer within two seconds".to_owned()), 0),
    };
    let postgres = Check { name: "postgres", ok: reachable.is_ok(), detail: reachable.err().unwrap_or_default() };
    let migrated = Check {
        name: "migrations",
        ok: postgres.ok && missing == 0,
        detail: if missing > 0 { format!("{missing} to apply: airstream migrate") } else { String::new() },
    };
    let trouble = routes.connection.trouble();
    let log = Check { name: "log", ok: trouble.is_none(), detail: trouble.unwrap_or_default() };
    let checks = vec![nats, log, postgres, migrated];
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { status: if ok { "ok" } else { "failing" }, checks }))
}
