//! Being forgotten. That somebody is to be forgotten is one event, after which nothing can be done for them; everything else
//! follows from it, by a reactor, and may be done again after a crash at any point:
//!
//! ```text
//! write down    what is found by rows that will be gone: tenants, keys, invitations
//! destroy       the keys of invitations to their addresses, and their own: now nobody can read what is sealed
//! remove        every row of their own, and count them, in one transaction; the address is free again
//! forget        end each membership; a tenant without members is closed; keys of programs end with the membership
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use kernel::{CommandId, Problem, TenantId, Timestamp};
use projections::tenants::{self, Tenants};
use projections::wait_until;
use rest::Origin;
use runtime::Request;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Inner, Privacy};
use crate::accounts::{Enough, Proof, tenant_stream, unsealed};
use crate::names::Email;
use crate::person::State;
use events::tenant::Role;

/// How long the answer waits for everything to be done; it is done in any case.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a view may be behind the event.
const VIEW_PATIENCE: Duration = Duration::from_secs(5);
const PAGE: i64 = 500;

/// What is left to be said to somebody who is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Farewell {
    /// The id that was theirs. It means nobody any more.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub person: String,
    /// `erased`; or `erasing`: it will be done, and nothing can stop it.
    #[schema(example = "erased")]
    pub status: &'static str,
    /// How many of what.
    pub erased: BTreeMap<String, i64>,
    /// When everything was done.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// What came of asking.
#[derive(Debug)]
pub enum Erasing {
    /// It is done, or will be.
    Done(Farewell),
    /// Others would be left without an owner in these tenants: id and name.
    LastOwner(Vec<(String, String)>),
}

impl Privacy {
    /// Forgets a person who shows who they are, and has typed `erase <their address>`.
    ///
    /// # Errors
    /// 403 `reauthentication_required` or `wrong_password`, 422 `not_confirmed`, 410, 429, 503.
    pub async fn erase(&self, person: &str, proof: Proof, confirm: &str, from: &Origin) -> Result<Erasing, Problem> {
        self.means_it(person, confirm).await?;
        self.accounts.prove(person, proof, Enough::Fresh, from).await?;
        let orphaned = self.orphaned_by(person).await?;
        if !orphaned.is_empty() {
            return Ok(Erasing::LastOwner(orphaned));
        }
        self.accounts.record(person, "erase", &json!({}), &format!("{person}.erase")).await?;
        // A reactor does it, here or elsewhere.
        let until = Instant::now() + PATIENCE;
        loop {
            let outcome = self.erasures.outcome(person).await?;
            let finished_at = outcome.as_ref().and_then(|outcome| outcome.finished_at);
            if finished_at.is_some() || Instant::now() > until {
                let status = if finished_at.is_some() { "erased" } else { "erasing" };
                let erased = outcome.map(|outcome| outcome.erased).unwrap_or_default();
                return Ok(Erasing::Done(Farewell { person: person.to_owned(), status, erased, finished_at }));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Does what an erasure calls for. Any number of times.
    pub(crate) async fn finish_erasure(&self, person: &str) -> Result<String, Problem> {
        let (accounts, erasures) = (&self.accounts, &self.erasures);
        let found = accounts.executor.inspect::<crate::person::People>(&crate::accounts::stream_of(person)?).await?;
        if found.state != State::Erased {
            return Ok("they are not erased".to_owned());
        }
        // What they joined before is in the view; what they join now is forgotten by an effect of its own.
        match wait_until::<Tenants>(accounts.database.pool(), found.position, VIEW_PATIENCE).await {
            Ok(_) => {}
            Err(Ok(late)) => return Err(Problem::unavailable(late.to_string(), 500)),
            Err(Err(failure)) => return Err(failure.into()),
        }
        let remains = erasures.begin(person, &self.addresses_of(person).await?).await?;
        for invite in &remains.invites {
            accounts.vault.destroy(invite).await.map_err(unsealed)?;
        }
        accounts.vault.destroy(person).await.map_err(unsealed)?;
        erasures.wipe(person).await?;
        erasures.forget_invites(&remains.invites).await?;
        let mut closed = 0;
        for tenant in &remains.tenants {
            closed += i64::from(self.forget_member(tenant, person).await?);
        }
        let count = |list: &[String]| i64::try_from(list.len()).unwrap_or(i64::MAX);
        let counts = BTreeMap::from([
            ("memberships", count(&remains.tenants)),
            ("tenants_closed", closed),
            ("api_keys", count(&remains.keys)),
            ("invitations", count(&remains.invites)),
        ]);
        erasures.note(person, &counts).await?;
        erasures.finish(person).await?;
        Ok("erased".to_owned())
    }

    /// Ends the membership of somebody who joined while they were being erased.
    pub(crate) async fn forget_if_erased(&self, tenant: &TenantId, person: &str) -> Result<String, Problem> {
        if self.accounts.state(person).await? != State::Erased {
            return Ok("they are there".to_owned());
        }
        self.forget_member(tenant.as_str(), person).await?;
        Ok("forgotten".to_owned())
    }
}

impl Inner {
    /// Lets pass who has typed what they are about to do.
    async fn means_it(&self, person: &str, confirm: &str) -> Result<(), Problem> {
        let found = self.accounts.existing(person).await?;
        let email = self.accounts.open(&found.email, "email").await?.unwrap_or_default();
        let normal = |text: &str| Email::parse(text.trim()).ok().map(|email| email.normal().to_owned());
        let confirmed = confirm.trim().strip_prefix("erase ").and_then(normal);
        if confirmed.is_none() || confirmed != normal(&email) {
            let detail = "Say what you mean: `confirm` is `erase`, a blank, and your e-mail address.";
            return Err(Problem::new(422, "not_confirmed", detail));
        }
        Ok(())
    }

    /// Tenants with other members whose last owner somebody is.
    async fn orphaned_by(&self, person: &str) -> Result<Vec<(String, String)>, Problem> {
        let (mut orphaned, mut after) = (Vec::new(), String::new());
        loop {
            let page = tenants::of_person(self.accounts.database.pool(), person, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(orphaned) };
            after.clone_from(&last.id);
            for row in page {
                let Some(tenant) = self.accounts.tenant(&TenantId::new(&row.id)?).await? else { continue };
                let owns = tenant.members.get(person) == Some(&Role::Owner);
                let mut others = tenant.members.iter().filter(|(name, _)| *name != person).peekable();
                if owns && others.peek().is_some() && others.all(|(_, role)| *role != Role::Owner) {
                    orphaned.push((row.id, tenant.name));
                }
            }
        }
    }

    /// Ends the membership of somebody who is erased; `true`: the tenant is closed, because nobody is left.
    async fn forget_member(&self, tenant: &str, person: &str) -> Result<bool, Problem> {
        let tenant = TenantId::new(tenant)?;
        let body = json!({ "person": person }).to_string();
        let id = CommandId::reserved(&format!("forget.{person}"))?;
        let request = Request::internal(tenant_stream(&tenant)?, "forget", body).with_id(id);
        let answer = self.accounts.commands.execute(request).await?;
        self.accounts.memory.tenants.forget(&tenant);
        Ok(answer.events.iter().any(|event| event.type_name == "tenant.closed"))
    }
}
