//! The second schema: made like the live one, filled from the log, dropped when it is not wanted any more.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use kernel::Position;
use runtime::Log;
use runtime::consume::HandleError;
use sqlx::{AssertSqlSafe, PgConnection};

use super::feed::Feed;
use super::meter::{ENDED, Meter};
use super::write::{write, write_released};
use super::{Goal, failed};
use crate::projector::{Projector, schema, set_search_path};
use crate::{Database, machinery};

pub(crate) const FOLD_LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('airstream fold ' || $1, 0))";
const WAIT_FOR_FOLD_LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('airstream fold ' || $1, 0))";
/// Ends a connection as long as it holds the lock of that fold: a number that now belongs to somebody else is spared.
pub(crate) const TERMINATE: &str = "
    SELECT count(pg_terminate_backend(pid)) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid = $2
        AND (classid::bigint << 32) | objid::bigint = hashtextextended('airstream fold ' || $1, 0)";
/// Where the live rows stand and what is not in them: one statement, one snapshot.
pub(crate) const MARK: &str = "
    SELECT (SELECT position FROM airstream.checkpoints WHERE consumer = $1),
           (SELECT log FROM airstream.checkpoints WHERE consumer = $1),
           ARRAY(SELECT position FROM airstream.parked WHERE consumer = $1)";
/// Indexes of a schema: whether rows need it while they are written, its table, the constraint that it stands for, how to
/// make it.
pub(crate) const INDEXES: &str = "
    SELECT i.indisunique OR i.indisexclusion, t.relname::text,
           (SELECT quote_ident(c.conname) || ' ' || pg_get_constraintdef(c.oid)
            FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x') AND c.conrelid = t.oid),
           pg_get_indexdef(i.indexrelid)
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname = $1 AND t.relkind = 'r' ORDER BY i.indexrelid";

/// Who may see what of a schema, as statements that say the same of another one. `LIKE` does not copy it.
pub(crate) const GUARDS: &str = "
    WITH tables AS (
        SELECT c.oid, format('%I.%I', $2::text, relname) AS name, relacl, relowner, relrowsecurity, relforcerowsecurity
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1 AND relkind = 'r')
    SELECT format('GRANT %s ON SCHEMA %I TO %s', privilege_type, $2::text, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
    FROM pg_namespace CROSS JOIN aclexplode(nspacl) WHERE nspname = $1 AND grantee <> nspowner
    UNION ALL
    SELECT format('GRANT %s ON %s TO %s', privilege_type, name, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
    FROM tables CROSS JOIN aclexplode(relacl) WHERE grantee <> relowner
    UNION ALL
    SELECT format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name) FROM tables WHERE relrowsecurity
    UNION ALL
    SELECT format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', name) FROM tables WHERE relforcerowsecurity
    UNION ALL
    SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s %s %s', polname, name,
        CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
        (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END, ', ') FROM unnest(polroles) AS role),
        'USING (' || pg_get_expr(polqual, polrelid) || ')', 'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')')
    FROM pg_policy JOIN tables ON tables.oid = polrelid";

/// When so few commits are missing, the live projection may be held still for them.
const HANDFUL: u64 = 100;
/// How often to run after a live projection that goes on. We fold larger batches than it does, so each round is shorter.
const ROUNDS: usize = 100;

/// Becomes the one that folds for this projection.
pub(super) async fn alone(connection: &mut PgConnection, live: &str) -> Result<(), HandleError> {
    let alone: bool =
        sqlx::query_scalar(FOLD_LOCK).bind(live).fetch_one(connection).await.map_err(failed("take the fold's lock"))?;
    match alone {
        true => Ok(()),
        false => Err(HandleError::Lost(format!(
            "`{live}` is being rebuilt, verified or rolled back already; `airstream projections status` shows how far it is"
        ))),
    }
}

/// Where the live rows stand, and which commits are not in them.
pub(super) struct Mark {
    pub(super) position: Position,
    pub(super) parked: BTreeSet<i64>,
    log: Option<String>,
}

pub(super) async fn mark(connection: &mut PgConnection, live: &str) -> Result<Mark, HandleError> {
    let (position, log, parked): (Option<i64>, Option<String>, Vec<i64>) = sqlx::query_as(MARK)
        .bind(live)
        .fetch_one(connection)
        .await
        .map_err(failed("read where the live projection stands"))?;
    let position = machinery::position(position.unwrap_or_default());
    Ok(Mark { position, parked: parked.into_iter().collect(), log })
}

