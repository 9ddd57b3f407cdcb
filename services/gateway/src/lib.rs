//! The gateway: the doors. HTTP ([`http`]), ask-and-wait and fire-and-forget on the bus ([`bus`], [`intake`] and [`queue`]),
//! who may come in there ([`admit`]) and who has to leave ([`cut`]), and what is told to everybody inside ([`feed`]).
//!
//! A door establishes who asks, turns the request into a command or a query, and turns the outcome into an answer.
//! It decides nothing, with one exception: what became of a queued command that was refused has nobody to be told to,
//! so it is told to the log ([`decider`]).

mod access;
mod admission;
mod browsers;
pub mod bus;
mod connections;
pub mod cut;
pub mod decider;
mod docs;
pub mod feed;
mod guard;
mod horizon;
mod http;
mod idempotency;
pub mod intake;
pub mod limits;
mod openapi;
mod origin;
mod pass;
pub mod queue;
mod routes;
mod shape;

pub use access::{DevelopmentAccess, Nobody};
pub use admission::admit;
pub use browsers::Browsers;
pub use http::{HttpOptions, Known, Operations, Parts, serve};
pub use origin::{ForwardedBy, Proxies};
