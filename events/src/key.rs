//! `api-key`: what programs show instead of a password. The secret itself is shown once and never stored; its hash is state in
//! Postgres, which is asked on every use.

use std::collections::BTreeSet;

use kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::no_old_versions;

/// The category's name.
pub const CATEGORY: &str = "api-key";

facts! {
    /// What can happen to a key.
    pub enum Event, upcast no_old_versions;
    Issued = "api-key.issued", version 1;
    Rotated = "api-key.rotated", version 1;
    Revoked = "api-key.revoked", version 1;
}

/// A key was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// What it is for.
    pub name: String,
    /// The first characters of the secret: people recognise it by them.
    pub prefix: String,
    /// What it may do, such as `runs:write`; no more than its maker may.
    pub scopes: BTreeSet<String>,
    /// Who made it. When that person leaves the tenant, the key is worth nothing.
    pub owner: String,
    /// After which it is worth nothing.
    pub expires_at: Timestamp,
}

/// It has a new secret; the old one goes on for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The first characters of the new secret.
    pub prefix: String,
    /// Until when the old secret goes on.
    pub overlap_until: Timestamp,
    /// When the new one expires.
    pub expires_at: Timestamp,
}

/// It is worth nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// `revoked` by somebody, or `owner_left`.
    pub reason: String,
}
