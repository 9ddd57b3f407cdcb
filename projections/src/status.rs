//! What people ask about consumers: how far they are, what they parked; and what they tell them: retry, skip.

use kernel::{Position, TenantId, Timestamp};
use sqlx::PgPool;

use crate::{Failure, machinery};

/// A consumer's checkpoint.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct ConsumerRow {
    /// Its name.
    pub consumer: String,
    /// The last position it has handled or parked.
    #[schema(value_type = String)]
    pub position: Position,
    /// When it last moved.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Commits in its parking lot.
    pub parked: i64,
    /// Effects that wait for their time or their turn.
    pub effects_scheduled: i64,
    /// Effects that wait for a person.
    pub effects_parked: i64,
}

pub(crate) const CONSUMERS: &str = "
    SELECT consumer, position, updated_at,
        (SELECT count(*) FROM airstream.parked p WHERE p.consumer = c.consumer AND p.state <> 'skipped'),
        (SELECT count(*) FROM airstream.effects e WHERE e.consumer = c.consumer AND e.state = 'scheduled'),
        (SELECT count(*) FROM airstream.effects e WHERE e.consumer = c.consumer AND e.state = 'parked')
    FROM airstream.checkpoints c ORDER BY consumer";

/// Every consumer.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn consumers(pool: &PgPool) -> Result<Vec<ConsumerRow>, Failure> {
    let rows: Vec<(String, i64, Timestamp, i64, i64, i64)> =
        sqlx::query_as(CONSUMERS).fetch_all(pool).await.map_err(Failure::attempting("list consumers"))?;
    let row = |(consumer, position, updated_at, parked, effects_scheduled, effects_parked)| ConsumerRow {
        consumer,
        position: machinery::position(position),
        updated_at,
        parked,
        effects_scheduled,
        effects_parked,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Something in a parking lot: a commit, or an effect.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct ParkedRow {
    /// Names it: `<consumer>@<position>` for a commit, `<consumer>!<category>/<stream>!<effect>` for an effect.
    pub id: String,
    /// `commit` or `effect`.
    pub kind: String,
    /// Who parked it.
    pub consumer: String,
    /// Where the commit stands in the log.
    #[schema(value_type = Option<String>)]
    pub position: Option<Position>,
    /// The commit's subject, or the effect's stream.
    pub subject: String,
    /// `cause`, `behind` or `skipped`; `parked` for an effect.
    pub state: String,
    /// Why.
    pub reason: String,
    /// How often it has been tried.
    pub tries: i32,
    /// Since when.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub parked_at: Option<Timestamp>,
}

pub(crate) const PARKED: &str = "
    SELECT consumer || '@' || position, 'commit', consumer, position, subject, state, reason, tries, parked_at
    FROM airstream.parked WHERE ($1::text IS NULL OR tenant_id = $1) AND (state <> 'skipped' OR $2)
    UNION ALL
    SELECT consumer || '!' || category || '/' || stream_id || '!' || name, 'effect', consumer, NULL,
           category || '/' || stream_id, state, note, attempts, settled_at
    FROM airstream.effects WHERE ($1::text IS NULL OR tenant_id = $1) AND state = 'parked'
    ORDER BY 3, 4 LIMIT $3";

/// A tenant's parked commits and effects; everybody's when no tenant is named, including what stands under a subject that
/// names none.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn parked(
    pool: &PgPool,
    tenant: Option<&TenantId>,
    with_skipped: bool,
    limit: i64,
) -> Result<Vec<ParkedRow>, Failure> {
    type Columns = (String, String, String, Option<i64>, String, String, String, i32, Option<Timestamp>);
    let rows: Vec<Columns> = sqlx::query_as(PARKED)
        .bind(tenant.map(TenantId::as_str))
        .bind(with_skipped)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("list what is parked"))?;
    let row = |(id, kind, consumer, position, subject, state, reason, tries, parked_at): Columns| ParkedRow {
        id,
        kind,
        consumer,
        position: position.map(machinery::position),
        subject,
        state,
        reason,
        tries,
        parked_at,
    };
    Ok(rows.into_iter().map(row).collect())
}

pub(crate) const RETRY: &str = "
    UPDATE airstream.parked AS row SET released = true FROM airstream.parked AS wanted
    WHERE ($1::text IS NULL OR wanted.tenant_id = $1) AND wanted.consumer || '@' || wanted.position = $2 AND wanted.state <> 'skipped'
        AND row.consumer = wanted.consumer AND row.subject = wanted.subject AND row.state <> 'skipped'";
pub(crate) const RETRY_EFFECT: &str = "
    UPDATE airstream.effects SET revive = true
    WHERE ($1::text IS NULL OR tenant_id = $1) AND state = 'parked' AND consumer || '!' || category || '/' || stream_id || '!' || name = $2";

/// Asks the owner to handle what is parked, and what waits behind it, now. `false` when there is no such thing.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn retry(pool: &PgPool, tenant: Option<&TenantId>, id: &str) -> Result<bool, Failure> {
    let sql = if id.contains('!') { RETRY_EFFECT } else { RETRY };
    let changed = sqlx::query(sql)
        .bind(tenant.map(TenantId::as_str))
        .bind(id)
        .execute(pool)
        .await
        .map_err(Failure::attempting("release what is parked"))?;
    Ok(changed.rows_affected() > 0)
}

pub(crate) const SKIP: &str = "
    WITH skipped AS (
        UPDATE airstream.parked SET state = 'skipped', released = true, reason = reason || ' — skipped: ' || $3
        WHERE ($1::text IS NULL OR tenant_id = $1) AND consumer || '@' || position = $2 AND state <> 'skipped'
        RETURNING consumer, subject, position)
    UPDATE airstream.parked AS behind SET released = true FROM skipped
    WHERE behind.consumer = skipped.consumer AND behind.subject = skipped.subject AND behind.state <> 'skipped'
        AND behind.position <> skipped.position";
pub(crate) const IS_SKIPPED: &str = "SELECT count(*) FROM airstream.parked WHERE ($1::text IS NULL OR tenant_id = $1) AND consumer || '@' || position = $2 AND state = 'skipped'";
pub(crate) const SKIP_EFFECT: &str = "
    UPDATE airstream.effects SET state = 'done', settled_at = now(), note = note || ' — skipped: ' || $3
    WHERE ($1::text IS NULL OR tenant_id = $1) AND state = 'parked' AND consumer || '!' || category || '/' || stream_id || '!' || name = $2";

/// Leaves a parked commit or effect out for good, with a reason that stays visible, and releases what waits behind it.
/// `false` when there is no such thing.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn skip(pool: &PgPool, tenant: Option<&TenantId>, id: &str, reason: &str) -> Result<bool, Failure> {
    let failed = |error| Failure::attempting("skip what is parked")(error);
    let (tenant, effect) = (tenant.map(TenantId::as_str), id.contains('!'));
    let sql = if effect { SKIP_EFFECT } else { SKIP };
    let changed = sqlx::query(sql).bind(tenant).bind(id).bind(reason).execute(pool).await.map_err(failed)?;
    if effect {
        return Ok(changed.rows_affected() > 0);
    }
    let found: i64 = sqlx::query_scalar(IS_SKIPPED).bind(tenant).bind(id).fetch_one(pool).await.map_err(failed)?;
    Ok(found > 0)
}
