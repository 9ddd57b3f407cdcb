//! Workflows: definitions that people post, and the runs that follow them.
//!
//! * [`definition`] and [`run`] decide; what they decide is in [`events::workflow`] and [`events::run`].
//! * [`start`] completes a `start` command with the definition that the run will follow.
//! * [`reactor`] does what steps call for: hand tasks out, make requests, let time pass.
//! * [`work`] is where outside workers ask for the next task.
//! * [`routes`] is the HTTP side.
//!
//! To register: `.with::<definition::Workflow>()`, `.with_prepared::<run::Run>(start::Resolve::default())`, `react::run(Steps…)`,
//! and the routes.

#![allow(clippy::result_large_err, reason = "a problem is the answer to a caller, not a hot path")]

#[cfg(test)]
mod any;
pub mod definition;
mod http;
mod reach;
pub mod reactor;
pub mod routes;
pub mod run;
mod seconds;
pub mod start;
pub mod work;

pub use reach::Reach;
