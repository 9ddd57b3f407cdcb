//! Keys for programs: making, rotating, revoking them. A key acts for who made it and may do no more than they may.

use std::collections::BTreeSet;

use events::key::{self, Issued, Revoked, Rotated};
use kernel::{CommandId, PrincipalId, Problem, StreamName, TenantId, Timestamp};
use projections::identity::{ApiKeyRow, NewApiKey, NewSecret, SecretRow};
use rest::Chain;
use runtime::{Answer, Request, clock};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Accounts, Inner};
use crate::api_key::ApiSecret;
use crate::crypto;

/// Longest life of a secret, in days.
pub const MAX_EXPIRES_DAYS: u32 = 365;
/// Longest time for which the secrets before a rotation go on, in seconds.
pub const MAX_OVERLAP_SECONDS: u32 = 7 * 86_400;
/// Keys that a tenant may have.
const MAX_KEYS: i64 = 1_000;
const DAY_SECONDS: f64 = 86_400.0;

/// A key as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyView {
    /// Its id, under which it acts.
    #[schema(example = "key_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub id: String,
    /// What it is for.
    #[schema(example = "nightly import")]
    pub name: String,
    /// The first characters of its newest secret.
    #[schema(example = "ask_4fQ7hB2x")]
    pub prefix: String,
    /// What it may do, as far as its owner may.
    #[schema(example = json!(["runs:write", "events:read"]))]
    pub scopes: Vec<String>,
    /// Who made it. When they leave, it ends.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub owner: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// When its newest secret expires.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Until when a secret from before a rotation goes on.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub older_until: Option<Timestamp>,
}

impl From<ApiKeyRow> for KeyView {
    fn from(row: ApiKeyRow) -> Self {
        let ApiKeyRow { key, owner, name, scopes, created_at, last_used_at, prefix, expires_at, older_until } = row;
        Self { id: key, name, prefix, scopes, owner, created_at, last_used_at, expires_at, older_until }
    }
}

/// A key that is wanted.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: BTreeSet<String>,
    /// How long it lasts.
    pub expires_days: u32,
}

/// A secret that was made. This is the one time that it is seen.
#[derive(Debug, Clone)]
pub struct MadeKey {
    /// The key.
    pub key: String,
    /// Its secret.
    pub secret: ApiSecret,
    /// When the secret expires.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub answer: Answer,
}

fn unknown() -> Problem {
    Problem::new(404, "unknown_key", "There is no such key.")
}

fn stream_of(tenant: &TenantId, key: &str) -> Result<StreamName, Problem> {
    Ok(StreamName::new(tenant.as_str(), key::CATEGORY, key)?)
}

impl Accounts {
    /// Makes a key. The same idempotency key again, within a day, gives the same secret again: the answer may have been lost.
    ///
    /// # Errors
    /// 409 `too_many` or `shown_once`, 422 `command_id_reused`, 503.
    pub async fn make_key(
        &self,
        tenant: &TenantId,
        person: &str,
        wanted: NewKey,
        id: Option<CommandId>,
        chain: Chain,
    ) -> Result<MadeKey, Problem> {
        let from = id.as_ref().map(|id| format!("make {tenant} {person} {id}"));
        let key = match &from {
            Some(from) => clock::derived_id("key_", from),
            None => clock::fresh_id("key_"),
        };
        if self.api_keys.count(tenant.as_str(), &key).await? >= MAX_KEYS {
            let detail = format!("The tenant has {MAX_KEYS} keys, which is the limit; revoke what nobody uses.");
            return Err(Problem::new(409, "too_many", detail));
        }
        let secret = self.secret(from.as_deref());
        let new = NewApiKey {
            key: key.clone(),
            tenant: tenant.to_string(),
            owner: person.to_owned(),
            name: wanted.name.clone(),
            scopes: wanted.scopes.iter().cloned().collect(),
        };
        let written = self.api_keys.make(&new, &self.written(&secret, wanted.expires_days, None)).await?;
        let SecretRow { expires_at, .. } = showable(&written)?;
        let prefix = secret.prefix().to_owned();
        let issued = Issued { name: wanted.name, prefix, scopes: wanted.scopes, owner: person.to_owned(), expires_at };
        let answer = self.tell(tenant, &key, "issue", &issued, person, id, chain).await?;
        self.settle_key(&key, secret.prefix(), &answer).await?;
        Ok(MadeKey { key, secret, expires_at, answer })
    }

