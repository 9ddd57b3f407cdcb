//! The decider of tenants.
//!
//! It protects three invariants: while a tenant has members, one of them is an owner; nobody gives a role that they could not
//! take themselves; an invitation is accepted once, in time, by whom it was meant for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use events::tenant::{
    self, Closed, Created, Event, InviteRevoked, MemberInvited, MemberJoined, MemberLeft, Renamed, Role, RoleChanged,
};
use kernel::{Access, CommandSet, CommandSpec, Decider, FieldError, Problem, Sealed, Stamp, Timestamp};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Longest name, in characters.
pub const MAX_NAME_CHARS: usize = 100;
/// Invitations that may be open at once.
pub const MAX_INVITES: usize = 200;
/// How long an invitation may be accepted.
pub const INVITE_LASTS: Duration = Duration::from_secs(7 * 86_400);
/// Members that a tenant may have.
pub const MAX_MEMBERS: usize = 10_000;

/// What may be asked of a tenant.
#[derive(Debug, Clone)]
pub enum Command {
    /// Somebody makes it.
    Create(Created),
    /// People call it something else.
    Rename {
        /// Who asks.
        by: String,
        /// The new name.
        name: String,
    },
    /// Somebody is asked to join.
    Invite {
        /// The invitation, `by` included.
        invited: MemberInvited,
        /// Now.
        at: Timestamp,
    },
    /// An invitation is taken back.
    RevokeInvite {
        /// Who asks.
        by: String,
        /// Which.
        invite: String,
    },
    /// Whoever was invited does not want to. Whether the invitation was meant for them is known to whoever sends this.
    Decline {
        /// Which invitation.
        invite: String,
    },
    /// Somebody accepts. Whether the invitation was meant for them is known to whoever sends this.
    Accept {
        /// Which invitation.
        invite: String,
        /// Who.
        person: String,
        /// Now.
        at: Timestamp,
    },
    /// A member may do more, or less.
    ChangeRole {
        /// Who asks.
        by: String,
        /// Whose role.
        person: String,
        /// The new one.
        role: Role,
    },
    /// A member goes, or is made to.
    Remove {
        /// Who asks.
        by: String,
        /// Who goes.
        person: String,
    },
    /// A member was erased. The last one closes the tenant.
    Forget {
        /// Who.
        person: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    name: String,
}

/// What an invitation is made of; until when it may be accepted follows from when it is made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    invite: String,
    email: Sealed,
    role: Role,
    by: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    invite: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accept {
    invite: String,
    person: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeRole {
    person: String,
    role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    person: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl CommandSet for Command {
    const SPECS: &'static [CommandSpec] = &[
        CommandSpec { name: "create", access: Access::Internal, about: "Makes the tenant, with its first owner." },
        CommandSpec { name: "rename", access: Access::Public, about: "Changes what people call it." },
        CommandSpec { name: "invite", access: Access::Internal, about: "Asks somebody to join." },
        CommandSpec { name: "revoke-invite", access: Access::Public, about: "Takes an invitation back." },
        CommandSpec {
            name: "decline",
            access: Access::Internal,
            about: "Takes an invitation back for whom it was made.",
        },
        CommandSpec { name: "accept", access: Access::Internal, about: "Makes whoever accepts a member." },
        CommandSpec { name: "change-role", access: Access::Public, about: "Changes what a member may do." },
        CommandSpec { name: "remove", access: Access::Public, about: "Ends a membership." },
        CommandSpec { name: "leave", access: Access::Public, about: "Ends one's own membership." },
        CommandSpec { name: "forget", access: Access::Internal, about: "Ends the membership of somebody erased." },
    ];

    fn parse(name: &str, body: &[u8], stamp: &Stamp) -> Result<Self, Problem> {
        let by = stamp.principal.to_string();
        Ok(match name {
            "create" => {
                let created: Created = kernel::object(body)?;
                Self::Create(Created { name: name_of(&created.name)?, ..created })
            }
            "rename" => Self::Rename { by, name: name_of(&kernel::object::<Rename>(body)?.name)? },
            "invite" => {
                let Ask { invite, email, role, by } = kernel::object(body)?;
                let expires_at = stamp.at + INVITE_LASTS;
                Self::Invite { invited: MemberInvited { invite, email, role, by, expires_at }, at: stamp.at }
            }
            "revoke-invite" => Self::RevokeInvite { by, invite: kernel::object::<Invite>(body)?.invite },
            "decline" => Self::Decline { invite: kernel::object::<Invite>(body)?.invite },
            "accept" => {
                let Accept { invite, person } = kernel::object(body)?;
                Self::Accept { invite, person, at: stamp.at }
            }
            "change-role" => {
                let ChangeRole { person, role } = kernel::object(body)?;
                Self::ChangeRole { by, person, role }
            }
            "remove" => Self::Remove { by, person: kernel::object::<Remove>(body)?.person },
            "leave" => {
                let Nothing {} = kernel::object(body)?;
                Self::Remove { person: by.clone(), by }
            }
            "forget" => Self::Forget { person: kernel::object::<Remove>(body)?.person },
            _ => return Err(Problem::not_found(format!("A tenant knows no command `{name}`."))),
        })
    }
}

/// A name as it is kept: without blanks around it, no longer than [`MAX_NAME_CHARS`].
fn name_of(text: &str) -> Result<String, Problem> {
    let name = text.trim();
    match (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        true => Ok(name.to_owned()),
        false => {
            let detail = "A tenant's name has 1 to 100 characters, and no control characters.".to_owned();
            Err(Problem::invalid(vec![FieldError { pointer: "/name".to_owned(), detail }]))
        }
    }
}

/// What is remembered of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Nobody has made it.
    #[default]
    NotCreated,
    /// It has members.
    Open(Tenant),
    /// Its last member is gone.
    Closed,
}

/// A tenant with members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// What people call it.
    pub name: String,
    /// Who belongs to it, and in which role.
    pub members: BTreeMap<String, Role>,
    /// Who has been asked.
    pub invites: BTreeMap<String, Invited>,
}

