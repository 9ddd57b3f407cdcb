//! The parking lot as people see it: what waits in it and why, and what they say about it: retry, skip.

use kernel::{Position, TenantId, Timestamp};
use sqlx::PgPool;

use crate::{Failure, machinery};

/// Something in a parking lot: a commit, or an effect.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct ParkedRow {
    /// Names it: `<consumer>@<position>` for a commit, `<consumer>!<category>/<stream>!<effect>` for an effect.
    #[schema(example = "runs_v1@42")]
    pub id: String,
    /// `commit` or `effect`.
    #[schema(example = "commit")]
    pub kind: String,
    /// Who parked it.
    #[schema(example = "runs_v1")]
    pub consumer: String,
    /// Where the commit stands in the log.
    #[schema(value_type = Option<String>, example = "p1-2a")]
    pub position: Option<Position>,
    /// The commit's subject, or the effect's stream.
    #[schema(example = "ev.3.acme.run.run_5")]
    pub subject: String,
    /// `cause`, `behind` or `skipped`; `parked` for an effect.
    #[schema(example = "cause")]
    pub state: String,
    /// Why.
    #[schema(example = "a value is too long")]
    pub reason: String,
    /// How often it has been tried.
    #[schema(example = 3)]
    pub tries: i32,
    /// Since when.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub parked_at: Option<Timestamp>,
}

/// Which of what is parked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// A tenant's; everybody's when none is named, including what stands under a subject that names none.
    pub tenant: Option<&'a TenantId>,
    /// Only this consumer's.
    pub consumer: Option<&'a str>,
    /// Only the one with this id.
    pub id: Option<&'a str>,
    /// Also what was skipped.
    pub with_skipped: bool,
    /// Only what comes after this id.
    pub after: Option<&'a str>,
}

// Commits before effects, in the order of the log; an id alone says where in that order it stands.
pub(crate) const LIST: &str = "
    WITH lot AS (
        SELECT consumer || '@' || position AS id, 'commit' AS kind, consumer, position, subject, state, reason, tries,
               parked_at, position AS place
        FROM airstream.parked WHERE ($1::text IS NULL OR tenant_id = $1) AND (state <> 'skipped' OR $2)
        UNION ALL
        SELECT consumer || '!' || category || '/' || stream_id || '!' || name, 'effect', consumer, NULL,
               category || '/' || stream_id, state, note, attempts, settled_at, 9223372036854775807
        FROM airstream.effects WHERE ($1::text IS NULL OR tenant_id = $1) AND state = 'parked')
    SELECT id, kind, consumer, position, subject, state, reason, tries, parked_at FROM lot
    WHERE ($3::text IS NULL OR consumer = $3) AND ($4::text IS NULL OR id = $4)
        AND ($5::text IS NULL OR (consumer, place, id) > ($5, $6, $7))
    ORDER BY consumer, place, id LIMIT $8";

/// What is parked: consumer after consumer, commits in the order of the log, then effects.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn list(pool: &PgPool, wanted: Wanted<'_>, limit: i64) -> Result<Vec<ParkedRow>, Failure> {
    type Columns = (String, String, String, Option<i64>, String, String, String, i32, Option<Timestamp>);
    let after = wanted.after.map(place);
    let rows: Vec<Columns> = sqlx::query_as(LIST)
        .bind(wanted.tenant.map(TenantId::as_str))
        .bind(wanted.with_skipped)
        .bind(wanted.consumer)
        .bind(wanted.id)
        .bind(after.map(|(consumer, _)| consumer))
        .bind(after.map(|(_, place)| place))
        .bind(wanted.after)
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

/// The consumer and the place that an id stands for.
fn place(id: &str) -> (&str, i64) {
    match id.split_once('!') {
        Some((consumer, _)) => (consumer, i64::MAX),
        None => {
            let (consumer, position) = id.rsplit_once('@').unwrap_or((id, ""));
            (consumer, position.parse().unwrap_or(0))
        }
    }
}

pub(crate) const RETRY: &str = "
    UPDATE airstream.parked AS row SET released = true FROM airstream.parked AS wanted
    WHERE ($1::text IS NULL OR wanted.tenant_id = $1) AND wanted.consumer || '@' || wanted.position = $2 AND wanted.state <> 'skipped'
        AND row.consumer = wanted.consumer AND row.subject = wanted.subject AND row.state <> 'skipped'";
pub(crate) const RETRY_EFFECT: &str = "
    UPDATE airstream.effects SET revive = true
    WHERE ($1::text IS NULL OR tenant_id = $1) AND state = 'parked' AND consumer || '!' || category || '/' || stream_id || '!' || name = $2";

/// Asks the owner to handle what is parked, and what waits behind it, now. How many commits and effects that are; 0 when
/// there is no such thing.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn retry(pool: &PgPool, tenant: Option<&TenantId>, id: &str) -> Result<u64, Failure> {
    let sql = if id.contains('!') { RETRY_EFFECT } else { RETRY };
    let changed = sqlx::query(sql)
        .bind(tenant.map(TenantId::as_str))
        .bind(id)
        .execute(pool)
        .await
        .map_err(Failure::attempting("release what is parked"))?;
    Ok(changed.rows_affected())
}

pub(crate) const RETRY_ALL: &str = "
    WITH commits AS (
        UPDATE airstream.parked SET released = true
        WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR consumer = $2) AND state <> 'skipped'
        RETURNING 1),
    effects AS (
        UPDATE airstream.effects SET revive = true
        WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR consumer = $2) AND state = 'parked'
        RETURNING 1)
    SELECT (SELECT count(*) FROM commits) + (SELECT count(*) FROM effects)";

/// Asks the owners to handle everything that is parked, of one consumer or of all. How many commits and effects that are.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn retry_all(pool: &PgPool, tenant: Option<&TenantId>, consumer: Option<&str>) -> Result<u64, Failure> {
    let released: i64 = sqlx::query_scalar(RETRY_ALL)
        .bind(tenant.map(TenantId::as_str))
        .bind(consumer)
        .fetch_one(pool)
        .await
        .map_err(Failure::attempting("release what is parked"))?;
    Ok(u64::try_from(released).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_it_stands() {
        assert_eq!(place("runs_v1@42"), ("runs_v1", 42));
        assert_eq!(place("steps!run/a@b!1/request"), ("steps", i64::MAX));
        assert_eq!(place("nonsense"), ("nonsense", 0));
    }
}
