//! Workflows: definitions that people post, and the runs that follow them.
//!
//! [`definition`] and [`run`] decide; what they decide is in [`events::workflow`] and [`events::run`].

#![allow(clippy::result_large_err, reason = "a problem is the answer to a caller, not a hot path")]

#[cfg(test)]
mod any;
pub mod definition;
mod limits;
pub mod run;
mod seconds;
