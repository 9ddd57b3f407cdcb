//! The decider of API keys.
//!
//! It protects one invariant: a key that was revoked stays revoked, and a rotation never makes a key last longer than its
//! old secret's overlap says or do more than it did.
//!
//! Its commands are the platform's own: who may make a key with which scopes is decided where roles are known.

use std::collections::BTreeSet;
use std::fmt;

use events::key::{self, Event, Issued, Revoked, Rotated};
use kernel::{Access, CommandSet, CommandSpec, Decider, Problem, Stamp, Timestamp};
use serde::{Deserialize, Serialize};

/// What may be asked of a key.
#[derive(Debug, Clone)]
pub enum Command {
    /// It is made.
    Issue(Issued),
    /// It gets a new secret.
    Rotate {
        /// What changes.
        rotated: Rotated,
        /// Now.
        at: Timestamp,
    },
    /// It ends.
    Revoke(Revoked),
}

impl CommandSet for Command {
    const SPECS: &'static [CommandSpec] = &[
        CommandSpec { name: "issue", access: Access::Internal, about: "Records a new key." },
        CommandSpec { name: "rotate", access: Access::Internal, about: "Records a key's new secret." },
        CommandSpec { name: "revoke", access: Access::Internal, about: "Records that a key is worth nothing." },
    ];

    fn parse(name: &str, body: &[u8], stamp: &Stamp) -> Result<Self, Problem> {
        match name {
            "issue" => kernel::object(body).map(Self::Issue),
            "rotate" => kernel::object(body).map(|rotated| Self::Rotate { rotated, at: stamp.at }),
            "revoke" => kernel::object(body).map(Self::Revoke),
            _ => Err(Problem::not_found(format!("A key knows no command `{name}`."))),
        }
    }
}

/// What is remembered of a key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Nobody has made it.
    #[default]
    Unknown,
    /// It was made.
    Issued(Key),
    /// It was revoked.
    Revoked,
}

/// A key that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// What it is for.
    pub name: String,
    /// The first characters of its secret.
    pub prefix: String,
    /// What it may do.
    pub scopes: BTreeSet<String>,
    /// Who made it.
    pub owner: String,
    /// After which it is worth nothing.
    pub expires_at: Timestamp,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such key.
    Unknown,
    /// Another key has this id.
    Taken,
    /// It was revoked.
    Revoked,
    /// It has expired.
    Expired,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "There is no such key.",
            Self::Taken => "There is a key under this id already.",
            Self::Revoked => "The key was revoked; make a new one.",
            Self::Expired => "The key has expired; make a new one.",
        })
    }
}

impl kernel::Rejection for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_key",
            Self::Taken => "key_id_taken",
            Self::Revoked => "key_revoked",
            Self::Expired => "key_expired",
        }
    }

    fn status(&self) -> u16 {
        if *self == Self::Unknown { 404 } else { 409 }
    }
}

/// The decider of the category `api-key`.
#[derive(Debug, Clone, Copy)]
pub struct Keys;

impl Decider for Keys {
    const CATEGORY: &'static str = key::CATEGORY;
    type Command = Command;
    type Event = Event;
    type State = State;
    type Rejection = Refusal;

    fn decide(state: &State, command: Command) -> Result<Vec<Event>, Refusal> {
        match (state, command) {
            (State::Unknown, Command::Issue(issued)) => Ok(vec![issued.into()]),
            (State::Unknown, _) => Err(Refusal::Unknown),
            (State::Issued(key), Command::Issue(issued)) => {
                match key.prefix == issued.prefix && key.owner == issued.owner {
                    true => Ok(vec![]),
                    false => Err(Refusal::Taken),
                }
            }
            (State::Revoked, Command::Issue(_)) => Err(Refusal::Taken),
            (State::Issued(key), Command::Rotate { rotated, .. }) if key.prefix == rotated.prefix => Ok(vec![]),
            (State::Issued(key), Command::Rotate { at, .. }) if key.expires_at <= at => Err(Refusal::Expired),
            (State::Issued(_), Command::Rotate { rotated, .. }) => Ok(vec![rotated.into()]),
            (State::Revoked, Command::Rotate { .. }) => Err(Refusal::Revoked),
            (State::Issued(_), Command::Revoke(revoked)) => Ok(vec![revoked.into()]),
            (State::Revoked, Command::Revoke(_)) => Ok(vec![]),
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        match (state, event) {
            (State::Unknown, Event::Issued(Issued { name, prefix, scopes, owner, expires_at })) => State::Issued(Key {
                name: name.clone(),
                prefix: prefix.clone(),
                scopes: scopes.clone(),
                owner: owner.clone(),
                expires_at: *expires_at,
            }),
            (State::Issued(key), Event::Rotated(Rotated { prefix, expires_at, .. })) => {
                State::Issued(Key { prefix: prefix.clone(), expires_at: *expires_at, ..key })
            }
            (State::Issued(_), Event::Revoked(_)) => State::Revoked,
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use kernel::scenario::{assert_laws, assert_survives_storage, given};
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).expect("a moment")
    }

    fn issued(prefix: &str) -> Issued {
        let scopes = BTreeSet::from(["runs:read".to_owned()]);
        Issued { name: "import".into(), prefix: prefix.into(), scopes, owner: "ann".into(), expires_at: at(100) }
    }

    fn rotated(prefix: &str) -> Rotated {
        Rotated { prefix: prefix.into(), overlap_until: at(60), expires_at: at(200) }
    }

    fn revoked() -> Revoked {
        Revoked { reason: "revoked".into() }
    }

    #[test]
    fn a_key_is_made_rotated_and_revoked_for_good() {
        given::<Keys>([])
            .when(Command::Revoke(revoked()))
            .then_rejected(Refusal::Unknown)
            .when(Command::Issue(issued("ask_a")))
            .then([issued("ask_a").into()])
            .when(Command::Issue(issued("ask_a")))
            .then_nothing()
            .when(Command::Issue(issued("ask_z")))
            .then_rejected(Refusal::Taken)
            .when(Command::Rotate { rotated: rotated("ask_b"), at: at(50) })
            .then([rotated("ask_b").into()])
            .when(Command::Rotate { rotated: rotated("ask_b"), at: at(50) })
            .then_nothing()
            .when(Command::Rotate { rotated: rotated("ask_c"), at: at(200) })
            .then_rejected(Refusal::Expired)
            .when(Command::Revoke(revoked()))
            .then([revoked().into()])
            .when(Command::Revoke(revoked()))
            .then_nothing()
            .when(Command::Rotate { rotated: rotated("ask_d"), at: at(50) })
            .then_rejected(Refusal::Revoked)
            .when(Command::Issue(issued("ask_a")))
            .then_rejected(Refusal::Taken);
    }

    proptest! {
        #[test]
        fn the_laws_hold_for_any_sequence(choices in prop::collection::vec((0..3_usize, 0..3_usize, 0..250_i64), 0..20)) {
            let mut state = State::default();
            for (what, which, now) in choices {
                let prefix = ["ask_a", "ask_b", "ask_c"][which];
                let command = match what {
                    0 => Command::Issue(issued(prefix)),
                    1 => Command::Rotate { rotated: rotated(prefix), at: at(now) },
                    _ => Command::Revoke(revoked()),
                };
                state = assert_survives_storage(&assert_laws::<Keys>(state, command));
            }
        }
    }
}
