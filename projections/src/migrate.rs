//! Migrations: numbered SQL, embedded, never edited after release. Each file's checksum is kept with the database, and
//! a test keeps the released ones.

use std::borrow::Cow;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{PgPool, SqlSafeStr};

macro_rules! embedded {
    ($($version:literal $name:literal),+ $(,)?) => {
        [$((
            $version,
            $name,
            include_str!(concat!("../../migrations/", $version, "_", $name, ".sql")),
        )),+]
    };
}

/// Every migration: number, name, SQL.
#[must_use]
pub fn migrations() -> Vec<(&'static str, &'static str, &'static str)> {
    embedded! {
        "0001" "machinery",
        "0002" "commits",
        "0003" "workflows",
        "0004" "runs",
        "0005" "inbox",
        "0006" "leases",
        "0007" "create_snapshots",
        "0008" "folds",
        "0009" "identity",
        "0010" "mail",
        "0011" "tenants",
        "0012" "gateway",
        "0013" "audit",
    }
    .to_vec()
}

fn migrator() -> Migrator {
    let migrations = migrations().into_iter().map(|(number, name, sql)| {
        let version = number.parse().expect("migrations are numbered");
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator { migrations: Cow::Owned(migrations.collect()), ..Migrator::DEFAULT }
}

/// What a migration run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// How many were applied now.
    pub applied: usize,
    /// How many there are.
    pub total: usize,
}

/// Where a database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    /// Number and name.
    pub name: String,
    /// Whether it has been applied.
    pub applied: bool,
}

/// Applies what is missing. Several processes may call it at once: one applies, the others wait.
///
/// # Errors
/// When a file differs from what was applied under its number, the database is newer than this program, or SQL fails.
pub async fn migrate(pool: &PgPool) -> Result<Migrated, MigrateError> {
    let before = migration_state(pool).await?.iter().filter(|state| state.applied).count();
    migrator().run(pool).await?;
    let total = migrations().len();
    Ok(Migrated { applied: total.saturating_sub(before), total })
}

/// Which migrations have been applied. Changes nothing.
///
/// # Errors
/// When the database cannot be asked.
pub async fn migration_state(pool: &PgPool) -> Result<Vec<MigrationState>, MigrateError> {
    let mut connection = pool.acquire().await?;
    let known: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    let applied = if known { connection.list_applied_migrations("_sqlx_migrations").await? } else { Vec::new() };
    let migrator = migrator();
    let states = migrator.migrations.iter().map(|migration| MigrationState {
        name: format!("{:04}_{}", migration.version, migration.description),
        applied: applied.iter().any(|found| found.version == migration.version),
    });
    Ok(states.collect())
}