/// The second schema, and how far it has come. The connection travels beside it: inside a transaction a batch must be a
/// savepoint of that transaction, not one of its own that would end it.
pub(super) struct Beside<'a, P> {
    pub(super) live: String,
    pub(super) name: String,
    log: Arc<dyn Log>,
    feed: Feed,
    pub(super) meter: Meter<'a>,
    /// Commits that the live projection has set aside, as far as we have followed it: they are not in its rows.
    parked: BTreeSet<i64>,
    pub(super) position: Position,
    projector: PhantomData<fn() -> P>,
}

impl<'a, P: Projector> Beside<'a, P> {
    pub(super) async fn create(
        connection: &mut PgConnection,
        log: &Arc<dyn Log>,
        meter: Meter<'a>,
        goal: Goal,
    ) -> Result<Self, HandleError> {
        let attempt = failed("create the second schema");
        let (live, name) = (schema::<P>(), format!("{}_{}", schema::<P>(), goal.suffix()));
        is_ours(&mark(connection, &live).await?, log).await?;
        // What a killed one left behind goes first. Rows that will be dropped again need not survive a crash.
        let kind = if goal == Goal::Compare { "UNLOGGED TABLE" } else { "TABLE" };
        let mut ddl = left_behind(&live);
        ddl += &format!("CREATE SCHEMA {name};");
        for table in P::TABLES {
            ddl += &format!("CREATE {kind} {name}.{table} (LIKE {live}.{table} INCLUDING ALL EXCLUDING INDEXES);");
        }
        sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *connection).await.map_err(&attempt)?;
        // Until the switch nothing here is missed after a crash; what is large is sorted and hashed in memory.
        let settings = "SET synchronous_commit = off; SET work_mem = '64MB'; SET maintenance_work_mem = '256MB'";
        sqlx::raw_sql(settings).execute(&mut *connection).await.map_err(&attempt)?;
        set_search_path(connection, &name).await.map_err(&attempt)?;
        let (log, feed) = (Arc::clone(log), Feed::new(log));
        let mut beside = Self {
            live,
            name,
            log,
            feed,
            meter,
            parked: BTreeSet::new(),
            position: Position::START,
            projector: PhantomData,
        };
        beside.make_indexes(connection, true).await?;
        beside.guard(connection).await?;
        Ok(beside)
    }

    /// Lets the same roles see the same rows as in the live schema, before there is one.
    async fn guard(&mut self, connection: &mut PgConnection) -> Result<(), HandleError> {
        let attempt = failed("guard the second schema");
        let guards: Vec<String> = sqlx::query_scalar(GUARDS)
            .bind(&self.live)
            .bind(&self.name)
            .fetch_all(&mut *connection)
            .await
            .map_err(&attempt)?;
        for ddl in guards {
            sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *connection).await.map_err(&attempt)?;
        }
        Ok(())
    }

    /// Keys are needed while rows are written, everything else is faster made at once afterwards. Names and definitions
    /// are the live ones, so that later migrations find them.
    pub(super) async fn make_indexes(&mut self, connection: &mut PgConnection, keys: bool) -> Result<(), HandleError> {
        let attempt = failed("make an index of the second schema");
        let found: Vec<(bool, String, Option<String>, String)> =
            sqlx::query_as(INDEXES).bind(&self.live).fetch_all(&mut *connection).await.map_err(&attempt)?;
        let Self { live, name, .. } = self;
        for (_, table, constraint, index) in found.into_iter().filter(|(is_key, ..)| *is_key == keys) {
            let ddl = match constraint {
                Some(constraint) => format!("ALTER TABLE {name}.{table} ADD CONSTRAINT {constraint}"),
                None => index.replacen(&format!(" ON {live}."), &format!(" ON {name}."), 1),
            };
            sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *connection).await.map_err(&attempt)?;
        }
        Ok(())
    }

    /// Queries after the switch are planned by these.
    pub(super) async fn analyze(&mut self, connection: &mut PgConnection) -> Result<(), HandleError> {
        let tables: Vec<String> = P::TABLES.iter().map(|table| format!("{}.{table}", self.name)).collect();
        let ddl = format!("ANALYZE {}", tables.join(", "));
        sqlx::raw_sql(AssertSqlSafe(ddl)).execute(connection).await.map_err(failed("analyze the second schema"))?;
        Ok(())
    }

    /// Folds until only a handful of commits is missing.
    pub(super) async fn come_close(&mut self, connection: &mut PgConnection) -> Result<(), HandleError> {
        for _ in 0..ROUNDS {
            let mark = mark(connection, &self.live).await?;
            let missing = mark.position.sequence().saturating_sub(self.position.sequence());
            self.follow(connection, mark).await?;
            if missing <= HANDFUL {
                break;
            }
        }
        Ok(())
    }

    /// Folds up to a mark, so that both schemas hold the same commits.
    pub(super) async fn follow(&mut self, connection: &mut PgConnection, mark: Mark) -> Result<(), HandleError> {
        let here = machinery::number(self.position);
        if mark.position < self.position || mark.parked.difference(&self.parked).any(|at| *at <= here) {
            let reason = format!("`{}` was moved back while it was folded; ask again", self.live);
            return Err(HandleError::Lost(reason));
        }
        // What a person released meanwhile is in the live rows now. Parked again later it counts as not handled: so the
        // difference is exactly what was handled, and within a stream it was handled in this order.
        let released: Vec<i64> = self.parked.difference(&mark.parked).copied().filter(|at| *at <= here).collect();
        write_released::<P>(connection, &self.log, &released).await?;
        self.parked = mark.parked;
        self.meter.heading_for(mark.position);
        let mut batch = self.feed.batch(mark.position).await?;
        while let Some(last) = batch.last().map(|recorded| recorded.position) {
            // The next batch is read while Postgres takes this one.
            let writing = write::<P>(connection, &batch, &self.parked);
            let (written, next) = tokio::join!(writing, self.feed.batch(mark.position));
            written?;
            self.position = last;
            self.meter.reached(last).await;
            batch = next?;
        }
        Ok(())
    }
}

