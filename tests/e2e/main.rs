//! Stories through public doors: the binary, a stock NATS client, HTTP, Postgres, Python. Each story starts its own
//! stack with the command that a person would type.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "tests report by panicking, and tell what a process said before"
)]

mod api_keys;
mod audit;
mod backup;
mod bench;
mod bus;
mod cli;
mod cluster;
mod connections;
mod description;
mod doctor;
mod doors;
mod examples;
mod fuzz;
mod gateway;
mod http;
mod identity;
mod instances;
mod mailbox;
mod oauth;
mod outage;
mod people;
mod poison;
mod privacy;
mod programs;
mod rebuild;
mod restart;
mod serve;
mod serving;
mod signing_in;
mod snapshots;
mod stack;
mod steps;
mod streams;
mod telemetry;
mod tenants;
mod walls;
