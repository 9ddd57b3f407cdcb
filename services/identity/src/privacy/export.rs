//! Everything that is stored about somebody, in one archive. It is asked for by an event, made by a reactor, kept sealed with
//! their key, and gone after a week.

use kernel::{CommandId, Problem, StreamName, TenantId, Timestamp};
use projections::identity::{EXPORT_SECONDS, ExportRow};
use projections::mail::Mail;
use projections::tenants;
use runtime::clock;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use vault::VaultError;

use super::archive::pack;
use super::{Inner, Privacy};
use crate::accounts::unsealed;
use crate::key::Keys;
use crate::names::Email;

/// What is sealed is sealed as this.
const FIELD: &str = "export";
/// Archives that somebody may ask for within a day.
const MOST_A_DAY: i64 = 5;
/// Events of one archive: it is made in memory.
const MOST_EVENTS: usize = 200_000;
const PAGE: i64 = 500;

/// The files of an archive.
pub(super) const FILES: [&str; 9] = [
    "profile.json",
    "sessions.json",
    "credentials.json",
    "identities.json",
    "memberships.json",
    "invitations.json",
    "api-keys.json",
    "history.json",
    "mails.json",
];

/// An archive that somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExportView {
    /// Its id.
    #[schema(example = "exp_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub id: String,
    /// `waiting`, `ready` or `failed`.
    #[schema(example = "ready")]
    pub state: &'static str,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub requested_at: Timestamp,
    /// Since when it can be had.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ready_at: Option<Timestamp>,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// How large it is.
    #[schema(example = 4096)]
    pub bytes: Option<i64>,
    /// Why there is none.
    #[schema(example = json!(null))]
    pub reason: Option<String>,
}

impl From<ExportRow> for ExportView {
    fn from(row: ExportRow) -> Self {
        let ExportRow { export, requested_at, ready_at, failure, bytes, expires_at } = row;
        let state = match (&ready_at, &failure) {
            (Some(_), _) => "ready",
            (None, Some(_)) => "failed",
            (None, None) => "waiting",
        };
        Self { id: export, state, requested_at, ready_at, expires_at, bytes, reason: failure }
    }
}

fn unknown() -> Problem {
    Problem::not_found("You have asked for no such archive, or it is gone: archives are kept for a week.")
}

impl Privacy {
    /// Asks for an archive. The same key again: the same archive.
    ///
    /// # Errors
    /// 429 after too many within a day, 410, 503.
    pub async fn request_export(&self, person: &str, key: Option<CommandId>) -> Result<ExportView, Problem> {
        let export = match &key {
            Some(key) => clock::derived_id("exp_", &format!("{person} {key}")),
            None => clock::fresh_id("exp_"),
        };
        if self.exports.recent(person, &export).await? >= MOST_A_DAY {
            let detail = "You have asked for several archives within a day; take one of those.";
            return Err(Problem::new(429, "too_many_exports", detail).retry_after(3_600_000));
        }
        // First the row: whoever makes the archive finds a place for it.
        self.exports.ask(&export, person).await?;
        let requested = events::person::ExportRequested { export: export.clone() };
        if let Err(problem) =
            self.accounts.record(person, "request-export", &requested, &format!("{export}.request")).await
        {
            self.exports.withdraw(&export).await?;
            return Err(problem);
        }
        self.export(person, &export).await
    }

    /// What became of an archive.
    ///
    /// # Errors
    /// 404, 503.
    pub async fn export(&self, person: &str, export: &str) -> Result<ExportView, Problem> {
        self.exports.get(person, export).await?.map(Into::into).ok_or_else(unknown)
    }

    /// An archive's bytes.
    ///
    /// # Errors
    /// 404 when it is not there, or not yet; 503.
    pub async fn download(&self, person: &str, export: &str) -> Result<Vec<u8>, Problem> {
        let sealed = self.exports.archive(person, export).await?.ok_or_else(unknown)?;
        let opened = self.accounts.vault.open_bytes(person, FIELD, &sealed).await.map_err(unsealed)?;
        opened.ok_or_else(unknown)
    }

    /// Makes an archive that was asked for. Any number of times.
    pub(crate) async fn make_export(&self, person: &str, export: &str) -> Result<&'static str, Problem> {
        if self.accounts.person(person).await?.is_none() {
            return Ok("they were erased");
        }
        let Some(row) = self.exports.get(person, export).await? else { return Ok("nobody wants it any more") };
        if row.ready_at.is_none() {
            let archive = match self.collect(person).await {
                Err(problem) if problem.code == "too_large" => {
                    self.exports.fail(export, &problem.detail).await?;
                    return Ok("too large");
                }
                other => other?,
            };
            let sealed = match self.accounts.vault.seal_bytes(person, FIELD, &archive).await {
                Err(VaultError::Erased { .. }) => return Ok("they were erased"),
                other => other.map_err(unsealed)?,
            };
            self.exports.keep(export, person, &sealed, archive.len()).await?;
        }
        self.tell_ready(person, export).await?;
        Ok("made")
    }
}

