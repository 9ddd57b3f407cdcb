//! A private nats-server (or a cluster of three) and a private PostgreSQL as child processes, for `airstream up` and for every test.
//!
//! [`start`] finds each server (given URL, given path, cache, installed, fetched and verified), starts both at once
//! and returns a [`Stack`] when both answer. The stack restarts what dies, and [`Stack::stop`] ends it in order.
//!
//! The work is done by threads of this crate, not by tasks of the caller's runtime: a test's runtime ends with the
//! test while the servers shared by the tests go on, and Linux tells a child of its parent's death when the *thread*
//! that spawned it ends.
//!
//! **Invariants.** Nothing fetched is executed before its SHA-256 matched a pin compiled into this crate.
//! One folder is used by one process at a time. No child outlives this process (on Linux at once; elsewhere the next
//! start cleans up). Addresses do not change while a stack runs, whatever dies.

// In a test a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod deps;
mod directory;
mod doctor;
mod error;
mod fetch;
mod find;
mod leftovers;
mod logs;
mod nats;
mod options;
mod postgres;
mod progress;
mod secrets;
mod shared;
mod spawn;
mod stack;
mod state;
mod supervise;
mod users;
mod wait;

pub use doctor::{Finding, Status, doctor};
pub use error::StartError;
pub use nats::{NatsAddress, NatsMember, NatsTenants, example_cluster, nats_login};
/// Signals for [`Stack::kill_child`].
pub use nix::sys::signal::Signal;
pub use options::{NatsAccount, NatsUser, Options, default_cache_dir, default_data_dir};
pub use postgres::PostgresAddress;
pub use progress::{Child, Progress, Source};
pub use shared::{Shared, SharedOptions, TestAccount, shared, shared_cluster};
pub use spawn::spawn;
pub use stack::{Stack, start};
pub use supervise::{ChildFailure, ChildStop, StopReport};
