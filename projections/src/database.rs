//! Connections to Postgres.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use crate::Failure;

/// A Postgres database: a pool for short work, and dedicated connections for owners of consumers.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    options: PgConnectOptions,
}

/// A process that is paused in the middle of a transaction keeps what it has locked, such as a checkpoint that the next
/// owner waits for. Postgres ends such a session.
pub(crate) const ABANDONED: (&str, &str) = ("idle_in_transaction_session_timeout", "5s");

/// A connection that has not been used for so long is asked whether it is still one.
const SILENT: Duration = Duration::from_secs(1);

impl Database {
    /// Connects.
    ///
    /// # Errors
    /// When the address is not one, or nobody answers there.
    pub async fn open(url: &str, max_connections: u32) -> Result<Self, Failure> {
        Self::open_as("airstream", url, max_connections).await
    }

    /// As [`Database::open`], with another name in the server's list of sessions than those that work with the tables have: a
    /// restore must be able to see that it is alone.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub async fn open_as(name: &str, url: &str, max_connections: u32) -> Result<Self, Failure> {
        let options = PgConnectOptions::from_str(url)
            .map_err(Failure::attempting("read the address of Postgres"))?
            .application_name(name)
            // Never the default `"$user", public`: a role called like one of our schemas would look for the list of
            // applied migrations there, find none, and begin anew.
            // And row-level security lets the platform see what it says that it is the platform for (`scoped.rs`).
            .options([("search_path", "public"), ("airstream.scope", "platform"), ABANDONED])
            .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(2))
            .log_statements(log::LevelFilter::Trace);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(5))
            // A question before each question would double the way. Only a connection that has been silent for a while may
            // have lost its server without anybody having noticed.
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for > SILENT {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options.clone())
            .await
            .map_err(Failure::attempting("connect to Postgres"))?;
        Ok(Self { pool, options })
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection of one's own: its settings are not those of the pool, and session locks live and die with it.
    pub(crate) async fn dedicated(&self) -> Result<PgConnection, sqlx::Error> {
        // A limit that somebody has put on statements is meant for questions. Here it would stop a consumer for good: what
        // takes too long once takes too long every time.
        let patient =
            self.options.clone().options([("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")]);
        PgConnection::connect_with(&patient).await
    }

    /// Closes the pool after its last query.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
