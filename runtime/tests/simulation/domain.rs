//! A small domain with everything that the machines offer: doors that are opened and closed (with rejections, with
//! commits of two events, with a command that is completed from another stream), a rule, a process that counts openings, a
//! reactor that rings a bell and sets an alarm, and an inbox for refused queued commands.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use kernel::{
    Access, CommandSet, CommandSpec, Decider, EventSet, FactError, NoRejection, Problem, Process, Rejection, Routed,
    Stamp, StreamId, StreamName,
};
use runtime::{Executor, Prepare};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(crate) const TENANT: &str = "sim";

/// A commit with a key that leaves this rest by 8 cannot be projected before the world is healed.
pub(crate) const POISON_FOR_ROWS: u64 = 7;
/// As above, for the bell.
pub(crate) const POISON_FOR_BELL: u64 = 6;
/// How long a door may stay open before the alarm goes off, in milliseconds.
pub(crate) const ALARM_AFTER_MS: i64 = 4_000;

/// An event of any category here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fact {
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
}

fn fact(kind: &'static str, data: Value) -> Fact {
    Fact { kind, data }
}

impl Fact {
    fn number(&self, name: &str) -> u64 {
        self.data[name].as_u64().unwrap_or_default()
    }
}

impl EventSet for Fact {
    const TYPES: &'static [(&'static str, u32)] = &[
        ("door.opened", 1),
        ("door.closed", 1),
        ("rule.set", 1),
        ("counter.counted", 1),
        ("chime.rang", 1),
        ("chime.alarmed", 1),
        ("inbox.command_rejected", 1),
    ];

    fn type_name(&self) -> &'static str {
        self.kind
    }

    fn schema_version(&self) -> u32 {
        1
    }

    fn encode(&self) -> Box<RawValue> {
        kernel::encode(&self.data)
    }

    fn decode(type_name: &str, _: u32, data: &RawValue) -> Result<Self, FactError> {
        let known = Self::TYPES.iter().find(|(name, _)| *name == type_name);
        let (kind, _) = known.ok_or_else(|| FactError::UnknownType(type_name.to_owned()))?;
        let data = serde_json::from_str(data.get());
        data.map(|data| fact(kind, data))
            .map_err(|error| FactError::Misfit { type_name: type_name.to_owned(), reason: error.to_string() })
    }
}

/// The commands of one category: their names, and one body for all of them.
macro_rules! commands {
    ($name:ident { $($command:literal: $access:ident),+ }) => {
        #[derive(Debug, Clone)]
        #[allow(dead_code, reason = "a category with one command need not ask which it is")]
        pub(crate) struct $name {
            pub(crate) name: String,
            pub(crate) body: Body,
        }

        impl CommandSet for $name {
            const SPECS: &'static [CommandSpec] =
                &[$(CommandSpec { name: $command, access: Access::$access, about: "" }),+];

            fn parse(name: &str, body: &[u8], _: &Stamp) -> Result<Self, Problem> {
                kernel::object(body).map(|body| Self { name: name.to_owned(), body })
            }
        }
    };
}

/// The body of every command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Body {
    pub(crate) key: u64,
    pub(crate) other: u64,
    pub(crate) serial: u64,
    /// Filled in by [`Limits`].
    pub(crate) limit: u64,
    pub(crate) rejected: Value,
}

commands!(DoorCommand { "open": Public, "force": Public, "close": Public, "swap": Public, "look": Public });
commands!(RuleCommand { "set": Public });
commands!(CounterCommand { "count": Internal });
commands!(ChimeCommand { "rang": Internal, "alarmed": Internal });
commands!(InboxCommand { "reject": Internal });

/// Why a door refuses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum No {
    NotOpen,
    TooMany,
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Rejection for No {
    fn code(&self) -> &'static str {
        match self {
            Self::NotOpen => "not_open",
            Self::TooMany => "too_many",
        }
    }
}

/// A door with many locks. `force` opens whatever the rule says.
pub(crate) struct Door;

/// Which keys are open, and as the how-manieth opening.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doors {
    pub(crate) open: BTreeMap<u64, u64>,
    pub(crate) serial: u64,
}

impl Decider for Door {
    const CATEGORY: &'static str = "door";
    type Command = DoorCommand;
    type Event = Fact;
    type State = Doors;
    type Rejection = No;

