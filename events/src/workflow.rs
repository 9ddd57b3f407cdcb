//! `workflow`: definitions, and the compiled form of them that runs follow.
//!
//! What people write is kept as `document`; what is executed is the [`Definition`], with every default filled in. Its
//! [`hash`](Definition::hash) decides whether two documents say the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kernel::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::facts::no_old_versions;

/// The category's name.
pub const CATEGORY: &str = "workflow";

facts! {
    /// What can happen to a workflow.
    pub enum Event, upcast no_old_versions;
    Defined = "workflow.defined", version 1;
    Retired = "workflow.retired", version 1;
}

/// The workflow has a new definition. Runs that are under way keep theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Defined {
    /// 1 for the first definition, then one more each time.
    pub version: u32,
    /// See [`Definition::hash`].
    pub hash: String,
    /// The document as it was given.
    pub document: Arc<Value>,
    /// What it means.
    pub definition: Arc<Definition>,
}

/// Nobody may start the workflow until it is defined again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Why, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A workflow in its compiled form.
///
/// A field added here must be left out of the JSON when it is not used: hashes of old definitions would change
/// otherwise, and posting an unchanged document would make a new version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The workflow, same as its stream's id.
    pub workflow_id: String,
    /// A title for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For people's own order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The steps, in the order in which they run; never empty, ids are unique.
    pub steps: Vec<Step>,
}

impl Definition {
    /// SHA-256 over the canonical JSON (object keys sorted, no blanks), in hexadecimal digits.
    ///
    /// # Panics
    /// Never: a definition is plain JSON.
    #[must_use]
    pub fn hash(&self) -> String {
        let value = serde_json::to_value(self).expect("a definition is plain JSON");
        Sha256::digest(kernel::canonical(&value).as_bytes()).iter().fold(
            String::with_capacity(64),
            |mut digits, byte| {
                let _ = write!(digits, "{byte:02x}");
                digits
            },
        )
    }

    /// A step and its place.
    #[must_use]
    pub fn step(&self, id: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.id == id)
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique within the definition; a token of `A-Z a-z 0-9 _ -`.
    pub id: String,
    /// Of a task the name that workers listen for (a token); of other kinds a title, the id unless given.
    pub name: String,
    /// What it does.
    pub kind: StepKind,
}

impl Step {
    /// The kind, without its details.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.kind {
            StepKind::Task(_) => Kind::Task,
            StepKind::Http(_) => Kind::Http,
            StepKind::Wait(_) => Kind::Wait,
            StepKind::Pass(_) => Kind::Pass,
        }
    }

    /// How long one attempt may take, in milliseconds; `None` for kinds that cannot be late.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<u64> {
        match &self.kind {
            StepKind::Task(task) => Some(task.timeout_ms),
            StepKind::Http(http) => Some(http.timeout_ms),
            StepKind::Wait(_) | StepKind::Pass(_) => None,
        }
    }

    /// How it is retried; `None` for kinds that cannot fail.
    #[must_use]
    pub fn retry(&self) -> Option<&Retry> {
        match &self.kind {
            StepKind::Task(task) => Some(&task.retry),
            StepKind::Http(http) => Some(&http.retry),
            StepKind::Wait(_) | StepKind::Pass(_) => None,
        }
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A worker outside does it.
    Task(Task),
    /// The platform makes one HTTP request.
    Http(Http),
    /// Time passes.
    Wait(Wait),
    /// Nothing happens; the output is set or handed on.
    Pass(Pass),
}

/// A [`StepKind`] without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// See [`StepKind::Task`].
    Task,
    /// See [`StepKind::Http`].
    Http,
    /// See [`StepKind::Wait`].
    Wait,
    /// See [`StepKind::Pass`].
    Pass,
}

impl Kind {
    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Http => "http",
            Self::Wait => "wait",
            Self::Pass => "pass",
        }
    }
}

/// Work for a worker; the step's name says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Given to the worker as it stands.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// Longest time from a worker's claim to its result, in milliseconds.
    pub timeout_ms: u64,
    /// What happens when an attempt fails.
    pub retry: Retry,
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// Its method.
    pub method: Method,
    /// An absolute `http` or `https` URL.
    pub url: String,
    /// Its headers; names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Its body: a text is sent as it stands, anything else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub body: Option<Value>,
    /// Longest response that is accepted, in bytes.
    pub max_response_bytes: u32,
    /// Longest time of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// What happens when an attempt fails.
    pub retry: Retry,
}

/// The method of an HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "they say themselves")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// Every method there is.
    pub const ALL: [Self; 6] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// As HTTP spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// How long a wait takes. Its output is what it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// So many milliseconds from when it is reached.
    ForMs(u64),
    /// Until a moment; one in the past is over at once.
    Until(Timestamp),
}

/// What a `pass` step returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// Its output; `None` hands on the previous step's output, or the run's input when it comes first.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub output: Option<Value>,
}

/// What happens after a failed attempt. The n-th retry comes after `delay_ms * factor^(n-1)`, at most `max_delay_ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// How many attempts may follow the first.
    pub max: u32,
    /// Pause before the first retry, in milliseconds.
    pub delay_ms: u64,
    /// How much longer each pause is than the one before.
    pub factor: f64,
    /// Longest pause, in milliseconds.
    pub max_delay_ms: u64,
}

/// Keeps a `null` that was given apart from a field that was not.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}
