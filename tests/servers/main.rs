//! The adapters on the real servers: the same suites as in memory, and what only a real server can show.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests report by panicking")]

mod api_keys;
mod audit;
mod backup;
mod bad_input;
mod cluster;
mod door;
mod durability;
mod ended;
mod identity;
mod limits;
mod mail;
mod parking;
mod poison;
mod ports;
mod queue;
mod rebuild;
mod schema;
mod snapshots;
mod tenants;
mod topology;
mod versions;
