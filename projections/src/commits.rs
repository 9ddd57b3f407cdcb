//! `commits`: every commit by its command id.

use async_trait::async_trait;
use kernel::{CommandId, Position, StreamName, TenantId, Timestamp};
use runtime::{CommitIndex, LogError, Lookup};
use sqlx::{PgConnection, PgPool};

use crate::copy::copy;
use crate::projector::{CommitFacts, ProjectError, Projector};
use crate::{Database, Failure, machinery};

/// The projector.
pub struct Commits;

pub(crate) const INSERT: &str = "
    INSERT INTO commits (tenant_id, category, stream_id, commit_id, position, version, command, actor, types, decided_at)
    SELECT tenant_id, category, stream_id, commit_id, position, version, command, actor,
           string_to_array(types, ','), decided_at
    FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
                $9::text[], $10::timestamptz[])
        AS new (tenant_id, category, stream_id, commit_id, position, version, command, actor, types, decided_at)
    ON CONFLICT (tenant_id, category, stream_id, commit_id) DO NOTHING";

#[async_trait]
impl Projector for Commits {
    const NAME: &'static str = "commits";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = &[];
    const TABLES: &'static [&'static str] = &["commits"];

    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        fn column<'a, T>(commits: &'a [CommitFacts<'_>], of: impl Fn(&'a CommitFacts<'_>) -> T) -> Vec<T> {
            commits.iter().map(of).collect()
        }
        let types = |facts: &CommitFacts<'_>| match facts.commit.events.as_slice() {
            [only] => only.type_name.to_string(),
            events => events.iter().map(|event| event.type_name.as_ref()).collect::<Vec<_>>().join(","),
        };
        sqlx::query(INSERT)
            .bind(column(commits, |facts| facts.stream.tenant.as_str()))
            .bind(column(commits, |facts| facts.stream.category.as_str()))
            .bind(column(commits, |facts| facts.stream.id.as_str()))
            .bind(column(commits, |facts| facts.commit.id()))
            .bind(column(commits, |facts| machinery::number(facts.position)))
            .bind(column(commits, |facts| facts.commit.version_after() as i64))
            .bind(column(commits, |facts| facts.commit.first().command.as_ref()))
            .bind(column(commits, |facts| facts.commit.first().actor.as_ref()))
            .bind(column(commits, types))
            .bind(column(commits, |facts| facts.commit.first().time))
            .execute(tables)
            .await?;
        Ok(())
    }

    async fn load(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        copy(tables, COPY, commits, |facts, row| {
            let (stream, commit) = (facts.stream, &facts.commit);
            row.text(stream.tenant.as_str()).text(stream.category.as_str()).text(stream.id.as_str()).text(commit.id());
            row.number(machinery::number(facts.position)).number(commit.version_after() as i64);
            row.text(&commit.first().command).text(&commit.first().actor);
            row.texts(commit.events.iter().map(|event| event.type_name.as_ref())).time(commit.first().time);
        })
        .await?;
        Ok(())
    }
}

const COPY: &str =
    "commits (tenant_id, category, stream_id, commit_id, position, version, command, actor, types, decided_at)";

/// The executor's memory beyond recent commits.
pub struct PgCommitIndex {
    pool: PgPool,
    log: String,
}

impl PgCommitIndex {
    /// Reads the projection of the log with that identity; rows of another log prove nothing.
    #[must_use]
    pub fn new(database: &Database, log: String) -> Self {
        Self { pool: database.pool().clone(), log }
    }
}

// One statement, one snapshot: the coverage must not be newer than the search. What is parked has no row.
pub(crate) const FIND: &str = "
    SELECT (SELECT position FROM commits_v1.commits
            WHERE tenant_id = $1 AND category = $2 AND stream_id = $3 AND commit_id = $4),
           LEAST(COALESCE((SELECT position FROM airstream.checkpoints WHERE consumer = 'commits_v1' AND log = $5), 0),
                 COALESCE((SELECT min(position) - 1 FROM airstream.parked WHERE consumer = 'commits_v1'), 9223372036854775807))";

