//! The JetStream adapter: the log, the queues, and the topology they stand on, as data.
//!
//! **Invariant**: only this crate knows JetStream's headers, error codes and settings. The subjects of our own doors are
//! part of the language that services speak; their grammar is in [`subjects`].

mod ack;
pub mod backup;
mod batch;
mod callout;
mod committer;
mod connection;
mod connections;
mod door;
mod durability;
mod examine;
mod intake;
mod jwt;
mod log;
mod patience;
mod peers;
mod queue;
mod read;
pub mod subjects;
pub mod topology;

pub use callout::{Admit, Admitted, BadSeed, Knock, SERVER_WAITS, Signer, serve_callout};
pub use connection::{Connection, Credentials};
pub use connections::{Connections, CutError, Moment};
pub use door::{Handle, InOrder, Incoming, Reply, Unheard, serve, serve_in_order};
pub use durability::{ADVICE as SYNC_ADVICE, Durability, durability};
pub use examine::{Expected, examine, examine_doors};
pub use intake::intake;
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
    /// On live copies of events: the event's place. `GET /v1/events?from=…` goes on after it.
    pub const CURSOR: &str = "Airstream-Cursor";
    /// On commits: the event types inside, comma-separated.
    pub const TYPES: &str = "Airstream-Types";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
}