async fn is_ours(mark: &Mark, log: &Arc<dyn Log>) -> Result<(), HandleError> {
    let unreadable = |error: runtime::LogError| HandleError::Transient(error.to_string());
    let identity = log.identity().await.map_err(unreadable)?;
    if mark.log.as_ref().is_some_and(|known| *known != identity)
        || mark.position > log.head().await.map_err(unreadable)?
    {
        return Err(HandleError::Lost("its checkpoint belongs to another log".to_owned()));
    }
    Ok(())
}

/// Everything that a fold may leave behind when it is killed.
fn left_behind(live: &str) -> String {
    ["next", "check", "gone"].map(|suffix| format!("DROP SCHEMA IF EXISTS {live}_{suffix} CASCADE;")).concat()
}

/// Drops what a fold made when it ends, however it ends.
pub(super) struct CleanUp {
    /// Absent once there is nothing left to do.
    database: Option<Database>,
    live: String,
    /// The fold's connection.
    pid: i32,
}

impl CleanUp {
    pub(super) async fn arm(
        database: &Database,
        connection: &mut PgConnection,
        live: &str,
    ) -> Result<Self, HandleError> {
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.map_err(failed("begin"))?;
        Ok(Self { database: Some(database.clone()), live: live.to_owned(), pid })
    }

    /// At the end of a fold, with its own connection. If that is broken, another one does it.
    pub(super) async fn now(mut self, mut connection: PgConnection) {
        if drop_left_behind(&mut connection, &self.live).await.is_ok() {
            // Closed in order, so that the next fold need not wait for the lock.
            machinery::release(connection).await;
            self.database = None;
        }
    }
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        let (Some(database), Ok(runtime)) = (self.database.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (live, pid) = (std::mem::take(&mut self.live), self.pid);
        runtime.spawn(async move {
            if let Err(error) = stop(&database, &live, pid).await {
                tracing::warn!(projection = live, %error, "what a fold left behind stays until the next one");
            }
        });
    }
}

/// Ends a fold from outside: its connection may be in the middle of a long statement.
async fn stop(database: &Database, live: &str, pid: i32) -> Result<(), sqlx::Error> {
    sqlx::query(TERMINATE).bind(live).bind(pid).execute(database.pool()).await?;
    let mut connection = database.dedicated().await?;
    // Whoever folds next drops what is left itself; then there is nothing to wait for.
    sqlx::raw_sql("SET lock_timeout = '10s'").execute(&mut connection).await?;
    sqlx::query(WAIT_FOR_FOLD_LOCK).bind(live).execute(&mut connection).await?;
    let dropped = drop_left_behind(&mut connection, live).await;
    machinery::release(connection).await;
    dropped
}

async fn drop_left_behind(connection: &mut PgConnection, live: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(left_behind(live))).execute(&mut *connection).await?;
    sqlx::query(ENDED).bind(live).execute(connection).await?;
    Ok(())
}
