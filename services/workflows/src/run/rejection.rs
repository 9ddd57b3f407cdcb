//! Why a run says no.

use std::fmt;

use events::workflow::Kind;
use kernel::{Problem, Timestamp};

use super::state::Outcome;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Nobody has defined this workflow.
    UnknownWorkflow {
        /// Which.
        workflow: String,
    },
    /// The run exists already, with another workflow, version or input.
    AlreadyStarted {
        /// The workflow it was started with.
        workflow: String,
    },
    /// Nobody has started this run.
    NotStarted,
    /// The run is over.
    AlreadyFinished {
        /// How it ended.
        outcome: Outcome,
    },
    /// The definition has no such step.
    UnknownStep {
        /// Which.
        step: String,
    },
    /// The step has not been reached, or nothing of that sort is expected of it.
    NotScheduled {
        /// Which.
        step: String,
    },
    /// Another attempt is the current one.
    StaleAttempt {
        /// Which.
        current: u32,
    },
    /// The attempt is over, with another result.
    StepOver {
        /// Which step.
        step: String,
    },
    /// Another worker was faster.
    AlreadyClaimed {
        /// Who.
        by: String,
    },
    /// Steps of this kind do not take this command, or not from this caller.
    WrongKind {
        /// Which step.
        step: String,
        /// Its kind.
        kind: Kind,
    },
    /// It is too early.
    NotDue {
        /// When it is time.
        due_at: Timestamp,
        /// How long until then, in milliseconds.
        wait_ms: u64,
    },
}

impl Rejection {
    /// It is too early.
    pub(super) fn not_due(due_at: Timestamp, at: Timestamp) -> Self {
        let wait_ms = u64::try_from(due_at.signed_duration_since(at).num_milliseconds()).unwrap_or(0);
        Self::NotDue { due_at, wait_ms }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWorkflow { workflow } => write!(f, "There is no workflow `{workflow}`; `define` it first."),
            Self::AlreadyStarted { workflow } => {
                write!(f, "This run of `{workflow}` was started with another workflow, version or input; use a new id.")
            }
            Self::NotStarted => f.write_str("There is no such run."),
            Self::AlreadyFinished { outcome } => write!(f, "The run is already {outcome}."),
            Self::UnknownStep { step } => write!(f, "The run has no step `{step}`."),
            Self::NotScheduled { step } => write!(f, "Nothing of that sort is expected of step `{step}` now."),
            Self::StaleAttempt { current } => write!(f, "The step's current attempt is number {current}."),
            Self::StepOver { step } => write!(f, "This attempt of step `{step}` is over, with another result."),
            Self::AlreadyClaimed { by } => write!(f, "The worker `{by}` has claimed this attempt."),
            Self::WrongKind { step, kind } => {
                write!(f, "Step `{step}` is of kind `{}`; nobody outside works on it.", kind.as_str())
            }
            Self::NotDue { due_at, wait_ms } => write!(f, "It is {wait_ms} ms too early: that is due at {due_at}."),
        }
    }
}

impl kernel::Rejection for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownWorkflow { .. } => "unknown_workflow",
            Self::AlreadyStarted { .. } => "already_started",
            Self::NotStarted => "unknown_run",
            Self::AlreadyFinished { .. } => "run_finished",
            Self::UnknownStep { .. } => "unknown_step",
            Self::NotScheduled { .. } => "not_scheduled",
            Self::StaleAttempt { .. } => "stale_attempt",
            Self::StepOver { .. } => "step_over",
            Self::AlreadyClaimed { .. } => "already_claimed",
            Self::WrongKind { .. } => "wrong_kind",
            Self::NotDue { .. } => "not_due",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::UnknownWorkflow { .. } | Self::NotStarted | Self::UnknownStep { .. } => 404,
            _ => 409,
        }
    }

    fn problem(&self) -> Problem {
        let problem = Problem::new(self.status(), self.code(), self.to_string());
        match self {
            Self::NotDue { wait_ms, .. } => problem.retry_after(*wait_ms),
            _ => problem,
        }
    }
}