impl Inner {
    async fn tell_ready(&self, person: &str, export: &str) -> Result<(), Problem> {
        let Some(found) = self.accounts.person(person).await? else { return Ok(()) };
        let Some(to) = self.accounts.open(&found.email, "email").await? else { return Ok(()) };
        let days = EXPORT_SECONDS / 86_400.0;
        let text = format!(
            "Everything that is stored about you is in one archive now. For {days} days, signed in, you get it with\n\n    \
             GET /v1/me/exports/{export}/download\n\n\
             If you did not ask for it, change your password: somebody is signed in as you.\n"
        );
        let mail = Mail {
            // However often it is made, one mail says so.
            id: format!("mail_{export}"),
            to,
            kind: "export-ready",
            subject: "Your data is ready".to_owned(),
            text,
            about: Some(person.to_owned()),
        };
        Ok(self.accounts.outbox.put(mail).await?)
    }

    async fn collect(&self, person: &str) -> Result<Vec<u8>, Problem> {
        let history = self.whole_history(person, MOST_EVENTS).await?;
        let contents = [
            json!(self.accounts.me(person).await?),
            json!(self.accounts.sessions_of(person, "").await?),
            self.credentials_of(person).await?,
            identities(&history),
            self.memberships_of(person).await?,
            self.invitations_to(person).await?,
            self.keys_of(person).await?,
            Value::Array(history),
            self.mails_to(person).await?,
        ];
        let files: Vec<(&str, Value)> = FILES.into_iter().zip(contents).collect();
        let packed = tokio::task::spawn_blocking(move || pack(&files)).await;
        packed.map_err(|_| Problem::new(500, "defect", "The archive could not be made."))?
    }

    async fn credentials_of(&self, person: &str) -> Result<Value, Problem> {
        let row = self.accounts.credentials.of(person).await?;
        Ok(row.map_or(Value::Null, |row| {
            json!({
                "password": { "set": row.password_hash.is_some(), "number": row.password_number },
                "totp": { "enabled": row.totp_enabled, "prepared": row.totp_secret.is_some() },
                "recovery_codes": { "sets": row.recovery_number, "left": row.recovery_left },
            })
        }))
    }

    async fn memberships_of(&self, person: &str) -> Result<Value, Problem> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = tenants::of_person(self.accounts.database.pool(), person, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(json!(all)) };
            after.clone_from(&last.id);
            all.extend(page);
        }
    }

    /// Hashes of every address that is or was a person's.
    pub(super) async fn addresses_of(&self, person: &str) -> Result<Vec<Vec<u8>>, Problem> {
        let history = self.whole_history(person, usize::MAX).await?;
        let emails = history.iter().filter_map(|event| event.pointer("/data/email")?.as_str());
        let emails = emails.filter_map(|email| Email::parse(email).ok());
        Ok(emails.map(|email| self.accounts.digests.email.digest(email.normal().as_bytes())).collect())
    }

    async fn invitations_to(&self, person: &str) -> Result<Value, Problem> {
        let mut all = Vec::new();
        let mut addresses = self.addresses_of(person).await?;
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            for found in self.accounts.invites.to_address(&address, None).await? {
                let tenant = TenantId::new(&found.tenant)?;
                let open = self.accounts.tenant(&tenant).await?;
                let invited = open.as_ref().and_then(|open| open.invites.get(&found.invite));
                all.push(json!({
                    "id": found.invite, "tenant": found.tenant, "tenant_name": open.as_ref().map(|open| &open.name),
                    "open": invited.is_some(), "role": invited.map(|invited| invited.role),
                    "expires_at": invited.map(|invited| invited.expires_at),
                }));
            }
        }
        Ok(Value::Array(all))
    }

    async fn keys_of(&self, person: &str) -> Result<Value, Problem> {
        let mut all = Vec::new();
        for (tenant, key) in self.exports.keys_of(person).await? {
            let stream = StreamName::new(&tenant, events::key::CATEGORY, &key)?;
            let state = self.accounts.executor.inspect::<Keys>(&stream).await?.state;
            all.push(json!({ "id": key, "tenant": tenant, "key": state }));
        }
        Ok(Value::Array(all))
    }

    async fn mails_to(&self, person: &str) -> Result<Value, Problem> {
        Ok(json!(self.accounts.outbox.waiting_for(person).await?))
    }
}

/// Identities at providers, out of the history: who they are there is kept nowhere else.
fn identities(history: &[Value]) -> Value {
    let mut linked: Vec<Value> = Vec::new();
    for event in history {
        let provider = event.pointer("/data/provider").cloned().unwrap_or_default();
        match event.get("type").and_then(Value::as_str) {
            Some("person.identity_linked") => linked.push(json!({
                "provider": provider, "subject": event.pointer("/data/subject"), "since": event.get("time"),
            })),
            Some("person.identity_unlinked") => linked.retain(|one| one.get("provider") != Some(&provider)),
            _ => {}
        }
    }
    Value::Array(linked)
}