/// An open invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invited {
    /// To whom.
    pub email: Sealed,
    /// With which role.
    pub role: Role,
    /// Until when it may be accepted.
    pub expires_at: Timestamp,
}

impl State {
    /// The tenant, if it is open.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Open(tenant) => Some(tenant),
            Self::NotCreated | Self::Closed => None,
        }
    }
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such tenant, or the caller is not to know of it.
    Unknown,
    /// Somebody else has made it.
    Taken,
    /// The caller's role is too weak.
    Forbidden {
        /// What it would take.
        needed: Role,
    },
    /// There is no such member.
    UnknownMember,
    /// There is no such invitation, or no longer.
    UnknownInvite,
    /// The invitation is too old.
    InviteExpired,
    /// Nobody would own it.
    LastOwner,
    /// It is full.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("There is no such tenant."),
            Self::Taken => f.write_str("There is a tenant under this id already."),
            Self::Forbidden { needed } => write!(f, "Your role does not allow this; it takes `{}`.", needed.as_str()),
            Self::UnknownMember => f.write_str("There is no such member."),
            Self::UnknownInvite => f.write_str("There is no such invitation: it was used, taken back or never made."),
            Self::InviteExpired => f.write_str("The invitation has expired; ask for another one."),
            Self::LastOwner => f.write_str("A tenant needs an owner: make somebody else an owner first."),
            Self::TooMany { what, limit } => write!(f, "There are {limit} {what}, which is the limit."),
        }
    }
}

