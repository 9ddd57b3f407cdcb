//! Which tenants somebody may work in.

use kernel::{Problem, StreamName, TenantId};
use projections::tenants;

use super::Inner;
use crate::tenant::{Tenant, Tenants};

/// The stream of a tenant.
pub(crate) fn stream_of(tenant: &TenantId) -> Result<StreamName, Problem> {
    Ok(StreamName::new(tenant.as_str(), events::tenant::CATEGORY, tenant.as_str())?)
}

/// The one answer to whoever is no member: it does not tell whether there is such a tenant.
pub(crate) fn not_a_member() -> Problem {
    Problem::new(403, "not_a_member", "You are not a member of such a tenant.")
}

impl Inner {
    /// A tenant, as its own stream says now; `None`: nobody has made it, or it is closed.
    pub(crate) async fn tenant(&self, tenant: &TenantId) -> Result<Option<Tenant>, Problem> {
        let found = self.executor.inspect::<Tenants>(&stream_of(tenant)?).await?;
        Ok(found.state.tenant().cloned())
    }

    /// The tenant, if a person is a member of it.
    pub(crate) async fn member_of(&self, person: &str, tenant: &str) -> Result<String, Problem> {
        let id = TenantId::new(tenant).map_err(|_| not_a_member())?;
        let found = self.tenant(&id).await?;
        match found.is_some_and(|found| found.members.contains_key(person)) {
            true => Ok(id.to_string()),
            false => Err(not_a_member()),
        }
    }

    /// The tenant that somebody asks for, if they are a member of it; of whoever does not ask, the usual one.
    pub(crate) async fn tenant_for(&self, person: &str, wanted: Option<&str>) -> Result<Option<String>, Problem> {
        match wanted {
            Some(tenant) => self.member_of(person, tenant).await.map(Some),
            None => self.usual_tenant(person).await,
        }
    }

    /// Where somebody works who does not say: in their only tenant. A view tells which, and it may lag; the tenant's own stream
    /// tells whether.
    pub(crate) async fn usual_tenant(&self, person: &str) -> Result<Option<String>, Problem> {
        let rows = tenants::of_person(self.database.pool(), person, "", 2).await?;
        match rows.as_slice() {
            [only] => self.still_member_of(person, Some(&only.id)).await,
            _ => Ok(None),
        }
    }

    /// The tenant, if somebody is a member of it still. Nobody leaves a tenant because the log cannot be read right now.
    pub(crate) async fn still_member_of(&self, person: &str, tenant: Option<&str>) -> Result<Option<String>, Problem> {
        let Some(tenant) = tenant else { return Ok(None) };
        match self.member_of(person, tenant).await {
            Ok(tenant) => Ok(Some(tenant)),
            Err(problem) if problem.code == not_a_member().code => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}
