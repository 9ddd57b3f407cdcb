//! Airstream, the one binary: composition, configuration, command line. The only place that knows every name.
//!
//! Data goes to stdout, words go to stderr, and the exit code says how it went (see [`failure::Exit`]).

// In a test a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod client;
mod commands;
mod config;
mod contexts;
mod detach;
mod failure;
mod input;
mod listen;
mod logging;
mod master_key;
mod output;
mod paths;
mod platform;
mod process;
mod roles;
mod signals;
mod sse;
mod state_file;
mod token;
mod traces;
mod up;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything that may speak TLS. It fails only if somebody was faster, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match usage::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let console = output::Console::new(&cli.global);
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failure::Failure::new(failure::Exit::Failed, format!("could not start the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(commands::run(cli, &console)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => console.failed(&failure),
    }
}