    fn decide(state: &Doors, DoorCommand { name, body }: DoorCommand) -> Result<Vec<Fact>, No> {
        let opened = |key: u64| fact("door.opened", json!({ "key": key, "serial": state.serial + 1 }));
        let closed = |key: u64, serial: &u64| fact("door.closed", json!({ "key": key, "serial": serial }));
        match name.as_str() {
            "open" | "force" if state.open.contains_key(&body.key) => Ok(Vec::new()),
            "open" if state.open.len() as u64 >= body.limit => Err(No::TooMany),
            "open" | "force" => Ok(vec![opened(body.key)]),
            "close" => state.open.get(&body.key).map(|serial| vec![closed(body.key, serial)]).ok_or(No::NotOpen),
            "swap" if state.open.contains_key(&body.other) => Ok(Vec::new()),
            "swap" => {
                let serial = state.open.get(&body.key).ok_or(No::NotOpen)?;
                Ok(vec![closed(body.key, serial), opened(body.other)])
            }
            _ => Ok(Vec::new()),
        }
    }

    fn evolve(mut state: Doors, event: &Fact) -> Doors {
        let (key, serial) = (event.number("key"), event.number("serial"));
        match event.kind {
            "door.opened" => {
                state.open.insert(key, serial);
                state.serial = serial;
            }
            _ => drop(state.open.remove(&key)),
        }
        state
    }
}

/// How many locks may be open at a time.
pub(crate) struct Rule;

impl Decider for Rule {
    const CATEGORY: &'static str = "rule";
    type Command = RuleCommand;
    type Event = Fact;
    type State = u64;
    type Rejection = NoRejection;

    fn decide(limit: &u64, RuleCommand { body, .. }: RuleCommand) -> Result<Vec<Fact>, NoRejection> {
        let changed = *limit != body.limit;
        Ok(changed.then(|| fact("rule.set", json!({ "limit": body.limit }))).into_iter().collect())
    }

    fn evolve(_: u64, event: &Fact) -> u64 {
        event.number("limit")
    }
}

/// The rule's stream.
pub(crate) fn rule() -> StreamName {
    StreamName::new(TENANT, Rule::CATEGORY, "all").unwrap()
}

/// Completes an opening with the rule of the moment.
pub(crate) struct Limits;

#[async_trait]
impl Prepare<DoorCommand> for Limits {
    async fn prepare(&self, mut command: DoorCommand, _: &Stamp, executor: &Executor) -> Result<DoorCommand, Problem> {
        if command.name == "open" {
            let rule = executor.inspect::<Rule>(&rule()).await?.state;
            command.body.limit = if rule == 0 { 3 } else { rule };
        }
        Ok(command)
    }
}

/// Counts openings of the door of the same name: a process.
pub(crate) struct Counter;

impl Decider for Counter {
    const CATEGORY: &'static str = "counter";
    type Command = CounterCommand;
    type Event = Fact;
    type State = ();
    type Rejection = NoRejection;

    fn decide((): &(), CounterCommand { body, .. }: CounterCommand) -> Result<Vec<Fact>, NoRejection> {
        Ok(vec![fact("counter.counted", json!({ "serial": body.serial }))])
    }

    fn evolve((): (), _: &Fact) {}
}

impl Process for Counter {
    const NAME: &'static str = "counting";
    const LISTENS: &'static [&'static str] = &["door"];

    fn route(event: &kernel::Envelope<'_>) -> Vec<Routed> {
        let opened = event.type_name == "door.opened";
        let to = StreamId::new(&event.subject).ok().filter(|_| opened);
        let body = serde_json::from_str(event.data.get()).unwrap_or_default();
        to.map(|to| Routed { to, command: "count", body }).into_iter().collect()
    }
}

/// What the bell has reported about the door of the same name.
pub(crate) struct Chime;

impl Decider for Chime {
    const CATEGORY: &'static str = "chime";
    type Command = ChimeCommand;
    type Event = Fact;
    type State = ();
    type Rejection = NoRejection;

    // It would write a repeat down: only the command id keeps a report from counting twice.
    fn decide((): &(), ChimeCommand { name, body }: ChimeCommand) -> Result<Vec<Fact>, NoRejection> {
        let kind = if name == "rang" { "chime.rang" } else { "chime.alarmed" };
        Ok(vec![fact(kind, json!({ "serial": body.serial }))])
    }

    fn evolve((): (), _: &Fact) {}
}

/// Where refusals of queued commands are written down.
pub(crate) struct Inbox;

impl Decider for Inbox {
    const CATEGORY: &'static str = "inbox";
    type Command = InboxCommand;
    type Event = Fact;
    type State = bool;
    type Rejection = NoRejection;

    fn decide(there: &bool, InboxCommand { body, .. }: InboxCommand) -> Result<Vec<Fact>, NoRejection> {
        Ok((!there).then(|| fact("inbox.command_rejected", body.rejected)).into_iter().collect())
    }

    fn evolve(_: bool, _: &Fact) -> bool {
        true
    }
}
