//! What tenants and people are shown of it.

use kernel::{Cursor, TenantId, Timestamp};
use sqlx::PgPool;

use super::{Entry, Row, of_row};
use crate::scoped::Scoped;
use crate::{Failure, machinery};

pub(crate) const LIST: &str = "
    SELECT tenant_id, position, number, at, actor, action, category, subject, correlation, data, hash
    FROM audit_v1.entries
    WHERE tenant_id = $1 AND (position, number) < ($2, $3) AND ($4::text IS NULL OR actor = $4)
        AND ($5::text IS NULL OR action = $5) AND ($6::timestamptz IS NULL OR at >= $6)
        AND ($7::timestamptz IS NULL OR at < $7)
    ORDER BY position DESC, number DESC LIMIT $8";
pub(crate) const OF_PERSON: &str = "
    SELECT tenant_id, position, number, at, actor, action, category, subject, correlation, data, hash
    FROM audit_v1.entries
    WHERE tenant_id = $1 AND category = 'person' AND subject = $2 AND (position, number) < ($3, $4)
    ORDER BY position DESC, number DESC LIMIT $5";

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only by this one.
    pub actor: Option<String>,
    /// Only events of this type.
    pub action: Option<String>,
    /// Only from then on.
    pub since: Option<Timestamp>,
    /// Only before then.
    pub until: Option<Timestamp>,
    /// Only what stands before this.
    pub before: Option<Cursor>,
}

/// A row of the audit.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// What it says.
    pub entry: Entry,
    /// Its link in the chain, in hexadecimal.
    pub hash: String,
}

impl AuditRow {
    /// Where it stands.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let index = u32::try_from(self.entry.number).unwrap_or_default();
        Cursor { position: machinery::position(self.entry.position), index }
    }
}

impl From<Row> for AuditRow {
    fn from(row: Row) -> Self {
        let (entry, hash) = of_row(row);
        Self { entry, hash: hex(&hash) }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bounds(before: Option<Cursor>) -> (i64, i32) {
    before.map_or((i64::MAX, 0), |cursor| {
        (machinery::number(cursor.position), i32::try_from(cursor.index).unwrap_or(i32::MAX))
    })
}

/// A tenant's rows, the newest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn list(pool: &PgPool, tenant: &TenantId, wanted: &Wanted, limit: i64) -> Result<Vec<AuditRow>, Failure> {
    let failed = Failure::attempting("read the audit");
    let (position, number) = bounds(wanted.before);
    let mut scoped = Scoped::to(pool, tenant).await?;
    let rows: Vec<Row> = sqlx::query_as(LIST)
        .bind(tenant.as_str())
        .bind(position)
        .bind(number)
        .bind(&wanted.actor)
        .bind(&wanted.action)
        .bind(wanted.since)
        .bind(wanted.until)
        .bind(limit)
        .fetch_all(scoped.connection())
        .await
        .map_err(failed)?;
    scoped.finish().await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// What happened to a person, the newest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn of_person(
    pool: &PgPool,
    person: &str,
    before: Option<Cursor>,
    limit: i64,
) -> Result<Vec<AuditRow>, Failure> {
    let (position, number) = bounds(before);
    let rows: Result<Vec<Row>, _> = sqlx::query_as(OF_PERSON)
        .bind(super::PEOPLE)
        .bind(person)
        .bind(position)
        .bind(number)
        .bind(limit)
        .fetch_all(pool)
        .await;
    Ok(rows.map_err(Failure::attempting("read somebody's history"))?.into_iter().map(Into::into).collect())
}
