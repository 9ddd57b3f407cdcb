//! Which decider serves which category. Registration is one typed line each; behind it the types are erased by plain
//! generic functions, so that the writer is compiled once.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use kernel::{Access, CommandSet, CommandSpec, Commit, Decider, FactError, NewEvent, Problem, Rejection, Stamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Executor;
use crate::folded::BoxState;
use crate::snapshot::Codec;
use crate::weight::Weigher;

/// A command whose type only its decider knows.
pub(crate) type BoxCommand = Box<dyn Any + Send + Sync>;

/// Completes a command with facts from other streams before it is decided, such as the definition that a run shall
/// follow. What it adds becomes part of the event, so a replay never asks again.
#[async_trait]
pub trait Prepare<C>: Send + Sync + 'static {
    /// Completes one command.
    ///
    /// # Errors
    /// A [`Problem`] when what it needs does not exist or cannot be read now.
    async fn prepare(&self, command: C, stamp: &Stamp, executor: &Executor) -> Result<C, Problem>;
}

/// What was decided, before it is in the log.
pub(crate) struct Decision {
    pub(crate) events: Vec<NewEvent>,
    /// The typed events, to be folded once the log has taken them.
    typed: Box<dyn Any + Send + Sync>,
}

#[async_trait]
pub(crate) trait ErasedDecider: Send + Sync {
    fn specs(&self) -> &'static [CommandSpec];
    fn initial(&self) -> BoxState;
    fn clone_state(&self, state: &BoxState) -> BoxState;
    fn fold(&self, state: BoxState, commit: &Commit<'_>) -> Result<BoxState, FactError>;
    fn parse(&self, name: &str, body: &[u8], stamp: &Stamp) -> Result<BoxCommand, Problem>;
    async fn prepare(&self, command: BoxCommand, stamp: &Stamp, executor: &Executor) -> Result<BoxCommand, Problem>;
    fn decide(&self, state: &BoxState, command: &BoxCommand) -> Result<Decision, Problem>;
    fn apply(&self, state: BoxState, decision: Decision) -> BoxState;
}

struct Erased<D: Decider> {
    prepare: Option<Arc<dyn Prepare<D::Command>>>,
    decider: PhantomData<fn() -> D>,
}

const OWN_TYPE: &str = "a category's states, commands and events come from its one decider";

#[async_trait]
impl<D: Decider> ErasedDecider for Erased<D> {
    fn specs(&self) -> &'static [CommandSpec] {
        D::Command::SPECS
    }

    fn initial(&self) -> BoxState {
        Box::new(D::State::default())
    }

    fn clone_state(&self, state: &BoxState) -> BoxState {
        Box::new(state.downcast_ref::<D::State>().expect(OWN_TYPE).clone())
    }

    fn fold(&self, state: BoxState, commit: &Commit<'_>) -> Result<BoxState, FactError> {
        let mut state = *state.downcast::<D::State>().expect(OWN_TYPE);
        for event in &commit.events {
            state = D::evolve(state, &event.decode()?);
        }
        Ok(Box::new(state))
    }

    fn parse(&self, name: &str, body: &[u8], stamp: &Stamp) -> Result<BoxCommand, Problem> {
        Ok(Box::new(D::Command::parse(name, body, stamp)?))
    }

    async fn prepare(&self, command: BoxCommand, stamp: &Stamp, executor: &Executor) -> Result<BoxCommand, Problem> {
        let Some(prepare) = &self.prepare else { return Ok(command) };
        let command = *command.downcast::<D::Command>().expect(OWN_TYPE);
        Ok(Box::new(prepare.prepare(command, stamp, executor).await?))
    }

    fn decide(&self, state: &BoxState, command: &BoxCommand) -> Result<Decision, Problem> {
        let state = state.downcast_ref::<D::State>().expect(OWN_TYPE);
        let command = command.downcast_ref::<D::Command>().expect(OWN_TYPE).clone();
        let events = D::decide(state, command).map_err(|rejection| rejection.problem())?;
        Ok(Decision { events: events.iter().map(NewEvent::of).collect(), typed: Box::new(events) })
    }

    fn apply(&self, state: BoxState, decision: Decision) -> BoxState {
        let state = *state.downcast::<D::State>().expect(OWN_TYPE);
        let events = *decision.typed.downcast::<Vec<D::Event>>().expect(OWN_TYPE);
        Box::new(events.iter().fold(state, D::evolve))
    }
}

