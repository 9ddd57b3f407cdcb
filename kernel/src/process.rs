//! A process: a decider that other streams' events speak to.

use serde_json::Value;

use crate::{Decider, Envelope, StreamId};

/// A command that an event calls for. It is sent in the event's tenant, with an id derived from the event's, so that
/// hearing the event twice sends it twice and it still counts once.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    /// Which of the process's streams it is for.
    pub to: StreamId,
    /// The command's wire name.
    pub command: &'static str,
    /// Its body.
    pub body: Value,
}

/// A decider with a `route` from other streams' events to its own commands. Its effects, if it has any, belong to a
/// reactor.
pub trait Process: Decider {
    /// Unique among consumers, for ever: its checkpoint and its command ids carry it.
    const NAME: &'static str;
    /// The categories it listens to.
    const LISTENS: &'static [&'static str];

    /// Which commands an event calls for. Pure, like every decision.
    fn route(event: &Envelope<'_>) -> Vec<Routed>;
}
