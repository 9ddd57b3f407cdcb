//! Copying out: every table as it was at one moment, whatever is written meanwhile.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sqlx::PgConnection;

use super::{FARTHEST, SNAPSHOT, Table};
use crate::{Database, Failure, machinery};

/// One moment of the database, held as long as this lives. Nobody has to wait for it.
pub struct Source(PgConnection);

impl Source {
    /// Takes the moment.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn of(database: &Database) -> Result<Self, Failure> {
        let failed = |error| Failure::attempting("take a snapshot of the tables")(error);
        let mut connection = database.dedicated().await.map_err(failed)?;
        sqlx::query(SNAPSHOT).execute(&mut connection).await.map_err(failed)?;
        // The first query takes it.
        sqlx::query("SELECT 1").execute(&mut connection).await.map_err(failed)?;
        Ok(Self(connection))
    }

    /// The server's version.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn server_version(&mut self) -> Result<String, Failure> {
        let version = sqlx::query_scalar("SELECT current_setting('server_version')").fetch_one(&mut self.0).await;
        version.map_err(Failure::attempting("ask for the server's version"))
    }

    /// How far any consumer of this log had come.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn farthest(&mut self, log: &str) -> Result<u64, Failure> {
        let found: Option<i64> = sqlx::query_scalar(FARTHEST)
            .bind(log)
            .fetch_one(&mut self.0)
            .await
            .map_err(Failure::attempting("look how far the consumers are"))?;
        Ok(machinery::position(found.unwrap_or_default()).sequence())
    }

    /// A table's rows, a line each, in the text format of `COPY`.
    ///
    /// # Errors
    /// When Postgres cannot be asked, at once or in the middle.
    pub async fn rows(&mut self, table: &Table) -> Result<BoxStream<'_, Result<Bytes, Failure>>, Failure> {
        let failed = |error| Failure::attempting("copy a table out")(error);
        let sql = table.copy_out();
        let rows = self.0.copy_out_raw(&sql).await.map_err(failed)?;
        Ok(rows.map(move |piece| piece.map_err(failed)).boxed())
    }
}
