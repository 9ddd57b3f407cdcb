//! Given, when, then: decisions tested as stories, without any machine.
//!
//! ```text
//! given::<Budget>([Opened { limit: 5 }])
//!     .when(Close).then([Closed])
//!     .when(Close).then_nothing();
//! ```

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Decider, EventSet};

/// Starts a story from a history.
#[track_caller]
pub fn given<D: Decider>(history: impl IntoIterator<Item = D::Event>) -> Given<D> {
    history.into_iter().fold(Given { state: D::State::default() }, |given, event| given.and(&event))
}

/// A stream with a history.
pub struct Given<D: Decider> {
    state: D::State,
}

impl<D: Decider> Given<D> {
    /// Adds an event to the history. It goes through its wire form, so that a story also proves that what is decided
    /// can be read again.
    #[must_use]
    #[track_caller]
    pub fn and(self, event: &D::Event) -> Self {
        let read = D::Event::decode(event.type_name(), event.schema_version(), &event.encode());
        let event = read.unwrap_or_else(|error| panic!("{event:?} does not survive its wire form: {error}"));
        Self { state: D::evolve(self.state, &event) }
    }

    /// Asks for something.
    #[track_caller]
    pub fn when(self, command: D::Command) -> When<D> {
        let outcome = D::decide(&self.state, command.clone());
        When { state: self.state, command, outcome }
    }

    /// The state as folded so far.
    pub fn state(&self) -> &D::State {
        &self.state
    }
}

/// A decision, waiting to be judged.
pub struct When<D: Decider> {
    state: D::State,
    command: D::Command,
    outcome: Result<Vec<D::Event>, D::Rejection>,
}

impl<D: Decider> When<D>
where
    D::Event: PartialEq,
{
    /// Exactly these events were decided.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) -> Given<D> {
        let expected: Vec<_> = expected.into_iter().collect();
        match &self.outcome {
            Ok(events) if *events == expected => {}
            other => panic!("{:?}\n decided {other:#?}\n instead of {expected:#?}", self.command),
        }
        self.go_on()
    }

    /// Accepted, and nothing had to change.
    #[track_caller]
    pub fn then_nothing(self) -> Given<D> {
        self.then([])
    }

    /// Accepted, and the events satisfy a test.
    #[track_caller]
    pub fn then_some(self, fits: impl FnOnce(&[D::Event]) -> bool) -> Given<D> {
        match &self.outcome {
            Ok(events) if fits(events) => {}
            other => panic!("{:?}\n decided {other:#?}", self.command),
        }
        self.go_on()
    }

    /// Refused, with exactly this reason.
    #[track_caller]
    pub fn then_rejected(self, expected: D::Rejection) -> Given<D> {
        match &self.outcome {
            Err(rejection) if *rejection == expected => {}
            other => panic!("{:?}\n decided {other:#?}\n instead of refusing with {expected:?}", self.command),
        }
        Given { state: self.state }
    }

    #[track_caller]
    fn go_on(self) -> Given<D> {
        let events = self.outcome.unwrap_or_default();
        events.iter().fold(Given { state: self.state }, Given::and)
    }
}

/// The laws of every decider, for property tests: whatever the history and the command, deciding does not panic, what
/// was decided can be folded and read again, and the same command right after it changes nothing more.
#[track_caller]
pub fn assert_laws<D: Decider>(state: D::State, command: D::Command) -> D::State
where
    D::State: fmt::Debug,
{
    let Ok(events) = D::decide(&state, command.clone()) else { return state };
    let after = events.iter().fold(Given::<D> { state }, Given::and).state;
    if let Ok(again) = D::decide(&after, command.clone()) {
        assert!(again.is_empty(), "{command:?} a second time decided {again:#?} on {after:#?}");
    }
    after
}

/// The law of every decider whose streams may have snapshots: a state that is written out and read back is the same state.
/// Returns what was read, for a story to go on with it.
#[track_caller]
pub fn assert_survives_storage<S>(state: &S) -> S
where
    S: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    let written = serde_json::to_string(state).unwrap_or_else(|error| panic!("{state:#?} cannot be written: {error}"));
    let read = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{written} cannot be read: {error}"));
    assert_eq!(*state, read, "written as {written}");
    read
}
