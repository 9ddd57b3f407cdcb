//! The way back: the schema that was switched out goes live again, where it stood, and catches up.
//!
//! Its rows stand at the position that was written down when it was kept, without the commits that were parked then. So
//! checkpoint and parking lot go back to exactly that, in the transaction that renames, and the projection walks on from
//! there: nothing is missing and nothing comes twice. The rows that are switched out now are kept in the same way, so
//! rolling back twice is going forward again.

use kernel::Position;
use runtime::consume::HandleError;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::beside::alone;
use super::failed;
use super::switch::KEEP;
use crate::projector::{Projector, schema};
use crate::{Database, machinery};

/// A projection that went back.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct RolledBack {
    /// `name_vN`.
    #[schema(example = "runs_v1")]
    pub projection: String,
    /// Where the rows stood that were live until now.
    #[schema(value_type = String, example = "p1-2a")]
    pub from: Position,
    /// Where the rows stand that are live now; the projection catches up from here.
    #[schema(value_type = String, example = "p1-29")]
    pub to: Position,
}

pub(crate) const KEPT: &str = "SELECT position, log, parked FROM airstream.kept WHERE projection = $1";
/// Whoever runs the projection knows another place and another parking lot, and is refused from here on.
pub(crate) const MOVE: &str = "
    UPDATE airstream.checkpoints SET position = $2, moved = moved + 1, updated_at = now()
    WHERE consumer = $1 AND log = $3";
pub(crate) const UNPARK_ALL: &str = "DELETE FROM airstream.parked WHERE consumer = $1";
pub(crate) const RESTORE: &str = "
    INSERT INTO airstream.parked (consumer, position, subject, tenant_id, state, reason, tries, released, parked_at)
    SELECT $1, position, subject, tenant_id, state, reason, tries, false, parked_at
    FROM jsonb_populate_recordset(NULL::airstream.parked, $2)";
/// Columns that only one of two schemas has: a migration has passed between them.
pub(crate) const SHAPE_DIFFERS: &str = "
    SELECT EXISTS (
        SELECT relname, attname, atttypid, attnotnull
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
        WHERE n.nspname IN ($1, $2) AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
        GROUP BY relname, attname, atttypid, attnotnull HAVING count(*) <> 2)";

/// Lets the schema that the last rebuild (or rollback) has switched out take the live one's place.
///
/// # Errors
/// [`HandleError::Poison`] when nothing is kept, or what is kept does not fit any more; [`HandleError::Lost`] while a fold is
/// running.
pub async fn roll_back<P: Projector>(database: &Database) -> Result<RolledBack, HandleError> {
    let live = schema::<P>();
    let mut connection = database.dedicated().await.map_err(failed("connect"))?;
    let result = go_back(&mut connection, &live).await;
    machinery::release(connection).await;
    result
}

async fn go_back(connection: &mut PgConnection, live: &str) -> Result<RolledBack, HandleError> {
    alone(connection, live).await?;
    let mut transaction = connection.begin().await.map_err(failed("begin"))?;
    let impatient = "SET LOCAL idle_in_transaction_session_timeout = '5s'";
    sqlx::raw_sql(impatient).execute(&mut *transaction).await.map_err(failed("begin"))?;
    let from = machinery::hold(&mut transaction, live).await?;
    let (to, log, parked) = kept(&mut transaction, live).await?;
    sqlx::query(KEEP).bind(live).execute(&mut *transaction).await.map_err(failed("keep the live schema"))?;
    let moved = sqlx::query(MOVE)
        .bind(live)
        .bind(to)
        .bind(&log)
        .execute(&mut *transaction)
        .await
        .map_err(failed("move the checkpoint back"))?;
    if moved.rows_affected() != 1 {
        return Err(HandleError::Poison(format!("the kept rows of `{live}` belong to another log; rebuild it")));
    }
    let restore = failed("restore the parking lot");
    sqlx::query(UNPARK_ALL).bind(live).execute(&mut *transaction).await.map_err(&restore)?;
    sqlx::query(RESTORE).bind(live).bind(parked).execute(&mut *transaction).await.map_err(&restore)?;
    let ddl = format!(
        "ALTER SCHEMA {live} RENAME TO {live}_next; ALTER SCHEMA {live}_old RENAME TO {live};
         ALTER SCHEMA {live}_next RENAME TO {live}_old;"
    );
    sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *transaction).await.map_err(failed("switch"))?;
    transaction.commit().await.map_err(failed("commit the way back"))?;
    Ok(RolledBack { projection: live.to_owned(), from, to: machinery::position(to) })
}

async fn kept(connection: &mut PgConnection, live: &str) -> Result<(i64, String, Value), HandleError> {
    let found: Option<(i64, String, Value)> =
        sqlx::query_as(KEPT).bind(live).fetch_optional(&mut *connection).await.map_err(failed("find what is kept"))?;
    let old = format!("{live}_old");
    let exists: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(&old)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed("find what is kept"))?;
    let Some(found) = found.filter(|_| exists) else {
        return Err(HandleError::Poison(format!("nothing is kept of `{live}`: it has not been rebuilt")));
    };
    let differs: bool = sqlx::query_scalar(SHAPE_DIFFERS)
        .bind(live)
        .bind(&old)
        .fetch_one(connection)
        .await
        .map_err(failed("compare the shapes"))?;
    if differs {
        let reason = format!("a migration has changed the tables of `{live}` since `{old}` was kept; rebuild instead");
        return Err(HandleError::Poison(reason));
    }
    Ok(found)
}
