//! `inbox`: what became of commands that nobody waited for. One stream per queued command, written only when it was
//! refused: an accepted command shows in the events it led to.

use kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::no_old_versions;

/// The category's name.
pub const CATEGORY: &str = "inbox";

facts! {
    /// What can happen to a queued command.
    pub enum Event, upcast no_old_versions;
    CommandRejected = "inbox.command_rejected", version 1;
    CommandDismissed = "inbox.command_dismissed", version 1;
}

/// A queued command was refused for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRejected {
    /// The command's id.
    pub command_id: String,
    /// Category of the stream it addressed.
    pub category: String,
    /// The stream it addressed, within its category.
    pub id: String,
    /// The command's wire name.
    pub command: String,
    /// Who asked.
    pub principal: String,
    /// HTTP status of the refusal.
    pub status: u16,
    /// The problem's stable name.
    pub code: String,
    /// The problem's sentence.
    pub detail: String,
    /// The command's body, or what the sender of this fact kept of it; null when it was not JSON or too large.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// When the queue took the command.
    pub taken_at: Timestamp,
}

/// Somebody has seen the refusal and needs it no longer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommandDismissed {}
