//! What the log says that belongs into whose audit. Pure: the projector and the verification from the log share it.

use events::{key, person, tenant};
use kernel::{Envelope, FactError, Timestamp, canonical};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::machinery;
use crate::projector::CommitFacts;

/// Whose streams people are: of no tenant that anybody can join.
pub const PEOPLE: &str = "airstream";

/// The categories that tell who may do what.
pub(super) const CATEGORIES: &[&str] = &[person::CATEGORY, tenant::CATEGORY, key::CATEGORY];

/// What people do about their accounts that concerns the tenants they belong to, and what of it: neither where they were nor who
/// they are elsewhere.
const OF_MEMBERS: [&str; 12] = [
    "person.password_changed",
    "person.totp_enabled",
    "person.totp_disabled",
    "person.recovery_codes_renewed",
    "person.identity_linked",
    "person.identity_unlinked",
    "person.session_opened",
    "person.session_ended",
    "person.sessions_ended",
    "person.refresh_reused",
    "person.email_changed",
    "person.erased",
];
const FIELDS_OF_MEMBERS: [&str; 4] = ["method", "by", "reason", "provider"];

/// A row of the audit, before it is chained.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Whose audit it is in.
    pub tenant: String,
    /// Where its commit stands.
    pub position: i64,
    /// Which event of the commit.
    pub number: i32,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// The event's type.
    pub action: String,
    /// On what.
    pub category: String,
    /// On which.
    pub subject: String,
    /// The chain of requests that it belongs to.
    pub correlation: String,
    /// The event's data: sealed where it is personal.
    pub data: Value,
}

impl Entry {
    fn of(facts: &CommitFacts<'_>, number: usize, envelope: &Envelope<'_>) -> Result<Self, FactError> {
        let data = serde_json::from_str(envelope.data.get()).map_err(|error| FactError::Misfit {
            type_name: envelope.type_name.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            tenant: facts.stream.tenant.to_string(),
            position: machinery::number(facts.position),
            number: i32::try_from(number).unwrap_or(i32::MAX),
            at: envelope.time,
            actor: envelope.actor.to_string(),
            action: envelope.type_name.to_string(),
            category: facts.stream.category.to_string(),
            subject: facts.stream.id.to_string(),
            correlation: envelope.correlationid.to_string(),
            data,
        })
    }

    /// The entries of a commit, in the audit of the stream's own tenant.
    ///
    /// # Errors
    /// When an event's data is no JSON.
    pub fn all(facts: &CommitFacts<'_>) -> Result<Vec<Self>, FactError> {
        let events = facts.commit.events.iter().enumerate();
        events.map(|(number, envelope)| Self::of(facts, number, envelope)).collect()
    }

    /// The same as a tenant sees it to which the person belongs; `None` when it is none of its business.
    #[must_use]
    pub fn for_member(&self, tenant: &str) -> Option<Self> {
        if self.category != person::CATEGORY || !OF_MEMBERS.contains(&self.action.as_str()) {
            return None;
        }
        let kept = |name: &&str| Some(((*name).to_owned(), self.data.get(*name)?.clone()));
        let data: Map<String, Value> = FIELDS_OF_MEMBERS.iter().filter_map(kept).collect();
        Some(Self { tenant: tenant.to_owned(), data: Value::Object(data), ..self.clone() })
    }

    /// The hash of what it says, as part of a chain: over the one before and the canonical JSON of this one.
    ///
    /// `hash = SHA-256(before ‖ SHA-256(canonical JSON))`, the hash before the first being `SHA-256("airstream audit 1 " ‖ tenant)`. Canonical: keys
    /// sorted, no blanks; `at` in UTC to the microsecond.
    #[must_use]
    pub fn link(&self, before: &[u8]) -> Hash {
        link(before, &self.digest())
    }

    /// The inner hash of [`Entry::link`].
    #[must_use]
    pub fn digest(&self) -> Hash {
        let at = self.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let row = json!({
            "tenant": self.tenant, "position": self.position, "number": self.number, "at": at, "actor": self.actor,
            "action": self.action, "category": self.category, "subject": self.subject,
            "correlation": self.correlation, "data": self.data,
        });
        Sha256::digest(canonical(&row)).into()
    }
}

/// SHA-256.
pub type Hash = [u8; 32];

/// See [`Entry::link`].
#[must_use]
pub(super) fn link(before: &[u8], digest: &Hash) -> Hash {
    Sha256::new().chain_update(before).chain_update(digest).finalize().into()
}

/// What stands before a tenant's first entry.
#[must_use]
pub(super) fn first(tenant: &str) -> Hash {
    Sha256::digest(format!("airstream audit 1 {tenant}")).into()
}

/// Somebody began or ceased to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// From here on they are.
    Joined(String),
    /// From here on they are not.
    Left(String),
}

/// What a tenant's event says about who is a member.
///
/// # Errors
/// When the event cannot be read.
pub(super) fn turn(envelope: &Envelope<'_>) -> Result<Option<Turn>, FactError> {
    if envelope.category() != tenant::CATEGORY {
        return Ok(None);
    }
    Ok(match envelope.decode::<tenant::Event>()? {
        tenant::Event::Created(created) => Some(Turn::Joined(created.owner)),
        tenant::Event::MemberJoined(joined) => Some(Turn::Joined(joined.person)),
        tenant::Event::MemberLeft(left) => Some(Turn::Left(left.person)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            tenant: PEOPLE.into(),
            position: 7,
            number: 0,
            at: Timestamp::UNIX_EPOCH,
            actor: "usr_1".into(),
            action: "person.session_opened".into(),
            category: "person".into(),
            subject: "usr_1".into(),
            correlation: "c".into(),
            data: json!({ "method": "password", "session": "ses_1", "origin": { "ct": "x" } }),
        }
    }

    #[test]
    fn a_tenant_hears_that_a_member_signed_in_and_not_from_where() {
        let seen = entry().for_member("acme").expect("its business");
        assert_eq!((seen.tenant.as_str(), seen.data), ("acme", json!({ "method": "password" })));
        assert_eq!(Entry { action: "person.profile_changed".into(), ..entry() }.for_member("acme"), None);
    }

    #[test]
    fn every_part_of_an_entry_counts_for_its_hash() {
        let before = first("acme");
        let hash = entry().link(&before);
        assert_eq!(hash, entry().link(&before));
        assert_ne!(hash, entry().link(&first("other")));
        let changes: [fn(&mut Entry); 10] = [
            |entry| entry.tenant.push('x'),
            |entry| entry.position += 1,
            |entry| entry.number += 1,
            |entry| entry.at += std::time::Duration::from_micros(1),
            |entry| entry.actor.push('x'),
            |entry| entry.action.push('x'),
            |entry| entry.category.push('x'),
            |entry| entry.subject.push('x'),
            |entry| entry.correlation.push('x'),
            |entry| entry.data = json!({}),
        ];
        for change in changes {
            let mut other = entry();
            change(&mut other);
            assert_ne!(hash, other.link(&before), "{other:?}");
        }
    }

    /// Chains are kept outside: their formula must not change under this version's name.
    #[test]
    fn the_formula_is_the_one_that_is_written_down() {
        let hex = |hash: Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let canonical = r#"{"action":"person.session_opened","actor":"usr_1","at":"1970-01-01T00:00:00.000000Z","category":"person","correlation":"c","data":{"method":"password","origin":{"ct":"x"},"session":"ses_1"},"number":0,"position":7,"subject":"usr_1","tenant":"airstream"}"#;
        assert_eq!(hex(entry().digest()), hex(Sha256::digest(canonical).into()));
    }
}
