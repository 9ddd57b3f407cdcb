//! `person`: somebody who signs in. People belong to no tenant; their streams are the platform's own.
//!
//! Whatever tells who somebody is, is [`Sealed`] with that person's key. Passwords, codes and tokens never come here, not even
//! hashed: they are state that changes hands quickly, kept under locks in Postgres. The history says *that* something
//! happened.

use kernel::Sealed;
use serde::{Deserialize, Serialize};

use crate::facts::no_old_versions;

/// The category's name.
pub const CATEGORY: &str = "person";

facts! {
    /// What can happen to a person.
    pub enum Event, upcast no_old_versions;
    Registered = "person.registered", version 1;
    EmailConfirmed = "person.email_confirmed", version 1;
    EmailChanged = "person.email_changed", version 1;
    ProfileChanged = "person.profile_changed", version 1;
    PasswordChanged = "person.password_changed", version 1;
    TotpEnabled = "person.totp_enabled", version 1;
    TotpDisabled = "person.totp_disabled", version 1;
    RecoveryCodesRenewed = "person.recovery_codes_renewed", version 1;
    IdentityLinked = "person.identity_linked", version 1;
    IdentityUnlinked = "person.identity_unlinked", version 1;
    SessionOpened = "person.session_opened", version 1;
    SessionEnded = "person.session_ended", version 1;
    SessionsEnded = "person.sessions_ended", version 1;
    RefreshReused = "person.refresh_reused", version 1;
    ExportRequested = "person.export_requested", version 1;
    Erased = "person.erased", version 1;
}

/// Somebody registered. The address may not be theirs until it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The e-mail address as it was typed.
    pub email: Sealed,
    /// A name to log in by, if one was asked for and free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Sealed>,
    /// What they are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Sealed>,
    /// `password`, or the provider that vouched for them.
    pub method: String,
}

/// A message to the address was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailConfirmed {}

/// They have another address, which has been confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailChanged {
    /// The new one.
    pub email: Sealed,
}

/// They changed what is said about them. What is absent stays as it was; an empty text takes it away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileChanged {
    /// The name to log in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Sealed>,
    /// What they are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Sealed>,
    /// Their language, as BCP 47 says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
}

/// There is another password. All sessions but the one it was changed in have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordChanged {
    /// Counts the passwords, the one of the registration as 1.
    pub number: u32,
    /// `known`: by somebody who knew the old one; `reset`: by a message to the confirmed address.
    pub by: String,
}

/// From now on a second factor is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpEnabled {}

/// No second factor is asked for any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpDisabled {}

/// There are new recovery codes; the old ones are worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCodesRenewed {
    /// Counts the sets of codes, from 1.
    pub number: u32,
}

/// They may also sign in by another identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityLinked {
    /// `google` or `github`.
    pub provider: String,
    /// Who they are there: the provider's own id, which never changes.
    pub subject: Sealed,
}

/// They may not sign in by it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityUnlinked {
    /// `google` or `github`.
    pub provider: String,
}

/// They signed in somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// Which session.
    pub session: String,
    /// How they showed who they are: `password`, `password+totp`, `password+recovery`, `google`, `github`, `device`.
    pub method: String,
    /// From where, as JSON: `{"address":…,"agent":…}`.
    pub origin: Sealed,
}

/// A session is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnded {
    /// Which session.
    pub session: String,
    /// `logout`, `revoked`, `refresh_reused`, `too_many`; in old logs also `password_changed` and `erased`.
    pub reason: String,
}

/// All sessions are over, but perhaps one. One event however many they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsEnded {
    /// The one that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// `revoked`, `password_changed`, `erased`.
    pub reason: String,
}

/// A refresh token came a second time, long after its successor was given out: one of the two holders has no right to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshReused {
    /// The session it belongs to, which is over now.
    pub session: String,
    /// From where, as in [`SessionOpened`].
    pub origin: Sealed,
}

/// They asked for everything that is stored about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequested {
    /// Which archive it will be.
    pub export: String,
}

/// They asked to be forgotten. Their key is destroyed right after: what is sealed above cannot be read any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {}
