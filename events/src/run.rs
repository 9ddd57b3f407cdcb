//! `run`: one execution of a workflow. The definition it follows is part of its first event, so a run never changes its
//! course because somebody changed the workflow.

use std::sync::Arc;

use kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::no_old_versions;
use crate::workflow::{Definition, Kind};

/// The category's name.
pub const CATEGORY: &str = "run";

facts! {
    /// What can happen to a run.
    pub enum Event, upcast no_old_versions;
    Started = "run.started", version 1;
    StepScheduled = "run.step_scheduled", version 1;
    StepStarted = "run.step_started", version 1;
    StepReturned = "run.step_returned", version 1;
    StepCompleted = "run.step_completed", version 1;
    StepFailed = "run.step_failed", version 1;
    StepTimedOut = "run.step_timed_out", version 1;
    StepRetryScheduled = "run.step_retry_scheduled", version 1;
    Completed = "run.completed", version 1;
    Failed = "run.failed", version 1;
    Cancelled = "run.cancelled", version 1;
}

/// The run exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Which workflow.
    pub workflow: String,
    /// Version of its definition.
    pub definition_version: u32,
    /// Hash of its definition, see [`Definition::hash`].
    pub definition_hash: String,
    /// What the run will do.
    pub definition: Arc<Definition>,
    /// What the caller gave it.
    #[serde(default, skip_serializing_if = "no_value")]
    pub input: Arc<Value>,
}

/// An attempt of a step may begin: now, or for a wait at `due_at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepScheduled {
    /// The step's id.
    pub step: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What kind of step it is.
    pub kind: Kind,
    /// The step's name; of a task the name that workers listen for.
    pub name: String,
    /// When a wait ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// When the platform gives up on an attempt that it makes itself (`http`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

/// A worker has claimed an attempt of a task. Exactly one claim wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    /// The step's id.
    pub step: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Who claimed it.
    pub worker: String,
    /// When the attempt counts as timed out.
    pub deadline: Timestamp,
}

/// A claim was taken back, because the worker was gone before it could hear of it. The attempt may be claimed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReturned {
    /// The step's id.
    pub step: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Who had claimed it.
    pub worker: String,
}

/// A step is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepCompleted {
    /// The step's id.
    pub step: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What it returned. Null when `output_of` says where the value stands.
    #[serde(default, skip_serializing_if = "no_value")]
    pub output: Arc<Value>,
    /// A step that hands on what it got (`wait`, or `pass` without an output of its own) does not repeat the value: a
    /// chain of them would multiply it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_of: Option<Source>,
}

/// Where a value stands that was handed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It is the run's input.
    Input,
    /// It is the output of the step with this id.
    Step(String),
}

/// An attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// The step's id.
    pub step: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Why.
    pub error: StepError,
}

/// What went wrong in a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// A short name for programs, such as `timeout`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// Whether another attempt may help.
    #[serde(default = "yes")]
    pub retryable: bool,
    /// The reporter is certain that the attempt changed nothing outside.
    #[serde(default)]
    pub no_effect: bool,
}

/// An attempt brought no result before its deadline. It may have had its effect all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTimedOut {
    /// The step's id.
    pub step: String,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// Another attempt will follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRetryScheduled {
    /// The step's id.
    pub step: String,
    /// The coming attempt.
    pub attempt: u32,
    /// When it is due.
    pub due_at: Timestamp,
    /// The pause before it, in milliseconds.
    pub delay_ms: u64,
}

/// Every step is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// The last step's output.
    #[serde(default, skip_serializing_if = "no_value")]
    pub output: Arc<Value>,
}

/// A step failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The step's id.
    pub step: String,
    /// Why its last attempt failed.
    pub error: StepError,
}

/// Somebody stopped the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Why, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn no_value(value: &Value) -> bool {
    value.is_null()
}

fn yes() -> bool {
    true
}
