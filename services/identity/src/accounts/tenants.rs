//! Making tenants, and who belongs to them.

use futures::{StreamExt, TryStreamExt, stream};
use kernel::{CommandId, PrincipalId, Problem, TenantId, Timestamp};
use projections::tenants::{MemberRow, MembershipRow, Tenants};
use projections::{fresh, tenants};
use rest::Chain;
use runtime::{Answer, Request, clock};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::tenancy::{not_a_member, stream_of};
use super::{Accounts, Inner};
use crate::person::State;

/// People whose streams are read at the same time for one list.
const READ_AT_ONCE: usize = 16;

/// A tenant as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TenantView {
    /// Its id.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub id: String,
    /// What people call it.
    #[schema(example = "Acme")]
    pub name: String,
    /// How many belong to it.
    #[schema(example = 3)]
    pub members: usize,
}

/// A member as another one sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MemberView {
    /// Who.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub person: String,
    /// `viewer`, `member`, `admin` or `owner`.
    #[schema(example = "member")]
    pub role: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
    /// What they are called.
    #[schema(example = "Ann Bee")]
    pub name: Option<String>,
    /// Their address; for admins.
    #[schema(example = "ann@example.org")]
    pub email: Option<String>,
    /// Whether nothing is known about them any more.
    pub erased: bool,
}

impl Accounts {
    /// Makes a tenant, whose owner is who asks. The same key again: the same tenant.
    ///
    /// # Errors
    /// 422 for a name that is none, 429, 503.
    pub async fn create_tenant(
        &self,
        person: &str,
        name: &str,
        key: Option<CommandId>,
        chain: Chain,
    ) -> Result<(TenantId, Answer), Problem> {
        self.count_tenant(person).await?;
        let id = match &key {
            Some(key) => clock::derived_id("tnt_", &format!("{person} {key}")),
            None => clock::fresh_id("tnt_"),
        };
        let tenant = TenantId::new(&id)?;
        let body = json!({ "name": name, "owner": person });
        let answer = self.command(&tenant, "create", &body, person, true, key, chain).await?;
        Ok((tenant, answer))
    }

    /// The tenants of a person after one of them.
    ///
    /// # Errors
    /// 503.
    pub async fn tenants_of(&self, person: &str, after: &str, limit: usize) -> Result<Vec<MembershipRow>, Problem> {
        Ok(tenants::of_person(self.database.pool(), person, after, limit as i64).await?)
    }

    /// A tenant, as its own stream says now.
    ///
    /// # Errors
    /// 404 `unknown_tenant`, 503.
    pub async fn tenant_view(&self, tenant: &TenantId) -> Result<TenantView, Problem> {
        let found = self.tenant(tenant).await?;
        let found = found.ok_or_else(|| Problem::new(404, "unknown_tenant", "There is no such tenant."))?;
        Ok(TenantView { id: tenant.to_string(), name: found.name, members: found.members.len() })
    }

    /// The members of a tenant after one of them.
    ///
    /// # Errors
    /// 503.
    pub async fn members(
        &self,
        tenant: &TenantId,
        addresses: bool,
        after: &str,
        limit: usize,
    ) -> Result<Vec<MemberView>, Problem> {
        let rows = tenants::members(self.database.pool(), tenant.as_str(), after, limit as i64).await?;
        let views = stream::iter(rows).map(|row| self.member(row, addresses)).buffered(READ_AT_ONCE);
        views.try_collect().await
    }

    /// Has something done in a tenant by one of its members; the tenant's decider knows whether they may.
    ///
    /// # Errors
    /// Whatever the decider says; 503.
    pub async fn change_tenant(
        &self,
        tenant: &TenantId,
        command: &str,
        body: &Value,
        by: &str,
        key: Option<CommandId>,
        chain: Chain,
    ) -> Result<Answer, Problem> {
        self.command(tenant, command, body, by, false, key, chain).await
    }

    /// Ends one's own membership. Who is no member learns nothing about whether there is such a tenant.
    ///
    /// # Errors
    /// 403 `not_a_member`, 409 `last_owner`, 503.
    pub async fn leave_tenant(
        &self,
        tenant: &str,
        person: &str,
        key: Option<CommandId>,
        chain: Chain,
    ) -> Result<Answer, Problem> {
        let tenant = TenantId::new(tenant).map_err(|_| not_a_member())?;
        match self.command(&tenant, "leave", &json!({}), person, false, key, chain).await {
            Ok(answer) if answer.events.is_empty() => Err(not_a_member()),
            Err(problem) if problem.code == "unknown_tenant" => Err(not_a_member()),
            other => other,
        }
    }

    /// Waits until lists of tenants, members and invitations include a position.
    ///
    /// # Errors
    /// Those of [`fresh`].
    pub async fn visible(&self, at_least: Option<&str>) -> Result<(), Problem> {
        fresh::<Tenants>(self.database.pool(), at_least).await
    }
}

impl Inner {
    #[allow(clippy::too_many_arguments, reason = "each is one part of a command")]
    pub(super) async fn command(
        &self,
        tenant: &TenantId,
        command: &str,
        body: &Value,
        by: &str,
        internal: bool,
        key: Option<CommandId>,
        chain: Chain,
    ) -> Result<Answer, Problem> {
        let request = Request {
            id: key,
            internal,
            correlation: chain.correlation,
            traceparent: chain.traceparent,
            ..Request::new(stream_of(tenant)?, command, body.to_string(), PrincipalId::new(by)?)
        };
        let answer = self.commands.execute(request).await?;
        // Others hear of it on the log; here it counts from now on.
        self.memory.tenants.forget(tenant);
        Ok(answer)
    }

    async fn member(&self, row: MemberRow, addresses: bool) -> Result<MemberView, Problem> {
        let MemberRow { person, role, joined_at } = row;
        let found = self.state(&person).await?;
        let (name, email) = match found.person() {
            None => (None, None),
            Some(found) => {
                let email = if addresses { self.open(&found.email, "email").await? } else { None };
                (self.open_if(found.name.as_ref(), "name").await?, email)
            }
        };
        Ok(MemberView { person, role, joined_at, name, email, erased: found == State::Erased })
    }
}
