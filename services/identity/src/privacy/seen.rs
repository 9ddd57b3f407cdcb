//! The audit of a tenant as its admins see it.

use std::collections::{BTreeMap, BTreeSet};

use kernel::{Problem, TenantId, Timestamp};
use projections::audit::{self, Audit, AuditRow, Verified, Wanted};
use projections::fresh;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Privacy;
use super::sentence::theirs;

/// Something that somebody did.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Seen {
    /// Where it stands in the log.
    #[schema(example = "p1-2a.0")]
    pub position: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Who: a person, a key, or the platform.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub actor: String,
    /// What they are called; null when they were erased, or are no person.
    #[schema(example = "ann@example.org")]
    pub actor_name: Option<String>,
    /// The event's type.
    #[schema(example = "tenant.role_changed")]
    pub action: String,
    /// The same in words.
    #[schema(example = "ann@example.org gave bob@example.org the role admin.")]
    pub what: String,
    /// On what: `tenant`, `api-key` or `person`.
    #[schema(example = "tenant")]
    pub category: String,
    /// On which.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub subject: String,
    /// The chain of requests that it belongs to.
    #[schema(example = "cmd_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub correlation: String,
    /// Its link in the chain of hashes.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
}

fn is_person(id: &str) -> bool {
    id.starts_with("usr_")
}

impl Privacy {
    /// A tenant's audit, the newest first.
    ///
    /// # Errors
    /// 503.
    pub async fn audit(&self, tenant: &TenantId, wanted: &Wanted, limit: usize) -> Result<Vec<Seen>, Problem> {
        let rows = audit::list(self.accounts.database.pool(), tenant, wanted, limit as i64).await?;
        let mut ids = BTreeSet::new();
        for AuditRow { entry, .. } in &rows {
            let named = ["owner", "by", "person"].into_iter().filter_map(|name| entry.data.get(name)?.as_str());
            ids.extend(named.chain([entry.actor.as_str(), entry.subject.as_str()]).filter(|id| is_person(id)));
        }
        let mut names: BTreeMap<String, Option<String>> = BTreeMap::new();
        for id in ids {
            names.insert(id.to_owned(), self.called(id).await?);
        }
        let name = |id: &str| match names.get(id) {
            Some(Some(name)) => name.clone(),
            Some(None) => format!("somebody who was erased ({id})"),
            None if id == "system" => "the platform".to_owned(),
            None => id.to_owned(),
        };
        let mut seen = Vec::with_capacity(rows.len());
        for row in rows {
            let (position, entry) = (row.cursor().to_string(), row.entry);
            let data: Value = self.opened(entry.data).await?;
            seen.push(Seen {
                position,
                time: entry.at,
                what: theirs(&entry.action, &entry.actor, &entry.subject, &data, name),
                actor_name: names.get(&entry.actor).cloned().flatten(),
                actor: entry.actor,
                action: entry.action,
                category: entry.category,
                subject: entry.subject,
                correlation: entry.correlation,
                hash: row.hash,
            });
        }
        Ok(seen)
    }

    /// Waits until the audit includes a position.
    ///
    /// # Errors
    /// Those of [`fresh`].
    pub async fn audit_visible(&self, at_least: Option<&str>) -> Result<(), Problem> {
        fresh::<Audit>(self.accounts.database.pool(), at_least).await
    }

    /// Compares a tenant's audit with itself and with the log.
    ///
    /// # Errors
    /// 503.
    pub async fn verify_audit(&self, tenant: &TenantId) -> Result<Verified, Problem> {
        audit::verify(&self.accounts.database, &self.log, tenant).await.map_err(|error| {
            tracing::warn!(%error, %tenant, "the audit could not be verified");
            Problem::unavailable("The audit cannot be compared with the log right now.", 1_000)
        })
    }

    /// Somebody's address; `None`: they were erased.
    async fn called(&self, person: &str) -> Result<Option<String>, Problem> {
        match self.accounts.person(person).await? {
            Some(found) => self.accounts.open(&found.email, "email").await,
            None => Ok(None),
        }
    }
}
