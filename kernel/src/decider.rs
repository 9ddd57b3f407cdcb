//! The first of the three kinds of code: it says what happened.

use std::fmt;

use crate::{CommandSet, EventSet, Problem};

/// A pure, total decision: no clock, no random, no await. Time and new ids arrive in the command.
///
/// Laws, checked by [`scenario`](crate::scenario) and by property tests: it never panics; it accepts what it decided
/// itself; the same command a second time adds nothing.
pub trait Decider: Send + Sync + 'static {
    /// The category of its streams; also the token in subjects and URLs.
    const CATEGORY: &'static str;
    /// What may be asked.
    type Command: CommandSet;
    /// What can have happened.
    type Event: EventSet;
    /// What must be remembered to decide. The default means "not there yet".
    type State: Default + Clone + fmt::Debug + Send + Sync + 'static;
    /// A no that is a business answer.
    type Rejection: Rejection;

    /// Decides. No events means: nothing had to change, which is an acceptance.
    ///
    /// # Errors
    /// A rejection, with the facts the caller needs.
    fn decide(state: &Self::State, command: Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Folds one event into the state. Total: an event that makes no sense here changes nothing.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;
}

/// A refusal as a value. Its `Display` is a sentence a person can act on.
pub trait Rejection: fmt::Debug + fmt::Display + PartialEq + Send + Sync + 'static {
    /// Stable name for programs.
    fn code(&self) -> &'static str;

    /// The HTTP status that fits: 409 unless said otherwise.
    fn status(&self) -> u16 {
        409
    }

    /// The answer that the doors give.
    fn problem(&self) -> Problem {
        Problem::new(self.status(), self.code(), self.to_string())
    }
}

/// For deciders that never refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRejection {}

impl fmt::Display for NoRejection {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl Rejection for NoRejection {
    fn code(&self) -> &'static str {
        match *self {}
    }
}
