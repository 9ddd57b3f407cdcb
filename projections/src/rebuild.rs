//! Rebuild and verify: the log folded once more, beside the live rows.
//!
//! Both fill a second schema with the projector's own code. Then they hold the live projection still (by its checkpoint's
//! row lock, which every live transaction takes first), bring the second schema to exactly the same position, and either
//! compare the two or let them change places in one transaction. New events wait for milliseconds, not for the rebuild.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::StreamExt;
use kernel::Position;
use runtime::consume::HandleError;
use runtime::{Filter, Log, Recorded};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::projector::{Projector, schema, set_search_path, wanted};
use crate::{Database, machinery};

/// How far a fold has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Messages read.
    pub done: u64,
    /// Messages to read, as known when it began.
    pub total: u64,
}

/// Rows that are not as the log says.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct Difference {
    /// Which table.
    pub table: String,
    /// Rows that the live table has and the log does not lead to.
    pub only_live: i64,
    /// Rows that the log leads to and the live table does not have.
    pub only_log: i64,
    /// A few of them, for people.
    pub examples: Vec<Value>,
}

/// What a rebuild or a verification came to.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct Fold {
    /// `name_vN`.
    pub projection: String,
    /// Where both stood when they were compared or switched.
    #[schema(value_type = String)]
    pub position: Position,
    /// Rows folded, of all tables.
    pub rows: i64,
    /// What differed.
    pub differences: Vec<Difference>,
    /// Commits that are in neither, because they are parked and wait for a person. What a person has skipped is not
    /// counted: that was decided.
    pub parked: i64,
}

const PARKED: &str = "SELECT position FROM airstream.parked WHERE consumer = $1";
const UNDECIDED: &str = "SELECT count(*) FROM airstream.parked WHERE consumer = $1 AND state <> 'skipped'";
const BATCH: usize = 1_000;

fn failed(attempt: &'static str) -> impl Fn(sqlx::Error) -> HandleError {
    move |error| HandleError::Transient(format!("could not {attempt}: {error}"))
}

/// Folds the log into a second schema and compares it with the live rows.
///
/// # Errors
/// When the log or Postgres cannot be read, or a commit cannot be projected that the live projection has not parked.
pub async fn verify<P: Projector>(
    database: &Database,
    log: &Arc<dyn Log>,
    progress: impl Fn(Progress) + Send,
) -> Result<Fold, HandleError> {
    fold::<P>(database, log, &progress, "check", false).await
}

/// Folds the log into a second schema and lets it take the place of the live one. What the live rows differed in is
/// reported.
///
/// # Errors
/// As [`verify`]. The live rows are untouched then.
pub async fn rebuild<P: Projector>(
    database: &Database,
    log: &Arc<dyn Log>,
    progress: impl Fn(Progress) + Send,
) -> Result<Fold, HandleError> {
    fold::<P>(database, log, &progress, "next", true).await
}

/// The second schema, and how far it has come. The connection travels beside it: inside the last transaction a batch must
/// be a savepoint of that transaction, not one of its own that would end it.
struct Beside<P> {
    name: String,
    /// Commits that the live projection has set aside: they are not in its rows.
    parked: BTreeSet<i64>,
    position: Position,
    projector: PhantomData<fn() -> P>,
}

async fn fold<P: Projector>(
    database: &Database,
    log: &Arc<dyn Log>,
    progress: &(impl Fn(Progress) + Send),
    suffix: &str,
    switch: bool,
) -> Result<Fold, HandleError> {
    let mut connection = database.dedicated().await.map_err(failed("connect"))?;
    let mut beside = Beside::<P>::create(&mut connection, suffix).await?;
    let result = beside.run(&mut connection, log, progress, switch).await;
    beside.drop_schema(&mut connection).await?;
    // Closed in order, so that the next fold need not wait for the lock.
    machinery::release(connection).await;
    result
}

