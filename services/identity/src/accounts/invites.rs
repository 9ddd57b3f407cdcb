//! Inviting somebody, and what they make of it. A code comes by mail and works once, for whoever has confirmed the address
//! that it went to.

use kernel::{CommandId, Problem, TenantId, Timestamp};
use projections::identity::{InviteKey, Kind};
use projections::mail::Mail;
use projections::tenants::{self, InviteRow};
use rest::{Chain, Origin};
use runtime::{Answer, clock};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Accounts, Inner, unsealed};
use crate::crypto;
use crate::names::Email;
use events::tenant::Role;

/// An open invitation as an admin sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InviteView {
    /// Its id.
    #[schema(example = "inv_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub id: String,
    /// To whom; null when they have been erased.
    #[schema(example = "bob@example.org")]
    pub email: Option<String>,
    /// `viewer`, `member`, `admin` or `owner`.
    #[schema(example = "member")]
    pub role: String,
    /// Who asked.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub invited_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Until when it may be accepted.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// Somebody has been asked to join.
#[derive(Debug, Clone)]
pub struct Invited {
    /// The invitation.
    pub invite: String,
    /// Where it stands.
    pub answer: Answer,
}

fn unknown() -> Problem {
    let detail = "There is no such invitation: the code is wrong, or it was used or taken back.";
    Problem::new(404, "unknown_invite", detail)
}

impl Accounts {
    /// Invites whoever an address belongs to; an earlier invitation to it is replaced.
    ///
    /// # Errors
    /// 403 for a role above one's own, 409 `already_a_member` or `too_many`, 429, 503.
    pub async fn invite(
        &self,
        tenant: &TenantId,
        by: &str,
        email: &Email,
        role: Role,
        key: Option<CommandId>,
        chain: Chain,
    ) -> Result<Invited, Problem> {
        self.count_invite(tenant.as_str(), email.normal()).await?;
        let address = self.digests.email.digest(email.normal().as_bytes());
        let holder = self.handles.holder(Kind::Email, &address).await?;
        let open = self.open_tenant(tenant).await?;
        let invite = match &key {
            Some(key) => clock::derived_id("inv_", &format!("{tenant} {by} {key}")),
            None => clock::fresh_id("inv_"),
        };
        let member = holder.as_ref().is_some_and(|holder| open.members.contains_key(holder));
        let before = self.invites.to_address(&address, Some(tenant.as_str())).await?;
        if member && !before.iter().any(|before| before.invite == invite) {
            return Err(Problem::new(409, "already_a_member", "Whoever has this address is a member already."));
        }
        let sealed = self.vault.seal(&invite, "email", email.typed()).await.map_err(unsealed)?;
        let body = json!({ "invite": invite, "email": sealed, "role": role, "by": by });
        let answer = self.command(tenant, "invite", &body, by, true, key, chain).await?;
        // The same invitation has the same code and is one mail, however often this is tried.
        let code = crypto::derived_secret("aci_", &self.digests.derived, &format!("invite {invite}"));
        let noted = InviteKey { invite: invite.clone(), tenant: tenant.to_string(), address };
        self.invites.note(&noted, &self.digests.code.digest(code.as_bytes())).await?;
        self.replace_older(tenant, by, &noted).await?;
        let mail = Mail {
            id: format!("mail_{invite}"),
            to: email.typed().to_owned(),
            kind: "invite",
            subject: format!("You are invited to {}", open.name),
            text: self.invitation(&open.name, by, role, &code).await?,
            about: holder,
        };
        self.outbox.put(mail).await?;
        Ok(Invited { invite, answer })
    }

