//! The checker: looks at what a run left behind and says which promises were broken.
//!
//! It shares no code with what it checks. The log arrives as raw bytes, rows as plain JSON, answers as the callers wrote
//! them down; the envelope, the shard, the fold of runs and the timestamps are read here a second time, from the documents
//! (`docs/bus.md`, DESIGN §2) and not from our crates. A mistake made there cannot hide here.
//!
//! One file per law in [`laws`], one per projection in [`rows`]. Both the chaos tests (real servers, `kill -9`) and the
//! simulation (memory adapters, a seed) hand their evidence to [`check`].

mod laws;
mod log;
mod rows;
mod time;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use serde_json::Value;

/// One message of the log, as it was read raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its sequence number in the log, from 1.
    pub sequence: u64,
    /// The subject it stands under: `ev.<shard>.<tenant>.<category>.<id>`.
    pub subject: String,
    /// Whether it carries the header of the guard, as everything does that a writer of ours writes.
    pub guarded: bool,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// One try of one command, as its caller saw it.
///
/// A caller stands for one command id: it tries until it hears a final answer, one try after the other, and may then
/// repeat what was accepted. Tries are listed in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `tenant/category/id`.
    pub stream: String,
    /// The command's wire name.
    pub command: String,
    /// Its id.
    pub command_id: String,
    /// What the caller heard.
    pub outcome: Outcome,
}

/// What a caller heard of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was accepted, now or at an earlier try.
    Accepted {
        /// Sequence of its commit.
        position: u64,
        /// The stream's version after it.
        version: u64,
        /// Types of its events, in order; never empty.
        events: Vec<String>,
    },
    /// It was accepted and nothing had to happen: an answer without events.
    NothingToDo,
    /// A final no.
    Refused {
        /// The problem's code.
        code: String,
    },
    /// Not now, and certainly nothing was written (`busy`, `unavailable`, `contended`): the caller asks again.
    NotNow {
        /// The problem's code.
        code: String,
    },
    /// No answer, or one that says that the outcome is not known (`outcome_unknown`).
    Unknown,
}

/// One command that was published to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// `tenant/category/id`.
    pub stream: String,
    /// Its id.
    pub command_id: String,
    /// Its place among the commands for its stream, in the order in which the queue took them.
    pub place: u64,
    /// Whether it must have left a trace by now, a commit or a refusal in the inbox; false where it may change nothing.
    pub leaves_a_trace: bool,
}

/// One row of the record of effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The reactor's name.
    pub consumer: String,
    /// `tenant/category/id`.
    pub stream: String,
    /// Its name within the stream.
    pub name: String,
    /// `scheduled`, `done` or `parked`.
    pub state: String,
}

/// One time that an effect was done in the world, as the world saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Performed {
    /// The reactor's name.
    pub consumer: String,
    /// `tenant/category/id`.
    pub stream: String,
    /// Its name within the stream.
    pub name: String,
    /// The idempotency key that came with it.
    pub key: String,
}

/// Everything a run left behind.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The whole log, in order.
    pub log: Vec<Message>,
    /// Every try of every command.
    pub asked: Vec<Asked>,
    /// Every queued command.
    pub queued: Vec<Queued>,
    /// The whole record of effects.
    pub effects: Vec<Effect>,
    /// Every time that an effect was done.
    pub performed: Vec<Performed>,
    /// Rows by table, such as `runs_v1.runs`, each as `to_jsonb` gives it. Tables that are not named are not compared;
    /// one that is named must be complete. [`TABLES`] lists what can be compared.
    pub rows: BTreeMap<String, Vec<Value>>,
    /// Runs (`tenant/run/id`) that may be open at the end. Every other run that started must have come to an end.
    pub open_runs: BTreeSet<String>,
}

/// The tables whose rows can be compared with the fold of the log.
pub const TABLES: &[&str] = rows::TABLES;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which law.
    pub law: &'static str,
    /// What is wrong, with the stream, the position and the command id that it concerns.
    pub sentence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.law, self.sentence)
    }
}

/// Every broken promise that the evidence shows; empty is good.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Found::default();
    laws::positions::check(evidence, &mut found);
    let history = log::read(evidence, &mut found);
    laws::versions::check(&history, &mut found);
    laws::ids::check(&history, &mut found);
    laws::answers::check(evidence, &history, &mut found);
    laws::queue::check(evidence, &history, &mut found);
    laws::effects::check(evidence, &history, &mut found);
    laws::runs_end::check(evidence, &history, &mut found);
    rows::check(evidence, &history, &mut found);
    found.0
}

/// As [`check`], for the reactor of runs in a world at rest: every effect that the log calls for is recorded and done, and
/// requests outside belong to steps.
#[must_use]
pub fn check_world(evidence: &Evidence) -> Vec<Violation> {
    // What cannot be read is `check`'s to tell.
    let history = log::read(evidence, &mut Found::default());
    let mut found = Found::default();
    world::check(evidence, &history, &mut found);
    found.0
}

/// Collects violations.
#[derive(Debug, Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, law: &'static str, sentence: String) {
        self.0.push(Violation { law, sentence });
    }
}
