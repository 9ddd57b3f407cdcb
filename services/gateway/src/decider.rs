//! The inbox: queued commands that were refused. An entry is written once and can be dismissed.

use std::fmt;

use events::inbox::{CommandDismissed, CommandRejected, Event};
use kernel::{Access, CommandSet, CommandSpec, Decider, Problem, Rejection, Stamp};

/// What may be asked of an entry.
#[derive(Debug, Clone)]
pub enum Command {
    /// A queued command was refused.
    Reject(Box<CommandRejected>),
    /// Somebody has seen it.
    Dismiss,
}

impl CommandSet for Command {
    const SPECS: &'static [CommandSpec] = &[
        CommandSpec { name: "reject", access: Access::Internal, about: "Records that a queued command was refused." },
        CommandSpec { name: "dismiss", access: Access::Public, about: "Takes a refused command off the list." },
    ];

    fn parse(name: &str, body: &[u8], _: &Stamp) -> Result<Self, Problem> {
        match name {
            "reject" => Ok(Self::Reject(Box::new(kernel::object(body)?))),
            _ => kernel::object::<CommandDismissed>(body).map(|CommandDismissed {}| Self::Dismiss),
        }
    }
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// There is none.
    #[default]
    Nothing,
    /// Waiting to be seen.
    Listed,
    /// Seen.
    Dismissed,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such entry.
    NoSuchEntry,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("There is no such refused command; `airstream commands list --rejected` shows them.")
    }
}

impl Rejection for Refusal {
    fn code(&self) -> &'static str {
        "not_found"
    }

    fn status(&self) -> u16 {
        404
    }
}

/// The decider.
pub struct Inbox;

impl Decider for Inbox {
    const CATEGORY: &'static str = events::inbox::CATEGORY;
    type Command = Command;
    type Event = Event;
    type State = State;
    type Rejection = Refusal;

    fn decide(state: &State, command: Command) -> Result<Vec<Event>, Refusal> {
        match (state, command) {
            (State::Nothing, Command::Reject(rejected)) => Ok(vec![(*rejected).into()]),
            (_, Command::Reject(_)) | (State::Dismissed, Command::Dismiss) => Ok(Vec::new()),
            (State::Listed, Command::Dismiss) => Ok(vec![CommandDismissed {}.into()]),
            (State::Nothing, Command::Dismiss) => Err(Refusal::NoSuchEntry),
        }
    }

    fn evolve(_: State, event: &Event) -> State {
        match event {
            Event::CommandRejected(_) => State::Listed,
            Event::CommandDismissed(_) => State::Dismissed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::scenario::given;

    fn rejected() -> CommandRejected {
        CommandRejected {
            command_id: "c1".into(),
            category: "run".into(),
            id: "r1".into(),
            command: "cancel".into(),
            principal: "ann".into(),
            status: 404,
            code: "unknown_run".into(),
            detail: "There is no run.".into(),
            body: serde_json::json!({ "reason": "late" }),
            taken_at: kernel::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_refusal_is_listed_once_and_dismissed_once() {
        given::<Inbox>([])
            .when(Command::Dismiss)
            .then_rejected(Refusal::NoSuchEntry)
            .when(Command::Reject(Box::new(rejected())))
            .then([rejected().into()])
            .when(Command::Reject(Box::new(rejected())))
            .then_nothing()
            .when(Command::Dismiss)
            .then([CommandDismissed {}.into()])
            .when(Command::Dismiss)
            .then_nothing();
    }
}
