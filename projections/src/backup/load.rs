//! Copying in: into a database in which nothing has been done yet, and never half.
//!
//! While a restore is under way a table of its own stands in the schema. A platform that finds it refuses to start, and a restore
//! that finds it knows that everything here is an earlier one's, and begins anew.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::{ADOPT, ALONE, GUARDED, OTHERS, TABLES, Table, UNFINISHED, WORKED};
use crate::{Database, Failure, machinery};

/// What work has left in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Consumers that have read something.
    pub consumers: i64,
    /// Parked commits.
    pub parked: i64,
    /// Recorded effects.
    pub effects: i64,
}

impl Trace {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self { consumers: 0, parked: 0, effects: 0 }
    }
}

/// Looks what has been done in a database, migrated or not.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn target(pool: &PgPool) -> Result<Trace, Failure> {
    let failed = |error| Failure::attempting("look whether the tables are empty")(error);
    let migrated: bool = sqlx::query_scalar("SELECT to_regclass('airstream.effects') IS NOT NULL")
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    if !migrated {
        return Ok(Trace { consumers: 0, parked: 0, effects: 0 });
    }
    let (consumers, parked, effects) = sqlx::query_as(WORKED).fetch_one(pool).await.map_err(failed)?;
    Ok(Trace { consumers, parked, effects })
}

/// The backup whose restore was begun here and did not come to its end, if there is one.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn unfinished(pool: &PgPool) -> Result<Option<String>, Failure> {
    let failed = |error| Failure::attempting("look for an unfinished restore")(error);
    let there: bool = sqlx::query_scalar(UNFINISHED).fetch_one(pool).await.map_err(failed)?;
    if !there {
        return Ok(None);
    }
    // The restore may end between the two questions.
    let backup = sqlx::query_scalar("SELECT backup FROM airstream.unfinished_restore").fetch_optional(pool).await;
    Ok(backup.unwrap_or_default())
}

/// A restore under way. Until [`Restoring::finish`] the database says that it is not to be used.
pub struct Restoring(PgConnection);

impl Restoring {
    /// Marks the database, empties the tables, and makes sure that nobody else works with them. `None` when somebody does.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn begin(database: &Database, backup: &str) -> Result<Option<Self>, Failure> {
        let failed = |error| Failure::attempting("begin the restore")(error);
        let Some(mut connection) = alone(database).await? else { return Ok(None) };
        let before: bool = sqlx::query_scalar(UNFINISHED).fetch_one(&mut connection).await.map_err(failed)?;
        // The mark first: whoever connects after our look will find it, whoever connected before is seen.
        let mark = "CREATE TABLE IF NOT EXISTS airstream.unfinished_restore
                        (backup text NOT NULL, began_at timestamptz NOT NULL DEFAULT now());
                    DELETE FROM airstream.unfinished_restore";
        sqlx::raw_sql(mark).execute(&mut connection).await.map_err(failed)?;
        let note = "INSERT INTO airstream.unfinished_restore (backup) VALUES ($1)";
        sqlx::query(note).bind(backup).execute(&mut connection).await.map_err(failed)?;
        let others: i64 = sqlx::query_scalar(OTHERS).fetch_one(&mut connection).await.map_err(failed)?;
        if others > 0 {
            if !before {
                Self(connection).unmark().await?;
            }
            return Ok(None);
        }
        let names: Vec<String> = TABLES.iter().map(Table::qualified).collect();
        let empty = format!("TRUNCATE {}", names.join(", "));
        sqlx::raw_sql(AssertSqlSafe(empty)).execute(&mut connection).await.map_err(failed)?;
        Ok(Some(Self(connection)))
    }

    /// Takes up a restore that was begun, when nobody else is at work. `None` when somebody is.
    ///
    /// # Errors
    /// When there is none, or Postgres cannot be asked.
    pub async fn resume(database: &Database) -> Result<Option<Self>, Failure> {
        let failed = |error| Failure::attempting("take up the restore")(error);
        let Some(mut connection) = alone(database).await? else { return Ok(None) };
        sqlx::query("SELECT backup FROM airstream.unfinished_restore")
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
        let others: i64 = sqlx::query_scalar(OTHERS).fetch_one(&mut connection).await.map_err(failed)?;
        Ok((others == 0).then_some(Self(connection)))
    }

    /// Copies a table's rows in; how many they were.
    ///
    /// # Errors
    /// When the rows cannot be read or Postgres does not take them. Nothing of the table is there then.
    pub async fn fill(&mut self, table: &Table, mut rows: BoxStream<'_, io::Result<Bytes>>) -> Result<u64, Failure> {
        let failed = |error| Failure::attempting("copy a table in")(error);
        // Postgres copies into no table whose rows it guards from us, but lets us insert.
        let (name, columns) = (table.qualified(), table.columns);
        let guarded: bool = sqlx::query_scalar(GUARDED).bind(&name).fetch_one(&mut self.0).await.map_err(failed)?;
        let into = if guarded { "pg_temp.incoming" } else { name.as_str() };
        if guarded {
            let beside = format!("CREATE TEMPORARY TABLE incoming AS SELECT {columns} FROM {name} WITH NO DATA");
            sqlx::raw_sql(AssertSqlSafe(beside)).execute(&mut self.0).await.map_err(failed)?;
        }
        let sql = format!("COPY {into} ({columns}) FROM STDIN");
        let mut copy = self.0.copy_in_raw(&sql).await.map_err(failed)?;
        while let Some(piece) = rows.next().await {
            match piece {
                Ok(piece) => drop(copy.send(piece).await.map_err(failed)?),
                Err(error) => {
                    copy.abort("the backup cannot be read").await.map_err(failed)?;
                    return Err(failed(sqlx::Error::Io(error)));
                }
            }
        }
        let count = copy.finish().await.map_err(failed)?;
        if guarded {
            let insert = format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM {into}; DROP TABLE {into}");
            sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut self.0).await.map_err(failed)?;
        }
        Ok(count)
    }

    /// Lets the checkpoints of the old log be those of the new one, and the database be used. Together: a platform sees both or
    /// neither.
    ///
    /// # Errors
    /// When Postgres cannot be asked; the mark stays.
    pub async fn finish(mut self, old: &str, new: &str) -> Result<(), Failure> {
        let failed = |error| Failure::attempting("finish the restore")(error);
        let mut transaction = self.0.begin().await.map_err(failed)?;
        sqlx::query(ADOPT).bind(old).bind(new).execute(&mut *transaction).await.map_err(failed)?;
        sqlx::query("DROP TABLE airstream.unfinished_restore").execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        machinery::release(self.0).await;
        Ok(())
    }

    async fn unmark(mut self) -> Result<(), Failure> {
        let removed = sqlx::query("DROP TABLE airstream.unfinished_restore").execute(&mut self.0).await;
        removed.map_err(Failure::attempting("take the mark of the restore away"))?;
        machinery::release(self.0).await;
        Ok(())
    }
}

/// A connection that holds the lock of restores, if nobody else has it.
async fn alone(database: &Database) -> Result<Option<PgConnection>, Failure> {
    let failed = |error| Failure::attempting("look for other restores")(error);
    let mut connection = database.dedicated().await.map_err(failed)?;
    let alone: bool = sqlx::query_scalar(ALONE).fetch_one(&mut connection).await.map_err(failed)?;
    Ok(alone.then_some(connection))
}
