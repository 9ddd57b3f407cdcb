//! One suite per port. Every adapter passes it: the memory ones in this crate, the real ones in theirs.
//!
//! A suite panics with a sentence when the adapter breaks the contract; that is its only outcome worth reading.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "panicking is how a suite reports")]

pub mod effects;
pub mod executing;
pub mod index;
pub mod leases;
pub mod log;
mod small_pages;
pub mod snapshots;
mod stale;

use kernel::{
    Access, CommandSet, CommandSpec, Decider, EventSet, FactError, Problem, Process, Rejection, Routed, Stamp,
    StreamId, StreamName,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock;

/// A stream that no other test uses.
#[must_use]
pub fn fresh_stream(category: &str) -> StreamName {
    StreamName::new("contract", category, &clock::fresh_id("s")).unwrap()
}

/// A sample domain: a till that takes and gives coins and never owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coins {
    /// How many.
    pub coins: u64,
}

/// What can happen to a till.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TillEvent {
    /// Coins came in.
    Taken(Coins),
    /// Coins went out.
    Given(Coins),
}

impl EventSet for TillEvent {
    const TYPES: &'static [(&'static str, u32)] = &[("till.taken", 1), ("till.given", 1)];

    fn type_name(&self) -> &'static str {
        match self {
            Self::Taken(_) => "till.taken",
            Self::Given(_) => "till.given",
        }
    }

    fn schema_version(&self) -> u32 {
        1
    }

    fn encode(&self) -> Box<RawValue> {
        match self {
            Self::Taken(coins) | Self::Given(coins) => kernel::encode(coins),
        }
    }

    fn decode(type_name: &str, _: u32, data: &RawValue) -> Result<Self, FactError> {
        let read = |data: &RawValue| {
            serde_json::from_str::<Coins>(data.get())
                .map_err(|error| FactError::Misfit { type_name: type_name.to_owned(), reason: error.to_string() })
        };
        match type_name {
            "till.taken" => read(data).map(Self::Taken),
            "till.given" => read(data).map(Self::Given),
            other => Err(FactError::UnknownType(other.to_owned())),
        }
    }
}

/// What may be asked of a till.
#[derive(Debug, Clone)]
pub enum TillCommand {
    /// Take coins.
    Take(Coins),
    /// Give coins.
    Give(Coins),
    /// Change nothing.
    Look,
    /// Only the platform may.
    Audit,
    /// A defect, on purpose.
    Break,
}

impl CommandSet for TillCommand {
    const SPECS: &'static [CommandSpec] = &[
        CommandSpec { name: "take", access: Access::Public, about: "Takes coins." },
        CommandSpec { name: "give", access: Access::Public, about: "Gives coins." },
        CommandSpec { name: "look", access: Access::Public, about: "Changes nothing." },
        CommandSpec { name: "audit", access: Access::Internal, about: "Only the platform may." },
        CommandSpec { name: "break", access: Access::Public, about: "Panics." },
    ];

    fn parse(name: &str, body: &[u8], _: &Stamp) -> Result<Self, Problem> {
        match name {
            "take" => kernel::object(body).map(Self::Take),
            "give" => kernel::object(body).map(Self::Give),
            "audit" => Ok(Self::Audit),
            "break" => Ok(Self::Break),
            _ => Ok(Self::Look),
        }
    }
}

/// Too few coins.
#[derive(Debug, PartialEq, Eq)]
pub struct TooFew {
    /// What is left.
    pub left: u64,
}

impl std::fmt::Display for TooFew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Only {} coins are left.", self.left)
    }
}

impl Rejection for TooFew {
    fn code(&self) -> &'static str {
        "too_few"
    }
}

/// The till's decider.
pub struct Till;

impl Decider for Till {
    const CATEGORY: &'static str = "till";
    type Command = TillCommand;
    type Event = TillEvent;
    type State = u64;
    type Rejection = TooFew;

    fn decide(coins: &u64, command: TillCommand) -> Result<Vec<TillEvent>, TooFew> {
        match command {
            TillCommand::Take(more) => Ok(vec![TillEvent::Taken(more)]),
            TillCommand::Give(less) if less.coins <= *coins => Ok(vec![TillEvent::Given(less)]),
            TillCommand::Give(_) => Err(TooFew { left: *coins }),
            TillCommand::Look | TillCommand::Audit => Ok(Vec::new()),
            TillCommand::Break => panic!("on purpose"),
        }
    }

    fn evolve(coins: u64, event: &TillEvent) -> u64 {
        match event {
            TillEvent::Taken(more) => coins + more.coins,
            TillEvent::Given(less) => coins.saturating_sub(less.coins),
        }
    }
}

/// A ledger that hears of every coin a till has given: a process.
pub struct Ledger;

/// What may be asked of a ledger.
#[derive(Debug, Clone)]
pub enum LedgerCommand {
    /// Write down that coins were given.
    Note(Coins),
}

impl CommandSet for LedgerCommand {
    const SPECS: &'static [CommandSpec] =
        &[CommandSpec { name: "note", access: Access::Internal, about: "Writes down that coins were given." }];

    fn parse(_: &str, body: &[u8], _: &Stamp) -> Result<Self, Problem> {
        kernel::object(body).map(Self::Note)
    }
}

impl Decider for Ledger {
    const CATEGORY: &'static str = "ledger";
    type Command = LedgerCommand;
    type Event = TillEvent;
    type State = u64;
    type Rejection = kernel::NoRejection;

    fn decide(_: &u64, LedgerCommand::Note(coins): LedgerCommand) -> Result<Vec<TillEvent>, kernel::NoRejection> {
        Ok(vec![TillEvent::Given(coins)])
    }

    fn evolve(sum: u64, event: &TillEvent) -> u64 {
        match event {
            TillEvent::Given(coins) => sum + coins.coins,
            TillEvent::Taken(_) => sum,
        }
    }
}

impl Process for Ledger {
    const NAME: &'static str = "contract-ledger";
    const LISTENS: &'static [&'static str] = &["till"];

    fn route(event: &kernel::Envelope<'_>) -> Vec<Routed> {
        let given = event.type_name == "till.given";
        let to = StreamId::new(&event.subject).ok().filter(|_| given);
        let body = serde_json::from_str(event.data.get()).unwrap_or_default();
        to.map(|to| Routed { to, command: "note", body }).into_iter().collect()
    }
}