    /// Gives a key a new secret; those before it go on for a while. For who made it: the secret acts for them.
    ///
    /// # Errors
    /// 404 `unknown_key`, 403 `not_your_key`, 409 `key_expired` or `shown_once`, 422 `command_id_reused`, 503.
    pub async fn rotate_key(
        &self,
        tenant: &TenantId,
        person: &str,
        key: &str,
        (expires_days, overlap_seconds): (u32, u32),
        id: Option<CommandId>,
        chain: Chain,
    ) -> Result<MadeKey, Problem> {
        let row = self.api_keys.get(tenant.as_str(), key).await?.ok_or_else(unknown)?;
        if row.owner != person {
            let detail = "Only who made a key may rotate it, because it acts for them; you may revoke it.";
            return Err(Problem::new(403, "not_your_key", detail));
        }
        let secret = self.secret(id.as_ref().map(|id| format!("rotate {tenant} {key} {id}")).as_deref());
        let new = self.written(&secret, expires_days, Some(f64::from(overlap_seconds)));
        let written = self.api_keys.add_secret(key, &new).await?;
        let SecretRow { expires_at, overlap_until, created_at, .. } = showable(&written)?;
        let overlap_until = overlap_until.unwrap_or(created_at);
        let rotated = Rotated { prefix: secret.prefix().to_owned(), overlap_until, expires_at };
        let answer = self.tell(tenant, key, "rotate", &rotated, person, id, chain).await?;
        self.settle_key(key, secret.prefix(), &answer).await?;
        Ok(MadeKey { key: key.to_owned(), secret, expires_at, answer })
    }

    /// The keys of a tenant after one of them.
    ///
    /// # Errors
    /// 503.
    pub async fn keys_of(&self, tenant: &TenantId, after: &str, limit: usize) -> Result<Vec<KeyView>, Problem> {
        let rows = self.api_keys.list(tenant.as_str(), after, limit as i64).await?;
        Ok(rows.into_iter().map(KeyView::from).collect())
    }

    /// A key.
    ///
    /// # Errors
    /// 404 `unknown_key`, 503.
    pub async fn key_of(&self, tenant: &TenantId, key: &str) -> Result<KeyView, Problem> {
        Ok(self.api_keys.get(tenant.as_str(), key).await?.ok_or_else(unknown)?.into())
    }

    /// Ends a key, for good and at once. Again it changes nothing.
    ///
    /// # Errors
    /// 404 `unknown_key`, 503.
    pub async fn revoke_key(
        &self,
        tenant: &TenantId,
        by: &str,
        key: &str,
        id: Option<CommandId>,
        chain: Chain,
    ) -> Result<Answer, Problem> {
        // First what must not wait for the log; who is interrupted after it asks again.
        if !self.api_keys.revoke(tenant.as_str(), key).await? {
            return Err(unknown());
        }
        self.memory.forget_key(key);
        // Also when the log, by which others hear of it, cannot be written and nobody asks again.
        self.memory.lessen(key);
        let revoked = Revoked { reason: "revoked".to_owned() };
        self.tell(tenant, key, "revoke", &revoked, by, id, chain).await
    }
}

/// A secret that may be shown now: it has just been written down, or a moment ago by the same request.
fn showable(written: &SecretRow) -> Result<SecretRow, Problem> {
    if !written.same {
        let detail = "This idempotency key belongs to another request; use a fresh one.";
        return Err(Problem::new(422, "command_id_reused", detail));
    }
    if written.old {
        let detail = "This was done before, and its secret is not shown again: rotate the key, or make another one.";
        return Err(Problem::new(409, "shown_once", detail));
    }
    Ok(written.clone())
}

impl Inner {
    fn secret(&self, from: Option<&str>) -> ApiSecret {
        let derived =
            from.and_then(|from| self.digests.derived.digest(format!("api key: {from}").as_bytes()).try_into().ok());
        ApiSecret::of(&derived.unwrap_or_else(crypto::random_bytes))
    }

    fn written(&self, secret: &ApiSecret, days: u32, overlap_seconds: Option<f64>) -> NewSecret {
        NewSecret {
            digest: self.digests.api_key.digest(secret.reveal().as_bytes()),
            prefix: secret.prefix().to_owned(),
            lifetime_seconds: f64::from(days) * DAY_SECONDS,
            overlap_seconds,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each is one part of a command")]
    async fn tell(
        &self,
        tenant: &TenantId,
        key: &str,
        command: &str,
        body: &impl Serialize,
        by: &str,
        id: Option<CommandId>,
        chain: Chain,
    ) -> Result<Answer, Problem> {
        let body = serde_json::to_vec(body).map_err(|_| Problem::malformed("This cannot be written as JSON."))?;
        let request = Request {
            id,
            internal: true,
            correlation: chain.correlation,
            traceparent: chain.traceparent,
            ..Request::new(stream_of(tenant, key)?, command, body, PrincipalId::new(by)?)
        };
        self.commands.execute(request).await
    }

    async fn settle_key(&self, key: &str, prefix: &str, answer: &Answer) -> Result<(), Problem> {
        let version = i64::try_from(answer.version).unwrap_or(i64::MAX);
        self.api_keys.settle(key, prefix, version).await?;
        // What was remembered of the secrets before may end sooner now.
        self.memory.forget_key(key);
        Ok(())
    }
}