impl kernel::Rejection for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_tenant",
            Self::Taken => "tenant_id_taken",
            Self::Forbidden { .. } => "forbidden",
            Self::UnknownMember => "unknown_member",
            Self::UnknownInvite => "unknown_invite",
            Self::InviteExpired => "invite_expired",
            Self::LastOwner => "last_owner",
            Self::TooMany { .. } => "too_many",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Unknown | Self::UnknownMember | Self::UnknownInvite => 404,
            Self::Forbidden { .. } => 403,
            Self::InviteExpired => 410,
            Self::Taken | Self::LastOwner | Self::TooMany { .. } => 409,
        }
    }
}

/// The decider of the category `tenant`.
#[derive(Debug, Clone, Copy)]
pub struct Tenants;

impl Decider for Tenants {
    const CATEGORY: &'static str = tenant::CATEGORY;
    type Command = Command;
    type Event = Event;
    type State = State;
    type Rejection = Refusal;

    fn decide(state: &State, command: Command) -> Result<Vec<Event>, Refusal> {
        match (state, command) {
            (State::NotCreated, Command::Create(created)) => Ok(vec![created.into()]),
            (State::Open(tenant), Command::Create(created)) => match tenant.made_as(&created) {
                true => Ok(vec![]),
                false => Err(Refusal::Taken),
            },
            (State::Closed, Command::Create(_)) => Err(Refusal::Taken),
            (State::NotCreated | State::Closed, Command::Forget { .. }) => Ok(vec![]),
            (State::NotCreated | State::Closed, _) => Err(Refusal::Unknown),
            (State::Open(tenant), command) => tenant.decide(command),
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        match (state, event) {
            (State::NotCreated, Event::Created(Created { name, owner })) => State::Open(Tenant {
                name: name.clone(),
                members: BTreeMap::from([(owner.clone(), Role::Owner)]),
                invites: BTreeMap::new(),
            }),
            (State::Open(_), Event::Closed(_)) => State::Closed,
            (State::Open(mut tenant), event) => {
                tenant.evolve(event);
                State::Open(tenant)
            }
            (state, _) => state,
        }
    }
}

impl Tenant {
    fn made_as(&self, created: &Created) -> bool {
        self.name == created.name && self.members.get(&created.owner) == Some(&Role::Owner)
    }

    /// Lets a member pass whose role is strong enough. To everybody else there is no such tenant.
    fn require(&self, by: &str, needed: Role) -> Result<Role, Refusal> {
        let role = *self.members.get(by).ok_or(Refusal::Unknown)?;
        if role >= needed { Ok(role) } else { Err(Refusal::Forbidden { needed }) }
    }

    fn owners_without(&self, person: &str) -> usize {
        self.members.iter().filter(|(name, role)| **role == Role::Owner && *name != person).count()
    }

