//! The JetStream adapter: the log, the queues, and the topology they stand on, as data.
//!
//! **Invariant**: only this crate knows JetStream's headers, error codes and settings. The subjects of our own doors are
//! part of the language that services speak; their grammar is in [`subjects`].

mod ack;
pub mod backup;
mod batch;
mod committer;
mod connection;
mod door;
mod durability;
mod examine;
mod log;
mod patience;
mod peers;
mod queue;
mod read;
pub mod subjects;
pub mod topology;

pub use connection::{Connection, Credentials};
pub use door::{Handle, Incoming, Reply, Unheard, serve};
pub use durability::{ADVICE as SYNC_ADVICE, Durability, durability};
pub use examine::{Expected, examine};
pub use log::JetStreamLog;
pub use peers::{Peers, serve_peers};
pub use queue::{Delivery, QueueError, WorkQueue};
pub use topology::{Drift, TopologyError};

/// Names of the headers that people meet on the bus.
pub mod headers {
    /// Idempotency key of a command.
    pub const COMMAND_ID: &str = "Airstream-Command-Id";
    /// The chain a command belongs to.
    pub const CORRELATION_ID: &str = "Airstream-Correlation-Id";
    /// Decide only if the stream has exactly this version.
    pub const EXPECTED_VERSION: &str = "Airstream-Expected-Version";
    /// On replies: the HTTP status that fits.
    pub const STATUS: &str = "Airstream-Status";
    /// On replies: present when the answer repeats one given before.
    pub const REPEATED: &str = "Airstream-Repeated";
    /// On commits: the event types inside, comma-separated.
    pub const TYPES: &str = "Airstream-Types";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
}