    /// The open invitations of a tenant after one of them.
    ///
    /// # Errors
    /// 503.
    pub async fn invites_of(&self, tenant: &TenantId, after: &str, limit: usize) -> Result<Vec<InviteView>, Problem> {
        let mut views = Vec::new();
        for row in tenants::invites(self.database.pool(), tenant.as_str(), after, limit as i64).await? {
            let InviteRow { invite, email, role, invited_by, created_at, expires_at } = row;
            let email = self.open(&email.0, "email").await?;
            views.push(InviteView { id: invite, email, role, invited_by, created_at, expires_at });
        }
        Ok(views)
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    /// 404 `unknown_invite`, whatever the decider says, 503.
    pub async fn revoke_invite(
        &self,
        tenant: &TenantId,
        by: &str,
        invite: &str,
        key: Option<CommandId>,
        chain: Chain,
    ) -> Result<Answer, Problem> {
        let body = json!({ "invite": invite });
        let answer = self.command(tenant, "revoke-invite", &body, by, false, key, chain).await?;
        if answer.events.is_empty() {
            return Err(unknown());
        }
        Ok(answer)
    }

    /// Accepts an invitation: gives the tenant.
    ///
    /// # Errors
    /// 404 `unknown_invite`, 403 `another_address`, 410 `invite_expired`, 429, 503.
    pub async fn accept_invite(
        &self,
        person: &str,
        code: &str,
        key: Option<CommandId>,
        from: &Origin,
        chain: Chain,
    ) -> Result<(TenantId, Answer), Problem> {
        let (tenant, invite) = self.invited(person, code, from).await?;
        let body = json!({ "invite": invite, "person": person });
        let answer = self.command(&tenant, "accept", &body, person, true, key, chain).await?;
        Ok((tenant, answer))
    }

    /// Declines an invitation.
    ///
    /// # Errors
    /// As [`Accounts::accept_invite`].
    pub async fn decline_invite(
        &self,
        person: &str,
        code: &str,
        key: Option<CommandId>,
        from: &Origin,
        chain: Chain,
    ) -> Result<Answer, Problem> {
        let (tenant, invite) = self.invited(person, code, from).await?;
        self.command(&tenant, "decline", &json!({ "invite": invite }), person, true, key, chain).await
    }
}

impl Inner {
    /// The invitation that a code belongs to, if it is this person's.
    async fn invited(&self, person: &str, code: &str, from: &Origin) -> Result<(TenantId, String), Problem> {
        self.count_from("invite", from).await?;
        let digest = self.digests.code.digest(code.trim().as_bytes());
        let InviteKey { invite, tenant, address } = self.invites.by_code(&digest).await?.ok_or_else(unknown)?;
        let found = self.existing(person).await?;
        let email = self.open(&found.email, "email").await?.and_then(|email| Email::parse(&email).ok());
        let own = email.map(|email| self.digests.email.digest(email.normal().as_bytes()));
        if !found.email_confirmed || own != Some(address) {
            let detail = "This invitation is for another address: sign in with the one that the mail came to.";
            return Err(Problem::new(403, "another_address", detail));
        }
        Ok((TenantId::new(&tenant)?, invite))
    }

    async fn open_tenant(&self, tenant: &TenantId) -> Result<crate::tenant::Tenant, Problem> {
        let found = self.tenant(tenant).await?;
        found.ok_or_else(|| Problem::new(404, "unknown_tenant", "There is no such tenant."))
    }

    /// Takes back what was sent to the same address before. Of two invitations at the same time, the earlier one goes.
    async fn replace_older(&self, tenant: &TenantId, by: &str, newest: &InviteKey) -> Result<(), Problem> {
        let open = self.open_tenant(tenant).await?.invites;
        let Some(since) = open.get(&newest.invite).map(|invited| invited.expires_at) else { return Ok(()) };
        for other in self.invites.to_address(&newest.address, Some(tenant.as_str())).await? {
            let older = open
                .get(&other.invite)
                .is_some_and(|invited| (invited.expires_at, other.invite.as_str()) < (since, newest.invite.as_str()));
            if older {
                let id = CommandId::reserved(&format!("replaced.{}", other.invite))?;
                let body = json!({ "invite": other.invite });
                self.command(tenant, "revoke-invite", &body, by, false, Some(id), Chain::default()).await?;
            }
        }
        Ok(())
    }

    async fn invitation(&self, tenant: &str, by: &str, role: Role, code: &str) -> Result<String, Problem> {
        let name = match self.person(by).await? {
            Some(person) => self.open_if(person.name.as_ref(), "name").await?,
            None => None,
        };
        let name = name.unwrap_or_else(|| "One of its members".to_owned());
        Ok(format!(
            "{name} invites you to the tenant \"{tenant}\" on Airstream, as {role}.\n\n\
             Accept with this code, within a week, signed in with this address:\n\n    {code}\n\n\
             Over HTTP: POST /v1/invites/accept {{\"code\": \"{code}\"}}\n\
             To say no: POST /v1/invites/decline {{\"code\": \"{code}\"}}\n\n\
             If you have no account yet, register with this address first.\n\
             If you do not know what this is about, ignore this message.\n",
            role = role.as_str(),
        ))
    }

    /// Destroys what is known about invitations to an address: its owner is erased.
    ///
    /// # Errors
    /// 503.
    pub async fn forget_invites(&self, email: &Email) -> Result<(), Problem> {
        let address = self.digests.email.digest(email.normal().as_bytes());
        for found in self.invites.to_address(&address, None).await? {
            self.vault.destroy(&found.invite).await.map_err(unsealed)?;
            self.invites.forget(&found.invite).await?;
        }
        Ok(())
    }
}
