//! The machines: everything between a command and its consequences, generic over the three kinds of code.
//!
//! * [`Executor`] takes commands, lets deciders decide and appends what was decided ([`execute`], [`shard`], [`writer`]).
//! * [`consume`] walks the log for projectors and reactors: retry, park, release.
//! * [`react`] performs effects that were recorded first, and reports by command.
//! * [`telemetry`] names the metrics, [`trace`] the spans.
//!
//! * [`lease`] says which of several instances does what; [`forward`] sends commands to the one that has their shard.
//!
//! What a machine needs from the world is a port: [`Log`], [`CommitIndex`], [`EffectStore`], [`Snapshots`], [`lease::LeaseStore`] (and [`Commands`], for whoever reports). Each port has a memory
//! adapter in [`memory`] and a suite in [`contract`] that every adapter passes.
//!
//! **Invariant**: no word of any domain in this crate.

mod cache;
pub mod clock;
pub mod consume;
pub mod contract;
pub mod effects;
mod execute;
pub mod finding;
mod folded;
pub mod forward;
mod index;
pub mod lease;
mod log;
pub mod memory;
pub mod react;
mod recall;
mod registry;
pub mod retry;
pub mod route;
mod shard;
mod snapshot;
pub mod telemetry;
pub mod trace;
mod weight;
mod writer;

pub use effects::{EffectRow, EffectState, EffectStore, Parked, ParkedState, Plan, Planned, Settlement, StoreError};
pub use execute::{Answer, AnswerEvent, Commands, Executor, Inspected, Options, Request};
pub use index::{CommitIndex, Lookup};
pub use log::{Append, AppendError, Filter, Freshness, Log, LogError, Page, Reader, Recorded};
pub use registry::{Prepare, Registry};
pub use snapshot::{Snapshot, SnapshotCache, SnapshotError, SnapshotKey, Snapshots};
