//! The decider of workflow definitions.
//!
//! It protects one invariant: a version of a workflow never changes. Posting the same content again makes no new
//! version, other content makes the next one, and runs keep the version they were started with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use events::workflow::{self, Defined, Definition, Event, Retired};
use kernel::{Access, CommandSet, CommandSpec, Decider, Problem, Stamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use kernel::storable::cut;

mod fields;
mod http;
mod parse;
mod step;
#[cfg(test)]
mod tests;

pub use parse::{MAX_DOCUMENT_BYTES, MAX_STEPS, compile};

/// What may be asked of a workflow.
#[derive(Debug, Clone)]
pub enum Command {
    /// Sets the definition.
    Define {
        /// As it was given.
        document: Arc<Value>,
        /// What it means.
        definition: Arc<Definition>,
        /// Hash of that.
        hash: String,
    },
    /// Refuses further runs until it is defined again.
    Retire {
        /// Why, in the caller's words.
        reason: Option<String>,
    },
}

impl CommandSet for Command {
    const SPECS: &'static [CommandSpec] = &[
        CommandSpec { name: "define", access: Access::Public, about: "Sets or changes the workflow's definition." },
        CommandSpec {
            name: "retire",
            access: Access::Public,
            about: "Refuses further runs until it is defined again.",
        },
    ];

    fn parse(name: &str, body: &[u8], stamp: &Stamp) -> Result<Self, Problem> {
        match name {
            "define" => {
                let document = parse::read(body)?;
                let definition = compile(&document, stamp.stream.id.as_str()).map_err(Problem::invalid)?;
                let hash = definition.hash();
                Ok(Self::Define { document: document.into(), definition: definition.into(), hash })
            }
            "retire" => {
                let Retire { reason } = kernel::object(body)?;
                Ok(Self::Retire { reason: reason.map(|reason| cut(reason, MAX_REASON_CHARS)) })
            }
            _ => Err(Problem::not_found(format!("A workflow knows no command `{name}`."))),
        }
    }
}

/// Longest reason that is kept; the rest is cut off.
pub(crate) const MAX_REASON_CHARS: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retire {
    reason: Option<String>,
}

/// What is remembered of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Nobody has defined it.
    #[default]
    NotDefined,
    /// It may be started.
    Defined(Versions),
    /// It was retired.
    Retired(Versions),
}

/// The newest versions of a workflow by number, at most [`KEPT_VERSIONS`]; never empty. Older ones are in the log.
pub type Versions = BTreeMap<u32, ResolvedDefinition>;

/// So many versions are remembered: somebody may define a workflow again a thousand times a day, for years.
pub const KEPT_VERSIONS: usize = 8;

/// One version of a workflow, ready to be run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolvedDefinition {
    /// Which version.
    pub version: u32,
    /// See [`Definition::hash`].
    pub hash: String,
    /// What it says.
    pub definition: Arc<Definition>,
}

/// What a run shall follow.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// This.
    Found(ResolvedDefinition),
    /// A version that there was, too long ago to be remembered: see [`version`] and the log.
    Older(u32),
}

/// Finds the version that a run shall follow: the wanted one, or the latest.
///
/// # Errors
/// A [`Rejection`] when there is none, or when the workflow is retired.
pub fn resolve(state: &State, wanted: Option<u32>) -> Result<Wanted, Rejection> {
    let versions = match state {
        State::NotDefined => return Err(Rejection::UnknownWorkflow),
        State::Retired(_) => return Err(Rejection::Retired),
        State::Defined(versions) => versions,
    };
    let latest = versions.last_key_value().ok_or(Rejection::UnknownWorkflow)?.1;
    let wanted = wanted.unwrap_or(latest.version);
    match version(state, wanted) {
        Some(found) => Ok(Wanted::Found(found)),
        None if (1..latest.version).contains(&wanted) => Ok(Wanted::Older(wanted)),
        None => Err(Rejection::UnknownVersion { wanted, latest: latest.version }),
    }
}

/// A version, if the state remembers it.
#[must_use]
pub fn version(state: &State, wanted: u32) -> Option<ResolvedDefinition> {
    match state {
        State::NotDefined => None,
        State::Defined(versions) | State::Retired(versions) => versions.get(&wanted).cloned(),
    }
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Nobody has defined it.
    UnknownWorkflow,
    /// It has other versions, but not this one.
    UnknownVersion {
        /// What was asked for.
        wanted: u32,
        /// The newest there is.
        latest: u32,
    },
    /// It takes no further runs.
    Retired,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWorkflow => f.write_str("There is no such workflow; `define` it first."),
            Self::UnknownVersion { wanted, latest } => {
                write!(f, "The workflow has no version {wanted}; its latest is {latest}.")
            }
            Self::Retired => f.write_str("The workflow is retired; `define` it again to revive it."),
        }
    }
}

impl kernel::Rejection for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownWorkflow => "unknown_workflow",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::Retired => "workflow_retired",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::UnknownWorkflow | Self::UnknownVersion { .. } => 404,
            Self::Retired => 409,
        }
    }
}

/// The decider of the category `workflow`.
#[derive(Debug, Clone, Copy)]
pub struct Workflow;

impl Decider for Workflow {
    const CATEGORY: &'static str = workflow::CATEGORY;
    type Command = Command;
    type Event = Event;
    type State = State;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command) -> Result<Vec<Event>, Rejection> {
        let latest = match state {
            State::NotDefined => None,
            State::Defined(versions) | State::Retired(versions) => versions.last_key_value().map(|(_, latest)| latest),
        };
        match (state, command) {
            (State::Defined(_), Command::Define { hash, .. }) if latest.is_some_and(|latest| latest.hash == hash) => {
                Ok(vec![])
            }
            (_, Command::Define { document, definition, hash }) => {
                let version = latest.map_or(1, |latest| latest.version.saturating_add(1));
                Ok(vec![Defined { version, hash, document, definition }.into()])
            }
            (State::NotDefined, Command::Retire { .. }) => Err(Rejection::UnknownWorkflow),
            (State::Defined(_), Command::Retire { reason }) => Ok(vec![Retired { reason }.into()]),
            (State::Retired(_), Command::Retire { .. }) => Ok(vec![]),
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        match (state, event) {
            (state, Event::Defined(Defined { version, hash, definition, .. })) => {
                let mut versions = match state {
                    State::NotDefined => Versions::new(),
                    State::Defined(versions) | State::Retired(versions) => versions,
                };
                let (version, hash, definition) = (*version, hash.clone(), definition.clone());
                versions.insert(version, ResolvedDefinition { version, hash, definition });
                while versions.len() > KEPT_VERSIONS {
                    versions.pop_first();
                }
                State::Defined(versions)
            }
            (State::Defined(versions), Event::Retired(_)) => State::Retired(versions),
            (state, Event::Retired(_)) => state,
        }
    }
}