impl<P: Projector> Beside<P> {
    async fn create(connection: &mut PgConnection, suffix: &str) -> Result<Self, HandleError> {
        let attempt = failed("create the second schema");
        let (live, name) = (schema::<P>(), format!("{}_{suffix}", schema::<P>()));
        let alone: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('airstream fold ' || $1, 0))")
                .bind(&live)
                .fetch_one(&mut *connection)
                .await
                .map_err(&attempt)?;
        if !alone {
            return Err(HandleError::Lost(format!(
                "`{live}` is being rebuilt or verified already; wait for that to end"
            )));
        }
        // What a killed one left behind goes first.
        let mut ddl = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name};");
        for table in P::TABLES {
            ddl += &format!(" CREATE TABLE {name}.{table} (LIKE {live}.{table} INCLUDING ALL);");
        }
        sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *connection).await.map_err(&attempt)?;
        sqlx::query("SET synchronous_commit = off").execute(&mut *connection).await.map_err(&attempt)?;
        set_search_path(connection, &name).await.map_err(&attempt)?;
        Ok(Self { name, parked: BTreeSet::new(), position: Position::START, projector: PhantomData })
    }

    async fn drop_schema(&self, connection: &mut PgConnection) -> Result<(), HandleError> {
        let ddl = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        sqlx::raw_sql(AssertSqlSafe(ddl)).execute(connection).await.map_err(failed("drop the second schema"))?;
        Ok(())
    }

    async fn run(
        &mut self,
        connection: &mut PgConnection,
        log: &Arc<dyn Log>,
        progress: &(impl Fn(Progress) + Send),
        switch: bool,
    ) -> Result<Fold, HandleError> {
        self.parked = read_parked::<P>(connection).await?;
        let head = log.head().await.map_err(|error| HandleError::Transient(error.to_string()))?;
        // The long part, beside the running projection; then the rest, while it is held still.
        let live: Option<i64> = sqlx::query_scalar(machinery::CHECKPOINT)
            .bind(schema::<P>())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed("read the checkpoint"))?;
        let live = machinery::position(live.unwrap_or_default()).min(head);
        self.fold_until(connection, log, live, progress).await?;

        let mut transaction = connection.begin().await.map_err(failed("begin"))?;
        let fold = self.finish(&mut transaction, log, progress, switch).await?;
        transaction.commit().await.map_err(failed("commit"))?;
        Ok(fold)
    }

    async fn finish(
        &mut self,
        connection: &mut PgConnection,
        log: &Arc<dyn Log>,
        progress: &(impl Fn(Progress) + Send),
        switch: bool,
    ) -> Result<Fold, HandleError> {
        let live = machinery::hold(connection, &schema::<P>()).await?;
        if read_parked::<P>(connection).await? != self.parked {
            let reason = "parked commits were released meanwhile; ask again";
            return Err(HandleError::Lost(reason.to_owned()));
        }
        self.fold_until(connection, log, live, progress).await?;
        let (mut rows, mut differences) = (0, Vec::new());
        for table in P::TABLES {
            let (count, difference) = self.compare(connection, table).await?;
            rows += count;
            differences.extend(difference);
        }
        let parked: i64 = sqlx::query_scalar(UNDECIDED)
            .bind(schema::<P>())
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("count what is parked"))?;
        if switch {
            let (live, old) = (schema::<P>(), format!("{}_old", schema::<P>()));
            let ddl = format!(
                "DROP SCHEMA IF EXISTS {old} CASCADE; ALTER SCHEMA {live} RENAME TO {old}; ALTER SCHEMA {} RENAME TO {live}",
                self.name
            );
            sqlx::raw_sql(AssertSqlSafe(ddl)).execute(connection).await.map_err(failed("switch"))?;
        }
        Ok(Fold { projection: schema::<P>(), position: self.position, rows, differences, parked })
    }

    async fn fold_until(
        &mut self,
        connection: &mut PgConnection,
        log: &Arc<dyn Log>,
        until: Position,
        progress: &(impl Fn(Progress) + Send),
    ) -> Result<(), HandleError> {
        if self.position >= until {
            return Ok(());
        }
        let unreadable = |error: runtime::LogError| HandleError::Transient(error.to_string());
        let reader = log.read(self.position, &Filter::default()).await.map_err(unreadable)?;
        let mut chunks = reader.commits.ready_chunks(BATCH);
        while self.position < until {
            let chunk = chunks.next().await.ok_or_else(|| HandleError::Transient("the read ended".to_owned()))?;
            let commits = chunk.into_iter().collect::<Result<Vec<Recorded>, _>>().map_err(unreadable)?;
            let fitting: Vec<&Recorded> = commits.iter().take_while(|recorded| recorded.position <= until).collect();
            let (Some(first), Some(last)) = (fitting.first(), fitting.last()) else { break };
            if first.position != self.position.next() {
                return Err(HandleError::Transient(format!(
                    "after {} the log handed out {}",
                    self.position, first.position
                )));
            }
            let last = last.position;
            let live: Vec<&Recorded> = fitting
                .into_iter()
                .filter(|recorded| !self.parked.contains(&machinery::number(recorded.position)))
                .collect();
            let facts = wanted::<P>(&live)?;
            if !facts.is_empty() {
                let mut transaction = connection.begin().await.map_err(failed("begin"))?;
                P::apply(&facts, &mut transaction).await?;
                transaction.commit().await.map_err(failed("commit"))?;
            }
            self.position = last;
            progress(Progress { done: self.position.sequence(), total: until.sequence() });
        }
        Ok(())
    }

    async fn compare(
        &self,
        connection: &mut PgConnection,
        table: &str,
    ) -> Result<(i64, Option<Difference>), HandleError> {
        let attempt = failed("compare rows");
        let (live, log) = (format!("{}.{table}", schema::<P>()), format!("{}.{table}", self.name));
        let count = format!("SELECT count(*) FROM {log}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *connection).await.map_err(&attempt)?;
        let (mut counts, mut examples) = ([0, 0], Vec::new());
        for (index, (one, other)) in [(&live, &log), (&log, &live)].into_iter().enumerate() {
            let missing = format!("SELECT * FROM {one} EXCEPT ALL SELECT * FROM {other}");
            let sql = format!("SELECT count(*) FROM ({missing}) AS missing");
            counts[index] =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(&attempt)?;
            if counts[index] > 0 {
                let sql = format!("SELECT to_jsonb(missing) FROM ({missing}) AS missing LIMIT 3");
                let found: Vec<Value> =
                    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *connection).await.map_err(&attempt)?;
                let side = ["only_live", "only_log"][index];
                examples.extend(found.into_iter().map(|row| serde_json::json!({ side: row })));
            }
        }
        let [only_live, only_log] = counts;
        let difference = Difference { table: table.to_owned(), only_live, only_log, examples };
        Ok((rows, (only_live + only_log > 0).then_some(difference)))
    }
}

async fn read_parked<P: Projector>(connection: &mut PgConnection) -> Result<BTreeSet<i64>, HandleError> {
    let parked: Vec<i64> = sqlx::query_scalar(PARKED)
        .bind(schema::<P>())
        .fetch_all(connection)
        .await
        .map_err(failed("read the parking lot"))?;
    Ok(parked.into_iter().collect())
}
