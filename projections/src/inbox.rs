//! `inbox`: queued commands that were refused.

use async_trait::async_trait;
use events::inbox::Event;
use kernel::{Position, TenantId, Timestamp};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::projector::{CommitFacts, ProjectError, Projector};
use crate::{Failure, machinery};

/// The projector.
pub struct Inbox;

pub(crate) const REJECT: &str = "
    INSERT INTO rejected (tenant_id, inbox_id, command_id, category, stream_id, command, principal, status, code, detail,
                          body, taken_at, position)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (tenant_id, inbox_id) DO NOTHING";
pub(crate) const DISMISS: &str = "UPDATE rejected SET dismissed = true WHERE tenant_id = $1 AND inbox_id = $2";

#[async_trait]
impl Projector for Inbox {
    const NAME: &'static str = "inbox";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = &[events::inbox::CATEGORY];
    const TABLES: &'static [&'static str] = &["rejected"];

    // Row by row: refusals of queued commands are rare, and each is read by a person.
    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        for facts in commits {
            let (tenant, id) = (facts.stream.tenant.as_str(), facts.stream.id.as_str());
            for envelope in &facts.commit.events {
                match envelope.decode::<Event>()? {
                    Event::CommandRejected(rejected) => {
                        sqlx::query(REJECT)
                            .bind(tenant)
                            .bind(id)
                            .bind(rejected.command_id)
                            .bind(rejected.category)
                            .bind(rejected.id)
                            .bind(rejected.command)
                            .bind(rejected.principal)
                            .bind(i32::from(rejected.status))
                            .bind(rejected.code)
                            .bind(rejected.detail)
                            .bind((!rejected.body.is_null()).then_some(rejected.body))
                            .bind(rejected.taken_at)
                            .bind(machinery::number(facts.position))
                            .execute(&mut *tables)
                            .await?;
                    }
                    Event::CommandDismissed(_) => {
                        sqlx::query(DISMISS).bind(tenant).bind(id).execute(&mut *tables).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A queued command that was refused.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct RejectedRow {
    /// Names the refusal.
    #[schema(example = "queue_1_660b2968d5d81")]
    pub inbox_id: String,
    /// The command's id.
    #[schema(example = "cancel-7")]
    pub command_id: String,
    /// Category of the stream it addressed.
    #[schema(example = "run")]
    pub category: String,
    /// The stream within the category.
    #[schema(example = "run_ghost")]
    pub id: String,
    /// The command's wire name.
    #[schema(example = "cancel")]
    pub command: String,
    /// Who asked.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub principal: String,
    /// HTTP status of the refusal.
    #[schema(example = 404)]
    pub status: i32,
    /// Stable name of the refusal.
    #[schema(example = "unknown_run")]
    pub code: String,
    /// Why.
    #[schema(example = "There is no run `run_ghost`.")]
    pub detail: String,
    /// The command's body.
    #[schema(example = json!({"reason": "no longer needed"}))]
    pub body: Option<Value>,
    /// When it was taken from the queue.
    #[schema(value_type = String, format = DateTime)]
    pub taken_at: Timestamp,
    /// Where the refusal stands in the log.
    #[schema(value_type = String, example = "p1-2b")]
    pub position: Position,
}

type Columns = (String, String, String, String, String, String, i32, String, String, Option<Value>, Timestamp, i64);

impl From<Columns> for RejectedRow {
    fn from(columns: Columns) -> Self {
        let (inbox_id, command_id, category, id, command, principal, status, code, detail, body, taken_at, position) =
            columns;
        let position = machinery::position(position);
        Self { inbox_id, command_id, category, id, command, principal, status, code, detail, body, taken_at, position }
    }
}

pub(crate) const LIST: &str = "
    SELECT inbox_id, command_id, category, stream_id, command, principal, status, code, detail, body, taken_at, position
    FROM inbox_v1.rejected WHERE tenant_id = $1 AND position < $2 AND NOT dismissed ORDER BY position DESC LIMIT $3";
pub(crate) const BY_COMMAND: &str = "
    SELECT inbox_id, command_id, category, stream_id, command, principal, status, code, detail, body, taken_at, position
    FROM inbox_v1.rejected WHERE tenant_id = $1 AND command_id = $2 ORDER BY position";

/// A tenant's refusals before a position, newest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn list(
    pool: &PgPool,
    tenant: &TenantId,
    before: Option<Position>,
    limit: i64,
) -> Result<Vec<RejectedRow>, Failure> {
    let rows: Vec<Columns> = sqlx::query_as(LIST)
        .bind(tenant.as_str())
        .bind(before.map_or(i64::MAX, machinery::number))
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("list refused commands"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The refusals of a command id.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn by_command(pool: &PgPool, tenant: &TenantId, command_id: &str) -> Result<Vec<RejectedRow>, Failure> {
    let rows: Vec<Columns> = sqlx::query_as(BY_COMMAND)
        .bind(tenant.as_str())
        .bind(command_id)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("find a refused command"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}
