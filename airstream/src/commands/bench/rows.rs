//! The other side for projections: the same rows, straight into Postgres.

use anyhow::{Context as _, bail};
use projections::{CommitFacts, Projector};
use runtime::Recorded;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// Where the raw side keeps its tables.
pub(super) const SCHEMA: &str = "bench_raw";

/// A projection's schema.
pub(super) fn schema<P: Projector>() -> String {
    format!("{}_v{}", P::NAME, P::VERSION)
}

/// Statements put together from names in the code, never from data.
pub(super) async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await.map(drop)
}

/// A table's name and columns, with their types, and the statement that upserts many rows.
struct Table {
    columns: Vec<(String, String)>,
    upsert: String,
    touched: String,
}

/// Many values of one column.
enum Column {
    Text(Vec<Option<String>>),
    Integer(Vec<Option<i32>>),
    BigInt(Vec<Option<i64>>),
    Time(Vec<Option<DateTime<Utc>>>),
    Json(Vec<Option<Json<Box<RawValue>>>>),
}

/// Rows of one table.
struct Rows {
    table: usize,
    columns: Vec<Column>,
}

/// What each batch of commits wrote: the rows as they stood after it.
pub(super) struct Captured {
    tables: Vec<Table>,
    batches: Vec<Vec<Rows>>,
    pub(super) rows: usize,
}

impl Captured {
    /// Lets the projector handle the commits in batches, and keeps what it wrote.
    pub(super) async fn of<P: Projector>(
        connection: &mut PgConnection,
        commits: &[Recorded],
        batch: usize,
    ) -> anyhow::Result<Self> {
        let mut tables = Vec::new();
        for name in P::TABLES {
            tables.push(Table::read::<P>(connection, name).await.with_context(|| format!("could not look at {name}"))?);
        }
        let mut captured = Self { tables, batches: Vec::new(), rows: 0 };
        run(connection, &format!("SET search_path = {}", schema::<P>())).await?;
        for batch in commits.chunks(batch) {
            let mut facts = Vec::with_capacity(batch.len());
            for recorded in batch {
                let history =
                    recorded.history().map_err(|reason| anyhow::anyhow!("the log is not as written: {reason}"))?;
                let (stream, commit) = history.context("the log is not as written")?;
                facts.push(CommitFacts { position: recorded.position, stream, commit });
            }
            let mut transaction = connection.begin().await?;
            P::apply(&facts, &mut transaction).await?;
            let mut written = Vec::new();
            for (index, table) in captured.tables.iter().enumerate() {
                let rows = sqlx::query(AssertSqlSafe(table.touched.clone())).fetch_all(&mut *transaction).await?;
                captured.rows += rows.len();
                let columns = table.columns.iter().enumerate();
                let columns =
                    columns.map(|(at, (_, kind))| Column::of(&rows, at, kind)).collect::<anyhow::Result<_>>()?;
                written.push(Rows { table: index, columns });
            }
            transaction.commit().await?;
            captured.batches.push(written);
        }
        Ok(captured)
    }

    /// Writes all of it again: a transaction per batch, which also moves a checkpoint, as ours does.
    pub(super) async fn upsert(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for (number, batch) in self.batches.iter().enumerate() {
            let mut transaction = connection.begin().await?;
            sqlx::query("UPDATE bench_raw.checkpoint SET position = $1, updated_at = now()")
                .bind(number as i64)
                .execute(&mut *transaction)
                .await?;
            for rows in batch {
                let Some(table) = self.tables.get(rows.table) else { continue };
                let mut query = sqlx::query(AssertSqlSafe(table.upsert.clone()));
                for column in &rows.columns {
                    query = match column {
                        Column::Text(values) => query.bind(values),
                        Column::Integer(values) => query.bind(values),
                        Column::BigInt(values) => query.bind(values),
                        Column::Time(values) => query.bind(values),
                        Column::Json(values) => query.bind(values),
                    };
                }
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}

impl Table {
    async fn read<P: Projector>(connection: &mut PgConnection, name: &str) -> anyhow::Result<Self> {
        let columns: Vec<(String, String)> = sqlx::query_as(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
             WHERE attrelid = ($1 || '.' || $2)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
        .bind(schema::<P>())
        .bind(name)
        .fetch_all(&mut *connection)
        .await?;
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT attname::text FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
             WHERE indrelid = ($1 || '.' || $2)::regclass AND indisprimary",
        )
        .bind(schema::<P>())
        .bind(name)
        .fetch_all(connection)
        .await?;
        // A list in a cell travels as one text, as it does on our side: arrays of arrays must not be ragged.
        let list = |kind: &str| kind == "text[]";
        let sent = |kind: &str| if list(kind) { "text".to_owned() } else { kind.to_owned() };
        let arrays = columns.iter().enumerate().map(|(at, (_, kind))| format!("${}::{}[]", at + 1, sent(kind)));
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        let names = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let read = |from: &dyn Fn(&str) -> String| {
            columns
                .iter()
                .map(|(name, kind)| if list(kind) { from(name) } else { name.clone() })
                .collect::<Vec<_>>()
                .join(", ")
        };
        let taken = read(&|name| format!("string_to_array({name}, ',')"));
        let given = read(&|name| format!("array_to_string({name}, ',')"));
        let rest = columns.iter().map(|(name, _)| name).filter(|name| !keys.contains(name));
        let set = rest.map(|name| format!("{name} = EXCLUDED.{name}")).collect::<Vec<_>>().join(", ");
        let upsert = format!(
            "INSERT INTO {SCHEMA}.{name} ({names}) SELECT {taken} FROM UNNEST({arrays}) AS new ({names})
             ON CONFLICT ({}) DO UPDATE SET {set}",
            keys.join(", ")
        );
        // The rows that this very transaction has written.
        let touched = format!("SELECT {given} FROM {}.{name} WHERE xmin = pg_current_xact_id()::xid", schema::<P>());
        Ok(Self { columns, upsert, touched })
    }
}

impl Column {
    fn of(rows: &[PgRow], at: usize, kind: &str) -> anyhow::Result<Self> {
        Ok(match kind {
            "text" | "text[]" => Self::Text(values(rows, at)?),
            "integer" => Self::Integer(values(rows, at)?),
            "bigint" => Self::BigInt(values(rows, at)?),
            "timestamp with time zone" => Self::Time(values(rows, at)?),
            "jsonb" => Self::Json(values(rows, at)?),
            other => bail!("bench cannot write columns of the type {other} yet"),
        })
    }
}

fn values<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    rows: &'r [PgRow],
    at: usize,
) -> Result<Vec<T>, sqlx::Error> {
    rows.iter().map(|row| row.try_get(at)).collect()
}

/// Empty tables like a projection's, with or without its indexes.
pub(super) async fn like<P: Projector>(connection: &mut PgConnection, indexes: bool) -> Result<(), sqlx::Error> {
    let mut ddl = format!(
        "DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA};
         CREATE TABLE {SCHEMA}.checkpoint (position bigint NOT NULL, updated_at timestamptz NOT NULL);
         INSERT INTO {SCHEMA}.checkpoint VALUES (0, now());"
    );
    for table in P::TABLES {
        let which = if indexes { "" } else { " EXCLUDING INDEXES" };
        ddl += &format!(" CREATE TABLE {SCHEMA}.{table} (LIKE {}.{table} INCLUDING ALL{which});", schema::<P>());
    }
    run(connection, &ddl).await
}
