//! Shapes for the OpenAPI document: what types of other crates look like as JSON.

use serde::Serialize;
use utoipa::ToSchema;

/// Accepted: it is in the log, and synced to disk.
#[derive(Serialize, ToSchema)]
pub struct Answer {
    /// Always true.
    #[schema(example = true)]
    pub accepted: bool,
    /// The command's id.
    #[schema(example = "order-42")]
    pub command_id: String,
    /// `tenant/category/id`.
    #[schema(example = "dev/workflow/wf_12345")]
    pub stream: String,
    /// Where it stands in the log; pass it back as `at_least`.
    #[schema(example = "p1-2a")]
    pub position: String,
    /// The stream's version.
    #[schema(example = 1)]
    pub version: u64,
    /// What happened; empty when nothing had to.
    pub events: Vec<AnswerEvent>,
}

/// One event of an answer.
#[derive(Serialize, ToSchema)]
pub struct AnswerEvent {
    /// Wire name.
    #[serde(rename = "type")]
    #[schema(example = "workflow.defined")]
    pub type_name: String,
    /// The event's id.
    #[schema(example = "order-42.0")]
    pub id: String,
    /// The stream's version after it.
    #[schema(example = 1)]
    pub version: u64,
    /// When the command was taken.
    pub time: chrono::DateTime<chrono::Utc>,
}

/// Refused, or not possible now (RFC 9457).
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// `urn:airstream:problem:<code>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:airstream:problem:unknown_command")]
    pub kind: String,
    /// The problem's name.
    #[schema(example = "Unknown command")]
    pub title: String,
    /// HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// Stable name for programs.
    #[schema(example = "unknown_command")]
    pub code: String,
    /// What happened and what to do about it.
    #[schema(example = "A `run` takes no command `strat`.")]
    pub detail: String,
    /// When to ask again, in milliseconds.
    #[schema(example = json!(null))]
    pub retry_after_ms: Option<u64>,
    /// Which parts of the input were wrong; absent when it was none in particular.
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
}

/// One wrong part of an input document.
#[derive(Serialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer to the part.
    #[schema(example = "/steps/1/timeout")]
    pub pointer: String,
    /// What is wrong with it.
    #[schema(example = "This is no duration.")]
    pub detail: String,
}
