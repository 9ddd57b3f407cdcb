//! `workflows`: every definition of every workflow.

use async_trait::async_trait;
use events::workflow::Event;
use kernel::{TenantId, Timestamp};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::projector::{CommitFacts, ProjectError, Projector};
use crate::{Failure, machinery};

/// The projector.
pub struct Workflows;

pub(crate) const DEFINE: &str = "
    INSERT INTO definitions (tenant_id, workflow_id, version, hash, document, definition, defined_at, defined_by)
    SELECT * FROM UNNEST($1::text[], $2::text[], $3::integer[], $4::text[], $5::jsonb[], $6::jsonb[],
                         $7::timestamptz[], $8::text[])
    ON CONFLICT (tenant_id, workflow_id, version) DO NOTHING";
// The newest word on a workflow wins; DISTINCT ON because one statement must not touch a row twice.
pub(crate) const UPSERT: &str = "
    INSERT INTO workflows (tenant_id, workflow_id, latest_version, name, status, changed_at, position)
    SELECT DISTINCT ON (tenant_id, workflow_id)
           tenant_id, workflow_id, version, name, status, changed_at, position
    FROM UNNEST($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[])
         WITH ORDINALITY AS new (tenant_id, workflow_id, version, name, status, changed_at, position, turn)
    ORDER BY tenant_id, workflow_id, turn DESC
    ON CONFLICT (tenant_id, workflow_id) DO UPDATE SET
        latest_version = GREATEST(EXCLUDED.latest_version, workflows.latest_version),
        name = CASE WHEN EXCLUDED.latest_version = 0 THEN workflows.name ELSE EXCLUDED.name END,
        status = EXCLUDED.status, changed_at = EXCLUDED.changed_at, position = EXCLUDED.position
    WHERE workflows.position < EXCLUDED.position";

#[derive(Default)]
struct Definitions {
    tenant: Vec<String>,
    workflow: Vec<String>,
    version: Vec<i32>,
    hash: Vec<String>,
    document: Vec<Value>,
    definition: Vec<Value>,
    at: Vec<Timestamp>,
    by: Vec<String>,
}

#[derive(Default)]
struct Latest {
    tenant: Vec<String>,
    workflow: Vec<String>,
    version: Vec<i32>,
    name: Vec<Option<String>>,
    status: Vec<&'static str>,
    at: Vec<Timestamp>,
    position: Vec<i64>,
}

#[async_trait]
impl Projector for Workflows {
    const NAME: &'static str = "workflows";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = &[events::workflow::CATEGORY];
    const TABLES: &'static [&'static str] = &["definitions", "workflows"];

    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        let (mut rows, mut latest) = (Definitions::default(), Latest::default());
        for facts in commits {
            for envelope in &facts.commit.events {
                let (version, name, status) = match envelope.decode::<Event>()? {
                    Event::Defined(defined) => {
                        let version = i32::try_from(defined.version).unwrap_or(i32::MAX);
                        let definition = serde_json::to_value(&*defined.definition).unwrap_or_default();
                        rows.tenant.push(facts.stream.tenant.to_string());
                        rows.workflow.push(facts.stream.id.to_string());
                        rows.version.push(version);
                        rows.hash.push(defined.hash);
                        rows.document.push((*defined.document).clone());
                        rows.definition.push(definition);
                        rows.at.push(envelope.time);
                        rows.by.push(envelope.actor.to_string());
                        (version, defined.definition.name.clone(), "active")
                    }
                    Event::Retired(_) => (0, None, "retired"),
                };
                latest.tenant.push(facts.stream.tenant.to_string());
                latest.workflow.push(facts.stream.id.to_string());
                latest.version.push(version);
                latest.name.push(name);
                latest.status.push(status);
                latest.at.push(envelope.time);
                latest.position.push(machinery::number(facts.position));
            }
        }
        // Defined and retired within one batch: the retirement must not lose the version that came just before it.
        for index in 1..latest.version.len() {
            if latest.version[index] == 0 {
                let same = |other: usize| {
                    latest.tenant[other] == latest.tenant[index] && latest.workflow[other] == latest.workflow[index]
                };
                if let Some(before) = (0..index).rev().find(|other| same(*other)) {
                    latest.version[index] = latest.version[before];
                    latest.name[index] = latest.name[before].clone();
                }
            }
        }
        if !rows.tenant.is_empty() {
            sqlx::query(DEFINE)
                .bind(rows.tenant)
                .bind(rows.workflow)
                .bind(rows.version)
                .bind(rows.hash)
                .bind(rows.document)
                .bind(rows.definition)
                .bind(rows.at)
                .bind(rows.by)
                .execute(&mut *tables)
                .await?;
        }
        sqlx::query(UPSERT)
            .bind(latest.tenant)
            .bind(latest.workflow)
            .bind(latest.version)
            .bind(latest.name)
            .bind(latest.status)
            .bind(latest.at)
            .bind(latest.position)
            .execute(tables)
            .await?;
        Ok(())
    }
}

