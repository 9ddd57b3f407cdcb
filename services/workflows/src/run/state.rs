//! What is remembered of a run, and the questions that reactors ask of it.
//!
//! It is written out for snapshots, which only the code that wrote them reads: shapes may change freely.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use events::run::Source;
use events::workflow::{Definition, Step};
use kernel::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::advance::Carried;

/// The situations of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Nobody has started it.
    #[default]
    NotStarted,
    /// It is under way.
    Running(Box<Running>),
    /// It is over.
    Finished(Box<Finished>),
}

/// A run under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Which workflow.
    pub workflow: String,
    /// Version of its definition.
    pub definition_version: u32,
    /// What the run does.
    pub definition: Arc<Definition>,
    /// What it was given.
    pub input: Arc<Value>,
    /// Every step that was reached, by id: today one after the other, later several at a time.
    pub(super) steps: BTreeMap<String, Progress>,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The current attempt, or the last one.
    pub(super) attempt: u32,
    /// Where that attempt stands; `None` once it is over.
    pub(super) phase: Option<Phase>,
    /// How the last finished attempt ended.
    pub(super) fate: Option<(u32, Fate)>,
    /// What the step returned; a null is an output, too.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub(super) output: Option<Arc<Value>>,
}

fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<Value>>, D::Error> {
    Arc::deserialize(from).map(Some)
}

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It may begin.
    Scheduled {
        /// When a wait ends.
        due_at: Option<Timestamp>,
        /// When the platform gives up on its own attempt (`http`).
        deadline: Option<Timestamp>,
    },
    /// A worker has claimed it.
    Started {
        /// Who.
        worker: String,
        /// When it counts as timed out.
        deadline: Timestamp,
    },
    /// It is yet to come, after a pause.
    Backoff {
        /// When the pause ends.
        due_at: Timestamp,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// With a result.
    Completed,
    /// With an error.
    Failed,
    /// Without a word.
    TimedOut,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Which workflow.
    pub workflow: String,
    /// Version of its definition.
    pub definition_version: u32,
    /// What it was given.
    pub input: Arc<Value>,
    /// How it ended.
    pub outcome: Outcome,
    /// How the last finished attempt of each step ended.
    pub(super) fates: BTreeMap<String, (u32, Fate)>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every step is done.
    Completed,
    /// A step failed for good.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A step that is under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActiveStep<'a> {
    /// What it says in the definition.
    pub step: &'a Step,
    /// Which attempt, from 1; in a pause the coming one.
    pub attempt: u32,
    /// Where that attempt stands.
    pub phase: &'a Phase,
}

/// When the platform must speak up by itself, and what it has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// When.
    pub at: Timestamp,
    /// Wire name of the command to send then; its body is `{step, attempt}`.
    pub command: &'static str,
}

impl Phase {
    /// The alarm to set while an attempt stands here.
    #[must_use]
    pub fn alarm(&self) -> Option<Alarm> {
        match self {
            Self::Scheduled { due_at: Some(at), .. } => Some(Alarm { at: *at, command: "finish-wait" }),
            Self::Scheduled { deadline: Some(at), .. } | Self::Started { deadline: at, .. } => {
                Some(Alarm { at: *at, command: "time-out-step" })
            }
            Self::Backoff { due_at } => Some(Alarm { at: *due_at, command: "retry-step" }),
            Self::Scheduled { due_at: None, deadline: None } => None,
        }
    }
}

/// Everything that an effect needs, and the proof that it is still wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// What the step says in the definition.
    pub step: Step,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Where that attempt stands.
    pub phase: Phase,
    /// Which workflow.
    pub workflow: String,
    /// Version of its definition.
    pub definition_version: u32,
    /// What the run was given.
    pub input: Arc<Value>,
    /// What the step before returned; the run's input for the first one.
    pub previous: Arc<Value>,
    /// What the steps so far returned, by id.
    pub outputs: BTreeMap<String, Arc<Value>>,
}

impl Running {
    /// The step that is under way. A run that is neither finished nor about to be has exactly one.
    #[must_use]
    pub fn current_step(&self) -> Option<ActiveStep<'_>> {
        let (id, attempt, phase) =
            self.steps.iter().find_map(|(id, progress)| Some((id, progress.attempt, progress.phase.as_ref()?)))?;
        let (_, step) = self.definition.step(id)?;
        Some(ActiveStep { step, attempt, phase })
    }

    /// What the steps so far returned, by id.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &Arc<Value>)> {
        self.steps.iter().filter_map(|(id, progress)| Some((id.as_str(), progress.output.as_ref()?)))
    }

    pub(super) fn progress(&self, step: &str) -> Option<&Progress> {
        self.steps.get(step)
    }

    /// What the step at `index` gets from the one before it.
    pub(super) fn carried_to(&self, index: usize) -> Carried {
        let before = index.checked_sub(1).and_then(|before| self.definition.steps.get(before));
        match before {
            None => Carried { source: Source::Input, value: self.input.clone() },
            Some(step) => {
                let source = Source::Step(step.id.clone());
                Carried { value: self.value_of(&source), source }
            }
        }
    }

    pub(super) fn value_of(&self, source: &Source) -> Arc<Value> {
        match source {
            Source::Input => self.input.clone(),
            Source::Step(id) => self.steps.get(id).and_then(|progress| progress.output.clone()).unwrap_or_default(),
        }
    }
}

impl State {
    /// Whether nothing can happen any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::Finished(_))
    }

    /// What an attempt needs, if it is still wanted: to be asked right before an effect. An attempt whose phase is
    /// [`Phase::Backoff`] is wanted later, not now.
    #[must_use]
    pub fn pending(&self, step: &str, attempt: u32) -> Option<Work> {
        let Self::Running(run) = self else { return None };
        let progress = run.progress(step).filter(|progress| progress.attempt == attempt)?;
        let phase = progress.phase.clone()?;
        let (index, step) = run.definition.step(step)?;
        Some(Work {
            step: step.clone(),
            attempt,
            phase,
            workflow: run.workflow.clone(),
            definition_version: run.definition_version,
            input: run.input.clone(),
            previous: run.carried_to(index).value,
            outputs: run.outputs().map(|(id, output)| (id.to_owned(), output.clone())).collect(),
        })
    }

    /// How the last finished attempt of a step ended.
    #[must_use]
    pub fn fate(&self, step: &str) -> Option<(u32, Fate)> {
        match self {
            Self::NotStarted => None,
            Self::Running(run) => run.progress(step)?.fate,
            Self::Finished(run) => run.fates.get(step).copied(),
        }
    }
}