    fn decide(&self, command: Command) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Create(_) => Ok(vec![]),
            Command::Rename { by, name } => {
                self.require(&by, Role::Admin)?;
                Ok(if self.name == name { vec![] } else { vec![Renamed { name }.into()] })
            }
            Command::Invite { invited, at } => self.invite(invited, at),
            Command::RevokeInvite { by, invite } => {
                self.require(&by, Role::Admin)?;
                Ok(self.revoke(invite))
            }
            Command::Decline { invite } => Ok(self.revoke(invite)),
            Command::Accept { invite, person, at } => self.accept(invite, person, at),
            Command::ChangeRole { by, person, role } => {
                self.require(&by, Role::Viewer)?;
                let current = *self.members.get(&person).ok_or(Refusal::UnknownMember)?;
                if current == role {
                    return Ok(vec![]);
                }
                self.require(&by, role.max(current).max(Role::Admin))?;
                if current == Role::Owner && self.owners_without(&person) == 0 {
                    return Err(Refusal::LastOwner);
                }
                Ok(vec![RoleChanged { person, role }.into()])
            }
            Command::Remove { by, person } => self.remove(&by, person),
            Command::Forget { person } => Ok(self.forget(person)),
        }
    }

    fn invite(&self, invited: MemberInvited, at: Timestamp) -> Result<Vec<Event>, Refusal> {
        self.require(&invited.by, invited.role.max(Role::Admin))?;
        if self.invites.contains_key(&invited.invite) {
            return Ok(vec![]);
        }
        let open = self.invites.values().filter(|open| open.expires_at > at).count();
        if open >= MAX_INVITES {
            return Err(Refusal::TooMany { what: "open invitations", limit: MAX_INVITES });
        }
        Ok(vec![invited.into()])
    }

    fn revoke(&self, invite: String) -> Vec<Event> {
        let open = self.invites.contains_key(&invite);
        if open { vec![InviteRevoked { invite }.into()] } else { vec![] }
    }

    fn accept(&self, invite: String, person: String, at: Timestamp) -> Result<Vec<Event>, Refusal> {
        let member = self.members.get(&person).copied();
        let Some(open) = self.invites.get(&invite) else {
            // Whoever is a member already may have been made one by this very invitation.
            return if member.is_some() { Ok(vec![]) } else { Err(Refusal::UnknownInvite) };
        };
        if open.expires_at <= at {
            return Err(Refusal::InviteExpired);
        }
        match member {
            // It takes nothing away.
            Some(role) if role >= open.role => Ok(vec![InviteRevoked { invite }.into()]),
            None if self.members.len() >= MAX_MEMBERS => Err(Refusal::TooMany { what: "members", limit: MAX_MEMBERS }),
            _ => Ok(vec![MemberJoined { person, role: open.role, invite }.into()]),
        }
    }

    fn remove(&self, by: &str, person: String) -> Result<Vec<Event>, Refusal> {
        let leaves = by == person;
        if leaves && !self.members.contains_key(by) {
            return Ok(vec![]);
        }
        let own = self.require(by, Role::Viewer)?;
        let Some(role) = self.members.get(&person).copied() else {
            self.require(by, Role::Admin)?;
            return Ok(vec![]);
        };
        if !leaves && own < role.max(Role::Admin) {
            return Err(Refusal::Forbidden { needed: role.max(Role::Admin) });
        }
        if role == Role::Owner && self.owners_without(&person) == 0 {
            return Err(Refusal::LastOwner);
        }
        Ok(vec![MemberLeft { person, reason: if leaves { "left" } else { "removed" }.to_owned() }.into()])
    }

    /// Erasure does not wait for anybody: when no owner is left, whoever has the strongest role becomes one.
    fn forget(&self, person: String) -> Vec<Event> {
        let Some(role) = self.members.get(&person) else { return vec![] };
        let orphaned = *role == Role::Owner && self.owners_without(&person) == 0;
        let heirs = self.members.iter().filter(|(name, _)| **name != person);
        let heir = heirs.max_by_key(|(name, role)| (**role, std::cmp::Reverse(*name))).map(|(name, _)| name.clone());
        let left = MemberLeft { person, reason: "erased".to_owned() }.into();
        match heir {
            None => vec![left, Closed {}.into()],
            Some(person) if orphaned => vec![RoleChanged { person, role: Role::Owner }.into(), left],
            Some(_) => vec![left],
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Created(_) | Event::Closed(_) => {}
            Event::Renamed(Renamed { name }) => self.name.clone_from(name),
            Event::MemberInvited(MemberInvited { invite, email, role, expires_at, .. }) => {
                let invited = Invited { email: email.clone(), role: *role, expires_at: *expires_at };
                self.invites.insert(invite.clone(), invited);
            }
            Event::InviteRevoked(InviteRevoked { invite }) => {
                self.invites.remove(invite);
            }
            Event::MemberJoined(MemberJoined { person, role, invite }) => {
                self.members.insert(person.clone(), *role);
                self.invites.remove(invite);
            }
            Event::RoleChanged(RoleChanged { person, role }) => {
                self.members.insert(person.clone(), *role);
            }
            Event::MemberLeft(MemberLeft { person, .. }) => {
                self.members.remove(person);
            }
        }
    }
}