/// A workflow with its newest definition.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct WorkflowRow {
    /// Its id.
    #[schema(example = "wf_12345")]
    pub workflow_id: String,
    /// Version of the newest definition.
    pub version: i32,
    /// A title for people.
    #[schema(example = "Order")]
    pub name: Option<String>,
    /// `active` or `retired`.
    #[schema(example = "active")]
    pub status: String,
    /// When it was last defined or retired.
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: Timestamp,
    /// SHA-256 of the compiled definition.
    #[schema(example = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c")]
    pub hash: String,
    /// The document as it was given.
    #[schema(example = json!({"workflow_id": "wf_12345", "steps": [{"id": 1, "name": "validate_input", "timeout": 30}], "max_retries": 3}))]
    pub document: Value,
}

type Columns = (String, i32, Option<String>, String, Timestamp, String, Value);

impl From<Columns> for WorkflowRow {
    fn from((workflow_id, version, name, status, changed_at, hash, document): Columns) -> Self {
        Self { workflow_id, version, name, status, changed_at, hash, document }
    }
}

pub(crate) const LIST: &str = "
    SELECT w.workflow_id, w.latest_version, w.name, w.status, w.changed_at, d.hash, d.document
    FROM workflows_v1.workflows w JOIN workflows_v1.definitions d
        ON d.tenant_id = w.tenant_id AND d.workflow_id = w.workflow_id AND d.version = w.latest_version
    WHERE w.tenant_id = $1 AND w.workflow_id > $2 ORDER BY w.workflow_id LIMIT $3";
pub(crate) const GET: &str = "
    SELECT w.workflow_id, d.version, w.name, w.status, w.changed_at, d.hash, d.document
    FROM workflows_v1.workflows w JOIN workflows_v1.definitions d
        ON d.tenant_id = w.tenant_id AND d.workflow_id = w.workflow_id
    WHERE w.tenant_id = $1 AND w.workflow_id = $2 AND d.version = COALESCE($3, w.latest_version)";

/// A tenant's workflows after a workflow id, in order of their ids.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn list(pool: &PgPool, tenant: &TenantId, after: &str, limit: i64) -> Result<Vec<WorkflowRow>, Failure> {
    let rows: Vec<Columns> = sqlx::query_as(LIST)
        .bind(tenant.as_str())
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(Failure::attempting("list workflows"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// A workflow, with its newest or the given definition.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn get(
    pool: &PgPool,
    tenant: &TenantId,
    id: &str,
    version: Option<i32>,
) -> Result<Option<WorkflowRow>, Failure> {
    let row: Option<Columns> = sqlx::query_as(GET)
        .bind(tenant.as_str())
        .bind(id)
        .bind(version)
        .fetch_optional(pool)
        .await
        .map_err(Failure::attempting("read a workflow"))?;
    Ok(row.map(Into::into))
}
