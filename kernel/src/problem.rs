//! What a caller gets when the answer is no.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An RFC 9457 problem document: the same shape over NATS, HTTP and the command line.
///
/// `code` is stable and meant for programs; `detail` is a sentence a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:airstream:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The problem's name, the same for every occurrence of a `code`.
    pub title: Cow<'static, str>,
    /// The HTTP status that fits; also used by the other doors.
    pub status: u16,
    /// Stable name for programs, such as `unknown_command`.
    pub code: Cow<'static, str>,
    /// What happened this time and what to do about it.
    pub detail: String,
    /// When asking again makes sense, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
    /// Which parts of the input were wrong.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<FieldError>,
}

/// One wrong part of an input document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) to the part.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// A problem of a known kind. The title is the code in words.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:airstream:problem:{code}").into(),
            title: title(code).into(),
            status,
            code: code.into(),
            detail: detail.into(),
            retry_after_ms: None,
            errors: Vec::new(),
        }
    }

    /// 400 `malformed`: the input could not be read at all.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "malformed", detail)
    }

    /// 422 `invalid`: readable, but not meaningful.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", if one.pointer.is_empty() { "the document" } else { &one.pointer }, one.detail),
            many => format!("{} parts of the document are not valid; see `errors`.", many.len()),
        };
        Self { errors, ..Self::new(422, "invalid", detail) }
    }

    /// 503 `unavailable`: something the answer needs is not there right now.
    pub fn unavailable(detail: impl Into<String>, retry_after_ms: u64) -> Self {
        Self::new(503, "unavailable", detail).retry_after(retry_after_ms)
    }

    /// 429 `busy`: a bounded queue is full.
    pub fn busy(detail: impl Into<String>, retry_after_ms: u64) -> Self {
        Self::new(429, "busy", detail).retry_after(retry_after_ms)
    }

    /// 404 `not_found`.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not_found", detail)
    }

    /// Adds a hint when to ask again.
    #[must_use]
    pub fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Whether the same request may succeed later without being changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.status, 429 | 503 | 504)
    }
}

fn title(code: &str) -> String {
    let mut words = code.replace('_', " ");
    if let Some(first) = words.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    words
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

impl std::error::Error for Problem {}

impl From<crate::InvalidName> for Problem {
    fn from(invalid: crate::InvalidName) -> Self {
        Self::new(400, "invalid_name", invalid.to_string())
    }
}

impl From<crate::InvalidPosition> for Problem {
    fn from(invalid: crate::InvalidPosition) -> Self {
        Self::new(400, "invalid_position", invalid.to_string())
    }
}
