//! `tenant`: who owns data together, and in which role. The stream is the tenant's own, under its own name.

use kernel::{Sealed, Timestamp};
use serde::{Deserialize, Serialize};

use crate::facts::no_old_versions;

/// The category's name.
pub const CATEGORY: &str = "tenant";

facts! {
    /// What can happen to a tenant.
    pub enum Event, upcast no_old_versions;
    Created = "tenant.created", version 1;
    Renamed = "tenant.renamed", version 1;
    MemberInvited = "tenant.member_invited", version 1;
    InviteRevoked = "tenant.invite_revoked", version 1;
    MemberJoined = "tenant.member_joined", version 1;
    RoleChanged = "tenant.role_changed", version 1;
    MemberLeft = "tenant.member_left", version 1;
    Closed = "tenant.closed", version 1;
}

/// What a member may do. Each role may do what the ones after it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Works: starts, changes, cancels.
    Member,
    /// Invites, gives roles below owner, makes keys.
    Admin,
    /// Everything, and the tenant itself.
    Owner,
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Member, Self::Admin, Self::Owner];

    /// Its name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// Somebody made it, and owns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// What people call it.
    pub name: String,
    /// Who made it.
    pub owner: String,
}

/// People call it something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The new name.
    pub name: String,
}

/// Somebody was asked to join. The invitation is bound to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInvited {
    /// Which invitation.
    pub invite: String,
    /// To whom; sealed with a key of the invitation's own, which is destroyed when the invited person is erased.
    pub email: Sealed,
    /// With which role.
    pub role: Role,
    /// Who asked.
    pub by: String,
    /// Until when it may be accepted.
    pub expires_at: Timestamp,
}

/// An invitation was taken back, or declined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRevoked {
    /// Which invitation.
    pub invite: String,
}

/// Somebody joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberJoined {
    /// Who.
    pub person: String,
    /// In which role.
    pub role: Role,
    /// By which invitation.
    pub invite: String,
}

/// A member may do more, or less, than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChanged {
    /// Who.
    pub person: String,
    /// The new role.
    pub role: Role,
}

/// Somebody is no longer a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLeft {
    /// Who.
    pub person: String,
    /// `left`, `removed` by another, or `erased`.
    pub reason: String,
}

/// Nobody is left. Its data stays where it is until it is purged; nobody can reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {}
