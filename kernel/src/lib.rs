//! The words everybody shares: names and ids, the envelope of an event, and the three shapes of code
//! ([`Decider`], [`Process`] and the facts they speak in). No I/O, no async, no clock, no random, and no word of any
//! particular domain.
//!
//! **Invariant**: everything in this crate is a pure function of its arguments. `tests/tidy` holds it to that.

mod canonical;
mod command;
mod commit;
mod decider;
mod facts;
mod names;
mod position;
mod problem;
mod process;
pub mod scenario;
mod sealed;
pub mod storable;

pub use canonical::canonical;
pub use command::{Access, CommandId, CommandSet, CommandSpec, Fingerprint, Stamp, object};
pub use commit::{
    CONTENT_TYPE, Commit, Draft, Envelope, EventId, MalformedCommit, NewEvent, SCHEMA_PREFIX, schema_uri,
};
pub use decider::{Decider, NoRejection, Rejection};
pub use facts::{EventSet, FactError, encode};
pub use names::{Category, InvalidName, PrincipalId, SHARDS, StreamId, StreamName, TenantId, Token};
pub use position::{Cursor, InvalidPosition, Position};
pub use problem::{FieldError, Problem};
pub use process::{Process, Routed};
pub use sealed::Sealed;

/// A moment, in UTC. It is always handed in: nothing in the kernel can ask what time it is.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