/// The deciders that an executor knows.
#[derive(Default)]
pub struct Registry {
    deciders: BTreeMap<&'static str, Arc<dyn ErasedDecider>>,
    /// The categories whose streams may have snapshots.
    codecs: BTreeMap<&'static str, Codec>,
    /// How states are weighed.
    weighers: BTreeMap<&'static str, Weigher>,
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a decider.
    ///
    /// # Panics
    /// When its category has one already: two deciders cannot own the same streams.
    #[must_use]
    pub fn with<D: Decider>(self) -> Self {
        self.add::<D>(None)
    }

    /// Adds a decider whose commands are completed before they are decided.
    ///
    /// # Panics
    /// As [`Registry::with`].
    #[must_use]
    pub fn with_prepared<D: Decider>(self, prepare: impl Prepare<D::Command>) -> Self {
        self.add::<D>(Some(Arc::new(prepare)))
    }

    /// Lets the streams of a decider have snapshots, and the budget of the writers' memory know what its states take: of
    /// states that are not [`Serialize`] it is guessed from their history. Its states must say everything when they are written out: a law test of
    /// the decider shows that ([`kernel::scenario::assert_survives_storage`]).
    ///
    /// # Panics
    /// When the decider has not been added.
    #[must_use]
    pub fn with_snapshots<D: Decider>(mut self) -> Self
    where
        D::State: Serialize + DeserializeOwned,
    {
        assert!(self.deciders.contains_key(D::CATEGORY), "add the decider of `{}` first", D::CATEGORY);
        self.codecs.insert(D::CATEGORY, Codec::of::<D::State>());
        self.weighers.insert(D::CATEGORY, Weigher::walking::<D::State>());
        self
    }

    fn add<D: Decider>(mut self, prepare: Option<Arc<dyn Prepare<D::Command>>>) -> Self {
        let erased = Arc::new(Erased::<D> { prepare, decider: PhantomData });
        let before = self.deciders.insert(D::CATEGORY, erased);
        self.weighers.insert(D::CATEGORY, Weigher::of::<D::State>());
        assert!(before.is_none(), "two deciders want the category `{}`", D::CATEGORY);
        self
    }

    /// Every category with its commands; what the platform keeps to itself is marked so.
    pub fn catalogue(&self) -> impl Iterator<Item = (&'static str, &'static [CommandSpec])> + '_ {
        self.deciders.iter().map(|(category, decider)| (*category, decider.specs()))
    }

    /// Finds the decider for a command and checks that the sender may send it.
    pub(crate) fn find(
        &self,
        category: &str,
        command: &str,
        internal: bool,
    ) -> Result<Arc<dyn ErasedDecider>, Problem> {
        let Some(decider) = self.deciders.get(category) else {
            let known: Vec<_> = self.deciders.keys().copied().collect();
            let detail = format!("There is no category `{}`; there are: {}.", shorten(category), known.join(", "));
            return Err(Problem::new(404, "unknown_category", detail));
        };
        let specs = decider.specs();
        match specs.iter().find(|spec| spec.name == command) {
            Some(spec) if internal || spec.access == Access::Public => Ok(Arc::clone(decider)),
            Some(_) => {
                let detail = format!("`{command}` is sent by the platform itself; it cannot be sent from outside.");
                Err(Problem::new(403, "internal_command", detail))
            }
            None => {
                let public = specs.iter().filter(|spec| spec.access == Access::Public).map(|spec| spec.name);
                let known = public.collect::<Vec<_>>().join(", ");
                let detail = format!("`{category}` has no command `{}`; it has: {known}.", shorten(command));
                Err(Problem::new(404, "unknown_command", detail))
            }
        }
    }

    /// How states of a category are written out, if its streams may have snapshots.
    pub(crate) fn codec(&self, category: &str) -> Option<Codec> {
        self.codecs.get(category).copied()
    }

    /// How states of a category are weighed.
    pub(crate) fn weigher(&self, category: &str) -> Option<Weigher> {
        self.weighers.get(category).copied()
    }

    /// The decider of a category, whatever is asked of it.
    pub(crate) fn owner(&self, category: &str) -> Option<Arc<dyn ErasedDecider>> {
        self.deciders.get(category).map(Arc::clone)
    }
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