#[async_trait]
impl CommitIndex for PgCommitIndex {
    async fn find(&self, stream: &StreamName, id: &CommandId) -> Result<Lookup, LogError> {
        let (found, covers): (Option<i64>, i64) = sqlx::query_as(FIND)
            .bind(stream.tenant.as_str())
            .bind(stream.category.as_str())
            .bind(stream.id.as_str())
            .bind(id.as_str())
            .bind(&self.log)
            .fetch_one(&self.pool)
            .await
            .map_err(|error| LogError { attempt: "look up a command id", reason: error.to_string() })?;
        Ok(match found {
            Some(position) => Lookup::Found(machinery::position(position)),
            None => Lookup::Absent { covers: machinery::position(covers) },
        })
    }
}

/// A commit as lists show it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct CommitRow {
    /// The command's id.
    #[schema(example = "order-42")]
    pub command_id: String,
    /// Category of its stream.
    #[schema(example = "run")]
    pub category: String,
    /// The stream within the category.
    #[schema(example = "run_5")]
    pub id: String,
    /// The command's wire name.
    #[schema(example = "start")]
    pub command: String,
    /// Who asked.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub actor: String,
    /// Where it stands in the log.
    #[schema(value_type = String, example = "p1-2a")]
    pub position: Position,
    /// The stream's version after it.
    pub version: i64,
    /// Its events' types.
    #[schema(example = json!(["run.started", "run.step_scheduled"]))]
    pub types: Vec<String>,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: Timestamp,
}

type Columns = (String, String, String, String, String, i64, i64, Vec<String>, Timestamp);

impl From<Columns> for CommitRow {
    fn from((command_id, category, id, command, actor, position, version, types, decided_at): Columns) -> Self {
        let position = machinery::position(position);
        Self { command_id, category, id, command, actor, position, version, types, decided_at }
    }
}

pub(crate) const LIST: &str = "
    SELECT commit_id, category, stream_id, command, actor, position, version, types, decided_at
    FROM commits_v1.commits WHERE tenant_id = $1 AND position < $2 ORDER BY position DESC LIMIT $3";
pub(crate) const BY_ID: &str = "
    SELECT commit_id, category, stream_id, command, actor, position, version, types, decided_at
    FROM commits_v1.commits WHERE tenant_id = $1 AND commit_id = $2 ORDER BY position";

/// A tenant's commits before a position, newest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn list(
    pool: &PgPool,
    tenant: &TenantId,
    before: Option<Position>,
    limit: i64,
) -> Result<Vec<CommitRow>, Failure> {
    let before = before.map_or(i64::MAX, machinery::number);
    let rows: Vec<Columns> = sqlx::query_as(LIST)
        .bind(tenant.as_str())
        .bind(before)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("list commits"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The commits of a command id: one per stream that it was used on.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn by_id(pool: &PgPool, tenant: &TenantId, id: &str) -> Result<Vec<CommitRow>, Failure> {
    let rows: Vec<Columns> = sqlx::query_as(BY_ID)
        .bind(tenant.as_str())
        .bind(id)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("find a commit"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub(crate) const NTH_NEWEST: &str =
    "SELECT position FROM commits_v1.commits WHERE tenant_id = $1 ORDER BY position DESC LIMIT 1 OFFSET $2";
pub(crate) const OLDEST: &str =
    "SELECT position FROM commits_v1.commits WHERE tenant_id = $1 ORDER BY position LIMIT 1";

/// Where a tenant's n-th newest commit stands (0 is the newest); its oldest when it has fewer.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn nth_newest(pool: &PgPool, tenant: &TenantId, n: i64) -> Result<Option<Position>, Failure> {
    let failed = |error| Failure::attempting("find a tenant's recent commits")(error);
    let found: Option<i64> =
        sqlx::query_scalar(NTH_NEWEST).bind(tenant.as_str()).bind(n).fetch_optional(pool).await.map_err(failed)?;
    let found = match found {
        Some(found) => Some(found),
        None => sqlx::query_scalar(OLDEST).bind(tenant.as_str()).fetch_optional(pool).await.map_err(failed)?,
    };
    Ok(found.map(machinery::position))
}
